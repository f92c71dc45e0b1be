//! Ephemeral containers, as `kubectl debug` uses them (BEHAVIOURS 8.6).

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Up, has, text};

const POD: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {greeting: good morning}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: main
    image: coracle.dev/worker:v1
    args: ["3600"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - {name: data, emptyDir: {}}
  - {name: config, configMap: {name: config}}
"#;

const TOOLBOX: &str = "--image=coracle.dev/toolbox:v1";

fn up() -> Up {
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], POD);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    up
}

/// Waits until the pod's ephemeral container of that place has ended; its exit code.
fn ended(up: &Up, place: usize) -> String {
    let path = format!(".status.ephemeralContainerStatuses[{place}].state.terminated.exitCode");
    up.kubectl(&["wait", &format!("--for=jsonpath={{{path}}}"), "pod/p", "--timeout=60s"]);
    up.kubectl(&["get", "pod", "p", "-o", &format!("jsonpath={{{path}}}")])
}

/// 8.6
#[test]
fn kubectl_debug_adds_a_container_that_runs_once() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    up.kubectl(&["debug", "p", TOOLBOX, "-c", "look", "--", "sh", "-c", "ls /; exit 3"]);
    assert_eq!(ended(&up, 0), "3");
    assert!(up.kubectl(&["logs", "p", "-c", "look"]).lines().any(|line| line == "dev"));
    up.kubectl(&["debug", "p", TOOLBOX, "-c", "aimed", "--target=main", "--profile=general", "--", "true"]);
    assert_eq!(ended(&up, 1), "0");

    let described = up.kubectl(&["describe", "pod", "p"]);
    let ephemeral = described.split("Ephemeral Containers:").nth(1).unwrap();
    for part in ["look:", "aimed:", "Exit Code:    3", "Started container look"] {
        assert!(ephemeral.contains(part), "{part}: {described}");
    }
    let words = "-o=jsonpath={.status.phase} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}";
    assert_eq!(up.kubectl(&["get", "pod", "p", words]), "Running true 0");
    assert!(up.kubectl(&["get", "pod", "p"]).contains("1/1"));

    // By the list itself: with a volume of the pod's, and refused what it may not have.
    let patch = |container: &str| {
        let patch = format!(r#"{{"spec": {{"ephemeralContainers": [{container}]}}}}"#);
        ["patch", "pod", "p", "--subresource=ephemeralcontainers", "-p", &patch].map(str::to_owned)
    };
    let shows = patch(
        r#"{"name": "volumes", "image": "coracle.dev/toolbox:v1", "args": ["cat", "/c/greeting"],
            "volumeMounts": [{"name": "config", "mountPath": "/c"}]}"#,
    );
    up.kubectl(&shows.each_ref().map(String::as_str));
    let refused = patch(r#"{"name": "serves", "image": "i", "ports": [{"containerPort": 80}]}"#);
    let error = up.kubectl_fails(&refused.each_ref().map(String::as_str));
    assert!(error.contains("ports: Forbidden: cannot be set for an Ephemeral Container"), "{error}");
    let refused = patch(r#"{"name": "look", "image": "other"}"#);
    let error = up.kubectl_fails(&refused.each_ref().map(String::as_str));
    assert!(error.contains(r#"existing ephemeral containers "look" may not be changed"#), "{error}");
}

/// 8.6
#[test]
fn one_can_be_joined_while_it_runs_and_ends_with_its_pod() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    up.kubectl(&["exec", "p", "--", "sh", "-c", "echo here > /data/a"]);
    // The harness puts a line of its own before the input.
    let output = up.kubectl_with_input(
        &["debug", "-i", "p", TOOLBOX, "-c", "asks", "--", "head", "-n", "2"],
        "question\n",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("question"), "{}", text(&output.stdout));

    up.kubectl(&["debug", "p", TOOLBOX, "-c", "stays", "--", "sh", "-c", "echo up; sleep 3600"]);
    let running = "--for=jsonpath={.status.ephemeralContainerStatuses[1].state.running}";
    up.kubectl(&["wait", running, "pod/p", "--timeout=60s"]);
    assert_eq!(up.kubectl(&["exec", "p", "-c", "stays", "--", "echo", "hi"]), "hi\n");
    let copy = ["debug", "p", TOOLBOX, "--copy-to=copy", "-c", "tools", "--", "sleep", "3600"];
    up.kubectl(&copy);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/copy", "--timeout=60s"]);
    assert_eq!(up.kubectl(&["exec", "copy", "-c", "tools", "--", "echo", "copied"]), "copied\n");

    let mut followed = up
        .kubectl_command(&["logs", "-f", "p", "-c", "stays"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // kubectl follows once it has shown something.
    let mut lines = BufReader::new(followed.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    up.kubectl(&["delete", "pod", "p", "--timeout=60s"]);
    // The stream ends when the container does.
    assert!(lines.next().is_none());
    assert!(followed.wait().unwrap().success());
}
