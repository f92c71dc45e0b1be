//! NetworkPolicies hold, with real kubectl and real connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::guest::file;
use crate::harness::{Up, has};

const WEB: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {team: blue}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: c
    image: coracle.dev/http:v1
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {port: http, path: /health}, periodSeconds: 1, failureThreshold: 1}
"#;

const POLICY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from:
    - podSelector: {matchLabels: {role: friend}}
    - namespaceSelector: {matchLabels: {team: blue}}
    ports: [{port: http}]
"#;

/// What a pod of these labels is told that connects to the web pod's `port`.
#[track_caller]
fn answer(up: &Up, name: &str, namespace: &str, labels: &str, address: &str) -> String {
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}, \
         spec: {{restartPolicy: Never, containers: [{{name: c, image: 'connect:v1', args: [get, '{address}']}}]}}}}"
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &pod);
    let pod = format!("pod/{name}");
    up.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &pod, "-n", namespace, "--timeout=60s"]);
    let log = up.kubectl(&["logs", &pod, "-n", namespace]);
    log.trim().rsplit(": ").next().unwrap_or_default().to_owned()
}

/// What this machine is told, `None` if it is not let in.
fn from_outside(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // A connection that is not admitted is closed before or after this.
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

#[test]
fn a_policy_keeps_out_whom_it_does_not_list() {
    if !has("kubectl") {
        return;
    }
    let up = Up::durable(&[]);
    up.import(&file(up.scratch(), "connect"), "connect:v1");
    up.kubectl_stdin(&["apply", "-f", "-"], WEB);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    let ip = up.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let address = format!("{ip}:8080");
    let served = "HTTP/1.1 200 -";
    let stranger = |name: &str| answer(&up, name, "default", "{}", &address);

    assert_eq!(stranger("before"), served);
    assert!(from_outside(&address).unwrap().contains("hello from web"));

    let unhealthy =
        || up.kubectl(&["get", "events", "--field-selector=reason=Unhealthy", "-o", "jsonpath={..count}"]);
    // One that came before the server listened may be there.
    let before = unhealthy();
    up.kubectl_stdin(&["apply", "-f", "-"], POLICY);
    let shown = up.kubectl(&["get", "netpol"]);
    assert!(shown.contains("POD-SELECTOR") && shown.contains("app=web"), "{shown}");
    let described = up.kubectl(&["describe", "netpol", "web"]);
    assert!(described.contains("To Port: http/TCP"), "{described}");
    assert_eq!(stranger("stranger"), "denied");
    assert_eq!(answer(&up, "friend", "default", "{role: friend}", &address), served);
    assert_eq!(answer(&up, "blue", "other", "{}", &address), served);
    assert_eq!(from_outside(&address), None);
    // The node's own probes are always let in, and whoever comes through the API.
    up.kubectl(&["exec", "web", "--", "true"]);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    assert_eq!(unhealthy(), before);

    // Egress of another pod, and a policy that is gone.
    let egress = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: quiet}, \
                  spec: {podSelector: {matchLabels: {role: friend}}, policyTypes: [Egress]}}";
    up.kubectl_stdin(&["apply", "-f", "-"], egress);
    assert_eq!(answer(&up, "quiet", "default", "{role: friend}", &address), "denied");
    up.kubectl(&["delete", "netpol", "--all"]);
    assert_eq!(stranger("after"), served);
    let bad = up.kubectl_stdin_fails(
        &["apply", "-f", "-"],
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: bad}, \
         spec: {podSelector: {}, ingress: [{from: [{}]}]}}",
    );
    assert!(bad.contains("spec.ingress[0].from[0]: Required value: must specify a peer"), "{bad}");
}
