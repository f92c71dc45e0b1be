//! What a guest has of its Job's work: `coracle:queue/work` (`wit/queue/queue.wit`).
//!
//! The runtime knows no Jobs: a node gives a container its [`Queue`], and here are only the functions by
//! which the guest uses it. They wait without taking processor time.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::{HasData, Linker};

use self::bindings::coracle::queue::work;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/queue",
        world: "coracle:queue/imports",
        require_store_data_send: true,
        imports: { default: async | trappable },
    });
}

/// One worker's end of a queue.
#[async_trait]
pub trait Queue: Send + Sync {
    /// The next item if there is one now, for so many seconds.
    async fn claim(&self, lease_seconds: u32) -> Result<Claimed, QueueError>;
    /// Waits for the next item; `None` if all is done.
    async fn next(&self, lease_seconds: u32) -> Result<Option<Item>, QueueError>;
    async fn complete(&self, id: &str, token: u64) -> Result<(), QueueError>;
    async fn fail(&self, id: &str, token: u64, why: &str) -> Result<(), QueueError>;
    /// The claim's new token.
    async fn extend(&self, id: &str, token: u64, lease_seconds: u32) -> Result<u64, QueueError>;
    async fn push(&self, payload: Vec<u8>) -> Result<(), QueueError>;
    async fn length(&self) -> Result<Length, QueueError>;
}

#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    pub token: u64,
    /// From 1 on.
    pub attempt: u32,
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Claimed {
    Item(Item),
    /// Others have items that may come back.
    Waiting,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub waiting: u64,
    pub claimed: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    #[error("the item is another's by now")]
    Lost,
    #[error("{0}")]
    Failed(String),
}

/// The part of a guest's store that the interface needs.
pub(super) trait HasQueue: Send {
    fn queue(&mut self) -> QueueView<'_>;
}

/// `None` is a container without a queue.
pub(super) struct QueueView<'a>(pub(super) Option<&'a Arc<dyn Queue>>);

struct HasQueueView;

impl HasData for HasQueueView {
    type Data<'a> = QueueView<'a>;
}

/// Adds the interface to `linker`.
pub(super) fn add_to_linker<T: HasQueue + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    work::add_to_linker::<T, HasQueueView>(linker, T::queue)
}

type Answer<T> = wasmtime::Result<Result<T, work::Error>>;

impl QueueView<'_> {
    fn given(&self) -> Result<Arc<dyn Queue>, work::Error> {
        self.0.cloned().ok_or(work::Error::NoQueue)
    }
}

impl From<QueueError> for work::Error {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Lost => Self::Lost,
            QueueError::Failed(why) => Self::Failed(why),
        }
    }
}

impl From<Item> for work::Item {
    fn from(Item { id, token, attempt, payload }: Item) -> Self {
        Self { id, token, attempt, payload }
    }
}

impl work::Host for QueueView<'_> {
    async fn claim(&mut self, lease_seconds: u32) -> Answer<work::Claimed> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        let claimed = queue.claim(lease_seconds).await.map(|claimed| match claimed {
            Claimed::Item(item) => work::Claimed::Item(item.into()),
            Claimed::Waiting => work::Claimed::Waiting,
            Claimed::Done => work::Claimed::Done,
        });
        Ok(claimed.map_err(Into::into))
    }

    async fn next(&mut self, lease_seconds: u32) -> Answer<Option<work::Item>> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        let next = queue.next(lease_seconds).await;
        Ok(next.map(|item| item.map(Into::into)).map_err(Into::into))
    }

    async fn complete(&mut self, id: String, token: u64) -> Answer<()> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        Ok(queue.complete(&id, token).await.map_err(Into::into))
    }

    async fn fail(&mut self, id: String, token: u64, why: String) -> Answer<()> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        Ok(queue.fail(&id, token, &why).await.map_err(Into::into))
    }

    async fn extend(&mut self, id: String, token: u64, lease_seconds: u32) -> Answer<u64> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        Ok(queue.extend(&id, token, lease_seconds).await.map_err(Into::into))
    }

    async fn push(&mut self, payload: Vec<u8>) -> Answer<()> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        Ok(queue.push(payload).await.map_err(Into::into))
    }

    async fn length(&mut self) -> Answer<work::Lengths> {
        let queue = match self.given() {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        let length = queue.length().await;
        Ok(length
            .map(|Length { waiting, claimed, failed }| work::Lengths { waiting, claimed, failed })
            .map_err(Into::into))
    }
}
