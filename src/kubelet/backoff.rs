//! How long to wait before trying again (BEHAVIOURS 9.7).

use std::time::Duration;

use jiff::Timestamp;

/// The first wait.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// After this long without a failure the next one starts afresh.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The back-off of one container's restarts, or of its image's pulls: at once, then 10, 20, 40, 80,
/// 160 and 300 s (upstream `flowcontrol.Backoff` as the kubelet sets it up).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    wait: Option<Duration>,
    last_try: Option<Timestamp>,
}

impl Backoff {
    /// How long after a failure at `failed_at` the next try is due; `None` is at once.
    #[must_use]
    pub(crate) fn wait(&self, failed_at: Timestamp) -> Option<Duration> {
        if self.is_forgiven(failed_at) { None } else { self.wait }
    }

    /// A try is made now: the next failure waits longer.
    pub(crate) fn tried(&mut self, now: Timestamp) {
        self.wait = Some(match self.wait {
            Some(wait) if !self.is_forgiven(now) => (wait * 2).min(LONGEST),
            Some(_) | None => FIRST,
        });
        self.last_try = Some(now);
    }

    fn is_forgiven(&self, now: Timestamp) -> bool {
        let forgiven = |last: Timestamp| now.duration_since(last).unsigned_abs() > FORGIVEN_AFTER;
        self.last_try.is_some_and(forgiven)
    }
}

/// A duration of whole milliseconds as Go prints it: `40s`, `1m20s`, `5m0s`, `1.25s`, `80ms`, `1h0m0s`.
#[must_use]
pub(crate) fn go_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if duration.as_secs() == 0 {
        return format!("{}ms", duration.subsec_millis());
    }
    let mut seconds = (duration.as_secs() % 60).to_string();
    if duration.subsec_millis() > 0 {
        seconds.push_str(format!(".{:03}", duration.subsec_millis()).trim_end_matches('0'));
    }
    match (duration.as_secs() / 3600, duration.as_secs() / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(backoff.wait(at(0)).map_or(0, |wait| wait.as_secs()));
            backoff.tried(at(0));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_are_forgiveness() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.tried(at(1000));
        }
        assert_eq!(backoff.wait(at(1600)), Some(Duration::from_secs(160)));
        assert_eq!(backoff.wait(at(1601)), None);
        backoff.tried(at(1601));
        assert_eq!(backoff.wait(at(1602)), Some(FIRST));
    }

    #[test]
    fn durations_print_as_in_go() {
        for (millis, text) in [
            (10_000, "10s"),
            (80_000, "1m20s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
            (0, "0s"),
            (80, "80ms"),
            (1_250, "1.25s"),
            (61_007, "1m1.007s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
