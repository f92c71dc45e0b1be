//! Quality of service: who is squeezed first when a node runs short (BEHAVIOURS 9.3).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;

use crate::kind::quantity::Amount;
use crate::kind::resources::{self, Resources};

/// `Guaranteed`, `Burstable` or `BestEffort`, as upstream `helper/qos` computes it. Amounts of zero
/// count as absent.
#[must_use]
pub fn class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut all_limited = true;
    // A pod that speaks for itself speaks for its containers too.
    let own = spec.resources.as_ref().filter(|own| {
        let lists = [&own.requests, &own.limits];
        lists.into_iter().flatten().flatten().any(|(name, _)| resources::is_pod_level(name))
    });
    if let Some(own) = own {
        add(&mut requests, own.requests.as_ref());
        all_limited = add(&mut limits, own.limits.as_ref()) == 2;
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for container in containers.filter(|_| own.is_none()) {
        let resources = container.resources.as_ref();
        add(&mut requests, resources.and_then(|resources| resources.requests.as_ref()));
        let limited = add(&mut limits, resources.and_then(|resources| resources.limits.as_ref()));
        all_limited &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds cpu and memory of `more`; how many of the two it names.
fn add(sums: &mut BTreeMap<String, Amount>, more: Option<&Resources>) -> usize {
    let compute = more.into_iter().flatten().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
    let mut named = 0;
    for (name, amount) in compute {
        let amount = Amount::of(amount);
        if amount > Amount::default() {
            let sum = sums.entry(name.clone()).or_default();
            *sum = *sum + amount;
            named += 1;
        }
    }
    named
}
