//! Removes pods that nobody else will: of nodes that are gone (BEHAVIOURS 17.4), finished ones
//! beyond a number (17.5), and deleted ones that never had a node (upstream `pkg/controller/podgc`).
//!
//! Nobody is left to say how these ended, so those that have not are marked as failed first: a Job that
//! replaces only failed pods waits for that, and a finalizer may keep them for others to see.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::snapshot::Give;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, snapshot};
use crate::kind::{Object, Subresource};

/// kube-controller-manager's `--terminated-pod-gc-threshold`.
const FINISHED_MAX: usize = 12_500;
/// How long a node must be gone before its pods go (podgc's quarantine): it may register again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Deletions of one decision; the next takes the rest.
const BATCH_MAX: usize = 500;

const BY_NODE: &str = "pods by node";
const FINISHED: &str = "finished pods by age";

pub struct PodCollector;

fn by_node(object: &dyn Object, give: Give<'_>) {
    if let Some(node) = object.downcast_ref::<Pod>().and_then(node_of) {
        give(node, 0);
    }
}

fn finished(object: &dyn Object, give: Give<'_>) {
    if object.downcast_ref::<Pod>().is_some_and(is_finished) {
        give("", snapshot::created(object));
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether all that the collector does has been done: what is still there is held by a finalizer.
fn is_collected(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    is_finished(pod) && meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0)
}

/// Deleted, but there is no node to see to it.
fn is_stranded(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_none() && !is_collected(pod)
}

/// Looks after the number of finished pods.
fn finished_key() -> Key {
    Key::new(KindRef::of::<Pod>(), "", "")
}

impl Controller for PodCollector {
    fn name(&self) -> &'static str {
        "pod_collector"
    }

    fn indexes(&self) -> &'static [Index] {
        &[Index { name: BY_NODE, of: by_node }, Index { name: FINISHED, of: finished }]
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        let nodes = KindRef::of::<Node>();
        if change.kind == nodes {
            // Gone: its pods begin to wait. There again: they no longer do.
            if change.old.is_none() || change.new.is_none() {
                wake(Key::to(nodes, object));
            }
        } else if let Some(pod) = object.downcast_ref::<Pod>() {
            if let Some(node) = node_of(pod)
                && seen.get_any(nodes, "", node).is_none()
            {
                wake(Key::new(nodes, "", node));
            }
            if is_finished(pod) && seen.indexed(FINISHED, "").len() > FINISHED_MAX {
                wake(finished_key());
            }
            if is_stranded(pod) {
                wake(Key::to(change.kind, object));
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        if key.kind == KindRef::of::<Node>() {
            return orphans(seen, key, moment);
        }
        if *key == finished_key() {
            let pods = seen.indexed(FINISHED, "");
            let excess = pods.len().saturating_sub(FINISHED_MAX).min(BATCH_MAX);
            let left = pods.filter_map(|(_, pod)| pod.downcast_ref()).filter(|pod| !is_collected(pod));
            return Decision::act(left.take(excess).map(force_delete).collect());
        }
        match seen.get::<Pod>(&key.namespace, &key.name).filter(|pod| is_stranded(pod)) {
            Some(pod) => Decision::act(collect(pod, None)),
            None => Decision::default(),
        }
    }
}

/// Pods bound to a node that is not there.
fn orphans(seen: &Snapshot, node: &Key, moment: Moment) -> Decision {
    let pods = seen.indexed(BY_NODE, &node.name).filter_map(|(_, pod)| pod.downcast_ref::<Pod>());
    let pods: Vec<&Pod> = pods.filter(|pod| !is_collected(pod)).take(BATCH_MAX + 1).collect();
    if pods.is_empty() || seen.get_any(node.kind, "", &node.name).is_some() {
        return Decision::default();
    }
    if moment.waited < QUARANTINE {
        let left = QUARANTINE - moment.waited;
        return Decision { requeue_after: Some(left), waiting: true, ..Decision::default() };
    }
    let more = pods.len() > BATCH_MAX;
    let mut actions = vec![Action::RequireAbsent(node.clone(), None)];
    let collected =
        pods.iter().take(BATCH_MAX).map(|pod| Action::InOrder(collect(pod, Some(disrupted(moment.now)))));
    actions.push(Action::Together(collected.collect()));
    Decision { actions, requeue_after: more.then_some(Duration::ZERO), waiting: true }
}

/// What tells of a pod that its node has vanished.
fn disrupted(now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByPodGC".to_owned()),
        message: Some("PodGC: node no longer exists".to_owned()),
        last_transition_time: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        ..PodCondition::default()
    }
}

/// Marks the pod as failed, if it has not ended, and deletes it.
fn collect(pod: &Pod, why: Option<PodCondition>) -> Vec<Action> {
    let mut actions = Vec::new();
    if !is_finished(pod) {
        let mut failed = pod.clone();
        let status = failed.status.get_or_insert_default();
        status.phase = Some("Failed".to_owned());
        if let Some(why) = why {
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|one| one.type_ != why.type_);
            conditions.push(why);
        }
        actions.push(Action::Update(KindRef::of::<Pod>(), Box::new(failed), Some(Subresource::Status)));
    }
    actions.push(force_delete(pod));
    actions
}

fn force_delete(pod: &Pod) -> Action {
    Action::Delete {
        key: Key::to(KindRef::of::<Pod>(), pod),
        uid: snapshot::uid(pod).to_owned(),
        grace_period_seconds: Some(0),
        propagation_policy: Some("Background"),
    }
}

#[cfg(test)]
mod tests;
