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

    /// What tells when the wall clock jumps; to be called inside a tokio runtime.
    #[must_use]
    pub fn jumps(&self) -> Jumps {
        Jumps(if self.is_virtual() { None } else { jumps::Source::new(*self) })
    }

    /// The future's output, or [`Elapsed`] if it is not ready within `limit`.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future).await.map_err(|_| Elapsed)
    }
}

/// Tells when the wall clock jumps: when somebody sets it, or the machine wakes from sleep, which
/// [`Clock::sleep`] does not count. Who waits for a wall time then looks again.
pub struct Jumps(Option<jumps::Source>);

impl Jumps {
    /// Returns after the next jump; never in virtual time. Safe to cancel.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(source) => source.next().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(target_os = "linux")]
mod jumps {
    use std::os::fd::OwnedFd;

    use rustix::io::Errno;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Long after all of this, in seconds since 1970.
    const NEVER: i64 = 1 << 36;

    /// A timer that the kernel cancels when the wall clock jumps (`TFD_TIMER_CANCEL_ON_SET`, also after
    /// sleep: Linux `fs/timerfd.c`), which costs nothing meanwhile.
    pub(super) struct Source(AsyncFd<OwnedFd>);

    impl Source {
        /// `None`, and jumps stay untold, where the kernel gives no such timer.
        pub(super) fn new(_clock: super::Clock) -> Option<Self> {
            let made = Self::make();
            made.inspect_err(|error| tracing::warn!(%error, "jumps of the clock will not be noticed")).ok()
        }

        fn make() -> std::io::Result<Self> {
            let timer =
                timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            let never = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 },
            };
            timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
            #[expect(unsafe_code, reason = "tokio wants to be told that the descriptor stays open")]
            // SAFETY: an `OwnedFd` is open until it is dropped, and `AsyncFd` only lends it.
            let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
            Ok(Self(watched?))
        }

        pub(super) async fn next(&mut self) {
            loop {
                let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
                // Reading fails with ECANCELED after a jump, and the timer runs on.
                match rustix::io::read(self.0.get_ref(), &mut [0; 8]) {
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Ok(_) | Err(_) => return,
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod jumps {
    use std::time::Duration;

    use jiff::SignedDuration;

    /// How often the clocks are compared, where no event tells of a jump.
    const COMPARED_EVERY: Duration = Duration::from_secs(60);
    /// What clocks may drift apart in that time.
    const JUMP_MIN: SignedDuration = SignedDuration::from_secs(1);

    pub(super) struct Source(super::Clock);

    impl Source {
        pub(super) fn new(clock: super::Clock) -> Option<Self> {
            Some(Self(clock))
        }

        pub(super) async fn next(&mut self) {
            loop {
                let (wall, monotonic) = (self.0.now(), self.0.monotonic());
                self.0.sleep(COMPARED_EVERY).await;
                let passed = SignedDuration::try_from(self.0.monotonic() - monotonic).unwrap_or_default();
                if (self.0.now().duration_since(wall) - passed).abs() > JUMP_MIN {
                    return;
                }
            }
        }
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

    #[tokio::test]
    async fn a_clock_that_nobody_sets_does_not_jump() {
        let clock = Clock::real();
        let mut jumps = clock.jumps();
        assert!(jumps.0.is_some(), "this machine tells of jumps");
        assert_eq!(clock.timeout(Duration::from_millis(20), jumps.next()).await, Err(Elapsed));
    }

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
