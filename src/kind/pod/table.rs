//! kubectl's view of a pod (BEHAVIOURS 6.2, 6.3; upstream `printPod`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus,
};

use super::{is_sidecar, list, text};
use crate::kind::table::{self, Cell, Column, column, human_duration};

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    Column {
        description: "The aggregate readiness state of this pod for accepting traffic.",
        ..column("Ready", "string", 0)
    },
    Column {
        description: "The aggregate status of the containers in this pod.",
        ..column("Status", "string", 0)
    },
    Column {
        description: "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ..column("Restarts", "string", 0)
    },
    table::AGE,
    Column {
        description: "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        ..column("IP", "string", 1)
    },
    Column {
        description: "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        ..column("Node", "string", 1)
    },
    Column {
        description: "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
        ..column("Nominated Node", "string", 1)
    },
    Column {
        description: "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        ..column("Readiness Gates", "string", 1)
    },
];

pub(super) fn cells(pod: &Pod, now: Timestamp) -> Vec<Cell> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let summary = Summary::of(pod, spec, status);
    let sidecars = list(&spec.init_containers).iter().filter(|init| is_sidecar(init)).count();
    let total = spec.containers.len() + sidecars;
    let address = list(&status.pod_ips).first().map_or("", |first| first.ip.as_str());
    vec![
        table::name(pod),
        Cell::Text(format!("{}/{total}", summary.ready)),
        Cell::Text(summary.reason),
        Cell::Text(summary.restarts.text(now)),
        table::age(pod, now),
        Cell::or_none(address),
        Cell::or_none(text(&spec.node_name)),
        Cell::or_none(text(&status.nominated_node_name)),
        Cell::or_none(&readiness_gates(spec, status)),
    ]
}

/// How often containers were restarted, and when the last of them had ended.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count = self.count.saturating_add(status.restart_count);
        let ended = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let ended = ended.and_then(|ended| ended.finished_at.as_ref()).map(|time| time.0);
        self.last = self.last.max(ended);
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, human_duration(now.duration_since(last).as_secs()))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Self {
        let reason = Some(text(&status.reason)).filter(|reason| !reason.is_empty());
        let mut summary = Self {
            ready: 0,
            reason: reason.unwrap_or(text(&status.phase)).to_owned(),
            restarts: Restarts::default(),
        };
        let conditions = list(&status.conditions);
        let gated = |reason: &Option<String>| text(reason) == "SchedulingGated";
        if conditions.iter().any(|one| one.type_ == "PodScheduled" && gated(&one.reason)) {
            summary.reason = "SchedulingGated".to_owned();
        }
        let is_true = |which: &str| conditions.iter().any(|one| one.type_ == which && one.status == "True");

        let (initializing, sidecar_restarts) = summary.add_init_containers(spec, status);
        if !initializing || is_true("Initialized") {
            summary.restarts = sidecar_restarts;
            summary.add_containers(list(&status.container_statuses), is_true("Ready"));
        }

        let finished = matches!(text(&status.phase), "Succeeded" | "Failed");
        if pod.metadata.deletion_timestamp.is_some() {
            if text(&status.reason) == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !finished {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Up to the first that is not done; whether there is one, and the restarts of sidecars alone.
    fn add_init_containers(&mut self, spec: &PodSpec, status: &PodStatus) -> (bool, Restarts) {
        let inits = list(&spec.init_containers);
        let mut of_sidecars = Restarts::default();
        for (i, container) in list(&status.init_container_statuses).iter().enumerate() {
            let sidecar = inits.iter().any(|init| init.name == container.name && is_sidecar(init));
            self.restarts.add(container);
            if sidecar {
                of_sidecars.add(container);
            }
            let state = container.state.clone().unwrap_or_default();
            match state {
                ContainerState { terminated: Some(end), .. } if end.exit_code == 0 => continue,
                _ if sidecar && container.started == Some(true) => {
                    self.ready += usize::from(container.ready);
                    continue;
                }
                ContainerState { terminated: Some(end), .. } => {
                    self.reason = format!("Init:{}", end_reason(&end));
                }
                ContainerState { waiting: Some(waiting), .. }
                    if !matches!(text(&waiting.reason), "" | "PodInitializing") =>
                {
                    self.reason = format!("Init:{}", text(&waiting.reason));
                }
                _ => self.reason = format!("Init:{i}/{}", inits.len()),
            }
            return (true, of_sidecars);
        }
        (false, of_sidecars)
    }

    /// The last reason to be found wins, looking from the last container to the first.
    fn add_containers(&mut self, statuses: &[ContainerStatus], pod_ready: bool) {
        let mut running = false;
        for container in statuses.iter().rev() {
            self.restarts.add(container);
            let state = container.state.clone().unwrap_or_default();
            match state {
                ContainerState { waiting: Some(waiting), .. } if !text(&waiting.reason).is_empty() => {
                    self.reason = text(&waiting.reason).to_owned();
                }
                ContainerState { terminated: Some(end), .. } => self.reason = end_reason(&end),
                ContainerState { running: Some(_), .. } if container.ready => {
                    running = true;
                    self.ready += 1;
                }
                _ => {}
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if pod_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn end_reason(end: &ContainerStateTerminated) -> String {
    match (text(&end.reason), end.signal.unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", end.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = list(&spec.readiness_gates);
    if gates.is_empty() {
        return String::new();
    }
    let is_open = |gate: &str| {
        let condition = list(&status.conditions).iter().find(|one| one.type_ == gate);
        condition.is_some_and(|condition| condition.status == "True")
    };
    let open = gates.iter().filter(|gate| is_open(&gate.condition_type)).count();
    format!("{open}/{}", gates.len())
}
