//! What to do about one Job, from the Job and its pods (upstream `syncJob`, `manageJob` and
//! `trackJobStatusAndRemoveFinalizers`).
//!
//! A pod is counted in three steps, each of which finds what the one before it left if the process dies
//! between them (BEHAVIOURS 13.3): its uid is written into `status.uncountedTerminatedPods`, its
//! finalizer is removed, and when that is seen, the uid leaves the list and the counter rises. The third
//! step of some pods and the first of others are one write. Successes of an Indexed Job need no uid:
//! the index in `completedIndexes` is enough.

mod count;
mod end;
mod manage;
mod per_node;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::end::End;
use self::per_node::PerNode;
use super::make::Place;
use super::pods;
use super::policy::{Policy, Verdict};
use crate::controller::eligibility;
use crate::kind::job::indexes::Indexes;
use crate::kind::job::{INDEXED, PER_NODE, is_suspended, mode};

/// Pods made or told to go by one decision (upstream's `MaxPodCreateDeletePerSync`).
pub(super) const PODS_MAX: usize = 500;

/// What there is.
pub(super) struct Seen<'a> {
    pub(super) job: &'a Job,
    /// The Job's pods: those that wait to be counted and those that have not ended.
    pub(super) pods: Vec<&'a Pod>,
    /// Of a Job with one pod for each node, all nodes.
    pub(super) nodes: BTreeMap<String, eligibility::Verdict>,
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
    /// Of a Job with one pod for each node.
    nodes: Option<PerNode>,
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
        let sorted = Sorted::of(&seen.pods);
        let nodes = (mode(spec) == PER_NODE).then(|| PerNode::of(&seen.nodes, &sorted.active, &annotations));
        let mut sync = Self {
            job,
            spec,
            status: before.clone(),
            before,
            annotations,
            policy: Policy::of(job),
            sorted,
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

    fn again(&mut self, after: Duration) {
        let earlier = self.plan.again_after.map_or(after, |before| before.min(after));
        self.plan.again_after = Some(earlier);
    }

    fn annotate(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => self.annotations.insert(name.to_owned(), value),
            None => self.annotations.remove(name),
        };
    }

    fn done(mut self) -> Plan<'a> {
        if let Some(nodes) = &self.nodes {
            nodes.write(&mut self.annotations);
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
