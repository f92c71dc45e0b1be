//! Pods that serve HTTP come and go while they are asked all the time.

use std::net::{SocketAddr, TcpStream};

use crate::harness::{Up, has};
use crate::http_load::{Load, Told, answered, connect};

/// A Service with two handlers behind it that tell their pod's name, and no hook that gives them time.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: http
        image: coracle.dev/hello-http:v1
        ports: [{name: web, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: web}]}
";

/// Of the pods, one after the other.
const KILLS: usize = 3;

const READY: [&str; 5] = ["rollout", "status", "deploy/web", "-ndefault", "--timeout=50s"];

fn web(up: &Up) -> SocketAddr {
    up.kubectl_stdin(&["apply", "-f", "-"], WEB);
    up.kubectl(&READY);
    let ip = up.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let at = format!("{ip}:80").parse().unwrap();
    answered(at, "/");
    at
}

/// A pod that asks all the time, and ends when it is not answered.
fn asks(up: &Up, to: SocketAddr) {
    let to = to.to_string();
    let run = ["run", "asks", "--image=coracle.dev/load:v1", "--restart=Never", "--", "get", "10000000"];
    up.kubectl(&[&run[..], &[&to]].concat());
    up.kubectl(&["wait", "--for=condition=Ready", "pod/asks", "--timeout=50s"]);
}

#[track_caller]
fn still_asks(up: &Up) {
    let phase = up.kubectl(&["get", "pod", "asks", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(phase, "Running", "{}", up.kubectl(&["logs", "asks"]));
}

#[track_caller]
fn nothing_is_lost(told: &[Told]) {
    for one in told {
        assert!(one.lost.is_empty() && one.answers > 5, "{one:?}");
    }
}

/// Each pod is replaced by another while the machine and a pod ask.
#[test]
fn a_rolling_update_loses_no_request() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::ephemeral(&[]);
    let at = web(up);
    asks(up, at);
    let load = Load::start(at, "/", 2, 1);
    for color in ["red", "green"] {
        up.kubectl(&["set", "env", "deploy/web", &format!("COLOR={color}")]);
        up.kubectl(&READY);
    }
    still_asks(up);
    nothing_is_lost(&load.stop());
}

/// Pods are deleted, one after the other, while the machine and a pod ask.
#[test]
fn deleted_pods_answer_what_they_were_asked() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::ephemeral(&[]);
    let at = web(up);
    asks(up, at);
    let load = Load::start(at, "/", 2, 2);
    for _ in 0..4 {
        let first = up.kubectl(&["get", "pods", "-lapp=web", "-o", "jsonpath={.items[0].metadata.name}"]);
        up.kubectl(&["delete", "pod", &first]);
        up.kubectl(&READY);
    }
    still_asks(up);
    nothing_is_lost(&load.stop());

    // One that is killed takes along what it had in its hands, and no more: nobody is refused.
    up.kubectl(&["delete", "pod", "asks", "--now"]);
    let load = Load::start(at, "/", 2, 1);
    for _ in 0..KILLS {
        let first = up.kubectl(&["get", "pods", "-lapp=web", "-o", "jsonpath={.items[0].metadata.name}"]);
        let forced = ["delete", "pod", &first, "--force", "--grace-period=0"];
        assert!(up.kubectl_output(&forced).status.success());
        up.kubectl(&READY);
    }
    for one in load.stop() {
        assert!(one.lost.len() <= KILLS && one.answers > 5, "{one:?}");
        assert!(!one.lost.iter().any(|lost| lost.contains("Refused")), "{one:?}");
    }
}

/// Connections on which nothing is said, far more than there may be, at one Service and at one pod of a process that
/// may have few files.
#[test]
fn who_connects_and_says_nothing_keeps_out_nobody_else() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::ephemeral_by(&["sh", "-c", r#"ulimit -n 600 && exec "$@""#, "sh"], &[]);
    let at = web(up);
    up.kubectl(&["expose", "deploy", "web", "--name=other", "--port=80", "--target-port=web"]);
    let ip = up.kubectl(&["get", "service", "other", "-o", "jsonpath={.spec.clusterIP}"]);
    let other: SocketAddr = format!("{ip}:80").parse().unwrap();
    answered(other, "/");
    let pods = up.kubectl(&["get", "pods", "-lapp=web", "-o", "jsonpath={.items[*].status.podIP}"]);
    let (first, second) = pods.split_once(' ').unwrap();
    let (first, second) =
        (format!("{first}:8080").parse().unwrap(), format!("{second}:8080").parse().unwrap());
    let silent = |at: SocketAddr, count: usize| -> Vec<TcpStream> {
        (0..count).map(|_| connect(at).unwrap()).collect()
    };
    let held = silent(at, 700);
    answered(other, "/");
    let more = silent(first, 150);
    answered(second, "/");
    // The API is there, and the process has files for what it does.
    up.kubectl(&["run", "late", "--image=coracle.dev/hello-http:v1"]);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=50s"]);
    // Who goes makes room.
    drop((held, more));
    for at in [at, other, first] {
        answered(at, "/");
    }
}
