//! Where a pod may run: affinity, tolerations, spreading (BEHAVIOURS 15.1, 15.2).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{list, text};
use crate::kind::field::{self, Errors, Path};
use crate::kind::validation::{NOT_POSITIVE, each, label_selector, label_value, qualified_name};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WEIGHT: &str = "must be in the range 1-100";
const NO_OPERATOR: &str = "not a valid selector operator";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Tolerations of a pod, or those that a RuntimeClass adds.
pub fn validate_tolerations(tolerations: &[Toleration], path: &Path, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            each(errors, &path.child("key"), key, qualified_name(key));
        } else if operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), operator, why);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), effect, why);
        }
        match operator {
            "" | "Equal" => {
                let wrong = label_value(value);
                if !wrong.is_empty() {
                    errors.invalid(&path.child("operator"), value, &wrong.join(";"));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&path.child("operator"), value, why);
            }
            other => errors.unsupported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.unsupported(&path.child("effect"), effect, EFFECTS);
        }
    }
}

pub(super) fn validate_affinity(affinity: &Affinity, path: &Path, errors: &mut Errors) {
    if let Some(node) = &affinity.node_affinity {
        validate_node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        let required = list(&pods.required_during_scheduling_ignored_during_execution);
        let preferred = list(&pods.preferred_during_scheduling_ignored_during_execution);
        validate_pod_affinity(required, preferred, &path, errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        let required = list(&pods.required_during_scheduling_ignored_during_execution);
        let preferred = list(&pods.preferred_during_scheduling_ignored_during_execution);
        validate_pod_affinity(required, preferred, &path, errors);
    }
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &Path, errors: &mut Errors) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.child(REQUIRED).child("nodeSelectorTerms");
        if selector.node_selector_terms.is_empty() {
            errors.required(&path, "must have at least one node selector term");
        }
        for (i, term) in selector.node_selector_terms.iter().enumerate() {
            validate_node_term(term, true, &path.index(i), errors);
        }
    }
    for (i, term) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        if !(1..=100).contains(&term.weight) {
            errors.invalid(&path.child("weight"), term.weight, WEIGHT);
        }
        // A preference that can match nothing does no harm.
        validate_node_term(&term.preference, false, &path.child("preference"), errors);
    }
}

fn validate_node_term(term: &NodeSelectorTerm, check_values: bool, path: &Path, errors: &mut Errors) {
    for (i, one) in list(&term.match_expressions).iter().enumerate() {
        validate_node_expression(one, check_values, &path.child("matchExpressions").index(i), errors);
    }
    for (i, one) in list(&term.match_fields).iter().enumerate() {
        let path = path.child("matchFields").index(i);
        let values = list(&one.values);
        if !matches!(one.operator.as_str(), "In" | "NotIn") {
            errors.invalid(&path.child("operator"), &one.operator, NO_OPERATOR);
        } else if values.len() != 1 {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&path.child("values"), why);
        }
        if one.key == "metadata.name" {
            for (v, value) in values.iter().enumerate() {
                each(errors, &path.child("values").index(v), value, field::dns_subdomain(value));
            }
        } else {
            errors.invalid(&path.child("key"), &one.key, "not a valid field selector key");
        }
    }
}

fn validate_node_expression(
    one: &NodeSelectorRequirement,
    check_values: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let values = list(&one.values);
    let path_of_values = path.child("values");
    match (one.operator.as_str(), values.len()) {
        ("In" | "NotIn", 0) => {
            errors.required(&path_of_values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        ("In" | "NotIn", _) | ("Exists" | "DoesNotExist", 0) | ("Gt" | "Lt", 1) => {}
        ("Exists" | "DoesNotExist", _) => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&path_of_values, why);
        }
        ("Gt" | "Lt", _) => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.required(&path_of_values, why);
        }
        (other, _) => errors.invalid(&path.child("operator"), other, NO_OPERATOR),
    }
    each(errors, &path.child("key"), &one.key, qualified_name(&one.key));
    for (v, value) in values.iter().enumerate().filter(|_| check_values) {
        each(errors, &path_of_values.index(v), value, label_value(value));
    }
}

fn validate_pod_affinity(
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
    path: &Path,
    errors: &mut Errors,
) {
    for (i, term) in required.iter().enumerate() {
        validate_pod_term(term, &path.child(REQUIRED).index(i), errors);
    }
    for (i, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        if !(1..=100).contains(&term.weight) {
            errors.invalid(&path.child("weight"), term.weight, WEIGHT);
        }
        validate_pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn validate_pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    label_selector(errors, &path.child("labelSelector"), term.label_selector.as_ref());
    label_selector(errors, &path.child("namespaceSelector"), term.namespace_selector.as_ref());
    for name in list(&term.namespaces) {
        each(errors, &path.child("namespace"), name, field::dns_label(name));
    }
    let (matching, mismatching) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    for (which, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        validate_label_keys(keys, term.label_selector.as_ref(), &path.child(which), errors);
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let path = path.child("matchLabelKeys").index(i);
        errors.invalid(&path, key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
    let path = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&path, "can not be empty");
    }
    each(errors, &path, &term.topology_key, qualified_name(&term.topology_key));
}

fn validate_label_keys(keys: &[String], selector: Option<&LabelSelector>, path: &Path, errors: &mut Errors) {
    if !keys.is_empty() && selector.is_none() {
        return errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys.iter().enumerate() {
        each(errors, &path.index(i), key, qualified_name(key));
    }
}

pub(super) fn validate_spread(constraints: &[TopologySpreadConstraint], path: &Path, errors: &mut Errors) {
    let policies = ["Honor", "Ignore"];
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let (key, action) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
        if constraint.max_skew <= 0 {
            errors.invalid(&path.child("maxSkew"), constraint.max_skew, NOT_POSITIVE);
        }
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            let actions = ["DoNotSchedule", "ScheduleAnyway"];
            errors.unsupported(&path.child("whenUnsatisfiable"), action, &actions);
        }
        let again = |other: &TopologySpreadConstraint| {
            other.topology_key == key && other.when_unsatisfiable == action
        };
        if constraints[i + 1..].iter().any(again) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&path, format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, NOT_POSITIVE);
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path, domains, &why);
            }
        }
        for (which, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy.as_deref().filter(|policy| !policies.contains(policy)) {
                errors.unsupported(&path.child(which), policy, &policies);
            }
        }
        validate_spread_keys(constraint, &path.child("matchLabelKeys"), errors);
        label_selector(errors, &path.child("labelSelector"), constraint.label_selector.as_ref());
    }
}

fn validate_spread_keys(constraint: &TopologySpreadConstraint, path: &Path, errors: &mut Errors) {
    let keys = list(&constraint.match_label_keys);
    if keys.is_empty() {
        return;
    }
    let Some(selector) = &constraint.label_selector else {
        return errors.forbidden(path, "must not be specified when labelSelector is not set");
    };
    let labels = selector.match_labels.iter().flat_map(BTreeMap::keys);
    let expressions = list(&selector.match_expressions).iter().map(|one| &one.key);
    let selected: BTreeSet<&String> = labels.chain(expressions).collect();
    for (i, key) in keys.iter().enumerate() {
        each(errors, &path.index(i), key, qualified_name(key));
        if selected.contains(key) {
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

/// Turns `matchLabelKeys` and `mismatchLabelKeys` of affinity terms into expressions with the
/// values of the pod's own labels, as upstream does when a pod is created.
pub(super) fn add_label_keys(spec: &mut PodSpec, labels: Option<&BTreeMap<String, String>>) {
    let (Some(affinity), Some(labels)) = (&mut spec.affinity, labels) else { return };
    let add = |term: &mut PodAffinityTerm| {
        let Some(selector) = &mut term.label_selector else { return };
        let keys = [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")];
        for (keys, operator) in keys {
            for (key, value) in list(keys).iter().filter_map(|key| labels.get_key_value(key)) {
                let expression = LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                };
                let expressions = selector.match_expressions.get_or_insert_default();
                if !expressions.contains(&expression) {
                    expressions.push(expression);
                }
            }
        }
    };
    if let Some(pods) = &mut affinity.pod_affinity {
        pods.required_during_scheduling_ignored_during_execution.iter_mut().flatten().for_each(add);
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        preferred.map(|term| &mut term.pod_affinity_term).for_each(add);
    }
    if let Some(pods) = &mut affinity.pod_anti_affinity {
        pods.required_during_scheduling_ignored_during_execution.iter_mut().flatten().for_each(add);
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        preferred.map(|term| &mut term.pod_affinity_term).for_each(add);
    }
}
