//! What the store promises, checked on both forms of it.

mod damage;
mod history;
mod sealing;
mod transactions;
mod versions;
mod watching;

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Change, Expect, Key, Limits, Options, Range, Record, Revision, Store, Write};
use crate::clock::Clock;
use crate::kind::Object;

/// So small that a few dozen writes roll the log several times.
const TINY: Limits =
    Limits { window_events: 8, window_bytes: 1 << 20, segment_bytes: 2048, step_bytes: 1024 };

/// Nothing is ever rolled or let go.
const ROOMY: Limits =
    Limits { window_events: 1 << 20, window_bytes: 1 << 30, segment_bytes: 1 << 30, step_bytes: 4096 };

fn options(directory: &Path) -> Options {
    Options { directory: directory.to_owned(), clock: Clock::real(), history_bytes: 1 << 30, sealing: None }
}

fn ephemeral() -> Store {
    Store::ephemeral(Clock::real())
}

fn open(directory: &Path, limits: &Limits) -> Store {
    Store::open_with(&options(directory), limits).unwrap()
}

fn key(namespace: &str, name: &str) -> Key {
    Key { collection: "configmaps", namespace: namespace.into(), name: name.into() }
}

fn all() -> Range {
    Range { collection: "configmaps", namespace: None }
}

fn within(namespace: &str) -> Range {
    Range { collection: "configmaps", namespace: Some(namespace.into()) }
}

fn content(key: &Key, value: &str) -> Change {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(key.name.to_string());
    map.metadata.namespace = Some(key.namespace.to_string());
    map.data = Some([("value".to_owned(), value.to_owned())].into());
    Change::Put { encoded: map.encode(), object: Box::new(map) }
}

fn put(key: Key, expect: Expect, value: &str) -> Write {
    let change = content(&key, value);
    Write { key, expect, change }
}

fn create(name: &str, value: &str) -> Write {
    put(key("ns", name), Expect::Absent, value)
}

fn delete(key: Key, revision: Revision) -> Write {
    Write { key, expect: Expect::Revision(revision), change: Change::Delete }
}

/// Puts whatever is there now.
async fn set(store: &Store, key: Key, value: &str) -> Arc<Record> {
    let expect = store.get(&key).map_or(Expect::Absent, |record| Expect::Revision(record.revision));
    store.commit(vec![put(key, expect, value)]).await.unwrap().remove(0).unwrap()
}

async fn unset(store: &Store, key: Key) -> Arc<Record> {
    let revision = store.get(&key).unwrap().revision;
    store.commit(vec![delete(key, revision)]).await.unwrap().remove(0).unwrap()
}

fn decode(json: &[u8]) -> Arc<dyn Object> {
    Arc::new(serde_json::from_slice::<ConfigMap>(json).unwrap())
}

/// `ns/name=value@revision+created`, after checking that bytes and object say the same.
#[track_caller]
fn show(record: &Arc<Record>) -> String {
    let object = record.object(|_| panic!("decoded when committed"));
    show_object(record, &*object)
}

#[track_caller]
fn show_read(record: &Record) -> String {
    show_object(record, &*record.object(decode))
}

#[track_caller]
fn show_object(record: &Record, object: &dyn Object) -> String {
    let read: ConfigMap = serde_json::from_slice(&record.json).unwrap();
    assert_eq!(object.downcast_ref::<ConfigMap>(), Some(&read));
    assert_eq!(read.metadata.resource_version, Some(record.revision.to_string()));
    assert_eq!(read.metadata.name.as_deref(), Some(&*record.key.name));
    let value = &read.data.unwrap()["value"];
    let Key { namespace, name, .. } = &record.key;
    format!("{namespace}/{name}={value}@{}+{}", record.revision, record.created)
}

fn listed(store: &Store, range: &Range) -> Vec<String> {
    store.list(range, None, None, &|_| true).records.iter().map(|record| show_read(record)).collect()
}

/// The test's own patience; nothing that works comes near it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    Clock::real().timeout(std::time::Duration::from_secs(20), future).await.expect("it happens within 20 s")
}
