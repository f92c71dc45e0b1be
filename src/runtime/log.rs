//! What a container writes, kept in memory within a bound.
//!
//! Skeleton: the runtime's author writes it, with this interface.

use std::sync::Mutex;

use bytes::Bytes;
use jiff::Timestamp;

use crate::clock::Clock;

/// The output of one run of one container: whole lines with their times, the oldest dropped first.
pub struct Log {
    _inner: Mutex<()>,
}

/// Which part of a log to read. Mirrors the parameters of `pods/log`.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
}

impl Log {
    /// Keeps at most about `bytes_max`.
    #[must_use]
    pub fn new(_clock: Clock, _bytes_max: usize) -> Self {
        Self { _inner: Mutex::new(()) }
    }

    /// Appends output; never waits.
    pub fn write(&self, _bytes: &[u8]) {}

    /// No more will be written: followers end.
    pub fn close(&self) {}

    /// The last lines, at most `lines` and `bytes`, for termination messages.
    #[must_use]
    pub fn tail(&self, _lines: usize, _bytes: usize) -> String {
        String::new()
    }

    /// The selected lines as a stream, which goes on until [`Log::close`] if `follow`.
    pub fn read(
        self: &std::sync::Arc<Self>,
        _query: &LogQuery,
    ) -> std::pin::Pin<Box<dyn futures_util::Stream<Item = Bytes> + Send>> {
        Box::pin(futures_util::stream::empty())
    }
}
