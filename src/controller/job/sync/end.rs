//! When and how a Job ends, or rests (BEHAVIOURS 13.5 to 13.7, 13.9 to 13.12).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::{backoff, pods, policy};
use super::{Sync, Verdict};
use crate::kind::job::{is_suspended, is_true};

/// How the Job ends, once its pods have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success { reason: String, message: String },
    Failure { reason: String, message: String },
}

impl End {
    pub(super) fn success(reason: &str, message: impl Into<String>) -> Self {
        Self::Success { reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self::Failure { reason: reason.to_owned(), message: message.into() }
    }

    /// As an earlier decision wrote it.
    pub(super) fn written(status: &JobStatus) -> Option<Self> {
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
    pub(super) fn conditions(&self) -> (&'static str, &'static str, &str, &str) {
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

impl Sync<'_> {
    /// How the Job ends, if it is to end before all is done (BEHAVIOURS 13.6, 13.7, 13.9 to 13.11).
    pub(super) fn end(&mut self) -> Option<End> {
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

    pub(super) fn suspend_or_resume(&mut self, now: Timestamp) {
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

    pub(super) fn is_counted(&self) -> bool {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        uncounted.is_none_or(|pods| pods.succeeded.is_none() && pods.failed.is_none())
    }

    pub(super) fn announce(&mut self, end: &End, now: Timestamp) {
        let (announced, _, reason, message) = end.conditions();
        if !is_true(Some(&self.status), announced) {
            set_condition(&mut self.status, announced, "True", reason, message, now);
        }
    }

    pub(super) fn finish(&mut self, end: &End, now: Timestamp) {
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
}
