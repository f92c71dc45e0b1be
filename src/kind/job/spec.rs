//! What is true of every Job's spec, wherever it stands: defaults, validation, what may change.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec};

use super::indexes::Indexes;
use super::{INDEXED, NON_INDEXED, PER_NODE, is_suspended, mode};
use crate::kind::field::{Errors, FieldError, Path};
use crate::kind::pod;
use crate::kind::validation::{immutable, not_negative, qualified_name};

/// Bounds of Indexed Jobs, which keep `completedIndexes` short.
const PARALLELISM_MAX: i32 = 100_000;
const FAILED_INDEXES_MAX: i32 = 100_000;
/// Above so many completions the next two hold as well.
const COMPLETIONS_SOFT_MAX: i32 = 100_000;
const PARALLELISM_HIGH_MAX: i32 = 10_000;
const FAILED_INDEXES_HIGH_MAX: i32 = 10_000;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 * 1024;
const MANAGED_BY_BYTES_MAX: usize = 63;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const CONDITION_STATUSES: &[&str] = &["False", "True", "Unknown"];
const REPLACEMENT_FAILED: &str = "Failed";
const REPLACEMENTS: &[&str] = &["Failed", "TerminatingOrFailed"];

/// Fills what was left out (BEHAVIOURS 13.1). Idempotent.
pub fn set_defaults(spec: &mut JobSpec) {
    let per_node = mode(spec) == PER_NODE;
    if per_node {
        // As many completions as there are nodes; all at once unless told otherwise.
    } else if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
        spec.parallelism = Some(1);
    } else {
        spec.parallelism.get_or_insert(1);
    }
    let unlimited = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if unlimited { i32::MAX } else { 6 });
    spec.completion_mode.get_or_insert_with(|| NON_INDEXED.to_owned());
    spec.suspend.get_or_insert(false);
    let has_policy = spec.pod_failure_policy.is_some();
    spec.pod_replacement_policy.get_or_insert_with(|| {
        if has_policy { REPLACEMENT_FAILED.to_owned() } else { "TerminatingOrFailed".to_owned() }
    });
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if pattern.status.is_empty() {
                "True".clone_into(&mut pattern.status);
            }
        }
    }
    pod::template::set_defaults(&mut spec.template);
}

/// What a Job's spec and a CronJob's template are both asked (upstream `validateJobSpec`).
pub fn validate(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    for (name, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        not_negative(errors, &path.child(name), value.unwrap_or_default());
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        validate_managed_by(manager, &path.child("managedBy"), errors);
    }
    match mode(spec) {
        INDEXED => validate_indexed(spec, path, errors),
        NON_INDEXED => validate_not_indexed(spec, path, errors),
        PER_NODE => {
            validate_not_indexed(spec, path, errors);
            if spec.completions.is_some() {
                let why =
                    "may not be set when completion mode is PerNode: each eligible node is one completion";
                errors.forbidden(&path.child("completions"), why);
            }
        }
        other => {
            errors.unsupported(&path.child("completionMode"), other, &[NON_INDEXED, INDEXED, PER_NODE]);
        }
    }
    if let Some(policy) = &spec.pod_failure_policy {
        let path = path.child("podFailurePolicy").child("rules");
        too_many(&path, policy.rules.len(), RULES_MAX, errors);
        for (i, rule) in policy.rules.iter().enumerate() {
            validate_failure_rule(spec, rule, &path.index(i), errors);
        }
    }
    if let Some(policy) = &spec.success_policy {
        let path = path.child("successPolicy");
        if mode(spec) == INDEXED {
            let path = path.child("rules");
            let rules = policy.rules.as_slice();
            if rules.is_empty() {
                errors.required(
                    &path,
                    "at least one rules must be specified when the successPolicy is specified",
                );
            }
            too_many(&path, rules.len(), RULES_MAX, errors);
            for (i, rule) in rules.iter().enumerate() {
                validate_success_rule(spec, rule, &path.index(i), errors);
            }
        } else {
            errors.invalid(&path, policy, "requires indexed completion mode");
        }
    }
    if let Some(policy) = &spec.pod_replacement_policy {
        let supported = if spec.pod_failure_policy.is_some() { &[REPLACEMENT_FAILED] } else { REPLACEMENTS };
        if !supported.contains(&policy.as_str()) {
            errors.unsupported(&path.child("podReplacementPolicy"), policy, supported);
        }
    }
    let template = path.child("template");
    pod::template::validate(&spec.template, &template, errors);
    let policy =
        spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref()).unwrap_or_default();
    let path = template.child("spec").child("restartPolicy");
    match policy {
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            errors.invalid(&path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        other => errors.unsupported(&path, other, &["OnFailure", "Never"]),
    }
}

/// A domain and a path, as in `example.com/controller`.
fn validate_managed_by(manager: &str, path: &Path, errors: &mut Errors) {
    match manager.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            for why in crate::kind::field::dns_subdomain(domain) {
                errors.invalid(path, domain, &why);
            }
        }
        _ => errors.invalid(path, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        errors.too_long(path, MANAGED_BY_BYTES_MAX);
    }
}

fn validate_indexed(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let parallelism = spec.parallelism.unwrap_or_default();
    if spec.completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if parallelism > PARALLELISM_MAX {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        errors.invalid(&path.child("parallelism"), parallelism, &why);
    }
    let at = path.child("maxFailedIndexes");
    if let (Some(completions), Some(failed)) = (spec.completions, spec.max_failed_indexes)
        && failed > completions
    {
        errors.invalid(&at, failed, "must be less than or equal to completions");
    }
    if let Some(failed) = spec.max_failed_indexes.filter(|failed| *failed > FAILED_INDEXES_MAX) {
        errors.invalid(&at, failed, &format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
    }
    if spec.completions.is_some_and(|completions| completions > COMPLETIONS_SOFT_MAX)
        && spec.backoff_limit_per_index.is_some()
    {
        let why = |max: i32| {
            format!(
                "must be less than or equal to {max} when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
            )
        };
        if spec.max_failed_indexes.is_none() {
            let why = format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
            errors.required(&at, &why);
        }
        if parallelism > PARALLELISM_HIGH_MAX {
            errors.invalid(&path.child("parallelism"), parallelism, &why(PARALLELISM_HIGH_MAX));
        }
        if let Some(failed) = spec.max_failed_indexes.filter(|failed| *failed > FAILED_INDEXES_HIGH_MAX) {
            errors.invalid(&at, failed, &why(FAILED_INDEXES_HIGH_MAX));
        }
    }
}

fn validate_not_indexed(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    for (name, value) in [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ] {
        if let Some(value) = value {
            errors.invalid(&path.child(name), value, "requires indexed completion mode");
        }
    }
}

fn validate_failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, path: &Path, errors: &mut Errors) {
    let at = path.child("action");
    match rule.action.as_str() {
        "" => errors.required(&at, &format!("valid values: {ACTIONS:?}").replace(", ", " ")),
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.invalid(&at, &rule.action, "requires the backoffLimitPerIndex to be set");
        }
        action if ACTIONS.contains(&action) => {}
        other => errors.unsupported(&at, other, ACTIONS),
    }
    if let Some(codes) = &rule.on_exit_codes {
        validate_exit_codes(spec, codes, &path.child("onExitCodes"), errors);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    validate_patterns(patterns, &path.child("onPodConditions"), errors);
    let why = match (rule.on_exit_codes.is_some(), patterns.is_empty()) {
        (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        (true, true) | (false, false) => return,
    };
    invalid_rule(path, why, errors);
}

/// Upstream shows no value here.
pub(super) fn invalid_rule(path: &Path, why: &str, errors: &mut Errors) {
    errors.0.push(FieldError {
        field: path.to_string(),
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {why}"),
    });
}

fn validate_exit_codes(
    spec: &JobSpec,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("operator");
    match codes.operator.as_str() {
        "" => errors.required(&at, "valid values: [\"In\" \"NotIn\"]"),
        operator if OPERATORS.contains(&operator) => {}
        other => errors.unsupported(&at, other, OPERATORS),
    }
    let pod = spec.template.spec.as_ref();
    let mut containers =
        pod.into_iter().flat_map(|pod| pod.containers.iter().chain(pod.init_containers.iter().flatten()));
    if let Some(name) = &codes.container_name
        && !containers.any(|container| container.name == *name)
    {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, why);
    }
    let at = path.child("values");
    let values = codes.values.as_slice();
    if values.is_empty() {
        errors.invalid(&at, values, "at least one value is required");
    }
    too_many(&at, values.len(), EXIT_CODES_MAX, errors);
    for (i, value) in values.iter().enumerate() {
        if codes.operator == "In" && *value == 0 {
            errors.invalid(&at.index(i), value, "must not be 0 for the In operator");
        }
        if values[..i].contains(value) {
            errors.duplicate(&at.index(i), value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&at, values, "must be ordered");
    }
}

fn validate_patterns(patterns: &[PodFailurePolicyOnPodConditionsPattern], path: &Path, errors: &mut Errors) {
    too_many(path, patterns.len(), PATTERNS_MAX, errors);
    for (i, pattern) in patterns.iter().enumerate() {
        let path = path.index(i);
        for why in qualified_name(&pattern.type_) {
            errors.invalid(&path.child("type"), &pattern.type_, &why);
        }
        match pattern.status.as_str() {
            "" => errors.required(&path.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"),
            status if CONDITION_STATUSES.contains(&status) => {}
            other => errors.unsupported(&path.child("status"), other, CONDITION_STATUSES),
        }
    }
}

fn validate_success_rule(spec: &JobSpec, rule: &SuccessPolicyRule, path: &Path, errors: &mut Errors) {
    let completions = spec.completions.unwrap_or_default();
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = None;
    if let Some(text) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if text.len() > SUCCEEDED_INDEXES_BYTES_MAX {
            errors.too_long(&at, SUCCEEDED_INDEXES_BYTES_MAX);
        }
        match Indexes::parse(text, u32::try_from(completions).unwrap_or_default()) {
            Ok(indexes) => total = Some(indexes.total()),
            Err(why) => errors.invalid(&at, text, &format!("error parsing succeededIndexes: {why}")),
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    not_negative(errors, &at, i64::from(count));
    if count > completions {
        let why =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&at, count, &why);
    }
    if let Some(total) = total.filter(|total| i64::from(count) > i64::from(*total)) {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&at, count, &why);
    }
}

fn too_many(path: &Path, found: usize, max: usize, errors: &mut Errors) {
    if found > max {
        errors.0.push(FieldError {
            field: path.to_string(),
            reason: "FieldValueTooMany",
            message: format!("Too many: {found}: must have at most {max} items"),
        });
    }
}

/// What may not change once the Job exists (BEHAVIOURS 13.2).
pub(super) fn validate_update(new: &Job, old: &Job, errors: &mut Errors) {
    let nothing = JobSpec::default();
    let path = Path::new("spec");
    let never_started = old.status.as_ref().is_none_or(|status| status.start_time.is_none());
    let (new, old) = (new.spec.as_ref().unwrap_or(&nothing), old.spec.as_ref().unwrap_or(&nothing));
    let at = path.child("completions");
    if mode(new) != INDEXED {
        immutable(errors, &at, &new.completions, &old.completions);
    } else if new.completions.is_some()
        && new.completions != old.completions
        && new.completions != new.parallelism
    {
        let why = "can only be modified in tandem with spec.parallelism";
        errors.invalid(&at, new.completions, why);
    }
    immutable(errors, &path.child("selector"), &new.selector, &old.selector);
    let mut before = old.template.clone();
    if is_suspended(old) && never_started {
        allow_scheduling_directives(&mut before, &new.template);
    }
    immutable(errors, &path.child("template"), &new.template, &before);
    immutable(errors, &path.child("completionMode"), &new.completion_mode, &old.completion_mode);
    immutable(errors, &path.child("podFailurePolicy"), &new.pod_failure_policy, &old.pod_failure_policy);
    immutable(
        errors,
        &path.child("backoffLimitPerIndex"),
        &new.backoff_limit_per_index,
        &old.backoff_limit_per_index,
    );
    immutable(errors, &path.child("managedBy"), &new.managed_by, &old.managed_by);
    immutable(errors, &path.child("successPolicy"), &new.success_policy, &old.success_policy);
}

/// Takes over what may change in the template of a Job that is suspended and never ran.
fn allow_scheduling_directives(old: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (before, now) = (old.spec.get_or_insert_default(), new.spec.clone().unwrap_or_default());
    let node_affinity = now.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    match &mut before.affinity {
        Some(affinity) => {
            affinity.node_affinity = node_affinity;
            if now.affinity.is_none() && *affinity == Affinity::default() {
                before.affinity = None;
            }
        }
        None if now.affinity.is_some() => {
            before.affinity = Some(Affinity { node_affinity, ..Affinity::default() });
        }
        None => {}
    }
    before.node_selector = now.node_selector;
    before.tolerations = now.tolerations;
    before.scheduling_gates = now.scheduling_gates;
    let metadata = new.metadata.clone().unwrap_or_default();
    let before = old.metadata.get_or_insert_default();
    before.annotations = metadata.annotations;
    before.labels = metadata.labels;
    if new.metadata.is_none() {
        old.metadata = None;
    }
}
