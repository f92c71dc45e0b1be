//! The same verbs, typed: how the control plane's own parts speak to the API.
//!
//! Today's client is in process: it hands [`Request`](crate::apiserver::Request) values to the one
//! door. A remote one speaks HTTPS with the same methods when nodes live elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event as CoreEvent, ObjectReference};

use crate::apiserver::Error;
use crate::kind::Typed;

pub type Result<T> = std::result::Result<T, Error>;

/// A user's typed door to the API; cheap to clone.
#[derive(Clone)]
pub struct Client(());

/// A list at one revision.
pub struct Listing<K> {
    pub revision: u64,
    pub items: Vec<Arc<K>>,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    pub propagation_policy: Option<&'static str>,
}

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub struct Select {
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
}

impl Client {
    pub async fn get<K: Typed>(&self, _namespace: &str, _name: &str) -> Result<Arc<K>> {
        todo!()
    }

    pub async fn list<K: Typed>(&self, _select: &Select) -> Result<Listing<K>> {
        todo!()
    }

    pub async fn create<K: Typed>(&self, _object: K) -> Result<Arc<K>> {
        todo!()
    }

    /// PUT; the object's `resourceVersion`, if set, is a precondition.
    pub async fn update<K: Typed>(&self, _object: K) -> Result<Arc<K>> {
        todo!()
    }

    /// PUT of the `status` subresource.
    pub async fn update_status<K: Typed>(&self, _object: K) -> Result<Arc<K>> {
        todo!()
    }

    /// JSON merge patch of the main resource, or of `subresource`.
    pub async fn merge_patch<K: Typed>(
        &self,
        _namespace: &str,
        _name: &str,
        _subresource: Option<crate::kind::Subresource>,
        _patch: serde_json::Value,
    ) -> Result<Arc<K>> {
        todo!()
    }

    pub async fn delete<K: Typed>(
        &self,
        _namespace: &str,
        _name: &str,
        _options: DeleteOptions,
    ) -> Result<()> {
        todo!()
    }

    /// Binds a pod to a node by the binding subresource.
    pub async fn bind(&self, _namespace: &str, _pod: &str, _uid: &str, _node: &str) -> Result<()> {
        todo!()
    }

    /// Everything selected, now and from now on.
    #[must_use]
    pub fn watch<K: Typed>(&self, _select: Select) -> Watcher<K> {
        todo!()
    }
}

/// What a [`Watcher`] tells.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// The whole state: at the start, and again after a gap in the history. What is not in it is gone.
    Restarted(Vec<Arc<K>>),
    Applied(Arc<K>),
    /// The last content.
    Deleted(Arc<K>),
}

/// A list and the watch that continues it, resumed by itself for as long as it is polled.
pub struct Watcher<K> {
    _ready: VecDeque<Event<K>>,
}

impl<K: Typed> Watcher<K> {
    /// The next change; `None` once the API is shut down.
    pub async fn next(&mut self) -> Option<Event<K>> {
        todo!()
    }

    /// The next changes, at least one: all that are ready.
    pub async fn next_batch(&mut self) -> Option<Vec<Event<K>>> {
        todo!()
    }
}

/// Records Kubernetes Events about objects on behalf of one component; cheap to clone. Repeats raise
/// `count` and `lastTimestamp` of one Event (BEHAVIOURS 9.14). Writing happens behind the caller, in
/// order, and is bounded: under a flood the oldest unsent are dropped and counted.
#[derive(Clone)]
pub struct Recorder(());

impl Recorder {
    /// `component` is `source.component`, such as `kubelet`; `host` the node, if it is one.
    /// Starts the task that writes.
    #[must_use]
    pub fn start(
        _client: Client,
        _clock: crate::clock::Clock,
        _component: &str,
        _host: Option<&str>,
    ) -> Self {
        todo!()
    }

    pub fn normal(&self, _about: &ObjectReference, _reason: &str, _message: impl Into<String>) {
        todo!()
    }

    pub fn warning(&self, _about: &ObjectReference, _reason: &str, _message: impl Into<String>) {
        todo!()
    }
}

/// How Events name an object; `field_path` such as `spec.containers{web}` names a part.
#[must_use]
pub fn reference<K: Typed>(object: &K, field_path: Option<String>) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path,
    }
}

/// Placeholder so that the import stays until the recorder is written.
#[doc(hidden)]
pub type RecordedEvent = CoreEvent;
