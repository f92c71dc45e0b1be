//! The templates that a daemon set or stateful set had, as ControllerRevisions (BEHAVIOURS 12.8).

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::template_hash::template_hash;
use super::{Action, Key, KindRef, owned, snapshot};
use crate::kind::Object;

/// Names the revision of a pod's template.
pub(super) const HASH_LABEL: &str = "controller-revision-hash";

/// Whose templates they are.
pub(super) struct Subject<'a> {
    pub(super) owner: &'a dyn Object,
    pub(super) template: &'a PodTemplateSpec,
    /// As the status has them.
    pub(super) collisions: Option<i32>,
}

pub(super) fn label<'a>(object: &'a dyn Object, name: &str) -> Option<&'a str> {
    object.metadata().labels.as_ref()?.get(name).map(String::as_str)
}

/// What is known of a set's templates.
pub(super) struct History<'a> {
    /// The hash of the present one; `None` if the name that it would give is taken.
    pub(super) hash: Option<String>,
    /// The name of the present revision.
    pub(super) name: String,
    /// All but the present one, by number.
    pub(super) old: Vec<&'a ControllerRevision>,
    /// Makes the present revision, or gives it the highest number.
    pub(super) actions: Vec<Action>,
}

/// Finds the revision of the set's template among its own, or makes it.
pub(super) fn read<'a>(
    subject: &Subject<'_>,
    revisions: &[&'a ControllerRevision],
    is_taken: impl Fn(&str) -> bool,
) -> History<'a> {
    let owner = subject.owner;
    let patch = patch(subject.template);
    let is_present = |one: &&&ControllerRevision| one.data.as_ref().is_some_and(|data| data.0 == patch);
    let present = revisions.iter().filter(is_present).max_by_key(|one| one.revision).copied();
    let uid = present.map(|one| snapshot::uid(one));
    let mut old: Vec<&ControllerRevision> =
        revisions.iter().copied().filter(|one| Some(snapshot::uid(*one)) != uid).collect();
    old.sort_by_key(|one| one.revision);
    let number = old.last().map_or(0, |one| one.revision) + 1;
    let revisions = KindRef::of::<ControllerRevision>();
    let mut actions = Vec::new();
    let Some(present) = present else {
        let hash = template_hash(subject.template, subject.collisions);
        let name = format!("{}-{hash}", snapshot::name(owner));
        if is_taken(&name) {
            return History { hash: None, name, old, actions };
        }
        let key = Key::new(revisions, snapshot::namespace(owner), &name);
        actions.push(Action::RequireAbsent(key, None));
        let made = revision(subject, name.clone(), &hash, patch, number);
        actions.push(Action::Create(revisions, Box::new(made)));
        return History { hash: Some(hash), name, old, actions };
    };
    let key = || Key::to(revisions, present);
    if present.revision < number {
        let patch = json!({ "metadata": { "uid": present.metadata.uid }, "revision": number });
        actions.push(Action::Patch(key(), patch));
    }
    let hash = label(present, HASH_LABEL).unwrap_or_else(|| snapshot::name(present)).to_owned();
    if label(present, HASH_LABEL).is_none() {
        let patch = json!({ "metadata": { "uid": present.metadata.uid, "labels": { HASH_LABEL: hash } } });
        actions.push(Action::Patch(key(), patch));
    }
    History { hash: Some(hash), name: snapshot::name(present).to_owned(), old, actions }
}

/// Deletes the oldest revisions beyond the limit of which no pod is, by hash or by name.
pub(super) fn trim(limit: Option<i32>, old: &[&ControllerRevision], live: &BTreeSet<&str>) -> Vec<Action> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
    let excess = old.len().saturating_sub(limit);
    let is_dead = |one: &&&ControllerRevision| {
        label(**one, HASH_LABEL).is_none_or(|hash| !live.contains(hash))
            && !live.contains(snapshot::name(**one))
    };
    old.iter()
        .filter(is_dead)
        .take(excess)
        .map(|one| Action::Delete {
            key: Key::to(KindRef::of::<ControllerRevision>(), *one),
            uid: snapshot::uid(*one).to_owned(),
            grace_period_seconds: None,
            propagation_policy: None,
        })
        .collect()
}

/// The patch that brings a set back to this template.
pub(super) fn patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("API types have string keys only");
    template["$patch"] = "replace".into();
    json!({ "spec": { "template": template } })
}

fn revision(
    subject: &Subject<'_>,
    name: String,
    hash: &str,
    patch: Value,
    number: i64,
) -> ControllerRevision {
    let set = subject.owner.metadata();
    let given = subject.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    let mut labels = given.unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: set.namespace.clone(),
            labels: Some(labels),
            annotations: set.annotations.clone(),
            owner_references: Some(vec![owned::controller_reference(subject.owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(patch)),
        revision: number,
    }
}
