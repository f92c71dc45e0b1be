//! The one door: every verb, once, for every kind.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use super::request::{LogOptions, LogStream, Request, Response};
use super::status::Error;
use crate::clock::Clock;
use crate::random::Random;
use crate::store::Store;

/// What the API needs from nodes; `cluster.rs` plugs it in.
#[async_trait]
pub trait NodeAccess: Send + Sync {
    /// The log of `container` (already checked to exist in the pod's spec) as its node has it.
    async fn logs(&self, pod: &Pod, container: &str, options: &LogOptions) -> Result<LogStream, Error>;
}

/// The API of one cluster; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    _store: Store,
}

/// What an [`Api`] is made of.
pub struct Parts {
    pub store: Store,
    pub clock: Clock,
    pub random: Random,
    pub nodes: Arc<dyn NodeAccess>,
}

impl Api {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { _store: parts.store }))
    }

    /// Answers one request.
    pub async fn handle(&self, _request: Request) -> Result<Response, Error> {
        let _ = &self.0;
        todo!()
    }
}
