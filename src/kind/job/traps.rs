//! Failures told apart by the trap that ended a guest: an annotation, so that clients and clusters
//! that know nothing of it are not disturbed.

use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize;

use crate::kind::field::{Errors, Path};

/// On a Job: a JSON list of rules that are tried before those of `spec.podFailurePolicy`, as in
/// `[{"action": "FailJob", "traps": ["unreachable", "out-of-memory"]}]`. A rule may name a
/// `containerName`; actions are those of a pod failure policy.
pub const ANNOTATION: &str = "coracle.dev/pod-failure-traps";

/// What can be named in `traps`.
pub const TRAPS: &[&str] = &[
    "deadline",
    "divide-by-zero",
    "indirect-call",
    "integer-overflow",
    "invalid-conversion",
    "null-reference",
    "other",
    "out-of-bounds",
    "out-of-memory",
    "stack-overflow",
    "unreachable",
];

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `FailJob`, `FailIndex`, `Ignore` or `Count`, as in a pod failure policy.
    pub action: String,
    /// Any of [`TRAPS`].
    pub traps: Vec<String>,
    /// Any container, if absent.
    pub container_name: Option<String>,
}

/// The Job's rules; none if they cannot be read, which validation rules out.
#[must_use]
pub fn rules(job: &Job) -> Vec<Rule> {
    text(job).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn text(job: &Job) -> Option<&str> {
    job.metadata.annotations.as_ref()?.get(ANNOTATION).map(String::as_str)
}

pub(super) fn validate(job: &Job, errors: &mut Errors) {
    let Some(text) = text(job) else { return };
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    let rules: Vec<Rule> = match serde_json::from_str(text) {
        Ok(rules) => rules,
        Err(error) => {
            let why = format!(
                "must be a JSON list of rules such as [{{\"action\": \"FailJob\", \"traps\": [\"unreachable\"]}}]: {error}"
            );
            return errors.invalid(&path, text, &why);
        }
    };
    let spec = job.spec.as_ref();
    let per_index = spec.is_some_and(|spec| spec.backoff_limit_per_index.is_some());
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        if !ACTIONS.contains(&rule.action.as_str()) {
            errors.unsupported(&path.child("action"), &rule.action, ACTIONS);
        } else if rule.action == "FailIndex" && !per_index {
            errors.invalid(
                &path.child("action"),
                &rule.action,
                "requires the backoffLimitPerIndex to be set",
            );
        }
        if rule.traps.is_empty() {
            errors.required(&path.child("traps"), "at least one trap must be named");
        }
        for (j, trap) in rule.traps.iter().enumerate() {
            if !TRAPS.contains(&trap.as_str()) {
                errors.unsupported(&path.child("traps").index(j), trap, TRAPS);
            }
        }
    }
    let pod = spec.and_then(|spec| spec.template.spec.as_ref());
    if pod.is_some_and(|pod| pod.restart_policy.as_deref() != Some("Never")) {
        errors.invalid(
            &path,
            text,
            "is only supported with restartPolicy \"Never\": otherwise the node restarts the container itself",
        );
    }
}
