//! Which nodes are to have a pod of their own: what a template asks of a node, short of room (BEHAVIOURS
//! 12.2 to 12.4). Unready, cordoned and full nodes count, as the pods tolerate all that nodes suffer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Taint, Toleration,
};

use super::Change;
use crate::kind::{node_selector, taint};

/// What pods of daemons put up with besides what their template says: key and effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The field that names a node in a selector.
const NODE_NAME: &str = "metadata.name";

/// Whether a node has a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is to have one.
    Runs,
    /// It gets none, but one that is there stays: a taint came that only keeps new pods away.
    Stays,
    /// It has none.
    Never,
}

/// What a template asks of nodes.
#[derive(Clone, Debug)]
pub struct Eligibility {
    node_name: Option<String>,
    node_selector: BTreeMap<String, String>,
    required: Option<NodeSelector>,
    tolerations: Vec<Toleration>,
}

impl Eligibility {
    /// Of pods with this spec, once [`tolerate`] has been at it.
    #[must_use]
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.clone());
        let mut tolerating = PodSpec {
            tolerations: spec.tolerations.clone(),
            host_network: spec.host_network,
            ..PodSpec::default()
        };
        tolerate(&mut tolerating);
        Self {
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required,
            tolerations: tolerating.tolerations.unwrap_or_default(),
        }
    }

    /// Whether a node that came, changed or went is to be treated differently now.
    #[must_use]
    pub fn changes(&self, old: Option<&Node>, new: Option<&Node>) -> bool {
        let judge = |node: Option<&Node>| node.map_or(Verdict::Never, |node| self.judge(node));
        judge(old) != judge(new)
    }

    #[must_use]
    pub fn judge(&self, node: &Node) -> Verdict {
        let is_named = self.node_name.is_none() || self.node_name == node.metadata.name;
        let none = BTreeMap::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&none);
        if !is_named
            || !node_selector::matches_map(&self.node_selector, labels)
            || self.required.as_ref().is_some_and(|required| !node_selector::matches(required, node))
        {
            return Verdict::Never;
        }
        let taints: &[Taint] = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        if taint::untolerated(taints, &self.tolerations, &["NoExecute"]).is_some() {
            Verdict::Never
        } else if taint::untolerated(taints, &self.tolerations, &["NoSchedule"]).is_some() {
            Verdict::Stays
        } else {
            Verdict::Runs
        }
    }
}

/// The two sides of a node's change, unless no eligibility can differ between them.
#[must_use]
pub fn sides<'a>(change: &Change<'a>) -> Option<[Option<&'a Node>; 2]> {
    let sides = [change.old, change.new].map(|side| side.and_then(|node| node.downcast_ref::<Node>()));
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    match sides {
        [Some(old), Some(new)]
            if old.metadata.labels == new.metadata.labels && taints(old) == taints(new) =>
        {
            None
        }
        sides => Some(sides),
    }
}

/// Adds the tolerations of daemons.
pub fn tolerate(spec: &mut PodSpec) {
    let network = (spec.host_network == Some(true)).then_some(NETWORK_UNAVAILABLE);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let is_same = |one: &Toleration| {
            one.key == wanted.key && one.operator == wanted.operator && one.effect == wanted.effect
        };
        match tolerations.iter_mut().find(|one| is_same(one)) {
            Some(one) => *one = wanted,
            None => tolerations.push(wanted),
        }
    }
}

/// Pins a pod to a node by a required affinity, which takes the place of the template's own.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on or pinned to.
#[must_use]
pub fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.into_iter().find(|field| field.key == NODE_NAME && field.operator == "In")?;
    named.values.as_ref()?.first().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, node: Value, expected: Verdict) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let shown = format!("{spec} on {node}");
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let mut all = json!({ "metadata": { "name": "n", "labels": { "disk": "ssd" } } });
        json_patch::merge(&mut all, &node);
        let node: Node = serde_json::from_value(all).unwrap();
        assert_eq!(Eligibility::of(&spec).judge(&node), expected, "{shown}");
    }

    fn tainted(key: &str, effect: &str) -> Value {
        json!({ "spec": { "taints": [{ "key": key, "value": "v", "effect": effect }] } })
    }

    /// 12.2
    #[test]
    fn selectors_and_affinity_choose_nodes() {
        let affinity = |key: &str| {
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": key, "operator": "Exists" }] }],
        } } } })
        };
        check(json!({}), json!({}), Verdict::Runs);
        check(json!({ "nodeSelector": { "disk": "ssd" } }), json!({}), Verdict::Runs);
        check(json!({ "nodeSelector": { "disk": "hdd" } }), json!({}), Verdict::Never);
        check(affinity("disk"), json!({}), Verdict::Runs);
        check(affinity("gpu"), json!({}), Verdict::Never);
        check(json!({ "nodeName": "n" }), json!({}), Verdict::Runs);
        check(json!({ "nodeName": "m" }), json!({}), Verdict::Never);
    }

    /// 12.2, 12.3, 12.4
    #[test]
    fn taints_keep_new_pods_away_or_remove_them() {
        check(json!({}), tainted("own", "NoSchedule"), Verdict::Stays);
        check(json!({}), tainted("own", "NoExecute"), Verdict::Never);
        check(json!({}), tainted("own", "PreferNoSchedule"), Verdict::Runs);
        let tolerating = json!({ "tolerations": [{ "key": "own", "operator": "Exists" }] });
        check(tolerating, tainted("own", "NoExecute"), Verdict::Runs);
        for (key, effect) in TOLERATED {
            check(json!({}), tainted(key, effect), Verdict::Runs);
        }
        check(json!({}), tainted(NETWORK_UNAVAILABLE.0, "NoSchedule"), Verdict::Stays);
        check(json!({ "hostNetwork": true }), tainted(NETWORK_UNAVAILABLE.0, "NoSchedule"), Verdict::Runs);
        check(json!({}), json!({ "spec": { "unschedulable": true } }), Verdict::Runs);
    }

    /// 12.2
    #[test]
    fn a_pinned_pod_says_where_it_goes() {
        let mut spec: PodSpec = serde_json::from_value(json!({
            "containers": [],
            "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchExpressions": [] }] },
                "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "preference": {} }],
            } },
        }))
        .unwrap();
        pin(&mut spec, "n");
        let affinity = spec.affinity.clone().unwrap().node_affinity.unwrap();
        assert_eq!(
            serde_json::to_value(affinity).unwrap(),
            json!({
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                    { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n"] }] },
                ] },
                "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "preference": {} }],
            })
        );
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        assert_eq!(target(&pod), Some("n"));
        pod.spec.as_mut().unwrap().node_name = Some("m".into());
        assert_eq!(target(&pod), Some("m"));
        assert_eq!(target(&Pod::default()), None);
    }

    /// 12.3
    #[test]
    fn tolerations_are_added_once() {
        let mut spec = PodSpec { host_network: Some(true), ..PodSpec::default() };
        tolerate(&mut spec);
        let once = spec.clone();
        assert_eq!(once.tolerations.as_ref().map(Vec::len), Some(7));
        tolerate(&mut spec);
        assert_eq!(spec, once);
    }
}
