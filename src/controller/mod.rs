//! What should exist: controllers watch objects and make the rest so.
//!
//! A controller is pure: from a [`Snapshot`] and a key it decides what to do. The one
//! [driver](driver) does everything else: watching, waking keys, applying actions in order,
//! back-off. A controller is one file and one line in [`all`].
//!
//! The node life cycle (taints of nodes that stop renewing their Lease, BEHAVIOURS 17.2 and 17.3)
//! belongs here as `node_lifecycle.rs` once nodes can be on other machines.

mod apply;
pub mod bootstrap;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
mod driver;
pub mod eligibility;
pub mod endpoint_mirror;
pub mod event_ttl;
pub mod fault;
pub mod garbage;
pub mod job;
pub mod load_balancer;
pub mod namespace;
pub mod owned;
mod parking;
pub mod pod_collector;
pub mod queue;
pub mod replicas;
mod revisions;
pub mod root_ca;
pub mod service;
pub mod service_account;
pub mod snapshot;
pub mod stateful_set;
pub mod template_hash;
pub mod token_secret;
pub mod work_queue;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ObjectReference, ReplicationController};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use bootstrap::bootstrap;
pub use snapshot::{Index, Key, KindRef, Snapshot};

use crate::apiserver::Error;
use crate::apiserver::token::SigningKey;
use crate::client::{Client, Recorder};
use crate::clock::Clock;
use crate::kind::address_plan::AddressPlan;
use crate::kind::{Object, Subresource};

/// What controllers need to know of the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// The certificate authority that signs the API server's certificate, PEM.
    pub ca_pem: String,
    /// Where the API server listens, as `kubernetes` in `default` points to it.
    pub api_address: SocketAddr,
    /// Where the addresses of the cluster's own services are from.
    pub plan: AddressPlan,
    /// Where names are answered for everybody on the machine; `None` if nobody was to.
    pub dns: Option<Dns>,
    /// Signs the tokens that lie in Secrets.
    pub tokens: Arc<SigningKey>,
    /// Where schedules are that name no time zone.
    pub time_zone: jiff::tz::TimeZone,
    /// Where the controllers are to die, in tests of that.
    pub fault: Option<fault::Fault>,
}

/// The cluster's name server, which the service `kube-dns` tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    pub address: Ipv4Addr,
    pub port: u16,
    /// It could listen there.
    pub is_served: bool,
}

/// A change of one object, as the watches tell it.
pub struct Change<'a> {
    pub kind: KindRef,
    /// `None` if it is new.
    pub old: Option<&'a Arc<dyn Object>>,
    /// `None` if it is gone.
    pub new: Option<&'a Arc<dyn Object>>,
}

impl Change<'_> {
    /// The newest content there is.
    #[must_use]
    pub fn object(&self) -> &dyn Object {
        &**self.new.or(self.old).expect("a change has one side")
    }
}

/// When a key is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
    /// How long decisions about the key have been [waiting](Decision::waiting) without a break.
    pub waited: Duration,
}

/// One control loop.
pub trait Controller: Send + Sync {
    /// As logs name it.
    fn name(&self) -> &'static str;

    /// Ways to find objects that [`Controller::reconcile`] uses.
    fn indexes(&self) -> &'static [Index] {
        &[]
    }

    /// Keys to look at first, though no object may say so.
    fn start(&self) -> Vec<Key> {
        Vec::new()
    }

    /// Names the keys to look at again after a change, which `seen` has in it. Called for every
    /// object of every kind, so it must be quick to say none.
    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key));

    /// Decides what to do about `key`, from what is. Called again whenever that may have changed, but
    /// not before `seen` has in it what an earlier decision about the key wrote.
    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision;

    /// What to write of a decision about `key` that failed, other than for being outdated; tried once.
    fn failed(&self, _seen: &Snapshot, _key: &Key, _error: &Error, _now: Timestamp) -> Vec<Action> {
        Vec::new()
    }
}

/// What to do, and when to look again though nothing changes.
#[derive(Debug, Default)]
pub struct Decision {
    /// Applied in order; if one fails the rest is left, and the key is looked at again.
    pub actions: Vec<Action>,
    pub requeue_after: Option<Duration>,
    /// Whether [`Moment::waited`] goes on.
    pub waiting: bool,
}

impl Decision {
    #[must_use]
    pub fn act(actions: Vec<Action>) -> Self {
        Self { actions, ..Self::default() }
    }

    #[must_use]
    pub fn after(requeue_after: Duration) -> Self {
        Self { requeue_after: Some(requeue_after), ..Self::default() }
    }
}

/// How Events begin that tell of an object made for its owner: its name or the error follows.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub created: &'static str,
    pub failed: &'static str,
}

impl Words {
    /// As the owners of pods have it.
    pub const POD: Self = Self { created: "Created pod: ", failed: "Error creating: " };
}

/// One thing to do. A missing object is as good as a deleted one, an existing one as a created one.
pub enum Action {
    Create(KindRef, Box<dyn Object>),
    /// Creates an object on behalf of an owner, on which Events tell of it: `SuccessfulCreate` or
    /// `FailedCreate`.
    CreateFor(KindRef, Box<dyn Object>, ObjectReference, Words),
    /// PUT of the object or of a subresource, on the condition of its `resourceVersion`.
    Update(KindRef, Box<dyn Object>, Option<Subresource>),
    /// A JSON merge patch.
    Patch(Key, serde_json::Value),
    Delete {
        key: Key,
        uid: String,
        grace_period_seconds: Option<i64>,
        propagation_policy: Option<&'static str>,
    },
    /// Deletes an object on behalf of an owner, on which Events tell of it: `SuccessfulDelete`
    /// (`Deleted pod: NAME`) or `FailedDelete`.
    DeleteFor {
        key: Key,
        uid: String,
        owner: ObjectReference,
    },
    DeleteCollection(KindRef, String),
    /// Goes on only if the API itself has no such object with this uid (with any, if `None`).
    RequireAbsent(Key, Option<String>),
    /// Goes on only if the API itself has such an object with this uid that is not being deleted.
    RequirePresent(Key, String),
    /// Goes on only if the API itself lists nothing in the namespace.
    RequireEmpty(String),
    /// An Event of type `Warning`.
    Warn {
        about: ObjectReference,
        reason: &'static str,
        message: String,
    },
    /// An Event of type `Normal`.
    Event {
        about: ObjectReference,
        reason: &'static str,
        message: String,
    },
    /// Actions that do not depend on each other, applied at the same time. All are tried; if any
    /// fails so does this, with the first error.
    Together(Vec<Action>),
    /// Actions in order, as a part of [`Action::Together`].
    InOrder(Vec<Action>),
}

impl Action {
    /// Whether it asks the API for a change. Events do not count: nothing depends on them.
    fn writes(&self) -> bool {
        match self {
            Self::Create(..)
            | Self::CreateFor(..)
            | Self::Update(..)
            | Self::Patch(..)
            | Self::Delete { .. }
            | Self::DeleteFor { .. }
            | Self::DeleteCollection(..) => true,
            Self::RequireAbsent(..)
            | Self::RequirePresent(..)
            | Self::RequireEmpty(_)
            | Self::Warn { .. }
            | Self::Event { .. }
            | Self::Together(_)
            | Self::InOrder(_) => false,
        }
    }
}

impl std::fmt::Debug for Action {
    /// Names objects without their content, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Create(kind, object) | Self::CreateFor(kind, object, ..) => {
                write!(f, "Create({:?})", Key::to(*kind, &**object))
            }
            Self::Update(kind, object, part) => {
                write!(f, "Update({:?}, {part:?})", Key::to(*kind, &**object))
            }
            Self::Patch(key, _) => write!(f, "Patch({key:?})"),
            Self::Delete { key, uid, .. } | Self::DeleteFor { key, uid, .. } => {
                write!(f, "Delete({key:?}, {uid})")
            }
            Self::DeleteCollection(kind, namespace) => write!(f, "DeleteCollection({kind:?}, {namespace})"),
            Self::RequireAbsent(key, uid) => write!(f, "RequireAbsent({key:?}, {uid:?})"),
            Self::RequirePresent(key, uid) => write!(f, "RequirePresent({key:?}, {uid})"),
            Self::RequireEmpty(namespace) => write!(f, "RequireEmpty({namespace})"),
            Self::Warn { reason, message, .. } => write!(f, "Warn({reason}, {message})"),
            Self::Event { reason, message, .. } => write!(f, "Event({reason}, {message})"),
            Self::Together(actions) => write!(f, "Together({actions:?})"),
            Self::InOrder(actions) => write!(f, "InOrder({actions:?})"),
        }
    }
}

/// Every controller. Each is one line here.
fn all(config: &Config) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(bootstrap::ApiService::new(config)),
        Box::new(namespace::Namespaces),
        // Before the account: pods wait for that, and need the authority too.
        Box::new(root_ca::RootCa::new(config)),
        Box::new(service_account::ServiceAccounts),
        Box::new(token_secret::TokenSecrets::new(config)),
        Box::new(garbage::Garbage),
        Box::new(job::Jobs),
        Box::new(pod_collector::PodCollector),
        Box::new(event_ttl::EventTtl),
        Box::new(cron_job::CronJobs::new(config.time_zone.clone())),
        Box::new(replicas::Replicas::<ReplicationController>::default()),
        Box::new(replicas::Replicas::<ReplicaSet>::default()),
        Box::new(deployment::Deployments),
        Box::new(daemon_set::DaemonSets::default()),
        Box::new(disruption::Disruptions),
        Box::new(stateful_set::StatefulSets),
        Box::new(work_queue::WorkQueues),
        Box::new(service::ServiceEndpoints::default()),
        Box::new(endpoint_mirror::EndpointMirror),
        Box::new(load_balancer::LoadBalancers),
    ]
}

/// The cluster's controllers.
pub struct Controllers;

/// Running controllers.
pub struct Handle {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Controllers {
    /// Starts all controllers. [`bootstrap`] has been done before.
    #[must_use]
    pub fn start(client: Client, recorder: Recorder, clock: Clock, config: &Config) -> Handle {
        let stop = CancellationToken::new();
        let task = tokio::spawn(driver::run(
            client,
            recorder,
            clock,
            all(config),
            config.fault.clone(),
            stop.clone(),
        ));
        Handle { stop, task }
    }
}

impl Handle {
    /// Stops deciding and returns once actions under way are answered.
    ///
    /// # Panics
    /// If a controller did.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.task.await.expect("controllers do not panic");
    }
}
