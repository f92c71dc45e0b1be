//! A client's connection: what it begins with, and that it goes on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::Clock;

/// How long a client may take no byte of its answer, or send none of its body.
pub(super) const STALL_MAX: Duration = Duration::from_secs(60);

/// What HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A wait that is under way.
pub(super) type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whether `head` is HTTP/2's beginning; `None` if more of it would tell.
pub(super) fn is_http2(head: &[u8]) -> Option<bool> {
    match head.strip_prefix(PREFACE) {
        Some(_) => Some(true),
        None if PREFACE.starts_with(head) => None,
        None => Some(false),
    }
}

/// Reads until it is clear which protocol the client speaks: whether that is HTTP/2, and what was read.
/// `None` if it said nothing.
pub(super) async fn begin(stream: &mut TcpStream) -> io::Result<Option<(bool, Bytes)>> {
    let mut head = Vec::with_capacity(PREFACE.len());
    loop {
        let room = PREFACE.len() - head.len();
        if (&mut *stream).take(u64::try_from(room).unwrap_or(0)).read_buf(&mut head).await? == 0 {
            // What ends within the preface is no request either.
            return Ok(None);
        }
        if let Some(is_http2) = is_http2(&head) {
            return Ok(Some((is_http2, head.into())));
        }
    }
}

/// A connection of which the beginning was read already, and on which writing may not stall.
pub(super) struct Paced {
    stream: TcpStream,
    head: Bytes,
    clock: Clock,
    pause: Option<Pause>,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, head: Bytes, clock: Clock) -> Self {
        Self { stream, head, clock, pause: None }
    }

    /// What a write came to; late if it has waited for too long.
    fn paced<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.pause = None;
            return written;
        }
        let clock = self.clock;
        let pause = self.pause.get_or_insert_with(|| Box::pin(async move { clock.sleep(STALL_MAX).await }));
        ready!(pause.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.head.len().min(buffer.remaining());
        buffer.put_slice(&self.head[..count]);
        self.head.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.paced(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.paced(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
