//! The work queue of a container whose pod is a Job's: `jobs/queue`, as the guest's interface has it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::api::{ApiError, NodeApi, QueueChanges};
use crate::clock::Clock;
use crate::runtime::queue::{Claimed, Item, Length, Queue, QueueError};

/// One container's end of its Job's queue.
pub(crate) struct JobQueue {
    api: Arc<dyn NodeApi>,
    clock: Clock,
    namespace: String,
    job: String,
    /// The pod's name: who has an item.
    worker: String,
    /// News of the queue, once somebody has waited for it.
    changes: Mutex<Option<Box<dyn QueueChanges>>>,
}

impl JobQueue {
    /// `None` for a pod that is not a Job's.
    pub(crate) fn of(pod: &Pod, api: &Arc<dyn NodeApi>, clock: Clock) -> Option<Arc<dyn Queue>> {
        let owners = pod.metadata.owner_references.iter().flatten();
        let mut controllers = owners.filter(|owner| owner.controller == Some(true));
        let owner = controllers.find(|owner| owner.kind == "Job" && owner.api_version == "batch/v1")?;
        Some(Arc::new(Self {
            api: Arc::clone(api),
            clock,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            job: owner.name.clone(),
            worker: pod.metadata.name.clone().unwrap_or_default(),
            changes: Mutex::default(),
        }))
    }

    async fn ask(&self, ask: Value) -> Result<Value, QueueError> {
        self.api.queue(&self.namespace, &self.job, Some(ask)).await.map_err(failed)
    }

    /// What a claim answers, and for `waiting` when to ask again though nothing changes.
    async fn try_claim(&self, lease_seconds: u32) -> Result<(Claimed, Option<Timestamp>), QueueError> {
        let claim = json!({ "claim": { "worker": self.worker, "leaseSeconds": lease_seconds } });
        let answer = self.ask(claim).await?;
        match answer["state"].as_str() {
            Some("done") => Ok((Claimed::Done, None)),
            Some("waiting") => {
                let until = answer["until"].as_str().and_then(|until| until.parse().ok());
                Ok((Claimed::Waiting, until))
            }
            _ => Ok((Claimed::Item(item(&answer)?), None)),
        }
    }
}

fn failed(error: ApiError) -> QueueError {
    match error {
        ApiError::Conflict => QueueError::Lost,
        ApiError::NotFound => QueueError::Failed("the Job of this queue is gone".to_owned()),
        ApiError::Other(why) => QueueError::Failed(why),
    }
}

fn unreadable() -> QueueError {
    QueueError::Failed("the answer about the queue makes no sense".to_owned())
}

fn item(answer: &Value) -> Result<Item, QueueError> {
    let read = || {
        Some(Item {
            id: answer["id"].as_str()?.to_owned(),
            token: answer["token"].as_u64()?,
            attempt: u32::try_from(answer["attempt"].as_u64()?).ok()?,
            payload: STANDARD.decode(answer["base64"].as_str()?).ok()?,
        })
    };
    read().ok_or_else(unreadable)
}

#[async_trait]
impl Queue for JobQueue {
    async fn claim(&self, lease_seconds: u32) -> Result<Claimed, QueueError> {
        self.try_claim(lease_seconds).await.map(|(claimed, _)| claimed)
    }

    async fn next(&self, lease_seconds: u32) -> Result<Option<Item>, QueueError> {
        loop {
            let until = match self.try_claim(lease_seconds).await? {
                (Claimed::Item(item), _) => return Ok(Some(item)),
                (Claimed::Done, _) => return Ok(None),
                (Claimed::Waiting, until) => until,
            };
            let mut changes = self.changes.lock().await;
            let Some(news) = changes.as_mut() else {
                // It begins with what there is, so nothing is missed since the claim.
                *changes = Some(self.api.queue_changes(&self.namespace, &self.job));
                continue;
            };
            let patience = until.map(|until| {
                let left = Duration::try_from(until.duration_since(self.clock.now())).unwrap_or_default();
                // A lease is over once its time has passed.
                left + Duration::from_millis(1)
            });
            let goes_on = match patience {
                Some(patience) => self.clock.timeout(patience, news.next()).await.unwrap_or(true),
                None => news.next().await,
            };
            if !goes_on {
                return Err(QueueError::Failed("the node is shutting down".to_owned()));
            }
        }
    }

    async fn complete(&self, id: &str, token: u64) -> Result<(), QueueError> {
        self.ask(json!({ "complete": { "id": id, "token": token } })).await.map(drop)
    }

    async fn fail(&self, id: &str, token: u64, why: &str) -> Result<(), QueueError> {
        self.ask(json!({ "fail": { "id": id, "token": token, "why": why } })).await.map(drop)
    }

    async fn extend(&self, id: &str, token: u64, lease_seconds: u32) -> Result<u64, QueueError> {
        let extend = json!({ "extend": { "id": id, "token": token, "leaseSeconds": lease_seconds } });
        self.ask(extend).await?["token"].as_u64().ok_or_else(unreadable)
    }

    async fn push(&self, payload: Vec<u8>) -> Result<(), QueueError> {
        self.ask(json!({ "add": { "base64": [STANDARD.encode(payload)] } })).await.map(drop)
    }

    async fn length(&self) -> Result<Length, QueueError> {
        let answer = self.api.queue(&self.namespace, &self.job, None).await.map_err(failed)?;
        let count = |name: &str| answer[name].as_u64().ok_or_else(unreadable);
        Ok(Length { waiting: count("waiting")?, claimed: count("claimed")?, failed: count("failed")? })
    }
}
