//! Collects what lost its owners, and sees owners through foreground and orphaning deletion
//! (BEHAVIOURS 4.4 to 4.6; kube-controller-manager's garbage collector).
//!
//! Only objects with `ownerReferences` are indexed, and only those and objects that carry one of the
//! two finalizers are looked at.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use super::driver::watched;
use super::snapshot::Give;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, snapshot};
use crate::kind::Object;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const BY_OWNER: &str = "dependents by owner's uid";
/// References taken away by one decision; the next takes the rest.
const BATCH_MAX: usize = 500;

pub struct Garbage;

fn by_owner(object: &dyn Object, give: Give<'_>) {
    for owner in owners(object.metadata()) {
        give(&owner.uid, 0);
    }
}

fn owners(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|known| known == finalizer)
}

/// Going, and waiting for its dependents or for them to be let go.
fn waits(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, finalizer)
}

impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn indexes(&self) -> &'static [Index] {
        &[Index { name: BY_OWNER, of: by_owner }]
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        let meta = object.metadata();
        let waiting = waits(meta, FOREGROUND);
        if change.new.is_some() && (!owners(meta).is_empty() || waiting || waits(meta, ORPHAN)) {
            wake(Key::to(change.kind, object));
        }
        let began_to_wait = waiting && !change.old.is_some_and(|old| waits(old.metadata(), FOREGROUND));
        if change.new.is_none() || began_to_wait {
            for (kind, dependent) in seen.indexed(BY_OWNER, snapshot::uid(object)) {
                wake(Key::to(kind, &**dependent));
            }
        }
        let old = change.old.map(|old| owners(old.metadata())).unwrap_or_default();
        for owner in owners(meta).iter().chain(old) {
            if let Some(key) = owner_key(owner, change.kind, meta)
                && let Some(owner) = seen.get_any(key.kind, &key.namespace, &key.name)
                && (waits(owner.metadata(), FOREGROUND) || waits(owner.metadata(), ORPHAN))
            {
                wake(key);
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let Some(object) = seen.get_any(key.kind, &key.namespace, &key.name) else {
            return Decision::default();
        };
        let owners: Vec<Owner> = owners(object.metadata())
            .iter()
            .map(|reference| owner(seen, reference, key.kind, object.metadata()))
            .collect();
        let uid = snapshot::uid(&**object);
        let dependents: Vec<Dependent> = seen
            .indexed(BY_OWNER, uid)
            .map(|(kind, dependent)| Dependent {
                key: Key::to(kind, &**dependent),
                blocks: super::garbage::owners(dependent.metadata())
                    .iter()
                    .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true)),
                waits: waits(dependent.metadata(), FOREGROUND),
                meta: dependent.metadata(),
            })
            .collect();
        Decision::act(decide(key, object.metadata(), &owners, &dependents))
    }
}

/// One of an object's owners, as it is.
#[derive(Clone, Debug)]
pub struct Owner<'a> {
    pub reference: &'a OwnerReference,
    pub state: OwnerState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// There, and keeps its dependents.
    Live,
    /// In foreground deletion: waits for its dependents to go.
    Waiting,
    /// Nothing with that uid has the name, as far as is known.
    Absent(Key),
    /// Of a kind that is not served: nothing can be said.
    Unknown,
    /// A namespaced owner of a cluster-scoped object, which cannot be.
    Invalid,
}

/// One of an object's dependents.
#[derive(Clone, Debug)]
pub struct Dependent<'a> {
    pub key: Key,
    /// The owner must outlive it in foreground deletion.
    pub blocks: bool,
    /// It is itself in foreground deletion.
    pub waits: bool,
    pub meta: &'a ObjectMeta,
}

fn kind_of(reference: &OwnerReference) -> Option<KindRef> {
    watched().find(|kind| kind.0.kind == reference.kind && kind.0.api_version() == reference.api_version)
}

/// Where the owner of an object of `kind` would be.
fn owner_key(reference: &OwnerReference, kind: KindRef, dependent: &ObjectMeta) -> Option<Key> {
    let owner = kind_of(reference)?;
    if owner.0.is_namespaced() && !kind.0.is_namespaced() {
        return None;
    }
    let namespace = dependent.namespace.as_deref().filter(|_| owner.0.is_namespaced()).unwrap_or_default();
    Some(Key::new(owner, namespace, &reference.name))
}

fn owner<'a>(
    seen: &Snapshot,
    reference: &'a OwnerReference,
    kind: KindRef,
    dependent: &ObjectMeta,
) -> Owner<'a> {
    let state = match owner_key(reference, kind, dependent) {
        None if kind_of(reference).is_some() => OwnerState::Invalid,
        None => OwnerState::Unknown,
        Some(key) => match seen.get_any(key.kind, &key.namespace, &key.name) {
            Some(owner) if snapshot::uid(&**owner) != reference.uid => OwnerState::Absent(key),
            Some(owner) if waits(owner.metadata(), FOREGROUND) => OwnerState::Waiting,
            Some(_) => OwnerState::Live,
            None => OwnerState::Absent(key),
        },
    };
    Owner { reference, state }
}

/// What to do about an object with these owners and dependents.
#[must_use]
pub fn decide(
    key: &Key,
    meta: &ObjectMeta,
    owners: &[Owner<'_>],
    dependents: &[Dependent<'_>],
) -> Vec<Action> {
    if meta.deletion_timestamp.is_some() {
        if has_finalizer(meta, ORPHAN) {
            return orphan(key, meta, dependents);
        }
        if has_finalizer(meta, FOREGROUND) {
            return foreground(key, meta, owners, dependents);
        }
        return Vec::new();
    }
    collect(key, meta, owners, dependents)
}

/// Lets the dependents go, then the finalizer.
fn orphan(key: &Key, meta: &ObjectMeta, dependents: &[Dependent<'_>]) -> Vec<Action> {
    let uid = meta.uid.as_deref().unwrap_or_default();
    if dependents.is_empty() {
        return vec![without_finalizer(key, meta, ORPHAN)];
    }
    let keep = |dependent: &Dependent<'_>| {
        let kept = super::garbage::owners(dependent.meta).iter().filter(|owner| owner.uid != uid).cloned();
        with_owners(&dependent.key, dependent.meta, kept.collect())
    };
    dependents.iter().take(BATCH_MAX).map(keep).collect()
}

/// Goes once no dependent that blocks it is left.
fn foreground(
    key: &Key,
    meta: &ObjectMeta,
    owners: &[Owner<'_>],
    dependents: &[Dependent<'_>],
) -> Vec<Action> {
    if !dependents.iter().any(|dependent| dependent.blocks) {
        return vec![without_finalizer(key, meta, FOREGROUND)];
    }
    // In a circle of objects that wait for each other, one must stop blocking.
    let waited_for = owners.iter().any(|owner| {
        owner.state == OwnerState::Waiting && owner.reference.block_owner_deletion == Some(true)
    });
    if waited_for && dependents.iter().any(|dependent| dependent.waits) {
        return vec![unblocked(key, meta)];
    }
    Vec::new()
}

/// Deletes an object that has no owner left, or takes the dead references off one that has.
fn collect(key: &Key, meta: &ObjectMeta, owners: &[Owner<'_>], dependents: &[Dependent<'_>]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut absent = Vec::new();
    let (mut live, mut waiting) = (false, false);
    for owner in owners {
        match &owner.state {
            OwnerState::Live | OwnerState::Unknown => live = true,
            OwnerState::Waiting => waiting = true,
            OwnerState::Absent(key) => {
                absent.push(Action::RequireAbsent(key.clone(), Some(owner.reference.uid.clone())));
            }
            OwnerState::Invalid => {
                live = true;
                actions.push(invalid(key, meta, owner.reference));
            }
        }
    }
    if absent.is_empty() && !waiting {
        return actions;
    }
    // An owner may only not have been seen yet, so the API is asked before anything is done.
    actions.append(&mut absent);
    if live {
        let dead = |state: &OwnerState| matches!(state, OwnerState::Waiting | OwnerState::Absent(_));
        let kept = owners.iter().filter(|owner| !dead(&owner.state)).map(|owner| owner.reference.clone());
        actions.push(with_owners(key, meta, kept.collect()));
        return actions;
    }
    let policy = if waiting && !dependents.is_empty() {
        "Foreground"
    } else if has_finalizer(meta, ORPHAN) {
        "Orphan"
    } else if has_finalizer(meta, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    actions.push(Action::Delete {
        key: key.clone(),
        uid: meta.uid.clone().unwrap_or_default(),
        grace_period_seconds: None,
        propagation_policy: Some(policy),
    });
    actions
}

/// A patch of the object's metadata as it was seen.
fn patch(key: &Key, meta: &ObjectMeta, field: &str, value: serde_json::Value) -> Action {
    let mut patch = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version } });
    patch["metadata"][field] = value;
    Action::Patch(key.clone(), patch)
}

fn without_finalizer(key: &Key, meta: &ObjectMeta, finalizer: &str) -> Action {
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
    patch(key, meta, "finalizers", json!(left))
}

fn with_owners(key: &Key, meta: &ObjectMeta, owners: Vec<OwnerReference>) -> Action {
    let owners = if owners.is_empty() { serde_json::Value::Null } else { json!(owners) };
    patch(key, meta, "ownerReferences", owners)
}

fn unblocked(key: &Key, meta: &ObjectMeta) -> Action {
    let free = |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
    with_owners(key, meta, owners(meta).iter().map(free).collect())
}

fn invalid(key: &Key, meta: &ObjectMeta, owner: &OwnerReference) -> Action {
    let about = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(key.kind.0.api_version()),
        kind: Some(key.kind.0.kind.to_owned()),
        name: Some(key.name.clone()),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..Default::default()
    };
    let message = format!(
        "ownerRef [{}/{}, namespace: , name: {}, uid: {}] does not exist in namespace \"\"",
        owner.api_version, owner.kind, owner.name, owner.uid
    );
    Action::Warn { about, reason: "OwnerRefInvalidNamespace", message }
}

#[cfg(test)]
mod tests;
