//! Services as their users meet them: with kubectl, and with whatever speaks to an address.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::harness::{Up, has, text};

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

/// What `curl` says of a URL, or why it says nothing.
fn curl(url: &str) -> Result<String, i32> {
    let output = Command::new("curl").args(["-sS", "--max-time", "20", url]).output().unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(output.status.code().unwrap_or(-1)) }
}

/// curl's exit code for a connection that nobody took.
const REFUSED: i32 = 7;

/// Asks until somebody answers.
#[track_caller]
fn answered(url: &str) -> String {
    // Each takes some milliseconds.
    let answer = (0..400).find_map(|_| curl(url).ok());
    answer.unwrap_or_else(|| panic!("nobody answers at {url}"))
}

/// Asks until nobody is there.
#[track_caller]
fn refused(url: &str) {
    assert!((0..400).any(|_| curl(url) == Err(REFUSED)), "{url} is still open: {:?}", curl(url));
}

/// 16.2, 16.4
#[test]
fn services_are_reached_from_the_machine() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let up = &Up::ephemeral(&["--nodes", "2"]);
    let n = "-ndefault";
    deploy(up, n, "web", 2);
    up.kubectl(&["expose", "deploy", "web", "--type=NodePort", "--port=8000", "--target-port=web", n]);
    let ip = field(up, n, "service/web", ".spec.clusterIP");
    let port = field(up, n, "service/web", ".spec.ports[0].nodePort");
    let nodes = up.kubectl(&["get", "nodes", "-o", NODE_IPS]);
    let (first, second) = nodes.split_once(' ').unwrap();
    let urls =
        [format!("http://{ip}:8000/"), format!("http://{first}:{port}/"), format!("http://{second}:{port}/")];
    for url in &urls {
        let answer = answered(url);
        assert!(answer.contains("web-"), "{answer}");
    }
    let answers: BTreeSet<String> = (0..40).map(|_| curl(&urls[0]).unwrap()).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");

    // Sticky, and not.
    let sticky = |how: &str| {
        up.kubectl(&[
            "patch",
            "service",
            "web",
            n,
            "-p",
            &format!(r#"{{"spec":{{"sessionAffinity":"{how}"}}}}"#),
        ]);
    };
    sticky("ClientIP");
    // The change may take a moment to arrive: twenty answers alike, at some time.
    let alike = || (0..20).map(|_| curl(&urls[0]).unwrap()).collect::<BTreeSet<_>>().len() == 1;
    assert!((0..20).any(|_| alike()));
    sticky("None");

    // kubectl's own way in.
    let mut forward = up.kubectl_command(&["port-forward", "service/web", ":8000", n]);
    let mut child = forward.stdout(Stdio::piped()).spawn().unwrap();
    // Kept, as it goes on to say things.
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let local = line.split_once("127.0.0.1:").unwrap().1.split(' ').next().unwrap().to_owned();
    assert!(curl(&format!("http://127.0.0.1:{local}/")).unwrap().contains("web-"));
    child.kill().unwrap();
    child.wait().unwrap();

    // Pods reach it by its address and by a node's port.
    let out = up.kubectl(&[
        "run",
        "asks",
        "--image=coracle.dev/load:v1",
        "--restart=Never",
        "--attach",
        "--quiet",
        n,
        "--",
        "get",
        "5",
        &format!("{ip}:8000"),
    ]);
    assert!(out.contains("got: 5 in"), "{out}");
    let out = up.kubectl(&[
        "run",
        "asks-node",
        "--image=coracle.dev/load:v1",
        "--restart=Never",
        "--attach",
        "--quiet",
        n,
        "--",
        "get",
        "5",
        &format!("{second}:{port}"),
    ]);
    assert!(out.contains("got: 5 in"), "{out}");

    // Nobody is there.
    up.kubectl(&["scale", "deploy/web", "--replicas=0", n]);
    for url in &urls {
        refused(url);
    }
    up.kubectl(&["scale", "deploy/web", "--replicas=1", n]);
    answered(&urls[0]);
    up.kubectl(&["delete", "service", "web", n]);
    refused(&urls[0]);
}

/// 16.2
#[test]
fn balancers_and_host_ports_are_on_the_nodes_addresses() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let up = &Up::ephemeral(&["--nodes", "2"]);
    let n = "-ndefault";
    deploy(up, n, "web", 1);
    up.kubectl(&["expose", "deploy", "web", "--type=LoadBalancer", "--port=8000", "--target-port=web", n]);
    wait(up, n, "service/web", ".status.loadBalancer.ingress[1].ipMode", "VIP");
    let nodes = up.kubectl(&["get", "nodes", "-o", NODE_IPS]);
    for node in nodes.split(' ') {
        answered(&format!("http://{node}:8000/"));
    }
    // Only where the pod is.
    up.kubectl(&["patch", "service", "web", n, "-p", r#"{"spec":{"externalTrafficPolicy":"Local"}}"#]);
    let on = field(up, n, "pods", ".items[0].status.hostIP");
    let other = nodes.split(' ').find(|node| *node != on).unwrap();
    refused(&format!("http://{other}:8000/"));
    answered(&format!("http://{on}:8000/"));

    // A port that somebody has is told of, with what to do; the rest works.
    let taken = TcpListener::bind((on.as_str(), 8001)).unwrap();
    up.kubectl(&["create", "service", "loadbalancer", "taken", "--tcp=8001:8080", n]);
    up.kubectl(&["patch", "service", "taken", n, "-p", r#"{"spec":{"selector":{"app":"web"}}}"#]);
    answered(&format!("http://{other}:8001/"));
    let events = || {
        up.kubectl(&[
            "get",
            "events",
            n,
            "--field-selector=reason=FailedToListen,involvedObject.name=taken",
            "--no-headers",
        ])
    };
    let told = (0..200).map(|_| events()).find(|told| !told.is_empty()).unwrap();
    assert!(told.contains("service/taken") && told.contains("another program has it"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    drop(taken);

    up.kubectl_stdin(
        &["apply", n, "-f", "-"],
        "
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: http, image: coracle.dev/http:v1, ports: [{containerPort: 8080, hostPort: 8088}]}]
",
    );
    up.kubectl(&["wait", "--for=condition=Ready", "pod/own", "--timeout=30s", n]);
    let url = format!("http://{}:8088/", field(up, n, "pod/own", ".status.hostIP"));
    assert!(answered(&url).contains("own"));
    up.kubectl(&["delete", "pod", "own", n]);
    refused(&url);
}

/// A Service over a DaemonSet on five nodes loses a node, and a pod under load, and no request with them.
#[test]
fn nodes_and_endpoints_go_without_a_request_lost() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let up = &Up::ephemeral(&["--nodes", "5"]);
    let n = "-ndefault";
    up.kubectl_stdin(
        &["apply", n, "-f", "-"],
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: http
        image: coracle.dev/http:v1
        ports: [{containerPort: 8080, hostPort: 8090}]
        lifecycle: {preStop: {sleep: {seconds: 1}}}
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8000, targetPort: 8080}]}
",
    );
    up.kubectl(&["rollout", "status", "ds/web", n, "--timeout=50s"]);
    let url = format!("http://{}:8000/", field(up, n, "service/web", ".spec.clusterIP"));
    answered(&url);
    let pods = |count: usize| {
        let seen = (0..300).scan(BTreeSet::new(), |seen, _| {
            seen.insert(curl(&url).unwrap());
            Some(seen.len())
        });
        assert!(seen.into_iter().any(|found| found == count), "{count} pods answer");
    };
    pods(5);

    // Pods go one after the other while somebody asks all the time.
    let (stop, stopped) = mpsc::channel::<()>();
    let asks = {
        let url = url.clone();
        std::thread::spawn(move || {
            let mut answers = 0;
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                curl(&url).unwrap();
                answers += 1;
            }
            answers
        })
    };
    let first = field(up, n, "pods", ".items[0].metadata.name");
    up.kubectl(&["delete", "pod", &first, n]);
    up.kubectl(&["rollout", "status", "ds/web", n, "--timeout=50s"]);
    drop(stop);
    assert!(asks.join().unwrap() > 5);
    pods(5);

    // The service leaves the pod of a node that goes, long before the pod is collected.
    let node = field(up, n, "pods", ".items[0].spec.nodeName");
    let own = format!("http://{}:8090/", field(up, n, "pods", ".items[0].status.hostIP"));
    answered(&own);
    up.kubectl(&["cordon", &node]);
    up.kubectl(&["delete", "node", &node]);
    // So is its own port, to which nobody else may answer.
    refused(&own);
    until(up, n, "ds/web", ".status.desiredNumberScheduled", "4");
    let slice = ["get", "endpointslices", n, "-l", "kubernetes.io/service-name=web", "-o"];
    let ready = || up.kubectl(&[&slice[..], &["jsonpath={.items[*].endpoints[*].nodeName}"]].concat());
    assert!((0..400).any(|_| !ready().contains(&node) && ready().split(' ').count() == 4), "{}", ready());
    for _ in 0..20 {
        curl(&url).unwrap();
    }
}
