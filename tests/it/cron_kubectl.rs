//! CronJobs as kubectl and `coracle trigger` see them.

use crate::harness::{Up, coracle, has, text};

const TICK: &str = "
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: '@every 1s'
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - {name: main, image: 'coracle.dev/worker:v1', args: ['3600'], env: [{name: A, value: a}, {name: B, value: b}]}
";

fn trigger(up: &Up, arguments: &[&str]) -> std::process::Output {
    coracle()
        .arg("trigger")
        .args(arguments)
        .env("KUBECONFIG", &up.kubeconfig)
        .env("HOME", up.scratch())
        .output()
        .unwrap()
}

#[test]
fn kubectl_creates_shows_and_copies_cron_jobs() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl(&["create", "cronjob", "nightly", "--image=coracle.dev/worker:v1", "--schedule=0 3 * * *"]);
    let table = up.kubectl(&["get", "cj", "-o", "wide"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "NAME",
            "SCHEDULE",
            "TIMEZONE",
            "SUSPEND",
            "ACTIVE",
            "LAST SCHEDULE",
            "AGE",
            "CONTAINERS",
            "IMAGES",
            "SELECTOR"
        ]
    );
    assert_eq!(rows[1][..6], ["nightly", "0 3 * * *", "<none>", "False", "0", "<none>"]);
    let described = up.kubectl(&["describe", "cronjob", "nightly"]);
    for line in ["Schedule:", "0 3 * * *", "Concurrency Policy:", "Allow", "Suspend:", "False"] {
        assert!(described.contains(line), "{line} in\n{described}");
    }
    // BEHAVIOURS 14.8.
    up.kubectl(&["create", "job", "copy", "--from=cronjob/nightly"]);
    let shown = up.kubectl(&[
        "get",
        "job",
        "copy",
        "-o",
        r"jsonpath={.metadata.annotations.cronjob\.kubernetes\.io/instantiate} {.metadata.ownerReferences[0].name}",
    ]);
    assert_eq!(shown, "manual nightly");
    let refused = up.kubectl_fails(&["create", "cronjob", "bad", "--image=i", "--schedule=61 * * * *"]);
    assert!(refused.contains(r#"minute "61": end of range (61) above maximum (59): 61"#), "{refused}");
    // Collected with its owner.
    up.kubectl(&["delete", "cronjob", "nightly"]);
    up.kubectl(&["wait", "job/copy", "--for=delete", "--timeout=30s"]);
}

#[test]
fn a_cron_job_fires_once_at_a_time_and_is_triggered_besides() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], TICK);
    up.kubectl(&["wait", "cronjob/tick", "--for=jsonpath={.status.active[0].kind}=Job", "--timeout=30s"]);
    let jobs = |up: &Up| up.kubectl(&["get", "jobs", "-o", "jsonpath={.items[*].metadata.name}"]);
    let first = jobs(&up);

    let output =
        trigger(&up, &["cj/tick", "--name", "now", "--env", "B=other", "--env", "C=c", "--", "0", "5"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "job.batch/now created\n");
    let container = up.kubectl(&[
        "get",
        "job",
        "now",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].args} {.spec.template.spec.containers[0].env}",
    ]);
    assert_eq!(
        container,
        r#"["0","5"] [{"name":"A","value":"a"},{"name":"B","value":"other"},{"name":"C","value":"c"}]"#
    );
    let mut there: Vec<String> = jobs(&up).split(' ').map(str::to_owned).collect();
    there.sort();
    let mut wanted = vec![first, "now".to_owned()];
    wanted.sort();
    assert_eq!(there, wanted, "nothing else was started, and the schedule waits for its own Job only");

    // Without a name one is made up; a dry run makes nothing.
    let output = trigger(&up, &["cronjob/tick", "--dry-run"]);
    let said = text(&output.stdout);
    assert!(said.starts_with("job.batch/tick-") && said.ends_with("would be created (dry run)\n"), "{said}");
    assert_eq!(jobs(&up).split(' ').count(), 2);

    for (arguments, expected) in [
        (
            &["cj/none"][..],
            "cannot trigger cronjob/none in the namespace default: cronjobs.batch \"none\" not found",
        ),
        (&["cj/tick", "--name", "now"], "jobs.batch \"now\" already exists"),
        (&["cj/tick", "--container", "x", "--", "1"], "has no container \"x\"; it has: main"),
    ] {
        let output = trigger(&up, arguments);
        let stderr = text(&output.stderr);
        assert!(
            output.status.code() == Some(1) && stderr.contains(expected) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    let raw = "/apis/batch/v1/namespaces/default/cronjobs/tick/trigger";
    let body = up.scratch().join("body.json");
    std::fs::write(&body, r#"{"arguments": []}"#).unwrap();
    let refused = up.kubectl_fails(&["create", "--raw", raw, "-f", body.to_str().unwrap()]);
    assert!(refused.contains("unknown field `arguments`"), "{refused}");
    std::fs::write(&body, r#"{"name": "raw", "env": {"A": "raw"}}"#).unwrap();
    let made = up.kubectl(&["create", "--raw", raw, "-f", body.to_str().unwrap()]);
    assert!(made.contains(r#""name":"raw""#) && made.contains(r#"{"name":"A","value":"raw"}"#), "{made}");
}
