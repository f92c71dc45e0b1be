//! What can be said: every kind the cluster serves, as data.
//!
//! A kind is one file with one `pub static KIND: Kind` and a [`Strategy`] that holds its defaults,
//! validation, update rules and table columns; then one line in [`ALL`]. Routing, discovery,
//! OpenAPI, storage keys and kubectl's tables are derived from that list. Nothing outside this
//! folder matches on a kind to find out how to serve it.

pub mod address_plan;
pub mod content;
pub mod field;
pub mod metadata;
mod network;
pub mod node_selector;
pub mod object;
pub mod quantity;
pub mod resources;
pub mod schedule;
pub mod selector;
pub mod strategy;
pub mod table;
pub mod taint;
pub mod validation;
pub mod workload;

pub mod binding;
pub mod config_map;
pub mod controller_revision;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod event_v1;
pub mod eviction;
pub mod job;
pub mod lease;
pub mod limit_range;
pub mod metrics;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod pod;
pub mod pod_disruption_budget;
pub mod pod_template;
pub mod priority_class;
pub mod queue_item;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_quota;
pub mod runtime_class;
pub mod scale;
pub mod secret;
pub mod self_subject_review;
pub mod service;
pub mod service_account;
pub mod stateful_set;
pub mod token_request;
pub mod token_review;

#[cfg(test)]
mod fixture;
#[cfg(test)]
pub(crate) mod testing;

use k8s_openapi::ListableResource;
use schemars::{Schema, SchemaGenerator};

pub use content::ContentHash;
pub use object::{Encoded, Object, Typed};
pub use strategy::{AnyStrategy, Strategy};

/// Every built-in kind, in discovery order.
pub static ALL: &[&Kind] = &[
    &binding::KIND,
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &limit_range::KIND,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &pod_template::KIND,
    &replication_controller::KIND,
    &resource_quota::KIND,
    &secret::KIND,
    &service_account::KIND,
    &service::KIND,
    &controller_revision::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &stateful_set::KIND,
    &self_subject_review::KIND,
    &token_review::KIND,
    &cron_job::KIND,
    &job::KIND,
    &lease::KIND,
    &queue_item::KIND,
    &endpoint_slice::KIND,
    &event_v1::KIND,
    &metrics::NODES,
    &metrics::PODS,
    &network_policy::KIND,
    &runtime_class::KIND,
    &pod_disruption_budget::KIND,
    &priority_class::KIND,
];

/// Kinds that only a subresource takes and answers.
pub static OF_SUBRESOURCES: &[&Kind] = &[&token_request::KIND, &scale::KIND, &eviction::KIND];

/// Where objects of a kind live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A path under an object that has a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Status,
    /// `pods/binding`: sets the node once.
    Binding,
    /// `pods/eviction`: deletes the pod if its disruption budget allows that.
    Eviction,
    /// `pods/log`: text, not an object.
    Log,
    /// `namespaces/finalize`: the only way to change `spec.finalizers`.
    Finalize,
    /// Every version of the object that is kept, which is ours; needs [`Strategy::content_hash`].
    History,
    /// `serviceaccounts/token`: makes a token of the account.
    Token,
    /// `cronjobs/trigger`: starts a Job of the template now, which is ours.
    Trigger,
    /// The number of replicas, as an autoscaling/v1 Scale; needs [`Strategy::scaled`].
    Scale,
    /// `jobs/queue`: hands out the work of a Job, which is ours.
    Queue,
    /// `pods/exec`: streams of a further run beside a container.
    Exec,
    /// `pods/attach`: streams of a container's own run.
    Attach,
    /// `pods/portforward`: streams to ports of a pod.
    PortForward,
    /// `pods/ephemeralcontainers`: adds containers to a pod that runs.
    EphemeralContainers,
    /// `pods/proxy`, `services/proxy`, `nodes/proxy`: requests of any kind, carried on.
    Proxy,
}

impl Subresource {
    /// The URL's segment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Finalize => "finalize",
            Self::History => "history",
            Self::Token => "token",
            Self::Trigger => "trigger",
            Self::Scale => "scale",
            Self::Queue => "queue",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Proxy => "proxy",
        }
    }

    /// Whether a request for it becomes streams, on a connection of its own.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Exec | Self::Attach | Self::PortForward)
    }
}

/// What a verb does when told to delete without a `propagationPolicy` (BEHAVIOURS 4.4, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Orphan,
}

/// Makes another form of an object; panics on one of another type, as strategies do.
pub type Conversion = fn(&dyn Object) -> Box<dyn Object>;

/// All the server knows of a kind. Built in const context by [`Kind::namespaced`] or
/// [`Kind::cluster`] and struct update syntax.
pub struct Kind {
    /// `""` for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// `ConfigMap`
    pub kind: &'static str,
    /// `ConfigMapList`; empty for a kind that cannot be listed.
    pub list_kind: &'static str,
    /// `configmaps`, as in URLs
    pub plural: &'static str,
    /// `configmap`, as in kubectl's arguments
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub scope: Scope,
    pub subresources: &'static [Subresource],
    /// Verbs as discovery lists them, sorted.
    pub verbs: &'static [&'static str],
    /// Whether `metadata.generation` counts changes of the spec (BEHAVIOURS 2.3).
    pub has_generation: bool,
    /// PUT of a missing object creates it (BEHAVIOURS 2.4).
    pub create_on_update: bool,
    /// PUT without a `resourceVersion` is unconditional (BEHAVIOURS 2.4).
    pub unconditional_update: bool,
    pub default_propagation: Propagation,
    /// What a deletion without a `propagationPolicy` is told (BEHAVIOURS 4.5).
    pub warning_without_propagation: Option<&'static str>,
    /// Another kind whose stored objects these are, under another group: `events.k8s.io` Event is
    /// stored as core Event. The strategy's `Object` is then the stored type: its `decode_*` reads
    /// this kind's form and gives the stored one, and all else works on that. Stored bytes are
    /// decoded by the strategy of [`Kind::stored_kind`].
    pub stored_as: Option<&'static Kind>,
    /// What the store writes of these objects is encrypted, and cannot be read once they are deleted.
    pub encrypted_at_rest: bool,
    /// With `stored_as`: a stored object in the form that this kind serves. Whoever shows objects to
    /// a client (bodies, watch events, what a patch is applied to) uses [`Kind::served`].
    pub from_stored: Option<Conversion>,
    pub columns: &'static [table::Column],
    pub strategy: &'static dyn AnyStrategy,
    /// The schema of one object, with descriptions, for OpenAPI.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// The verbs of an ordinary kind, sorted as discovery wants them.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

impl Kind {
    /// An ordinary namespaced kind of `S::Object`; plural and group come from the type.
    #[must_use]
    pub const fn namespaced<S: Strategy>(strategy: &'static S, singular: &'static str) -> Self
    where
        S::Object: ListableResource,
    {
        let kind = Self::new(strategy, singular, Scope::Namespaced);
        Self { list_kind: <S::Object as ListableResource>::LIST_KIND, ..kind }
    }

    /// An ordinary cluster-scoped kind.
    #[must_use]
    pub const fn cluster<S: Strategy>(strategy: &'static S, singular: &'static str) -> Self
    where
        S::Object: ListableResource,
    {
        let kind = Self::new(strategy, singular, Scope::Cluster);
        Self { list_kind: <S::Object as ListableResource>::LIST_KIND, ..kind }
    }

    /// A namespaced kind that can only be created: its objects are acted upon, not kept. They need no
    /// name.
    #[must_use]
    pub const fn create_only<S: Strategy>(strategy: &'static S, singular: &'static str) -> Self {
        Self { verbs: &["create"], ..Self::new(strategy, singular, Scope::Namespaced) }
    }

    const fn new<S: Strategy>(strategy: &'static S, singular: &'static str, scope: Scope) -> Self {
        Self {
            group: <S::Object as k8s_openapi::Resource>::GROUP,
            version: <S::Object as k8s_openapi::Resource>::VERSION,
            kind: <S::Object as k8s_openapi::Resource>::KIND,
            list_kind: "",
            plural: <S::Object as k8s_openapi::Resource>::URL_PATH_SEGMENT,
            singular,
            short_names: &[],
            categories: &[],
            scope,
            subresources: &[],
            verbs: ALL_VERBS,
            has_generation: false,
            create_on_update: false,
            unconditional_update: true,
            default_propagation: Propagation::Background,
            warning_without_propagation: None,
            stored_as: None,
            encrypted_at_rest: false,
            from_stored: None,
            columns: table::NAME_AND_AGE,
            strategy,
            schema: |generator| generator.subschema_for::<S::Object>(),
        }
    }

    /// `v1`, `batch/v1`
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: how messages name the collection.
    #[must_use]
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The store's name for the collection.
    #[must_use]
    pub fn collection(&self) -> &'static str {
        self.stored_as.map_or(self.plural, |kind| kind.plural)
    }

    /// The kind as which objects are stored: itself, but for a kind with [`Kind::stored_as`].
    #[must_use]
    pub fn stored_kind(&'static self) -> &'static Self {
        self.stored_as.unwrap_or(self)
    }

    /// The object as this kind shows it to clients, if that is not how it is stored; its encoding
    /// then takes the place of the stored bytes.
    #[must_use]
    pub fn served(&self, stored: &dyn Object) -> Option<Box<dyn Object>> {
        self.from_stored.map(|form| form(stored))
    }

    #[must_use]
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({}, {})", self.api_version(), self.kind)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group && self.version == other.version && self.kind == other.kind
    }
}

/// The kind that serves objects of type `K`.
///
/// # Panics
/// If `K` is not in [`ALL`]: a programming error that the first test to touch it finds.
#[must_use]
pub fn of<K: k8s_openapi::Resource>() -> &'static Kind {
    find(K::GROUP, K::VERSION, |kind| kind.kind == K::KIND)
        .unwrap_or_else(|| panic!("{} {} is served", K::API_VERSION, K::KIND))
}

/// The kind at `/apis/<group>/<version>/<plural>`.
#[must_use]
pub fn by_path(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    find(group, version, |kind| kind.plural == plural)
}

fn find(group: &str, version: &str, matches: impl Fn(&Kind) -> bool) -> Option<&'static Kind> {
    ALL.iter().copied().find(|kind| kind.group == group && kind.version == version && matches(kind))
}

#[cfg(test)]
mod tests;
