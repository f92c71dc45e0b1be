//! A pod's status as its node sees it, as a pure function (BEHAVIOURS 9.4 to 9.6).

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::lifecycle::{Container, End, Ended, Life, Role, Run, Stop};

pub(crate) const DEADLINE_EXCEEDED: &str = "Pod was active on the node longer than the specified deadline";

/// Conditions that the node sets; others are kept as they are.
const OURS: &[&str] = &[READY_TO_START, INITIALIZED, READY, CONTAINERS_READY, SCHEDULED];
const READY_TO_START: &str = "PodReadyToStartContainers";
const INITIALIZED: &str = "Initialized";
const READY: &str = "Ready";
const CONTAINERS_READY: &str = "ContainersReady";
const SCHEDULED: &str = "PodScheduled";

/// The pod's place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) host: Ipv4Addr,
    /// `None` until the node has accepted the pod.
    pub(crate) pod: Option<Ipv4Addr>,
}

/// Whole seconds, which is all that the API keeps.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).expect("a whole second of a valid time is one"))
}

/// The status of `pod`, whose status until now is in it: times of conditions that have not changed,
/// and conditions that are not the node's, are kept.
#[must_use]
pub(crate) fn build(pod: &Pod, life: &Life, addresses: Addresses, now: Timestamp) -> PodStatus {
    let old = pod.status.as_ref();
    let mut status = PodStatus {
        phase: Some(phase(life).to_owned()),
        conditions: old.and_then(|old| old.conditions.clone()),
        qos_class: old.and_then(|old| old.qos_class.clone()),
        nominated_node_name: old.and_then(|old| old.nominated_node_name.clone()),
        resource_claim_statuses: old.and_then(|old| old.resource_claim_statuses.clone()),
        observed_generation: old.and_then(|old| old.observed_generation),
        resize: old.and_then(|old| old.resize.clone()),
        ..PodStatus::default()
    };
    if let Some(rejection) = &life.rejected {
        status.reason = Some(rejection.reason.clone());
        status.message = Some(format!("Pod was rejected: {}", rejection.message));
        return status;
    }
    if life.stop == Some(Stop::DeadlineExceeded) && life.end.is_some() {
        status.reason = Some("DeadlineExceeded".into());
        status.message = Some(DEADLINE_EXCEEDED.into());
    } else if let Some(old) = old {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    status.start_time = life.accepted_at.map(time);
    status.host_ip = Some(addresses.host.to_string());
    status.host_ips = Some(vec![HostIP { ip: addresses.host.to_string() }]);
    match addresses.pod {
        Some(ip) => {
            status.pod_ip = Some(ip.to_string());
            status.pod_ips = Some(vec![PodIP { ip: ip.to_string() }]);
        }
        None => {
            status.pod_ip = old.and_then(|old| old.pod_ip.clone());
            status.pod_ips = old.and_then(|old| old.pod_ips.clone());
        }
    }
    let statuses = |roles: &[Role]| -> Vec<ContainerStatus> {
        let containers = life.containers.iter().filter(|container| roles.contains(&container.role));
        containers.map(|container| container_status(life, container)).collect()
    };
    let init = statuses(&[Role::Init, Role::Sidecar]);
    let (mut apps, ephemeral) = (statuses(&[Role::App]), statuses(&[Role::Ephemeral]));
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    status.init_container_statuses = Some(init).filter(|init| !init.is_empty());
    status.container_statuses = Some(apps);
    status.ephemeral_container_statuses = Some(ephemeral).filter(|ephemeral| !ephemeral.is_empty());
    set_conditions(pod, life, &mut status, now);
    status
}

/// BEHAVIOURS 9.4.
#[must_use]
pub(crate) fn phase(life: &Life) -> &'static str {
    match life.end {
        Some(End::Succeeded) => "Succeeded",
        Some(End::Failed) => "Failed",
        None if life.apps().all(Container::has_started) => "Running",
        None => "Pending",
    }
}

fn container_status(life: &Life, container: &Container) -> ContainerStatus {
    let (state, last) = states(life, container);
    let done = container.role == Role::Init && container.is_initialized();
    let counts = matches!(container.role, Role::App | Role::Sidecar);
    // Of ephemeral ones nobody asks whether they have come up.
    let is_own = container.role != Role::Ephemeral;
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: container.image_id.clone(),
        container_id: container.container_id.clone(),
        ready: done || (container.is_ready() && counts),
        started: is_own.then(|| container.is_started() && counts),
        restart_count: container.restarts,
        state: Some(state),
        last_state: Some(last.map_or_else(ContainerState::default, |ended| terminated(&ended))),
        ..ContainerStatus::default()
    }
}

/// What a container does and how its run before that ended.
fn states(life: &Life, container: &Container) -> (ContainerState, Option<Ended>) {
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    match (&container.run, &container.waiting, &container.ended) {
        (Run::Running { started_at }, _, ended) => {
            let running = Some(ContainerStateRunning { started_at: Some(time(*started_at)) });
            (ContainerState { running, ..ContainerState::default() }, ended.clone())
        }
        (Run::PostStart { .. }, why, ended) => {
            let state = match why {
                Some(why) => waiting(why.reason, Some(why.message.clone())),
                None => waiting("ContainerCreating", None),
            };
            (state, ended.clone())
        }
        (Run::Idle | Run::Starting, Some(why), ended) if life.end.is_none() => {
            (waiting(why.reason, Some(why.message.clone())), ended.clone())
        }
        // Kubernetes takes a container that has terminated under the policy Never for gone for good.
        (Run::Idle | Run::Starting, None, Some(ended)) if container.replaced && life.end.is_none() => {
            (waiting("ContainerCreating", None), Some(ended.clone()))
        }
        (Run::Idle | Run::Starting, _, Some(ended)) => (terminated(ended), container.previous.clone()),
        (Run::Idle | Run::Starting, _, None)
            if life.end.is_some() && life.is_initialized() && container.role != Role::Ephemeral =>
        {
            let unknown = Ended {
                exit_code: 137,
                reason: "ContainerStatusUnknown".into(),
                message: Some("The container could not be located when the pod was terminated".into()),
                ..Ended::default()
            };
            (terminated(&unknown), None)
        }
        (Run::Idle | Run::Starting, Some(why), None) => {
            (waiting(why.reason, Some(why.message.clone())), None)
        }
        (Run::Idle | Run::Starting, None, None) if life.has_init() => {
            (waiting("PodInitializing", None), None)
        }
        (Run::Idle | Run::Starting, None, None) => (waiting("ContainerCreating", None), None),
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit_code,
            reason: Some(ended.reason.clone()),
            message: ended.message.clone(),
            started_at: ended.started_at.map(time),
            finished_at: ended.finished_at.map(time),
            container_id: ended.container_id.clone(),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// A condition's status, reason and message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn holds() -> Self {
        Self { holds: true, ..Self::default() }
    }

    fn fails(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

fn set_conditions(pod: &Pod, life: &Life, status: &mut PodStatus, now: Timestamp) {
    let old = status.conditions.take().unwrap_or_default();
    let containers_ready = containers_ready(life, status);
    let ready = ready(pod, &containers_ready, &old);
    let sandbox = Verdict { holds: life.end.is_none() && life.accepted_at.is_some(), ..Verdict::default() };
    let verdicts = [
        (READY_TO_START, sandbox),
        (INITIALIZED, initialized(life)),
        (READY, ready),
        (CONTAINERS_READY, containers_ready),
        (SCHEDULED, Verdict::holds()),
    ];
    let mut conditions: Vec<PodCondition> = Vec::with_capacity(old.len().max(verdicts.len()));
    for (type_, verdict) in verdicts {
        let before = old.iter().find(|condition| condition.type_ == type_);
        let word = if verdict.holds { "True" } else { "False" };
        let unchanged = before.filter(|condition| condition.status == word);
        conditions.push(PodCondition {
            type_: type_.to_owned(),
            status: word.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_transition_time: unchanged
                .and_then(|condition| condition.last_transition_time.clone())
                .or_else(|| Some(time(now))),
            last_probe_time: before.and_then(|condition| condition.last_probe_time.clone()),
            observed_generation: before.and_then(|condition| condition.observed_generation),
        });
    }
    conditions.extend(old.into_iter().filter(|condition| !OURS.contains(&condition.type_.as_str())));
    status.conditions = Some(conditions);
}

/// Names as Go prints a list: `[a b]`.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", names.collect::<Vec<_>>().join(" "))
}

fn initialized(life: &Life) -> Verdict {
    if life.end == Some(End::Succeeded) {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    if life.is_initialized() {
        return Verdict::holds();
    }
    let incomplete = life.containers.iter().filter(|container| !container.is_initialized());
    let names = listed(incomplete.map(|container| container.name.as_str()));
    Verdict::fails("ContainersNotInitialized", Some(format!("containers with incomplete status: {names}")))
}

fn containers_ready(life: &Life, status: &PodStatus) -> Verdict {
    match life.end {
        Some(End::Succeeded) => return Verdict::fails("PodCompleted", None),
        Some(End::Failed) => return Verdict::fails("PodFailed", None),
        None => {}
    }
    let ready = |name: &str| {
        let init = status.init_container_statuses.iter().flatten();
        let apps = status.container_statuses.iter().flatten();
        init.chain(apps).any(|status| status.name == name && status.ready)
    };
    let counts = |container: &&Container| matches!(container.role, Role::App | Role::Sidecar);
    let counted = life.containers.iter().filter(counts);
    let mut unready = counted.map(|container| container.name.as_str()).filter(|name| !ready(name)).peekable();
    if unready.peek().is_none() {
        return Verdict::holds();
    }
    let names = listed(unready);
    Verdict::fails("ContainersNotReady", Some(format!("containers with unready status: {names}")))
}

fn ready(pod: &Pod, containers_ready: &Verdict, conditions: &[PodCondition]) -> Verdict {
    if !containers_ready.holds {
        return containers_ready.clone();
    }
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let missing: Vec<String> = gates
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *name) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {name:?} does not exist."))
                }
                Some(condition) if condition.status == "True" => None,
                Some(condition) => Some(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    condition.status
                )),
            }
        })
        .collect();
    if missing.is_empty() {
        Verdict::holds()
    } else {
        Verdict::fails("ReadinessGatesNotReady", Some(missing.join(", ")))
    }
}

#[cfg(test)]
mod tests;
