//! How a rollout goes: the status of a deployment and its conditions (upstream `progress.go`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::sizes::Limits;
use super::{available, replicas, there};
use crate::controller::snapshot;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
const CREATED: &str = "NewReplicaSetCreated";
pub(super) const NOT_CREATED: &str = "ReplicaSetCreateError";
const FOUND: &str = "FoundNewReplicaSet";
const UPDATED: &str = "ReplicaSetUpdated";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The conditions of a status while they are worked out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conditions(Vec<DeploymentCondition>);

impl Conditions {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let status = deployment.status.as_ref();
        Self(status.and_then(|status| status.conditions.clone()).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&DeploymentCondition> {
        self.0.iter().find(|one| one.type_ == name)
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|one| one.type_ != name);
    }

    /// Sets a condition, unless it has this status and reason already.
    fn set(&mut self, name: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
        let before = self.get(name);
        if before.is_some_and(|one| one.status == status && one.reason.as_deref() == Some(reason)) {
            return;
        }
        self.replace(name, status, reason, message, now);
    }

    /// Sets a condition as of now; its transition stays where the status does.
    fn replace(&mut self, name: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
        // Times of conditions are whole seconds.
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let since = self.get(name).filter(|one| one.status == status);
        let since = since.and_then(|one| one.last_transition_time.clone());
        self.remove(name);
        self.0.push(DeploymentCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or_else(|| Some(now.clone())),
            last_update_time: Some(now),
        });
    }

    /// While it is paused, no lack of progress is held against a deployment.
    pub(super) fn note_pause(&mut self, paused: bool, now: Timestamp) {
        let reason = self.get(PROGRESSING).and_then(|one| one.reason.as_deref());
        let was_paused = reason == Some(PAUSED);
        if reason == Some(TIMED_OUT) || paused == was_paused {
            return;
        }
        let (reason, message) =
            if paused { (PAUSED, "Deployment is paused") } else { (RESUMED, "Deployment is resumed") };
        self.set(PROGRESSING, "Unknown", reason, message, now);
    }

    pub(super) fn note_created(&mut self, set: &str, now: Timestamp) {
        self.set(PROGRESSING, "True", CREATED, &format!("Created new replica set {set:?}"), now);
    }

    pub(super) fn note_not_created(&mut self, message: &str, now: Timestamp) {
        self.set(PROGRESSING, "False", NOT_CREATED, message, now);
    }

    /// Puts them into a status; returns whether that changed it.
    pub(super) fn write(self, status: &mut DeploymentStatus) -> bool {
        let changed = status.conditions.as_ref().is_none_or(|before| *before != self.0);
        status.conditions = Some(self.0);
        changed
    }

    pub(super) fn note_found(&mut self, set: &str, now: Timestamp) {
        if self.get(PROGRESSING).is_none() {
            self.set(PROGRESSING, "True", FOUND, &format!("Found new replica set {set:?}"), now);
        }
    }
}

/// What a status is worked out from.
pub(super) struct Facts<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) limits: &'a Limits,
    pub(super) sets: &'a [&'a ReplicaSet],
    pub(super) new: Option<&'a ReplicaSet>,
    pub(super) collisions: Option<i32>,
    /// Seconds, if there is one.
    pub(super) deadline: Option<i32>,
    /// The conditions of the rollout are not to be judged now.
    pub(super) counts_only: bool,
    pub(super) now: Timestamp,
    pub(super) conditions: Conditions,
}

/// The status as it is now.
pub(super) fn status(facts: &Facts<'_>) -> DeploymentStatus {
    let Facts { deployment, sets, new, limits, now, .. } = *facts;
    let sum = |count: fn(&ReplicaSet) -> i32| sets.iter().map(|set| count(set)).sum::<i32>();
    let nonzero = |count: i32| (count != 0).then_some(count);
    let available = sum(available);
    let mut conditions = facts.conditions.clone();
    if available >= limits.replicas - limits.unavailable {
        let message = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now);
    }
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(there)),
        updated_replicas: nonzero(new.map_or(0, there)),
        ready_replicas: nonzero(sum(|set| {
            set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
        })),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((sum(replicas) - available).max(0)),
        collision_count: facts.collisions,
        conditions: None,
        terminating_replicas: None,
    };
    if !facts.counts_only {
        judge(facts, &status, &mut conditions);
    }
    status.conditions = Some(conditions.0);
    status
}

fn judge(facts: &Facts<'_>, status: &DeploymentStatus, conditions: &mut Conditions) {
    let Facts { deployment, new, now, .. } = *facts;
    let subject = match new {
        Some(set) => format!("ReplicaSet {:?}", snapshot::name(set)),
        None => format!("Deployment {:?}", snapshot::name(deployment)),
    };
    if let Some(deadline) = facts.deadline {
        let current = conditions.get(PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|one| one.reason.as_deref());
        // What was complete once stays so, whatever becomes of pods, until there is a new template.
        let is_over = status.replicas == status.updated_replicas && reason == Some(NEW_AVAILABLE);
        if is_over {
            // Nothing is asked of it.
        } else if is_complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            conditions.set(PROGRESSING, "True", NEW_AVAILABLE, &message, now);
        } else if is_progressing(deployment, status) {
            let message = format!("{subject} is progressing.");
            conditions.replace(PROGRESSING, "True", UPDATED, &message, now);
        } else if current.is_some_and(|current| is_timed_out(&current, deadline, now)) {
            let message = format!("{subject} has timed out progressing.");
            conditions.set(PROGRESSING, "False", TIMED_OUT, &message, now);
        }
    } else {
        conditions.remove(PROGRESSING);
    }
    let failure = |set: &ReplicaSet| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|one| one.type_ == REPLICA_FAILURE).cloned()
    };
    match new.and_then(failure).or_else(|| facts.sets.iter().find_map(|set| failure(set))) {
        Some(found) => {
            let (reason, message) = (found.reason.unwrap_or_default(), found.message.unwrap_or_default());
            conditions.set(REPLICA_FAILURE, &found.status, &reason, &message, now);
        }
        None => conditions.remove(REPLICA_FAILURE),
    }
}

/// Everything is of the new template, and there.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
    let is_all = |count: Option<i32>| count.unwrap_or_default() == wanted;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

/// More of the new, or fewer of the old, than there were.
fn is_progressing(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let before = deployment.status.clone().unwrap_or_default();
    let count = Option::unwrap_or_default;
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(status.updated_replicas) > count(before.updated_replicas)
        || old(status) < old(&before)
        || count(status.ready_replicas) > count(before.ready_replicas)
        || count(status.available_replicas) > count(before.available_replicas)
}

fn due(current: &DeploymentCondition, deadline: i32) -> Option<Timestamp> {
    let since = current.last_update_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(deadline.into())).ok()
}

fn is_timed_out(current: &DeploymentCondition, deadline: i32, now: Timestamp) -> bool {
    match current.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => due(current, deadline).is_some_and(|due| due < now),
    }
}

/// How long until lack of progress must be looked for.
pub(super) fn next_look(
    deployment: &Deployment,
    status: &DeploymentStatus,
    spec: &DeploymentSpec,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    let current = status.conditions.iter().flatten().find(|one| one.type_ == PROGRESSING)?;
    let is_settled = matches!(current.reason.as_deref(), Some(TIMED_OUT | PAUSED | NEW_AVAILABLE));
    if is_settled || is_complete(deployment, status) || spec.paused == Some(true) {
        return None;
    }
    let left = Duration::try_from(due(current, deadline)?.duration_since(now)).unwrap_or_default();
    Some(left + super::DEADLINE_SLACK)
}
