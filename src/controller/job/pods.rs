//! What a Job's pods say about themselves.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::controller::{eligibility, owned};
use crate::kind::job::{COMPLETION_INDEX, INDEXED, TRACKING_FINALIZER, mode};

/// Times that a pod for the same index failed before, on the pod that replaces it.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// As [`INDEX_FAILURES`], of failures that the policy ignores; they count for the back-off only.
pub(super) const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The Job that controls an object.
pub(super) fn controlling_job(pod: &Pod) -> Option<&OwnerReference> {
    owned::controller_of(&pod.metadata).filter(|owner| owner.kind == "Job" && owner.api_version == "batch/v1")
}

/// Whether the pod waits to be counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|one| one == TRACKING_FINALIZER)
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(super) fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(super) fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The node that the pod is on or pinned to.
pub(super) fn meant_for(pod: &Pod) -> Option<&str> {
    eligibility::target(pod)
}

/// The completion index that the pod is for.
pub(super) fn index(pod: &Pod) -> Option<u32> {
    annotation(pod, COMPLETION_INDEX)?.parse().ok()
}

/// An index that the Job has.
pub(super) fn valid_index(pod: &Pod, spec: &JobSpec) -> Option<u32> {
    let completions = u32::try_from(spec.completions.unwrap_or_default()).unwrap_or_default();
    index(pod).filter(|index| *index < completions)
}

/// Whether the pod stands for something of the Job: of an Indexed one, for an index it has.
pub(super) fn is_valid(pod: &Pod, spec: &JobSpec) -> bool {
    mode(spec) != INDEXED || valid_index(pod, spec).is_some()
}

fn number(pod: &Pod, name: &str) -> i32 {
    annotation(pod, name).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Counted failures for the index before this pod.
pub(super) fn index_failures(pod: &Pod) -> i32 {
    number(pod, INDEX_FAILURES)
}

pub(super) fn index_ignored_failures(pod: &Pod) -> i32 {
    number(pod, INDEX_IGNORED_FAILURES)
}

/// Whether a pod is replaced only once it has Failed, not as soon as it is told to go.
pub(super) fn replaces_only_failed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
    })
}

/// Whether the pod is taken to have failed: a pod that goes before its end counts as such, unless one
/// has to wait for its end. One without a node has nobody to say how it ended.
pub(super) fn has_failed(pod: &Pod, job: &Job) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => is_going(pod) && (!replaces_only_failed(job) || node(pod).is_none()),
    }
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Every container's status: of the ordinary ones first.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let apps = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    let inits = status.into_iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    apps.chain(inits)
}

/// How often the pod's containers were started again.
pub(super) fn restarts(pod: &Pod) -> i32 {
    containers(pod).map(|container| container.restart_count).sum()
}

/// When the pod ended, as well as can be known: by its containers, else since it is not ready, else
/// when it was told to go (upstream `getFinishedTime`).
pub(super) fn ended_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let apps = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ends: Option<Vec<Timestamp>> = apps
        .iter()
        .map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            ended.finished_at.as_ref().map(|time| time.0)
        })
        .collect();
    if let Some(last) = ends.and_then(|ends| ends.into_iter().max()) {
        return last;
    }
    if let Some(since) = condition(pod, "Ready")
        .filter(|ready| ready.status == "False")
        .and_then(|ready| ready.last_transition_time.as_ref())
    {
        return since.0;
    }
    if let Some(at) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        return at.0 - jiff::SignedDuration::from_secs(grace);
    }
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Those to go first come first: without a node, not yet running, not ready, ready for the shortest
/// time, restarted most, youngest (upstream `ActivePods`).
pub(super) fn rank(pod: &Pod) -> impl Ord + use<> {
    let phase = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let ready_since = condition(pod, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| ready.last_transition_time.as_ref().map(|time| time.0));
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        node(pod).is_some(),
        phase,
        is_ready(pod),
        std::cmp::Reverse(ready_since),
        std::cmp::Reverse(restarts(pod)),
        std::cmp::Reverse(created),
        pod.metadata.name.clone(),
    )
}

/// Labels, which a pod may have none of.
pub(super) fn labels(pod: &Pod) -> Option<&BTreeMap<String, String>> {
    pod.metadata.labels.as_ref()
}
