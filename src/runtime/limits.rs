//! What a guest may use: memory and processor time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use super::ticker::Ticker;
use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// Memory of a container without a limit: what one 32-bit memory can have at most.
const MEMORY_DEFAULT: u64 = 4 << 30;
/// A table's element takes a pointer.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// Bounds all memories and tables of a guest together.
pub(super) struct MemoryLimit {
    max: u64,
    used: u64,
    /// The growth that was allowed last, to be taken back if it fails.
    pending: u64,
    /// The guest asked for more than it may have.
    pub(super) hit: bool,
    /// Where what is used is told.
    meter: Arc<Meter>,
}

/// Ends a guest at once: a refused growth would let it report the failure in its own way.
#[derive(Debug, thiserror::Error)]
#[error("the memory limit of {0} bytes was reached")]
struct OverLimit(u64);

impl MemoryLimit {
    pub(super) fn new(limit: Option<u64>, meter: Arc<Meter>) -> Self {
        Self { max: limit.unwrap_or(MEMORY_DEFAULT), used: 0, pending: 0, hit: false, meter }
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
        self.pending = u64::try_from(more).unwrap_or(u64::MAX);
        let used = self.used.saturating_add(self.pending);
        if used > self.max {
            self.hit = true;
            return Err(OverLimit(self.max).into());
        }
        self.used = used;
        self.meter.memory.store(used, Ordering::Relaxed);
        Ok(true)
    }

    fn take_back(&mut self) {
        self.used -= std::mem::take(&mut self.pending);
        self.meter.memory.store(self.used, Ordering::Relaxed);
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

/// What one container uses: its processor time is taken around every poll of its task.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Nanoseconds in polls that have ended.
    used: AtomicU64,
    /// When the current poll began, by the processor time of its thread.
    started: AtomicU64,
    /// The guest was made to give way.
    used_up: AtomicBool,
    /// Bytes of its memories and tables.
    memory: AtomicU64,
}

impl Meter {
    /// Runs one poll of a guest.
    pub(super) fn poll<T>(&self, ticker: &Ticker, poll: impl FnOnce() -> T) -> T {
        let _polling = ticker.polling();
        let started = thread_time();
        self.started.store(started, Ordering::Relaxed);
        let result = poll();
        self.used.fetch_add(thread_time().saturating_sub(started), Ordering::Relaxed);
        result
    }

    /// Time used by polls that have ended.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Bytes of its memories and tables.
    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Whether the poll that has just ended was ended because the guest had run long enough.
    pub(super) fn used_up_turn(&self) -> bool {
        self.used_up.swap(false, Ordering::Relaxed)
    }

    /// Time used, from within a poll.
    fn used_so_far(&self) -> Duration {
        let started = Duration::from_nanos(self.started.load(Ordering::Relaxed));
        self.used() + Duration::from_nanos(thread_time()).saturating_sub(started)
    }
}

/// Nanoseconds for which the current thread has run.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A processor limit in milli-cores, as a debt paid by sleeping.
///
/// A container earns time as the clock moves and spends it as it runs. Time not spent is kept for
/// one period, so that a container that was idle does not run unlimited afterwards.
#[derive(Debug)]
pub(super) struct Quota {
    millicores: u64,
    /// Start of the current account: time on the clock, and time used by then.
    since: Duration,
    spent_before: Duration,
}

/// As the kubelet's `cpuCFSQuotaPeriod`.
const QUOTA_PERIOD: Duration = Duration::from_millis(100);

impl Quota {
    pub(super) fn new(millicores: u64, now: Duration) -> Self {
        Self { millicores: millicores.max(1), since: now, spent_before: Duration::ZERO }
    }

    /// How long a container that has used `used` must sleep at `now`; zero if it may go on.
    pub(super) fn owed(&mut self, now: Duration, used: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.since);
        let spent = used.saturating_sub(self.spent_before);
        let needs = nanoseconds(spent).saturating_mul(1_000) / self.millicores;
        let owed = Duration::from_nanos(needs).saturating_sub(elapsed);
        if owed.is_zero() && elapsed > QUOTA_PERIOD {
            (self.since, self.spent_before) = (now, used);
        }
        owed
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Decides, whenever the epoch has moved under a running guest, whether it goes on.
pub(super) struct Slices {
    clock: Clock,
    meter: Arc<Meter>,
    rule: Rule,
}

enum Rule {
    /// Real time: others get their turn, and the quota holds.
    Share(Option<Quota>),
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
    pub(super) fn new(clock: Clock, meter: Arc<Meter>, cpu_limit: Option<u64>) -> Self {
        let now = clock.monotonic();
        let rule = if clock.is_virtual() {
            Rule::Watch { seen: now, used: Duration::ZERO }
        } else {
            Rule::Share(cpu_limit.map(|millicores| Quota::new(millicores, now)))
        };
        Self { clock, meter, rule }
    }

    pub(super) fn next(&mut self) -> UpdateDeadline {
        let (clock, now, used_so_far) = (self.clock, self.clock.monotonic(), self.meter.used_so_far());
        let sleep =
            |duration| UpdateDeadline::YieldCustom(1, Box::pin(async move { clock.sleep(duration).await }));
        self.meter.used_up.store(true, Ordering::Relaxed);
        match &mut self.rule {
            Rule::Share(None) => UpdateDeadline::Yield(1),
            Rule::Share(Some(quota)) => match quota.owed(now, used_so_far) {
                Duration::ZERO => UpdateDeadline::Yield(1),
                owed => sleep(owed),
            },
            Rule::Watch { seen, used } => {
                if *seen != now {
                    (*seen, *used) = (now, used_so_far);
                }
                if used_so_far.saturating_sub(*used) > RUNAWAY {
                    sleep(RUNAWAY_COST)
                } else {
                    UpdateDeadline::Continue(1)
                }
            }
        }
    }
}
