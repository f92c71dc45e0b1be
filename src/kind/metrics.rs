//! PodMetrics and NodeMetrics: what is used at the moment, as metrics-server has it. Nothing of it is
//! stored: it is made when it is asked for (`apiserver/handle/usage.rs`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, Strategy};

pub static PODS: Kind = Kind { verbs: &["get", "list"], ..Kind::namespaced(&PodRules, "") };
pub static NODES: Kind = Kind { verbs: &["get", "list"], ..Kind::cluster(&NodeRules, "") };

/// Amounts of `cpu` (nanocores), `memory` (KiB) and, where it is counted, [`FUEL`].
pub type Usage = BTreeMap<String, Quantity>;

/// Fuel that the running container has used since its start; whoever does not know it overlooks it.
const FUEL: &str = "coracle.dev/fuel";

/// Processor time a second, in nanoseconds, bytes of memory, and fuel, in words.
#[must_use]
pub fn usage(nanocores: u64, memory: u64, fuel: Option<u64>) -> Usage {
    let amount = |name: &str, text: String| (name.to_owned(), Quantity(text));
    let known =
        [amount("cpu", format!("{nanocores}n")), amount("memory", format!("{}Ki", memory.div_ceil(1024)))];
    known.into_iter().chain(fuel.map(|fuel| amount(FUEL, fuel.to_string()))).collect()
}

/// PodMetrics says what the containers of a pod use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMetrics {
    /// The versioned schema of this representation of an object.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// The REST resource this object represents.
    #[serde(default = "pod_kind")]
    pub kind: String,
    /// Standard object's metadata: that of the pod, in part.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// When the interval ended.
    pub timestamp: Option<Time>,
    /// The length of the interval over which processor time was taken, such as `15s`.
    #[serde(default)]
    pub window: String,
    /// Each container that runs.
    #[serde(default)]
    pub containers: Vec<ContainerMetrics>,
}

/// ContainerMetrics says what one container uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerMetrics {
    /// The container's name.
    pub name: String,
    /// Amounts of `cpu` and `memory`.
    #[serde(default)]
    pub usage: Usage,
}

/// NodeMetrics says what the pods of a node use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeMetrics {
    /// The versioned schema of this representation of an object.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// The REST resource this object represents.
    #[serde(default = "node_kind")]
    pub kind: String,
    /// Standard object's metadata: that of the node, in part.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// When the interval ended.
    pub timestamp: Option<Time>,
    /// The length of the interval over which processor time was taken, such as `15s`.
    #[serde(default)]
    pub window: String,
    /// Amounts of `cpu` and `memory`.
    #[serde(default)]
    pub usage: Usage,
}

fn api_version() -> String {
    <PodMetrics as k8s_openapi::Resource>::API_VERSION.to_owned()
}

fn pod_kind() -> String {
    <PodMetrics as k8s_openapi::Resource>::KIND.to_owned()
}

fn node_kind() -> String {
    <NodeMetrics as k8s_openapi::Resource>::KIND.to_owned()
}

impl Default for PodMetrics {
    fn default() -> Self {
        Self {
            api_version: api_version(),
            kind: pod_kind(),
            metadata: ObjectMeta::default(),
            timestamp: None,
            window: String::new(),
            containers: Vec::new(),
        }
    }
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self {
            api_version: api_version(),
            kind: node_kind(),
            metadata: ObjectMeta::default(),
            timestamp: None,
            window: String::new(),
            usage: Usage::new(),
        }
    }
}

struct PodRules;

impl Strategy for PodRules {
    type Object = PodMetrics;
}

struct NodeRules;

impl Strategy for NodeRules {
    type Object = NodeMetrics;
}

macro_rules! resource {
    ($type:ident, $scope:ident, $plural:literal, $list:literal) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
            const GROUP: &'static str = "metrics.k8s.io";
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = "v1beta1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::$scope;
        }

        impl k8s_openapi::ListableResource for $type {
            const LIST_KIND: &'static str = $list;
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(PodMetrics, NamespaceResourceScope, "pods", "PodMetricsList");
resource!(NodeMetrics, ClusterResourceScope, "nodes", "NodeMetricsList");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_quantities() {
        let used = usage(1_500_000, 1025, None);
        assert_eq!((used["cpu"].0.as_str(), used["memory"].0.as_str()), ("1500000n", "2Ki"));
        assert_eq!(used.len(), 2);
        assert_eq!(usage(0, 0, Some(7))[FUEL].0, "7");
    }
}
