use serde_json::json;

use super::*;
use crate::kind::fixture::Fixture;

const CRON: Fixture = Fixture {
    kind: &KIND,
    base: || {
        json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}},
        })
    },
};

#[test]
fn defaults_are_filled_in_but_not_those_of_the_job() {
    let created = CRON.created(json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}})).to_value();
    let spec = &created["spec"];
    assert_eq!(spec["concurrencyPolicy"], "Allow");
    assert_eq!(spec["suspend"], false);
    assert_eq!(spec["successfulJobsHistoryLimit"], 3);
    assert_eq!(spec["failedJobsHistoryLimit"], 1);
    assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["jobTemplate"]["spec"]["backoffLimit"], serde_json::Value::Null);
    assert_eq!(created["status"], json!({}));
}

#[test]
fn schedules_are_checked() {
    // BEHAVIOURS 14.1, 14.2.
    let schedule = |text: &str, expected: &[&str]| CRON.valid(json!({"spec": {"schedule": text}}), expected);
    schedule("@every 5m", &[]);
    schedule("", &["spec.schedule: Required value"]);
    schedule(
        "* * * * 7",
        &[
            r#"spec.schedule: Invalid value: "* * * * 7": day of week "7": end of range (7) above maximum (6), Sunday is 0: 7"#,
        ],
    );
    let refused = r#"spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#;
    schedule("TZ=UTC * * * * *", &[refused]);
    let old = json!({"spec": {"schedule": "TZ=UTC * * * * *"}});
    CRON.update(json!({}), old.clone(), &[refused]);
    CRON.update(old.clone(), json!({"spec": {"suspend": true}}), &[]);
    CRON.update(
        old,
        json!({"spec": {"timeZone": "Etc/UTC"}}),
        &[
            r#"spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule"#,
        ],
    );
}

#[test]
fn time_zones_are_names_of_the_database() {
    // BEHAVIOURS 14.2.
    let zone = |name: &str, why: &str| {
        let expected = format!("spec.timeZone: Invalid value: \"{name}\": {why}");
        let expected: &[&str] = if why.is_empty() { &[] } else { &[&expected] };
        CRON.valid(json!({"spec": {"timeZone": name}}), expected);
    };
    zone("Europe/Berlin", "");
    zone("Etc/GMT+12", "");
    zone("", "timeZone must be nil or non-empty string");
    zone("loCAL", "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    zone("Mars/Phobos", "unknown time zone Mars/Phobos");
    zone("../zoneinfo", "unknown time zone ../zoneinfo");
    zone("-a", "unknown time zone -a");
    zone("Abcdefghijklmno", "unknown time zone Abcdefghijklmno");
    // One that became invalid does not hinder other changes.
    let unknown = json!({"spec": {"timeZone": "Mars/Phobos"}});
    CRON.update(unknown, json!({"spec": {"suspend": true}}), &[]);
}

#[test]
fn the_rest_of_the_spec_is_checked() {
    CRON.valid(
        json!({"spec": {
            "startingDeadlineSeconds": -1, "concurrencyPolicy": "Perhaps",
            "successfulJobsHistoryLimit": -1, "failedJobsHistoryLimit": -2}}),
        &[
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.concurrencyPolicy: Unsupported value: "Perhaps": supported values: "Allow", "Forbid", "Replace""#,
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            "spec.failedJobsHistoryLimit: Invalid value: -2: must be greater than or equal to 0",
        ],
    );
    CRON.valid(json!({"spec": {"concurrencyPolicy": ""}}), &["spec.concurrencyPolicy: Required value"]);
    CRON.valid(json!({"metadata": {"name": "n".repeat(52)}}), &[]);
    let long = "n".repeat(53);
    CRON.valid(
        json!({"metadata": {"name": long}}),
        &[&format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters")],
    );
}

#[test]
fn the_template_is_that_of_a_job() {
    // BEHAVIOURS 13.1.
    CRON.valid(
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": null}}}}}}),
        &[
            r#"spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#,
        ],
    );
    CRON.valid(
        json!({"spec": {"jobTemplate": {"spec": {"selector": {}, "manualSelector": true}}}}),
        &[
            "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
            r#"spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false""#,
        ],
    );
    CRON.valid(
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}}}),
        &["spec.jobTemplate.spec.template.spec.containers: Required value"],
    );
}

#[test]
fn annotations_that_say_nothing_are_told_of() {
    let warnings = |annotations: serde_json::Value| {
        KIND.strategy.warnings(&*CRON.object(json!({"metadata": {"annotations": annotations}})))
    };
    let good = json!({
        "coracle.dev/at": "2026-07-09T10:30:00+02:00", "coracle.dev/catch-up": "all",
        "coracle.dev/run-on-create": "false"});
    assert_eq!(warnings(good), [""; 0]);
    let bad = json!({
        "coracle.dev/at": "tomorrow", "coracle.dev/catch-up": "some", "coracle.dev/run-on-create": "yes"});
    assert_eq!(
        warnings(bad),
        [
            "annotation coracle.dev/at is \"tomorrow\", so no Job is started: it must be a time such as 2026-07-09T08:30:00Z, or be removed for spec.schedule to count",
            "annotation coracle.dev/catch-up is \"some\", which is taken for \"last\": it must be none, last or all",
            "annotation coracle.dev/run-on-create is \"yes\", which is taken for \"false\": it must be \"true\" or \"false\"",
        ]
    );
}

#[test]
fn only_status_changes_status() {
    let status = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    let (new, old) = CRON.updated(json!({}), status.clone());
    assert!(new.equals(&*old), "an update keeps the status");
    let mut both = status;
    both["spec"] = json!({"suspend": true});
    let new = CRON.status_updated(json!({}), both).to_value();
    assert_eq!(new["status"]["lastScheduleTime"], "2026-01-01T00:00:00Z");
    assert_eq!(new["spec"]["suspend"], false, "a status update keeps the spec");
}

#[test]
fn tables_show_what_kubectl_expects() {
    // BEHAVIOURS 6.2.
    CRON.cells(
        json!({}),
        &["a", "*/5 * * * *", "<none>", "False", "0", "<none>", "<unknown>", "c", "i", "<none>"],
    );
    CRON.cells(
        json!({
            "spec": {"timeZone": "Asia/Tokyo", "suspend": true},
            "status": {"active": [{"name": "a-1"}, {"name": "a-2"}], "lastScheduleTime": "1970-01-01T00:50:00Z"}}),
        &["a", "*/5 * * * *", "Asia/Tokyo", "True", "2", "10m", "<unknown>", "c", "i", "<none>"],
    );
}
