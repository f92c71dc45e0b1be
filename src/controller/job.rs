//! Runs Jobs (BEHAVIOURS 13): makes their pods, counts how they end, and ends the Jobs.
//!
//! [`sync`] decides on plain values. Pods are found by an index that holds only those that matter: what
//! has ended and been counted is not looked at again, however many there were.

mod backoff;
mod make;
mod pods;
mod policy;
mod sync;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::eligibility::{self, Eligibility, Verdict};
use super::snapshot::Give;
use super::{
    Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, Words, owned, snapshot,
};
use crate::client::reference;
use crate::kind::job::{PER_NODE, TRACKING_FINALIZER, is_finished, mode};
use crate::kind::selector::LabelSelector;
use crate::kind::{Object, Subresource};

/// The only manager that we are.
const MANAGER: &str = "kubernetes.io/job-controller";

const PODS: &str = "pods by Job";
/// Jobs that choose their pods by a selector of their own, by namespace.
const CHOOSY: &str = "Jobs with their own selector";
const ON_NODES: &str = "Jobs with a pod for each node";

static INDEXES: [Index; 5] = {
    let [by_controller, orphans] = owned::INDEXES;
    [
        Index { name: PODS, of: by_job },
        Index { name: CHOOSY, of: choosy },
        Index { name: ON_NODES, of: on_nodes },
        by_controller,
        orphans,
    ]
};

pub struct Jobs;

fn by_job(object: &dyn Object, give: Give<'_>) {
    let Some(pod) = object.downcast_ref::<Pod>() else { return };
    if (pods::is_tracked(pod) || !pods::is_over(pod))
        && let Some(owner) = pods::controlling_job(pod)
    {
        give(&owner.uid, pods::index(pod).map_or(-1, i64::from));
    }
}

fn choosy(object: &dyn Object, give: Give<'_>) {
    if let Some(job) = object.downcast_ref::<Job>()
        && choice(job).is_some()
    {
        give(snapshot::namespace(object), 0);
    }
}

fn on_nodes(object: &dyn Object, give: Give<'_>) {
    if let Some(job) = object.downcast_ref::<Job>()
        && job.spec.as_ref().is_some_and(|spec| mode(spec) == PER_NODE)
        && !is_finished(job)
    {
        give("", 0);
    }
}

/// The selector of a Job that may match pods which others made; the generated one matches only its own.
fn choice(job: &Job) -> Option<LabelSelector> {
    let spec = job.spec.as_ref().filter(|spec| spec.manual_selector == Some(true) && !is_finished(job))?;
    LabelSelector::from_meta(spec.selector.as_ref()).ok()
}

fn is_ours(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|manager| manager == MANAGER)
}

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job"
    }

    fn indexes(&self) -> &'static [Index] {
        &INDEXES
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        if let Some(pod) = object.downcast_ref::<Pod>() {
            let before = change.old.and_then(|old| old.downcast_ref::<Pod>());
            return wakes_of_pod(seen, pod, before, wake);
        }
        if object.as_any().is::<Job>() {
            wake(Key::to(change.kind, object));
            if change.new.is_none() {
                for (kind, pod) in seen.indexed(PODS, snapshot::uid(object)) {
                    wake(Key::to(kind, &**pod));
                }
            }
        } else if object.as_any().is::<Node>()
            && let Some([old, new]) = eligibility::sides(change)
        {
            for (kind, job) in seen.indexed(ON_NODES, "") {
                let spec = job.downcast_ref::<Job>().and_then(|job| job.spec.as_ref());
                if spec.is_some_and(|spec| eligibility(spec).changes(old, new)) {
                    wake(Key::to(kind, &**job));
                }
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        if key.kind == KindRef::of::<Pod>() {
            return release_orphan(seen, key);
        }
        let Some(job) = seen.get::<Job>(&key.namespace, &key.name) else { return Decision::default() };
        let Some(spec) = job.spec.as_ref().filter(|spec| is_ours(spec)) else { return Decision::default() };
        if is_finished(job) {
            return after_the_end(seen, job, spec, key, moment.now);
        }
        let found = seen.indexed(PODS, snapshot::uid(job));
        let mut mine: Vec<&Pod> = found.filter_map(|(_, pod)| pod.downcast_ref::<Pod>()).collect();
        if let Some(selector) = choice(job) {
            let claims =
                owned::claim(seen, job, key.kind, &selector, Some(TRACKING_FINALIZER), |_: &Pod| true);
            if !claims.actions.is_empty() {
                // Whose pods are whose is known when that is done.
                return Decision::act(claims.actions);
            }
            mine.retain(|pod| selector.matches(pods::labels(pod)));
        }
        let nodes = if mode(spec) == PER_NODE { nodes(seen, spec) } else { BTreeMap::new() };
        let plan = sync::decide(&sync::Seen { job, pods: mine, nodes }, moment.now);
        apply(job, plan)
    }
}

fn wakes_of_pod(seen: &Snapshot, pod: &Pod, before: Option<&Pod>, wake: &mut dyn FnMut(Key)) {
    let jobs = KindRef::of::<Job>();
    let namespace = snapshot::namespace(pod);
    let job = pods::controlling_job(pod);
    if let Some(owner) = before.and_then(pods::controlling_job).filter(|before| job != Some(before)) {
        wake(Key::new(jobs, namespace, &owner.name));
    }
    let there = job.and_then(|owner| seen.get::<Job>(namespace, &owner.name));
    if let Some(owner) = job {
        wake(Key::new(jobs, namespace, &owner.name));
    }
    let is_known = there.is_some_and(|there| job.is_some_and(|owner| snapshot::uid(there) == owner.uid));
    if pods::is_tracked(pod) && !is_known {
        wake(Key::to(KindRef::of::<Pod>(), pod));
    }
    if owned::controller_of(&pod.metadata).is_none() && !pods::is_going(pod) {
        for (kind, job) in seen.indexed(CHOOSY, namespace) {
            let matches = |job| choice(job).is_some_and(|selector| selector.matches(pods::labels(pod)));
            if job.downcast_ref::<Job>().is_some_and(matches) {
                wake(Key::to(kind, &**job));
            }
        }
    }
}

/// Pods without a Job must not stay for ever (BEHAVIOURS 13.14).
fn release_orphan(seen: &Snapshot, key: &Key) -> Decision {
    let Some(pod) = seen.get::<Pod>(&key.namespace, &key.name).filter(|pod| pods::is_tracked(pod)) else {
        return Decision::default();
    };
    let mut actions = Vec::new();
    if let Some(owner) = pods::controlling_job(pod) {
        let job = seen.get::<Job>(&key.namespace, &owner.name);
        if job.is_some_and(|job| snapshot::uid(job) == owner.uid) {
            return Decision::default();
        }
        let owner_key = Key::new(KindRef::of::<Job>(), &key.namespace, &owner.name);
        actions.push(Action::RequireAbsent(owner_key, Some(owner.uid.clone())));
    }
    actions.push(release(pod));
    Decision::act(actions)
}

/// Takes the finalizer away, if the pod is still as it was seen.
fn release(pod: &Pod) -> Action {
    let mut pod = pod.clone();
    let kept = |all: Vec<String>| all.into_iter().filter(|one| one != TRACKING_FINALIZER).collect::<Vec<_>>();
    pod.metadata.finalizers = pod.metadata.finalizers.map(kept).filter(|rest| !rest.is_empty());
    Action::Update(KindRef::of::<Pod>(), Box::new(pod), None)
}

fn delete(pod: &Pod) -> Action {
    Action::Delete {
        key: Key::to(KindRef::of::<Pod>(), pod),
        uid: snapshot::uid(pod).to_owned(),
        grace_period_seconds: None,
        propagation_policy: None,
    }
}

/// What is left to do for a Job that has ended: pods that came too late to count lose their finalizer,
/// and the Job goes when its time has come (BEHAVIOURS 13.13).
fn after_the_end(seen: &Snapshot, job: &Job, spec: &JobSpec, key: &Key, now: Timestamp) -> Decision {
    let pods = seen.indexed(PODS, snapshot::uid(job)).filter_map(|(_, pod)| pod.downcast_ref::<Pod>());
    let late = pods.filter(|pod| pods::is_tracked(pod) && pods::is_over(pod));
    let mut actions: Vec<Action> = late.take(sync::PODS_MAX).map(release).collect();
    let Some(ttl) = spec.ttl_seconds_after_finished.filter(|_| job.metadata.deletion_timestamp.is_none())
    else {
        return Decision::act(vec![Action::Together(actions)].into_iter().filter(is_something).collect());
    };
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ended = conditions
        .filter(|one| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True")
        .find_map(|one| one.last_transition_time.as_ref().map(|time| time.0))
        .unwrap_or(now);
    let passed = Duration::try_from(now.duration_since(ended)).unwrap_or_default();
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or_default());
    if passed >= ttl {
        actions.push(Action::Delete {
            key: key.clone(),
            uid: snapshot::uid(job).to_owned(),
            grace_period_seconds: None,
            propagation_policy: Some("Foreground"),
        });
        return Decision::act(vec![Action::Together(actions)]);
    }
    let actions = vec![Action::Together(actions)].into_iter().filter(is_something).collect();
    Decision { actions, requeue_after: Some(ttl - passed), ..Decision::default() }
}

fn is_something(action: &Action) -> bool {
    !matches!(action, Action::Together(actions) if actions.is_empty())
}

fn apply(job: &Job, plan: sync::Plan<'_>) -> Decision {
    let pod_kind = KindRef::of::<Pod>();
    let about = reference(job, None);
    let deleted = |pod: &Pod| Action::Event {
        about: about.clone(),
        reason: "SuccessfulDelete",
        message: format!("Deleted pod: {}", snapshot::name(pod)),
    };
    let mut counting = Vec::new();
    if let Some(job) = plan.status {
        counting.push(Action::Update(KindRef::of::<Job>(), Box::new(job), Some(Subresource::Status)));
    }
    let mut then: Vec<Action> = plan.release.iter().map(|pod| release(pod)).collect();
    then.extend(plan.stop.iter().map(|pod| Action::InOrder(vec![delete(pod), deleted(pod)])));
    // Not to be counted: first let go, then deleted. A pod that is only let go is found again.
    then.extend(plan.drop.iter().map(|pod| {
        let first = pods::is_tracked(pod).then(|| release(pod));
        Action::InOrder(first.into_iter().chain([delete(pod), deleted(pod)]).collect())
    }));
    counting.extend((!then.is_empty()).then_some(Action::Together(then)));
    for (warning, reason, message) in plan.events {
        let about = about.clone();
        counting.push(if warning {
            Action::Warn { about, reason, message }
        } else {
            Action::Event { about, reason, message }
        });
    }
    let create = plan
        .create
        .iter()
        .map(|place| Action::CreateFor(pod_kind, Box::new(make::pod(job, place)), about.clone(), Words::POD));
    let mut all: Vec<Action> = create.collect();
    if all.is_empty() {
        return Decision { actions: counting, requeue_after: plan.again_after, ..Decision::default() };
    }
    if !counting.is_empty() {
        all.insert(0, Action::InOrder(counting));
    }
    Decision { actions: vec![Action::Together(all)], requeue_after: plan.again_after, ..Decision::default() }
}

fn eligibility(spec: &JobSpec) -> Eligibility {
    Eligibility::of(spec.template.spec.as_ref().unwrap_or(&PodSpec::default()))
}

/// Nodes where a pod of the Job may run, by what its template asks and tolerates.
fn nodes(seen: &Snapshot, spec: &JobSpec) -> BTreeMap<String, Verdict> {
    let eligibility = eligibility(spec);
    let nodes = seen.all(KindRef::of::<Node>()).filter_map(|node| node.downcast_ref::<Node>());
    nodes
        .map(|node| (snapshot::name(node).to_owned(), eligibility.judge(node)))
        .filter(|(_, verdict)| *verdict != Verdict::Never)
        .collect()
}
