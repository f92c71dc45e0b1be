//! What a pod's containers may use, by themselves and together, as pure functions of its spec.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::fields;
use crate::clock::Clock;
use crate::kind::pod::{is_sidecar, totals};
use crate::kind::quantity::Amount;
use crate::runtime::budget::{Budget, Limits};

#[cfg(test)]
mod tests;

fn units(amount: Amount) -> Option<u64> {
    u64::try_from(amount.units()).ok()
}

fn millis(amount: Amount) -> Option<u64> {
    u64::try_from(amount.millis()).ok()
}

/// What all containers of a pod draw on together, if it has limits of its own (`spec.resources`).
pub(crate) fn of_pod(pod: &Pod, clock: Clock) -> Option<Arc<Budget>> {
    let spec = pod.spec.as_ref()?;
    let memory = totals::own_limit(spec, "memory").and_then(units);
    let cpu = totals::own_limit(spec, "cpu").and_then(millis);
    let limits = Limits { memory, cpu, cpu_request: None };
    (memory.is_some() || cpu.is_some()).then(|| Budget::new(limits, clock, None))
}

/// What a container may use: by its own limits, or its pod's; memory is never without, but has the node's.
pub(crate) fn of_container(
    pod: &Pod,
    container: &Container,
    capacity: &BTreeMap<String, Quantity>,
) -> Limits {
    let memory = fields::bound(pod, container, "memory").or_else(|| capacity.get("memory").map(Amount::of));
    Limits {
        memory: memory.and_then(units),
        cpu: fields::bound(pod, container, "cpu").and_then(millis),
        cpu_request: cpu_request(pod, container),
    }
}

/// What a container asks for, by which it weighs among others that compute. Those that ask for nothing in a
/// pod that asks for itself have equal parts of what the others leave of that.
fn cpu_request(pod: &Pod, container: &Container) -> Option<u64> {
    if let Some(own) = fields::request(container, "cpu") {
        return millis(own);
    }
    let spec = pod.spec.as_ref()?;
    let whole = millis(Amount::of(totals::own_requests(spec)?.get("cpu")?))?;
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let requests = spec.containers.iter().chain(sidecars).map(|container| fields::request(container, "cpu"));
    let (mut named, mut unnamed) = (0, 0_u64);
    for request in requests {
        match request {
            Some(request) => named += millis(request).unwrap_or_default(),
            None => unnamed += 1,
        }
    }
    // An init container that runs to its end has the pod for itself.
    Some(whole.saturating_sub(named) / unnamed.max(1))
}
