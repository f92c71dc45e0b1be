//! A bounded pipe of bytes between the host and a guest: its standard streams, if they are not a log.
//!
//! Whoever writes waits while the pipe is full, so a reader that is slow costs a named number of bytes
//! and no more. Either end may go: the reader then finds the end, the writer that nobody reads.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// What a pipe holds unless told otherwise.
pub const PIPE_BYTES: usize = 64 << 10;

/// A pipe; guests hold it shared, the host by its [`Sender`] or [`Receiver`].
pub struct Pipe {
    state: Mutex<State>,
    changed: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    /// Nothing more will be written.
    ended: bool,
    /// Nobody will read any more.
    deaf: bool,
}

/// The host's end of a pipe to a guest. Dropping it is the end of the input, unless others write too.
pub struct Sender {
    pipe: Arc<Pipe>,
    ends: bool,
}

/// The host's end of a pipe from a guest. Dropping it lets the guest's writes fail.
pub struct Receiver(Arc<Pipe>);

/// A pipe to a guest: the host's end, and the guest's.
#[must_use]
pub fn to_guest() -> (Sender, Arc<Pipe>) {
    let pipe = Pipe::new(PIPE_BYTES);
    (Sender::of(&pipe, true), pipe)
}

/// A pipe from a guest: the guest's end, and the host's.
#[must_use]
pub fn from_guest() -> (Arc<Pipe>, Receiver) {
    let pipe = Pipe::new(PIPE_BYTES);
    (Arc::clone(&pipe), Receiver(pipe))
}

/// What somebody reads who finds `bytes` and then the end.
#[must_use]
pub fn filled(bytes: Bytes) -> Receiver {
    let pipe = Pipe::new(bytes.len());
    pipe.put(&bytes);
    pipe.end();
    Receiver(pipe)
}

impl Pipe {
    /// A pipe that holds `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), bytes_max })
    }

    /// What it holds at most.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Up to `bytes_max` of what is there; empty if that is nothing yet, `None` at the end.
    pub(super) fn take(&self, bytes_max: usize) -> Option<Bytes> {
        let mut state = self.state();
        if state.bytes.is_empty() {
            return if state.ended { None } else { Some(Bytes::new()) };
        }
        let count = state.bytes.len().min(bytes_max);
        let taken = state.bytes.split_to(count).freeze();
        drop(state);
        self.changed.notify_waiters();
        Some(taken)
    }

    /// How much may be written now; `None` if nobody reads.
    pub(super) fn room(&self) -> Option<usize> {
        let state = self.state();
        (!state.deaf && !state.ended).then(|| self.bytes_max.saturating_sub(state.bytes.len()))
    }

    /// Adds all of `bytes`, whatever the room; nothing if nobody reads.
    pub(super) fn put(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.deaf || state.ended {
            return;
        }
        state.bytes.extend_from_slice(bytes);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns when something can be read, or the end.
    pub(super) async fn readable(&self) {
        self.wait(|state| !state.bytes.is_empty() || state.ended).await;
    }

    /// Returns when there is room, or nobody to read.
    pub(super) async fn writable(&self) {
        self.wait(|state| state.deaf || state.ended || state.bytes.len() < self.bytes_max).await;
    }

    /// Writes all of `bytes`, waiting for room; whether anybody still reads.
    pub async fn write(&self, mut bytes: Bytes) -> bool {
        loop {
            let Some(room) = self.room() else { return false };
            let now = bytes.split_to(room.min(bytes.len()));
            self.put(&now);
            if bytes.is_empty() {
                return true;
            }
            self.writable().await;
        }
    }

    /// Nothing more will be written.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_waiters();
    }

    /// Nobody will read any more: what was not read is gone.
    pub fn close(&self) {
        let mut state = self.state();
        state.deaf = true;
        state.bytes = BytesMut::new();
        drop(state);
        self.changed.notify_waiters();
    }

    async fn wait(&self, reached: impl Fn(&State) -> bool) {
        loop {
            // Enabled before looking, so that a change in between is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if reached(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Sender {
    /// An end of `pipe`; one of several, or the one that `ends` the input.
    #[must_use]
    pub fn of(pipe: &Arc<Pipe>, ends: bool) -> Self {
        Self { pipe: Arc::clone(pipe), ends }
    }

    /// Writes all of `bytes`, waiting for room; whether anybody still reads.
    pub async fn write(&self, bytes: Bytes) -> bool {
        self.pipe.write(bytes).await
    }

    /// Writes all of `bytes` or nothing, without waiting; whether there was room, and anybody who reads.
    #[must_use]
    pub fn offer(&self, bytes: &[u8]) -> bool {
        let fits = self.pipe.room().is_some_and(|room| bytes.len() <= room);
        if fits {
            self.pipe.put(bytes);
        }
        fits
    }

    /// Nothing more will be written, by whomever.
    pub fn end(&self) {
        self.pipe.end();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.ends {
            self.pipe.end();
        }
    }
}

impl Receiver {
    pub(super) fn of(pipe: Arc<Pipe>) -> Self {
        Self(pipe)
    }

    /// Some of what the guest wrote, waiting for it; `None` at the end.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.0.readable().await;
        self.0.take(usize::MAX)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.close();
    }
}
