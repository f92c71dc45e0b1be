//! DaemonSets: a pod on every node that will have it (BEHAVIOURS 12; upstream `pkg/controller/daemon`).
//!
//! * [`nodes`]: what each node is to have, and how an update goes from node to node.

mod nodes;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};

use self::nodes::{OnNode, Plan};
use super::eligibility::{self, Eligibility};
use super::revisions::{self, HASH_LABEL, Subject, label};
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, owned, snapshot};
use crate::kind::Subresource;
use crate::kind::daemon_set::{ROLLING_UPDATE, template_generation};
use crate::kind::selector::LabelSelector;

const GENERATION_LABEL: &str = "pod-template-generation";
/// Pods that one decision makes or deletes (12.6).
const BURST: usize = 250;
/// The wait before a failed pod's place is taken again on its node (12.5).
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Default)]
pub struct DaemonSets {
    /// How long nodes on which pods of a set fail are left alone. In no object, as upstream: a restart
    /// forgets it, which costs one try a node.
    failures: Mutex<BTreeMap<(String, String), Backoff>>,
}

#[derive(Clone, Copy, Debug)]
struct Backoff {
    last: Timestamp,
    wait: Duration,
}

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemon_set"
    }

    fn indexes(&self) -> &'static [Index] {
        &owned::INDEXES
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let sets = KindRef::of::<DaemonSet>();
        if change.kind == sets {
            if change.new.is_none() {
                self.forget(snapshot::uid(change.object()));
            }
            wake(Key::to(sets, change.object()));
        } else if change.kind == KindRef::of::<Node>() {
            let Some([old, new]) = eligibility::sides(change) else { return };
            for set in seen.all(sets) {
                let spec = set.downcast_ref::<DaemonSet>().and_then(|set| set.spec.as_ref());
                let Some(spec) = spec.and_then(|spec| spec.template.spec.as_ref()) else { continue };
                if Eligibility::of(spec).changes(old, new) {
                    wake(Key::to(sets, &**set));
                }
            }
        } else {
            owned::wake_owners::<DaemonSet, Pod>(seen, change, selector, wake);
            owned::wake_owners::<DaemonSet, ControllerRevision>(seen, change, selector, wake);
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(set) = seen.get::<DaemonSet>(&key.namespace, &key.name) else { return Decision::default() };
        let (Some(selector), Some(spec)) = (selector(set), &set.spec) else { return Decision::default() };
        if set.metadata.deletion_timestamp.is_some() {
            return Decision::default();
        }
        let claimed = owned::claim::<ControllerRevision>(seen, set, key.kind, &selector, None, |_| true);
        let pods = owned::claim::<Pod>(seen, set, key.kind, &selector, None, |_| true);
        let mut actions = claimed.actions;
        actions.extend(pods.actions);

        let is_taken = |name: &str| seen.get::<ControllerRevision>(&key.namespace, name).is_some();
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let subject = Subject { owner: set, template: &spec.template, collisions };
        let history = revisions::read(&subject, &claimed.mine, is_taken);
        actions.extend(history.actions);
        let Some(hash) = history.hash else {
            // Its name is taken: the next will be another.
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
            actions.push(update_status(set, status));
            return Decision::act(actions);
        };

        let eligibility = Eligibility::of(spec.template.spec.as_ref().unwrap_or(&Default::default()));
        let by_node = by_node(&pods.mine);
        let known: Vec<OnNode<'_>> = seen
            .all(KindRef::of::<Node>())
            .filter_map(|node| node.downcast_ref::<Node>())
            .map(|node| {
                let name = snapshot::name(node);
                let pods = by_node.get(name).map_or(&[][..], Vec::as_slice);
                OnNode { name, verdict: eligibility.judge(node), pods }
            })
            .collect();
        let rules = nodes::Rules::of(spec, &hash, &known, moment.now);
        let mut plan = nodes::manage(&rules, &known);
        plan.delete.extend(stranded(seen, &pods.mine));
        let mut requeue_after = self.hold_back(set, &mut plan, moment.now);
        for ended in &plan.ended {
            actions.push(tell_ended(set, ended.node, ended.pod));
        }
        plan.delete.extend(plan.ended.iter().map(|ended| ended.pod));
        let is_rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref())
            == Some(ROLLING_UPDATE);
        if plan.is_empty() && is_rolling {
            plan = nodes::roll(&rules, &known);
        }

        let mut side_by_side = Vec::new();
        if !plan.create.is_empty() {
            let template = template(set, spec, &hash);
            let pod = |node: &&str| {
                let mut pod = owned::pod_of(&template, set);
                eligibility::pin(pod.spec.get_or_insert_default(), node);
                owned::create_pod(set, pod)
            };
            let creates = plan.create.iter().take(BURST).map(pod).collect();
            side_by_side.push(Action::InOrder(owned::slow_start(creates)));
        }
        side_by_side.extend(plan.delete.iter().take(BURST).map(|pod| owned::delete_pod(set, pod)));
        if plan.is_empty() {
            let live = pods.mine.iter().filter_map(|pod| label(*pod, HASH_LABEL)).collect();
            side_by_side.extend(revisions::trim(spec.revision_history_limit, &history.old, &live));
        }
        let mut status = nodes::count(&rules, &known);
        status.observed_generation = set.metadata.generation;
        let before = set.status.clone().unwrap_or_default();
        status.collision_count = before.collision_count;
        status.conditions.clone_from(&before.conditions);
        if status != before {
            side_by_side.push(update_status(set, status));
        }
        if !side_by_side.is_empty() {
            // Each is done though others may fail.
            actions.push(Action::Together(side_by_side));
        }
        let next = owned::next_available(
            pods.mine.iter().copied(),
            spec.min_ready_seconds.unwrap_or_default(),
            moment.now,
        );
        requeue_after = requeue_after.into_iter().chain(next).min();
        Decision { actions, requeue_after, ..Decision::default() }
    }
}

impl DaemonSets {
    /// Takes failed pods out of the plan whose node is to be left alone for now; until when, at the
    /// earliest. The others' nodes are left alone from now on.
    fn hold_back(&self, set: &DaemonSet, plan: &mut Plan<'_>, now: Timestamp) -> Option<Duration> {
        if plan.ended.is_empty() {
            return None;
        }
        let mut failures = self.failures.lock().expect("nothing panics under this lock");
        let mut next: Option<Duration> = None;
        plan.ended.retain(|ended| {
            if !nodes::has_failed(ended.pod) {
                return true;
            }
            let key = (snapshot::uid(set).to_owned(), ended.node.to_owned());
            let before = failures.get(&key).copied();
            let since = |last| Duration::try_from(now.duration_since(last)).unwrap_or_default();
            let wait = match before {
                Some(one) if since(one.last) < one.wait => {
                    let left = one.wait - since(one.last);
                    next = Some(next.map_or(left, |next| next.min(left)));
                    return false;
                }
                Some(one) if since(one.last) < 2 * BACKOFF_MAX => (one.wait * 2).min(BACKOFF_MAX),
                Some(_) | None => BACKOFF_FIRST,
            };
            failures.insert(key, Backoff { last: now, wait });
            true
        });
        next
    }

    fn forget(&self, uid: &str) {
        let mut failures = self.failures.lock().expect("nothing panics under this lock");
        failures.retain(|(set, _), _| set != uid);
    }
}

fn selector(set: &DaemonSet) -> Option<LabelSelector> {
    LabelSelector::from_meta(set.spec.as_ref().map(|spec| &spec.selector)).ok()
}

/// The pods by the node that they are on or pinned to. Finished ones that are already going are gone.
fn by_node<'a>(pods: &[&'a Pod]) -> BTreeMap<&'a str, Vec<&'a Pod>> {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for &pod in pods {
        if pod.metadata.deletion_timestamp.is_some() && nodes::is_finished(pod) {
            continue;
        }
        if let Some(node) = eligibility::target(pod) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    by_node
}

/// Pods that wait for a node that is gone: nobody else will collect them.
fn stranded<'a>(seen: &Snapshot, pods: &[&'a Pod]) -> Vec<&'a Pod> {
    let is_bound = |pod: &Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
    };
    pods.iter()
        .copied()
        .filter(|pod| !is_bound(pod) && pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| eligibility::target(pod).is_some_and(|node| seen.get::<Node>("", node).is_none()))
        .collect()
}

/// The set's template as its pods have it, short of their node.
fn template(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    eligibility::tolerate(template.spec.get_or_insert_default());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    labels.insert(GENERATION_LABEL.to_owned(), template_generation(set).to_string());
    template
}

fn tell_ended(set: &DaemonSet, node: &str, pod: &Pod) -> Action {
    let name = format!("{}/{}", snapshot::namespace(pod), snapshot::name(pod));
    let about = owned::reference(set);
    if nodes::has_failed(pod) {
        let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
        Action::Warn { about, reason: "FailedDaemonPod", message }
    } else {
        let message = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
        Action::Event { about, reason: "SucceededDaemonPod", message }
    }
}

fn update_status(set: &DaemonSet, status: DaemonSetStatus) -> Action {
    let mut new = set.clone();
    new.status = Some(status);
    Action::Update(KindRef::of::<DaemonSet>(), Box::new(new), Some(Subresource::Status))
}

#[cfg(test)]
mod tests;
