//! Which pods a Job makes, and which it drops (BEHAVIOURS 13.4, 13.8, 13.12).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::api::core::v1::Pod;

use super::super::backoff::{self, Backoff};
use super::super::make::{self, Place};
use super::super::pods;
use super::{PODS_MAX, Sync, Verdict, size};
use crate::kind::job::indexes::Indexes;
use crate::kind::job::is_suspended;

impl<'a> Sync<'a> {
    /// Pods to make or to drop (BEHAVIOURS 13.4, 13.8, 13.12).
    pub(super) fn manage(&mut self) {
        let mut drop = self.sorted.half_dropped.clone();
        if is_suspended(self.spec) {
            drop.extend(&self.sorted.active);
            self.plan.drop = drop.into_iter().take(PODS_MAX).collect();
            return;
        }
        let (twins, mut left) = self.superfluous();
        drop.extend(twins);
        let wanted = self.wanted(left.len());
        if left.len() > wanted {
            left.sort_by_cached_key(|pod| pods::rank(pod));
            drop.extend(left.iter().take(left.len() - wanted));
        }
        self.plan.drop = drop.into_iter().take(PODS_MAX).collect();
        if !self.plan.drop.is_empty() {
            // What is to be made is known when these are gone.
            return;
        }
        let waits_for_the_going = pods::replaces_only_failed(self.job);
        let in_place = left.len() + if waits_for_the_going { self.sorted.going } else { 0 };
        let missing = wanted.saturating_sub(in_place).min(PODS_MAX);
        if missing == 0 {
            return;
        }
        if self.failed_indexes.is_none() {
            let wait = self.backoff().left(self.now);
            if !wait.is_zero() {
                return self.again(wait);
            }
        }
        self.plan.create = self.places(missing, &left);
    }

    /// Running pods that are for nothing: of an index or node that another is for, or that is not the
    /// Job's; and the others.
    fn superfluous(&self) -> (Vec<&'a Pod>, Vec<&'a Pod>) {
        if let Some(nodes) = &self.nodes {
            let node = |pod: &Pod| pods::meant_for(pod).filter(|_| nodes.needs(pod)).map(str::to_owned);
            return self.first_of_each(node);
        }
        if !self.is_indexed() {
            return (Vec::new(), self.sorted.active.clone());
        }
        self.first_of_each(|pod| {
            pods::valid_index(pod, self.spec)
                .filter(|index| !self.failed_indexes.as_ref().is_some_and(|failed| failed.contains(*index)))
        })
    }

    /// Of pods for the same, all but the most advanced are superfluous.
    fn first_of_each<T: Ord>(&self, what: impl Fn(&Pod) -> Option<T>) -> (Vec<&'a Pod>, Vec<&'a Pod>) {
        let mut best: BTreeMap<T, &'a Pod> = BTreeMap::new();
        let mut twins = Vec::new();
        for &pod in &self.sorted.active {
            let Some(what) = what(pod) else {
                twins.push(pod);
                continue;
            };
            match best.get_mut(&what) {
                None => {
                    best.insert(what, pod);
                }
                Some(other) if pods::rank(other) < pods::rank(pod) => {
                    twins.push(std::mem::replace(other, pod));
                }
                Some(_) => twins.push(pod),
            }
        }
        (twins, best.into_values().collect())
    }

    /// How many pods are to run.
    fn wanted(&self, active: usize) -> usize {
        let parallelism = self.spec.parallelism.map_or(usize::MAX, size);
        if let Some(nodes) = &self.nodes {
            return nodes.left(&self.sorted.tracked).len().min(parallelism);
        }
        match self.spec.completions {
            // One success tells that the work is done; the others may end what they do.
            None if self.succeeded() > 0 => active,
            None => parallelism,
            Some(completions) => {
                let failed = self.failed_indexes.as_ref().map_or(0, Indexes::total);
                let done = self.succeeded() + failed;
                size(completions).saturating_sub(usize::try_from(done).unwrap_or(usize::MAX)).min(parallelism)
            }
        }
    }

    fn backoff(&self) -> Backoff {
        let before = Backoff::read(self.annotations.get(backoff::ANNOTATION).map(String::as_str));
        let (succeeded, failed) = self.ends(self.unlisted());
        before.after(&succeeded, &failed)
    }

    fn places(&mut self, missing: usize, active: &[&Pod]) -> Vec<Place> {
        if let Some(nodes) = &self.nodes {
            let busy: HashSet<&str> = active.iter().filter_map(|pod| pods::meant_for(pod)).collect();
            let left = nodes.left(&self.sorted.tracked).into_iter();
            let free = left.filter(|node| !busy.contains(node)).take(missing);
            return free.map(|node| Place::Node(node.to_owned())).collect();
        }
        if !self.is_indexed() {
            return vec![Place::Any; missing];
        }
        let mut busy: BTreeSet<u32> = active.iter().filter_map(|pod| pods::index(pod)).collect();
        if pods::replaces_only_failed(self.job) {
            let going = self.sorted.tracked.iter().filter(|pod| pods::is_going(pod) && !pods::is_over(pod));
            busy.extend(going.filter_map(|pod| pods::index(pod)));
        }
        let mut taken = self.succeeded_indexes.with(busy);
        if let Some(failed) = &self.failed_indexes {
            let failed: Vec<u32> = (0..self.completions()).filter(|index| failed.contains(*index)).collect();
            taken = taken.with(failed);
        }
        let pending = taken.first_missing(missing, self.completions());
        if self.failed_indexes.is_none() {
            return pending.into_iter().map(|index| Place::Index(index, None)).collect();
        }
        let mut places = Vec::new();
        let mut waits = Vec::new();
        for index in pending {
            let last = self.kept.get(&index).copied();
            let counts = |pod: &Pod| self.policy.verdict(pod) != Verdict::Ignore;
            let (counted, ignored) = make::failures_after(last, counts);
            let failures = u32::try_from(counted + ignored).unwrap_or_default();
            let wait = Backoff { failures, last: last.map(pods::ended_at) }.left(self.now);
            if wait.is_zero() {
                places.push(Place::Index(index, Some((counted, ignored))));
            } else {
                waits.push(wait);
            }
        }
        if let Some(wait) = waits.into_iter().min() {
            self.again(wait);
        }
        places
    }

    /// Whether all that was wanted has been done, with `active` pods still at it.
    pub(super) fn is_complete(&self, active: usize) -> bool {
        if let Some(nodes) = &self.nodes {
            return active == 0 && nodes.is_complete(&self.sorted.tracked, &self.annotations);
        }
        match self.spec.completions {
            None => self.succeeded() > 0 && active == 0,
            Some(_) => self.succeeded() >= self.completions() && active == 0,
        }
    }
}
