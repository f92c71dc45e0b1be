//! The only code that asks the time.
//!
//! A [`Clock`] gives wall and monotonic time, sleeps and deadlines. The real one is the machine's.
//! The virtual one is tokio's paused time: when every task of its runtime waits, time jumps to the
//! next deadline, so a pod that sleeps for an hour ends at once. It needs [`virtual_runtime`], a
//! single thread, which is also what makes two runs with the same seed equal.
//!
//! `clippy.toml` bans every other source of time and of sleep.
#![allow(clippy::disallowed_methods, reason = "the one place that asks the time")]

use std::future::Future;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::Instant;

/// Wall time, monotonic time and sleeps; cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Wall time at `start` in virtual time; `None` asks the machine.
    virtual_start: Option<Timestamp>,
}

/// A deadline passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn real() -> Self {
        Self { start: Instant::now(), virtual_start: None }
    }

    /// A clock that starts at `start` and moves only as tokio's paused time does; to be made and
    /// used inside [`virtual_runtime`].
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start: Instant::now(), virtual_start: Some(start) }
    }

    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.virtual_start.is_some()
    }

    /// Wall time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.virtual_start {
            Some(start) => start + self.start.elapsed(),
            None => {
                Timestamp::try_from(SystemTime::now()).expect("the machine's date is within jiff's years")
            }
        }
    }

    /// Time since this clock was made; never goes back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns after `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Returns once the wall clock shows `deadline`, at once if it already does.
    pub async fn sleep_until(&self, deadline: Timestamp) {
        let left = deadline.duration_since(self.now());
        if let Ok(left) = Duration::try_from(left) {
            tokio::time::sleep(left).await;
        }
    }

    /// The future's output, or [`Elapsed`] if it is not ready within `limit`.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed)
    }
}

/// Sleeps really, whatever the clock, on the calling thread: for the few threads that are not tasks,
/// such as the engine's epoch ticker, which interrupts runaway guests in virtual time too.
pub fn sleep_thread(duration: Duration) {
    std::thread::sleep(duration);
}

/// A single-threaded runtime in which time moves only when every task waits.
pub fn virtual_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_virtual_sleep_takes_no_time() {
        let before = std::time::Instant::now();
        virtual_runtime().expect("a runtime").block_on(async {
            let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
            clock.sleep(Duration::from_secs(3600)).await;
            assert_eq!(clock.now().as_second(), 3600);
            assert_eq!(clock.monotonic().as_secs(), 3600);
            clock.sleep_until(Timestamp::UNIX_EPOCH).await;
            assert_eq!(clock.now().as_second(), 3600);
            let never = std::future::pending::<()>();
            assert_eq!(clock.timeout(Duration::from_secs(5), never).await, Err(Elapsed));
            assert_eq!(clock.now().as_second(), 3605);
        });
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}
