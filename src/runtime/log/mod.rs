//! What a container writes, kept in memory within a bound.
//!
//! Output is kept as *pieces*: a whole line, or a part of one that is very long. The line being
//! written is readable before it ends. Followers each remember how far they have read, so any number
//! of them share the pieces, and one that is too slow misses what was dropped meanwhile.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// Longest piece in bytes, as in Kubernetes' container runtimes: a line without an end would
/// otherwise be copied again with every write.
const PIECE_MAX: usize = 16 * 1024;
/// What a piece takes beside its bytes.
const PIECE_COST: usize = size_of::<Piece>();
/// About the bytes that a reader gets at once.
const CHUNK: usize = 32 * 1024;

/// The output of one run of one container: whole lines with their times, the oldest dropped first.
pub struct Log {
    clock: Clock,
    bytes_max: usize,
    state: Mutex<State>,
    /// Told of every write and of the end.
    changed: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// How many pieces were dropped before the first of `pieces`.
    dropped: u64,
    /// What `pieces` take.
    bytes: usize,
    /// The line being written, with the time of its first byte.
    open: Option<Piece>,
    closed: bool,
}

struct Piece {
    time: Timestamp,
    starts_line: bool,
    bytes: Vec<u8>,
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
    pub fn new(clock: Clock, bytes_max: usize) -> Self {
        Self { clock, bytes_max, state: Mutex::default(), changed: Notify::new() }
    }

    /// Appends output; never waits.
    pub fn write(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = self.clock.now();
        // A bound of a few hundred bytes should still keep a few lines.
        let piece_max = PIECE_MAX.min(self.bytes_max / 2).max(1);
        let mut state = self.state();
        if state.closed {
            return;
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = line;
            while !rest.is_empty() {
                rest = state.append(rest, now, piece_max);
            }
        }
        state.drop_oldest(self.bytes_max);
        drop(state);
        self.changed.notify_waiters();
    }

    /// No more will be written: followers end.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.finish_piece();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The last lines, at most `lines` and `bytes`, for termination messages.
    #[must_use]
    pub fn tail(&self, lines: usize, bytes: usize) -> String {
        let state = self.state();
        let first = state.start_of_tail(u64::try_from(lines).unwrap_or(u64::MAX));
        let mut text = Vec::new();
        for piece in state.from(first) {
            text.extend_from_slice(&piece.bytes);
        }
        drop(state);
        let cut = text.len().saturating_sub(bytes);
        String::from_utf8_lossy(&text[cut..]).into_owned()
    }

    /// The selected lines as a stream, which goes on until [`Log::close`] if `follow`.
    ///
    /// As in the kubelet, `tail_lines` counts before `since` selects, `limit_bytes` counts
    /// timestamps too and may cut a line, and a timestamp is RFC 3339 with nine digits.
    pub fn read(self: &Arc<Self>, query: &LogQuery) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
        let state = self.state();
        let piece = query.tail_lines.map_or(state.dropped, |lines| state.start_of_tail(lines));
        let skip = match (&state.open, query.tail_lines) {
            (Some(open), Some(0)) => open.bytes.len(),
            _ => 0,
        };
        let end = if query.follow { u64::MAX } else { state.end() };
        drop(state);
        let reader = Reader { log: Arc::clone(self), query: query.clone(), piece, skip, end, sent: 0 };
        Box::pin(futures_util::stream::unfold(reader, |mut reader| async move {
            let chunk = reader.next().await?;
            Some((chunk, reader))
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    /// Takes as much of a line as the current piece holds and returns the rest.
    fn append<'a>(&mut self, line: &'a [u8], now: Timestamp, piece_max: usize) -> &'a [u8] {
        let starts_line = self.pieces.back().is_none_or(|last| last.bytes.ends_with(b"\n"));
        let open = self.open.get_or_insert_with(|| Piece { time: now, starts_line, bytes: Vec::new() });
        let (taken, rest) = line.split_at(line.len().min(piece_max - open.bytes.len()));
        open.bytes.extend_from_slice(taken);
        if open.bytes.ends_with(b"\n") || open.bytes.len() >= piece_max {
            self.finish_piece();
        }
        rest
    }

    fn finish_piece(&mut self) {
        if let Some(mut piece) = self.open.take() {
            piece.bytes.shrink_to_fit();
            self.bytes += piece.bytes.len() + PIECE_COST;
            self.pieces.push_back(piece);
        }
    }

    /// Drops whole lines, except for a single line longer than the bound.
    fn drop_oldest(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.drop_first() {
            let next_line = self.pieces.iter().position(|piece| piece.starts_line);
            if let Some(inside) = next_line {
                for _ in 0..inside {
                    self.drop_first();
                }
            } else if let Some(first) = self.pieces.front_mut() {
                first.starts_line = true;
            }
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some(piece) = self.pieces.pop_front() else { return false };
        self.bytes -= piece.bytes.len() + PIECE_COST;
        self.dropped += 1;
        true
    }

    /// The number after the last piece, counting the open one.
    fn end(&self) -> u64 {
        self.dropped + count(self.pieces.len()) + u64::from(self.open.is_some())
    }

    /// The pieces from number `first` on, the open one last.
    fn from(&self, first: u64) -> impl Iterator<Item = &Piece> {
        let skip = usize::try_from(first.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        self.pieces.iter().chain(&self.open).skip(skip)
    }

    /// The number of the piece with which the last `lines` lines start.
    fn start_of_tail(&self, lines: u64) -> u64 {
        let mut left = lines;
        let mut start = self.dropped + count(self.pieces.len()) + u64::from(self.open.is_some());
        if lines == 0 {
            // What is added to the open line is new.
            return start - u64::from(self.open.is_some());
        }
        for piece in self.open.iter().chain(self.pieces.iter().rev()) {
            start -= 1;
            if piece.starts_line {
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        start
    }
}

/// How far one reader has come.
struct Reader {
    log: Arc<Log>,
    query: LogQuery,
    /// The piece to read next, and how many of its bytes were read before.
    piece: u64,
    skip: usize,
    /// The piece to stop before.
    end: u64,
    sent: u64,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        let log = Arc::clone(&self.log);
        loop {
            // Enabled before looking, so that a write in between is not missed.
            let mut changed = pin!(log.changed.notified());
            changed.as_mut().enable();
            let (mut chunk, more) = self.take(&log.state());
            if let Some(limit) = self.query.limit_bytes {
                chunk.truncate(usize::try_from(limit - self.sent).unwrap_or(usize::MAX));
            }
            if !chunk.is_empty() {
                self.sent += count(chunk.len());
                return Some(chunk.into());
            }
            if !more || self.query.limit_bytes == Some(self.sent) {
                return None;
            }
            changed.await;
        }
    }

    /// What there is to read now, up to about a chunk, and whether more may come.
    fn take(&mut self, state: &State) -> (Vec<u8>, bool) {
        let mut chunk = Vec::new();
        if self.piece < state.dropped {
            (self.piece, self.skip) = (state.dropped, 0);
        }
        let finished = state.dropped + count(state.pieces.len());
        for piece in state.from(self.piece) {
            if self.piece >= self.end || chunk.len() >= CHUNK {
                break;
            }
            if self.query.since.is_none_or(|since| piece.time >= since) {
                if self.skip == 0 && piece.starts_line && self.query.timestamps {
                    chunk.extend_from_slice(
                        piece.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes(),
                    );
                }
                chunk.extend_from_slice(&piece.bytes[self.skip..]);
            }
            if self.piece == finished {
                if self.query.follow {
                    self.skip = piece.bytes.len();
                } else {
                    self.piece = self.end;
                }
                break;
            }
            self.piece += 1;
            self.skip = 0;
        }
        let done = self.piece >= self.end || !self.query.follow || state.closed && self.piece >= finished;
        (chunk, !done)
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits")
}
