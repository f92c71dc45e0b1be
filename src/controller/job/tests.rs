//! Decisions about one Job, as lines.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kind::{self, Object};

mod claims;
mod per_node;

/// Midnight of the first of January 1970, and two minutes.
const NOW: i64 = 120;

/// A stored Job with this spec and status.
fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "a", "namespace": "n", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    });
    json_patch::merge(&mut job["spec"], &spec);
    let kind = kind::of::<Job>();
    let mut job = kind.strategy.decode_value(job).unwrap();
    kind.strategy.set_defaults(&mut *job);
    kind.strategy.prepare_create(&mut *job);
    let mut job: Job = *job.into_any().downcast().unwrap();
    job.status = Some(serde_json::from_value(status).unwrap());
    job
}

/// A pod of the Job, that waits to be counted: `phase`, and what differs.
fn pod(name: &str, phase: &str, change: Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "n", "uid": name, "finalizers": [TRACKING_FINALIZER],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": "u", "controller": true}],
        },
        "spec": {"nodeName": "node", "containers": []},
        "status": {"phase": phase},
    });
    json_patch::merge(&mut pod, &change);
    serde_json::from_value(pod).unwrap()
}

fn indexed(name: &str, phase: &str, index: u32) -> Pod {
    pod(
        name,
        phase,
        json!({"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": index.to_string()}}}),
    )
}

fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "1970-01-01T00:01:00Z"}})
}

fn exited(code: i32, message: &str) -> Value {
    json!({"status": {"containerStatuses": [{
        "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "message": message, "reason": "Error", "finishedAt": "1970-01-01T00:01:55Z"}},
    }]}})
}

/// What is decided: the status as `field=value`, then what happens to pods.
fn decide(job: &Job, pods: &[Pod]) -> Vec<String> {
    let now = Timestamp::from_second(NOW).unwrap();
    let seen = sync::Seen { job, pods: pods.iter().collect(), nodes: BTreeMap::new() };
    lines(sync::decide(&seen, now))
}

fn lines(plan: sync::Plan<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(status) = plan.status.and_then(|job| job.status) {
        let mut fields = Vec::new();
        for (name, value) in [
            ("active", status.active),
            ("succeeded", status.succeeded),
            ("failed", status.failed),
            ("terminating", status.terminating),
        ] {
            if let Some(value) = value.filter(|value| *value != 0) {
                fields.push(format!("{name}={value}"));
            }
        }
        fields.extend(status.completed_indexes.map(|text| format!("completed={text}")));
        fields.extend(status.failed_indexes.map(|text| format!("failedIndexes={text}")));
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        fields.extend(uncounted.succeeded.map(|uids| format!("uncounted+{}", uids.join("+"))));
        fields.extend(uncounted.failed.map(|uids| format!("uncounted-{}", uids.join("-"))));
        fields.extend(
            status
                .conditions
                .unwrap_or_default()
                .into_iter()
                .map(|one| format!("{}={} {}", one.type_, one.status, one.reason.unwrap_or_default())),
        );
        lines.push(format!("status {}", fields.join(" ")).trim_end().to_owned());
    }
    let names =
        |pods: &[&Pod]| pods.iter().map(|pod| snapshot::name(*pod).to_owned()).collect::<Vec<_>>().join(" ");
    for (word, pods) in [("release", &plan.release), ("stop", &plan.stop), ("drop", &plan.drop)] {
        if !pods.is_empty() {
            lines.push(format!("{word} {}", names(pods)));
        }
    }
    let places: Vec<String> = plan
        .create
        .iter()
        .map(|place| match place {
            make::Place::Any => "any".to_owned(),
            make::Place::Index(index, None) => index.to_string(),
            make::Place::Index(index, Some((counted, ignored))) => format!("{index}({counted},{ignored})"),
            make::Place::Node(node) => node.clone(),
        })
        .collect();
    if !places.is_empty() {
        lines.push(format!("create {}", places.join(" ")));
    }
    lines.extend(plan.events.into_iter().map(|(_, reason, message)| format!("event {reason} {message}")));
    lines.extend(plan.again_after.map(|after| format!("again in {} s", after.as_secs())));
    lines
}

#[track_caller]
fn check(spec: Value, status: Value, pods: &[Pod], expected: &[&str]) {
    assert_eq!(decide(&job(spec, status), pods), expected);
}

fn started() -> Value {
    json!({"startTime": "1970-01-01T00:00:00Z", "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}})
}

fn with(mut status: Value, change: Value) -> Value {
    json_patch::merge(&mut status, &change);
    status
}

#[test]
fn as_many_run_as_are_wanted() {
    // BEHAVIOURS 13.4.
    let running = |n: usize| (0..n).map(|i| pod(&format!("p{i}"), "Running", json!({}))).collect::<Vec<_>>();
    check(
        json!({"completions": 5, "parallelism": 3}),
        json!({}),
        &[],
        &["status active=3", "create any any any"],
    );
    let near_the_end = with(started(), json!({"succeeded": 4, "active": 1}));
    check(json!({"completions": 5, "parallelism": 3}), near_the_end, &running(1), &[]);
    check(json!({"parallelism": 2}), json!({}), &[], &["status active=2", "create any any"]);
    let one_success = with(started(), json!({"succeeded": 1, "active": 1}));
    check(json!({"parallelism": 3}), one_success, &running(1), &[]);
    let paused = with(started(), json!({"active": 2}));
    check(json!({"parallelism": 0}), paused.clone(), &running(2), &["status terminating=2", "drop p0 p1"]);
    // The least advanced go first.
    let pods =
        [pod("run", "Running", json!({})), pod("wait", "Pending", json!({"spec": {"nodeName": null}}))];
    check(
        json!({"parallelism": 1, "completions": 2}),
        paused,
        &pods,
        &["status active=1 terminating=1", "drop wait"],
    );
}

#[test]
fn a_pod_is_counted_in_three_steps() {
    // BEHAVIOURS 13.3.
    let spec = json!({"completions": 2, "parallelism": 1});
    let done = pod("p", "Succeeded", json!({}));
    check(
        spec.clone(),
        with(started(), json!({"active": 1})),
        std::slice::from_ref(&done),
        &["status active=1 uncounted+p", "release p", "create any"],
    );
    let listed = with(started(), json!({"active": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}}));
    let next = pod("q", "Running", json!({}));
    // Killed before the finalizer went: only that is left to do.
    check(spec.clone(), listed.clone(), &[done, next.clone()], &["release p"]);
    // Killed before it was counted, or the pod was deleted by somebody.
    check(spec.clone(), listed, std::slice::from_ref(&next), &["status active=1 succeeded=1"]);
    let counted = with(started(), json!({"active": 1, "succeeded": 1}));
    check(spec, counted, &[next], &[]);
    // A pod that somebody deletes has failed, once, and is replaced.
    let deleted = pod("p", "Running", going());
    let expected = ["status active=1 terminating=1 uncounted-p", "release p", "create any"];
    check(json!({}), with(started(), json!({"active": 1})), &[deleted], &expected);
}

#[test]
fn the_end_is_announced_and_waits_for_the_pods() {
    // BEHAVIOURS 13.5.
    let done = pod("p", "Succeeded", json!({}));
    let active = with(started(), json!({"active": 1}));
    let announced = "SuccessCriteriaMet=True CompletionsReached";
    check(json!({}), active, &[done], &[&format!("status uncounted+p {announced}"), "release p"]);
    let met = json!([{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached", "message": "m"}]);
    let listed = with(started(), json!({"conditions": met, "uncountedTerminatedPods": {"succeeded": ["p"]}}));
    check(
        json!({}),
        listed,
        &[],
        &[
            &format!("status succeeded=1 {announced} Complete=True CompletionsReached"),
            "event Completed Job completed",
        ],
    );
    let target =
        json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "late"}]);
    let failing = with(started(), json!({"conditions": target, "terminating": 1, "active": 1}));
    check(
        json!({}),
        failing.clone(),
        &[pod("p", "Running", json!({}))],
        &["status terminating=1 FailureTarget=True DeadlineExceeded", "stop p"],
    );
    check(
        json!({}),
        failing.clone(),
        &[pod("p", "Running", going())],
        &["status terminating=1 uncounted-p FailureTarget=True DeadlineExceeded", "release p"],
    );
    let failing = with(failing, json!({"failed": 1, "active": null, "terminating": 0}));
    check(
        json!({}),
        failing,
        &[],
        &[
            "status failed=1 FailureTarget=True DeadlineExceeded Failed=True DeadlineExceeded",
            "event DeadlineExceeded late",
        ],
    );
}

#[test]
fn failures_wait_and_have_a_limit() {
    // BEHAVIOURS 13.6 and 13.7.
    let active = with(started(), json!({"active": 1}));
    let failed = |name: &str| pod(name, "Failed", exited(1, ""));
    check(json!({}), active.clone(), &[failed("p")], &["status uncounted-p", "release p", "again in 5 s"]);
    check(
        json!({"backoffLimit": 1}),
        with(active.clone(), json!({"failed": 1})),
        &[failed("p"), pod("q", "Running", json!({}))],
        &[
            "status failed=1 terminating=1 uncounted-p FailureTarget=True BackoffLimitExceeded",
            "release p",
            "stop q",
        ],
    );
    let restarted = |times: i32| {
        pod(
            "p",
            "Running",
            json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": times}]}}),
        )
    };
    let on_failure =
        |limit: i32| json!({"backoffLimit": limit, "template": {"spec": {"restartPolicy": "OnFailure"}}});
    let over = ["status terminating=1 FailureTarget=True BackoffLimitExceeded", "stop p"];
    check(on_failure(2), active.clone(), &[restarted(1)], &[]);
    check(on_failure(2), active.clone(), &[restarted(2)], &over);
    check(on_failure(0), active.clone(), &[restarted(0)], &[]);
    check(on_failure(0), active.clone(), &[restarted(1)], &over);
    let running = [pod("p", "Running", json!({}))];
    check(json!({"activeDeadlineSeconds": 130}), active.clone(), &running, &["again in 10 s"]);
    check(
        json!({"activeDeadlineSeconds": 120}),
        active,
        &running,
        &["status terminating=1 FailureTarget=True DeadlineExceeded", "stop p"],
    );
}

#[test]
fn indexes_run_in_order_and_once() {
    // BEHAVIOURS 13.8.
    let spec = json!({"completionMode": "Indexed", "completions": 6, "parallelism": 3});
    check(spec.clone(), json!({}), &[], &["status active=3", "create 0 1 2"]);
    let some = with(started(), json!({"completedIndexes": "0,2", "succeeded": 2, "active": 1}));
    check(
        spec.clone(),
        some.clone(),
        &[indexed("p", "Running", 1)],
        &["status active=3 succeeded=2 completed=0,2", "create 3 4"],
    );
    check(
        spec.clone(),
        some.clone(),
        &[indexed("p", "Succeeded", 1)],
        &["status active=3 succeeded=3 completed=0-2", "release p", "create 3 4 5"],
    );
    // Twins, and pods of no index, go.
    let pods = [indexed("p", "Running", 1), indexed("q", "Pending", 1), indexed("r", "Running", 7)];
    let expected = ["status active=1 succeeded=2 terminating=2 completed=0,2", "drop q r"];
    check(spec, some, &pods, &expected);
}

#[test]
fn each_index_has_its_own_limit() {
    // BEHAVIOURS 13.9.
    let spec =
        json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1});
    check(spec.clone(), json!({}), &[], &["status active=2 failedIndexes=", "create 0(0,0) 1(0,0)"]);
    let active = with(started(), json!({"active": 2, "failedIndexes": ""}));
    let other = || indexed("q", "Running", 1);
    let mut failed = indexed("p", "Failed", 0);
    // It stays until its successor knows how often the index has failed, and that one waits.
    let late = with(active.clone(), json!({"active": 1}));
    check(
        spec.clone(),
        late,
        &[failed.clone(), other()],
        &["status active=2 failedIndexes=", "create 0(1,0)"],
    );
    let successor = |mut pod: Pod| {
        pod.metadata.annotations.get_or_insert_default().insert(pods::INDEX_FAILURES.into(), "1".into());
        pod
    };
    let new = successor(indexed("r", "Running", 0));
    check(
        spec.clone(),
        active.clone(),
        &[failed.clone(), new, other()],
        &["status active=2 failedIndexes= uncounted-p", "release p"],
    );
    failed = successor(failed);
    check(
        spec.clone(),
        active.clone(),
        &[failed.clone(), other()],
        &["status active=1 failedIndexes=0 uncounted-p", "release p"],
    );
    let mut strict = spec;
    strict["maxFailedIndexes"] = json!(0);
    check(
        strict,
        active,
        &[failed, other()],
        &[
            "status terminating=1 failedIndexes=0 uncounted-p FailureTarget=True MaxFailedIndexesExceeded",
            "release p",
            "stop q",
        ],
    );
}

#[test]
fn policies_tell_failures_apart() {
    // BEHAVIOURS 13.10.
    let verdict = |rules: Value, annotation: Option<Value>, change: Value| {
        let mut job = job(json!({"podFailurePolicy": {"rules": rules}}), json!({}));
        if let Some(annotation) = annotation {
            let key = crate::kind::job::traps::ANNOTATION.to_owned();
            job.metadata.annotations = Some([(key, annotation.to_string())].into());
        }
        format!("{:?}", policy::Policy::of(&job).verdict(&pod("p", "Failed", change)))
    };
    let codes = |action: &str, operator: &str, values: Value| json!([{"action": action, "onExitCodes": {"operator": operator, "values": values}}]);
    for (rules, expected) in [
        (
            codes("FailJob", "In", json!([42])),
            "FailJob(\"Container c for pod n/p failed with exit code 42 matching FailJob rule at index 0\")",
        ),
        (codes("FailJob", "In", json!([41])), "Count"),
        (codes("Ignore", "NotIn", json!([41])), "Ignore"),
        (codes("FailIndex", "NotIn", json!([42])), "Count"),
        (
            json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]),
            "Count",
        ),
    ] {
        assert_eq!(verdict(rules.clone(), None, exited(42, "")), expected, "{rules}");
    }
    // 0 is never a failure, whatever the operator says.
    assert_eq!(verdict(codes("Ignore", "NotIn", json!([41])), None, exited(0, "")), "Count");
    let disrupted = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}});
    let rule =
        json!([{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]);
    assert_eq!(
        verdict(rule, None, disrupted),
        "FailJob(\"Pod n/p has condition DisruptionTarget matching FailJob rule at index 0\")"
    );
    // What the engine says of a trap.
    let traps = |traps: Value| Some(json!([{"action": "FailJob", "traps": traps}]));
    let unreachable = exited(134, "wasm trap: wasm `unreachable` instruction executed (in main)");
    let message = "FailJob(\"Container c for pod n/p trapped (unreachable) matching FailJob rule at index 0 of coracle.dev/pod-failure-traps\")";
    assert_eq!(
        verdict(json!([]), traps(json!(["stack-overflow", "unreachable"])), unreachable.clone()),
        message
    );
    assert_eq!(verdict(json!([]), traps(json!(["out-of-memory"])), unreachable), "Count");
    assert_eq!(
        verdict(json!([]), traps(json!(["unreachable"])), exited(1, "unreachable")),
        "Count",
        "no trap"
    );
}

#[test]
fn some_successes_may_be_enough() {
    // BEHAVIOURS 13.11.
    let enough = |rule: Value, completed: &str| {
        let policy = serde_json::from_value(json!({"rules": [rule]})).unwrap();
        policy::is_enough(Some(&policy), 10, &crate::kind::job::indexes::Indexes::read(completed, 10))
            .is_some()
    };
    assert!(enough(json!({"succeededCount": 2}), "1,7"));
    assert!(!enough(json!({"succeededCount": 3}), "1,7"));
    assert!(enough(json!({"succeededIndexes": "0-1"}), "0-2"));
    assert!(!enough(json!({"succeededIndexes": "0-1,9"}), "0-2"));
    assert!(enough(json!({"succeededIndexes": "0-1,9", "succeededCount": 2}), "0-2"));
}

#[test]
fn suspended_jobs_have_no_pods() {
    // BEHAVIOURS 13.12.
    let running = [pod("p", "Running", json!({}))];
    let suspended = "Suspended=True JobSuspended";
    check(
        json!({"suspend": true}),
        with(started(), json!({"active": 1})),
        &running,
        &[&format!("status terminating=1 {suspended}"), "drop p", "event Suspended Job suspended"],
    );
    check(
        json!({"suspend": true}),
        json!({}),
        &[],
        &[&format!("status {suspended}"), "event Suspended Job suspended"],
    );
    let rests = json!([{"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}]);
    check(
        json!({}),
        with(started(), json!({"conditions": rests})),
        &[],
        &["status active=1 Suspended=False JobResumed", "create any", "event Resumed Job resumed"],
    );
}

#[test]
fn finished_jobs_go_after_a_while() {
    // BEHAVIOURS 13.13.
    let ended = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}]});
    let decide = |ttl: Value| {
        let job = job(json!({"ttlSecondsAfterFinished": ttl}), ended.clone());
        let mut seen = Snapshot::new(Jobs.indexes());
        let kind = KindRef::of::<Job>();
        let key = Key::to(kind, &job);
        seen.insert(kind, Arc::new(job));
        let moment = Moment { now: Timestamp::from_second(NOW).unwrap(), waited: Duration::ZERO };
        let decision = Jobs.reconcile(&seen, &key, moment);
        (format!("{:?}", decision.actions), decision.requeue_after.map(|after| after.as_secs()))
    };
    assert_eq!(decide(json!(null)), ("[]".to_owned(), None));
    assert_eq!(decide(json!(100)), ("[]".to_owned(), Some(40)));
    let (actions, again) = decide(json!(60));
    assert!(actions.contains("Delete(") && again.is_none(), "{actions}");
}

#[test]
fn pods_are_released_when_nobody_counts_them() {
    // BEHAVIOURS 13.14.
    let deleting = |mut job: Job| {
        job.metadata.deletion_timestamp = pod("x", "", going()).metadata.deletion_timestamp;
        job
    };
    let job = deleting(job(json!({}), with(started(), json!({"active": 1}))));
    assert_eq!(decide(&job, &[pod("p", "Running", json!({}))]), ["release p"]);
    // Of no Job at all.
    let mut seen = Snapshot::new(Jobs.indexes());
    let orphan = pod("p", "Running", json!({}));
    let key = Key::to(KindRef::of::<Pod>(), &orphan);
    let mut woken = Vec::new();
    let orphan: Arc<dyn Object> = Arc::new(orphan);
    seen.insert(key.kind, orphan.clone());
    Jobs.wakes(&seen, &Change { kind: key.kind, old: None, new: Some(&orphan) }, &mut |key| woken.push(key));
    assert!(woken.contains(&key));
    let moment = Moment { now: Timestamp::UNIX_EPOCH, waited: Duration::ZERO };
    let decision = format!("{:?}", Jobs.reconcile(&seen, &key, moment).actions);
    assert!(decision.contains("RequireAbsent") && decision.contains("Update("), "{decision}");
}
