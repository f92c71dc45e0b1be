//! What the containers of this process's nodes use, for whoever asks: nothing is sampled before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;
use crate::runtime::Container;

/// The interval over which processor time is taken if nobody has asked for long.
const WINDOW: Duration = Duration::from_millis(250);
/// How old an earlier look may be, and must be, for the interval since then to serve.
const LOOK_MAX: Duration = Duration::from_secs(30);
const LOOK_MIN: Duration = Duration::from_secs(1);

/// Every run, by its pod's uid; cheap to clone. It can be made before the kubelets are.
#[derive(Clone, Default)]
pub struct Meters(Arc<Mutex<HashMap<String, Vec<Run>>>>);

struct Run {
    name: String,
    container: Weak<Container>,
    /// When it was last looked at, by the clock's monotonic time, and its processor time then.
    looked: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    at: Duration,
    used: Duration,
}

/// What a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub container: String,
    /// When the interval ended over which processor time was taken, and its length.
    pub at: Timestamp,
    pub window: Duration,
    /// Nanoseconds of processor time a second.
    pub nanocores: u64,
    /// Bytes.
    pub memory: u64,
    /// Fuel since its start, if that is counted.
    pub fuel: Option<u64>,
}

impl Meters {
    /// What each container of these pods uses that runs; takes a moment if nobody asked lately.
    pub async fn of(&self, uids: &[&str], clock: Clock) -> HashMap<String, Vec<Used>> {
        if self.renew(uids, clock.monotonic()) {
            clock.sleep(WINDOW).await;
        }
        let (monotonic, now) = (clock.monotonic(), clock.now());
        let mut all = self.all();
        let mut answer = HashMap::new();
        for uid in uids {
            let runs = all.get_mut(*uid).map(Vec::as_mut_slice).unwrap_or_default();
            let used: Vec<Used> = runs.iter_mut().filter_map(|run| run.used(monotonic, now)).collect();
            if !used.is_empty() {
                answer.insert((*uid).to_owned(), used);
            }
        }
        answer
    }

    /// A run begins.
    pub(crate) fn enter(&self, uid: &str, name: &str, container: &Arc<Container>, clock: Clock) {
        let looked = Look { at: clock.monotonic(), used: Duration::ZERO };
        let run = Run { name: name.to_owned(), container: Arc::downgrade(container), looked };
        let mut all = self.all();
        let runs = all.entry(uid.to_owned()).or_default();
        runs.retain(|run| run.container.strong_count() > 0);
        runs.push(run);
    }

    /// The pod has ended.
    pub(crate) fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// Begins a new interval for those that nobody looked at lately; whether there are any.
    fn renew(&self, uids: &[&str], now: Duration) -> bool {
        let mut all = self.all();
        let mut renewed = false;
        for uid in uids {
            for run in all.get_mut(*uid).into_iter().flatten() {
                if now.saturating_sub(run.looked.at) > LOOK_MAX
                    && let Some(container) = run.container.upgrade()
                {
                    run.looked = Look { at: now, used: container.cpu_time() };
                    renewed = true;
                }
            }
        }
        renewed
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<Run>>> {
        self.0.lock().expect("no holder panics")
    }
}

impl Run {
    fn used(&mut self, monotonic: Duration, at: Timestamp) -> Option<Used> {
        let container = self.container.upgrade().filter(|container| container.exit().is_none())?;
        let look = Look { at: monotonic, used: container.cpu_time() };
        let window = look.at.saturating_sub(self.looked.at);
        let nanocores = rate(self.looked, look);
        if window >= LOOK_MIN {
            self.looked = look;
        }
        let (memory, fuel) = (container.memory(), container.fuel());
        Some(Used { container: self.name.clone(), at, window, nanocores, memory, fuel })
    }
}

/// Nanoseconds of processor time a second between two looks.
fn rate(from: Look, to: Look) -> u64 {
    let (passed, used) = (to.at.saturating_sub(from.at), to.used.saturating_sub(from.used));
    let rate = used.as_nanos() * 1_000_000_000 / passed.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_processor_time_a_second() {
        let look = |at, used| Look { at: Duration::from_millis(at), used: Duration::from_millis(used) };
        for (from, to, nanocores) in [
            (look(0, 0), look(1000, 500), 500_000_000),
            (look(1000, 500), look(1250, 1000), 2_000_000_000),
            (look(1000, 500), look(2000, 500), 0),
            // A clock that has not moved is no reason to divide by nothing.
            (look(1000, 500), look(1000, 500), 0),
        ] {
            assert_eq!(rate(from, to), nanocores);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn runs_are_told_while_they_last() {
        let (meters, clock) = (Meters::default(), Clock::real());
        let (_end, exit) = tokio::sync::watch::channel(None);
        let container = Arc::new(Container::new(exit, Box::new(|| ())));
        meters.enter("u", "main", &container, clock);
        let told = meters.of(&["u", "other"], clock).await;
        assert_eq!(told.len(), 1);
        assert_eq!(told["u"][0].container, "main");
        drop(container);
        assert!(meters.of(&["u"], clock).await.is_empty());
        meters.forget("u");
        assert!(meters.all().is_empty());
    }
}
