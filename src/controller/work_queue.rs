//! Fills the queues of Jobs from ConfigMaps: the annotation `coracle.dev/queue-from`.
//!
//! Items are named after their place in the ConfigMap, so that a crash half way makes none twice, and are
//! handed out only once all are there (`coracle.dev/queue-filled`), so that none is made again which was
//! done meanwhile. What the ConfigMap says later is not looked at.

use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use serde_json::json;

use super::snapshot::Give;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, snapshot};
use crate::kind::queue_item::{self, FILLED, FROM, QueueItem};
use crate::kind::{Object, job};

const BY_SOURCE: &str = "jobs by the source of their queue";

pub struct WorkQueues;

/// Where a Job's items come from.
#[derive(Debug, PartialEq, Eq)]
struct Source<'a> {
    config_map: &'a str,
    /// One value, by lines; else every value.
    key: Option<&'a str>,
}

impl<'a> Source<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "annotation {FROM} is {text:?}: it must be configmap/NAME, each value of which is an item, or configmap/NAME:KEY, each line of which is one"
            )
        };
        let (kind, rest) = text.split_once('/').ok_or_else(wrong)?;
        if !matches!(kind, "configmap" | "configmaps" | "cm") {
            return Err(wrong());
        }
        let (config_map, key) = match rest.split_once(':') {
            Some((name, key)) => (name, Some(key)),
            None => (rest, None),
        };
        if config_map.is_empty() || key.is_some_and(str::is_empty) {
            return Err(wrong());
        }
        Ok(Self { config_map, key })
    }
}

/// What the Job's annotation says, if it is still to be done.
fn asked(job: &Job) -> Option<&str> {
    let annotations = job.metadata.annotations.as_ref()?;
    let is_over = annotations.contains_key(FILLED) || job.metadata.deletion_timestamp.is_some();
    annotations.get(FROM).map(String::as_str).filter(|_| !is_over && !job::is_finished(job))
}

fn by_source(object: &dyn Object, give: Give<'_>) {
    if let Some(job) = object.downcast_ref::<Job>()
        && let Some(Ok(source)) = asked(job).map(Source::parse)
    {
        give(&format!("{}/{}", snapshot::namespace(object), source.config_map), 0);
    }
}

impl Controller for WorkQueues {
    fn name(&self) -> &'static str {
        "work_queue"
    }

    fn indexes(&self) -> &'static [Index] {
        &[Index { name: BY_SOURCE, of: by_source }]
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        if let Some(job) = object.downcast_ref::<Job>() {
            if asked(job).is_some() {
                wake(Key::to(change.kind, object));
            }
        } else if object.downcast_ref::<ConfigMap>().is_some() {
            let source = format!("{}/{}", snapshot::namespace(object), snapshot::name(object));
            for (kind, job) in seen.indexed(BY_SOURCE, &source) {
                wake(Key::to(kind, &**job));
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let Some(job) = seen.get::<Job>(&key.namespace, &key.name) else { return Decision::default() };
        let Some(text) = asked(job) else { return Decision::default() };
        match payloads(seen, &key.namespace, text) {
            Ok(payloads) => Decision::act(fill(job, payloads)),
            Err(message) => {
                Decision::act(vec![Action::Warn { about: reference(job), reason: "QueueNotFilled", message }])
            }
        }
    }
}

fn payloads(seen: &Snapshot, namespace: &str, text: &str) -> Result<Vec<ByteString>, String> {
    let source = Source::parse(text)?;
    let map = seen.get::<ConfigMap>(namespace, source.config_map);
    let map = map.ok_or_else(|| {
        format!("the queue waits for configmap {:?}, which is not there", source.config_map)
    })?;
    let bytes = |text: &str| ByteString(text.as_bytes().to_owned());
    let Some(key) = source.key else {
        let texts = map.data.iter().flatten().map(|(key, text)| (key, bytes(text)));
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key, value.clone()));
        let mut all: Vec<_> = texts.chain(binary).collect();
        all.sort_by_key(|(key, _)| *key);
        return Ok(all.into_iter().map(|(_, payload)| payload).collect());
    };
    let value = map.data.as_ref().and_then(|data| data.get(key));
    let value = value.ok_or_else(|| {
        format!(
            "the queue waits for the key {key:?} of configmap {:?}, which has none as text",
            source.config_map
        )
    })?;
    Ok(value.lines().filter(|line| !line.trim().is_empty()).map(bytes).collect())
}

fn fill(job: &Job, payloads: Vec<ByteString>) -> Vec<Action> {
    let count = payloads.len();
    let items = payloads.into_iter().enumerate().map(|(i, payload)| {
        // Before all that is added by the time.
        let item = queue_item::of(job, &format!("{i:020}"), payload);
        Action::Create(KindRef::of::<QueueItem>(), Box::new(item))
    });
    let annotations = json!({ FILLED: count.to_string() });
    let patch = json!({ "metadata": { "uid": job.metadata.uid, "annotations": annotations } });
    vec![
        Action::Together(items.collect()),
        Action::Patch(Key::to(KindRef::of::<Job>(), job), patch),
        Action::Event {
            about: reference(job),
            reason: "QueueFilled",
            message: format!("Added {count} items to the queue"),
        },
    ]
}

fn reference(job: &Job) -> ObjectReference {
    crate::client::reference(job, None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    fn decide(job: Value, map: Value) -> Vec<String> {
        let mut seen = Snapshot::new(WorkQueues.indexes());
        let job: Job = serde_json::from_value(job).unwrap();
        seen.insert(KindRef::of::<Job>(), Arc::new(job));
        if !map.is_null() {
            let map: ConfigMap = serde_json::from_value(map).unwrap();
            let map: Arc<dyn Object> = Arc::new(map);
            seen.insert(KindRef::of::<ConfigMap>(), map.clone());
            let mut woken = 0;
            let change = Change { kind: KindRef::of::<ConfigMap>(), old: None, new: Some(&map) };
            WorkQueues.wakes(&seen, &change, &mut |key| {
                assert_eq!(key.name, "j");
                woken += 1;
            });
            assert!(woken <= 1, "once");
        }
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: Duration::ZERO };
        let decision = WorkQueues.reconcile(&seen, &Key::new(KindRef::of::<Job>(), "n", "j"), moment);
        decision.actions.iter().flat_map(render).collect()
    }

    fn render(action: &Action) -> Vec<String> {
        match action {
            Action::Together(all) => all.iter().flat_map(render).collect(),
            Action::Create(_, object) => {
                let item = (**object).downcast_ref::<QueueItem>().unwrap();
                let payload = String::from_utf8(item.spec.payload.0.clone()).unwrap();
                vec![format!("{} {payload}", item.metadata.name.as_deref().unwrap())]
            }
            Action::Patch(key, patch) => {
                vec![format!("{} {}", key.name, patch["metadata"]["annotations"][FILLED])]
            }
            Action::Warn { reason, message, .. } | Action::Event { reason, message, .. } => {
                vec![format!("{reason}: {message}")]
            }
            other => panic!("{other:?}"),
        }
    }

    fn job(from: &str) -> Value {
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "u", "annotations": {FROM: from}},
               "spec": {"template": {}}})
    }

    #[test]
    fn values_or_lines_become_items_in_order() {
        let map = json!({"metadata": {"name": "m", "namespace": "n"},
            "data": {"b": "second", "a": "first"}, "binaryData": {"c": "dGhpcmQ="}});
        assert_eq!(
            decide(job("configmap/m"), map.clone()),
            [
                "j.00000000000000000000 first",
                "j.00000000000000000001 second",
                "j.00000000000000000002 third",
                "j \"3\"",
                "QueueFilled: Added 3 items to the queue",
            ]
        );
        let lines = json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"list": "one\n\ntwo\r\n"}});
        assert_eq!(
            decide(job("cm/m:list"), lines.clone()),
            [
                "j.00000000000000000000 one",
                "j.00000000000000000001 two",
                "j \"2\"",
                "QueueFilled: Added 2 items to the queue",
            ]
        );
        let mut filled = job("cm/m:list");
        filled["metadata"]["annotations"][FILLED] = json!("2");
        assert_eq!(decide(filled, lines), [""; 0]);
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_told() {
        let map = json!({"metadata": {"name": "m", "namespace": "n"}});
        for (from, map, expected) in [
            ("cm/m", Value::Null, "the queue waits for configmap \"m\", which is not there"),
            (
                "cm/m:k",
                map.clone(),
                "the queue waits for the key \"k\" of configmap \"m\", which has none as text",
            ),
            (
                "secret/m",
                map.clone(),
                "annotation coracle.dev/queue-from is \"secret/m\": it must be configmap/NAME, each value of which is an item, or configmap/NAME:KEY, each line of which is one",
            ),
            (
                "m",
                map.clone(),
                "annotation coracle.dev/queue-from is \"m\": it must be configmap/NAME, each value of which is an item, or configmap/NAME:KEY, each line of which is one",
            ),
        ] {
            assert_eq!(decide(job(from), map), [format!("QueueNotFilled: {expected}")]);
        }
    }
}
