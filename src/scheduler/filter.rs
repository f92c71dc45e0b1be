//! Which nodes a pod can run on, and what Kubernetes says of those it cannot (BEHAVIOURS 15.1 to
//! 15.4). Filters are asked in kube-scheduler's order and the first that refuses speaks.
//!
//! There is no filter by `spec.nodeName`: a pod that names its node is bound already and never gets
//! here (15.7).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::cache::{Cache, ClassId, NodeId, NodeState};
use super::diagnosis::Diagnosis;
use super::shape::Shape;
use super::tree::{Amounts, NO_NEED};
use crate::kind::{node_selector, taint};

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// In kube-scheduler's words; several if several resources are short.
    pub reasons: Vec<String>,
    /// Removing other pods could not help.
    pub unresolvable: bool,
    pub blocker: Blocker,
}

impl Refusal {
    pub(super) fn new(reason: impl Into<String>, unresolvable: bool, blocker: Blocker) -> Self {
        Self { reasons: vec![reason.into()], unresolvable, blocker }
    }
}

/// What must change before a refusal can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// The node itself: its labels, taints or capacity.
    Node,
    /// Pods on the node: the room and the ports they take.
    Room,
    /// Pods anywhere, by affinity and spreading.
    Pods,
}

/// What selectors, taints and `unschedulable` say of a node or a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fits(Liking),
    Refused(Refusal),
}

/// Marks of a node that fits, still to be normalized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liking {
    /// Weights of preferred node affinity terms that match.
    pub preferred: i64,
    /// `PreferNoSchedule` taints that are not tolerated.
    pub disliked_taints: i64,
}

/// The classes that fit a shape, the best liked first.
pub type Fits = Arc<Vec<(ClassId, Liking)>>;

/// What was found out about a shape, while it holds.
#[derive(Debug, Default)]
pub struct Memo {
    /// Good for one generation of classes.
    pub(super) fits: Option<(u64, Fits)>,
    /// The last failure; good until something gives relief.
    pub(super) failure: Option<(u64, Arc<Diagnosis>)>,
}

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
pub(super) const AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";

/// Judges what is written on a node. With `by_name` false, selectors are passed over, because they
/// name nodes and `node` stands for a class.
#[must_use]
pub fn judge(shape: &Shape, node: &Node, by_name: bool) -> Verdict {
    let spec = node.spec.as_ref();
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        let cordon =
            Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !taint::tolerates(&shape.tolerations, &cordon) {
            return Verdict::Refused(Refusal::new("node(s) were unschedulable", true, Blocker::Node));
        }
    }
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    if let Some(taint) = taint::untolerated(taints, &shape.tolerations, &["NoSchedule", "NoExecute"]) {
        let value = taint.value.as_deref().unwrap_or_default();
        let reason = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
        return Verdict::Refused(Refusal::new(reason, true, Blocker::Node));
    }
    let mut liking = Liking {
        disliked_taints: taints
            .iter()
            .filter(|t| t.effect == "PreferNoSchedule" && !taint::tolerates(&shape.tolerations, t))
            .count()
            .try_into()
            .unwrap_or(i64::MAX),
        ..Liking::default()
    };
    if by_name || !shape.names_nodes() {
        if !selected(shape, node) {
            return Verdict::Refused(Refusal::new(AFFINITY, true, Blocker::Node));
        }
        liking.preferred = node_selector::preferred_weight(shape.preferred_nodes(), node);
    }
    Verdict::Fits(liking)
}

/// `nodeSelector` and the required node affinity.
pub(super) fn selected(shape: &Shape, node: &Node) -> bool {
    let none = std::collections::BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    node_selector::matches_map(&shape.node_selector, labels)
        && shape.required_nodes().is_none_or(|required| node_selector::matches(required, node))
}

/// Judges the room and the ports that other pods have left on a node.
#[must_use]
pub fn room(shape: &Shape, state: &NodeState) -> Option<Refusal> {
    if shape.ports.iter().any(|wanted| state.ports.iter().any(|taken| taken.conflicts(wanted))) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Some(Refusal::new(reason, false, Blocker::Room));
    }
    let mut refusal = Refusal { reasons: Vec::new(), unresolvable: false, blocker: Blocker::Room };
    if state.pods + 1 > state.pods_max {
        refusal.reasons.push("Too many pods".into());
    }
    let mut need = |name: &str, asked: i64, used: i64, all: i64| {
        if asked > 0 && asked > all.saturating_sub(used) {
            refusal.reasons.push(format!("Insufficient {name}"));
            refusal.unresolvable |= asked > all;
        }
    };
    let (asked, used, all) = (&shape.requests.exact, &state.requested, &state.allocatable);
    need("cpu", asked.milli_cpu, used.milli_cpu, all.milli_cpu);
    need("memory", asked.memory, used.memory, all.memory);
    need("ephemeral-storage", asked.ephemeral_storage, used.ephemeral_storage, all.ephemeral_storage);
    let of =
        |list: &std::collections::BTreeMap<String, i64>, name: &str| list.get(name).copied().unwrap_or(0);
    for (name, amount) in &asked.others {
        need(name, *amount, of(&used.others, name), of(&all.others, name));
    }
    (!refusal.reasons.is_empty()).then_some(refusal)
}

/// What a node must have free, as far as the tree knows.
#[must_use]
pub fn need(shape: &Shape) -> Amounts {
    let asked = &shape.requests.exact;
    let at_least = |amount: i64| if amount > 0 { amount } else { NO_NEED };
    [at_least(asked.milli_cpu), at_least(asked.memory), at_least(asked.ephemeral_storage), 1]
}

/// The classes that fit the shape, the best liked first, then by age.
#[must_use]
pub fn classes(cache: &Cache, shape: &Shape) -> Fits {
    let mut memo = shape.memo.lock().expect("nothing panics under this lock");
    if let Some((generation, fits)) = &memo.fits
        && *generation == cache.classes_generation
    {
        return fits.clone();
    }
    let mut fits = Vec::new();
    let mut look = |id: ClassId| {
        if let Some(class) = cache.class(id)
            && let Verdict::Fits(liking) = judge(shape, &class.sample, false)
        {
            fits.push((id, liking));
        }
    };
    // Only classes with the rarest label that the selector wants can fit.
    let labelled = shape
        .node_selector
        .iter()
        .filter(|(key, _)| *key != super::shape::HOSTNAME)
        .map(|(key, value)| cache.classes_with(key, value))
        .min_by_key(|ids| ids.map_or(0, std::collections::BTreeSet::len));
    match labelled {
        Some(ids) => ids.into_iter().flatten().copied().for_each(&mut look),
        None => cache.classes().for_each(|(id, _)| look(id)),
    }
    fits.sort_by_key(|(id, liking)| (std::cmp::Reverse(liking.preferred), liking.disliked_taints, *id));
    let fits = Arc::new(fits);
    memo.fits = Some((cache.classes_generation, fits.clone()));
    fits
}

/// The full judgement of one node, as a failure is explained; `None` if it fits.
#[must_use]
pub fn refusal(shape: &Shape, cache: &Cache, id: NodeId, verdict: &Verdict) -> Option<Refusal> {
    let state = cache.node(id);
    if let Verdict::Refused(refusal) = verdict {
        return Some(refusal.clone());
    }
    if shape.names_nodes()
        && let Some(node) = &state.node
        && !selected(shape, node)
    {
        return Some(Refusal::new(AFFINITY, true, Blocker::Node));
    }
    room(shape, state)
}
