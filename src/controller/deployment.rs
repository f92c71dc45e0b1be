//! Deployments: a replica set for each template, of which the newest takes the place of the others
//! (upstream `pkg/controller/deployment`).
//!
//! One decision is one step: the new set is made, or grows, or the old ones shrink; what the sets then tell
//! of themselves leads to the next.
//!
//! * [`sizes`](self::sizes): how many replicas each set is to have. Pure arithmetic.
//! * [`progress`](self::progress): the status and its conditions.

mod progress;
mod sizes;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use self::progress::Conditions;
use self::sizes::{Limits, Set};
use super::template_hash::template_hash;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, owned, snapshot};
use crate::apiserver::Error;
use crate::kind::Subresource;
use crate::kind::deployment::RECREATE;
use crate::kind::selector::LabelSelector;

/// The label that tells the pods and sets of one template from the others.
pub const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that are not handed down to replica sets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Characters of the list of revisions that a set had before, the oldest of which are dropped.
const HISTORY_CHARACTERS_MAX: usize = 2000;

pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn indexes(&self) -> &'static [Index] {
        &owned::INDEXES
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let deployments = KindRef::of::<Deployment>();
        if change.kind == deployments {
            wake(Key::to(change.kind, change.object()));
        } else if let Some(pod) = change.object().downcast_ref::<Pod>() {
            // Recreation waits for the old pods to go.
            if (change.new.is_none() || !owned::is_active(pod))
                && let Some(set) = owned::controller_of(&pod.metadata)
                && let Some(set) = seen.get::<ReplicaSet>(snapshot::namespace(pod), &set.name)
                && let Some(owner) = owned::controller_of(&set.metadata)
            {
                wake(Key::new(deployments, snapshot::namespace(pod), &owner.name));
            }
        } else {
            owned::wake_owners::<Deployment, ReplicaSet>(seen, change, selector, wake);
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(deployment) = seen.get::<Deployment>(&key.namespace, &key.name) else {
            return Decision::default();
        };
        let (Some(selector), Some(spec)) = (selector(deployment), &deployment.spec) else {
            return Decision::default();
        };
        let claimed = owned::claim::<ReplicaSet>(seen, deployment, key.kind, &selector, None, |_| true);
        let mut sets = claimed.mine;
        owned::sort_by_age(&mut sets);
        let mut rollout = Rollout::new(deployment, spec, sets, moment.now);
        rollout.actions = claimed.actions;
        if deployment.metadata.deletion_timestamp.is_none() {
            let lives = |set: &&ReplicaSet| {
                owned::controlled::<Pod>(seen, snapshot::uid(*set)).any(|pod| !is_finished(pod))
            };
            let is_taken = |name: &str| seen.get::<ReplicaSet>(&key.namespace, name).is_some();
            rollout.step(lives, is_taken);
        }
        rollout.finish()
    }

    /// Tells that the new set could not be made. Other failures stand on the sets.
    fn failed(&self, seen: &Snapshot, key: &Key, error: &Error, now: Timestamp) -> Vec<Action> {
        let Some(deployment) = seen.get::<Deployment>(&key.namespace, &key.name) else { return Vec::new() };
        let wanted = self.reconcile(seen, key, Moment { now, waited: Duration::ZERO }).actions;
        let set = wanted.iter().find_map(|action| match action {
            Action::Create(_, set) => set.metadata().name.as_deref(),
            _ => None,
        });
        let Some(name) = set.filter(|_| !error.is_namespace_terminating()) else { return Vec::new() };
        let message = format!("Failed to create new replica set {name:?}: {error}");
        let about = owned::reference(deployment);
        let mut actions =
            vec![Action::Warn { about, reason: progress::NOT_CREATED, message: message.clone() }];
        if deployment.spec.as_ref().is_some_and(|spec| deadline(spec).is_some()) {
            let mut conditions = Conditions::of(deployment);
            conditions.note_not_created(&message, now);
            let mut new = deployment.clone();
            if conditions.write(new.status.get_or_insert_default()) {
                actions.push(Action::Update(key.kind, Box::new(new), Some(Subresource::Status)));
            }
        }
        actions
    }
}

fn selector(deployment: &Deployment) -> Option<LabelSelector> {
    LabelSelector::from_meta(deployment.spec.as_ref().map(|spec| &spec.selector)).ok()
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn number(meta: &ObjectMeta, name: &str) -> Option<i64> {
    annotation(meta, name)?.parse().ok()
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
}

fn there(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// Whether the set is of this template, whatever its hash.
fn is_of(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(mut own) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else { return false };
    let mut template = template.clone();
    for one in [&mut own, &mut template] {
        if let Some(labels) = one.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
    }
    own == template
}

fn deadline(spec: &DeploymentSpec) -> Option<i32> {
    // Upstream's "no deadline".
    spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

/// A deployment and its sets while a decision is made.
struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    /// By age.
    sets: Vec<&'a ReplicaSet>,
    /// The one of the deployment's template.
    new: Option<&'a ReplicaSet>,
    now: Timestamp,
    limits: Limits,
    actions: Vec<Action>,
    conditions: Conditions,
    collisions: Option<i32>,
    /// What is to be written beside the status.
    revision: Option<String>,
    /// Conditions of the rollout are left alone: it is paused, scaled or deleted.
    counts_only: bool,
}

impl<'a> Rollout<'a> {
    fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        sets: Vec<&'a ReplicaSet>,
        now: Timestamp,
    ) -> Self {
        let status = deployment.status.as_ref();
        Self {
            deployment,
            spec,
            new: sets.iter().copied().find(|set| is_of(set, &spec.template)),
            sets,
            now,
            limits: Limits::of(spec),
            actions: Vec::new(),
            conditions: Conditions::of(deployment),
            collisions: status.and_then(|status| status.collision_count),
            revision: None,
            counts_only: deployment.metadata.deletion_timestamp.is_some(),
        }
    }

    fn old(&self) -> impl Iterator<Item = &'a ReplicaSet> {
        let new = self.new.map(|new| snapshot::uid(new));
        self.sets.iter().copied().filter(move |set| Some(snapshot::uid(*set)) != new)
    }

    fn deadline(&self) -> Option<i32> {
        deadline(self.spec)
    }

    fn step(&mut self, lives: impl Fn(&&ReplicaSet) -> bool, is_taken: impl Fn(&str) -> bool) {
        let paused = self.spec.paused == Some(true);
        if self.deadline().is_some() {
            self.conditions.note_pause(paused, self.now);
        }
        if paused {
            self.counts_only = true;
            self.adjust_new();
            self.rescale();
            self.clean_up();
            return;
        }
        let wanted = self.limits.replicas;
        let is_rescaled = |set: &&ReplicaSet| {
            replicas(set) > 0
                && number(&set.metadata, DESIRED).is_some_and(|desired| desired != i64::from(wanted))
        };
        if self.sets.iter().any(is_rescaled) {
            self.counts_only = true;
            self.adjust_new();
            self.rescale();
            return;
        }
        let recreate = self.spec.strategy.as_ref().and_then(|one| one.type_.as_deref()) == Some(RECREATE);
        if recreate { self.recreate(lives, is_taken) } else { self.roll(is_taken) }
    }

    fn recreate(&mut self, lives: impl Fn(&&ReplicaSet) -> bool, is_taken: impl Fn(&str) -> bool) {
        self.adjust_new();
        let active: Vec<&ReplicaSet> = self.old().filter(|set| replicas(set) > 0).collect();
        if !active.is_empty() {
            active.into_iter().for_each(|set| self.resize(set, 0));
            return;
        }
        if self.old().any(|set| lives(&set)) {
            return;
        }
        match self.new {
            None => self.make_new(is_taken),
            Some(new) if replicas(new) != self.limits.replicas => self.resize(new, self.limits.replicas),
            Some(_) => self.clean_up_if_complete(),
        }
    }

    fn roll(&mut self, is_taken: impl Fn(&str) -> bool) {
        let Some(new) = self.new else { return self.make_new(is_taken) };
        self.adjust_new();
        let old: Vec<&ReplicaSet> = self.old().collect();
        let (new_size, sizes) = {
            let old: Vec<Set> = old.iter().map(|set| Set::of(set)).collect();
            (sizes::grown(&self.limits, Set::of(new), &old), sizes::shrunk(&self.limits, Set::of(new), &old))
        };
        if new_size != replicas(new) {
            return self.resize(new, new_size);
        }
        let mut is_shrinking = false;
        for (set, size) in old.into_iter().zip(sizes) {
            if size != replicas(set) {
                self.resize(set, size);
                is_shrinking = true;
            }
        }
        if !is_shrinking {
            self.clean_up_if_complete();
        }
    }

    /// Shares a changed number of replicas among the sets, as far as they have any (upstream's
    /// `scale`).
    fn rescale(&mut self) {
        let active: Vec<&ReplicaSet> = self.sets.iter().copied().filter(|set| replicas(set) > 0).collect();
        let only = match active[..] {
            [] => self.new.or_else(|| self.sets.last().copied()),
            [one] => Some(one),
            _ => None,
        };
        if let Some(set) = only {
            return self.resize(set, self.limits.replicas);
        }
        let wanted = self.limits.replicas;
        let is_saturated = self.new.is_some_and(|new| {
            replicas(new) == wanted
                && number(&new.metadata, DESIRED) == Some(wanted.into())
                && available(new) == wanted
        });
        if is_saturated {
            let old: Vec<&ReplicaSet> = self.old().filter(|set| replicas(set) > 0).collect();
            old.into_iter().for_each(|set| self.resize(set, 0));
        } else if self.limits.rolls {
            let there = self.deployment.status.as_ref().and_then(|status| status.replicas);
            let all: Vec<Set> = active.iter().map(|set| Set::of(set)).collect();
            let sizes = sizes::shared(&self.limits, &all, there.unwrap_or_default());
            for (set, size) in active.into_iter().zip(sizes) {
                self.resize(set, size);
            }
        }
    }

    /// The annotations of a set that tell what it was scaled for.
    fn scale_annotations(&self) -> [(&'static str, String); 2] {
        let max = self.limits.replicas.saturating_add(self.limits.surge);
        [(DESIRED, self.limits.replicas.to_string()), (MAX, max.to_string())]
    }

    fn resize(&mut self, set: &ReplicaSet, size: i32) {
        let before = replicas(set);
        let annotations = self.scale_annotations();
        let is_noted = annotations.iter().all(|(name, value)| annotation(&set.metadata, name) == Some(value));
        if before == size && is_noted {
            return;
        }
        let annotations: BTreeMap<&str, String> = annotations.into_iter().collect();
        let patch = json!({
            "metadata": { "uid": set.metadata.uid, "annotations": annotations },
            "spec": { "replicas": size },
        });
        self.actions.push(Action::Patch(Key::to(KindRef::of::<ReplicaSet>(), set), patch));
        if before != size {
            self.tell_scaling(snapshot::name(set), before, size);
        }
    }

    fn tell_scaling(&mut self, set: &str, before: i32, after: i32) {
        let way = if after > before { "up" } else { "down" };
        self.actions.push(Action::Event {
            about: owned::reference(self.deployment),
            reason: "ScalingReplicaSet",
            message: format!("Scaled {way} replica set {set} from {before} to {after}"),
        });
    }

    /// The revision that the new set has, or is to get: one more than all others'.
    fn new_revision(&self) -> i64 {
        self.old().filter_map(|set| number(&set.metadata, REVISION)).max().unwrap_or(0) + 1
    }

    /// The deployment's annotations, for its sets.
    fn handed_down(&self) -> BTreeMap<String, String> {
        let all = self.deployment.metadata.annotations.iter().flatten();
        all.filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Brings the annotations of the new set up to date, and the deployment's revision.
    fn adjust_new(&mut self) {
        let Some(new) = self.new else { return };
        let revision = self.new_revision();
        let mut annotations = self.handed_down();
        annotations.retain(|name, value| annotation(&new.metadata, name) != Some(value));
        let own = number(&new.metadata, REVISION);
        let mut shown = annotation(&new.metadata, REVISION).unwrap_or_default().to_owned();
        if own.unwrap_or(0) < revision {
            if own.is_some() {
                annotations.insert(REVISION_HISTORY.to_owned(), history(new, &shown));
            }
            shown = revision.to_string();
            annotations.insert(REVISION.to_owned(), shown.clone());
        }
        let min_ready = self.spec.min_ready_seconds.unwrap_or_default();
        let own_min_ready = new.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        if !annotations.is_empty() || min_ready != own_min_ready {
            let patch = json!({
                "metadata": { "uid": new.metadata.uid, "annotations": annotations },
                "spec": { "minReadySeconds": min_ready },
            });
            self.actions.push(Action::Patch(Key::to(KindRef::of::<ReplicaSet>(), new), patch));
        }
        self.revision = Some(shown);
        if self.deadline().is_some() {
            self.conditions.note_found(snapshot::name(new), self.now);
        }
    }

    fn make_new(&mut self, is_taken: impl Fn(&str) -> bool) {
        let deployment = self.deployment;
        let mut template = self.spec.template.clone();
        let hash = template_hash(&template, self.collisions);
        let name = format!("{}-{hash}", snapshot::name(deployment));
        if is_taken(&name) {
            // By a set of another template, or another's: the next name will differ.
            self.collisions = Some(self.collisions.unwrap_or(0) + 1);
            return;
        }
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash);
        let size = {
            let old: Vec<Set> = self.sets.iter().map(|set| Set::of(set)).collect();
            sizes::grown(&self.limits, Set::default(), &old)
        };
        let revision = self.new_revision().to_string();
        let mut annotations = self.handed_down();
        annotations.insert(REVISION.to_owned(), revision.clone());
        annotations.extend(self.scale_annotations().map(|(name, value)| (name.to_owned(), value)));
        let set = ReplicaSet {
            metadata: ObjectMeta {
                namespace: deployment.metadata.namespace.clone(),
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![owned::controller_reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let sets = KindRef::of::<ReplicaSet>();
        let key = Key::new(sets, snapshot::namespace(deployment), &name);
        self.actions.push(Action::RequireAbsent(key, None));
        self.actions.push(Action::Create(sets, Box::new(set)));
        if size > 0 {
            self.tell_scaling(&name, 0, size);
        }
        self.revision = Some(revision);
        if self.deadline().is_some() {
            self.conditions.note_created(&name, self.now);
        }
    }

    fn clean_up_if_complete(&mut self) {
        let status = self.deployment.status.clone().unwrap_or_default();
        if progress::is_complete(self.deployment, &status) {
            self.clean_up();
        }
    }

    /// Deletes the oldest revisions beyond the limit, if nothing is left of them.
    fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit else { return };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut old: Vec<&ReplicaSet> =
            self.old().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        old.sort_by_key(|set| number(&set.metadata, REVISION).unwrap_or(0));
        let excess = old.len().saturating_sub(limit);
        for set in old.into_iter().take(excess) {
            let observed = set.status.as_ref().and_then(|status| status.observed_generation);
            let is_unseen = set.metadata.generation.unwrap_or(0) > observed.unwrap_or(0);
            if replicas(set) == 0 && there(set) == 0 && !is_unseen {
                self.actions.push(Action::Delete {
                    key: Key::to(KindRef::of::<ReplicaSet>(), set),
                    uid: snapshot::uid(set).to_owned(),
                    grace_period_seconds: None,
                    propagation_policy: Some("Background"),
                });
            }
        }
    }

    /// The decision, with the status as it is now.
    fn finish(mut self) -> Decision {
        let status = progress::status(&progress::Facts {
            deployment: self.deployment,
            limits: &self.limits,
            sets: &self.sets,
            new: self.new,
            collisions: self.collisions,
            deadline: self.deadline(),
            counts_only: self.counts_only,
            now: self.now,
            conditions: self.conditions,
        });
        let shown = annotation(&self.deployment.metadata, REVISION);
        let revision = self.revision.filter(|revision| shown != Some(revision.as_str()));
        // What is paused, scaled or deleted has no deadline to miss.
        let requeue_after = (!self.counts_only)
            .then(|| progress::next_look(self.deployment, &status, self.spec, self.now))
            .flatten();
        if Some(&status) != self.deployment.status.as_ref() || revision.is_some() {
            let mut new = self.deployment.clone();
            new.status = Some(status);
            if let Some(revision) = revision {
                new.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision);
            }
            let kind = KindRef::of::<Deployment>();
            self.actions.push(Action::Update(kind, Box::new(new), Some(Subresource::Status)));
        }
        Decision { actions: self.actions, requeue_after, ..Decision::default() }
    }
}

/// The revisions that the set had, and now the one it leaves.
fn history(set: &ReplicaSet, left: &str) -> String {
    let before = annotation(&set.metadata, REVISION_HISTORY).filter(|text| !text.is_empty());
    let mut all: Vec<&str> = before.into_iter().flat_map(|text| text.split(',')).collect();
    all.push(left);
    while all.len() > 1 && all.iter().map(|one| one.len() + 1).sum::<usize>() > HISTORY_CHARACTERS_MAX {
        all.remove(0);
    }
    all.join(",")
}

/// A second more than the deadline, so that it is over for certain.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
