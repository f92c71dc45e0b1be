//! A run's standard streams: output goes to the container's log, and to whoever is attached; or to
//! pipes, as does input.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::budget::{Budget, Charge};
use super::log::Log;
use super::pipe::{Pipe, Receiver};
use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// Most bytes a guest may write before it asks again.
const PERMIT: usize = 64 * 1024;
/// How long a container waits for somebody attached who takes nothing, before it goes on without.
/// Long enough for a slow network, short enough that a forgotten terminal stops nobody for good.
const STALL_MAX: Duration = Duration::from_secs(10);
/// What somebody attached may be behind.
const TAP_BYTES: usize = 256 << 10;
/// For how long after a container's start whoever attaches has not missed anything: a client attaches once it
/// sees that the container runs, and a guest may have said all by then.
const EARLY_MAX: Duration = Duration::from_secs(5);
/// What is kept for them of each stream, the latest.
const EARLY_BYTES: usize = 16 << 10;
/// How many may be attached to one stream of a container.
const TAPS_MAX: usize = 64;

/// Where a run's standard streams lead.
#[derive(Clone)]
pub struct Stdio {
    /// `None` is empty.
    pub stdin: Option<Arc<Pipe>>,
    pub stdout: Output,
    pub stderr: Output,
    /// Whether the guest is told that it speaks to a terminal.
    pub tty: bool,
}

impl Stdio {
    /// No input, and all output to `log`.
    #[must_use]
    pub fn log(log: &Arc<Log>) -> Self {
        let output = Output::Log { log: Arc::clone(log), taps: None };
        Self { stdin: None, stdout: output.clone(), stderr: output, tty: false }
    }

    /// Bytes that its pipes may hold. Logs are bounded for themselves, and belong to the node.
    pub(super) fn pipe_bytes(&self) -> u64 {
        let stdin = self.stdin.as_deref().map_or(0, Pipe::bytes_max);
        let outputs = [&self.stdout, &self.stderr].map(|output| match output {
            Output::Log { .. } => 0,
            Output::Pipe(pipe) => pipe.bytes_max(),
        });
        u64::try_from(stdin + outputs[0] + outputs[1]).unwrap_or(u64::MAX)
    }

    /// The run has ended.
    pub(super) fn close(&self) {
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
        self.stdout.close();
        self.stderr.close();
    }

    pub(super) fn guest_stdin(&self) -> Option<GuestInput> {
        self.stdin.as_ref().map(|pipe| GuestInput { pipe: Arc::clone(pipe), tty: self.tty })
    }

    pub(super) fn guest_stdout(&self) -> GuestOutput {
        GuestOutput { output: self.stdout.clone(), tty: self.tty }
    }

    pub(super) fn guest_stderr(&self) -> GuestOutput {
        GuestOutput { output: self.stderr.clone(), tty: self.tty }
    }
}

/// Where one stream of output goes.
#[derive(Clone)]
pub enum Output {
    /// Kept, and passed on to those who are attached.
    Log {
        log: Arc<Log>,
        taps: Option<Arc<Taps>>,
    },
    Pipe(Arc<Pipe>),
}

impl Output {
    fn room(&self) -> Option<usize> {
        match self {
            Self::Log { taps, .. } => Some(taps.as_ref().map_or(PERMIT, |taps| taps.room().min(PERMIT))),
            Self::Pipe(pipe) => pipe.room(),
        }
    }

    pub(super) fn put(&self, bytes: &[u8]) {
        match self {
            Self::Log { log, taps } => {
                log.write(bytes);
                if let Some(taps) = taps {
                    taps.put(bytes);
                }
            }
            Self::Pipe(pipe) => pipe.put(bytes),
        }
    }

    async fn writable(&self) {
        match self {
            Self::Log { taps, .. } => {
                if let Some(taps) = taps {
                    taps.writable().await;
                }
            }
            Self::Pipe(pipe) => pipe.writable().await,
        }
    }

    fn close(&self) {
        match self {
            Self::Log { log, taps } => {
                log.close();
                if let Some(taps) = taps {
                    taps.end();
                }
            }
            Self::Pipe(pipe) => pipe.end(),
        }
    }
}

/// Those who are attached to one stream of a running container: each sees what is written from now on, and
/// whoever came early what was written before.
pub struct Taps {
    clock: Clock,
    budget: Arc<Budget>,
    began: Duration,
    state: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    taps: Vec<Tap>,
    /// What nobody attached has seen yet.
    early: VecDeque<u8>,
    ended: bool,
}

struct Tap {
    pipe: Arc<Pipe>,
    /// What it may be behind is taken from the container.
    _charge: Charge,
}

impl Taps {
    #[must_use]
    pub fn new(clock: Clock, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { clock, budget, began: clock.monotonic(), state: Mutex::default() })
    }

    /// What is written from now on, and the first time soon after the start also what was before; `None` if too many are attached, or the container's memory has no room
    /// for what one more may be behind. Whoever reads too slowly holds the
    /// container up, and is let go of when it has not read for ten seconds.
    #[must_use]
    pub fn attach(&self) -> Option<Receiver> {
        let mut state = self.state();
        state.taps.retain(|tap| tap.pipe.room().is_some());
        if state.taps.len() >= TAPS_MAX {
            return None;
        }
        let pipe = Pipe::new(TAP_BYTES);
        let charge = match state.ended {
            true => None,
            false => Some(self.budget.charge(u64::try_from(TAP_BYTES).unwrap_or(u64::MAX)).ok()?),
        };
        let early = std::mem::take(&mut state.early);
        if self.is_early() {
            pipe.put(&Vec::from(early));
        }
        match charge {
            Some(charge) => state.taps.push(Tap { pipe: Arc::clone(&pipe), _charge: charge }),
            None => pipe.end(),
        }
        Some(Receiver::of(pipe))
    }

    fn room(&self) -> usize {
        self.state().taps.iter().filter_map(|tap| tap.pipe.room()).min().unwrap_or(usize::MAX)
    }

    fn put(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.taps.retain(|tap| tap.pipe.room().is_some());
        for tap in &state.taps {
            tap.pipe.put(bytes);
        }
        if !state.taps.is_empty() {
            return;
        }
        if self.is_early() {
            let latest = &bytes[bytes.len().saturating_sub(EARLY_BYTES)..];
            let spare = (state.early.len() + latest.len()).saturating_sub(EARLY_BYTES);
            state.early.drain(..spare);
            state.early.extend(latest);
        } else if !state.early.is_empty() {
            state.early = VecDeque::new();
        }
    }

    fn is_early(&self) -> bool {
        self.clock.monotonic().saturating_sub(self.began) < EARLY_MAX
    }

    async fn writable(&self) {
        loop {
            let full =
                self.state().taps.iter().map(|tap| &tap.pipe).find(|pipe| pipe.room() == Some(0)).cloned();
            let Some(full) = full else { return };
            if self.clock.timeout(STALL_MAX, full.writable()).await.is_err() {
                full.end();
            }
        }
    }

    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        for tap in state.taps.drain(..) {
            tap.pipe.end();
        }
    }

    fn state(&self) -> MutexGuard<'_, Attached> {
        self.state.lock().expect("no holder panics")
    }
}

/// Output as the guest sees it.
#[derive(Clone)]
pub(super) struct GuestOutput {
    output: Output,
    tty: bool,
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {
        self.output.writable().await;
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.output.room().ok_or(StreamError::Closed)
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdoutStream for GuestOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Polled { stream: self.clone(), waiting: None })
    }
}

/// Input as the guest sees it.
#[derive(Clone)]
pub(super) struct GuestInput {
    pipe: Arc<Pipe>,
    tty: bool,
}

#[async_trait]
impl Pollable for GuestInput {
    async fn ready(&mut self) {
        self.pipe.readable().await;
    }
}

impl InputStream for GuestInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.pipe.take(size).ok_or(StreamError::Closed)
    }
}

impl IsTerminal for GuestInput {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdinStream for GuestInput {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Polled { stream: self.clone(), waiting: None })
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

/// A stream as tokio polls one, with the wait that is under way.
struct Polled<T> {
    stream: T,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl<T> Polled<T> {
    /// Waits until `wait` has come true.
    fn poll_wait<W>(&mut self, context: &mut Context<'_>, wait: impl FnOnce(&T) -> W) -> Poll<()>
    where
        W: Future<Output = ()> + Send + Sync + 'static,
    {
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(wait(&self.stream)));
        ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(())
    }
}

impl AsyncWrite for Polled<GuestOutput> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let Some(room) = self.stream.output.room() else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            if room > 0 {
                let count = room.min(bytes.len());
                self.stream.output.put(&bytes[..count]);
                return Poll::Ready(Ok(count));
            }
            ready!(self.poll_wait(context, |stream| {
                let output = stream.output.clone();
                async move { output.writable().await }
            }));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Polled<GuestInput> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.stream.pipe.take(buffer.remaining()) {
                None => return Poll::Ready(Ok(())),
                Some(bytes) if !bytes.is_empty() => {
                    buffer.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Some(_) => ready!(self.poll_wait(context, |stream| {
                    let pipe = Arc::clone(&stream.pipe);
                    async move { pipe.readable().await }
                })),
            }
        }
    }
}
