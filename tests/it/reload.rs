//! Changes of configuration, as a user sees them with kubectl.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Up, has};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: told}
spec:
  containers:
  - name: main
    image: coracle.dev/reload:v1
    args: [/etc/one, greeting, from_env, password]
    envFrom:
    - prefix: from_
      configMapRef: {name: fixed}
    - secretRef: {name: secret}
    volumeMounts: [{name: settings, mountPath: /etc/one, subPath: greeting}]
  volumes: [{name: settings, projected: {sources: [{configMap: {name: settings}}, {secret: {name: secret}}]}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: restarted
  annotations: {coracle.dev/on-config-change: restart, coracle.dev/subpath: thawed}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: coracle.dev/reload:v1
    args: ["$(GREETING)"]
    env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}]
"#;

#[test]
fn guests_are_told_of_changes_or_started_anew() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl(&["wait", "--for=create", "sa/default", "--timeout=10s"]);
    up.kubectl(&["create", "configmap", "settings", "--from-literal=greeting=one"]);
    up.kubectl(&["create", "configmap", "fixed", "--from-literal=env=stays"]);
    up.kubectl(&["create", "secret", "generic", "secret", "--from-literal=password=hunter2"]);
    up.kubectl_stdin(&["create", "-f", "-"], POD);
    up.kubectl(&["wait", "pod/told", "pod/restarted", "--for=condition=Ready", "--timeout=30s"]);

    let revision = || {
        let version =
            up.kubectl(&["get", "configmap", "settings", "-o", "jsonpath={.metadata.resourceVersion}"]);
        version.parse::<u64>().unwrap()
    };
    let mut child = up.kubectl_command(&["logs", "-f", "told"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = || (0..4).map(|_| lines.next().unwrap()).collect::<Vec<_>>();
    let expected = |revision: u64, greeting: &str| {
        [
            format!("{revision} /etc/one: {greeting}"),
            // The part of the volume that it mounts, and no more; of a Secret nothing.
            format!("{revision} greeting={greeting}"),
            format!("{revision} from_env=stays"),
            format!("{revision} password=-"),
        ]
    };
    let first = told();
    let seen: u64 = first[0].split(' ').next().unwrap().parse().unwrap();
    assert!(seen >= revision(), "{first:?}");
    assert_eq!(first, expected(seen, "one"));

    up.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"greeting":"two"}}"#]);
    assert_eq!(told(), expected(revision(), "two"));
    // Both pods say what they run with, and the second was started anew with it.
    let wanted = format!("\"revision\":{}", revision());
    let count = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    up.kubectl(&["wait", "pod/restarted", count, "--timeout=30s"]);
    let says = r"jsonpath={.metadata.annotations.coracle\.dev/config-revisions}";
    for pod in ["told", "restarted"] {
        let waited = format!("pod/{pod}");
        let marked = format!("--for={says}");
        up.kubectl(&["wait", &waited, &marked, "--timeout=30s"]);
        let mut said = String::new();
        for _ in 0..100 {
            said = up.kubectl(&["get", "pod", pod, "-o", says]);
            if said.contains(&wanted) {
                break;
            }
        }
        assert!(said.contains(&wanted), "{wanted} in {said}");
        assert!(said.contains("\"configmap/settings\":{\"hash\":\"sha256:"), "{said}");
    }
    let log = up.kubectl(&["logs", "restarted"]);
    assert!(log.ends_with(" two=-\n"), "{log}");
    let events = up.kubectl(&["get", "events", "--field-selector", "involvedObject.name=restarted"]);
    for part in [
        &format!(
            "Container main uses configmap/settings, which changed in revision {}, will be restarted",
            revision()
        ) as &str,
        "annotation coracle.dev/subpath: \"thawed\" has no meaning",
    ] {
        assert!(events.contains(part), "{part} in {events}");
    }
    up.kubectl(&["delete", "pod", "told", "restarted", "--timeout=20s"]);
    child.wait().unwrap();
}

/// A pod that answers a request for `/status/500` with just that: so what it was asked for is told.
const ASKED: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: asked}
data: {k: one}
---
apiVersion: v1
kind: Pod
metadata: {name: asked, annotations: {coracle.dev/on-config-change: 'http:/status/500:8080'}}
spec:
  volumes: [{name: v, configMap: {name: asked}}]
  containers:
  - name: main
    image: coracle.dev/http:v1
    volumeMounts: [{name: v, mountPath: /config}]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
";

#[test]
fn a_pod_is_asked_over_http_after_a_change() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], ASKED);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/asked", "--timeout=60s"]);
    let mut watching = up
        .kubectl_command(&["get", "events", "--watch", "--field-selector=reason=FailedConfigChange"])
        .args(["-o", "jsonpath={.message}{\"\\n\"}"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    up.kubectl(&["patch", "configmap", "asked", "-p", "{\"data\": {\"k\": \"two\"}}"]);
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).next().unwrap_or_default();
    watching.kill().ok();
    watching.wait().unwrap();
    assert!(
        told.ends_with("the pod could not be told of a change: HTTP probe failed with statuscode: 500"),
        "{told}"
    );
}
