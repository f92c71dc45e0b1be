//! Bodies: of requests as guests read them, and of answers as clients do.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::exchange::AccessLine;
use super::stream::{Pause, STALL_MAX};
use crate::clock::Clock;

/// A request's body.
pub(super) struct Received {
    body: Incoming,
    max: Option<u64>,
    read: u64,
    clock: Clock,
    pause: Option<Pause>,
}

impl Received {
    /// A body of at most `max` bytes.
    pub(super) fn new(body: Incoming, max: Option<u64>, clock: Clock) -> Self {
        Self { body, max, read: 0, clock, pause: None }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let clock = self.clock;
            let pause =
                self.pause.get_or_insert_with(|| Box::pin(async move { clock.sleep(STALL_MAX).await }));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        self.pause = None;
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(Error::from);
        if let Ok(frame) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.read = self.read.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        }
        match self.max {
            Some(max) if self.read > max => Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(max))))),
            Some(_) | None => Poll::Ready(Some(frame)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Since when a client takes nothing of an answer.
#[derive(Default)]
pub(super) struct Taking(Mutex<Option<Duration>>);

impl Taking {
    /// For how long it has taken nothing; nothing at all while there is nothing to take.
    pub(super) fn stalled(&self, now: Duration) -> Duration {
        let since = *self.0.lock().expect("no holder panics");
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    fn set(&self, since: Option<Duration>) {
        *self.0.lock().expect("no holder panics") = since;
    }
}

/// An answer's body.
pub(super) struct Answer {
    source: Source,
    sent: u64,
    /// Written when the answer is done with.
    line: Option<AccessLine>,
}

enum Source {
    /// Ours, in a piece.
    Text(Bytes),
    /// A guest's. Resolved once the guest is done, dropped if it did not come to that.
    Guest { body: HyperOutgoingBody, done: Option<oneshot::Receiver<()>>, taking: Arc<Taking>, clock: Clock },
}

/// The guest ended before its answer did: what the client has is not all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the handler ended before its answer did")]
    Ended,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Answer {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self { source: Source::Text(text.into()), sent: 0, line: None }
    }

    pub(super) fn guest(
        body: HyperOutgoingBody,
        done: oneshot::Receiver<()>,
        taking: Arc<Taking>,
        clock: Clock,
    ) -> Self {
        // Of a client whose window is closed from the beginning not even the first is asked for.
        taking.set(Some(clock.monotonic()));
        Self { source: Source::Guest { body, done: Some(done), taking, clock }, sent: 0, line: None }
    }

    pub(super) fn logged(mut self, line: Option<AccessLine>) -> Self {
        self.line = line;
        self
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Source::Guest { taking, .. } = &self.source {
            taking.set(None);
        }
        if let Some(line) = self.line.take() {
            line.write(self.sent);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = match &mut self.source {
            Source::Text(text) if text.is_empty() => None,
            Source::Text(text) => Some(Ok(Frame::data(std::mem::take(text)))),
            Source::Guest { body, done, taking, clock } => {
                let polled = poll_guest(body, done, context);
                // Until the next is asked for.
                taking.set(polled.is_ready().then(|| clock.monotonic()));
                ready!(polled)
            }
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.sent = self.sent.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_empty(),
            Source::Guest { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(u64::try_from(text.len()).unwrap_or(u64::MAX)),
            Source::Guest { body, .. } => body.size_hint(),
        }
    }
}

/// The next of a guest's body. Its end is one only if the guest has said so, or is done: a body also ends when
/// the guest does, by whatever.
fn poll_guest(
    body: &mut HyperOutgoingBody,
    done: &mut Option<oneshot::Receiver<()>>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    let polled = Pin::new(&mut *body).poll_frame(context);
    if let Poll::Ready(Some(frame)) = polled {
        return Poll::Ready(Some(frame.map_err(Cut::from)));
    }
    let Some(receiver) = done else {
        return polled.map(|_| None);
    };
    let Poll::Ready(is_done) = Pin::new(receiver).poll(context) else {
        return polled.map(|_| None);
    };
    *done = None;
    if is_done.is_err() {
        return Poll::Ready(Some(Err(Cut::Ended)));
    }
    // What it wrote last may have come meanwhile.
    match Pin::new(body).poll_frame(context) {
        Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Cut::from))),
        // It is done and has left its answer open, so there will be no more.
        Poll::Pending => Poll::Ready(Some(Err(Cut::Ended))),
    }
}
