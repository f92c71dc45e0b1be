//! Node: a place where pods run (BEHAVIOURS 17).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};

use super::field::{Errors, FieldError, Path};
use super::resources::{canonicalize, validate_amount};
use super::table::{self, Cell};
use super::validation::{choice, each, label_value, qualified_name};
use super::{Kind, Strategy, Subresource, network};

/// The label that says what runs a node's pods.
pub const RUNTIME: &str = "coracle.dev/runtime";
/// The node runs code.
pub const RUNTIME_WASM: &str = "wasm";

pub static KIND: Kind = Kind {
    short_names: &["no"],
    subresources: &[Subresource::Status, Subresource::Proxy],
    columns: &[
        table::NAME,
        table::described("Status", "string", 0, "The status of the node"),
        table::described("Roles", "string", 0, "The roles of the node"),
        table::AGE,
        table::described("Version", "string", 0, "Kubelet Version reported by the node."),
        table::described("Internal-IP", "string", 1, ADDRESSES),
        table::described("External-IP", "string", 1, ADDRESSES),
        table::described(
            "OS-Image",
            "string",
            1,
            "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
        ),
        table::described(
            "Kernel-Version",
            "string",
            1,
            "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
        ),
        table::described(
            "Container-Runtime",
            "string",
            1,
            "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
        ),
    ],
    ..Kind::cluster(&Rules, "node")
};

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";

/// What follows this in a label's key is a role of the node.
const ROLE_LABEL_PREFIX: &str = "node-role.kubernetes.io/";
/// The older label, whose value is the role.
const ROLE_LABEL: &str = "kubernetes.io/role";

struct Rules;

impl Strategy for Rules {
    type Object = Node;

    fn set_defaults(&self, node: &mut Node) {
        if let Some(spec) = &mut node.spec {
            // Kubernetes does not write `false` here, so that an uncordoned node equals a new one.
            spec.unschedulable = spec.unschedulable.filter(|&is| is);
            pair_cidrs(spec);
        }
        if let Some(status) = &mut node.status {
            canonicalize(&mut status.capacity);
            canonicalize(&mut status.allocatable);
            if status.allocatable.is_none() {
                status.allocatable.clone_from(&status.capacity);
            }
        }
    }

    // On create a node may bring its status: its kubelet registers it complete.

    fn prepare_update(&self, new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, node: &Node, errors: &mut Errors) {
        let spec = spec(node);
        // The path is upstream's, though the field is `spec.taints`.
        validate_taints(spec.taints.as_deref().unwrap_or_default(), &Path::new("metadata.taints"), errors);
        validate_resources(node, errors);
        let path = Path::new("spec.podCIDRs");
        for (i, range) in spec.pod_cidrs.iter().flatten().enumerate() {
            network::cidr(&path.index(i), range, errors);
        }
    }

    fn validate_update(&self, new: &Node, old: &Node, errors: &mut Errors) {
        validate_addresses(new, errors);
        let (new, old) = (spec(new), spec(old));
        let path = Path::new("spec");
        let cidrs = |spec: &NodeSpec| spec.pod_cidrs.clone().unwrap_or_default();
        if !cidrs(&old).is_empty() && cidrs(&new) != cidrs(&old) {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&path.child("podCIDRs"), why);
        }
        let provider = |spec: &NodeSpec| spec.provider_id.clone().unwrap_or_default();
        if !provider(&old).is_empty() && provider(&new) != provider(&old) {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&path.child("providerID"), why);
        }
        if new.external_id.unwrap_or_default() != old.external_id.unwrap_or_default() {
            errors.forbidden(&path.child("externalID"), "may not be updated");
        }
    }

    fn validate_status_update(&self, new: &Node, _old: &Node, errors: &mut Errors) {
        validate_resources(new, errors);
        validate_addresses(new, errors);
    }

    fn fields(&self, node: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_unschedulable(node).to_string())]
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Cell> {
        let info = node.status.as_ref().and_then(|status| status.node_info.clone()).unwrap_or_default();
        let or_unknown =
            |text: String| Cell::Text(if text.is_empty() { "<unknown>".to_owned() } else { text });
        vec![
            table::name(node),
            Cell::Text(summary(node)),
            Cell::or_none(&roles(node)),
            table::age(node, now),
            Cell::Text(info.kubelet_version),
            Cell::or_none(address(node, "InternalIP")),
            Cell::or_none(address(node, "ExternalIP")),
            or_unknown(info.os_image),
            or_unknown(info.kernel_version),
            or_unknown(info.container_runtime_version),
        ]
    }
}

/// Whether the node is cordoned.
#[must_use]
pub fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default()
}

/// Whether the node's `Ready` condition is `True`.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|status| status == "True")
}

/// The first address of a type, such as `InternalIP`; empty without one.
#[must_use]
pub fn address<'a>(node: &'a Node, address_type: &str) -> &'a str {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter(|one| one.type_ == address_type).map(|one| one.address.as_str()).next().unwrap_or_default()
}

fn ready(node: &Node) -> Option<&str> {
    let all = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.filter(|one| one.type_ == "Ready").map(|one| one.status.as_str()).next_back()
}

/// `Ready,SchedulingDisabled`
fn summary(node: &Node) -> String {
    let ready = match ready(node) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if is_unschedulable(node) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Node) -> String {
    let role = |(key, value): (&String, &String)| {
        let role = if key == ROLE_LABEL { value.as_str() } else { key.strip_prefix(ROLE_LABEL_PREFIX)? };
        Some(role.to_owned()).filter(|role| !role.is_empty())
    };
    let roles: BTreeSet<String> = node.metadata.labels.iter().flatten().filter_map(role).collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn spec(node: &Node) -> NodeSpec {
    node.spec.clone().unwrap_or_default()
}

/// `podCIDR` is the first of `podCIDRs`; clients may write either.
fn pair_cidrs(spec: &mut NodeSpec) {
    match (&mut spec.pod_cidr, &mut spec.pod_cidrs) {
        (Some(one), all) if !one.is_empty() && all.as_ref().is_none_or(Vec::is_empty) => {
            *all = Some(vec![one.clone()]);
        }
        (one, Some(all)) if !all.is_empty() => *one = all.first().cloned(),
        _ => {}
    }
}

fn validate_taints(taints: &[Taint], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        each(errors, &path.child("key"), &taint.key, qualified_name(&taint.key));
        let value = taint.value.as_deref().unwrap_or_default();
        let wrong = label_value(value);
        if !wrong.is_empty() {
            errors.invalid(&path.child("value"), value, &wrong.join(";"));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        choice(errors, &path.child("effect"), &taint.effect, &effects);
        if !seen.insert((&taint.key, &taint.effect)) {
            let taint = serde_json::to_string(taint).unwrap_or_default();
            errors.0.push(FieldError {
                field: path.to_string(),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {taint}: taints must be unique by key and effect pair"),
            });
        }
    }
}

fn validate_resources(node: &Node, errors: &mut Errors) {
    let Some(NodeStatus { capacity, allocatable, .. }) = &node.status else { return };
    for (name, amounts) in [("capacity", capacity), ("allocatable", allocatable)] {
        for (resource, amount) in amounts.iter().flatten() {
            validate_amount(errors, &Path::new("status").child(name).child(resource), resource, amount);
        }
    }
}

fn validate_addresses(node: &Node, errors: &mut Errors) {
    let path = Path::new("status.addresses");
    let mut seen = BTreeSet::new();
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    for (i, one) in all.enumerate() {
        if !seen.insert((&one.type_, &one.address)) {
            errors.duplicate(&path.index(i), one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use crate::kind::testing::lines;
    use serde_json::json;

    const NODE: Fixture = Fixture { kind: &KIND, base: || json!({"metadata": {"name": "n1"}}) };

    #[test]
    fn taints_are_known_and_different() {
        let soft = json!({"key": "a", "effect": "PreferNoSchedule"});
        let hard = json!({"key": "a", "value": "b", "effect": "NoSchedule"});
        NODE.valid(json!({"spec": {"taints": [soft, hard]}}), &[]);
        NODE.valid(json!({"spec": {"taints": [soft, soft]}}), &[
            "metadata.taints[1]: Duplicate value: {\"effect\":\"PreferNoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
        ]);
        NODE.valid(json!({"spec": {"taints": [{"key": "a", "effect": ""}, {"key": "a", "effect": "No"}]}}), &[
            "metadata.taints[0].effect: Required value",
            "metadata.taints[1].effect: Unsupported value: \"No\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ]);
    }

    #[test]
    fn a_node_brings_its_status_and_updates_do_not() {
        let status = json!({"status": {"capacity": {"cpu": "2"}}});
        let value = NODE.created(json!({"status": {"capacity": {"memory": "1024Mi"}}})).to_value();
        assert_eq!(value["status"], json!({"allocatable": {"memory": "1Gi"}, "capacity": {"memory": "1Gi"}}));
        let (new, _) = NODE.updated(
            status.clone(),
            json!({"spec": {"unschedulable": true}, "status": {"capacity": {"cpu": "3"}}}),
        );
        assert_eq!(new.to_value()["status"]["capacity"]["cpu"], "2");
        assert_eq!(new.to_value()["spec"]["unschedulable"], true);
        let new = NODE.status_updated(
            status,
            json!({"spec": {"unschedulable": true}, "status": {"capacity": {"cpu": "3"}}}),
        );
        assert_eq!(new.to_value()["status"]["capacity"]["cpu"], "3");
        assert_eq!(new.to_value().get("spec"), None);
    }

    #[test]
    fn amounts_and_addresses_make_sense() {
        NODE.valid(
            json!({"status": {"capacity": {"cpu": "-1"}, "allocatable": {"memory": "1Gi"}}}),
            &["status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        let address = json!({"type": "InternalIP", "address": "127.64.0.1"});
        let twice = NODE.object(json!({"status": {"addresses": [address, address]}}));
        assert_eq!(
            lines(&KIND.strategy.validate_status_update(&*twice, &*twice)),
            ["status.addresses[1]: Duplicate value: {\"address\":\"127.64.0.1\",\"type\":\"InternalIP\"}"]
        );
    }

    #[test]
    fn identity_is_set_once() {
        NODE.update(json!({}), json!({"spec": {"podCIDR": "10.0.0.0/24", "providerID": "a://1"}}), &[]);
        NODE.update(
            json!({"spec": {"podCIDR": "10.0.0.0/24", "providerID": "a://1"}}),
            json!({"spec": {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24"], "providerID": "a://2"}}),
            &[
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            ],
        );
        NODE.valid(json!({"spec": {"podCIDR": "10.0.0.0"}}), &[
            "spec.podCIDRs[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ]);
    }

    #[test]
    fn tables_sum_a_node_up() {
        let ready = |status| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let unknown = "<unknown>";
        let row =
            |status| ["n1", status, "<none>", unknown, "", "<none>", "<none>", unknown, unknown, unknown];
        NODE.cells(json!({}), &row("Unknown"));
        NODE.cells(ready("True"), &row("Ready"));
        NODE.cells(ready("False"), &row("NotReady"));
        NODE.cells(ready("Unknown"), &row("NotReady"));
        NODE.cells(
            json!({
                "metadata": {
                    "creationTimestamp": "1970-01-01T00:59:00Z",
                    "labels": {
                        "kubernetes.io/role": "worker", "node-role.kubernetes.io/control-plane": "",
                        "node-role.kubernetes.io/": "",
                    },
                },
                "spec": {"unschedulable": true},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "127.64.0.1"}],
                    "nodeInfo": {"kubeletVersion": "v1.32.0", "osImage": "Linux", "kernelVersion": "6", "containerRuntimeVersion": "wasmtime://48"},
                },
            }),
            &[
                "n1", "Ready,SchedulingDisabled", "control-plane,worker", "60s", "v1.32.0", "127.64.0.1",
                "<none>", "Linux", "6", "wasmtime://48",
            ],
        );
    }

    #[test]
    fn selectors_know_cordoned_nodes() {
        let value = |change| KIND.strategy.fields(&*NODE.object(change))[0].clone();
        assert_eq!(value(json!({})), ("spec.unschedulable", "false".to_owned()));
        assert_eq!(value(json!({"spec": {"unschedulable": true}})).1, "true");
    }
}
