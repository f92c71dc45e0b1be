use serde_json::{Value, json};

use super::*;

/// A CronJob that was created on the hour, and what there is at `now`.
struct Case {
    spec: Value,
    annotations: Value,
    last: Option<&'static str>,
    /// Name, scheduled time, state (`active`, `complete`, `failed`, `manual`).
    jobs: &'static [(&'static str, &'static str, &'static str)],
    now: &'static str,
}

/// Hourly, five minutes past due for the first time.
const HOURLY: Case =
    Case { spec: Value::Null, annotations: Value::Null, last: None, jobs: &[], now: "11:05" };

/// A time of the day on which all happens, or a whole one.
fn at(text: &str) -> Timestamp {
    let text = if text.contains('T') { text.to_owned() } else { format!("2026-03-02T{text}") };
    let text = if text.len() == "2026-03-02T11:05".len() { format!("{text}:00Z") } else { text };
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn cron_job(case: &Case) -> CronJob {
    let mut value = json!({
        "metadata": {
            "name": "c", "namespace": "ns", "uid": "cron", "creationTimestamp": at("10:00").to_string(),
            "annotations": case.annotations,
        },
        "spec": {"schedule": "0 * * * *", "jobTemplate": {
            "metadata": {"labels": {"l": "v"}, "annotations": {"a": "v"}},
            "spec": {"template": {"spec": {"containers": []}}}}},
    });
    if !case.spec.is_null() {
        json_patch::merge(&mut value["spec"], &case.spec);
    }
    let mut cron_job: CronJob = serde_json::from_value(value).unwrap();
    cron_job::KIND.strategy.set_defaults(&mut cron_job);
    let references = case
        .jobs
        .iter()
        .filter(|(_, _, state)| *state == "active")
        .map(|(name, ..)| reference(&job(name, "", "active")));
    let active: Vec<_> = references.collect();
    let last = case.last.map(at).or_else(|| {
        case.jobs.iter().filter(|(.., state)| *state != "manual").map(|(_, time, _)| at(time)).max()
    });
    cron_job.status = Some(CronJobStatus {
        active: (!active.is_empty()).then_some(active),
        last_schedule_time: last.map(Time),
        last_successful_time: case
            .jobs
            .iter()
            .filter(|(.., state)| *state == "complete")
            .map(|(_, time, _)| Time(at(time)))
            .max(),
    });
    cron_job
}

fn job(name: &str, time: &str, state: &str) -> Job {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "annotations": {}, "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "cron", "controller": true}]},
        "spec": {"template": {}}, "status": {"conditions": []},
    });
    if !time.is_empty() {
        value["metadata"]["annotations"][SCHEDULED] = json!(at(time).to_string());
        value["status"]["startTime"] = json!(at(time).to_string());
    }
    match state {
        "complete" => {
            value["status"]["completionTime"] = json!(at(time).to_string());
            value["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        }
        "failed" => value["status"]["conditions"] = json!([{"type": "Failed", "status": "True"}]),
        "manual" => value["metadata"]["annotations"] = json!({INSTANTIATE: MANUAL}),
        "active" => {}
        other => panic!("{other}"),
    }
    serde_json::from_value(value).unwrap()
}

fn seen(cron_job: CronJob, jobs: Vec<Job>) -> Snapshot {
    let controller = CronJobs::new(TimeZone::UTC);
    let mut seen = Snapshot::new(controller.indexes());
    for job in jobs {
        seen.insert(KindRef::of::<Job>(), std::sync::Arc::new(job));
    }
    seen.insert(KindRef::of::<CronJob>(), std::sync::Arc::new(cron_job));
    seen
}

fn decided(cron_job: CronJob, jobs: Vec<Job>, now: Timestamp) -> Decision {
    let seen = seen(cron_job, jobs);
    let key = Key::new(KindRef::of::<CronJob>(), "ns", "c");
    CronJobs::new(TimeZone::UTC).reconcile(&seen, &key, Moment { now, waited: Duration::ZERO })
}

fn render(action: &Action) -> String {
    match action {
        Action::CreateFor(_, object, _, _) => {
            let job = (**object).downcast_ref::<Job>().unwrap();
            let name = snapshot::name(job).strip_prefix("c-").unwrap();
            format!("create {name} for {}", annotation(job, SCHEDULED).unwrap())
        }
        Action::Delete { key, propagation_policy: Some("Background"), .. } => format!("delete {}", key.name),
        Action::Update(_, object, Some(Subresource::Status)) => {
            let status = (**object).downcast_ref::<CronJob>().unwrap().status.clone().unwrap();
            let active = status.active.unwrap_or_default();
            let active: Vec<&str> = active.iter().map(|one| one.name.as_deref().unwrap()).collect();
            let shown =
                |time: Option<Time>| time.map_or("-".to_owned(), |time| time.0.strftime("%H:%M").to_string());
            format!(
                "status active [{}] last {} successful {}",
                active.join(" "),
                shown(status.last_schedule_time),
                shown(status.last_successful_time)
            )
        }
        Action::Patch(_, patch) => {
            format!("missed {}", patch["metadata"]["annotations"][extras::LAST_MISSED].as_str().unwrap())
        }
        Action::Warn { reason, message, .. } => format!("warn {reason}: {message}"),
        Action::Event { reason, message, .. } => format!("event {reason}: {message}"),
        other => format!("{other:?}"),
    }
}

fn minutes(text: &str) -> i64 {
    at(text).as_second() / 60
}

/// Decides a case; `{HH:MM}` in an expected line is that time's minutes since 1970, and the last line
/// says when the key is looked at again.
#[track_caller]
fn check(case: &Case, expected: &[&str]) {
    let jobs = case.jobs.iter().map(|(name, time, state)| job(name, time, state)).collect();
    let decision = decided(cron_job(case), jobs, at(case.now));
    let mut lines: Vec<String> = decision.actions.iter().map(render).collect();
    lines.push(match decision.requeue_after {
        Some(after) => format!("again at {}", (at(case.now) + after).strftime("%H:%M:%S")),
        None => "never again".to_owned(),
    });
    let expected: Vec<String> = expected
        .iter()
        .map(|line| match (line.find('{'), line.find('}')) {
            (Some(from), Some(to)) => {
                format!("{}{}{}", &line[..from], minutes(&line[from + 1..to]), &line[to + 1..])
            }
            _ => (*line).to_owned(),
        })
        .collect();
    assert_eq!(lines, expected);
}

/// 14.3
#[test]
fn a_job_is_named_after_its_minute_and_made_of_the_template() {
    check(&HOURLY, &["create {11:00} for 2026-03-02T11:00:00Z", "again at 12:00:00"]);
    check(&Case { now: "10:59", ..HOURLY }, &["again at 11:00:00"]);
    check(
        &Case { now: "11:00", ..HOURLY },
        &["create {11:00} for 2026-03-02T11:00:00Z", "again at 12:00:00"],
    );
    let zoned = Case { spec: json!({"timeZone": "Asia/Tokyo"}), ..HOURLY };
    check(&zoned, &["create {11:00} for 2026-03-02T20:00:00+09:00", "again at 12:00:00"]);
    let decision = decided(cron_job(&HOURLY), vec![], at("11:05"));
    let Action::CreateFor(_, object, about, _) = &decision.actions[0] else { panic!("{decision:?}") };
    let meta = object.metadata();
    assert_eq!(meta.labels.as_ref().unwrap()["l"], "v");
    assert_eq!(meta.annotations.as_ref().unwrap()["a"], "v");
    let owner = &meta.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("CronJob", "cron", Some(true)));
    assert_eq!(about.uid.as_deref(), Some("cron"));
    let finer = Case { spec: json!({"schedule": "@every 20s"}), now: "2026-03-02T10:00:41Z", ..HOURLY };
    check(&finer, &["create 1772445640 for 2026-03-02T10:00:40Z", "again at 10:01:01"]);
}

/// 14.3: between a Job's creation and the note of it, the process may die.
#[test]
fn a_job_that_the_status_does_not_know_yet_is_not_made_twice() {
    let mut cron_job = cron_job(&HOURLY);
    cron_job.status = Some(CronJobStatus::default());
    let decision = decided(cron_job, vec![job("c-29541780", "11:00", "active")], at("11:05"));
    let lines: Vec<String> = decision.actions.iter().map(render).collect();
    assert_eq!(lines, ["status active [c-29541780] last 11:00 successful -"]);
}

#[test]
fn a_name_that_another_has_is_told_of() {
    let mut other = job(&format!("c-{}", minutes("11:00")), "11:00", "active");
    other.metadata.owner_references = None;
    let decision = decided(cron_job(&HOURLY), vec![other], at("11:05"));
    let lines: Vec<String> = decision.actions.iter().map(render).collect();
    assert_eq!(
        lines,
        [format!(
            "warn FailedCreate: Error creating job: jobs.batch \"c-{}\" already exists, and is not of this CronJob",
            minutes("11:00")
        )]
    );
}

/// 14.4
#[test]
fn of_missed_times_the_last_one_is_made_up_for() {
    check(
        &Case { now: "15:10", ..HOURLY },
        &["create {15:00} for 2026-03-02T15:00:00Z", "again at 16:00:00"],
    );
    check(&Case { last: Some("15:00"), now: "15:10", ..HOURLY }, &["again at 16:00:00"]);
    let minutely = Case { spec: json!({"schedule": "* * * * *"}), ..HOURLY };
    check(
        &Case { now: "11:40", spec: minutely.spec.clone(), ..HOURLY },
        &["create {11:40} for 2026-03-02T11:40:00Z", "again at 11:41:00"],
    );
    check(
        &Case { now: "11:41", ..minutely },
        &[
            "warn TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
            "create {11:41} for 2026-03-02T11:41:00Z",
            "again at 11:42:00",
        ],
    );
}

/// 14.4
#[test]
fn a_time_past_its_deadline_is_missed_and_told_once() {
    let deadline = || json!({"startingDeadlineSeconds": 120});
    check(
        &Case { spec: deadline(), now: "2026-03-02T11:02:00.9Z", ..HOURLY },
        &["create {11:00} for 2026-03-02T11:00:00Z", "again at 12:00:00"],
    );
    check(
        &Case { spec: deadline(), now: "2026-03-02T11:02:01Z", ..HOURLY },
        &[
            "warn MissSchedule: Missed scheduled time to start a job: Mon, 02 Mar 2026 11:00:00 +0000",
            "missed 2026-03-02T11:00:00Z",
            "again at 12:00:00",
        ],
    );
    let told = json!({"coracle.dev/last-missed": "2026-03-02T11:00:00Z"});
    check(&Case { spec: deadline(), annotations: told, now: "11:30", ..HOURLY }, &["again at 12:00:00"]);
    // Some are past their deadline, one is not.
    let told = json!({"coracle.dev/last-missed": "2026-03-02T13:00:00Z"});
    check(
        &Case { spec: deadline(), annotations: told, now: "14:01", ..HOURLY },
        &["create {14:00} for 2026-03-02T14:00:00Z", "again at 15:00:00"],
    );
    // A deadline of nothing is the second itself.
    check(
        &Case { spec: json!({"startingDeadlineSeconds": 0}), now: "2026-03-02T11:00:00.5Z", ..HOURLY },
        &["create {11:00} for 2026-03-02T11:00:00Z", "again at 12:00:00"],
    );
}

const RUNNING: &[(&str, &str, &str)] = &[("one", "11:00", "active")];

/// 14.5
#[test]
fn policies_differ_when_a_job_still_runs() {
    let policy = |policy: &str| json!({"concurrencyPolicy": policy});
    check(
        &Case { spec: policy("Allow"), jobs: RUNNING, now: "12:00", ..HOURLY },
        &["create {12:00} for 2026-03-02T12:00:00Z", "again at 13:00:00"],
    );
    check(
        &Case { spec: policy("Forbid"), jobs: RUNNING, now: "12:00", ..HOURLY },
        &[
            "event JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid",
            "again at 13:00:00",
        ],
    );
    check(
        &Case { spec: policy("Replace"), jobs: RUNNING, now: "12:00", ..HOURLY },
        &[
            "delete one",
            "event SuccessfulDelete: Deleted job one",
            "create {12:00} for 2026-03-02T12:00:00Z",
            "again at 13:00:00",
        ],
    );
}

/// 14.5: what was skipped is made up for when nothing is in its way, if it is in time.
#[test]
fn forbid_starts_the_skipped_time_when_the_running_job_has_ended() {
    let forbid = || json!({"concurrencyPolicy": "Forbid"});
    // Said once; a later look says nothing.
    check(&Case { spec: forbid(), jobs: RUNNING, now: "12:20", ..HOURLY }, &["again at 13:00:00"]);
    check(
        &Case { spec: forbid(), jobs: &[("one", "11:00", "complete")], now: "12:20", ..HOURLY },
        &["create {12:00} for 2026-03-02T12:00:00Z", "again at 13:00:00"],
    );
    check(
        &Case {
            spec: json!({"concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 60}),
            jobs: &[("one", "11:00", "complete")],
            now: "12:20",
            ..HOURLY
        },
        &[
            "warn MissSchedule: Missed scheduled time to start a job: Mon, 02 Mar 2026 12:00:00 +0000",
            "missed 2026-03-02T12:00:00Z",
            "again at 13:00:00",
        ],
    );
}

/// 14.6
#[test]
fn suspended_ones_start_nothing_and_then_the_latest() {
    check(&Case { spec: json!({"suspend": true}), now: "14:20", ..HOURLY }, &["never again"]);
    check(
        &Case { now: "14:20", ..HOURLY },
        &["create {14:00} for 2026-03-02T14:00:00Z", "again at 15:00:00"],
    );
}

/// 14.7
#[test]
fn the_status_is_what_the_jobs_say() {
    let mut known = cron_job(&Case {
        jobs: &[("ended", "11:00", "active"), ("gone", "11:00", "active"), ("runs", "11:00", "active")],
        ..HOURLY
    });
    let decision = decided(
        known.clone(),
        vec![
            job("ended", "11:00", "complete"),
            job("new", "12:00", "active"),
            job("runs", "11:00", "active"),
        ],
        at("12:05"),
    );
    let lines: Vec<String> = decision.actions.iter().map(render).collect();
    assert_eq!(
        lines,
        [
            "event SawCompletedJob: Saw completed job: ended, condition: Complete",
            "event MissingJob: Active job went missing: gone",
            "status active [new runs] last 12:00 successful 11:00",
        ]
    );
    // Nor does it fall when Jobs are deleted; nothing more is written then.
    known.status = Some(CronJobStatus {
        active: None,
        last_schedule_time: Some(Time(at("12:00"))),
        last_successful_time: Some(Time(at("11:00"))),
    });
    assert!(decided(known, vec![], at("12:05")).actions.is_empty());
}

/// 14.7
#[test]
fn history_keeps_the_newest() {
    let jobs: &[(&str, &str, &str)] = &[
        ("f1", "06:00", "failed"),
        ("f2", "07:00", "failed"),
        ("s1", "08:00", "complete"),
        ("s2", "09:00", "complete"),
        ("s3", "10:00", "complete"),
        ("s4", "11:00", "complete"),
        ("s5", "11:00", "complete"),
    ];
    check(
        &Case { jobs, ..HOURLY },
        &[
            "delete s1",
            "event SuccessfulDelete: Deleted job s1",
            "delete s2",
            "event SuccessfulDelete: Deleted job s2",
            "delete f1",
            "event SuccessfulDelete: Deleted job f1",
            "again at 12:00:00",
        ],
    );
    let none = json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0});
    check(
        &Case { spec: none, jobs: &[("s4", "11:00", "complete")], ..HOURLY },
        &["delete s4", "event SuccessfulDelete: Deleted job s4", "again at 12:00:00"],
    );
}

/// 14.8
#[test]
fn manual_jobs_are_children_that_nothing_waits_for() {
    let forbid = json!({"concurrencyPolicy": "Forbid"});
    check(
        &Case { spec: forbid.clone(), jobs: &[("by-hand", "", "manual")], ..HOURLY },
        &[
            "warn UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand",
            "create {11:00} for 2026-03-02T11:00:00Z",
            "again at 12:00:00",
        ],
    );
    // So are those that somebody made to look like a child. Once they have ended nothing is said of them.
    let strays = vec![job("stray", "", "active"), {
        let mut ended = job("done", "11:00", "complete");
        ended.metadata.annotations = None;
        ended
    }];
    let known = cron_job(&Case { spec: forbid, last: Some("11:00"), ..HOURLY });
    let lines: Vec<String> = decided(known, strays, at("11:05")).actions.iter().map(render).collect();
    assert_eq!(
        lines,
        [
            "warn UnexpectedJob: Saw a job that the controller did not create or forgot: stray",
            "status active [] last 11:00 successful 11:00",
        ]
    );
}

/// 14.9
#[test]
fn what_is_stored_badly_is_told() {
    check(
        &Case { spec: json!({"schedule": "0 * * *"}), ..HOURLY },
        &[
            "warn UnparseableSchedule: unparseable schedule: \"0 * * *\" : expected exactly 5 fields (minute, hour, day of month, month, day of week), found 4: [0 * * *]",
            "never again",
        ],
    );
    check(
        &Case { spec: json!({"timeZone": "Mars/Phobos"}), ..HOURLY },
        &[
            "warn UnknownTimeZone: invalid timeZone: \"Mars/Phobos\": unknown time zone Mars/Phobos",
            "never again",
        ],
    );
    check(&Case { spec: json!({"schedule": "0 0 30 2 *"}), ..HOURLY }, &["never again"]);
}

#[test]
fn a_cron_job_in_deletion_starts_nothing() {
    let mut going = cron_job(&HOURLY);
    going.metadata.deletion_timestamp = Some(Time(at("11:01")));
    assert!(decided(going, vec![], at("11:05")).actions.is_empty());
}

#[test]
fn at_is_due_once_and_takes_the_schedules_place() {
    let at_noon = || json!({"coracle.dev/at": "2026-03-02T13:00:00+01:00"});
    check(&Case { annotations: at_noon(), ..HOURLY }, &["again at 12:00:00"]);
    check(
        &Case { annotations: at_noon(), now: "12:00", ..HOURLY },
        &["create {12:00} for 2026-03-02T12:00:00Z", "never again"],
    );
    check(&Case { annotations: at_noon(), last: Some("12:00"), now: "23:00", ..HOURLY }, &["never again"]);
    // Late, with a deadline.
    check(
        &Case {
            annotations: at_noon(),
            spec: json!({"startingDeadlineSeconds": 60}),
            now: "12:30",
            ..HOURLY
        },
        &[
            "warn MissSchedule: Missed scheduled time to start a job: Mon, 02 Mar 2026 12:00:00 +0000",
            "missed 2026-03-02T12:00:00Z",
            "never again",
        ],
    );
    // Behind its creation.
    check(
        &Case { annotations: json!({"coracle.dev/at": "2026-03-02T09:00:00Z"}), ..HOURLY },
        &[
            "warn MissSchedule: Missed scheduled time to start a job: Mon, 02 Mar 2026 09:00:00 +0000, which annotation coracle.dev/at names, but the CronJob was only created later; give it a time to come",
            "missed 2026-03-02T09:00:00Z",
            "never again",
        ],
    );
    let told =
        json!({"coracle.dev/at": "2026-03-02T09:00:00Z", "coracle.dev/last-missed": "2026-03-02T09:00:00Z"});
    check(&Case { annotations: told, ..HOURLY }, &["never again"]);
    check(
        &Case { annotations: json!({"coracle.dev/at": "noon"}), ..HOURLY },
        &[
            "warn InvalidAnnotation: annotation coracle.dev/at is \"noon\", so no Job is started: it must be a time such as 2026-07-09T08:30:00Z, or be removed for spec.schedule to count",
            "never again",
        ],
    );
}

#[test]
fn catching_up_with_none_or_all() {
    let none = || json!({"coracle.dev/catch-up": "none"});
    check(
        &Case { annotations: none(), now: "2026-03-02T11:00:10Z", ..HOURLY },
        &["create {11:00} for 2026-03-02T11:00:00Z", "again at 12:00:00"],
    );
    check(
        &Case { annotations: none(), now: "2026-03-02T11:00:11Z", ..HOURLY },
        &[
            "warn MissSchedule: Missed scheduled time to start a job: Mon, 02 Mar 2026 11:00:00 +0000",
            "missed 2026-03-02T11:00:00Z",
            "again at 12:00:00",
        ],
    );
    let all = || json!({"coracle.dev/catch-up": "all"});
    check(
        &Case { annotations: all(), now: "15:10", ..HOURLY },
        &["create {11:00} for 2026-03-02T11:00:00Z", "again at 16:00:00"],
    );
    check(
        &Case { annotations: all(), last: Some("11:00"), now: "15:10", ..HOURLY },
        &["create {12:00} for 2026-03-02T12:00:00Z", "again at 16:00:00"],
    );
    check(
        &Case { annotations: all(), spec: json!({"concurrencyPolicy": "Replace"}), now: "15:10", ..HOURLY },
        &["create {15:00} for 2026-03-02T15:00:00Z", "again at 16:00:00"],
    );
    let deadline = json!({"startingDeadlineSeconds": 7200});
    check(
        &Case { annotations: all(), spec: deadline, now: "15:10", ..HOURLY },
        &[
            "warn MissSchedule: Missed scheduled time to start a job: Mon, 02 Mar 2026 13:00:00 +0000",
            "missed 2026-03-02T13:00:00Z",
            "create {14:00} for 2026-03-02T14:00:00Z",
            "again at 16:00:00",
        ],
    );
}

#[test]
fn catching_up_with_all_has_a_bound() {
    let all = |missed: Option<&str>| {
        let mut annotations = json!({"coracle.dev/catch-up": "all"});
        if let Some(missed) = missed {
            annotations[extras::LAST_MISSED] = json!(at(missed).to_string());
        }
        annotations
    };
    let minutely = || json!({"schedule": "* * * * *"});
    // From 10:01 to 11:40 there are just as many as are made up for.
    check(
        &Case { annotations: all(None), spec: minutely(), now: "11:40", ..HOURLY },
        &["create {10:01} for 2026-03-02T10:01:00Z", "again at 11:41:00"],
    );
    check(
        &Case { annotations: all(None), spec: minutely(), now: "11:42", ..HOURLY },
        &[
            "warn TooManyMissedTimes: too many missed start times: no job is started for those from 2026-03-02T10:01:00Z to 2026-03-02T10:02:00Z, as annotation coracle.dev/catch-up: all makes up for the latest 100 only",
            "missed 2026-03-02T10:02:00Z",
            "create {10:03} for 2026-03-02T10:03:00Z",
            "again at 11:43:00",
        ],
    );
    // What has been told is not told again.
    check(
        &Case { annotations: all(Some("10:02")), spec: minutely(), now: "11:42", ..HOURLY },
        &["create {10:03} for 2026-03-02T10:03:00Z", "again at 11:43:00"],
    );
    check(
        &Case { annotations: all(Some("10:02")), spec: minutely(), now: "11:43", ..HOURLY },
        &[
            "warn TooManyMissedTimes: too many missed start times: no job is started for those from 2026-03-02T10:03:00Z to 2026-03-02T10:03:00Z, as annotation coracle.dev/catch-up: all makes up for the latest 100 only",
            "missed 2026-03-02T10:03:00Z",
            "create {10:04} for 2026-03-02T10:04:00Z",
            "again at 11:44:00",
        ],
    );
}

#[test]
fn run_on_create_is_due_at_creation_if_nothing_ever_ran() {
    let on_create = || json!({"coracle.dev/run-on-create": "true"});
    check(
        &Case { annotations: on_create(), now: "2026-03-02T10:00:01Z", ..HOURLY },
        &["create {10:00} for 2026-03-02T10:00:00Z", "again at 11:00:00"],
    );
    check(
        &Case { annotations: on_create(), last: Some("10:00"), now: "10:30", ..HOURLY },
        &["again at 11:00:00"],
    );
}

#[test]
fn jobs_wake_their_cron_job() {
    let seen = Snapshot::default();
    let woken = |old: Option<Job>, new: Option<Job>| {
        let arc = |job: Option<Job>| job.map(|job| std::sync::Arc::new(job) as std::sync::Arc<dyn Object>);
        let (old, new) = (arc(old), arc(new));
        let mut woken = Vec::new();
        let change = Change { kind: KindRef::of::<Job>(), old: old.as_ref(), new: new.as_ref() };
        CronJobs::new(TimeZone::UTC).wakes(&seen, &change, &mut |key| woken.push(key.name));
        woken.dedup();
        woken
    };
    let mut stranger = job("a", "", "active");
    stranger.metadata.owner_references = None;
    assert_eq!(woken(None, Some(job("a", "", "active"))), ["c"]);
    assert_eq!(woken(Some(job("a", "", "active")), Some(stranger.clone())), ["c"]);
    assert_eq!(woken(Some(job("a", "", "active")), None), ["c"]);
    assert_eq!(woken(None, Some(stranger)), [""; 0]);
}
