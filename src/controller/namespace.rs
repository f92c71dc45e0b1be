//! Empties namespaces that are being deleted, then lets them go (BEHAVIOURS 11.3, 11.4).
//!
//! Pods go first and their grace is waited for, so that what they use outlives them
//! (kube-controller-manager's ordered namespace deletion). What is asked to go and stays, because of
//! grace or finalizers, is named in the namespace's conditions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::driver::watched;
use super::{Action, Change, Controller, Decision, Key, KindRef, Moment, Snapshot, snapshot};
use crate::kind::Subresource;

/// What this controller takes out of `spec.finalizers` once the namespace is empty.
const FINALIZER: &str = "kubernetes";

pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let kind = KindRef::of::<Namespace>();
        let object = change.object();
        if change.kind == kind {
            if object.metadata().deletion_timestamp.is_some() {
                wake(Key::to(kind, object));
            }
            return;
        }
        let namespace = snapshot::namespace(object);
        if change.kind.0.is_namespaced()
            && seen.get_any(kind, "", namespace).is_some_and(|n| n.metadata().deletion_timestamp.is_some())
        {
            wake(Key::new(kind, "", namespace));
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(namespace) = seen.get::<Namespace>("", &key.name) else { return Decision::default() };
        let content = watched().filter(|kind| kind.0.is_namespaced()).filter_map(|kind| {
            let objects = seen.in_namespace(kind, &key.name).map(|object| object.metadata());
            Content::of(kind, objects)
        });
        Decision::act(decide(namespace, &content.collect::<Vec<_>>(), moment.now))
    }
}

/// What a namespace holds of one kind; never nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub kind: KindRef,
    /// Some have not been asked to go yet.
    pub untouched: bool,
    /// Objects that were asked to go and are still there.
    pub lingering: usize,
    /// How many of those each finalizer holds.
    pub finalizers: BTreeMap<String, usize>,
}

impl Content {
    fn of<'a>(kind: KindRef, objects: impl Iterator<Item = &'a ObjectMeta>) -> Option<Self> {
        let mut content = Self { kind, untouched: false, lingering: 0, finalizers: BTreeMap::new() };
        for meta in objects {
            if meta.deletion_timestamp.is_none() {
                content.untouched = true;
                continue;
            }
            content.lingering += 1;
            for finalizer in meta.finalizers.iter().flatten() {
                *content.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        (content.untouched || content.lingering > 0).then_some(content)
    }
}

/// What to do about a namespace with this content.
#[must_use]
pub fn decide(namespace: &Namespace, content: &[Content], now: Timestamp) -> Vec<Action> {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|f| f == FINALIZER) {
        return Vec::new();
    }
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let pods = KindRef::of::<Pod>();
    let turn: Vec<&Content> = match content.iter().find(|content| content.kind == pods) {
        Some(pods) => vec![pods],
        None => content.iter().collect(),
    };
    let mut actions: Vec<Action> = turn
        .iter()
        .filter(|content| content.untouched)
        .map(|content| Action::DeleteCollection(content.kind, name.clone()))
        .collect();
    if turn.iter().any(|content| content.lingering > 0)
        && let Some(status) = status(namespace, &turn, now)
    {
        let mut namespace = namespace.clone();
        namespace.status = Some(status);
        let kind = KindRef::of::<Namespace>();
        actions.push(Action::Update(kind, Box::new(namespace), Some(Subresource::Status)));
    }
    if content.is_empty() {
        let mut namespace = namespace.clone();
        if let Some(spec) = &mut namespace.spec {
            spec.finalizers = Some(finalizers.iter().filter(|f| *f != FINALIZER).cloned().collect());
        }
        let kind = KindRef::of::<Namespace>();
        actions.push(Action::RequireEmpty(name));
        actions.push(Action::Update(kind, Box::new(namespace), Some(Subresource::Finalize)));
    }
    actions
}

/// The status that names what lingers; `None` if it says so already.
fn status(namespace: &Namespace, content: &[&Content], now: Timestamp) -> Option<NamespaceStatus> {
    let mut resources = Vec::new();
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for content in content.iter().filter(|content| content.lingering > 0) {
        let (plural, group) = (content.kind.0.plural, content.kind.0.group);
        resources.push(format!("{plural}.{group} has {} resource instances", content.lingering));
        for (finalizer, count) in &content.finalizers {
            *held.entry(finalizer).or_default() += count;
        }
    }
    resources.sort_unstable();
    let finalizers: Vec<String> =
        held.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    let removed = ("False", "ContentRemoved", "All content successfully removed".to_owned());
    let wanted = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned()),
        ),
        (
            "NamespaceDeletionContentFailure",
            (
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
        ),
        (
            "NamespaceContentRemaining",
            if resources.is_empty() {
                removed.clone()
            } else {
                let message = format!("Some resources are remaining: {}", resources.join(", "));
                ("True", "SomeResourcesRemain", message)
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            if finalizers.is_empty() {
                removed
            } else {
                let message = format!("Some finalizers are remaining: {}", finalizers.join(", "));
                ("True", "SomeFinalizersRemain", message)
            },
        ),
    ];
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    let mut changed = false;
    for (r#type, (value, reason, message)) in wanted {
        let known = conditions.iter_mut().find(|condition| condition.type_ == r#type);
        let since = known.as_ref().filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: r#type.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match known {
            Some(known) if *known == condition => {}
            Some(known) => {
                *known = condition;
                changed = true;
            }
            None => {
                conditions.push(condition);
                changed = true;
            }
        }
    }
    changed.then_some(status)
}

#[cfg(test)]
mod tests;
