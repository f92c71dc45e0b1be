//! `kubectl drain` and `uncordon`, held up by a disruption budget and let go by it (BEHAVIOURS 8.5). On a
//! cluster of its own, as its nodes are taken out of service.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::harness::{Up, has, text};

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
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['3600']}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: web}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['3600']}]
";

const WORK: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  backoffLimit: 0
  podFailurePolicy:
    rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget, status: 'True'}]}]
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['3600']}]
";

#[track_caller]
fn field(up: &Up, what: &[&str], path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    up.kubectl(&[&["get"], what, &["-o", &path]].concat())
}

#[track_caller]
fn wait(up: &Up, what: &str, path: &str, value: &str) {
    up.kubectl(&["wait", what, &format!("--for=jsonpath={{{path}}}={value}"), "--timeout=50s"]);
}

/// Evicts a pod as other programs do; the error is kubectl's.
fn evict(up: &Up, pod: &str) -> Result<(), String> {
    let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
    let body = format!(r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}"}}}}"#);
    let file = up.scratch().join("eviction.json");
    std::fs::write(&file, body).unwrap();
    let output = up.kubectl_output(&["create", "--raw", &path, "-f", file.to_str().unwrap()]);
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
}

/// The nodes of the pods with this label.
fn nodes(up: &Up, label: &str) -> Vec<String> {
    let nodes = field(up, &["pods", "-l", label], ".items[*].spec.nodeName");
    nodes.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_node_is_drained_when_the_budget_allows_it() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&["--nodes", "2"]);
    up.kubectl(&["wait", "--for=create", "sa/default", "--timeout=20s"]);
    up.kubectl_stdin(&["apply", "-f", "-"], WEB);
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    up.kubectl(&["rollout", "status", "ds/agent", "--timeout=50s"]);
    wait(&up, "pdb/web", ".status.currentHealthy", "2");
    let row = up.kubectl(&["get", "pdb", "web", "--no-headers"]);
    assert_eq!(row.split_whitespace().take(4).collect::<Vec<_>>(), ["web", "2", "N/A", "0"]);

    // All pods are needed, so none goes.
    let node = nodes(&up, "app=web").remove(0);
    let pods = field(&up, &["pods", "-l", "app=web"], ".items[*].metadata.name");
    let refused = evict(&up, pods.split(' ').next().unwrap()).unwrap_err();
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert!(refused.contains(why), "{refused}");
    let mut drain = up
        .kubectl_command(&["drain", &node, "--ignore-daemonsets", "--timeout=55s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(drain.stderr.take().unwrap());
    while !said.contains("will retry after 5s") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "it gave up: {said}");
    }
    assert!(said.contains(why), "{said}");
    assert!(up.kubectl(&["get", "node", &node]).contains("Ready,SchedulingDisabled"));
    assert_eq!(field(&up, &["pods", "-l", "app=web"], ".items[*].metadata.name"), pods);

    // It goes on as soon as one may be missing.
    up.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"minAvailable":1}}"#]);
    lines.read_to_string(&mut said).unwrap();
    let drained = drain.wait_with_output().unwrap();
    let told = text(&drained.stdout);
    assert!(drained.status.success() && told.contains(&format!("node/{node} drained")), "{told}{said}");
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    up.kubectl(&["wait", "pods", "-l", "app=web", "--for=condition=Ready", "--timeout=50s"]);
    assert!(nodes(&up, "app=web").iter().all(|other| *other != node), "they run elsewhere");
    assert!(nodes(&up, "app=agent").contains(&node), "daemons stay");
    wait(&up, "pdb/web", ".status.disruptionsAllowed", "1");
    assert_eq!(field(&up, &["pdb", "web"], ".status.disruptedPods"), "");
    assert_eq!(field(&up, &["pdb", "web"], ".status.conditions[0].reason"), "SufficientPods");

    // Back in service, it takes pods again.
    assert_eq!(up.kubectl(&["uncordon", &node]), format!("node/{node} uncordoned\n"));
    up.kubectl(&["scale", "deploy/web", "--replicas=6"]);
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    assert!(nodes(&up, "app=web").contains(&node));

    // An evicted pod of a Job that ignores disruptions is no failure.
    up.kubectl_stdin(&["apply", "-f", "-"], WORK);
    wait(&up, "job/work", ".status.ready", "1");
    let first = field(&up, &["pods", "-l", "job-name=work"], ".items[*].metadata.name");
    evict(&up, &first).unwrap();
    up.kubectl(&["wait", &format!("pod/{first}"), "--for=delete", "--timeout=50s"]);
    wait(&up, "job/work", ".status.ready", "1");
    assert_ne!(field(&up, &["pods", "-l", "job-name=work"], ".items[*].metadata.name"), first);
    assert_eq!(field(&up, &["job", "work"], ".status.failed"), "");

    // Made by kubectl's own word, and a pod that is nobody's.
    up.kubectl(&["create", "pdb", "by-hand", "--selector=app=lone", "--max-unavailable=1"]);
    up.kubectl(&["run", "lone", "--image=coracle.dev/worker:v1", "--labels=app=lone", "--", "3600"]);
    up.kubectl(&["wait", "pod/lone", "--for=condition=Ready", "--timeout=50s"]);
    up.kubectl(&["wait", "pdb/by-hand", "--for=condition=DisruptionAllowed=false", "--timeout=50s"]);
    wait(&up, "pdb/by-hand", ".status.observedGeneration", "1");
    let lone =
        up.kubectl_fails(&["drain", &nodes(&up, "app=lone")[0], "--ignore-daemonsets", "--dry-run=server"]);
    assert!(lone.contains("cannot delete"), "{lone}");
}
