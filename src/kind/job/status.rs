//! What may become of a Job's status, whoever writes it (upstream `ValidateJobStatusUpdate`). Only what
//! a write changes is judged, so that other writes still pass.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::indexes::Indexes;
use super::spec::invalid_rule;
use super::{INDEXED, is_suspended, is_true, mode};
use crate::kind::field::{Errors, Path};
use crate::kind::validation::not_negative;

pub(super) fn validate_update(new: &Job, old: &Job, errors: &mut Errors) {
    let (no_spec, no_status) = (JobSpec::default(), JobStatus::default());
    let spec = new.spec.as_ref().unwrap_or(&no_spec);
    let status = new.status.as_ref().unwrap_or(&no_status);
    let before = old.status.as_ref().unwrap_or(&no_status);
    let path = Path::new("status");
    for (name, value) in [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ] {
        not_negative(errors, &path.child(name), i64::from(value.unwrap_or_default()));
    }
    validate_uncounted(status, &path.child("uncountedTerminatedPods"), errors);
    validate_conditions(status, before, &path.child("conditions"), errors);
    validate_end(spec, status, before, &path, errors);
    validate_counters(spec, status, before, &path, errors);
    if status.completed_indexes != before.completed_indexes || status.failed_indexes != before.failed_indexes
    {
        validate_indexes(spec, status, &path, errors);
    }
}

fn validate_uncounted(status: &JobStatus, path: &Path, errors: &mut Errors) {
    let Some(uncounted) = &status.uncounted_terminated_pods else { return };
    let mut seen = BTreeSet::new();
    for (name, uids) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        for (i, uid) in uids.iter().flatten().enumerate() {
            let path = path.child(name).index(i);
            if uid.is_empty() {
                errors.invalid(&path, uid, "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&path, uid);
            }
        }
    }
}

fn validate_conditions(status: &JobStatus, before: &JobStatus, path: &Path, errors: &mut Errors) {
    let is = |condition| is_true(Some(status), condition);
    let was = |condition| is_true(Some(before), condition);
    let changed = |condition| is(condition) != was(condition);
    let mut check = |holds: bool, why: &str| {
        if holds {
            invalid_rule(path, why, errors);
        }
    };
    let ended_now = changed("Complete") || changed("Failed");
    check(ended_now && is("Complete") && is("Failed"), "cannot set Complete=True and Failed=true conditions");
    check(
        changed("Complete") && is("Complete") && is("FailureTarget"),
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    check(
        changed("Failed") && is("Failed") && !is("FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    check(
        changed("Complete") && is("Complete") && !is("SuccessCriteriaMet"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    check(
        is("SuccessCriteriaMet") && is("Failed"),
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    );
    check(
        is("SuccessCriteriaMet") && is("FailureTarget"),
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    );
    for condition in ["Failed", "Complete", "FailureTarget"] {
        let why = format!("cannot disable the terminal {condition}=True condition");
        check(was(condition) && !is(condition), &why);
    }
    check(
        was("SuccessCriteriaMet") && !is("SuccessCriteriaMet"),
        "cannot disable the SuccessCriteriaMet=True condition",
    );
}

fn validate_end(spec: &JobSpec, status: &JobStatus, before: &JobStatus, path: &Path, errors: &mut Errors) {
    let complete = is_true(Some(status), "Complete");
    let finished = complete || is_true(Some(status), "Failed");
    let (started, completed) = (&status.start_time, &status.completion_time);
    let at = path.child("completionTime");
    let ended_now = finished && !is_true(Some(before), "Complete") && !is_true(Some(before), "Failed");
    if completed.is_some() && *completed != before.completion_time && !complete {
        let why = "cannot set completionTime when there is no Complete=True condition";
        errors.invalid(&at, completed, why);
    }
    if complete && completed.is_none() {
        errors.required(&at, "completionTime is required for Complete jobs");
    }
    if let (Some(started), Some(ended)) = (started, completed)
        && ended.0 < started.0
    {
        errors.invalid(&at, completed, "completionTime cannot be set before startTime");
    }
    if completed.is_some() && before.completion_time.is_some() && *completed != before.completion_time {
        errors.invalid(&at, completed, "completionTime cannot be mutated");
    }
    if before.start_time.is_some()
        && before.start_time != *started
        && !is_suspended(spec)
        && started.is_none()
    {
        errors.required(&path.child("startTime"), "startTime cannot be removed for unsuspended job");
    }
    if !(ended_now || finished && status.active != before.active) {
        return;
    }
    if status.active.unwrap_or_default() > 0 {
        errors.invalid(&path.child("active"), status.active, "active>0 is invalid for finished job");
    }
    if status.terminating.unwrap_or_default() > 0 {
        let at = path.child("terminating");
        errors.invalid(&at, status.terminating, "terminating>0 is invalid for finished job");
    }
    if started.is_none() {
        errors.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let left = uncounted
        .map_or(0, |pods| pods.succeeded.iter().flatten().count() + pods.failed.iter().flatten().count());
    if left > 0 {
        let at = path.child("uncountedTerminatedPods");
        errors.invalid(&at, uncounted, "uncountedTerminatedPods needs to be empty for finished job");
    }
}

fn validate_counters(
    spec: &JobSpec,
    status: &JobStatus,
    before: &JobStatus,
    path: &Path,
    errors: &mut Errors,
) {
    if status.failed.unwrap_or_default() < before.failed.unwrap_or_default() {
        errors.invalid(&path.child("failed"), status.failed, "cannot decrease the failed counter");
    }
    // An elastic Job that shrinks forgets completions.
    let is_elastic = mode(spec) == INDEXED && spec.completions == spec.parallelism;
    if status.succeeded.unwrap_or_default() < before.succeeded.unwrap_or_default() && !is_elastic {
        errors.invalid(&path.child("succeeded"), status.succeeded, "cannot decrease the succeeded counter");
    }
    let (ready, active) = (status.ready.unwrap_or_default(), status.active.unwrap_or_default());
    if ready > active && (status.ready != before.ready || status.active != before.active) {
        errors.invalid(&path.child("ready"), ready, "cannot set more ready pods than active");
    }
}

fn validate_indexes(spec: &JobSpec, status: &JobStatus, path: &Path, errors: &mut Errors) {
    let completions = u32::try_from(spec.completions.unwrap_or_default()).unwrap_or_default();
    let text = status.completed_indexes.as_deref().unwrap_or_default();
    let at = path.child("completedIndexes");
    if mode(spec) != INDEXED && !text.is_empty() {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(&at, text, why);
    }
    let completed = Indexes::parse(text, completions);
    if let Err(why) = &completed
        && spec.completions.is_some()
    {
        errors.invalid(&at, text, &format!("error parsing completedIndexes: {why}"));
    }
    let Some(text) = &status.failed_indexes else { return };
    let at = path.child("failedIndexes");
    if spec.backoff_limit_per_index.is_none() {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        return errors.invalid(&at, text, why);
    }
    match (Indexes::parse(text, completions), completed) {
        (Err(why), _) => errors.invalid(&at, text, &format!("error parsing failedIndexes: {why}")),
        (Ok(failed), Ok(completed)) if completed.count_of(&failed) > 0 => {
            errors.invalid(&at, text, "failedIndexes and completedIndexes overlap");
        }
        (Ok(_), _) => {}
    }
}
