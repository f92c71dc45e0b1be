//! What to do about one Job, from the Job and its pods (upstream `syncJob`, `manageJob` and
//! `trackJobStatusAndRemoveFinalizers`).
//!
//! A pod is counted in three steps, each of which finds what the one before it left if the process dies
//! between them (BEHAVIOURS 13.3): its uid is written into `status.uncountedTerminatedPods`, its
//! finalizer is removed, and when that is seen, the uid leaves the list and the counter rises. The third
//! step of some pods and the first of others are one write. Successes of an Indexed Job need no uid:
//! the index in `completedIndexes` is enough.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{self, Backoff};
use super::make::{self, Place};
use super::pods;
use super::policy::{self, Policy, Verdict};
use crate::kind::job::indexes::Indexes;
use crate::kind::job::{INDEXED, PER_NODE, is_suspended, is_true, mode};

/// Pods made or told to go by one decision (upstream's `MaxPodCreateDeletePerSync`).
pub(super) const PODS_MAX: usize = 500;
/// Pods that one write of the status lists to be counted (upstream's `MaxUncountedPods`).
const UNCOUNTED_MAX: usize = 500;

/// Nodes on which a Job with one pod for each node has succeeded, with commas between.
pub(super) const NODES_SUCCEEDED: &str = "coracle.dev/nodes-succeeded";
/// Nodes whose last pod failed.
pub(super) const NODES_FAILED: &str = "coracle.dev/nodes-failed";
/// `run`: the Job goes on for nodes that join later, and so never completes by itself.
pub(super) const LATER_NODES: &str = "coracle.dev/later-nodes";

/// What there is.
pub(super) struct Seen<'a> {
    pub(super) job: &'a Job,
    /// The Job's pods: those that wait to be counted and those that have not ended.
    pub(super) pods: Vec<&'a Pod>,
    /// Of a Job with one pod for each node, those that may have one.
    pub(super) nodes: BTreeSet<String>,
}

/// What to do, in this order: `status`, and when that is written `release` and `delete`; `create` at any
/// time.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// The Job with its new status, if that changes.
    pub(super) status: Option<Job>,
    /// Pods that lose the finalizer.
    pub(super) release: Vec<&'a Pod>,
    /// Pods to be deleted that are counted when they end.
    pub(super) stop: Vec<&'a Pod>,
    /// Pods to be deleted that are not to be counted.
    pub(super) drop: Vec<&'a Pod>,
    pub(super) create: Vec<Place>,
    /// Type `Warning`, reason and message.
    pub(super) events: Vec<(bool, &'static str, String)>,
    pub(super) again_after: Option<Duration>,
}

/// How the Job ends, once its pods have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Success { reason: String, message: String },
    Failure { reason: String, message: String },
}

impl End {
    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self::Success { reason: reason.to_owned(), message: message.into() }
    }

    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self::Failure { reason: reason.to_owned(), message: message.into() }
    }

    /// As an earlier decision wrote it.
    fn written(status: &JobStatus) -> Option<Self> {
        let texts = |one: &JobCondition| {
            (one.reason.clone().unwrap_or_default(), one.message.clone().unwrap_or_default())
        };
        let find = |type_| condition(status, type_).filter(|one| one.status == "True");
        if let Some(met) = find("SuccessCriteriaMet") {
            let (reason, message) = texts(met);
            return Some(Self::Success { reason, message });
        }
        let (reason, message) = texts(find("FailureTarget")?);
        Some(Self::Failure { reason, message })
    }

    /// The conditions: the one that announces the end, and the final one.
    fn conditions(&self) -> (&'static str, &'static str, &str, &str) {
        match self {
            Self::Success { reason, message } => ("SuccessCriteriaMet", "Complete", reason, message),
            Self::Failure { reason, message } => ("FailureTarget", "Failed", reason, message),
        }
    }
}

fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|one| one.type_ == type_)
}

/// Sets a condition; returns whether that changed anything.
fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    if value == "False" && condition(status, type_).is_none() {
        return false;
    }
    let conditions = status.conditions.get_or_insert_default();
    let new = JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|one| one.type_ == type_) {
        Some(old) if old.status == value && old.reason == new.reason => return false,
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    true
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or_default()
}

/// The pods that need not be looked at twice.
struct Sorted<'a> {
    active: Vec<&'a Pod>,
    /// Ours and running, but half let go: a decision to drop them was cut short.
    half_dropped: Vec<&'a Pod>,
    going: usize,
    /// Waiting to be counted, in the order of their indexes.
    tracked: Vec<&'a Pod>,
}

impl<'a> Sorted<'a> {
    fn of(pods: &[&'a Pod]) -> Self {
        let mut sorted = Self { active: Vec::new(), half_dropped: Vec::new(), going: 0, tracked: Vec::new() };
        for &pod in pods {
            let tracked = pods::is_tracked(pod);
            if tracked {
                sorted.tracked.push(pod);
            }
            if pods::is_over(pod) {
                continue;
            }
            if pods::is_going(pod) {
                sorted.going += 1;
            } else if tracked {
                sorted.active.push(pod);
            } else {
                sorted.half_dropped.push(pod);
            }
        }
        sorted
    }
}

/// One decision in the making.
struct Sync<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    /// As it is.
    before: JobStatus,
    /// As it is to be.
    status: JobStatus,
    annotations: BTreeMap<String, String>,
    policy: Policy<'a>,
    sorted: Sorted<'a>,
    /// Listed in the status, not yet counted.
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
    now: Timestamp,
    plan: Plan<'a>,
    succeeded_indexes: Indexes,
    failed_indexes: Option<Indexes>,
    /// The last failed pod of each index that has none now: kept until its successor knows of it.
    kept: HashMap<u32, &'a Pod>,
    nodes: Nodes,
}

/// Of a Job with one pod for each node.
#[derive(Default)]
struct Nodes {
    eligible: BTreeSet<String>,
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// Decides about a Job that has not finished.
pub(super) fn decide<'a>(seen: &Seen<'a>, now: Timestamp) -> Plan<'a> {
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut sync = Sync::new(seen, now);
    sync.count_released();
    let mut end = sync.end();
    let mut active = sync.sorted.active.len();
    let mut ready = sync.sorted.active.iter().filter(|pod| pods::is_ready(pod)).count();
    let mut going = sync.sorted.going;
    let deleting = seen.job.metadata.deletion_timestamp.is_some();
    if end.is_some() {
        let all = sync.sorted.half_dropped.iter().chain(&sync.sorted.active);
        sync.plan.stop = all.copied().take(PODS_MAX).collect();
    } else if !deleting {
        sync.manage();
        if sync.is_complete(active.saturating_sub(sync.plan.drop.len()) + sync.plan.create.len()) {
            end = Some(End::success("CompletionsReached", "Reached expected number of succeeded pods"));
            sync.plan.create.clear();
        } else {
            sync.suspend_or_resume(whole);
        }
    }
    let gone = sync.plan.stop.iter().chain(&sync.plan.drop);
    ready -= gone.clone().filter(|pod| pods::is_tracked(pod) && pods::is_ready(pod)).count();
    let gone = gone.filter(|pod| pods::is_tracked(pod)).count();
    active = active - gone + sync.plan.create.len();
    going += gone + sync.sorted.half_dropped.len();
    sync.status.active = Some(count(active));
    sync.status.ready = Some(count(ready));
    sync.status.terminating = Some(count(going));
    sync.list_ended(end.as_ref());
    if let Some(end) = &end {
        sync.announce(end, whole);
        if active == 0 && going == 0 && sync.sorted.tracked.is_empty() && sync.is_counted() {
            sync.finish(end, whole);
        }
    }
    sync.done()
}

impl<'a> Sync<'a> {
    fn new(seen: &Seen<'a>, now: Timestamp) -> Self {
        static NO_SPEC: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
        let job = seen.job;
        let spec = job.spec.as_ref().unwrap_or(&NO_SPEC);
        let before = job.status.clone().unwrap_or_default();
        let uncounted = before.uncounted_terminated_pods.clone().unwrap_or_default();
        let annotations = job.metadata.annotations.clone().unwrap_or_default();
        let names = |annotation: &str| -> BTreeSet<String> {
            let text = annotations.get(annotation).map(String::as_str).unwrap_or_default();
            text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let nodes = Nodes {
            eligible: seen.nodes.clone(),
            succeeded: names(NODES_SUCCEEDED),
            failed: names(NODES_FAILED),
        };
        let mut sync = Self {
            job,
            spec,
            status: before.clone(),
            before,
            annotations,
            policy: Policy::of(job),
            sorted: Sorted::of(&seen.pods),
            uncounted_succeeded: uncounted.succeeded.unwrap_or_default(),
            uncounted_failed: uncounted.failed.unwrap_or_default(),
            now,
            plan: Plan::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            kept: HashMap::new(),
            nodes,
        };
        sync.find_indexes();
        if sync.status.start_time.is_none() && !is_suspended(spec) {
            sync.status.start_time = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        }
        sync
    }

    fn is_indexed(&self) -> bool {
        mode(self.spec) == INDEXED
    }

    fn completions(&self) -> u32 {
        u32::try_from(self.spec.completions.unwrap_or_default()).unwrap_or_default()
    }

    fn has_failed(&self, pod: &Pod) -> bool {
        pods::has_failed(pod, self.job)
    }

    /// Pods that wait to be counted, are the Job's to count and have not been listed yet.
    fn unlisted(&self) -> impl Iterator<Item = &'a Pod> {
        let listed: HashSet<&str> =
            self.uncounted_succeeded.iter().chain(&self.uncounted_failed).map(String::as_str).collect();
        let pods = self.sorted.tracked.iter().copied();
        pods.filter(move |pod| !listed.contains(pods::uid(pod)) && pods::is_valid(pod, self.spec))
    }

    /// Third step: what was listed and has lost its finalizer is counted.
    fn count_released(&mut self) {
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

    fn find_indexes(&mut self) {
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
    fn succeeded(&self) -> u32 {
        if self.is_indexed() {
            return self.succeeded_indexes.total();
        }
        let new = self.unlisted().filter(|pod| pods::phase(pod) == "Succeeded").count();
        let known = size(self.status.succeeded.unwrap_or_default()) + self.uncounted_succeeded.len();
        u32::try_from(known + new).unwrap_or(u32::MAX)
    }

    /// Failures, counted or not, without those that the policy ignores.
    fn failed(&self) -> i32 {
        let counts = |pod: &&Pod| self.has_failed(pod) && self.policy.verdict(pod) != Verdict::Ignore;
        let new = self.unlisted().filter(counts).count();
        self.status.failed.unwrap_or_default().saturating_add(count(self.uncounted_failed.len() + new))
    }

    /// How the Job ends, if it is to end before all is done (BEHAVIOURS 13.6, 13.7, 13.9 to 13.11).
    fn end(&mut self) -> Option<End> {
        if let Some(end) = End::written(&self.before) {
            return Some(end);
        }
        for pod in self.sorted.tracked.iter().filter(|pod| self.has_failed(pod)) {
            if let Verdict::FailJob(message) = self.policy.verdict(pod) {
                return Some(End::failure("PodFailurePolicy", message));
            }
        }
        let limit = self.spec.backoff_limit.unwrap_or(i32::MAX);
        if self.failed() > limit || self.restarted_too_often(limit) {
            let message = "Job has reached the specified backoff limit";
            return Some(End::failure("BackoffLimitExceeded", message));
        }
        if let (Some(seconds), Some(started), false) =
            (self.spec.active_deadline_seconds, self.status.start_time.as_ref(), is_suspended(self.spec))
        {
            let passed = Duration::try_from(self.now.duration_since(started.0)).unwrap_or_default();
            let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            if passed >= allowed {
                let message = "Job was active longer than specified deadline";
                return Some(End::failure("DeadlineExceeded", message));
            }
            self.again(allowed - passed);
        }
        if !self.is_indexed() {
            return None;
        }
        if let Some(failed) = &self.failed_indexes {
            let (failed, all) = (failed.total(), failed.total() + self.succeeded_indexes.total());
            if self.spec.max_failed_indexes.is_some_and(|max| i64::from(failed) > i64::from(max)) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(End::failure("MaxFailedIndexesExceeded", message));
            }
            if failed > 0 && all >= self.completions() {
                return Some(End::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        let policy = self.spec.success_policy.as_ref();
        policy::is_enough(policy, self.completions(), &self.succeeded_indexes)
            .map(|message| End::success("SuccessPolicy", message))
    }

    /// Containers that the node started again count as failures too.
    fn restarted_too_often(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let living = self.sorted.tracked.iter().filter(|pod| !pods::is_over(pod));
        let restarts: i32 = living.map(|pod| pods::restarts(pod)).sum();
        restarts >= limit.max(1)
    }

    fn again(&mut self, after: Duration) {
        let earlier = self.plan.again_after.map_or(after, |before| before.min(after));
        self.plan.again_after = Some(earlier);
    }

    /// Pods to make or to drop (BEHAVIOURS 13.4, 13.8, 13.12).
    fn manage(&mut self) {
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
        if mode(self.spec) == PER_NODE {
            let useful = |pod: &Pod| {
                pods::meant_for(pod).is_some_and(|node| {
                    self.nodes.eligible.contains(node) && !self.nodes.succeeded.contains(node)
                })
            };
            return self.first_of_each(|pod| pods::meant_for(pod).map(str::to_owned).filter(|_| useful(pod)));
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
        if mode(self.spec) == PER_NODE {
            let left = self.nodes.eligible.difference(&self.nodes.succeeded_with(self)).count();
            return left.min(parallelism);
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

    fn ends(&self, pods: impl Iterator<Item = &'a Pod>) -> (Vec<Timestamp>, Vec<Timestamp>) {
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

    fn places(&mut self, missing: usize, active: &[&Pod]) -> Vec<Place> {
        if mode(self.spec) == PER_NODE {
            let busy: HashSet<&str> = active.iter().filter_map(|pod| pods::meant_for(pod)).collect();
            let done = self.nodes.succeeded_with(self);
            let free = self
                .nodes
                .eligible
                .iter()
                .filter(|node| !busy.contains(node.as_str()) && !done.contains(*node));
            return free.take(missing).cloned().map(Place::Node).collect();
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
    fn is_complete(&self, active: usize) -> bool {
        if mode(self.spec) == PER_NODE {
            let done = self.nodes.succeeded_with(self);
            let goes_on = self.annotations.get(LATER_NODES).is_some_and(|value| value == "run");
            return !goes_on
                && active == 0
                && !self.nodes.eligible.is_empty()
                && self.nodes.eligible.iter().all(|node| done.contains(node));
        }
        match self.spec.completions {
            None => self.succeeded() > 0 && active == 0,
            Some(_) => self.succeeded() >= self.completions() && active == 0,
        }
    }

    fn suspend_or_resume(&mut self, now: Timestamp) {
        if is_suspended(self.spec) {
            if set_condition(&mut self.status, "Suspended", "True", "JobSuspended", "Job suspended", now) {
                self.plan.events.push((false, "Suspended", "Job suspended".to_owned()));
            }
        } else if set_condition(&mut self.status, "Suspended", "False", "JobResumed", "Job resumed", now) {
            self.plan.events.push((false, "Resumed", "Job resumed".to_owned()));
            // The deadline counts from here.
            self.status.start_time = Some(Time(now));
        }
    }

    /// First step: pods that have ended are listed, and lose their finalizer once that is written.
    fn list_ended(&mut self, end: Option<&End>) {
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        let failing = matches!(end, Some(End::Failure { .. }));
        let listed: HashSet<String> =
            self.uncounted_succeeded.iter().chain(&self.uncounted_failed).cloned().collect();
        let per_node = mode(self.spec) == PER_NODE;
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
                if per_node && let Some(node) = pods::meant_for(pod) {
                    if succeeded {
                        self.nodes.failed.remove(node);
                        self.nodes.succeeded.insert(node.to_owned());
                    } else if failed && !self.nodes.succeeded.contains(node) {
                        self.nodes.failed.insert(node.to_owned());
                    }
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

    fn annotate(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => self.annotations.insert(name.to_owned(), value),
            None => self.annotations.remove(name),
        };
    }

    fn is_counted(&self) -> bool {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        uncounted.is_none_or(|pods| pods.succeeded.is_none() && pods.failed.is_none())
    }

    fn announce(&mut self, end: &End, now: Timestamp) {
        let (announced, _, reason, message) = end.conditions();
        if !is_true(Some(&self.status), announced) {
            set_condition(&mut self.status, announced, "True", reason, message, now);
        }
    }

    fn finish(&mut self, end: &End, now: Timestamp) {
        let (_, last, reason, message) = end.conditions();
        set_condition(&mut self.status, last, "True", reason, message, now);
        self.status.active = None;
        self.status.ready = Some(0);
        self.status.terminating = Some(0);
        match end {
            End::Success { .. } => {
                self.status.completion_time = Some(Time(now));
                self.plan.events.push((false, "Completed", "Job completed".to_owned()));
            }
            End::Failure { reason, message } => {
                let known = [
                    "PodFailurePolicy",
                    "BackoffLimitExceeded",
                    "DeadlineExceeded",
                    "MaxFailedIndexesExceeded",
                    "FailedIndexes",
                ];
                let reason = known.into_iter().find(|known| known == reason).unwrap_or("Failed");
                self.plan.events.push((true, reason, message.clone()));
            }
        }
        self.annotate(backoff::ANNOTATION, None);
        self.plan.again_after = None;
        // A suspended Job may end without ever having started.
        self.status.start_time.get_or_insert(Time(now));
    }

    fn done(mut self) -> Plan<'a> {
        if mode(self.spec) == PER_NODE {
            let text = |nodes: &BTreeSet<String>| {
                let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
                Some(names.join(",")).filter(|text| !text.is_empty())
            };
            let (succeeded, failed) = (text(&self.nodes.succeeded), text(&self.nodes.failed));
            self.annotate(NODES_SUCCEEDED, succeeded);
            self.annotate(NODES_FAILED, failed);
        }
        if self.status.active == Some(0) {
            self.status.active = None;
        }
        let old = self.job.metadata.annotations.as_ref();
        let annotated = old.map_or(!self.annotations.is_empty(), |old| *old != self.annotations);
        if annotated || self.status != self.before {
            let mut job = self.job.clone();
            job.status = Some(self.status);
            job.metadata.annotations = Some(self.annotations).filter(|all| !all.is_empty());
            self.plan.status = Some(job);
        } else {
            self.plan.events.clear();
        }
        self.plan
    }
}

impl Nodes {
    /// Nodes that are done, with those whose success is only seen yet.
    fn succeeded_with(&self, sync: &Sync<'_>) -> BTreeSet<String> {
        let new = sync.sorted.tracked.iter().filter(|pod| pods::phase(pod) == "Succeeded");
        let mut all = self.succeeded.clone();
        all.extend(new.filter_map(|pod| pods::meant_for(pod)).map(str::to_owned));
        all
    }
}
