//! Names and amounts of resources in specs (upstream `validateResourceRequirements`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::field::{self, Errors, Path};
use super::quantity::{self, Amount};
use super::validation::{self, NEGATIVE, each, invalid_plain};

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Quantity>;

/// What one container may ask for by a plain name, besides huge pages.
const CONTAINER_NAMES: &[&str] = &["cpu", "ephemeral-storage", "memory"];

/// What a quota may count by a plain name, besides huge pages.
const QUOTA_NAMES: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// What comes in whole numbers by a plain name.
const WHOLE_NAMES: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// Writes every amount in the one form Kubernetes gives back; what is no quantity stays, for
/// validation to refuse.
pub fn canonicalize(resources: &mut Option<Resources>) {
    for amount in resources.iter_mut().flat_map(BTreeMap::values_mut) {
        canonicalize_one(amount);
    }
}

pub fn canonicalize_one(amount: &mut Quantity) {
    if let Ok(text) = quantity::canonical(&amount.0) {
        amount.0 = text;
    }
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_quota_huge_pages(name: &str) -> bool {
    is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// Kubernetes' own, not a vendor's.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && validation::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether requests may lie below limits.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Whether `name` is one that quotas know without a prefix.
pub fn is_quota_name(name: &str) -> bool {
    QUOTA_NAMES.contains(&name) || is_quota_huge_pages(name)
}

/// A name that any object may use for a resource; whether it is one.
pub fn validate_name(errors: &mut Errors, path: &Path, name: &str) -> bool {
    let wrong = validation::qualified_name(name);
    if !wrong.is_empty() {
        each(errors, path, name, wrong);
        return false;
    }
    if !name.contains('/') && !is_quota_name(name) && name != "storage" {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// A name that a container may use for a resource.
pub fn validate_container_name(errors: &mut Errors, path: &Path, name: &str) {
    validate_name(errors, path, name);
    if !name.contains('/') {
        if !CONTAINER_NAMES.contains(&name) && !is_huge_pages(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// The amount, if it is a quantity that the resource can have.
pub fn validate_amount(errors: &mut Errors, path: &Path, name: &str, amount: &Quantity) -> Option<Amount> {
    let parsed = match Amount::parse(&amount.0) {
        Ok(parsed) => parsed,
        Err(why) => {
            errors.invalid(path, &amount.0, why);
            return None;
        }
    };
    if parsed.is_negative() {
        errors.invalid(path, &amount.0, NEGATIVE);
    }
    if (WHOLE_NAMES.contains(&name) || is_extended(name)) && parsed.millis() % 1000 != 0 {
        invalid_plain(errors, path, &amount.0, "must be an integer");
    }
    Some(parsed)
}

fn validate_huge_pages(errors: &mut Errors, path: &Path, name: &str, amount: &Quantity) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let page = Amount::parse(size).map_or(0, Amount::units);
    let units = Amount::of(amount).units();
    if page <= 0 || units <= 0 || units % page != 0 {
        errors.invalid(path, &amount.0, &format!("{} is not positive integer multiple of {name}", amount.0));
    }
}

/// Whether a pod as a whole may ask for it, or be limited in it.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

/// Requests and limits of one container; `claims` are the names in the pod's `resourceClaims`.
pub fn validate_requirements(
    errors: &mut Errors,
    path: &Path,
    requirements: &ResourceRequirements,
    claims: &BTreeSet<&str>,
) {
    validate_amounts(errors, path, requirements, validate_container_name);
    validate_claims(errors, &path.child("claims"), requirements, claims);
}

/// Requests and limits of a whole pod.
pub fn validate_pod_requirements(errors: &mut Errors, path: &Path, requirements: &ResourceRequirements) {
    validate_amounts(errors, path, requirements, |errors, path, name| {
        if validate_name(errors, path, name) && !is_pod_level(name) {
            errors.unsupported(path, name, &["cpu", "hugepages-", "memory"]);
        }
    });
    for (i, _) in requirements.claims.iter().flatten().enumerate() {
        errors.forbidden(&path.child("claims").index(i), "claims may not be set for Resources at pod-level");
    }
}

fn validate_amounts(
    errors: &mut Errors,
    path: &Path,
    requirements: &ResourceRequirements,
    validate_name: fn(&mut Errors, &Path, &str),
) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let (mut huge_pages, mut compute) = (false, false);
    let mut note = |name: &str| {
        huge_pages |= is_huge_pages(name);
        compute |= matches!(name, "cpu" | "memory");
    };
    for (name, amount) in requirements.limits.iter().flatten() {
        note(name);
        let path = limits_path.key(name);
        validate_name(errors, &path, name);
        validate_amount(errors, &path, name, amount);
        validate_huge_pages(errors, &path, name, amount);
    }
    for (name, amount) in requirements.requests.iter().flatten() {
        note(name);
        let path = requests_path.key(name);
        validate_name(errors, &path, name);
        let request = validate_amount(errors, &path, name, amount);
        match (request, requirements.limits.as_ref().and_then(|limits| limits.get(name))) {
            (Some(request), Some(limit)) if Amount::parse(&limit.0).is_ok() => {
                let (most, why) = (Amount::of(limit), &limit.0);
                if request != most && !may_overcommit(name) {
                    let why = format!("must be equal to {name} limit of {why}");
                    errors.invalid(&requests_path, &amount.0, &why);
                } else if request > most {
                    let why = format!("must be less than or equal to {name} limit of {why}");
                    errors.invalid(&requests_path, &amount.0, &why);
                }
            }
            (_, None) if !may_overcommit(name) => {
                errors.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        validate_huge_pages(errors, &path, name, amount);
    }
    if huge_pages && !compute {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn validate_claims(
    errors: &mut Errors,
    path: &Path,
    requirements: &ResourceRequirements,
    claims: &BTreeSet<&str>,
) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (i, claim) in requirements.claims.iter().flatten().enumerate() {
        let (path, name) = (path.index(i), claim.name.as_str());
        let request = claim.request.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !request.is_empty() {
            each(errors, &path.child("request"), request, field::dns_label(request));
        }
        let covered =
            seen.contains(&(name, "")) || (request.is_empty() && seen.iter().any(|(n, _)| *n == name));
        if covered || !seen.insert((name, request)) {
            errors.duplicate(&path, name);
        }
        if !claims.contains(name) {
            errors.not_found(&path, name);
        }
    }
}
