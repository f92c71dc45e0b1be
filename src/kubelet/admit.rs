//! Whether a node takes a pod that is bound to it (BEHAVIOURS 15.7).
//!
//! The scheduler has asked the same before; this catches pods bound by hand, and two schedulers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::lifecycle::Rejection;
use crate::kind::pod::totals;
use crate::kind::quantity::Amount;
use crate::kind::{node_selector, taint};

/// Resources by name that pods ask for, in order of importance.
const COUNTED: [&str; 4] = ["pods", "cpu", "memory", "ephemeral-storage"];

/// Amounts of [`COUNTED`].
pub(crate) type Amounts = [Amount; COUNTED.len()];

/// What the pods of one node hold; cheap to clone.
#[derive(Clone)]
pub(crate) struct Usage {
    allocatable: Arc<BTreeMap<String, Quantity>>,
    used: Arc<Mutex<Amounts>>,
}

/// A pod's share of its node; given back when dropped.
pub(crate) struct Reservation {
    usage: Usage,
    amounts: Amounts,
}

impl Usage {
    pub(crate) fn new(allocatable: BTreeMap<String, Quantity>) -> Self {
        Self { allocatable: Arc::new(allocatable), used: Arc::default() }
    }

    /// Takes the pod's share, if it is left or `unconditional`.
    pub(crate) fn reserve(&self, pod: &Pod, unconditional: bool) -> Result<Reservation, Rejection> {
        let amounts = requests(pod);
        let mut used = self.used.lock().expect("no holder panics");
        if !unconditional && let Some(rejection) = insufficient(&self.allocatable, &used, &amounts) {
            return Err(rejection);
        }
        for (used, amount) in used.iter_mut().zip(amounts) {
            *used = *used + amount;
        }
        Ok(Reservation { usage: self.clone(), amounts })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.usage.used.lock().expect("no holder panics");
        for (used, amount) in used.iter_mut().zip(self.amounts) {
            *used = *used - amount;
        }
    }
}

/// What a pod asks for (BEHAVIOURS 15.1).
pub(crate) fn requests(pod: &Pod) -> Amounts {
    let asked = pod.spec.as_ref().map(totals::requests).unwrap_or_default();
    COUNTED.map(|name| match name {
        "pods" => Amount::from_units(1),
        name => asked.get(name).copied().unwrap_or_default(),
    })
}

/// The first resource that is not left.
fn insufficient(
    allocatable: &BTreeMap<String, Quantity>,
    used: &Amounts,
    asked: &Amounts,
) -> Option<Rejection> {
    for ((name, used), asked) in COUNTED.iter().zip(used).zip(asked) {
        let Some(capacity) = allocatable.get(*name).map(Amount::of) else { continue };
        if !asked.is_zero() && *used + *asked > capacity {
            let number = |amount: Amount| if *name == "cpu" { amount.millis() } else { amount.units() };
            return Some(Rejection {
                reason: format!("OutOf{name}"),
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                    number(*asked),
                    number(*used),
                    number(capacity)
                ),
            });
        }
    }
    None
}

/// Whether the node's labels and taints let the pod in.
pub(crate) fn fits(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let no_labels = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&no_labels);
    let selected =
        spec.node_selector.as_ref().is_none_or(|wanted| node_selector::matches_map(wanted, labels));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    if !selected || !required.is_none_or(|terms| node_selector::matches(terms, node)) {
        return Err(Rejection {
            reason: "NodeAffinity".into(),
            message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
                .into(),
        });
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if taint::untolerated(taints, tolerations, &["NoExecute"]).is_some() {
        return Err(Rejection {
            reason: "TaintToleration".into(),
            message: "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
                .into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Taint;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": json
        }))
        .unwrap()
    }

    fn asks(cpu: &str) -> Pod {
        pod(serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    fn usage() -> Usage {
        let quantity = |text: &str| Quantity(text.into());
        Usage::new(BTreeMap::from([("cpu".into(), quantity("1")), ("pods".into(), quantity("2"))]))
    }

    #[test]
    fn requests_count_init_containers_sidecars_and_overhead() {
        let with = |cpu: &str, name: &str, sidecar: bool| {
            let mut container =
                serde_json::json!({"name": name, "resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}});
            if sidecar {
                container["restartPolicy"] = "Always".into();
            }
            container
        };
        let pod = pod(serde_json::json!({
            "initContainers": [with("100m", "s", true), with("2", "i", false)],
            "containers": [with("500m", "a", false), with("500m", "b", false)],
            "overhead": {"cpu": "10m"},
        }));
        let [pods, cpu, memory, _] = requests(&pod);
        assert_eq!((pods.units(), cpu.millis(), memory.units()), (1, 2110, 3072));
    }

    #[test]
    fn a_pod_that_speaks_for_itself_counts_as_it_says() {
        let pod = pod(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Ki"}}}],
            "resources": {"requests": {"cpu": "1"}},
        }));
        let [_, cpu, memory, _] = requests(&pod);
        assert_eq!((cpu.millis(), memory.units()), (1000, 1024));
    }

    #[test]
    fn what_is_not_left_is_refused_until_it_is_given_back() {
        let usage = usage();
        let first = usage.reserve(&asks("800m"), false).ok().unwrap();
        let refused = usage.reserve(&asks("300m"), false).err().unwrap();
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Node didn't have enough resource: cpu, requested: 300, used: 800, capacity: 1000"
        );
        let _restored = usage.reserve(&asks("300m"), true).ok().unwrap();
        assert_eq!(usage.reserve(&asks("0"), false).err().unwrap().reason, "OutOfpods");
        drop(first);
        assert!(usage.reserve(&asks("700m"), false).is_ok());
    }

    #[test]
    fn labels_and_no_execute_taints_are_checked() {
        let selecting = pod(serde_json::json!({"containers": [], "nodeSelector": {"disk": "ssd"}}));
        let mut node = Node::default();
        assert_eq!(fits(&selecting, &node).err().unwrap().reason, "NodeAffinity");
        node.metadata.labels = Some(BTreeMap::from([("disk".into(), "ssd".into())]));
        assert_eq!(fits(&selecting, &node), Ok(()));
        let taint = |effect: &str| Taint { key: "k".into(), effect: effect.into(), ..Taint::default() };
        node.spec.get_or_insert_default().taints = Some(vec![taint("NoSchedule")]);
        assert_eq!(fits(&selecting, &node), Ok(()));
        node.spec.get_or_insert_default().taints = Some(vec![taint("NoExecute")]);
        assert_eq!(fits(&selecting, &node).err().unwrap().reason, "TaintToleration");
        let tolerating = pod(serde_json::json!({
            "containers": [], "tolerations": [{"key": "k", "operator": "Exists"}]
        }));
        assert_eq!(fits(&tolerating, &node), Ok(()));
    }
}
