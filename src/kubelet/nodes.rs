//! All nodes of the process: one watch of pods, handed to the actors of those that are bound here.
//!
//! A process can hold thousands of nodes, so nothing here is per node but a little state.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admit::Usage;
use super::api::{ClientApi, NodeApi};
use super::inbox::Inbox;
use super::logs::Logs;
use super::meters::Meters;
use super::node::NodeConfig;
use super::pod;
use super::running::Running;
use super::sources::Sources;
use crate::client::{self, Client, Select, Watcher};
use crate::clock::Clock;
use crate::network::Networks;

/// What every node of the process shares.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) sources: Sources,
    pub(crate) networks: Networks,
    pub(crate) logs: Logs,
    pub(crate) running: Running,
    pub(crate) meters: Meters,
}

/// One node, as the actors of its pods see it.
pub(crate) struct NodeContext {
    pub(crate) config: NodeConfig,
    pub(crate) api: Arc<dyn NodeApi>,
    pub(crate) usage: Usage,
    pub(crate) shared: Arc<Shared>,
}

impl NodeContext {
    pub(crate) fn new(config: NodeConfig, client: Client, shared: Arc<Shared>) -> Self {
        let api =
            ClientApi { node: config.name.clone(), client, clock: shared.clock, recorder: OnceLock::new() };
        let usage = Usage::new(config.capacity.clone());
        Self { config, api: Arc::new(api), usage, shared }
    }
}

/// Hands pods to their actors.
pub(crate) struct Dispatch {
    nodes: HashMap<String, Arc<NodeContext>>,
    shared: Arc<Shared>,
    /// By uid, every pod that this process has acted on and that is not gone. `None` once the actor
    /// has ended: what the watch still tells of earlier states must not start it anew.
    pods: HashMap<String, Option<Arc<Inbox>>>,
    actors: JoinSet<()>,
    uids: HashMap<tokio::task::Id, String>,
}

impl Dispatch {
    pub(crate) fn new(nodes: Vec<Arc<NodeContext>>, shared: Arc<Shared>) -> Self {
        Self {
            nodes: nodes.into_iter().map(|node| (node.config.name.clone(), node)).collect(),
            shared,
            pods: HashMap::new(),
            actors: JoinSet::new(),
            uids: HashMap::new(),
        }
    }

    /// Acts on pods until told to stop or the API shuts down; then stops what runs, without
    /// reporting it.
    pub(crate) async fn run(mut self, client: &Client, stop: &CancellationToken) {
        let mut watcher: Watcher<Pod> = client.watch(Select::default());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.actors.join_next_with_id(), if !self.actors.is_empty() => self.ended(ended),
                events = watcher.next_batch() => match events {
                    Some(events) => events.into_iter().for_each(|event| self.take(event)),
                    None => break,
                }
            }
        }
        for inbox in self.pods.values().flatten() {
            inbox.shutdown();
        }
        while self.actors.join_next().await.is_some() {}
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(uid) = self.uids.remove(&id) else { return };
        if let Err(error) = ended {
            tracing::error!(uid, %error, "the actor of a pod failed; the pod is left as it is");
        }
        if let Some(inbox) = self.pods.get_mut(&uid) {
            *inbox = None;
        }
    }

    pub(crate) fn take(&mut self, event: client::Event<Pod>) {
        match event {
            client::Event::Applied(pod) => self.applied(pod),
            client::Event::Deleted(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.gone(uid);
                }
            }
            client::Event::Restarted(mut pods) => {
                let here: std::collections::HashSet<&str> =
                    pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
                let mut gone: Vec<String> =
                    self.pods.keys().filter(|uid| !here.contains(uid.as_str())).cloned().collect();
                gone.sort_unstable();
                for uid in gone {
                    self.gone(&uid);
                }
                // Those that already had their place on the node keep it, the oldest first.
                pods.sort_by_key(|pod| {
                    let started = pod.status.as_ref().and_then(|status| status.start_time.clone());
                    (started.is_none(), started, pod.metadata.creation_timestamp.clone())
                });
                for pod in pods {
                    self.applied(pod);
                }
            }
        }
    }

    fn gone(&mut self, uid: &str) {
        if let Some(Some(inbox)) = self.pods.remove(uid) {
            inbox.pod_gone();
        }
        self.shared.logs.remove(uid);
    }

    fn applied(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(known) = self.pods.get(&uid) {
            if let Some(inbox) = known {
                inbox.pod_changed(pod);
            }
            return;
        }
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let Some(node) = self.nodes.get(name) else { return };
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        if is_over && pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let was_here = is_over || status.is_some_and(|status| status.start_time.is_some());
        let reservation = node.usage.reserve(&pod, was_here);
        let inbox: Arc<Inbox> = Arc::default();
        self.pods.insert(uid.clone(), Some(inbox.clone()));
        let actor = self.actors.spawn(pod::run(node.clone(), inbox, pod, reservation));
        self.uids.insert(actor.id(), uid);
    }
}

#[cfg(test)]
impl Dispatch {
    /// Returns when every actor has ended.
    pub(crate) async fn settle(&mut self) {
        while let Some(ended) = self.actors.join_next_with_id().await {
            self.ended(ended);
        }
    }
}
