//! The work queue of a Job: guests, kubectl and `coracle queue` on one queue.

use std::process::Output;

use crate::harness::{Up, coracle, has, text};

/// A Job whose pods the test makes, so that it does not matter when the Job itself would.
fn job(name: &str, annotations: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}, annotations: {{{annotations}}}}}
spec:
  managedBy: example.com/test
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: main, image: 'coracle.dev/queue:v1'}}
"
    )
}

/// Starts three pods of the Job, which claim items for `lease` seconds, and waits until they have ended well.
fn work(up: &Up, job: &str, lease: &str) {
    let uid = up.kubectl(&["get", "job", job, "-o", "jsonpath={.metadata.uid}"]);
    for i in 0..3 {
        let pod = format!(
            "
apiVersion: v1
kind: Pod
metadata:
  name: {job}-{i}
  labels: {{job-name: {job}}}
  ownerReferences:
  - {{apiVersion: batch/v1, kind: Job, name: {job}, uid: {uid}, controller: true}}
spec:
  restartPolicy: OnFailure
  containers:
  - {{name: main, image: 'coracle.dev/queue:v1', args: ['{lease}']}}
"
        );
        up.kubectl_stdin(&["apply", "-f", "-"], &pod);
    }
    let ended = ["--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s"];
    let pods = format!("-ljob-name={job}");
    up.kubectl(&["wait", "pod", &pods, ended[0], ended[1]]);
}

fn queue(up: &Up, arguments: &[&str]) -> Output {
    coracle()
        .arg("queue")
        .args(arguments)
        .env("KUBECONFIG", &up.kubeconfig)
        .env("HOME", up.scratch())
        .output()
        .unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// The lines of all pods of a Job, sorted.
fn lines(up: &Up, job: &str) -> Vec<String> {
    let selector = format!("-ljob-name={job}");
    let mut lines: Vec<String> =
        up.kubectl(&["logs", &selector, "--tail=-1"]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Filled from a ConfigMap; workers add to it, give items back, and all learn that all is done.
#[test]
fn workers_share_what_a_config_map_lists_until_all_is_done() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    // The Job comes first, and waits for its list.
    let from = "coracle.dev/queue-from: 'configmap/list:work', coracle.dev/queue-attempts: '2'";
    up.kubectl_stdin(&["apply", "-f", "-"], &job("convert", from));
    let list = "--from-literal=work=print a\npush print late-comer\nfail\nextend\nprint b\n";
    up.kubectl(&["create", "configmap", "list", list]);
    work(&up, "convert", "60");
    let done = "done: 0 waiting, 0 claimed, 1 failed";
    assert_eq!(
        lines(&up, "convert"),
        [
            done,
            done,
            done,
            "extend (1)",
            "fail (1)",
            "fail (2)",
            "print a (1)",
            "print b (1)",
            "print late-comer (1)",
            "push print late-comer (1)",
        ]
    );
    assert_eq!(said(&queue(&up, &["stats", "job/convert"])), "0 waiting, 0 claimed, 1 failed\n");
    let listed = said(&queue(&up, &["ls", "job/convert"]));
    assert!(listed.contains("Failed") && listed.contains("it says so"), "{listed}");
    let table = up.kubectl(&["get", "queueitems"]);
    assert!(table.contains("convert") && table.contains("Failed") && table.lines().count() == 2, "{table}");
    // What is left goes with the Job.
    up.kubectl(&["delete", "job", "convert"]);
    up.kubectl(&["wait", "queueitems", "--all", "--for=delete", "--timeout=30s"]);
}

/// A worker that ends with an item in its hands, and one that is too slow: the item is handed out again,
/// and only one of two says that it is done.
#[test]
fn what_a_worker_loses_is_handed_out_again() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], &job("lossy", ""));
    assert_eq!(
        said(&queue(&up, &["add", "job/lossy", "drop", "late", "print x"])),
        "3 added to the queue of job/lossy\n"
    );
    assert_eq!(said(&queue(&up, &["stats", "lossy"])), "3 waiting, 0 claimed, 0 failed\n");
    work(&up, "lossy", "2");
    let lines = lines(&up, "lossy");
    // What was said before the worker fell is in the log of the run before.
    for line in ["drop (2)", "late (1)", "late (2)", "late: lost", "print x (1)"] {
        assert_eq!(lines.iter().filter(|one| *one == line).count(), 1, "{line} in {lines:#?}");
    }
    assert_eq!(said(&queue(&up, &["stats", "lossy"])), "0 waiting, 0 claimed, 0 failed\n");
}

/// Others than guests work on a queue too, through the API alone.
#[test]
fn the_api_hands_out_items_and_keeps_their_fences() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], &job("open", "coracle.dev/queue-open: 'true'"));
    let raw = "/apis/batch/v1/namespaces/default/jobs/open/queue";
    let file = up.scratch().join("ask.json");
    let write = |body: &str| std::fs::write(&file, body).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let ask = |body: &str| -> serde_json::Value {
        write(body);
        serde_json::from_str(&up.kubectl(&["create", "--raw", raw, "-f", &path])).unwrap()
    };
    let refused = |body: &str| {
        write(body);
        up.kubectl_fails(&["create", "--raw", raw, "-f", &path])
    };
    let claim = r#"{"claim": {"worker": "me", "leaseSeconds": 60}}"#;
    // Empty, but open.
    assert_eq!(ask(claim)["state"], "waiting");
    assert_eq!(ask(r#"{"add": {"items": ["one"], "base64": ["dHdv"]}}"#)["added"], 2);
    let first = ask(claim);
    assert_eq!(
        (first["state"].as_str(), first["base64"].as_str(), first["attempt"].as_u64()),
        (Some("item"), Some("b25l"), Some(1))
    );
    let second = ask(claim);
    assert_eq!(second["base64"], "dHdv");
    assert!(ask(claim)["until"].is_string(), "others have items until their leases expire");
    let held = |what: &str, item: &serde_json::Value, more: &str| {
        format!(r#"{{"{what}": {{"id": {}, "token": {}{more}}}}}"#, item["id"], item["token"])
    };
    let extended = ask(&held("extend", &first, r#", "leaseSeconds": 120"#));
    let stale = refused(&held("complete", &first, ""));
    assert!(stale.contains("the token is not that of its last claim"), "{stale}");
    let mut renewed = first.clone();
    renewed["token"] = extended["token"].clone();
    ask(&held("complete", &renewed, ""));
    ask(&held("fail", &second, r#", "why": "not today""#));
    assert_eq!(ask(claim)["attempt"], 2);
    let shown: serde_json::Value = serde_json::from_str(&up.kubectl(&["get", "--raw", raw])).unwrap();
    assert_eq!(
        (&shown["waiting"], &shown["claimed"], &shown["items"][0]["worker"]),
        (&0.into(), &1.into(), &"me".into())
    );
    // Closed, and the last item done: that is the end.
    up.kubectl(&["annotate", "job", "open", "coracle.dev/queue-open-"]);
    assert_eq!(ask(claim)["state"], "waiting");
    up.kubectl(&["delete", "queueitems", "--all"]);
    assert_eq!(ask(claim)["state"], "done");
    for (body, expected) in [
        (
            r#"{"claim": {"worker": "me", "leaseSeconds": 0}}"#,
            "leaseSeconds is 0: it must be between 1 and 86400",
        ),
        (r#"{"take": {}}"#, "unknown variant `take`"),
        ("{}", "cannot read the request to the queue"),
    ] {
        let error = refused(body);
        assert!(error.contains(expected), "{body}: {error}");
    }
    let output = queue(&up, &["stats", "job/none"]);
    let error = text(&output.stderr);
    assert!(
        error.contains(
            "cannot read the queue of job/none in the namespace default: jobs.batch \"none\" not found"
        ),
        "{error}"
    );
}
