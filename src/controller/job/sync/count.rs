//! How pods that have ended are counted, exactly once (BEHAVIOURS 13.3).

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::super::backoff::{self, Backoff};
use super::super::pods;
use super::end::End;
use super::{Sync, Verdict, count, size};
use crate::kind::job::indexes::Indexes;

/// Pods that one write of the status lists to be counted (upstream's `MaxUncountedPods`).
const UNCOUNTED_MAX: usize = 500;

impl<'a> Sync<'a> {
    /// Pods that wait to be counted, are the Job's to count and have not been listed yet.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = &'a Pod> {
        let listed: HashSet<&str> =
            self.uncounted_succeeded.iter().chain(&self.uncounted_failed).map(String::as_str).collect();
        let pods = self.sorted.tracked.iter().copied();
        pods.filter(move |pod| !listed.contains(pods::uid(pod)) && pods::is_valid(pod, self.spec))
    }

    /// Third step: what was listed and has lost its finalizer is counted.
    pub(super) fn count_released(&mut self) {
        let tracked: HashSet<&str> = self.sorted.tracked.iter().map(|pod| pods::uid(pod)).collect();
        let count_gone = |uids: &mut Vec<String>, counter: &mut Option<i32>| {
            let before = uids.len();
            uids.retain(|uid| tracked.contains(uid.as_str()));
            let gone = before - uids.len();
            if gone > 0 {
                *counter = Some(counter.unwrap_or_default().saturating_add(count(gone)));
            }
        };
        count_gone(&mut self.uncounted_succeeded, &mut self.status.succeeded);
        count_gone(&mut self.uncounted_failed, &mut self.status.failed);
    }

    pub(super) fn find_indexes(&mut self) {
        if !self.is_indexed() {
            return;
        }
        let completions = self.completions();
        let text = self.before.completed_indexes.as_deref().unwrap_or_default();
        let of = |wanted: &dyn Fn(&Pod) -> bool| -> BTreeSet<u32> {
            let pods = self.sorted.tracked.iter().filter(|pod| wanted(pod));
            pods.filter_map(|pod| pods::valid_index(pod, self.spec)).collect()
        };
        let succeeded = of(&|pod| pods::phase(pod) == "Succeeded");
        self.succeeded_indexes = Indexes::read(text, completions).with(succeeded);
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let text = self.before.failed_indexes.as_deref().unwrap_or_default();
        let failed = of(&|pod| {
            self.has_failed(pod)
                && match self.policy.verdict(pod) {
                    Verdict::FailIndex => true,
                    Verdict::Ignore => false,
                    Verdict::Count | Verdict::FailJob(_) => pods::index_failures(pod) >= limit,
                }
        });
        let failed: BTreeSet<u32> =
            failed.into_iter().filter(|index| !self.succeeded_indexes.contains(*index)).collect();
        let failed = Indexes::read(text, completions).with(failed);
        let active: HashSet<u32> = self.sorted.active.iter().filter_map(|pod| pods::index(pod)).collect();
        let attempts = |pod: &Pod| pods::index_failures(pod) + pods::index_ignored_failures(pod);
        for &pod in self.sorted.tracked.iter().filter(|pod| pods::has_failed(pod, self.job)) {
            let Some(index) = pods::valid_index(pod, self.spec) else { continue };
            if active.contains(&index) || failed.contains(index) || self.succeeded_indexes.contains(index) {
                continue;
            }
            let last = self.kept.entry(index).or_insert(pod);
            if (attempts(last), pods::ended_at(last)) <= (attempts(pod), pods::ended_at(pod)) {
                *last = pod;
            }
        }
        self.failed_indexes = Some(failed);
    }

    /// Successes, counted or not.
    pub(super) fn succeeded(&self) -> u32 {
        if self.is_indexed() {
            return self.succeeded_indexes.total();
        }
        let new = self.unlisted().filter(|pod| pods::phase(pod) == "Succeeded").count();
        let known = size(self.status.succeeded.unwrap_or_default()) + self.uncounted_succeeded.len();
        u32::try_from(known + new).unwrap_or(u32::MAX)
    }

    /// Failures, counted or not, without those that the policy ignores.
    pub(super) fn failed(&self) -> i32 {
        let counts = |pod: &&Pod| self.has_failed(pod) && self.policy.verdict(pod) != Verdict::Ignore;
        let new = self.unlisted().filter(counts).count();
        self.status.failed.unwrap_or_default().saturating_add(count(self.uncounted_failed.len() + new))
    }

    pub(super) fn ends(&self, pods: impl Iterator<Item = &'a Pod>) -> (Vec<Timestamp>, Vec<Timestamp>) {
        let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
        for pod in pods {
            if pods::phase(pod) == "Succeeded" {
                succeeded.push(pods::ended_at(pod));
            } else if self.has_failed(pod) {
                failed.push(pods::ended_at(pod));
            }
        }
        (succeeded, failed)
    }

    /// First step: pods that have ended are listed, and lose their finalizer once that is written.
    pub(super) fn list_ended(&mut self, end: Option<&End>) {
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        let failing = matches!(end, Some(End::Failure { .. }));
        let listed: HashSet<String> =
            self.uncounted_succeeded.iter().chain(&self.uncounted_failed).cloned().collect();
        let mut newly = Vec::new();
        for &pod in &self.sorted.tracked.clone() {
            let over = pods::is_over(pod) || pods::is_going(pod);
            let failed = self.has_failed(pod);
            let succeeded = pods::phase(pod) == "Succeeded";
            let kept = failed
                && end.is_none()
                && !deleting
                && pods::valid_index(pod, self.spec).is_some_and(|index| {
                    self.kept.get(&index).is_some_and(|kept| pods::uid(kept) == pods::uid(pod))
                });
            let done = succeeded || (failed && !kept) || (end.is_some() && over) || deleting;
            if !done {
                continue;
            }
            self.plan.release.push(pod);
            let uid = pods::uid(pod);
            if !listed.contains(uid) && pods::is_valid(pod, self.spec) {
                newly.push(pod);
                if succeeded {
                    if !self.is_indexed() {
                        self.uncounted_succeeded.push(uid.to_owned());
                    }
                } else if ((failing && over) || pods::phase(pod) == "Failed" || (failed && end.is_none()))
                    && self.policy.verdict(pod) != Verdict::Ignore
                {
                    self.uncounted_failed.push(uid.to_owned());
                }
                if let Some(nodes) = self.nodes.as_mut().filter(|_| succeeded || failed) {
                    nodes.ended(pod, succeeded);
                }
            }
            if self.plan.release.len() >= UNCOUNTED_MAX {
                break;
            }
        }
        self.write_backoff(&newly);
        if self.is_indexed() {
            // Only what is listed now: the index of a pod beyond the bound is found again next time.
            let text = self.before.completed_indexes.as_deref().unwrap_or_default();
            let new: BTreeSet<u32> = self
                .plan
                .release
                .iter()
                .filter(|pod| pods::phase(pod) == "Succeeded")
                .filter_map(|pod| pods::valid_index(pod, self.spec))
                .collect();
            let written = Indexes::read(text, self.completions()).with(new);
            self.status.succeeded = Some(i32::try_from(written.total()).unwrap_or(i32::MAX));
            self.status.completed_indexes = Some(written.to_string()).filter(|text| !text.is_empty());
            self.status.failed_indexes = self.failed_indexes.as_ref().map(Indexes::to_string);
        }
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        uncounted.succeeded =
            Some(std::mem::take(&mut self.uncounted_succeeded)).filter(|uids| !uids.is_empty());
        uncounted.failed = Some(std::mem::take(&mut self.uncounted_failed)).filter(|uids| !uids.is_empty());
    }

    fn write_backoff(&mut self, newly: &[&'a Pod]) {
        if self.failed_indexes.is_some() || newly.is_empty() {
            return;
        }
        let before = Backoff::read(self.annotations.get(backoff::ANNOTATION).map(String::as_str));
        let (succeeded, failed) = self.ends(newly.iter().copied());
        self.annotate(backoff::ANNOTATION, before.after(&succeeded, &failed).write());
    }
}
