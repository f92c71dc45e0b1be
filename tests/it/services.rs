//! Services as their users meet them: with kubectl, and with whatever speaks to an address.

use crate::harness::{Up, has};

fn deploy(up: &Up, n: &str, name: &str, replicas: usize) {
    let manifest = format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: http
        image: coracle.dev/http:v1
        ports: [{{name: web, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /health, port: web}}, periodSeconds: 1}}
"
    );
    up.kubectl_stdin(&["apply", n, "-f", "-"], &manifest);
    up.kubectl(&["rollout", "status", &format!("deploy/{name}"), n, "--timeout=50s"]);
}

fn field(up: &Up, n: &str, what: &str, path: &str) -> String {
    up.kubectl(&["get", what, n, "-o", &format!("jsonpath={{{path}}}")])
}

#[track_caller]
fn wait(up: &Up, n: &str, what: &str, path: &str, value: &str) {
    up.kubectl(&["wait", what, n, &format!("--for=jsonpath={{{path}}}={value}"), "--timeout=30s"]);
}

/// Asks until the answer is `value`: for what `kubectl wait` cannot wait for.
#[track_caller]
fn until(up: &Up, n: &str, what: &str, path: &str, value: &str) {
    // Each takes some tens of milliseconds.
    let answers = (0..200).map(|_| field(up, n, what, path));
    let mut last = String::new();
    for answer in answers {
        if answer == value {
            return;
        }
        last = answer;
    }
    panic!("{what} {path} is {last}, not {value}");
}

/// 16.1, 16.3
#[test]
fn endpoints_follow_pods() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::ephemeral(&["--nodes", "2"]);
    let n = "-ndefault";
    deploy(up, n, "web", 3);
    up.kubectl(&["expose", "deploy", "web", "--port=80", "--target-port=web", n]);
    up.kubectl(&["wait", "--for=create", "endpoints/web", "--timeout=20s", n]);
    let pods = field(up, n, "pods", ".items[*].status.podIP");
    let row = up.kubectl(&["get", "endpoints", "web", "--no-headers", n]);
    assert!(pods.split(' ').all(|ip| row.contains(&format!("{ip}:8080"))), "{row} of {pods}");
    let slice =
        up.kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "name", n]);
    let slice = slice.trim();
    assert!(slice.starts_with("endpointslice.discovery.k8s.io/web-"), "{slice}");
    assert_eq!(field(up, n, slice, ".endpoints[*].conditions.ready"), "true true true");
    let told = up.kubectl(&["describe", "service", "web", n]);
    assert!(pods.split(' ').any(|ip| told.contains(&format!("{ip}:8080"))), "{told}");

    // Fewer, none, and all again, in the same slice.
    up.kubectl(&["scale", "deploy/web", "--replicas=1", n]);
    until(up, n, slice, ".endpoints[*].conditions.ready", "true");
    up.kubectl(&["scale", "deploy/web", "--replicas=0", n]);
    up.kubectl(&["wait", "--for=delete", "pods", "-l", "app=web", "--timeout=20s", n]);
    until(up, n, "endpoints/web", ".subsets", "");
    until(up, n, slice, ".endpoints", "[]");

    // Hand-made Endpoints have a slice too.
    up.kubectl_stdin(
        &["apply", n, "-f", "-"],
        "
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 5432}]}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 5432}]}
",
    );
    let mirrored = ["get", "endpointslices", "-l", "kubernetes.io/service-name=outside", n, "-o"];
    up.kubectl(&["wait", "--for=create", "endpointslices", mirrored[2], mirrored[3], "--timeout=20s", n]);
    let mirror = up.kubectl(&[&mirrored[..], &["jsonpath={.items[*].endpoints[*].addresses[0]}"]].concat());
    assert_eq!(mirror, "192.0.2.7");

    // What is deleted goes with all of it; the API's own comes back.
    up.kubectl(&["delete", "service", "web", "outside", n]);
    up.kubectl(&["wait", "--for=delete", "endpoints/web", slice, "--timeout=20s", n]);
    let uid = field(up, n, "service/kubernetes", ".metadata.uid");
    up.kubectl(&["delete", "service", "kubernetes", n]);
    up.kubectl(&["wait", "--for=create", "service/kubernetes", "--timeout=20s", n]);
    assert_ne!(field(up, n, "service/kubernetes", ".metadata.uid"), uid);
    assert_eq!(field(up, n, "endpointslices/kubernetes", ".ports[0].name"), "https");
}

/// 16.2
#[test]
fn load_balancers_have_the_addresses_of_nodes() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::ephemeral(&["--nodes", "2", "--sim-nodes", "1"]);
    let n = "-ndefault";
    up.kubectl(&["create", "service", "loadbalancer", "web", "--tcp=80:8080", n]);
    wait(up, n, "service/web", ".status.loadBalancer.ingress[1].ipMode", "VIP");
    let nodes = up.kubectl(&["get", "nodes", "-l", "coracle.dev/runtime=wasm", "-o", NODE_IPS]);
    assert_eq!(field(up, n, "service/web", ".status.loadBalancer.ingress[*].ip"), nodes);
    up.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"type":"ClusterIP"}}"#, n]);
    until(up, n, "service/web", ".status.loadBalancer", "{}");
}

const NODE_IPS: &str = r#"jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}"#;
