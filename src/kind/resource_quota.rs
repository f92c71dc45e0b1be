//! ResourceQuota: how much a namespace may use (BEHAVIOURS 18.6).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ResourceQuota, ResourceQuotaSpec, ScopeSelector, ScopedResourceSelectorRequirement,
};

use super::field::{Errors, Path};
use super::resources::{self, Resources};
use super::table::{self, Cell, Column, column};
use super::validation::IMMUTABLE;
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["quota"],
    subresources: &[Subresource::Status],
    columns: &[
        table::NAME,
        Column {
            description: "Request represents a minimum amount of cpu/memory that a container may consume.",
            ..column("Request", "string", 0)
        },
        Column {
            description: "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ..column("Limit", "string", 0)
        },
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "resourcequota")
};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
];

/// What a scope that is about pods' resources can limit, `pods` first.
const POD_RESOURCES: &[&str] =
    &["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

struct Rules;

impl Strategy for Rules {
    type Object = ResourceQuota;

    fn set_defaults(&self, quota: &mut ResourceQuota) {
        if let Some(spec) = &mut quota.spec {
            resources::canonicalize(&mut spec.hard);
        }
        if let Some(status) = &mut quota.status {
            resources::canonicalize(&mut status.hard);
            resources::canonicalize(&mut status.used);
        }
    }

    fn prepare_create(&self, quota: &mut ResourceQuota) {
        quota.status = None;
    }

    fn prepare_update(&self, new: &mut ResourceQuota, old: &ResourceQuota) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut ResourceQuota, old: &ResourceQuota) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, quota: &ResourceQuota, errors: &mut Errors) {
        let Some(spec) = &quota.spec else { return };
        let path = Path::new("spec");
        validate_amounts(spec.hard.as_ref(), &path.child("hard"), errors);
        validate_scopes(spec, &path.child("scopes"), errors);
        if let Some(selector) = &spec.scope_selector {
            let path = path.child("scopeSelector").child("matchExpressions");
            validate_selector(selector, spec, &path, errors);
        }
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota, errors: &mut Errors) {
        let scopes = |quota: &ResourceQuota| {
            quota.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default()
        };
        let as_set = |scopes: Vec<String>| scopes.into_iter().collect::<BTreeSet<String>>();
        if as_set(scopes(new)) != as_set(scopes(old)) {
            errors.invalid(&Path::new("spec").child("scopes"), scopes(new), IMMUTABLE);
        }
    }

    fn validate_status_update(&self, new: &ResourceQuota, _old: &ResourceQuota, errors: &mut Errors) {
        let Some(status) = &new.status else { return };
        let path = Path::new("status");
        validate_amounts(status.hard.as_ref(), &path.child("hard"), errors);
        validate_amounts(status.used.as_ref(), &path.child("used"), errors);
    }

    fn cells(&self, quota: &ResourceQuota, now: Timestamp) -> Vec<Cell> {
        let status = quota.status.clone().unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = status.used.as_ref().and_then(|used| used.get(name)).map_or("0", |used| &used.0);
            let column = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!("{name}: {used}/{}", hard.0));
        }
        vec![
            table::name(quota),
            Cell::Text(requests.join(", ")),
            Cell::Text(limits.join(", ")),
            table::age(quota, now),
        ]
    }
}

fn validate_amounts(amounts: Option<&Resources>, path: &Path, errors: &mut Errors) {
    for (name, amount) in amounts.into_iter().flatten() {
        let path = path.key(name);
        resources::validate_name(errors, &path, name);
        if !name.contains('/') && !resources::is_quota_name(name) && name == "storage" {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        resources::validate_amount(errors, &path, name, amount);
    }
}

/// Whether a quota of `scope` can limit the resource.
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        _ => SCOPES.contains(&scope) && POD_RESOURCES.contains(&resource),
    }
}

/// Standard resources that `scope` cannot limit.
fn misapplied<'a>(spec: &'a ResourceQuotaSpec, scope: &'a str) -> impl Iterator<Item = &'a String> {
    let names = spec.hard.iter().flat_map(|hard| hard.keys());
    names.filter(move |name| resources::is_quota_name(name) && !applies(scope, name))
}

fn conflict(scopes: &[&str]) -> bool {
    let pairs = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
    pairs.iter().any(|(one, other)| scopes.contains(one) && scopes.contains(other))
}

fn validate_scopes(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    for scope in scopes {
        if !SCOPES.contains(&scope.as_str()) {
            errors.invalid(path, scopes, "unsupported scope");
        }
        for _ in misapplied(spec, scope) {
            errors.invalid(path, scopes, "unsupported scope applied to resource");
        }
    }
    let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
    if conflict(&names) {
        errors.invalid(path, scopes, "conflicting scopes");
    }
}

fn validate_selector(selector: &ScopeSelector, spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    for ScopedResourceSelectorRequirement { operator, scope_name, values } in expressions {
        if !SCOPES.contains(&scope_name.as_str()) {
            errors.invalid(&path.child("scopeName"), scope_name, "unsupported scope");
        }
        for _ in misapplied(spec, scope_name) {
            errors.invalid(path, selector, "unsupported scope applied to resource");
        }
        if SCOPES.contains(&scope_name.as_str()) && scope_name != "PriorityClass" && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, why);
        }
        let values = values.as_deref().unwrap_or_default();
        match operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), why);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), values, why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
    let names: Vec<&str> = expressions.iter().map(|one| one.scope_name.as_str()).collect();
    if conflict(&names) {
        errors.invalid(path, &spec.scopes, "conflicting scopes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::testing::{check_cells, check_update, check_validation};

    const BASE: &str = "{metadata: {name: q}, spec: {hard: {pods: 10, limits.cpu: 4}}}";

    #[test]
    fn only_what_can_be_counted() {
        let check = |patch: &str, expected: &[&str]| check_validation(&KIND, BASE, patch, expected);
        check("{spec: {hard: {count/jobs.batch: 5, requests.nvidia.com/gpu: 1, hugepages-2Mi: 2Mi}}}", &[]);
        check(
            "{spec: {hard: {cpus: 5}}}",
            &[
                "spec.hard[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            ],
        );
        check(
            "{spec: {hard: {pods: 1500m}}}",
            &["spec.hard[pods]: Invalid value: 1500m: must be an integer"],
        );
        check(
            "{spec: {hard: {cpu: -1}}}",
            &["spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            "{spec: {scopes: [Often]}}",
            &[
                "spec.scopes: Invalid value: [\"Often\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"Often\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"Often\"]: unsupported scope applied to resource",
            ],
        );
        check(
            "{spec: {scopes: [BestEffort]}}",
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        );
        check(
            "{spec: {scopes: [Terminating, NotTerminating]}}",
            &["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
        );
        check(
            "{spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In}]}}}",
            &[
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        );
        check_update(
            &KIND,
            BASE,
            "{spec: {scopes: [Terminating]}}",
            &["spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"],
        );
    }

    #[test]
    fn requests_and_limits_have_columns() {
        check_cells(
            &KIND,
            "{metadata: {name: q}, status: {hard: {pods: '10', limits.cpu: '4'}, used: {pods: '2'}}}",
            &["q", "pods: 2/10", "limits.cpu: 0/4", "<unknown>"],
        );
    }
}
