//! StatefulSets: pods `<set>-<ordinal>`, made from the lowest up and removed from the highest down, one
//! after the other unless they are managed in parallel (upstream `pkg/controller/statefulset`).
//!
//! [`decide`] is pure: what to do next, from the pods by their ordinals. An update replaces pods from the
//! highest ordinal down to the partition; those below it are made anew from the revision before.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

use super::revisions::{self, HASH_LABEL, Subject, label};
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, owned, snapshot};
use crate::apiserver::Error;
use crate::kind::Subresource;
use crate::kind::selector::LabelSelector;
use crate::kind::stateful_set::{PARALLEL, ROLLING_UPDATE};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "stateful_set"
    }

    fn indexes(&self) -> &'static [Index] {
        &owned::INDEXES
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        if change.kind == KindRef::of::<StatefulSet>() {
            return wake(Key::to(change.kind, change.object()));
        }
        owned::wake_owners::<StatefulSet, Pod>(seen, change, selector, wake);
        owned::wake_owners::<StatefulSet, ControllerRevision>(seen, change, selector, wake);
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(set) = seen.get::<StatefulSet>(&key.namespace, &key.name) else {
            return Decision::default();
        };
        let (Some(selector), Some(spec)) = (selector(set), &set.spec) else { return Decision::default() };
        if set.metadata.deletion_timestamp.is_some() {
            return Decision::default();
        }
        let known = owned::claim::<ControllerRevision>(seen, set, key.kind, &selector, None, |_| true);
        let is_member = |pod: &Pod| ordinal(set, pod).is_some();
        let pods = owned::claim::<Pod>(seen, set, key.kind, &selector, None, is_member);
        let mut actions = known.actions;
        actions.extend(pods.actions);

        let before = set.status.clone().unwrap_or_default();
        let subject = Subject { owner: set, template: &spec.template, collisions: before.collision_count };
        let is_taken = |name: &str| seen.get::<ControllerRevision>(&key.namespace, name).is_some();
        let history = revisions::read(&subject, &known.mine, is_taken);
        actions.extend(history.actions);
        if history.hash.is_none() {
            // Its name is taken: the next will be another.
            let collisions = before.collision_count.unwrap_or_default() + 1;
            actions.push(update(set, StatefulSetStatus { collision_count: Some(collisions), ..before }));
            return Decision::act(actions);
        }
        let current = before.current_revision.clone().filter(|name| !name.is_empty());
        let current = current.unwrap_or_else(|| history.name.clone());
        let view = View {
            spec,
            pods: pods.mine.iter().filter_map(|pod| Some((ordinal(set, pod)?, *pod))).collect(),
            current: &current,
            update: &history.name,
            now: moment.now,
        };
        let steps = decide(&view);
        let older = known.mine.iter().find(|one| snapshot::name(**one) == current);
        let older = older.and_then(|one| template(one)).unwrap_or_else(|| spec.template.clone());
        let mut side_by_side: Vec<Action> = Vec::new();
        for step in &steps {
            side_by_side.extend(match step {
                Step::Create { ordinal, of_update } => {
                    let (template, revision) =
                        if *of_update { (&spec.template, &history.name) } else { (&older, &current) };
                    create(seen, set, *ordinal, template, revision)
                }
                Step::Delete(pod) => delete(set, pod),
                Step::Replace(pod) => replace(set, pod),
            });
        }
        if steps.is_empty() {
            let mut live: BTreeSet<&str> =
                view.pods.values().filter_map(|pod| label(*pod, HASH_LABEL)).collect();
            live.insert(&current);
            side_by_side.extend(revisions::trim(spec.revision_history_limit, &history.old, &live));
        }
        let mut status = view.count();
        status.observed_generation = set.metadata.generation;
        status.collision_count = before.collision_count;
        status.conditions.clone_from(&before.conditions);
        if status != before {
            side_by_side.push(update(set, status));
        }
        if !side_by_side.is_empty() {
            actions.push(Action::Together(side_by_side));
        }
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        let requeue_after = owned::next_available(view.pods.values().copied(), min_ready, moment.now);
        Decision { actions, requeue_after, ..Decision::default() }
    }

    fn failed(&self, seen: &Snapshot, key: &Key, error: &Error, _now: Timestamp) -> Vec<Action> {
        let Some(set) = seen.get::<StatefulSet>(&key.namespace, &key.name) else { return Vec::new() };
        if error.is_namespace_terminating() {
            return Vec::new();
        }
        let message = format!("create Pod in StatefulSet {} failed error: {error}", key.name);
        vec![Action::Warn { about: owned::reference(set), reason: "FailedCreate", message }]
    }
}

fn selector(set: &StatefulSet) -> Option<LabelSelector> {
    LabelSelector::from_meta(set.spec.as_ref().map(|spec| &spec.selector)).ok()
}

/// The ordinal in a pod's name, if it has the name of one of the set's.
fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let digits = snapshot::name(pod).strip_prefix(snapshot::name(set))?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
}

/// The template of a revision.
fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(revision.data.as_ref()?.0.get("spec")?.get("template")?.clone()).ok()
}

/// A set's pods and what is wanted of them.
struct View<'a> {
    spec: &'a StatefulSetSpec,
    pods: BTreeMap<i32, &'a Pod>,
    current: &'a str,
    update: &'a str,
    now: Timestamp,
}

#[derive(Debug)]
enum Step<'a> {
    /// From the newest template, or from the one before.
    Create {
        ordinal: i32,
        of_update: bool,
    },
    Delete(&'a Pod),
    /// One that has ended; another comes when it is gone.
    Replace(&'a Pod),
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

impl View<'_> {
    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    /// Ordinals that are to have a pod.
    fn wanted(&self) -> std::ops::Range<i32> {
        self.first()..self.first().saturating_add(self.spec.replicas.unwrap_or_default().max(0))
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        !is_going(pod) && !is_finished(pod) && owned::is_ready(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or_default();
        self.is_healthy(pod) && owned::is_available(pod, min_ready, self.now)
    }

    /// The first ordinal that an update reaches; `None` if pods change only when they are deleted.
    fn partition(&self) -> Option<i32> {
        let strategy = self.spec.update_strategy.as_ref();
        let rolls = strategy.and_then(|one| one.type_.as_deref()) == Some(ROLLING_UPDATE);
        let partition = strategy.and_then(|one| one.rolling_update.as_ref()?.partition).unwrap_or_default();
        rolls.then(|| self.first().saturating_add(partition))
    }

    fn count(&self) -> StatefulSetStatus {
        let all = || self.pods.values().copied();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let of = |revision: &str| {
            number(all().filter(|pod| !is_going(pod) && label(*pod, HASH_LABEL) == Some(revision)).count())
        };
        let nonzero = |count: i32| (count != 0).then_some(count);
        let replicas = number(self.pods.len());
        let ready = number(all().filter(|pod| !is_finished(pod) && owned::is_ready(pod)).count());
        let updated = of(self.update);
        // An update is over when all pods are of it, and ready.
        let is_done = self.partition().is_some() && updated == replicas && ready == replicas;
        let current = if is_done { self.update } else { self.current };
        StatefulSetStatus {
            replicas,
            ready_replicas: nonzero(ready),
            available_replicas: Some(number(all().filter(|pod| self.is_available(pod)).count())),
            current_replicas: nonzero(of(current)),
            updated_replicas: nonzero(updated),
            current_revision: Some(current.to_owned()),
            update_revision: Some(self.update.to_owned()),
            ..StatefulSetStatus::default()
        }
    }
}

/// What to do next: one thing at a time, or all at once if the pods are managed in parallel.
fn decide<'a>(view: &View<'a>) -> Vec<Step<'a>> {
    let in_order = view.spec.pod_management_policy.as_deref() != Some(PARALLEL);
    let partition = view.partition();
    let mut steps = Vec::new();
    for ordinal in view.wanted() {
        match view.pods.get(&ordinal) {
            None => {
                // Below the partition pods stay as they were.
                let of_update = partition.is_none_or(|partition| ordinal >= partition);
                steps.push(Step::Create { ordinal, of_update });
            }
            Some(pod) if is_finished(pod) && !is_going(pod) => steps.push(Step::Replace(pod)),
            Some(pod) if view.is_available(pod) => continue,
            // Not yet as it must be before the next has its turn.
            Some(_) => {}
        }
        if in_order {
            return steps;
        }
    }
    let wanted = view.wanted();
    let unhealthy = view.pods.iter().find(|(_, pod)| !view.is_healthy(pod)).map(|(ordinal, _)| *ordinal);
    for (ordinal, pod) in view.pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)) {
        if !is_going(pod) && (!in_order || view.is_available(pod) || unhealthy == Some(*ordinal)) {
            steps.push(Step::Delete(pod));
        }
        if in_order {
            return steps;
        }
    }
    let Some(partition) = partition.filter(|_| steps.is_empty()) else { return steps };
    for ordinal in wanted.rev().take_while(|ordinal| *ordinal >= partition) {
        let Some(pod) = view.pods.get(&ordinal) else { return steps };
        if label(*pod, HASH_LABEL) != Some(view.update) && !is_going(pod) {
            steps.push(Step::Delete(pod));
            return steps;
        }
        if !view.is_available(pod) {
            return steps;
        }
    }
    steps
}

fn event(set: &StatefulSet, reason: &'static str, message: String) -> Action {
    Action::Event { about: owned::reference(set), reason, message }
}

fn create(
    seen: &Snapshot,
    set: &StatefulSet,
    ordinal: i32,
    template: &PodTemplateSpec,
    revision: &str,
) -> Vec<Action> {
    let owner = snapshot::name(set);
    let name = format!("{owner}-{ordinal}");
    if seen.get::<Pod>(snapshot::namespace(set), &name).is_some() {
        let message = format!(
            "create Pod {name} in StatefulSet {owner} failed error: a pod of that name is there that is not the set's; delete it or give it the set's labels"
        );
        return vec![Action::Warn { about: owned::reference(set), reason: "FailedCreate", message }];
    }
    let mut pod = owned::pod_of(template, set);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(HASH_LABEL.to_owned(), revision.to_owned());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    let told = event(set, "SuccessfulCreate", format!("create Pod {name} in StatefulSet {owner} successful"));
    vec![Action::InOrder(vec![Action::Create(KindRef::of::<Pod>(), Box::new(pod)), told])]
}

fn delete(set: &StatefulSet, pod: &Pod) -> Vec<Action> {
    let (name, owner) = (snapshot::name(pod), snapshot::name(set));
    let deletion = Action::Delete {
        key: Key::to(KindRef::of::<Pod>(), pod),
        uid: snapshot::uid(pod).to_owned(),
        grace_period_seconds: None,
        propagation_policy: None,
    };
    let told = event(set, "SuccessfulDelete", format!("delete Pod {name} in StatefulSet {owner} successful"));
    vec![Action::InOrder(vec![deletion, told])]
}

fn replace(set: &StatefulSet, pod: &Pod) -> Vec<Action> {
    let has_failed = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed");
    let namespace = snapshot::namespace(set);
    let (name, owner) = (snapshot::name(pod), snapshot::name(set));
    let about = owned::reference(set);
    let told = if has_failed {
        let message = format!("StatefulSet {namespace}/{owner} is recreating failed Pod {name}");
        Action::Warn { about, reason: "RecreatingFailedPod", message }
    } else {
        let message = format!("StatefulSet {namespace}/{owner} is recreating terminated Pod {name}");
        Action::Event { about, reason: "RecreatingTerminatedPod", message }
    };
    std::iter::once(told).chain(delete(set, pod)).collect()
}

fn update(set: &StatefulSet, status: StatefulSetStatus) -> Action {
    let mut new = set.clone();
    new.status = Some(status);
    Action::Update(KindRef::of::<StatefulSet>(), Box::new(new), Some(Subresource::Status))
}

#[cfg(test)]
mod tests;
