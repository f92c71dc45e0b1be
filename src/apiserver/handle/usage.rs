//! What pods and nodes use at the moment: `metrics.k8s.io`, which `kubectl top` asks. It is taken from the
//! nodes when somebody asks, and kept nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use super::{Inner, Target, decoded};
use crate::apiserver::filter::Filter;
use crate::apiserver::request::{Options, Response, Verb};
use crate::apiserver::status::Error;
use crate::kind::metrics::{self, ContainerMetrics, NodeMetrics, PodMetrics};
use crate::kind::{self, Kind};
use crate::store::Range;

/// What a pod's containers use, as their node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// When the interval ended over which processor time was taken, and its length.
    pub at: Timestamp,
    pub window: Duration,
    pub containers: Vec<ContainerUsage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    /// Nanoseconds of processor time a second.
    pub nanocores: u64,
    /// Bytes.
    pub memory: u64,
    /// Fuel since its start, if that is counted.
    pub fuel: Option<u64>,
}

/// Whether objects of the kind are made here.
pub(super) fn is_usage(kind: &Kind) -> bool {
    kind.group == PodMetrics::GROUP
}

impl Inner {
    /// Answers `get` and `list`.
    pub(super) async fn usage(
        &self,
        target: &Target,
        verb: Verb,
        options: &Options,
    ) -> Result<Response, Error> {
        let name = target.name.as_deref();
        if target.kind.kind == NodeMetrics::KIND {
            let found = self.nodes_use(name, options).await?;
            answer(target, verb, found)
        } else {
            let found = self.pods_use(target.namespace.as_deref(), name, options).await?;
            answer(target, verb, found)
        }
    }

    async fn pods_use(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        options: &Options,
    ) -> Result<Vec<PodMetrics>, Error> {
        let pods: Vec<Arc<Pod>> = self.of(namespace, name, options)?;
        let mut used = self.nodes.usage(&pods).await;
        let used = pods.iter().filter_map(|pod| Some((pod, used.remove(pod.metadata.uid.as_deref()?)?)));
        Ok(used.map(|(pod, usage)| pod_metrics(pod, usage)).collect())
    }

    async fn nodes_use(&self, name: Option<&str>, options: &Options) -> Result<Vec<NodeMetrics>, Error> {
        let nodes: Vec<Arc<Node>> = self.of(None, name, options)?;
        let pods: Vec<Arc<Pod>> = self.of(None, None, &Options::default())?;
        let used = self.nodes.usage(&pods).await;
        let mut by_node: BTreeMap<&str, Vec<&PodUsage>> = BTreeMap::new();
        for pod in &pods {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let usage = pod.metadata.uid.as_ref().and_then(|uid| used.get(uid));
            if let (Some(node), Some(usage)) = (node, usage) {
                by_node.entry(node).or_default().push(usage);
            }
        }
        let now = self.clock.now();
        let of = |node: &Arc<Node>| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            node_metrics(node, by_node.get(name).map(Vec::as_slice).unwrap_or_default(), now)
        };
        Ok(nodes.iter().map(of).collect())
    }

    /// The stored objects of a type that the options select.
    fn of<T: kind::Typed>(
        &self,
        namespace: Option<&str>,
        name: Option<&str>,
        options: &Options,
    ) -> Result<Vec<Arc<T>>, Error> {
        let kind = kind::of::<T>();
        let filter = Filter::parse(kind, options, name)?;
        let range = Range { collection: kind.collection(), namespace: namespace.map(Into::into) };
        let listing = self.store.list(&range, None, None, &|one| filter.keeps(one));
        let objects = listing.records.iter().map(|record| decoded(kind, record));
        Ok(objects.filter_map(kind::object::downcast_arc).collect())
    }
}

fn pod_metrics(pod: &Pod, usage: PodUsage) -> PodMetrics {
    let containers = usage.containers.into_iter();
    PodMetrics {
        metadata: meta(&pod.metadata, usage.at),
        timestamp: Some(Time(usage.at)),
        window: window(usage.window),
        containers: containers
            .map(|one| ContainerMetrics {
                name: one.name,
                usage: metrics::usage(one.nanocores, one.memory, one.fuel),
            })
            .collect(),
        ..PodMetrics::default()
    }
}

fn node_metrics(node: &Node, pods: &[&PodUsage], now: Timestamp) -> NodeMetrics {
    let containers = || pods.iter().flat_map(|pod| &pod.containers);
    let at = pods.iter().map(|pod| pod.at).max().unwrap_or(now);
    NodeMetrics {
        metadata: meta(&node.metadata, at),
        timestamp: Some(Time(at)),
        window: window(pods.iter().map(|pod| pod.window).max().unwrap_or_default()),
        usage: metrics::usage(
            containers().map(|one| one.nanocores).sum(),
            containers().map(|one| one.memory).sum(),
            None,
        ),
        ..NodeMetrics::default()
    }
}

fn meta(of: &ObjectMeta, at: Timestamp) -> ObjectMeta {
    ObjectMeta {
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        labels: of.labels.clone(),
        creation_timestamp: Some(Time(at)),
        ..ObjectMeta::default()
    }
}

/// As Go writes a duration.
fn window(window: Duration) -> String {
    format!("{}s", (window.as_secs_f64() * 1e3).round() / 1e3)
}

fn answer<T: kind::Typed>(target: &Target, verb: Verb, found: Vec<T>) -> Result<Response, Error> {
    if verb == Verb::Get {
        let name = target.name()?;
        let object = found.into_iter().next().ok_or_else(|| Error::not_found(target.kind, name))?;
        return Ok(Response::Object { object: Box::new(object), created: false });
    }
    Ok(Response::Document(json!({
        "kind": target.kind.list_kind,
        "apiVersion": target.kind.api_version(),
        "metadata": {},
        "items": found,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(name: &str, nanocores: u64, memory: u64) -> ContainerUsage {
        ContainerUsage { name: name.to_owned(), nanocores, memory, fuel: None }
    }

    #[test]
    fn a_pod_is_told_by_its_containers_and_a_node_by_its_pods() {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let usage = PodUsage {
            at,
            window: Duration::from_millis(1500),
            containers: vec![used("a", 250_000_000, 1 << 20), used("b", 1, 1)],
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
        }))
        .unwrap();
        assert_eq!(
            serde_json::to_value(pod_metrics(&pod, usage.clone())).unwrap(),
            json!({
                "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
                "metadata": {
                    "name": "p", "namespace": "n", "labels": {"app": "x"},
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "timestamp": "2026-01-01T00:00:00Z", "window": "1.5s",
                "containers": [
                    {"name": "a", "usage": {"cpu": "250000000n", "memory": "1024Ki"}},
                    {"name": "b", "usage": {"cpu": "1n", "memory": "1Ki"}},
                ],
            })
        );
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "node"}})).unwrap();
        let whole = node_metrics(&node, &[&usage, &usage], at);
        assert_eq!(whole.usage, metrics::usage(500_000_002, (2 << 20) + 2, None));
        assert_eq!(node_metrics(&node, &[], at).usage, metrics::usage(0, 0, None));
    }
}
