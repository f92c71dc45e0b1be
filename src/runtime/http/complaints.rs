//! What went wrong with requests, as lines of the container's log: few enough that a client cannot flood it.

use std::sync::Mutex;
use std::time::Duration;

/// Lines in one period; of what is more only the number is told.
const LINES_MAX: u32 = 5;
const PERIOD: Duration = Duration::from_secs(1);

/// Counts lines.
#[derive(Default)]
pub(super) struct Complaints(Mutex<State>);

#[derive(Default)]
struct State {
    since: Duration,
    lines: u32,
    kept_back: u64,
}

impl Complaints {
    /// Whether there may be a line at `now`, and how many were not told before it.
    pub(super) fn admit(&self, now: Duration) -> Option<u64> {
        let mut state = self.0.lock().expect("no holder panics");
        if now.saturating_sub(state.since) >= PERIOD {
            (state.since, state.lines) = (now, 0);
        }
        if state.lines >= LINES_MAX {
            state.kept_back += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.kept_back))
    }
}
