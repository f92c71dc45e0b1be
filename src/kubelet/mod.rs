//! Makes it so on one node: runs the pods that are bound to it and reports what became of them.
//!
//! All nodes of a process share one watch of pods ([`nodes`]). Each pod bound here has an actor
//! ([`pod`]), which asks a pure state machine ([`lifecycle`]) what to do, does it, and writes the
//! status that another pure function ([`status`]) makes of the state:
//!
//! ```text
//!  bound ──► admitted? ──no──► Failed (OutOfcpu, NodeAffinity, …)
//!               │yes
//!               ▼
//!           volumes made ◄──── waits, ContainerCreating, until a ConfigMap or Secret appears
//!               │
//!               ▼
//!        init containers, one by one ──── failed and Never ─────────────┐
//!               │ (sidecars stay, once their startup probe has passed)   │
//!               ▼                                                        │
//!   ┌──► each container: start ──► postStart ──► running ──► ended       │
//!   │        │ no image, no key  ▲     │ failed     │ probe     │         │
//!   │        ▼                   │     ▼            ▼ failed    ├──► back-off ──► start, if the policy
//!   │     waiting ── it appears ─┘     stopped ◄────┘           │        │         says again
//!   │                                                           │ all ended for good
//!   │                                                           ▼        ▼
//!   │                                         stop sidecars, in reverse ──► Succeeded or Failed
//!   └ deleted, or past its deadline, at any time: everything is stopped, then the same end;
//!     a deleted pod is then removed from the API
//!
//!  stopped: preStop ──► sidecars: their turn ──► asked ──► killed when the grace is over
//! ```
//!
//! Local rules, where a node that runs WebAssembly differs:
//! - A request to stop is heard by guests that import `coracle:lifecycle/stop`. Others are ended at once when
//!   it is their time, whatever is left of the grace: as a process that does not handle SIGTERM.
//! - When the process ends, guests that can hear have a few seconds; hooks are not run then.
//! - Exit codes: the program's own, as far as WASI carries it; 134 and `Error` for a trap, with its
//!   text as the message; 137 and `OOMKilled` beyond the memory limit; 137 for what was killed.
//! - Environments and command lines are text: a Secret's value that is not UTF-8, or anything that holds
//!   a NUL byte, is a `CreateContainerConfigError`, not a changed value. A file holds any bytes.
//! - Commands of probes and hooks are runs beside the container ([`beside`]), with a memory of their own.
//! - On a node that runs no code there is nothing to probe: all probes pass, and no hook is run.
//! - emptyDir volumes are memory: they outlive containers, not the process.
//! - After a restart of the process its pods go on as after a reboot: what ran has ended with 255
//!   `Unknown`, is started again if the policy allows, and init containers run again.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client};
use crate::clock::Clock;
use crate::network::Networks;
use crate::random::Random;

mod admit;
mod annotations;
mod api;
mod backoff;
mod beside;
mod config;
mod content;
mod env;
mod fields;
mod handler;
pub mod image;
mod inbox;
mod lifecycle;
mod limits;
mod logs;
mod meters;
mod node;
mod nodes;
mod pod;
mod probe;
mod pull;
mod queue;
mod running;
mod setup;
mod sources;
mod start;
mod status;
pub mod terminal;
mod token;
mod volume;

pub use beside::{Beside, Wanted};
pub use logs::{Logs, NoLog};
pub use meters::{Meters, Used};
pub use node::NodeConfig;
pub use running::{Attached, Joined, Refused, Running};

use nodes::{Dispatch, NodeContext, Shared};

/// How many nodes are registered at a time.
const REGISTERING_MAX: usize = 64;

/// What the kubelets of a process are made of.
pub struct Parts {
    /// May watch pods, services, ConfigMaps and Secrets in all namespaces.
    pub client: Client,
    /// The client of one node, by its name.
    pub client_for: Box<dyn Fn(&str) -> Client + Send + Sync>,
    pub clock: Clock,
    pub random: Random,
    pub nodes: Vec<NodeConfig>,
    /// What the pods' connections reach.
    pub networks: Networks,
    /// Where output is kept for readers.
    pub logs: Logs,
    /// Where runs are found by whoever wants to join one.
    pub running: Running,
    /// Where what containers use can be asked for.
    pub meters: Meters,
}

/// The kubelets of this process.
pub struct Kubelets {
    stop: CancellationToken,
    ready: watch::Receiver<Option<client::Result<()>>>,
    task: JoinHandle<()>,
}

impl Kubelets {
    /// Registers the nodes and begins to act on their pods. To be called inside the runtime.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let stop = CancellationToken::new();
        let (sender, ready) = watch::channel(None);
        let task = tokio::spawn(run(parts, stop.clone(), sender));
        Self { stop, ready, task }
    }

    /// Returns once every node is registered and Ready, or why one cannot be.
    pub async fn ready(&self) -> client::Result<()> {
        let mut ready = self.ready.clone();
        match ready.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for it"),
            // Shut down before it was ready: nothing is left to wait for.
            Err(_) => Ok(()),
        }
    }

    /// Kills every container and returns when all have ended. Their pods are not touched: the next
    /// start of the process goes on with them.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the kubelets did not end by themselves");
        }
    }
}

async fn run(parts: Parts, stop: CancellationToken, ready: watch::Sender<Option<client::Result<()>>>) {
    let Parts { client, client_for, clock, random, nodes, networks, logs, running, meters } = parts;
    let shared = Arc::new(Shared {
        clock,
        sources: sources::Sources::new(Some(client.clone()), stop.clone()),
        networks,
        logs,
        running,
        meters,
    });
    let boot_id = random.uid();
    let registered = futures_util::stream::iter(nodes.into_iter().map(|config| {
        let (client, boot_id) = (client_for(&config.name), &boot_id);
        let shared = shared.clone();
        async move {
            node::register(&client, &config, boot_id, clock.now()).await?;
            Ok(Arc::new(NodeContext::new(config, client, shared)))
        }
    }));
    let registered = registered.buffered(REGISTERING_MAX).collect::<Vec<client::Result<_>>>();
    let registered = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        registered = registered => registered.into_iter().collect::<client::Result<Vec<_>>>(),
    };
    let contexts = match registered {
        Ok(contexts) => contexts,
        Err(error) => {
            ready.send_replace(Some(Err(error)));
            return;
        }
    };
    ready.send_replace(Some(Ok(())));
    let services = shared.networks.services().clone();
    let networks = shared.networks.clone();
    let dispatch = Dispatch::new(contexts, shared.clone());
    let act = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = async { tokio::join!(services.synced(), networks.synced()); } => {}
        }
        dispatch.run(&client, &stop).await;
    };
    tokio::select! {
        biased;
        () = act => {}
        // Ends only when the API has shut down, which `act` notices too.
        () = async { networks.follow(&client).await; std::future::pending().await } => {}
    }
}

#[cfg(test)]
mod tests;
