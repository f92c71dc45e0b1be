//! Events go an hour after they were last written (BEHAVIOURS 9.14).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;

use super::{Action, Change, Controller, Decision, Key, KindRef, Moment, Snapshot};

/// kube-apiserver's `--event-ttl`.
const TTL: SignedDuration = SignedDuration::from_hours(1);

pub struct EventTtl;

impl Controller for EventTtl {
    fn name(&self) -> &'static str {
        "event_ttl"
    }

    fn wakes(&self, _seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        if change.kind == KindRef::of::<Event>() {
            wake(Key::to(change.kind, change.object()));
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(event) = seen.get::<Event>(&key.namespace, &key.name) else { return Decision::default() };
        let left = (last_written(event) + TTL).duration_since(moment.now);
        match std::time::Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Decision::after(left),
            _ => Decision::act(vec![Action::Delete {
                key: key.clone(),
                uid: event.metadata.uid.clone().unwrap_or_default(),
                grace_period_seconds: None,
                propagation_policy: Some("Background"),
            }]),
        }
    }
}

/// The latest time that the Event itself knows.
fn last_written(event: &Event) -> Timestamp {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        series.map(|time| time.0),
    ];
    times.into_iter().flatten().max().unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(event: Value, now: &str, requeue_after: Option<u64>, deleted: bool) {
        let mut event: Event = serde_json::from_value(event).unwrap();
        event.metadata.name = Some("e".into());
        let kind = KindRef::of::<Event>();
        let mut seen = Snapshot::default();
        seen.insert(kind, Arc::new(event));
        let moment = Moment { now: now.parse().unwrap(), waited: Duration::ZERO };
        let decision = EventTtl.reconcile(&seen, &Key::new(kind, "", "e"), moment);
        assert_eq!(decision.requeue_after, requeue_after.map(Duration::from_secs));
        assert_eq!(matches!(decision.actions[..], [Action::Delete { .. }]), deleted);
    }

    /// 9.14
    #[test]
    fn an_event_lives_an_hour_from_its_last_write() {
        let created =
            || json!({ "metadata": { "creationTimestamp": "2025-01-01T00:00:00Z" }, "involvedObject": {} });
        check(created(), "2025-01-01T00:10:00Z", Some(3000), false);
        check(created(), "2025-01-01T01:00:00Z", None, true);
        check(created(), "2025-01-02T00:00:00Z", None, true);
        let mut repeated = created();
        repeated["lastTimestamp"] = json!("2025-01-01T00:30:00Z");
        check(repeated.clone(), "2025-01-01T01:00:00Z", Some(1800), false);
        repeated["series"] = json!({ "count": 3, "lastObservedTime": "2025-01-01T00:45:00.000000Z" });
        check(repeated, "2025-01-01T01:00:00Z", Some(2700), false);
        check(json!({ "metadata": {}, "involvedObject": {} }), "2025-01-01T00:00:00Z", None, true);
    }
}
