//! What may change in a pod after its creation (BEHAVIOURS 9.2; upstream `ValidatePodUpdate`).

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{
    Container, NodeAffinity, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec, Toleration,
};
use serde_json::Value;

use super::{egress_hosts, list};
use crate::kind::field::{Errors, Path};

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Maps whose keys are the user's: an empty text there is a value.
const USER_MAPS: &[&str] = &["matchLabels", "nodeSelector", "options", "volumeAttributes"];

/// How many differing fields a refusal names.
const DIFFERENCES_MAX: usize = 8;

/// The new pod has passed all that creation asks.
pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut Errors) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let mirror = |pod: &Pod| pod.metadata.annotations.as_ref().and_then(|all| all.get(MIRROR).cloned());
    let path = Path::new("metadata").child("annotations").key(MIRROR);
    match (mirror(new), mirror(old)) {
        (new, old) if new == old => {}
        (_, None) => errors.forbidden(&path, "may not add mirror pod annotation"),
        (_, Some(_)) => errors.forbidden(&path, "may not remove or update mirror pod annotation"),
    }
    egress_hosts::validate_update(new, old, errors);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    if new == old {
        return;
    }
    let path = Path::new("spec");
    let counts = [
        ("containers", new.containers.len(), old.containers.len()),
        ("initContainers", list(&new.init_containers).len(), list(&old.init_containers).len()),
    ];
    for (which, new, old) in counts {
        if new != old {
            return errors.forbidden(&path.child(which), "pod updates may not add or remove containers");
        }
    }
    if !validate_deadline(new, old, &path.child("activeDeadlineSeconds"), errors) {
        return;
    }
    let tolerations = (list(&new.tolerations), list(&old.tolerations));
    validate_tolerations(tolerations.0, tolerations.1, &path.child("tolerations"), errors);
    let gates = (list(&new.scheduling_gates), list(&old.scheduling_gates));
    validate_gates(gates.0, gates.1, &path.child("schedulingGates"), errors);

    let mut rest = new.clone();
    take_changeable(&mut rest, old);
    if !list(&old.scheduling_gates).is_empty() {
        take_gated(&mut rest, old, &path, errors);
    }
    let differences = differences(&rest, old);
    if !differences.is_empty() {
        errors.forbidden(&path, &format!("{FROZEN}\n{differences}"));
    }
}

/// Gives `rest` the old content of all that every pod may change.
fn take_changeable(rest: &mut PodSpec, old: &PodSpec) {
    let take_images = |rest: &mut [Container], old: &[Container]| {
        for (rest, old) in rest.iter_mut().zip(old) {
            rest.image.clone_from(&old.image);
        }
    };
    take_images(&mut rest.containers, &old.containers);
    take_images(rest.init_containers.as_deref_mut().unwrap_or_default(), list(&old.init_containers));
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if was_negative && rest.termination_grace_period_seconds == Some(1) {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
}

/// Checks and takes what a pod that waits at its gates may narrow: node selector and node affinity.
fn take_gated(rest: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let lost = |(key, value): (&String, &String)| {
        rest.node_selector.as_ref().and_then(|selector| selector.get(key)) != Some(value)
    };
    if old.node_selector.iter().flatten().any(lost) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&path.child("nodeSelector"), &rest.node_selector, why);
    }
    rest.node_selector.clone_from(&old.node_selector);

    let affinity =
        |spec: &PodSpec| spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let (new_affinity, old_affinity) = (affinity(rest), affinity(old));
    if new_affinity == old_affinity {
        return;
    }
    let path = path.child("affinity").child("nodeAffinity");
    validate_node_affinity(new_affinity.as_ref(), old_affinity.as_ref(), &path, errors);
    let mut affinity = rest.affinity.take().unwrap_or_default();
    affinity.node_affinity = old_affinity;
    let is_empty = affinity == Default::default();
    rest.affinity = if is_empty && old.affinity.is_none() { None } else { Some(affinity) };
}

/// Set once, then only down; whether the rest is worth looking at.
fn validate_deadline(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.invalid(path, None::<i64>, why);
            true
        }
        (Some(_), _) | (None, None) => true,
    }
}

fn validate_tolerations(new: &[Toleration], old: &[Toleration], path: &Path, errors: &mut Errors) {
    let kept = |old: &Toleration| {
        new.iter().any(|new| {
            let toleration_seconds = new.toleration_seconds;
            *new == Toleration { toleration_seconds, ..old.clone() }
        })
    };
    if !old.iter().all(kept) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn validate_gates(new: &[PodSchedulingGate], old: &[PodSchedulingGate], path: &Path, errors: &mut Errors) {
    for (i, gate) in new.iter().enumerate().filter(|(_, gate)| !old.contains(gate)) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.forbidden(&path.index(i).child("name"), &why);
    }
}

fn validate_node_affinity(
    new: Option<&NodeAffinity>,
    old: Option<&NodeAffinity>,
    path: &Path,
    errors: &mut Errors,
) {
    let terms = |affinity: Option<&NodeAffinity>| {
        let selector = affinity?.required_during_scheduling_ignored_during_execution.as_ref()?;
        Some(selector.node_selector_terms.clone())
    };
    let (new, old) = (terms(new).unwrap_or_default(), terms(old).unwrap_or_default());
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if !old.is_empty() && new.len() != old.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&path, &new, why);
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        if !only_adds(new, old) {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(i), new, why);
        }
    }
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let (expressions, fields) = (list(&old.match_expressions), list(&old.match_fields));
    let (more_expressions, more_fields) = (list(&new.match_expressions), list(&new.match_fields));
    // A term without content matches nothing; content would make it match.
    let fills_empty = expressions.is_empty()
        && fields.is_empty()
        && !(more_expressions.is_empty() && more_fields.is_empty());
    !fills_empty && more_expressions.starts_with(expressions) && more_fields.starts_with(fields)
}

/// Where two specs differ, a line for each; empty if they mean the same.
fn differences(new: &PodSpec, old: &PodSpec) -> String {
    let json = |spec: &PodSpec| serde_json::to_value(spec).expect("an API type has string keys only");
    let mut lines = Vec::new();
    compare("spec", &json(new), &json(old), &mut lines);
    let more = lines.len().saturating_sub(DIFFERENCES_MAX);
    lines.truncate(DIFFERENCES_MAX);
    let mut text = lines.join("\n");
    if more > 0 {
        write!(text, "\n… and {more} more").expect("a String takes every text");
    }
    text
}

pub(super) fn compare(path: &str, new: &Value, old: &Value, lines: &mut Vec<String>) {
    let field = path.rsplit('.').next().unwrap_or_default();
    match (new, old) {
        (Value::Object(new), Value::Object(old)) if !USER_MAPS.contains(&field) => {
            for (key, value) in new {
                compare(&format!("{path}.{key}"), value, old.get(key).unwrap_or(&Value::Null), lines);
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                compare(&format!("{path}.{key}"), &Value::Null, value, lines);
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            for i in 0..new.len().max(old.len()) {
                let item = |list: &[Value]| list.get(i).cloned().unwrap_or(Value::Null);
                compare(&format!("{path}[{i}]"), &item(new), &item(old), lines);
            }
        }
        (new, old) if new == old || (is_absent(field, new) && is_absent(field, old)) => {}
        (new, old) => lines.push(format!("{path}: {old} → {new}")),
    }
}

/// Whether Kubernetes does not tell `value` from the field's absence.
fn is_absent(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty() && !field.ends_with(']'),
        Value::Bool(flag) => {
            let fields = ["hostIPC", "hostNetwork", "hostPID", "readOnly", "stdin", "stdinOnce", "tty"];
            !flag && fields.contains(&field)
        }
        Value::Number(number) => {
            number.as_i64() == Some(0) && matches!(field, "hostPort" | "initialDelaySeconds")
        }
        Value::Object(map) => {
            let fields = ["limits", "matchLabels", "nodeSelector", "overhead", "requests"];
            map.is_empty() && fields.contains(&field)
        }
    }
}
