//! Works out what PodDisruptionBudgets allow (upstream `pkg/controller/disruption`), for `pods/eviction`
//! to go by, and takes back the word that a pod is about to go when it does not (BEHAVIOURS 8.5).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::driver::watched;
use super::{Action, Change, Controller, Decision, Key, KindRef, Moment, Snapshot, owned, snapshot};
use crate::kind::Subresource;
use crate::kind::pod_disruption_budget::{DISRUPTION_TARGET, covers, tell, tell_allowed};
use crate::kind::workload::{scaled, selector_text};

/// How long an evicted pod may take to be seen going; then it counts again.
const DELETION_MAX: SignedDuration = SignedDuration::from_mins(2);
/// How long a pod may be said to be about to go without going.
const TARGET_MAX: SignedDuration = SignedDuration::from_mins(2);
/// Set by a node, which takes as long as it likes.
const BY_KUBELET: &str = "TerminationByKubelet";

pub struct Disruptions;

impl Controller for Disruptions {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let budgets = KindRef::of::<PodDisruptionBudget>();
        if change.kind == budgets {
            if change.new.is_some() {
                wake(Key::to(budgets, change.object()));
            }
            return;
        }
        let Some(pod) = change.object().downcast_ref::<Pod>() else { return };
        let before = change.old.and_then(|old| old.downcast_ref::<Pod>());
        for budget in seen.in_namespace(budgets, snapshot::namespace(pod)) {
            let Some(it) = budget.downcast_ref::<PodDisruptionBudget>() else { continue };
            if covers(it, pod) || before.is_some_and(|before| covers(it, before)) {
                wake(Key::to(budgets, &**budget));
            }
        }
        if change.new.is_some() && targeted_since(pod).is_some() {
            wake(Key::to(change.kind, pod));
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        if let Some(budget) = seen.get::<PodDisruptionBudget>(&key.namespace, &key.name)
            && key.kind == KindRef::of::<PodDisruptionBudget>()
        {
            return keep(seen, budget, moment.now);
        }
        match seen.get::<Pod>(&key.namespace, &key.name).filter(|_| key.kind == KindRef::of::<Pod>()) {
            Some(pod) => take_back(pod, moment.now),
            None => Decision::default(),
        }
    }
}

/// Brings the status of a budget up to date.
fn keep(seen: &Snapshot, budget: &PodDisruptionBudget, now: Timestamp) -> Decision {
    let pods: Vec<&Pod> = seen
        .in_namespace(KindRef::of::<Pod>(), snapshot::namespace(budget))
        .filter_map(|pod| pod.downcast_ref::<Pod>())
        .filter(|pod| covers(budget, pod))
        .collect();
    let about = || owned::reference(budget);
    let mut actions = Vec::new();
    if pods.is_empty() {
        let message = "No matching pods found".to_owned();
        actions.push(Action::Event { about: about(), reason: "NoPods", message });
    }
    let before = budget.status.clone().unwrap_or_default();
    let (status, again) = match expected(seen, budget, &pods) {
        Ok(expected) => {
            if expected.unmanaged {
                let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                let selector = selector.map(selector_text).unwrap_or_default();
                let message = format!(
                    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
                );
                actions.push(Action::Warn { about: about(), reason: "UnmanagedPods", message });
            }
            let disrupted = disrupted(&before, &pods, now);
            for late in &disrupted.late {
                let message = format!(
                    "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                    snapshot::namespace(budget),
                    snapshot::name(budget)
                );
                actions.push(Action::Warn { about: owned::reference(*late), reason: "NotDeleted", message });
            }
            (status(budget, &before, &pods, &expected, &disrupted, now), disrupted.again)
        }
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            actions.push(Action::Warn { about: about(), reason: "CalculateExpectedPodCountFailed", message });
            // When nothing is known nothing is allowed.
            let mut status = PodDisruptionBudgetStatus { disruptions_allowed: 0, ..before.clone() };
            tell(&mut status, "False", "SyncFailed", &why, now);
            (status, None)
        }
    };
    if status != before {
        let mut new = budget.clone();
        new.status = Some(status);
        let kind = KindRef::of::<PodDisruptionBudget>();
        actions.push(Action::Update(kind, Box::new(new), Some(Subresource::Status)));
    }
    Decision { actions, requeue_after: again, ..Decision::default() }
}

/// How many pods there should be, and how many of them healthy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    pods: i32,
    healthy: i32,
    /// Some of the pods are nobody's, and so not counted.
    unmanaged: bool,
}

fn expected(seen: &Snapshot, budget: &PodDisruptionBudget, pods: &[&Pod]) -> Result<Expected, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            let (pods, unmanaged) = wanted(seen, pods)?;
            let healthy = pods.saturating_sub(scaled(Some(unavailable), pods, true)).max(0);
            Ok(Expected { pods, healthy, unmanaged })
        }
        (None, Some(IntOrString::Int(number))) => {
            let pods = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            Ok(Expected { pods, healthy: *number, unmanaged: false })
        }
        (None, Some(share @ IntOrString::String(_))) => {
            let (pods, unmanaged) = wanted(seen, pods)?;
            Ok(Expected { pods, healthy: scaled(Some(share), pods, true), unmanaged })
        }
        (None, None) => Ok(Expected::default()),
    }
}

/// The pods that all owners of these pods are to have, and whether some have no owner.
fn wanted(seen: &Snapshot, pods: &[&Pod]) -> Result<(i32, bool), String> {
    let mut scales: HashMap<String, i32> = HashMap::new();
    let mut known: HashMap<&str, ()> = HashMap::new();
    let mut unmanaged = false;
    for &pod in pods {
        let Some(owner) = owned::controller_of(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        if known.insert(&owner.uid, ()).is_none() {
            let (uid, scale) = scale_of(seen, snapshot::namespace(pod), owner).ok_or_else(|| {
                let (kind, name) = (&owner.kind, &owner.name);
                format!(
                    "found no controller with a scale for pod {:?}: it is controlled by {kind} {name:?}",
                    snapshot::name(pod)
                )
            })?;
            scales.insert(uid, scale);
        }
    }
    Ok((scales.into_values().fold(0, i32::saturating_add), unmanaged))
}

/// The uid and scale of the object that decides how many pods there are: the controller, or the controller
/// of that, as far up as they have a scale.
fn scale_of(seen: &Snapshot, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let kind =
        watched().find(|kind| kind.0.kind == owner.kind && kind.0.api_version() == owner.api_version)?;
    if !kind.0.has(Subresource::Scale) {
        return None;
    }
    let object = seen.get_any(kind, namespace, &owner.name)?;
    if snapshot::uid(&**object) != owner.uid {
        return None;
    }
    let above = owned::controller_of(object.metadata()).and_then(|above| scale_of(seen, namespace, above));
    above.or_else(|| Some((owner.uid.clone(), kind.0.strategy.scaled(&**object)?.wanted)))
}

/// Pods whose eviction was allowed and that are not seen going yet.
#[derive(Default)]
struct Disrupted<'a> {
    pods: BTreeMap<String, Time>,
    /// Those that should long have gone.
    late: Vec<&'a Pod>,
    again: Option<Duration>,
}

fn disrupted<'a>(before: &PodDisruptionBudgetStatus, pods: &[&'a Pod], now: Timestamp) -> Disrupted<'a> {
    let mut found = Disrupted::default();
    let Some(told) = &before.disrupted_pods else { return found };
    for &pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = snapshot::name(pod);
        let Some(since) = told.get(name) else { continue };
        let left = DELETION_MAX - now.duration_since(since.0);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                found.pods.insert(name.to_owned(), since.clone());
                found.again = Some(found.again.map_or(left, |again| again.min(left)));
            }
            Ok(_) | Err(_) => found.late.push(pod),
        }
    }
    found
}

fn status(
    budget: &PodDisruptionBudget,
    before: &PodDisruptionBudgetStatus,
    pods: &[&Pod],
    expected: &Expected,
    disrupted: &Disrupted<'_>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let is_healthy = |pod: &&&Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && !disrupted.pods.contains_key(snapshot::name(**pod))
            && owned::is_ready(pod)
    };
    let healthy = i32::try_from(pods.iter().filter(is_healthy).count()).unwrap_or(i32::MAX);
    // A budget whose first pods have not been seen yet allows nothing.
    let spare = if expected.pods > 0 { healthy.saturating_sub(expected.healthy).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: healthy,
        desired_healthy: expected.healthy,
        expected_pods: expected.pods,
        disruptions_allowed: spare,
        disrupted_pods: (!disrupted.pods.is_empty()).then(|| disrupted.pods.clone()),
        observed_generation: budget.metadata.generation,
        conditions: before.conditions.clone(),
    };
    tell_allowed(&mut status, now);
    status
}

/// Since when a pod that is not going is said to be about to.
fn targeted_since(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if pod.metadata.deletion_timestamp.is_some() || is_over {
        return None;
    }
    let told = status.conditions.iter().flatten().find(|one| one.type_ == DISRUPTION_TARGET)?;
    if told.status != "True" || told.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    Some(told.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// A pod that was to go long ago and has not is not going to.
fn take_back(pod: &Pod, now: Timestamp) -> Decision {
    let Some(since) = targeted_since(pod) else { return Decision::default() };
    if let Ok(left) = Duration::try_from(TARGET_MAX - now.duration_since(since))
        && !left.is_zero()
    {
        return Decision::after(left);
    }
    let mut new = pod.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    for one in conditions.iter_mut().filter(|one| one.type_ == DISRUPTION_TARGET) {
        one.status = "False".to_owned();
        (one.reason, one.message) = (None, None);
        one.last_transition_time = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    }
    Decision::act(vec![Action::Update(KindRef::of::<Pod>(), Box::new(new), Some(Subresource::Status))])
}

#[cfg(test)]
mod tests;
