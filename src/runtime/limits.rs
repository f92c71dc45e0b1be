//! What one run uses of its container's [`Budget`]: memory and processor time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::Fuel;
use super::budget::Budget;
use super::ticker::Ticker;
use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// A table's element takes a pointer.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// Counts all memories and tables of one run into its container's budget.
pub(super) struct MemoryLimit {
    budget: Arc<Budget>,
    /// Bytes of this run, given back at its end.
    used: u64,
    /// The growth that was allowed last, to be taken back if it fails.
    pending: u64,
    /// The guest asked for more than it may have.
    pub(super) hit: bool,
}

impl MemoryLimit {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, used: 0, pending: 0, hit: false }
    }

    fn grow(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
        unit: usize,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.pending = 0;
            return Ok(false);
        }
        let more = desired.saturating_sub(current).saturating_mul(unit);
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.pending = 0;
        self.budget.take(more).inspect_err(|_| self.hit = true)?;
        self.pending = more;
        self.used += more;
        Ok(true)
    }

    fn take_back(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.used -= pending;
        self.budget.give(pending);
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.budget.give(self.used);
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(current, desired, maximum, 1)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(current, desired, maximum, TABLE_ELEMENT)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

/// Takes the processor time of one run, around every poll of its task and within long ones.
pub(super) struct Meter {
    budget: Arc<Budget>,
    /// Nanoseconds that this run has used.
    used: AtomicU64,
    /// Up to when the current poll is counted, by the processor time of its thread.
    counted: AtomicU64,
    /// The guest was made to give way.
    used_up: AtomicBool,
    /// Fuel that it has used, if that is counted.
    fuel: AtomicU64,
    counts_fuel: bool,
}

impl Meter {
    pub(super) fn new(budget: Arc<Budget>, fuel: Fuel) -> Self {
        Self {
            budget,
            used: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            used_up: AtomicBool::new(false),
            fuel: AtomicU64::new(0),
            counts_fuel: fuel != Fuel::Off,
        }
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Fuel used so far; `None` if that is not counted.
    pub(super) fn fuel(&self) -> Option<u64> {
        self.counts_fuel.then(|| self.fuel.load(Ordering::Relaxed))
    }

    pub(super) fn set_fuel(&self, used: u64) {
        self.fuel.store(used, Ordering::Relaxed);
    }

    /// Runs one poll of a guest.
    pub(super) fn poll<T>(&self, ticker: &Ticker, poll: impl FnOnce() -> T) -> T {
        let _polling = ticker.polling();
        self.counted.store(thread_time(), Ordering::Relaxed);
        let result = poll();
        self.count();
        result
    }

    /// Whether the poll that has just ended was ended because the guest had run long enough.
    pub(super) fn used_up_turn(&self) -> bool {
        self.used_up.swap(false, Ordering::Relaxed)
    }

    /// Counts what the current poll has used so far; all that the run has used.
    fn count(&self) -> Duration {
        let now = thread_time();
        let more = now.saturating_sub(self.counted.swap(now, Ordering::Relaxed));
        self.budget.spend(more);
        Duration::from_nanos(self.used.fetch_add(more, Ordering::Relaxed) + more)
    }
}

/// Nanoseconds for which the current thread has run.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Decides, whenever the epoch has moved under a running guest, whether it goes on.
pub(super) struct Slices {
    clock: Clock,
    meter: Arc<Meter>,
    rule: Rule,
}

enum Rule {
    /// Real time: others get their turn, and [`turns`](super::turns) says when this one goes on.
    Share,
    /// Virtual time: a guest runs undisturbed, for a result that does not depend on this machine's
    /// speed, unless it runs away.
    Watch { seen: Duration, used: Duration },
}

/// Processor time after which a guest in virtual time, where the clock stands still while it runs,
/// is taken for a runaway.
const RUNAWAY: Duration = Duration::from_millis(200);
/// Virtual time that passes for each such slice, so that its grace period ends some time.
const RUNAWAY_COST: Duration = Duration::from_secs(1);

impl Slices {
    pub(super) fn new(clock: Clock, meter: Arc<Meter>) -> Self {
        let rule = if clock.is_virtual() {
            Rule::Watch { seen: clock.monotonic(), used: Duration::ZERO }
        } else {
            Rule::Share
        };
        Self { clock, meter, rule }
    }

    pub(super) fn next(&mut self) -> UpdateDeadline {
        let used_so_far = self.meter.count();
        self.meter.used_up.store(true, Ordering::Relaxed);
        match &mut self.rule {
            Rule::Share => UpdateDeadline::Yield(1),
            Rule::Watch { seen, used } => {
                let (clock, now) = (self.clock, self.clock.monotonic());
                if *seen != now {
                    (*seen, *used) = (now, used_so_far);
                }
                if used_so_far.saturating_sub(*used) > RUNAWAY {
                    UpdateDeadline::YieldCustom(1, Box::pin(async move { clock.sleep(RUNAWAY_COST).await }))
                } else {
                    UpdateDeadline::Continue(1)
                }
            }
        }
    }
}
