//! What about a pod decides where it may run. Pods of one template share one shape, so that work
//! done for the first serves the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorTerm, Pod, PodSpec, PreferredSchedulingTerm, Toleration,
    TopologySpreadConstraint,
};
use serde::Serialize;

use super::filter::Memo;
use super::resources::Requests;

/// The label that names a node; the one label that differs on every node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// A port that a container wants on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostPort {
    pub protocol: String,
    pub port: i32,
    /// `0.0.0.0` is every address.
    pub ip: String,
}

impl HostPort {
    /// Whether both cannot be on one node (BEHAVIOURS 15.3).
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// The requirements of pods that the scheduler need not tell apart.
#[derive(Debug, Default, Serialize)]
pub struct Shape {
    pub requests: Requests,
    pub ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Affinity,
    pub spread: Vec<TopologySpreadConstraint>,
    /// The pod may not push others out; only the message of a failure tells.
    pub never_preempts: bool,
    /// Namespace and labels, if the affinity or spread terms depend on them.
    pub identity: Option<(String, BTreeMap<String, String>)>,
    /// What was found out about the shape before.
    #[serde(skip)]
    pub memo: Mutex<Memo>,
}

impl Shape {
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let affinity = spec.affinity.clone().unwrap_or_default();
        let spread = spec.topology_spread_constraints.clone().unwrap_or_default();
        let looks_at_pods =
            affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some() || !spread.is_empty();
        Self {
            requests: Requests::of(spec),
            ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            identity: looks_at_pods.then(|| {
                let meta = &pod.metadata;
                (meta.namespace.clone().unwrap_or_default(), meta.labels.clone().unwrap_or_default())
            }),
            memo: Mutex::default(),
            affinity,
            spread,
        }
    }

    /// Equal for equal shapes.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("API types have string keys only")
    }

    #[must_use]
    pub fn required_nodes(&self) -> Option<&NodeSelector> {
        self.affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    }

    #[must_use]
    pub fn preferred_nodes(&self) -> &[PreferredSchedulingTerm] {
        let preferred =
            self.affinity.node_affinity.as_ref().and_then(|affinity| {
                affinity.preferred_during_scheduling_ignored_during_execution.as_deref()
            });
        preferred.unwrap_or_default()
    }

    /// Whether nodes must be judged one by one, because their names matter.
    #[must_use]
    pub fn names_nodes(&self) -> bool {
        self.node_selector.contains_key(HOSTNAME)
            || self.required_nodes().is_some_and(|required| required.node_selector_terms.iter().any(names))
            || self.preferred_nodes().iter().any(|term| names(&term.preference))
    }

    /// The nodes that can match, if required terms name them; others need not be looked at.
    #[must_use]
    pub fn pins(&self) -> Option<Pins> {
        if let Some(hostname) = self.node_selector.get(HOSTNAME) {
            return Some(Pins { hostnames: BTreeSet::from([hostname.clone()]), ..Pins::default() });
        }
        let mut pins = Pins { by_field_alone: true, ..Pins::default() };
        for term in &self.required_nodes()?.node_selector_terms {
            let fields = one_of(term.match_fields.as_deref(), "metadata.name");
            let hostnames = one_of(term.match_expressions.as_deref(), HOSTNAME);
            match (fields, hostnames) {
                (Some(names), _) => pins.names.extend(names),
                (None, Some(hostnames)) => {
                    pins.by_field_alone = false;
                    pins.hostnames.extend(hostnames);
                }
                (None, None) => return None,
            }
        }
        Some(pins)
    }
}

/// Nodes named by required terms.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pins {
    pub hostnames: BTreeSet<String>,
    pub names: BTreeSet<String>,
    /// All are named by `matchFields`: how a daemon set's pods are pinned.
    pub by_field_alone: bool,
}

fn names(term: &NodeSelectorTerm) -> bool {
    term.match_fields.as_ref().is_some_and(|fields| !fields.is_empty())
        || term.match_expressions.iter().flatten().any(|expression| expression.key == HOSTNAME)
}

/// The values of an `In` on `key`.
fn one_of(
    expressions: Option<&[k8s_openapi::api::core::v1::NodeSelectorRequirement]>,
    key: &str,
) -> Option<Vec<String>> {
    expressions?
        .iter()
        .find(|expression| expression.key == key && expression.operator == "In")
        .map(|expression| expression.values.clone().unwrap_or_default())
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    // Init containers hold ports beside the others only if they keep running.
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.host_port.filter(|port| *port > 0)?,
                ip: ip.to_owned(),
            })
        })
        .collect()
}

/// Which pods should not crowd on one node: those of one controller, else those labelled alike.
#[must_use]
pub fn group(pod: &Pod) -> Option<String> {
    let meta = &pod.metadata;
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    if let Some(owner) = owner {
        return Some(owner.uid.clone());
    }
    let labels = meta.labels.as_ref().filter(|labels| !labels.is_empty())?;
    let mut group = meta.namespace.clone().unwrap_or_default();
    for (key, value) in labels {
        group.extend(["\0", key, "=", value]);
    }
    Some(group)
}
