//! NetworkPolicies hold, with real kubectl and real connections.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::guest::file;
use crate::harness::{DEADLINE, Up, has, outside};

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

/// Runs a pod of the fixture `connect` with these labels.
fn connecting(up: &Up, name: &str, labels: &str, what: &str, address: &str) {
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {labels}}}, spec: {{restartPolicy: Never, \
         containers: [{{name: c, image: 'connect:v1', args: [{what}, '{address}']}}]}}}}"
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &pod);
}

#[track_caller]
fn succeeded(up: &Up, pod: &str) -> String {
    up.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &format!("pod/{pod}"), "--timeout=60s"]);
    up.kubectl(&["logs", pod])
}

const DATAGRAMS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: datagrams}
spec:
  podSelector: {matchLabels: {app: datagrams}}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut}
spec:
  podSelector: {matchLabels: {role: friend}}
  policyTypes: [Ingress]
"#;

#[test]
fn datagrams_from_outside_are_held_to_policies_and_answers_are_not() {
    let Some(outside) = outside().filter(|_| has("kubectl")) else {
        eprintln!("\n******** SKIPPED: this machine has no address but loopback ********\n");
        return;
    };
    let up = Up::durable(&[]);
    up.import(&file(up.scratch(), "connect"), "connect:v1");
    up.kubectl_stdin(&["apply", "-f", "-"], DATAGRAMS);
    connecting(&up, "serves", "{app: datagrams}", "udp-serve", "[::]:5300");
    let listens = || up.kubectl(&["logs", "serves"]).contains("serving on ");
    up.kubectl(&["wait", "--for=condition=Ready", "pod/serves", "--timeout=60s"]);
    assert!((0..200).any(|_| listens()), "it does not listen");
    let ip = up.kubectl(&["get", "pod", "serves", "-o", "jsonpath={.status.podIP}"]);

    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    here.send_to(b"stranger", (ip.as_str(), 5300)).unwrap();
    // A friend is let in, and what comes back to it is, though nothing may begin to speak with it.
    connecting(&up, "friend", "{role: friend}", "udp-ask", &format!("{ip}:5300"));
    assert_eq!(succeeded(&up, "friend"), format!("udp-ask {ip}:5300: ping from {ip}:5300\n"));

    // So is what comes back from outside.
    let server = UdpSocket::bind((outside, 0)).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let asked = server.local_addr().unwrap().to_string();
    connecting(&up, "asks", "{role: friend}", "udp-ask", &asked);
    let mut bytes = [0; 16];
    let (length, from) = server.recv_from(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"ping");
    server.send_to(b"pong", from).unwrap();
    assert_eq!(succeeded(&up, "asks"), format!("udp-ask {asked}: pong from {asked}\n"));

    // Without the policy everybody is let in.
    up.kubectl(&["delete", "netpol", "datagrams"]);
    here.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let answered = |_| {
        here.send_to(b"end", (ip.as_str(), 5300)).unwrap();
        here.recv_from(&mut [0; 16]).is_ok()
    };
    assert!((0..200).any(answered), "nobody answers");
    let said = succeeded(&up, "serves");
    assert!(said.ends_with("\nudp-serve [::]:5300: ping\n"), "{said}");
}
