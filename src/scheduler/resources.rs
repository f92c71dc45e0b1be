//! What pods ask for and nodes have, counted as the scheduler counts (BEHAVIOURS 15.1).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;

use crate::kind::pod::totals;
use crate::kind::quantity::Amount;
use crate::kind::resources::is_pod_level;

/// Thousandths of a core that a container without a cpu request counts as in scores
/// (kube-scheduler `DefaultMilliCPURequest`).
const SCORE_MILLI_CPU: i64 = 100;
/// Bytes that a container without a memory request counts as in scores
/// (kube-scheduler `DefaultMemoryRequest`, 200 MiB).
const SCORE_MEMORY: i64 = 200 << 20;

/// Amounts by resource; cpu in thousandths of a core, the rest in units, rounded up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages.
    pub others: BTreeMap<String, i64>,
}

type Quantities = BTreeMap<String, Quantity>;

impl Resources {
    /// Of an API list. `pods` is left out: it counts pods, it is not asked for.
    #[must_use]
    pub fn of(list: Option<&Quantities>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let amount = Amount::of(quantity);
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.millis(),
                "memory" => resources.memory = amount.units(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.units(),
                "pods" => {}
                _ => {
                    resources.others.insert(name.clone(), amount.units());
                }
            }
        }
        resources
    }

    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// The larger of the two, for each resource.
    fn raise_to(&mut self, floor: &Self) {
        self.combine(floor, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = with(*mine, *amount);
        }
    }
}

/// What a pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Decides whether the pod fits.
    pub exact: Resources,
    /// As scores see it: containers that ask for nothing count as something, so that such pods
    /// spread too.
    pub score_milli_cpu: i64,
    pub score_memory: i64,
}

impl Requests {
    #[must_use]
    pub fn of(spec: &PodSpec) -> Self {
        let asked = |container: &Container| Resources::of(requests(container.resources.as_ref()));
        let exact = total(spec, asked);
        let score = total(spec, |container| {
            let list = requests(container.resources.as_ref());
            let mut resources = asked(container);
            if list.is_none_or(|list| !list.contains_key("cpu")) {
                resources.milli_cpu = SCORE_MILLI_CPU;
            }
            if list.is_none_or(|list| !list.contains_key("memory")) {
                resources.memory = SCORE_MEMORY;
            }
            resources
        });
        Self { exact, score_milli_cpu: score.milli_cpu, score_memory: score.memory }
    }
}

fn requests(resources: Option<&ResourceRequirements>) -> Option<&Quantities> {
    resources.and_then(|resources| resources.requests.as_ref())
}

/// The larger of what the app containers need together and what any init container needs while it
/// runs, beside the sidecars started before it, but for what the pod asks for as a whole; plus the overhead.
fn total(spec: &PodSpec, asked: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&asked(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needs = asked(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&needs);
            sidecars.add(&needs);
            starting.raise_to(&sidecars);
        } else {
            needs.add(&sidecars);
            starting.raise_to(&needs);
        }
    }
    sum.raise_to(&starting);
    // What the pod asks for itself, all its containers have together.
    for (name, quantity) in totals::own_requests(spec).into_iter().flatten() {
        let amount = Amount::of(quantity);
        match name.as_str() {
            "cpu" => sum.milli_cpu = amount.millis(),
            "memory" => sum.memory = amount.units(),
            _ if is_pod_level(name) => {
                sum.others.insert(name.clone(), amount.units());
            }
            _ => {}
        }
    }
    sum.add(&Resources::of(spec.overhead.as_ref()));
    sum
}
