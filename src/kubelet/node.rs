//! The Node object of a kubelet, and its Lease (BEHAVIOURS 17.1).
//!
//! A node of this process lives exactly as long as the process, and so does the control plane that
//! would miss it: its Lease is written once and never renewed, and its conditions say Ready from
//! the start. An idle cluster therefore writes nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};

use super::image::Images;
use crate::client::{Client, Result};
use crate::runtime::Runtime;

/// The version of Kubernetes whose behaviour this is.
const KUBELET_VERSION: &str = concat!("v1.32.0+coracle.", env!("CARGO_PKG_VERSION"));
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// What upstream's kubelets promise; see the module's text for why nobody minds that it passes.
const LEASE_SECONDS: i32 = 40;
/// Output kept of one run of a container. Upstream keeps 10 MiB on disk; this is memory.
const LOG_BYTES_MAX: usize = 1 << 20;

/// A node of this process.
#[derive(Clone)]
pub struct NodeConfig {
    pub name: String,
    /// Its address in the cluster's plan.
    pub ip: Ipv4Addr,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<Images>,
    /// Labels besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Amounts of `cpu`, `memory` and `pods`, all of them for pods.
    pub capacity: BTreeMap<String, Quantity>,
    /// Output kept of one run of a container, in bytes.
    pub log_bytes_max: usize,
}

impl NodeConfig {
    /// A node that runs code, as large as the machine: every node of a process shares it. Takes
    /// 1,000 pods unless told otherwise.
    #[must_use]
    pub fn wasm(name: &str, ip: Ipv4Addr, runtime: Arc<dyn Runtime>, images: Arc<Images>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let capacity = amounts(&cpus.to_string(), &format!("{}Ki", memory_kib()), "1000");
        Self::new(name, ip, "wasm", runtime, images, capacity)
    }

    /// A simulated node: 32 cores, 256 GiB, 110 pods, as clusters often have.
    #[must_use]
    pub fn sim(name: &str, ip: Ipv4Addr, runtime: Arc<dyn Runtime>, images: Arc<Images>) -> Self {
        Self::new(name, ip, "sim", runtime, images, amounts("32", "256Gi", "110"))
    }

    fn new(
        name: &str,
        ip: Ipv4Addr,
        kind: &str,
        runtime: Arc<dyn Runtime>,
        images: Arc<Images>,
        capacity: BTreeMap<String, Quantity>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            ip,
            runtime,
            images,
            labels: BTreeMap::from([("coracle.dev/runtime".to_owned(), kind.to_owned())]),
            capacity,
            log_bytes_max: LOG_BYTES_MAX,
        }
    }
}

fn amounts(cpu: &str, memory: &str, pods: &str) -> BTreeMap<String, Quantity> {
    let amount = |name: &str, text: &str| (name.to_owned(), Quantity(text.to_owned()));
    BTreeMap::from([amount("cpu", cpu), amount("memory", memory), amount("pods", pods)])
}

/// The machine's memory; 8 GiB where it cannot be asked.
fn memory_kib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(8 << 20)
}

/// The machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Labels that the kubelet sees to. Images run on every machine, and tools select by what they know
/// from elsewhere: so `linux`, and the architecture of the machine.
fn own_labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    for (name, value) in [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

/// The status of a node that is up, keeping times of conditions that have not changed.
fn status(config: &NodeConfig, old: Option<&NodeStatus>, boot_id: &str, now: Timestamp) -> NodeStatus {
    let now = Time(Timestamp::from_second(now.as_second()).expect("a whole second of a valid time is one"));
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        let before = old.and_then(|old| old.conditions.as_ref()?.iter().find(|c| c.type_ == type_));
        let since = before.filter(|before| before.status == status);
        NodeCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: since
                .and_then(|before| before.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        }
    };
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    let mut conditions = vec![
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let others = old.iter().flat_map(|old| old.conditions.iter().flatten());
    let others: Vec<NodeCondition> =
        others.filter(|other| !conditions.iter().any(|c| c.type_ == other.type_)).cloned().collect();
    conditions.extend(others);
    let runtime = config.runtime.version();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.ip.to_string()),
            address("Hostname", config.name.clone()),
        ]),
        capacity: Some(config.capacity.clone()),
        allocatable: Some(config.capacity.clone()),
        conditions: Some(conditions),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().into(),
            boot_id: boot_id.into(),
            container_runtime_version: runtime,
            kernel_version: kernel(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.into(),
            machine_id: config.name.clone(),
            operating_system: "linux".into(),
            os_image: "Coracle".into(),
            system_uuid: config.name.clone(),
            swap: None,
        }),
        ..NodeStatus::default()
    }
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Creates the Node and its Lease, or takes over the Node that is there: labels, taints and
/// `unschedulable` that users set stay.
pub(crate) async fn register(
    client: &Client,
    config: &NodeConfig,
    boot_id: &str,
    now: Timestamp,
) -> Result<Arc<Node>> {
    let found = match client.get::<Node>("", &config.name).await {
        Ok(node) => Some(node),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let node = match found {
        Some(node) => relabel(client, config, node).await?,
        None => {
            let mut node = Node::default();
            node.metadata.name = Some(config.name.clone());
            node.metadata.labels = Some(own_labels(config));
            node.status = Some(status(config, None, boot_id, now));
            match client.create(node).await {
                Ok(node) => node,
                // Somebody was quicker.
                Err(error) if error.is_already_exists() => client.get("", &config.name).await?,
                Err(error) => return Err(error),
            }
        }
    };
    let wanted = status(config, node.status.as_ref(), boot_id, now);
    let node = if node.status.as_ref() == Some(&wanted) {
        node
    } else {
        let mut node = (*node).clone();
        node.metadata.resource_version = None;
        node.status = Some(wanted);
        client.update_status(node).await?
    };
    lease(client, &node, now).await?;
    Ok(node)
}

async fn relabel(client: &Client, config: &NodeConfig, node: Arc<Node>) -> Result<Arc<Node>> {
    let present = node.metadata.labels.clone().unwrap_or_default();
    let missing: BTreeMap<String, String> =
        own_labels(config).into_iter().filter(|(name, value)| present.get(name) != Some(value)).collect();
    if missing.is_empty() {
        return Ok(node);
    }
    let patch = serde_json::json!({ "metadata": { "labels": missing } });
    client.merge_patch("", &config.name, None, patch).await
}

async fn lease(client: &Client, node: &Node, now: Timestamp) -> Result<()> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut lease = Lease::default();
    lease.metadata.name = Some(name.clone());
    lease.metadata.namespace = Some(LEASE_NAMESPACE.into());
    lease.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(name),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    });
    match client.create(lease).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}
