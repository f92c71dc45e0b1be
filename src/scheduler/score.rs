//! Which of the nodes that fit is best (BEHAVIOURS 15.6).
//!
//! Every score is brought to 0..=100 among the candidates before its weight counts. Image locality
//! is not scored: nodes of this cluster share their images.

use super::cache::NodeState;
use super::filter::Liking;
use super::shape::Shape;

pub const MAX: i64 = 100;

const TAINTS_WEIGHT: i64 = 3;
const NODE_AFFINITY_WEIGHT: i64 = 2;
const SPREAD_WEIGHT: i64 = 2;
const POD_AFFINITY_WEIGHT: i64 = 2;

/// What is known of one candidate before it is compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    pub liking: Liking,
    /// Pods of the same group there, or in the same domains.
    pub crowd: i64,
    /// Weights of preferred pod affinity, less those of anti-affinity.
    pub company: i64,
    /// [`least_allocated`] and [`balanced`], together.
    pub room: i64,
}

/// The candidates' total scores.
#[must_use]
pub fn totals(marks: &[Marks]) -> Vec<i64> {
    let most = |of: fn(&Marks) -> i64| marks.iter().map(of).max().unwrap_or(0);
    let least = |of: fn(&Marks) -> i64| marks.iter().map(of).min().unwrap_or(0);
    let most_preferred = most(|m| m.liking.preferred);
    let most_disliked = most(|m| m.liking.disliked_taints);
    let most_crowd = most(|m| m.crowd);
    let least_crowd = least(|m| m.crowd);
    let (least_company, most_company) = (least(|m| m.company), most(|m| m.company));
    marks
        .iter()
        .map(|m| {
            let affinity = part(m.liking.preferred, most_preferred, 0);
            let taints = MAX - part(m.liking.disliked_taints, most_disliked, 0);
            let spread = part(most_crowd + least_crowd - m.crowd, most_crowd, MAX);
            let company = part(m.company - least_company, most_company - least_company, 0);
            NODE_AFFINITY_WEIGHT * affinity
                + TAINTS_WEIGHT * taints
                + SPREAD_WEIGHT * spread
                + POD_AFFINITY_WEIGHT * company
                + m.room
        })
        .collect()
}

/// `value` as a share of `most`; `otherwise` if there is nothing to compare.
fn part(value: i64, most: i64, otherwise: i64) -> i64 {
    if most > 0 { value.saturating_mul(MAX) / most } else { otherwise }
}

/// Room in cpu and memory once the pod is there, as scores count requests
/// (kube-scheduler `leastResourceScorer`).
#[must_use]
pub fn least_allocated(shape: &Shape, state: &NodeState) -> i64 {
    let left = |all: i64, used: i64| if all <= 0 || used > all { 0 } else { part(all - used, all, 0) };
    let cpu = left(state.allocatable.milli_cpu, state.score_milli_cpu + shape.requests.score_milli_cpu);
    let memory =
        left(state.allocatable.memory, state.score_memory.saturating_add(shape.requests.score_memory));
    (cpu + memory) / 2
}

/// How evenly cpu and memory are used once the pod is there
/// (kube-scheduler `balancedResourceScorer`): 100 less half the distance of the shares.
#[must_use]
pub fn balanced(shape: &Shape, state: &NodeState) -> i64 {
    const FINE: i64 = 10_000;
    let share = |all: i64, used: i64| {
        let share = i128::from(used.max(0)) * i128::from(FINE) / i128::from(all.max(1));
        i64::try_from(share).unwrap_or(FINE).min(FINE)
    };
    let asked = &shape.requests.exact;
    let cpu = share(state.allocatable.milli_cpu, state.requested.milli_cpu + asked.milli_cpu);
    let memory = share(state.allocatable.memory, state.requested.memory.saturating_add(asked.memory));
    (FINE - (cpu - memory).abs() / 2) * MAX / FINE
}
