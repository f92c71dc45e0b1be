//! What the kubelet asks of the API, as narrow as it can be: tests put a double in its place.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, ObjectReference, Pod, Secret, ServiceAccount};
use serde_json::Value;

use crate::client::{Client, DeleteOptions, Recorder, Select, Watcher};
use crate::clock::Clock;
use crate::kind::queue_item::{self, QueueItem};

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("not found")]
    NotFound,
    #[error("conflict")]
    Conflict,
    #[error("{0}")]
    Other(String),
}

/// The API as one node's kubelet uses it for its pods.
#[async_trait]
pub(crate) trait NodeApi: Send + Sync {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, ApiError>;
    /// Writes the status, if the object still has the same `resourceVersion`.
    async fn write_status(&self, pod: Pod) -> Result<Arc<Pod>, ApiError>;
    /// Deletes a stopped pod for good, if it still has the same uid.
    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError>;
    /// This node's object.
    async fn node(&self) -> Result<Arc<Node>, ApiError>;
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError>;
    async fn account(&self, namespace: &str, name: &str) -> Result<Arc<ServiceAccount>, ApiError>;
    /// A token of an account, and when it expires.
    async fn token(
        &self,
        namespace: &str,
        account: &str,
        request: TokenRequest,
    ) -> Result<(String, Timestamp), ApiError>;
    fn record(&self, about: &ObjectReference, warning: bool, reason: &str, message: String);
    /// Asks the queue of a Job, or what is in it.
    async fn queue(&self, namespace: &str, job: &str, ask: Option<Value>) -> Result<Value, ApiError>;
    /// News of the queue, beginning with what there is.
    fn queue_changes(&self, namespace: &str, job: &str) -> Box<dyn QueueChanges>;
}

/// Tells that something about a queue has changed.
#[async_trait]
pub(crate) trait QueueChanges: Send {
    /// Returns after a change; false if there will be none any more.
    async fn next(&mut self) -> bool;
}

/// Its items, and the Job itself, whose annotations say whether more will come.
struct Watched {
    items: Watcher<QueueItem>,
    job: Watcher<Job>,
}

#[async_trait]
impl QueueChanges for Watched {
    async fn next(&mut self) -> bool {
        tokio::select! {
            batch = self.items.next_batch() => batch.is_some(),
            batch = self.job.next_batch() => batch.is_some(),
        }
    }
}

/// The real one: this node's client.
pub(crate) struct ClientApi {
    pub(crate) node: String,
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    /// Made with the first event: of thousands of nodes most may have none.
    pub(crate) recorder: OnceLock<Recorder>,
}

fn told<T>(answer: crate::client::Result<T>) -> Result<T, ApiError> {
    answer.map_err(|error| {
        if error.is_not_found() {
            ApiError::NotFound
        } else if error.is_conflict() {
            ApiError::Conflict
        } else {
            ApiError::Other(error.to_string())
        }
    })
}

#[async_trait]
impl NodeApi for ClientApi {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, ApiError> {
        told(self.client.get(namespace, name).await)
    }

    async fn write_status(&self, pod: Pod) -> Result<Arc<Pod>, ApiError> {
        told(self.client.update_status(pod).await)
    }

    async fn delete_pod(&self, pod: &Pod) -> Result<(), ApiError> {
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: meta.uid.clone(),
            ..DeleteOptions::default()
        };
        told(self.client.delete::<Pod>(namespace, name, options).await)
    }

    async fn node(&self) -> Result<Arc<Node>, ApiError> {
        told(self.client.get("", &self.node).await)
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        told(self.client.get(namespace, name).await)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        told(self.client.get(namespace, name).await)
    }

    async fn account(&self, namespace: &str, name: &str) -> Result<Arc<ServiceAccount>, ApiError> {
        told(self.client.get(namespace, name).await)
    }

    async fn token(
        &self,
        namespace: &str,
        account: &str,
        request: TokenRequest,
    ) -> Result<(String, Timestamp), ApiError> {
        // What the API says is told whole: it ends in an event.
        let answer = self.client.create_token(namespace, account, request).await;
        let request = answer.map_err(|error| ApiError::Other(error.to_string()))?;
        let status = request.status.ok_or_else(|| ApiError::Other("the answer has no token".into()))?;
        Ok((status.token, status.expiration_timestamp.0))
    }

    async fn queue(&self, namespace: &str, job: &str, ask: Option<Value>) -> Result<Value, ApiError> {
        told(self.client.queue(namespace, job, ask).await)
    }

    fn queue_changes(&self, namespace: &str, job: &str) -> Box<dyn QueueChanges> {
        let namespace = Some(namespace.to_owned());
        let label_selector = Some(format!("{}={job}", queue_item::JOB));
        let field_selector = Some(format!("metadata.name={job}"));
        let items = Select { namespace: namespace.clone(), label_selector, ..Select::default() };
        let job = Select { namespace, field_selector, ..Select::default() };
        Box::new(Watched { items: self.client.watch(items), job: self.client.watch(job) })
    }

    fn record(&self, about: &ObjectReference, warning: bool, reason: &str, message: String) {
        let recorder = self
            .recorder
            .get_or_init(|| Recorder::start(self.client.clone(), self.clock, "kubelet", Some(&self.node)));
        if warning {
            recorder.warning(about, reason, message);
        } else {
            recorder.normal(about, reason, message);
        }
    }
}
