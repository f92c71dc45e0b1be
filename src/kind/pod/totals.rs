//! What a pod asks for and may use as a whole (BEHAVIOURS 15.1; upstream `component-helpers/resource`).
//!
//! A pod may say so itself, in `spec.resources`; for what it does not name, its containers say it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{is_sidecar, list};
use crate::kind::field::{Errors, Path};
use crate::kind::quantity::{self, Amount};
use crate::kind::resources::{self, Resources, is_pod_level};

fn of_containers(spec: &PodSpec, of: impl Fn(&Container) -> Option<&Resources>) -> Resources {
    let add = |sum: &mut Resources, more: &Resources| {
        for (name, amount) in more {
            let known = sum.entry(name.clone()).or_insert_with(|| Quantity("0".to_owned()));
            *known = quantity::sum(known, amount);
        }
    };
    let raise = |to: &mut Resources, floor: &Resources| {
        for (name, amount) in floor {
            let known = to.entry(name.clone()).or_insert_with(|| amount.clone());
            if Amount::of(amount) > Amount::of(known) {
                known.clone_from(amount);
            }
        }
    };
    let nothing = Resources::new();
    let (mut sum, mut sidecars, mut starting) = (Resources::new(), Resources::new(), Resources::new());
    for container in &spec.containers {
        add(&mut sum, of(container).unwrap_or(&nothing));
    }
    for container in list(&spec.init_containers) {
        let asked = of(container).unwrap_or(&nothing);
        if is_sidecar(container) {
            add(&mut sum, asked);
            add(&mut sidecars, asked);
            raise(&mut starting, &sidecars);
        } else {
            let mut needs = sidecars.clone();
            add(&mut needs, asked);
            raise(&mut starting, &needs);
        }
    }
    raise(&mut sum, &starting);
    sum
}

/// What the containers ask for: the larger of what those need together that run together, and what an init
/// container needs while it runs, beside the sidecars started before it.
fn container_requests(spec: &PodSpec) -> Resources {
    of_containers(spec, |container| container.resources.as_ref()?.requests.as_ref())
}

/// What the pod itself asks for: nothing where its containers say it.
#[must_use]
pub fn own_requests(spec: &PodSpec) -> Option<&Resources> {
    spec.resources.as_ref()?.requests.as_ref()
}

/// What all containers of the pod may use together of a resource, if the pod says so.
#[must_use]
pub fn own_limit(spec: &PodSpec, name: &str) -> Option<Amount> {
    let limits = spec.resources.as_ref()?.limits.as_ref()?;
    limits.get(name).filter(|_| is_pod_level(name)).map(Amount::of).filter(|amount| !amount.is_zero())
}

/// What the pod asks for, with its overhead.
#[must_use]
pub fn requests(spec: &PodSpec) -> BTreeMap<String, Amount> {
    let asked = container_requests(spec);
    let mut asked: BTreeMap<String, Amount> =
        asked.iter().map(|(name, amount)| (name.clone(), Amount::of(amount))).collect();
    for (name, amount) in own_requests(spec).into_iter().flatten().filter(|(name, _)| is_pod_level(name)) {
        asked.insert(name.clone(), Amount::of(amount));
    }
    for (name, amount) in spec.overhead.iter().flatten() {
        let known = asked.entry(name.clone()).or_default();
        *known = *known + Amount::of(amount);
    }
    asked
}

/// A pod that limits itself asks for what its containers ask for, and for as much as it may have of what they
/// do not name. Its containers have their defaults. Idempotent.
pub(super) fn set_defaults(spec: &mut PodSpec) {
    let asked = container_requests(spec);
    let Some(own) = &mut spec.resources else { return };
    let Some(limits) = own.limits.as_ref().filter(|limits| !limits.is_empty()) else { return };
    let mut requests = own.requests.clone().unwrap_or_default();
    for (name, amount) in asked {
        if is_pod_level(&name) && resources::may_overcommit(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    for (name, limit) in limits.iter().filter(|(name, _)| is_pod_level(name)) {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
    own.requests = Some(requests).filter(|requests| !requests.is_empty());
}

/// The pod's own resources, and that its containers lie within them.
pub(super) fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(own) = &spec.resources else { return };
    let path_of_own = path.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors.forbidden(&path_of_own, "may not be set for a windows pod");
    }
    resources::validate_pod_requirements(errors, &path_of_own, own);
    for (name, asked) in container_requests(spec) {
        let Some(own) = own.requests.as_ref().and_then(|requests| requests.get(&name)) else { continue };
        if Amount::of(&asked) > Amount::of(own) {
            let why = format!("must be greater than or equal to aggregate container requests of {}", asked.0);
            errors.invalid(&path_of_own.child("requests").key(&name), &own.0, &why);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        for (name, limit) in limits.into_iter().flatten() {
            let Some(own) = own.limits.as_ref().and_then(|limits| limits.get(name)) else { continue };
            if Amount::of(limit) > Amount::of(own) {
                let path = path.child("containers").index(i).child("resources").child("limits").key(name);
                errors.invalid(
                    &path,
                    &limit.0,
                    &format!("must be less than or equal to pod limits of {}", own.0),
                );
            }
        }
    }
}
