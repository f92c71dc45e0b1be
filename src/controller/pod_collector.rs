//! Removes pods that nobody else will: of nodes that are gone (BEHAVIOURS 17.4), finished ones
//! beyond a number (17.5), and deleted ones that never had a node.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::snapshot::Give;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, snapshot};
use crate::kind::Object;

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

/// Deleted with grace, but there is no node to see to it.
fn is_stranded(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
        && pod.metadata.deletion_grace_period_seconds != Some(0)
        && node_of(pod).is_none()
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
            return Decision::act(pods.take(excess).map(|(_, pod)| force_delete(&**pod)).collect());
        }
        match seen.get_any(key.kind, &key.namespace, &key.name) {
            Some(pod) if pod.downcast_ref::<Pod>().is_some_and(is_stranded) => {
                Decision::act(vec![force_delete(&**pod)])
            }
            _ => Decision::default(),
        }
    }
}

/// Pods bound to a node that is not there.
fn orphans(seen: &Snapshot, node: &Key, moment: Moment) -> Decision {
    let pods = seen.indexed(BY_NODE, &node.name);
    if pods.len() == 0 || seen.get_any(node.kind, "", &node.name).is_some() {
        return Decision::default();
    }
    if moment.waited < QUARANTINE {
        let left = QUARANTINE - moment.waited;
        return Decision { requeue_after: Some(left), waiting: true, ..Decision::default() };
    }
    let more = pods.len() > BATCH_MAX;
    let mut actions = vec![Action::RequireAbsent(node.clone(), None)];
    actions.extend(pods.take(BATCH_MAX).map(|(_, pod)| force_delete(&**pod)));
    Decision { actions, requeue_after: more.then_some(Duration::ZERO), waiting: true }
}

fn force_delete(pod: &dyn Object) -> Action {
    Action::Delete {
        key: Key::to(KindRef::of::<Pod>(), pod),
        uid: snapshot::uid(pod).to_owned(),
        grace_period_seconds: Some(0),
        propagation_policy: Some("Background"),
    }
}

#[cfg(test)]
mod tests;
