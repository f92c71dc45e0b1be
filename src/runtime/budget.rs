//! What may be used together: by all runs of a container, or by all containers of a pod.
//!
//! A container's own run and those beside it (exec, probes, hooks) draw on one [`Budget`], which may draw on
//! another above it. What is taken counts in both, and the first that is used up says no.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// How much that is; what is `None` has no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes of linear memories, tables, and what the host holds for guests.
    pub memory: Option<u64>,
    /// Milli-cores. In virtual time guests run undisturbed, whatever this says.
    pub cpu: Option<u64>,
    /// Milli-cores that it is to have beside others that compute; `None` is as good as nothing.
    pub cpu_request: Option<u64>,
}

/// Shares of a core's worth of requests, of none at all, and at most, as control groups have them.
const SHARES_A_CORE: u64 = 1024;
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

/// A budget of memory and of processor time.
#[derive(Debug)]
pub struct Budget {
    above: Option<Arc<Budget>>,
    memory_max: u64,
    /// Bytes taken.
    memory: AtomicU64,
    /// Nanoseconds of processor time used.
    used: AtomicU64,
    quota: Option<Mutex<Quota>>,
    /// Its weight beside others that compute.
    shares: u64,
    /// How far it has come among them: time used, the slower the greater its weight.
    position: AtomicU64,
}

/// Ends the guest that asked: a refusal would let it report the failure in its own way.
#[derive(Debug, thiserror::Error)]
#[error("the memory limit of {0} bytes was reached")]
pub struct OverLimit(u64);

/// Memory that was taken, until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

impl Budget {
    /// A budget of which nothing is used; `above` it may be another.
    #[must_use]
    pub fn new(limits: Limits, clock: Clock, above: Option<Arc<Self>>) -> Arc<Self> {
        let cpu = limits.cpu.filter(|_| !clock.is_virtual());
        Arc::new(Self {
            above,
            memory_max: limits.memory.unwrap_or(u64::MAX),
            memory: AtomicU64::new(0),
            used: AtomicU64::new(0),
            quota: cpu.map(|millicores| Mutex::new(Quota::new(millicores, clock.monotonic()))),
            shares: shares(limits.cpu_request),
            position: AtomicU64::new(0),
        })
    }

    /// Bytes taken now.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Processor time used so far.
    #[must_use]
    pub fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Takes memory until the result is dropped.
    ///
    /// # Errors
    /// If it is more than what is left here or above.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, OverLimit> {
        self.take(bytes)?;
        Ok(Charge { budget: Arc::clone(self), bytes })
    }

    /// As [`Budget::charge`], until it is given back.
    pub(super) fn take(&self, bytes: u64) -> Result<(), OverLimit> {
        let added = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.memory_max);
        self.memory
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added)
            .map_err(|_| OverLimit(self.memory_max))?;
        self.above.as_ref().map_or(Ok(()), |above| above.take(bytes)).inspect_err(|_| {
            self.memory.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    /// Gives back what was taken.
    pub(super) fn give(&self, bytes: u64) {
        for budget in self.chain() {
            budget.memory.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Processor time was used.
    pub(super) fn spend(&self, nanoseconds: u64) {
        for budget in self.chain() {
            budget.used.fetch_add(nanoseconds, Ordering::Relaxed);
        }
        self.position.fetch_add(self.distance(nanoseconds), Ordering::Relaxed);
    }

    /// By how much so much processor time moves its position.
    pub(super) fn distance(&self, nanoseconds: u64) -> u64 {
        nanoseconds.saturating_mul(SHARES_A_CORE) / self.shares
    }

    /// Its position among those that compute.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Moves its position forward, past time that it did not want.
    pub(super) fn moved_to(&self, position: u64) {
        self.position.fetch_max(position, Ordering::Relaxed);
    }

    /// How long those who draw on this must wait now before they go on; zero if they need not.
    pub(super) fn owed(&self, clock: Clock) -> Duration {
        let owed = |budget: &Self| {
            let quota = budget.quota.as_ref()?;
            Some(quota.lock().expect("no holder panics").owed(clock.monotonic(), budget.used()))
        };
        self.chain().filter_map(owed).max().unwrap_or_default()
    }

    /// This and all above it.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |budget| budget.above.as_deref())
    }
}

/// A processor limit in milli-cores, as a debt paid by sleeping.
///
/// A container earns time as the clock moves and spends it as it runs. Time not spent is kept for
/// one period, so that a container that was idle does not run unlimited afterwards.
#[derive(Debug)]
struct Quota {
    millicores: u64,
    /// Start of the current account: time on the clock, and time used by then.
    since: Duration,
    spent_before: Duration,
}

/// As the kubelet's `cpuCFSQuotaPeriod`.
const QUOTA_PERIOD: Duration = Duration::from_millis(100);

impl Quota {
    fn new(millicores: u64, now: Duration) -> Self {
        Self { millicores: millicores.max(1), since: now, spent_before: Duration::ZERO }
    }

    /// How long a container that has used `used` must sleep at `now`; zero if it may go on.
    fn owed(&mut self, now: Duration, used: Duration) -> Duration {
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

fn shares(millicores: Option<u64>) -> u64 {
    (millicores.unwrap_or(0).saturating_mul(SHARES_A_CORE) / 1_000).clamp(SHARES_MIN, SHARES_MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
