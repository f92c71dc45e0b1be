//! How many replicas the sets of a deployment are to have (upstream `deployment_util.go`, `rolling.go`).

use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet};

use crate::kind::deployment::ROLLING_UPDATE;
use crate::kind::workload::scaled;

/// What a deployment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) replicas: i32,
    /// Old and new pods live side by side.
    pub(super) rolls: bool,
    /// Pods above `replicas` that there may be in all.
    pub(super) surge: i32,
    /// Pods below `replicas` that may be unavailable.
    pub(super) unavailable: i32,
}

impl Limits {
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or_default();
        let strategy = spec.strategy.as_ref();
        let rolls = strategy.and_then(|one| one.type_.as_deref()) == Some(ROLLING_UPDATE);
        if !rolls {
            return Self { replicas, rolls, surge: 0, unavailable: 0 };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = scaled(rolling.and_then(|one| one.max_surge.as_ref()), replicas, true);
        let unavailable = scaled(rolling.and_then(|one| one.max_unavailable.as_ref()), replicas, false);
        // Rounding must not forbid every step.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { replicas, rolls, surge, unavailable: unavailable.min(replicas) }
    }

    fn available_min(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// What of a replica set matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) replicas: i32,
    pub(super) available: i32,
    /// The most pods that the deployment allowed when the set was scaled last.
    pub(super) max: Option<i32>,
}

impl Set {
    pub(super) fn of(set: &ReplicaSet) -> Self {
        let max = super::number(&set.metadata, super::MAX).and_then(|max| i32::try_from(max).ok());
        Self { replicas: super::replicas(set), available: super::available(set), max }
    }
}

fn total(sets: &[Set]) -> i32 {
    sets.iter().map(|set| set.replicas).sum()
}

/// The size of the new set beside the old ones (`NewRSNewReplicas`, and no more than wanted).
pub(super) fn grown(limits: &Limits, new: Set, old: &[Set]) -> i32 {
    if !limits.rolls || new.replicas >= limits.replicas {
        return limits.replicas;
    }
    let room = limits.replicas + limits.surge - new.replicas - total(old);
    new.replicas + room.min(limits.replicas - new.replicas).max(0)
}

/// The sizes of the old sets, given by age: what is not available goes first, then as many as there are
/// available ones to spare (`reconcileOldReplicaSets`).
pub(super) fn shrunk(limits: &Limits, new: Set, old: &[Set]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
    let all = new.replicas + total(old);
    let spare = all - limits.available_min() - (new.replicas - new.available);
    if total(old) == 0 || spare <= 0 {
        return sizes;
    }
    let mut left = spare;
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = (set.replicas - set.available).clamp(0, left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut left = (available - limits.available_min()).max(0);
    for size in &mut sizes {
        let fewer = (*size).min(left);
        *size -= fewer;
        left -= fewer;
    }
    sizes
}

/// A changed number of replicas shared among the sets in proportion to their sizes; `there` is the
/// deployment's own count. The sets are given by age, the sizes returned in that order.
pub(super) fn shared(limits: &Limits, sets: &[Set], there: i32) -> Vec<i32> {
    let allowed = if limits.replicas > 0 { limits.replicas + limits.surge } else { 0 };
    let to_add = allowed - total(sets);
    // The largest first; of equal ones the newest when growing, the oldest when shrinking.
    let mut order: Vec<usize> = (0..sets.len()).collect();
    if to_add > 0 {
        order.reverse();
    }
    order.sort_by_key(|i| std::cmp::Reverse(sets[*i].replicas));
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
    if to_add == 0 {
        return sizes;
    }
    let mut added = 0;
    for &i in &order {
        let left = to_add - added;
        let fraction = if left == 0 { 0 } else { fraction(limits, sets[i], there) };
        let change = if to_add > 0 { fraction.min(left) } else { fraction.max(left) };
        sizes[i] += change;
        added += change;
    }
    if let Some(&first) = order.first() {
        sizes[first] = (sizes[first] + to_add - added).max(0);
    }
    sizes
}

/// By how much a set grows when the deployment does (`getReplicaSetFraction`).
fn fraction(limits: &Limits, set: Set, there: i32) -> i32 {
    if limits.replicas == 0 {
        return -set.replicas;
    }
    let before = i64::from(set.max.filter(|max| *max > 0).unwrap_or(there));
    if before == 0 {
        return 0;
    }
    // Rounded half away from zero; both factors are positive.
    let product = i64::from(set.replicas) * i64::from(limits.replicas + limits.surge);
    let size = (2 * product + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> Limits {
        let spec = json!({
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
        });
        Limits::of(&serde_json::from_value(spec).unwrap())
    }

    fn set(replicas: i32, available: i32) -> Set {
        Set { replicas, available, max: None }
    }

    #[test]
    fn limits_are_rounded_so_that_there_is_a_step() {
        let quarter = || json!("25%");
        for (replicas, surge, unavailable, expected) in [
            (10, quarter(), quarter(), (3, 2)),
            (1, quarter(), quarter(), (1, 0)),
            (4, quarter(), quarter(), (1, 1)),
            (3, json!(0), json!("10%"), (0, 1)),
            (0, quarter(), quarter(), (0, 0)),
            (2, json!(0), json!(5), (0, 2)),
        ] {
            let found = limits(replicas, surge, unavailable);
            assert_eq!((found.surge, found.unavailable), expected, "{replicas}");
        }
        let recreate =
            json!({ "replicas": 3, "selector": {}, "template": {}, "strategy": { "type": "Recreate" } });
        let found = Limits::of(&serde_json::from_value(recreate).unwrap());
        assert_eq!(found, Limits { replicas: 3, rolls: false, surge: 0, unavailable: 0 });
    }

    /// Upstream's `TestDeploymentController_reconcileNewReplicaSet`, and what lies beyond it.
    #[test]
    fn the_new_set_grows_as_the_surge_allows() {
        for (replicas, surge, new, old, expected) in [
            (10, 0, 0, 10, 0),
            (10, 2, 0, 10, 2),
            (10, 2, 0, 5, 7),
            (10, 2, 0, 10, 2),
            (10, 2, 2, 10, 2),
            (10, 0, 10, 0, 10),
            (10, 2, 11, 5, 10),
        ] {
            let found = grown(&limits(replicas, json!(surge), json!(1)), set(new, 0), &[set(old, old)]);
            assert_eq!(found, expected, "{replicas} {surge} {new} {old}");
        }
    }

    /// Upstream's `TestDeploymentController_reconcileOldReplicaSets`, in terms of counts.
    #[test]
    fn old_sets_shrink_as_availability_allows() {
        for (what, replicas, unavailable, new, old, expected) in [
            ("nothing to spare", 10, 0, set(0, 0), vec![set(10, 10)], vec![10]),
            ("down to what must be", 10, 2, set(0, 0), vec![set(10, 10)], vec![8]),
            ("the unavailable first", 10, 2, set(0, 0), vec![set(10, 8)], vec![8]),
            ("unavailable new ones count", 10, 2, set(2, 0), vec![set(10, 10)], vec![8]),
            ("available new ones too", 10, 0, set(2, 2), vec![set(10, 10)], vec![8]),
            ("the oldest first", 10, 2, set(0, 0), vec![set(3, 3), set(7, 7)], vec![1, 7]),
            ("the sick of all, then the oldest", 10, 2, set(3, 3), vec![set(3, 3), set(7, 5)], vec![0, 5]),
            ("new ones that never come up hold", 10, 2, set(5, 0), vec![set(8, 8)], vec![8]),
            ("everything at the end", 10, 2, set(10, 10), vec![set(2, 2)], vec![0]),
            ("without replicas", 0, 0, set(0, 0), vec![set(3, 3)], vec![0]),
        ] {
            let limits = limits(replicas, json!(1), json!(unavailable));
            assert_eq!(shrunk(&limits, new, &old), expected, "{what}");
        }
    }

    /// Upstream's `TestScale` in terms of counts; sets by age.
    #[test]
    fn a_change_is_shared_in_proportion() {
        let sized = |size: i32, max: i32| Set { replicas: size, available: size, max: Some(max) };
        for (what, replicas, surge, sets, expected) in [
            ("growing half way", 12, 0, vec![sized(5, 10), sized(5, 10)], vec![6, 6]),
            ("shrinking half way", 5, 0, vec![sized(5, 10), sized(5, 10)], vec![2, 3]),
            ("the larger gets more", 10, 0, vec![sized(1, 5), sized(4, 5)], vec![2, 8]),
            (
                "the leftover to the newest largest",
                12,
                0,
                vec![sized(3, 10), sized(3, 10), sized(4, 10)],
                vec![3, 4, 5],
            ),
            ("three equal ones", 20, 0, vec![sized(5, 15), sized(5, 15), sized(5, 15)], vec![6, 7, 7]),
            ("to nothing", 0, 0, vec![sized(5, 10), sized(5, 10)], vec![0, 0]),
            ("with a surge", 20, 6, vec![sized(5, 13), sized(8, 13)], vec![10, 16]),
            ("nothing changes", 10, 0, vec![sized(4, 10), sized(6, 10)], vec![4, 6]),
        ] {
            let limits = limits(replicas, json!(surge), json!(1));
            assert_eq!(shared(&limits, &sets, 10), expected, "{what}");
        }
        // Without the note of what was allowed, the deployment's own count serves.
        assert_eq!(shared(&limits(20, json!(0), json!(1)), &[set(5, 5), set(5, 5)], 10), [10, 10]);
        assert_eq!(shared(&limits(20, json!(0), json!(1)), &[set(5, 5), set(5, 5)], 0), [5, 15]);
    }

    /// Whatever the sizes: never more in all than allowed, and each step leads on.
    #[test]
    fn a_rollout_reaches_its_end() {
        for (replicas, surge, unavailable) in [(1, 1, 0), (10, 3, 2), (7, 0, 1), (5, 5, 5), (3, 1, 0)] {
            let limits = limits(replicas, json!(surge), json!(unavailable));
            let (mut new, mut old) = (Set::default(), vec![set(replicas, replicas)]);
            for step in 0..100 {
                let size = grown(&limits, new, &old);
                if size == new.replicas {
                    let sizes = shrunk(&limits, new, &old);
                    old = sizes.into_iter().map(|size| set(size, size)).collect();
                } else {
                    new = set(size, new.available);
                }
                assert!(new.replicas + total(&old) <= replicas + surge, "step {step} of {limits:?}");
                let available = new.available + old[0].available;
                assert!(available >= replicas - limits.unavailable, "step {step} of {limits:?}");
                if size == new.replicas {
                    new.available = new.replicas;
                }
                if old[0].replicas == 0 && new.available == replicas {
                    break;
                }
                assert!(step < 99, "{limits:?} gets stuck at {new:?} {old:?}");
            }
        }
    }
}
