//! QueueItem: one piece of work of a Job, which is ours.
//!
//! The items of a Job's queue lie in its namespace, bear its name and are its dependents, so they go
//! with it. An item is taken by writing who has it and until when; the revision of that write is the
//! claim's token, so of two who believe they have it only one can say that it is done. A done item is
//! deleted. `jobs/queue` (`apiserver/handle/queue.rs`) is how all that is done; here is only what an item
//! is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Errors, Path};
use super::table::{self, Cell, described};
use super::validation::immutable;
use super::{Kind, Strategy};

/// On a QueueItem: the Job whose work it is.
pub const JOB: &str = "coracle.dev/queue";
/// On a Job: `configmap/NAME`, each value of which is an item, or `configmap/NAME:KEY`, each line of which
/// is one.
pub const FROM: &str = "coracle.dev/queue-from";
/// On a Job, by the controller: how many items [`FROM`] gave. Until then none is handed out.
pub const FILLED: &str = "coracle.dev/queue-filled";
/// On a Job: `"true"` while more items may come, so that an empty queue is not yet the end.
pub const OPEN: &str = "coracle.dev/queue-open";
/// On a Job: how often an item is handed out before it counts as failed.
pub const ATTEMPTS: &str = "coracle.dev/queue-attempts";
/// As `backoffLimit`'s default.
pub const ATTEMPTS_DEFAULT: i32 = 6;

/// Bytes of one item, as of all values of a ConfigMap.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

pub static KIND: Kind = Kind {
    short_names: &["qi"],
    unconditional_update: false,
    columns: &[
        table::NAME,
        described("Job", "string", 0, "The Job whose work it is."),
        described("State", "string", 0, "Whether it waits, is claimed, or was given up."),
        described("Attempts", "integer", 0, "How often it was handed out."),
        described("Worker", "string", 0, "Who has it."),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "queueitem")
};

/// QueueItem is one piece of work of a Job's queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueItem {
    /// The versioned schema of this representation of an object.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// The REST resource this object represents.
    #[serde(default = "kind")]
    pub kind: String,
    /// Standard object's metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is to be done.
    #[serde(default)]
    pub spec: QueueItemSpec,
    /// Who does it.
    #[serde(default)]
    pub status: QueueItemStatus,
}

/// What is to be done.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueItemSpec {
    /// Whatever the worker understands. It does not change.
    #[serde(default)]
    #[schemars(with = "String")]
    pub payload: ByteString,
}

/// Who does it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueItemStatus {
    /// How often it was handed out.
    #[serde(default)]
    pub attempts: i32,
    /// Why it is handed out no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Until when nobody else gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_expires: Option<MicroTime>,
    /// Who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

fn api_version() -> String {
    <QueueItem as k8s_openapi::Resource>::API_VERSION.to_owned()
}

fn kind() -> String {
    <QueueItem as k8s_openapi::Resource>::KIND.to_owned()
}

impl Default for QueueItem {
    fn default() -> Self {
        Self {
            api_version: api_version(),
            kind: kind(),
            metadata: ObjectMeta::default(),
            spec: QueueItemSpec::default(),
            status: QueueItemStatus::default(),
        }
    }
}

impl std::fmt::Debug for QueueItemSpec {
    /// Without the payload, which is not ours to show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueueItemSpec({} bytes)", self.payload.0.len())
    }
}

impl k8s_openapi::Resource for QueueItem {
    const API_VERSION: &'static str = "coracle.dev/v1";
    const GROUP: &'static str = "coracle.dev";
    const KIND: &'static str = "QueueItem";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "queueitems";
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::ListableResource for QueueItem {
    const LIST_KIND: &'static str = "QueueItemList";
}

impl k8s_openapi::Metadata for QueueItem {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// An item of the Job's queue at a place, which orders the items.
#[must_use]
pub fn of(job: &Job, place: &str, payload: ByteString) -> QueueItem {
    let name = job.metadata.name.clone().unwrap_or_default();
    QueueItem {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{place}")),
            namespace: job.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(JOB.to_owned(), name.clone())])),
            owner_references: Some(vec![OwnerReference {
                api_version: <Job as k8s_openapi::Resource>::API_VERSION.to_owned(),
                kind: <Job as k8s_openapi::Resource>::KIND.to_owned(),
                name,
                uid: job.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: QueueItemSpec { payload },
        ..QueueItem::default()
    }
}

/// What can be done with an item at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has it, or who had it has lost it.
    Waiting,
    Claimed,
    Failed,
}

impl State {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Claimed => "Claimed",
            Self::Failed => "Failed",
        }
    }
}

impl QueueItem {
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        if self.status.failed.is_some() {
            State::Failed
        } else if self.status.lease_expires.as_ref().is_some_and(|expires| expires.0 > now) {
            State::Claimed
        } else {
            State::Waiting
        }
    }
}

struct Rules;

impl Strategy for Rules {
    type Object = QueueItem;

    fn prepare_create(&self, item: &mut QueueItem) {
        item.status = QueueItemStatus::default();
    }

    fn prepare_update(&self, new: &mut QueueItem, old: &QueueItem) {
        new.status.clone_from(&old.status);
    }

    fn validate(&self, item: &QueueItem, errors: &mut Errors) {
        if item.spec.payload.0.len() > PAYLOAD_BYTES_MAX {
            errors.too_long(&Path::new("spec.payload"), PAYLOAD_BYTES_MAX);
        }
    }

    fn validate_update(&self, new: &QueueItem, old: &QueueItem, errors: &mut Errors) {
        immutable(errors, &Path::new("spec.payload"), &new.spec.payload, &old.spec.payload);
    }

    fn cells(&self, item: &QueueItem, now: Timestamp) -> Vec<Cell> {
        let job = item.metadata.labels.as_ref().and_then(|labels| labels.get(JOB));
        vec![
            table::name(item),
            Cell::or_none(job.map_or("", String::as_str)),
            Cell::Text(item.state(now).name().to_owned()),
            Cell::Number(item.status.attempts.into()),
            Cell::or_none(item.status.worker.as_deref().unwrap_or_default()),
            table::age(item, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::fixture::Fixture;

    const ITEM: Fixture = Fixture {
        kind: &KIND,
        base: || json!({"metadata": {"name": "j.1", "namespace": "n", "labels": {JOB: "j"}}, "spec": {"payload": "aGVsbG8="}}),
    };

    #[test]
    fn payloads_stay_and_are_bounded() {
        ITEM.valid(json!({}), &[]);
        let large = k8s_openapi::ByteString(vec![0; PAYLOAD_BYTES_MAX + 1]);
        ITEM.valid(
            json!({"spec": {"payload": large}}),
            &["spec.payload: Too long: may not be more than 1048576 bytes"],
        );
        ITEM.update(
            json!({}),
            json!({"spec": {"payload": "aGVsbG8h"}}),
            &[r#"spec.payload: Invalid value: "aGVsbG8h": field is immutable"#],
        );
        let shown = format!("{:?}", ITEM.object(json!({})));
        assert!(shown.contains("5 bytes") && !shown.contains("hello") && !shown.contains("104"), "{shown}");
    }

    #[test]
    fn a_lease_holds_until_it_expires() {
        let held =
            json!({"status": {"attempts": 2, "worker": "w", "leaseExpires": "1970-01-01T01:00:01.000000Z"}});
        ITEM.cells(held, &["j.1", "j", "Claimed", "2", "w", "<unknown>"]);
        let lost =
            json!({"status": {"attempts": 2, "worker": "w", "leaseExpires": "1970-01-01T01:00:00.000000Z"}});
        ITEM.cells(lost, &["j.1", "j", "Waiting", "2", "w", "<unknown>"]);
        ITEM.cells(json!({"status": {"failed": "why"}}), &["j.1", "j", "Failed", "0", "<none>", "<unknown>"]);
    }

    #[test]
    fn the_encoding_begins_as_every_other() {
        let json = String::from_utf8(ITEM.created(json!({})).encode().json).unwrap();
        assert!(
            json.starts_with(r#"{"kind":"QueueItem","apiVersion":"coracle.dev/v1","metadata":{"#),
            "{json}"
        );
    }
}
