//! Jobs as kubectl sees them, with guests that run.

use crate::harness::{Up, coracle, has, text};

#[test]
fn jobs_live_under_kubectl() {
    if !has("kubectl") {
        return;
    }
    let up = Up::durable(&["--nodes", "3"]);
    let env = up.scratch().join("env.wasm");
    std::fs::write(&env, coracle::guests::fixture("env").unwrap()).unwrap();
    up.import(&env, "env:v1");
    std::thread::scope(|scope| {
        for part in [
            a_fixed_count_completes,
            indexes_are_told_to_their_pods,
            workers_empty_a_queue,
            parallelism_pauses_and_suspend_stops,
            failures_are_counted_and_told,
            a_job_runs_once_on_every_node,
            a_schedule_starts_jobs_that_complete,
        ] {
            let up = &up;
            scope.spawn(move || part(up));
        }
    });
}

fn namespace(up: &Up, name: &str) {
    up.kubectl(&["create", "namespace", name]);
    up.kubectl(&["wait", "--for=create", "sa/default", "-n", name, "--timeout=20s"]);
}

fn job(name: &str, spec: &str, container: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {spec}
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, {container}}}]
"
    )
}

#[track_caller]
fn wait(up: &Up, n: &str, job: &str, what: &str) {
    up.kubectl(&["wait", job, n, &format!("--for={what}"), "--timeout=50s"]);
}

#[track_caller]
fn field(up: &Up, n: &str, what: &str, path: &str) -> String {
    up.kubectl(&["get", what, n, "-o", &format!("jsonpath={{{path}}}")])
}

fn a_fixed_count_completes(up: &Up) {
    let n = "-nfixed";
    namespace(up, "fixed");
    let work =
        job("convert", "completions: 7\n  parallelism: 3", "image: 'coracle.dev/worker:v1', args: ['0.01']");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &work);
    wait(up, n, "job/convert", "condition=complete");
    let row = up.kubectl(&["get", "job", "convert", n, "--no-headers"]);
    assert!(row.contains("Complete") && row.contains("7/7"), "{row}");
    assert_eq!(field(up, n, "pods", ".items[*].status.phase").split(' ').count(), 7);
    assert_eq!(field(up, n, "pods", ".items[*].metadata.finalizers"), "", "all have been counted");
    let described = up.kubectl(&["describe", "job", "convert", n]);
    for part in ["7 Succeeded", "SuccessfulCreate", "Completed", "Job completed"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    assert_eq!(up.kubectl(&["logs", "job/convert", n, "--tail=1"]), "done\n");

    up.kubectl(&["create", "job", "once", n, "--image=coracle.dev/hello:v1"]);
    wait(up, n, "job/once", "condition=complete");
    up.kubectl(&["delete", "job", "--all", n]);
    up.kubectl(&["wait", "pods", "--all", n, "--for=delete", "--timeout=50s"]);
}

fn indexes_are_told_to_their_pods(up: &Up) {
    let n = "-nindexed";
    namespace(up, "indexed");
    let indexed =
        job("shard", "completions: 3\n  parallelism: 3\n  completionMode: Indexed", "image: 'env:v1'");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &indexed);
    wait(up, n, "job/shard", "condition=complete");
    assert_eq!(field(up, n, "job/shard", ".status.completedIndexes"), "0-2");
    let logs = up.kubectl(&["logs", n, "-ljob-name=shard", "--tail=-1"]);
    for index in 0..3 {
        assert!(logs.contains(&format!("JOB_COMPLETION_INDEX={index}\n")), "{logs}");
        let selector = format!("-lbatch.kubernetes.io/job-completion-index={index}");
        let hostname = up.kubectl(&["get", "pods", n, &selector, "-o", "jsonpath={.items[*].spec.hostname}"]);
        assert_eq!(hostname, format!("shard-{index}"));
    }
}

/// Workers of a Job without completions take items of its queue until all is done.
fn workers_empty_a_queue(up: &Up) {
    let n = "-nqueue";
    namespace(up, "queue");
    let workers = job("convert", "suspend: true\n  parallelism: 3", "image: 'coracle.dev/queue:v1'");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &workers);
    let mut add = coracle();
    add.args(["queue", "add", "job/convert", "-n", "queue"]);
    add.args((0..20).map(|item| format!("print {item}")));
    let added = add.env("KUBECONFIG", &up.kubeconfig).env("HOME", up.scratch()).output().unwrap();
    assert!(added.status.success(), "{}", text(&added.stderr));
    up.kubectl(&["patch", "job", "convert", n, "-p", r#"{"spec":{"suspend":false}}"#]);
    wait(up, n, "job/convert", "condition=complete");
    assert_eq!(field(up, n, "job/convert", ".status.succeeded"), "3", "every worker learns that all is done");
    let logs = up.kubectl(&["logs", n, "-ljob-name=convert", "--tail=-1"]);
    let mut printed: Vec<u32> = logs
        .lines()
        .filter_map(|line| line.strip_prefix("print ")?.strip_suffix(" (1)")?.parse().ok())
        .collect();
    printed.sort_unstable();
    assert_eq!(printed, (0..20).collect::<Vec<u32>>(), "{logs}");
}

fn parallelism_pauses_and_suspend_stops(up: &Up) {
    let n = "-npaused";
    namespace(up, "paused");
    let long =
        job("long", "completions: 4\n  parallelism: 2", "image: 'coracle.dev/worker:v1', args: ['3600']");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &long);
    wait(up, n, "job/long", "jsonpath={.status.ready}=2");
    let patch = |spec: &str| {
        up.kubectl(&["patch", "job", "long", n, "-p", &format!(r#"{{"spec":{spec}}}"#)]);
    };
    patch(r#"{"parallelism":0}"#);
    up.kubectl(&["wait", "pods", "--all", n, "--for=delete", "--timeout=50s"]);
    patch(r#"{"parallelism":3}"#);
    wait(up, n, "job/long", "jsonpath={.status.ready}=3");
    patch(r#"{"suspend":true}"#);
    wait(up, n, "job/long", "condition=suspended");
    up.kubectl(&["wait", "pods", "--all", n, "--for=delete", "--timeout=50s"]);
    patch(r#"{"suspend":false}"#);
    wait(up, n, "job/long", "jsonpath={.status.ready}=3");
    let resumed = r#".status.conditions[?(@.type=="Suspended")].reason"#;
    assert_eq!(field(up, n, "job/long", resumed), "JobResumed");
    let events = up.kubectl(&["get", "events", n, "-o", "jsonpath={.items[*].reason}"]);
    assert!(events.contains("Suspended") && events.contains("Resumed"), "{events}");
    let refused = up.kubectl_fails(&["patch", "job", "long", n, "-p", r#"{"spec":{"completions":9}}"#]);
    assert!(refused.contains("field is immutable"), "{refused}");
}

fn failures_are_counted_and_told(up: &Up) {
    let n = "-nfailing";
    namespace(up, "failing");
    let exits = "image: 'coracle.dev/worker:v1', args: ['0', '42']";
    up.kubectl_stdin(&["apply", n, "-f", "-"], &job("gives-up", "backoffLimit: 0", exits));
    let policy = "backoffLimit: 6
  podFailurePolicy:
    rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]";
    up.kubectl_stdin(&["apply", n, "-f", "-"], &job("by-policy", policy, exits));
    for (name, reason, message) in [
        ("gives-up", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        ("by-policy", "PodFailurePolicy", "failed with exit code 42 matching FailJob rule at index 0"),
    ] {
        wait(up, n, &format!("job/{name}"), "condition=failed");
        let failed = |part: &str| {
            field(
                up,
                n,
                &format!("job/{name}"),
                &format!(r#".status.conditions[?(@.type=="Failed")].{part}"#),
            )
        };
        assert_eq!(failed("reason"), reason);
        assert!(failed("message").contains(message), "{}", failed("message"));
        assert_eq!(field(up, n, &format!("job/{name}"), ".status.failed"), "1");
    }
    let wrong = job("wrong", "completions: 1", "image: 'coracle.dev/hello:v1'").replace("Never", "Always");
    let refused = up.kubectl_stdin_fails(&["apply", n, "-f", "-"], &wrong);
    assert!(refused.contains(r#"valid values: "OnFailure", "Never""#), "{refused}");
}

fn a_job_runs_once_on_every_node(up: &Up) {
    let n = "-npernode";
    namespace(up, "pernode");
    let setup = job("setup", "completionMode: PerNode", "image: 'coracle.dev/hello:v1'");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &setup);
    wait(up, n, "job/setup", "condition=complete");
    let mut nodes: Vec<String> =
        field(up, n, "pods", ".items[*].spec.nodeName").split(' ').map(str::to_owned).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    assert_eq!(field(up, n, "job/setup", ".status.succeeded"), "3");
}

fn a_schedule_starts_jobs_that_complete(up: &Up) {
    let n = "-ncron";
    namespace(up, "cron");
    up.kubectl(&["create", "cronjob", "tick", n, "--image=coracle.dev/hello:v1", "--schedule=@every 1s"]);
    up.kubectl(&["wait", "cronjob/tick", n, "--for=jsonpath={.status.lastSuccessfulTime}", "--timeout=50s"]);
    // Else the Jobs of the next seconds push this one out of the history.
    up.kubectl(&["patch", "cronjob", "tick", n, "-p", "{\"spec\": {\"suspend\": true}}"]);
    up.kubectl(&["create", "job", "by-hand", n, "--from=cronjob/tick"]);
    wait(up, n, "job/by-hand", "condition=complete");
    assert_eq!(field(up, n, "job/by-hand", ".metadata.ownerReferences[0].name"), "tick");
}
