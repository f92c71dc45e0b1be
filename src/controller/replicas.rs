//! So many pods of one template: ReplicaSet and ReplicationController, which are one controller
//! (upstream `pkg/controller/replicaset`).

use std::cmp::Ordering;
use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::owned::{self, BURST};
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, snapshot};
use crate::apiserver::Error;
use crate::kind::selector::LabelSelector;
use crate::kind::{Subresource, Typed, replication_controller};

/// What the two kinds have in common.
pub trait Replicated: Typed {
    const NAME: &'static str;

    fn selector(&self) -> Option<LabelSelector>;
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn counts(&self) -> Counts;
    fn set_counts(&mut self, counts: Counts);
    /// Reason and message of the condition `ReplicaFailure`, if it is true.
    fn failure(&self) -> Option<(String, String)>;
    fn set_failure(&mut self, failure: Option<(String, String)>, since: Time);
}

const FAILURE: &str = "ReplicaFailure";

/// The numbers of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub observed_generation: i64,
}

impl Replicated for ReplicaSet {
    const NAME: &'static str = "replica_set";

    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_meta(self.spec.as_ref().map(|spec| &spec.selector)).ok()
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn counts(&self) -> Counts {
        let nothing = ReplicaSetStatus::default();
        let status = self.status.as_ref().unwrap_or(&nothing);
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            observed_generation: status.observed_generation.unwrap_or_default(),
        }
    }

    fn set_counts(&mut self, counts: Counts) {
        let status = self.status.get_or_insert_default();
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = nonzero(counts.fully_labeled);
        status.ready_replicas = nonzero(counts.ready);
        status.available_replicas = nonzero(counts.available);
        status.observed_generation = Some(counts.observed_generation);
    }

    fn failure(&self) -> Option<(String, String)> {
        let mut conditions = self.status.as_ref()?.conditions.iter().flatten();
        let one = conditions.find(|one| one.type_ == FAILURE && one.status == "True")?;
        Some((one.reason.clone().unwrap_or_default(), one.message.clone().unwrap_or_default()))
    }

    fn set_failure(&mut self, failure: Option<(String, String)>, since: Time) {
        let conditions = self.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|one| one.type_ != FAILURE);
        conditions.extend(failure.map(|(reason, message)| ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_transition_time: Some(since),
        }));
    }
}

impl Replicated for ReplicationController {
    const NAME: &'static str = "replication_controller";

    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_meta(Some(&replication_controller::selector(self))).ok()
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn counts(&self) -> Counts {
        let nothing = ReplicationControllerStatus::default();
        let status = self.status.as_ref().unwrap_or(&nothing);
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            observed_generation: status.observed_generation.unwrap_or_default(),
        }
    }

    fn set_counts(&mut self, counts: Counts) {
        let status = self.status.get_or_insert_default();
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = nonzero(counts.fully_labeled);
        status.ready_replicas = nonzero(counts.ready);
        status.available_replicas = nonzero(counts.available);
        status.observed_generation = Some(counts.observed_generation);
    }

    fn failure(&self) -> Option<(String, String)> {
        let mut conditions = self.status.as_ref()?.conditions.iter().flatten();
        let one = conditions.find(|one| one.type_ == FAILURE && one.status == "True")?;
        Some((one.reason.clone().unwrap_or_default(), one.message.clone().unwrap_or_default()))
    }

    fn set_failure(&mut self, failure: Option<(String, String)>, since: Time) {
        let conditions = self.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|one| one.type_ != FAILURE);
        conditions.extend(failure.map(|(reason, message)| ReplicationControllerCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_transition_time: Some(since),
        }));
    }
}

/// Go leaves zeros of statuses out.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// The controller of one of the kinds.
pub struct Replicas<K>(PhantomData<fn() -> K>);

impl<K> Default for Replicas<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<K: Replicated> Controller for Replicas<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn indexes(&self) -> &'static [Index] {
        &owned::INDEXES
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        if change.kind == KindRef::of::<K>() {
            wake(Key::to(change.kind, change.object()));
        } else {
            owned::wake_owners::<K, Pod>(seen, change, K::selector, wake);
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(set) = seen.get::<K>(&key.namespace, &key.name) else { return Decision::default() };
        let Some(selector) = set.selector() else { return Decision::default() };
        let claimed = owned::claim::<Pod>(seen, set, key.kind, &selector, None, owned::is_active);
        let mut active: Vec<&Pod> = claimed.mine.into_iter().filter(|pod| owned::is_active(pod)).collect();
        let counts = count(set, &active, moment.now);
        let requeue_after =
            owned::next_available(active.iter().copied(), set.min_ready_seconds(), moment.now);

        let mut side_by_side = Vec::new();
        if set.metadata().deletion_timestamp.is_none() {
            let batches = replenish(seen, set, &mut active, moment.now);
            if !batches.is_empty() {
                side_by_side.push(Action::InOrder(batches));
            }
        }
        // With all pods there, what hindered them is over.
        let is_mended = set.failure().is_some() && counts.replicas == set.replicas();
        if counts != set.counts() || is_mended {
            let mut new = set.clone();
            new.set_counts(counts);
            if is_mended {
                new.set_failure(None, Time(moment.now));
            }
            side_by_side.push(Action::Update(key.kind, Box::new(new), Some(Subresource::Status)));
        }
        let mut actions = claimed.actions;
        if !side_by_side.is_empty() {
            // Each is done though the other may fail.
            actions.push(Action::Together(side_by_side));
        }
        Decision { actions, requeue_after, ..Decision::default() }
    }

    fn failed(&self, seen: &Snapshot, key: &Key, error: &Error, now: Timestamp) -> Vec<Action> {
        let Some(set) = seen.get::<K>(&key.namespace, &key.name) else { return Vec::new() };
        // What is told stays until it is over, whatever else fails meanwhile.
        if set.failure().is_some() || error.is_namespace_terminating() {
            return Vec::new();
        }
        let pods = owned::controlled::<Pod>(seen, snapshot::uid(set));
        let active = pods.filter(|pod| owned::is_active(pod)).count();
        let reason = match active.cmp(&usize::try_from(set.replicas()).unwrap_or_default()) {
            Ordering::Less => "FailedCreate",
            Ordering::Greater => "FailedDelete",
            // What failed is not about the number of pods.
            Ordering::Equal => return Vec::new(),
        };
        let mut new = set.clone();
        new.set_failure(
            Some((reason.to_owned(), error.to_string())),
            Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        );
        vec![Action::Update(key.kind, Box::new(new), Some(Subresource::Status))]
    }
}

/// Makes what is missing, deletes what is too much, up to [`BURST`] of either.
fn replenish<K: Replicated>(seen: &Snapshot, set: &K, active: &mut [&Pod], now: Timestamp) -> Vec<Action> {
    let wanted = usize::try_from(set.replicas()).unwrap_or_default();
    if active.len() < wanted {
        let Some(template) = set.template() else { return Vec::new() };
        let pod = owned::pod_of(template, set);
        let missing = (wanted - active.len()).min(BURST);
        return owned::slow_start((0..missing).map(|_| owned::create_pod(set, pod.clone())).collect());
    }
    let excess = (active.len() - wanted).min(BURST);
    if excess == 0 {
        return Vec::new();
    }
    if wanted > 0 {
        owned::sort_for_deletion(active, &related(seen, set, active), now);
    }
    vec![Action::Together(active[..excess].iter().map(|pod| owned::delete_pod(set, pod)).collect())]
}

/// The pods of all sets of the same controller, such as a deployment's: those that crowd a node together.
fn related<'a, K: Replicated>(seen: &'a Snapshot, set: &K, own: &[&'a Pod]) -> Vec<&'a Pod> {
    let Some(owner) = owned::controller_of(set.metadata()) else { return own.to_vec() };
    let sets = owned::controlled::<K>(seen, &owner.uid);
    sets.flat_map(|set| owned::controlled::<Pod>(seen, snapshot::uid(set))).collect()
}

fn count<K: Replicated>(set: &K, active: &[&Pod], now: Timestamp) -> Counts {
    let labels = set.template().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let has_all = |pod: &&&Pod| {
        labels.into_iter().flatten().all(|(key, value)| {
            pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value)
        })
    };
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let is_available = |pod: &&&Pod| owned::is_available(pod, set.min_ready_seconds(), now);
    Counts {
        replicas: number(active.len()),
        fully_labeled: number(active.iter().filter(has_all).count()),
        ready: number(active.iter().filter(|pod| owned::is_ready(pod)).count()),
        available: number(active.iter().filter(is_available).count()),
        observed_generation: set.metadata().generation.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
