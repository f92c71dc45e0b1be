//! How long a Job waits after failures before it makes pods (BEHAVIOURS 13.6; upstream
//! `backoff_utils.go`).
//!
//! Kubernetes keeps the count in the controller's memory and forgets it when that restarts. Here it is
//! an annotation of the Job, written together with the uids of the pods that it counts.

use std::time::Duration;

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(600);

/// `<failures> <time of the last>`, as in `3 2026-01-01T00:00:00Z`; absent without a failure.
pub(super) const ANNOTATION: &str = "coracle.dev/job-backoff";

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) failures: u32,
    pub(super) last: Option<Timestamp>,
}

impl Backoff {
    /// What is written in the annotation; nothing if that cannot be read.
    pub(super) fn read(text: Option<&str>) -> Self {
        let read = || {
            let (failures, last) = text?.split_once(' ')?;
            Some(Self { failures: failures.parse().ok()?, last: Some(last.parse().ok()?) })
        };
        read().unwrap_or_default()
    }

    pub(super) fn write(self) -> Option<String> {
        let last = self.last.filter(|_| self.failures > 0)?;
        Some(format!("{} {last}", self.failures))
    }

    /// With pods that ended since, by the times of their ends.
    pub(super) fn after(self, succeeded: &[Timestamp], failed: &[Timestamp]) -> Self {
        let (from, success) = match succeeded.iter().max() {
            Some(success) => (Self::default(), Some(*success)),
            None => (self, None),
        };
        let later = failed.iter().filter(|at| success.is_none_or(|success| **at > success));
        let count = u32::try_from(later.clone().count()).unwrap_or(u32::MAX);
        Self { failures: from.failures.saturating_add(count), last: later.max().copied().or(from.last) }
    }

    /// What is left to wait.
    pub(super) fn left(self, now: Timestamp) -> Duration {
        let Some(last) = self.last.filter(|_| self.failures > 0) else { return Duration::ZERO };
        let doublings = (self.failures - 1).min(16);
        let wait = FIRST.saturating_mul(1 << doublings).min(MAX);
        let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
        wait.saturating_sub(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_from_10_s_to_10_minutes() {
        // BEHAVIOURS 13.6.
        let wait = |failures| Backoff { failures, last: Some(at(0)) }.left(at(0)).as_secs();
        let waits: Vec<u64> = [0, 1, 2, 3, 6, 7, 8, 1000].map(wait).to_vec();
        assert_eq!(waits, [0, 10, 20, 40, 320, 600, 600, 600]);
        assert_eq!(Backoff { failures: 1, last: Some(at(0)) }.left(at(4)).as_secs(), 6);
        assert_eq!(Backoff { failures: 1, last: Some(at(0)) }.left(at(40)).as_secs(), 0);
    }

    #[test]
    fn a_success_forgets_the_failures_before_it() {
        // BEHAVIOURS 13.6.
        let two = Backoff::default().after(&[], &[at(1), at(5)]);
        assert_eq!(two, Backoff { failures: 2, last: Some(at(5)) });
        assert_eq!(two.after(&[], &[at(3)]), Backoff { failures: 3, last: Some(at(3)) });
        assert_eq!(two.after(&[at(7)], &[]), Backoff::default());
        assert_eq!(two.after(&[at(7)], &[at(6), at(8)]), Backoff { failures: 1, last: Some(at(8)) });
        assert_eq!(two.after(&[], &[]), two);
    }

    #[test]
    fn it_survives_in_words() {
        let two = Backoff { failures: 2, last: Some(at(5)) };
        assert_eq!(two.write().as_deref(), Some("2 1970-01-01T00:00:05Z"));
        assert_eq!(Backoff::read(two.write().as_deref()), two);
        assert_eq!(Backoff::default().write(), None);
        for wrong in [None, Some(""), Some("x 1970-01-01T00:00:05Z"), Some("2 yesterday")] {
            assert_eq!(Backoff::read(wrong), Backoff::default());
        }
    }
}
