//! Starts Jobs on schedules (BEHAVIOURS 14.3 to 14.9, upstream's `cronjob_controllerv2.go`).
//!
//! What is due is computed from the schedule, the time of the last start and now, so it makes no
//! difference whether the cluster was up meanwhile. The status is computed from the Jobs there are. A
//! Job's name is that of its time, so that a crash between its creation and the note of it in the
//! status makes no second one.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::snapshot::Give;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, Words, snapshot};
use crate::kind::cron_job::{self, Extras, FORBID, INSTANTIATE, MANUAL, REPLACE, SCHEDULED, extras};
use crate::kind::schedule::Schedule;
use crate::kind::{Object, Subresource};

const BY_CRON_JOB: &str = "jobs by cron job";

/// Missed times above which an Event warns (upstream's number).
const MISSED_MAX: usize = 100;
/// Missed times that `coracle.dev/catch-up: all` makes up for at most, the latest of them: each is a
/// Job, and a schedule may have been asleep for years.
const CATCH_UP_MAX: usize = 100;
/// How late a start may be that catches up with nothing; a busy moment is not a missed one.
const CATCH_UP_NONE_SECONDS: i64 = 10;
/// How long after a due time an Event tells that a Job is in its way. Later looks repeat what it said.
const TELL_SECONDS: i64 = 10;

const JOB: Words = Words { created: "Created job ", failed: "Error creating job: " };

/// The controller.
pub struct CronJobs {
    /// Where schedules without a time zone are.
    zone: TimeZone,
}

impl CronJobs {
    #[must_use]
    pub fn new(zone: TimeZone) -> Self {
        Self { zone }
    }
}

fn by_cron_job(object: &dyn Object, give: Give<'_>) {
    if let Some(job) = object.downcast_ref::<Job>()
        && let Some((_, uid)) = owner(job)
    {
        give(uid, snapshot::created(object));
    }
}

/// Name and uid of the CronJob that controls the Job.
fn owner(job: &Job) -> Option<(&str, &str)> {
    let owners = job.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let owner =
        controllers.find(|owner| owner.kind == "CronJob" && owner.api_version.starts_with("batch/"))?;
    Some((&owner.name, &owner.uid))
}

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cron_job"
    }

    fn indexes(&self) -> &'static [Index] {
        &[Index { name: BY_CRON_JOB, of: by_cron_job }]
    }

    fn wakes(&self, _seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let cron_jobs = KindRef::of::<CronJob>();
        if change.kind == cron_jobs {
            if change.new.is_some() {
                wake(Key::to(cron_jobs, change.object()));
            }
            return;
        }
        let sides = [change.old, change.new].into_iter().flatten();
        for job in sides.filter_map(|object| object.downcast_ref::<Job>()) {
            if let Some((name, _)) = owner(job) {
                wake(Key::new(cron_jobs, snapshot::namespace(job), name));
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, moment: Moment) -> Decision {
        let Some(cron_job) = seen.get::<CronJob>(&key.namespace, &key.name) else {
            return Decision::default();
        };
        let jobs = seen.indexed(BY_CRON_JOB, snapshot::uid(cron_job));
        let jobs: Vec<&Job> = jobs.filter_map(|(_, job)| job.downcast_ref()).collect();
        let is_taken = |name: &str| seen.get::<Job>(&key.namespace, name).is_some();
        decide(cron_job, &jobs, &is_taken, moment.now, &self.zone)
    }
}

/// How a Job ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Failed,
}

fn end(job: &Job) -> Option<End> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.status == "True").find_map(|condition| match &*condition.type_ {
        "Complete" => Some(End::Complete),
        "Failed" => Some(End::Failed),
        _ => None,
    })
}

/// Started by the schedule. What somebody started beside it is a child too, but nothing waits for it.
fn is_of_schedule(job: &Job) -> bool {
    annotation(job, INSTANTIATE) != Some(MANUAL) && scheduled(job).is_some()
}

fn annotation<'a>(job: &'a Job, key: &str) -> Option<&'a str> {
    job.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The time that the Job was started for.
fn scheduled(job: &Job) -> Option<Timestamp> {
    annotation(job, SCHEDULED)?.parse().ok()
}

fn decide(
    cron_job: &CronJob,
    jobs: &[&Job],
    is_taken: &dyn Fn(&str) -> bool,
    now: Timestamp,
    local: &TimeZone,
) -> Decision {
    let no_spec = CronJobSpec::default();
    let spec = cron_job.spec.as_ref().unwrap_or(&no_spec);
    let mut actions = Vec::new();
    let status = status(cron_job, jobs, &mut actions);
    if cron_job.status.as_ref() != Some(&status) {
        let changed = CronJob { status: Some(status.clone()), ..cron_job.clone() };
        actions.push(update_status(changed));
    }
    // After the status, which remembers what a Job that goes stood for.
    clean_up(cron_job, spec, jobs, &mut actions);
    if cron_job.metadata.deletion_timestamp.is_some() {
        return Decision::act(actions);
    }
    let (extras, wrong) = Extras::of(&cron_job.metadata);
    for message in wrong {
        actions.push(warn(cron_job, "InvalidAnnotation", message));
    }
    if spec.suspend == Some(true) || extras.unreadable_at {
        return Decision::act(actions);
    }
    let schedule = match schedule(spec, &extras, local) {
        Ok(schedule) => schedule,
        Err((reason, message)) => {
            actions.push(warn(cron_job, reason, message));
            return Decision::act(actions);
        }
    };
    let requeue_after = schedule.next(now).map(|next| wait(now, next));
    let last = status.last_schedule_time.as_ref().map(|time| time.0);
    let due = Due { cron_job, spec, extras: &extras, schedule: &schedule, last, now };
    let Some(time) = due.time(&mut actions) else {
        return Decision { actions, requeue_after, ..Decision::default() };
    };
    let active: Vec<&Job> =
        jobs.iter().copied().filter(|job| end(job).is_none() && is_of_schedule(job)).collect();
    let policy = spec.concurrency_policy.as_deref().unwrap_or_default();
    if policy == FORBID && !active.is_empty() {
        if now.duration_since(time) <= SignedDuration::from_secs(TELL_SECONDS) {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            actions.push(event(cron_job, "JobAlreadyActive", message.to_owned()));
        }
        return Decision { actions, requeue_after, ..Decision::default() };
    }
    let name = name(cron_job, &schedule, time);
    if is_taken(&name) {
        // Not one of ours, or its time would be behind us.
        let message =
            format!("Error creating job: jobs.batch {name:?} already exists, and is not of this CronJob");
        actions.push(warn(cron_job, "FailedCreate", message));
        return Decision { actions, requeue_after, ..Decision::default() };
    }
    if policy == REPLACE {
        for job in active.into_iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
            delete(cron_job, job, &mut actions);
        }
    }
    if due.has_missed_many() {
        let message =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        actions.push(warn(cron_job, "TooManyMissedTimes", message.to_owned()));
    }
    let stamp = match spec.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok()) {
        Some(zone) => time.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        None => time.to_string(),
    };
    let job = cron_job::job_of(cron_job, name, BTreeMap::from([(SCHEDULED.to_owned(), stamp)]));
    actions.push(Action::CreateFor(KindRef::of::<Job>(), Box::new(job), reference(cron_job), JOB));
    Decision { actions, requeue_after, ..Decision::default() }
}

/// Time until `then`, a little more rather than less: a look that comes too soon finds nothing due.
fn wait(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// The Job of a time is named after its minute, so that there can be one only.
///
/// Where times may be less than a minute apart, which Kubernetes does not tell from each other, it is
/// the second instead; ten digits, which still leaves a label.
fn name(cron_job: &CronJob, schedule: &Schedule, time: Timestamp) -> String {
    let name = snapshot::name(cron_job);
    let seconds = time.as_second();
    if schedule.is_finer_than_minutes() {
        format!("{name}-{seconds}")
    } else {
        format!("{name}-{}", seconds / 60)
    }
}

/// The schedule, or why there is none, for an Event.
fn schedule(
    spec: &CronJobSpec,
    extras: &Extras,
    local: &TimeZone,
) -> Result<Schedule, (&'static str, String)> {
    if let Some(at) = extras.at {
        return Ok(Schedule::once(at));
    }
    if let Some(name) = &spec.time_zone
        && let Err(why) = crate::kind::schedule::time_zone(name)
    {
        return Err(("UnknownTimeZone", format!("invalid timeZone: {name:?}: {why}")));
    }
    cron_job::schedule(spec, local)
        .map_err(|why| ("UnparseableSchedule", format!("unparseable schedule: {:?} : {why}", spec.schedule)))
}

/// What the Jobs say, and what the status remembers of those that are gone.
fn status(cron_job: &CronJob, jobs: &[&Job], actions: &mut Vec<Action>) -> CronJobStatus {
    let before = cron_job.status.clone().unwrap_or_default();
    let known = before.active.unwrap_or_default();
    for reference in &known {
        let name = reference.name.as_deref().unwrap_or_default();
        match jobs.iter().find(|job| job.metadata.uid == reference.uid) {
            None => actions.push(event(cron_job, "MissingJob", format!("Active job went missing: {name}"))),
            Some(job) => {
                if let Some(end) = end(job) {
                    let end = if end == End::Complete { "Complete" } else { "Failed" };
                    let message = format!("Saw completed job: {name}, condition: {end}");
                    actions.push(event(cron_job, "SawCompletedJob", message));
                }
            }
        }
    }
    for job in jobs.iter().filter(|job| end(job).is_none() && !is_of_schedule(job)) {
        let message =
            format!("Saw a job that the controller did not create or forgot: {}", snapshot::name(*job));
        actions.push(warn(cron_job, "UnexpectedJob", message));
    }
    let active = jobs.iter().filter(|job| end(job).is_none() && is_of_schedule(job)).map(|job| {
        let same = known.iter().find(|reference| reference.uid == job.metadata.uid);
        same.cloned().unwrap_or_else(|| reference(*job))
    });
    let active: Vec<ObjectReference> = active.collect();
    let started =
        jobs.iter().filter(|job| is_of_schedule(job)).filter_map(|job| scheduled(job)).map(Time).max();
    let succeeded = jobs.iter().filter(|job| end(job) == Some(End::Complete));
    let succeeded = succeeded.filter_map(|job| job.status.as_ref()?.completion_time.clone()).max();
    CronJobStatus {
        active: (!active.is_empty()).then_some(active),
        last_schedule_time: before.last_schedule_time.max(started),
        last_successful_time: before.last_successful_time.max(succeeded),
    }
}

/// Deletes the oldest finished Jobs beyond the limits.
fn clean_up(cron_job: &CronJob, spec: &CronJobSpec, jobs: &[&Job], actions: &mut Vec<Action>) {
    for (ended, limit) in
        [(End::Complete, spec.successful_jobs_history_limit), (End::Failed, spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit else { continue };
        let going = |job: &&&Job| job.metadata.deletion_timestamp.is_some();
        let mut finished: Vec<&Job> =
            jobs.iter().filter(|job| end(job) == Some(ended) && !going(job)).copied().collect();
        let started = |job: &Job| job.status.as_ref()?.start_time.as_ref().map(|time| time.0);
        finished.sort_by(|a, b| {
            let key = |job: &Job| started(job).unwrap_or(Timestamp::MAX);
            key(a).cmp(&key(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        let excess = finished.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        for job in finished.into_iter().take(excess) {
            delete(cron_job, job, actions);
        }
    }
}

/// What is known when it is asked whether something is due.
struct Due<'a> {
    cron_job: &'a CronJob,
    spec: &'a CronJobSpec,
    extras: &'a Extras,
    schedule: &'a Schedule,
    /// The last time for which a Job was started.
    last: Option<Timestamp>,
    now: Timestamp,
}

impl Due<'_> {
    /// The time for which a Job is to be started, if any.
    fn time(&self, actions: &mut Vec<Action>) -> Option<Timestamp> {
        let created = self.created();
        let floor = self.floor();
        if self.extras.run_on_create && self.last.is_none() && floor.is_none_or(|floor| created > floor) {
            return Some(created);
        }
        let since = self.since();
        self.tell_missed(since, floor, actions);
        let after = floor.map_or(since, |floor| floor.max(since));
        if self.catches_all() {
            return self.catch_up(after, actions);
        }
        self.schedule.latest(after, self.now)
    }

    /// The oldest time to be made up for; tells once of those that are too many.
    fn catch_up(&self, after: Timestamp, actions: &mut Vec<Action>) -> Option<Timestamp> {
        let before = |time: Timestamp| self.schedule.latest(after, time - SignedDuration::from_secs(1));
        let times = std::iter::successors(self.schedule.latest(after, self.now), |time| before(*time));
        let oldest = times.take(CATCH_UP_MAX).last()?;
        let known = self.extras.last_missed.map_or(after, |missed| missed.max(after));
        if let Some(last) = before(oldest).filter(|last| *last > known) {
            let first = self.schedule.next(known).unwrap_or(last);
            let message = format!(
                "too many missed start times: no job is started for those from {first} to {last}, as annotation {}: all makes up for the latest {CATCH_UP_MAX} only",
                extras::CATCH_UP
            );
            actions.push(warn(self.cron_job, "TooManyMissedTimes", message));
            actions.push(self.note_missed(last));
        }
        Some(oldest)
    }

    /// Remembers up to which time has been told of.
    fn note_missed(&self, time: Timestamp) -> Action {
        let annotations = json!({ extras::LAST_MISSED: time.to_string() });
        let patch = json!({ "metadata": { "uid": self.cron_job.metadata.uid, "annotations": annotations } });
        Action::Patch(Key::to(KindRef::of::<CronJob>(), self.cron_job), patch)
    }

    fn created(&self) -> Timestamp {
        Timestamp::from_second(snapshot::created(self.cron_job)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Times up to this one are dealt with.
    fn since(&self) -> Timestamp {
        self.last.unwrap_or_else(|| self.created())
    }

    /// Times up to this one are too long past to be started; `None` if nothing ever is.
    fn floor(&self) -> Option<Timestamp> {
        let quick = (self.extras.catch_up == extras::CatchUp::None).then_some(CATCH_UP_NONE_SECONDS);
        let seconds = match (self.spec.starting_deadline_seconds, quick) {
            (Some(deadline), Some(quick)) => deadline.min(quick),
            (Some(seconds), None) | (None, Some(seconds)) => seconds,
            (None, None) => return None,
        };
        // A time is a whole second, and all of that second is in time.
        let floor = self.now.as_second().checked_sub(seconds)?.checked_sub(1)?;
        Timestamp::from_second(floor).ok()
    }

    fn catches_all(&self) -> bool {
        let replaces = self.spec.concurrency_policy.as_deref() == Some(REPLACE);
        self.extras.catch_up == extras::CatchUp::All && !replaces
    }

    /// Tells once of the last time that nothing will be started for any more.
    fn tell_missed(&self, since: Timestamp, floor: Option<Timestamp>, actions: &mut Vec<Action>) {
        let known = self.extras.last_missed.map_or(since, |missed| missed.max(since));
        // A time to come once that lay behind the CronJob's creation never comes.
        let never = self.extras.at.filter(|at| self.last.is_none() && *at <= known && *at <= self.created());
        let missed = match (never, floor) {
            (Some(at), _) => Some(at).filter(|at| self.extras.last_missed.is_none_or(|missed| missed < *at)),
            (None, Some(floor)) if floor > known => self.schedule.latest(known, floor),
            (None, Some(_) | None) => None,
        };
        let Some(missed) = missed else { return };
        let shown = missed.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
        let mut message = format!("Missed scheduled time to start a job: {shown}");
        if never.is_some() {
            message.push_str(&format!(
                ", which annotation {} names, but the CronJob was only created later; give it a time to come",
                extras::AT
            ));
        }
        actions.push(warn(self.cron_job, "MissSchedule", message));
        actions.push(self.note_missed(missed));
    }

    /// Whether more times passed without a Job than looks right.
    fn has_missed_many(&self) -> bool {
        if self.catches_all() {
            return false;
        }
        let since = self.floor().map_or(self.since(), |floor| floor.max(self.since()));
        let times = std::iter::successors(self.schedule.next(since), |time| self.schedule.next(*time));
        times.take_while(|time| *time <= self.now).take(MISSED_MAX + 1).count() > MISSED_MAX
    }
}

fn update_status(cron_job: CronJob) -> Action {
    Action::Update(KindRef::of::<CronJob>(), Box::new(cron_job), Some(Subresource::Status))
}

fn delete(cron_job: &CronJob, job: &Job, actions: &mut Vec<Action>) {
    actions.push(Action::Delete {
        key: Key::to(KindRef::of::<Job>(), job),
        uid: snapshot::uid(job).to_owned(),
        grace_period_seconds: None,
        propagation_policy: Some("Background"),
    });
    actions.push(event(cron_job, "SuccessfulDelete", format!("Deleted job {}", snapshot::name(job))));
}

fn event(cron_job: &CronJob, reason: &'static str, message: String) -> Action {
    Action::Event { about: reference(cron_job), reason, message }
}

fn warn(cron_job: &CronJob, reason: &'static str, message: String) -> Action {
    Action::Warn { about: reference(cron_job), reason, message }
}

/// Without the version, with which it would have to be written anew at every change.
fn reference(object: &dyn Object) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(object.api_version().to_owned()),
        kind: Some(object.kind_name().to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests;
