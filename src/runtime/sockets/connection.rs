//! An open connection, and the streams by which a guest uses it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::Takes;
use crate::clock::Clock;
use crate::runtime::doors;

#[cfg(test)]
mod tests;

/// What is read at a time, and what a guest may give to be written at a time.
const PIECE: usize = 64 << 10;
/// How long what a guest has written is still sent once the guest is gone.
const LINGER: Duration = Duration::from_secs(30);

/// A connection, open until neither the guest nor what is still to be sent needs it.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    _takes: Takes,
    /// What it counts by where it was accepted, if that was not the guest's socket.
    _held: Option<doors::Held>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, takes: Takes, held: Option<doors::Held>) -> Arc<Self> {
        // WASI knows no such option, and nobody gains by waiting for more to send. Only a matter of speed.
        stream.set_nodelay(true).ok();
        Arc::new(Self { stream, _takes: takes, _held: held })
    }

    fn end_sending(&self) {
        // Whoever has gone already needs no end.
        shutdown(&self.stream, Shutdown::Write).ok();
    }
}

/// The guest's `input-stream`; `None` once there is nothing more to read. Clones are the same stream.
#[derive(Clone)]
pub(super) struct Reader(Arc<Mutex<Option<Arc<Connection>>>>);

impl Reader {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        Self(Arc::new(Mutex::new(Some(Arc::clone(connection)))))
    }

    pub(super) fn close(&self) {
        *self.open() = None;
    }

    fn open(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.0.lock().expect("no holder panics")
    }
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut open = self.open();
        let Some(connection) = &*open else { return Err(StreamError::Closed) };
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = BytesMut::with_capacity(size.min(PIECE)).limit(size.min(PIECE));
        match connection.stream.try_read_buf(&mut buffer) {
            Ok(0) => {
                *open = None;
                Err(StreamError::Closed)
            }
            Ok(_) => Ok(buffer.into_inner().freeze()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            Err(error) => {
                *open = None;
                Err(StreamError::LastOperationFailed(error.into()))
            }
        }
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        let open = self.open().clone();
        if let Some(connection) = open {
            // An error is for `read` to tell.
            connection.stream.readable().await.ok();
        }
    }
}

/// The guest's `output-stream`; dropped, nothing more comes.
pub(super) struct Writer {
    state: SharedWriting,
    clock: Clock,
}

type SharedWriting = Arc<Mutex<Writing>>;

/// The socket's hold on its [`Writer`].
pub(super) struct WriterEnd(SharedWriting);

impl WriterEnd {
    /// Says that nothing more comes, after what was written already.
    pub(super) fn close(&self) {
        state(&self.0).close();
    }
}

fn state(shared: &SharedWriting) -> MutexGuard<'_, Writing> {
    shared.lock().expect("no holder panics")
}

enum Writing {
    Open(Arc<Connection>),
    /// What the system did not take at once is being sent.
    Busy(Arc<Connection>, Sending),
    /// Nothing more is written. What was is being sent, or was.
    Closing {
        _guest: Option<oneshot::Sender<Infallible>>,
    },
    /// The guest has not been told yet.
    Failed(io::Error),
}

/// A task that sends, while the guest is there or for [`LINGER`].
struct Sending {
    task: JoinHandle<io::Result<()>>,
    guest: oneshot::Sender<Infallible>,
}

impl Writer {
    pub(super) fn new(connection: &Arc<Connection>, clock: Clock) -> (Self, WriterEnd) {
        let state = Arc::new(Mutex::new(Writing::Open(Arc::clone(connection))));
        (Self { state: Arc::clone(&state), clock }, WriterEnd(state))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        state(&self.state).close();
    }
}

impl Writing {
    const CLOSED: Self = Self::Closing { _guest: None };

    /// Waits until nothing is being sent.
    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self::Busy(connection, sending) = self else { return Poll::Ready(()) };
        let sent = ready!(Pin::new(&mut sending.task).poll(context));
        *self = match sent.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            Ok(()) => Self::Open(Arc::clone(connection)),
            Err(error) => Self::failed(error),
        };
        Poll::Ready(())
    }

    fn failed(error: io::Error) -> Self {
        // The other side reads no more: that is no failure, but an end.
        if error.kind() == io::ErrorKind::BrokenPipe { Self::CLOSED } else { Self::Failed(error) }
    }

    fn close(&mut self) {
        match std::mem::replace(self, Self::CLOSED) {
            Self::Open(connection) => connection.end_sending(),
            Self::Busy(connection, Sending { task, guest }) => {
                // Without a runtime all ends, and the connection with it.
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(async move {
                        task.await.ok();
                        connection.end_sending();
                    });
                }
                *self = Self::Closing { _guest: Some(guest) };
            }
            before @ (Self::Closing { .. } | Self::Failed(_)) => *self = before,
        }
    }

    /// The connection if it can be written to now; `None` while something is being sent.
    fn open(&mut self) -> StreamResult<Option<&Arc<Connection>>> {
        if self.poll_settled(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Ok(None);
        }
        if let Self::Failed(_) = self
            && let Self::Failed(error) = std::mem::replace(self, Self::CLOSED)
        {
            return Err(StreamError::LastOperationFailed(error.into()));
        }
        match self {
            Self::Open(connection) => Ok(Some(connection)),
            Self::Busy(..) | Self::Closing { .. } | Self::Failed(_) => Err(StreamError::Closed),
        }
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        let mut state = state(&self.state);
        let Some(connection) = state.open()? else {
            return Err(StreamError::trap("written while check-write permits nothing"));
        };
        if bytes.len() > PIECE {
            return Err(StreamError::trap("written more than check-write permits"));
        }
        let sent = send_now(&connection.stream, &mut bytes);
        let connection = Arc::clone(connection);
        match sent {
            Ok(()) if bytes.is_empty() => {}
            Ok(()) => {
                let (guest, gone) = oneshot::channel();
                let task = tokio::spawn(send(Arc::clone(&connection), bytes, gone, self.clock));
                *state = Writing::Busy(connection, Sending { task, guest });
            }
            Err(error) => {
                *state = Writing::failed(error);
                // It is told now.
                return state.open().map(|_| ());
            }
        }
        Ok(())
    }

    /// All is sent as soon as it can be.
    fn flush(&mut self) -> StreamResult<()> {
        state(&self.state).open().map(|_| ())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(state(&self.state).open()?.map_or(0, |_| PIECE))
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        poll_fn(|context| state(&self.state).poll_settled(context)).await;
        let open = match &*state(&self.state) {
            Writing::Open(connection) => Some(Arc::clone(connection)),
            Writing::Busy(..) | Writing::Closing { .. } | Writing::Failed(_) => None,
        };
        if let Some(connection) = open {
            // An error is for `write` to tell.
            connection.stream.writable().await.ok();
        }
    }
}

/// Sends what the system takes at once.
fn send_now(stream: &TcpStream, bytes: &mut Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(sent) => drop(bytes.split_to(sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends the rest; not for ever once the guest is `gone`.
async fn send(
    connection: Arc<Connection>,
    mut bytes: Bytes,
    gone: oneshot::Receiver<Infallible>,
    clock: Clock,
) -> io::Result<()> {
    let stream = &connection.stream;
    let mut all = pin!(async {
        while !bytes.is_empty() {
            stream.writable().await?;
            send_now(stream, &mut bytes)?;
        }
        Ok(())
    });
    tokio::select! {
        biased;
        sent = &mut all => return sent,
        _ = gone => {}
    }
    clock.timeout(LINGER, all).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
