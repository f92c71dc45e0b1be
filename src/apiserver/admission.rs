//! What the cluster adds to objects, and refuses, because of other objects (BEHAVIOURS 11, 17.3,
//! 18.4): the rules that no kind can decide by looking at itself.
//!
//! The one place behind the verbs that knows kinds. Each rule is upstream's admission plugin of the
//! same name; quota and limit ranges are to come here, after the rest.

mod api_access;
mod namespace;
mod pod;
mod secret;
mod service;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};

use super::authn::User;
use super::authz;
use super::status::Error;
use crate::clock::Clock;
use crate::kind::address_plan::AddressPlan;
use crate::kind::object::downcast_arc;
use crate::kind::{Kind, Object, Typed};
use crate::random::Random;
use crate::store::{Key, Range, Record, Store, Write};

pub(super) use namespace::{finalized, has_spec_finalizers, mark_terminating};

/// One write under examination.
pub(super) struct Admission<'a> {
    pub(super) store: &'a Store,
    pub(super) clock: &'a Clock,
    pub(super) random: &'a Random,
    pub(super) plan: AddressPlan,
    pub(super) user: &'a User,
    pub(super) kind: &'static Kind,
    /// The URL's.
    pub(super) namespace: Option<&'a str>,
}

/// Whether writes of this kind take addresses or ports, and so must not overlap.
pub(super) fn allocates(kind: &Kind) -> bool {
    is::<Service>(kind)
}

/// What is accepted but cannot work, where that takes more than the kind's own rules to see.
pub(super) fn warning(object: &dyn Object) -> Option<String> {
    secret::warning(object.downcast_ref::<Secret>()?).map(str::to_owned)
}

/// Whether the pod is not to be scheduled yet.
pub(super) fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}

impl Admission<'_> {
    /// Completes a new object, or refuses it. What is returned must hold when it is committed.
    pub(super) async fn create(&self, object: &mut dyn Object) -> Result<Option<Write>, Error> {
        let name = object.metadata().name.clone().unwrap_or_default();
        let guard = namespace::guard(self, &name)?;
        self.check_own(&name)?;
        if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
            pod::create(self, pod).await?;
        } else if let Some(service) = object.as_any_mut().downcast_mut::<Service>() {
            service::create(self, service)?;
        }
        Ok(guard)
    }

    /// The namespace still takes new objects.
    pub(super) fn namespace_guard(&self, name: &str) -> Result<Option<Write>, Error> {
        namespace::guard(self, name)
    }

    /// Completes a changed object, or refuses it.
    pub(super) fn update(&self, new: &mut dyn Object, old: &dyn Object) -> Result<(), Error> {
        if let (Some(new), Some(old)) =
            (new.as_any_mut().downcast_mut::<Service>(), old.downcast_ref::<Service>())
        {
            service::update(self, new, old)?;
        }
        Ok(())
    }

    /// Refuses a deletion by name.
    pub(super) fn delete(&self, name: &str) -> Result<(), Error> {
        if is::<Namespace>(self.kind) { namespace::check_deletion(self, name) } else { Ok(()) }
    }

    /// A node writes and deletes only the pods that are bound to it.
    pub(super) fn check_node(&self, old: &dyn Object) -> Result<(), Error> {
        let (Some(node), Some(pod)) = (authz::node_of(self.user), old.downcast_ref::<Pod>()) else {
            return Ok(());
        };
        let bound_to = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if bound_to == node {
            return Ok(());
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let why = format!("node {node:?} can only change pods with spec.nodeName set to itself");
        Err(Error::forbidden(self.kind, name, &why))
    }

    /// A node creates only its own Node and Lease, whose names no URL says.
    fn check_own(&self, name: &str) -> Result<(), Error> {
        let Some(node) = authz::node_of(self.user) else { return Ok(()) };
        if name == node || !matches!(self.kind.plural, "nodes" | "leases") {
            return Ok(());
        }
        let why = format!("node {node:?} is not allowed to modify {} {name:?}", self.kind.singular);
        Err(Error::forbidden(self.kind, name, &why))
    }

    fn stored<K: Typed>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = Key { collection: K::URL_PATH_SEGMENT, namespace: namespace.into(), name: name.into() };
        typed(&*self.store.get(&key)?)
    }

    /// Every object of a type, in all namespaces.
    fn all<K: Typed>(&self) -> Vec<Arc<K>> {
        let range = Range { collection: K::URL_PATH_SEGMENT, namespace: None };
        let listing = self.store.list(&range, None, None, &|_| true);
        listing.records.iter().filter_map(|record| typed(record)).collect()
    }
}

fn is<K: Typed>(kind: &Kind) -> bool {
    kind.kind == K::KIND && kind.group == K::GROUP
}

fn typed<K: Typed>(record: &Record) -> Option<Arc<K>> {
    let object = record.object(|json| {
        let object: K = serde_json::from_slice(json).expect("a stored object was encoded by its own kind");
        Arc::new(object)
    });
    downcast_arc(object)
}
