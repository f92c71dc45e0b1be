//! Deployments, replica sets and daemon sets, as kubectl and its rollouts see them, with guests that run.

use crate::harness::{Up, has};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['3600']}]
";

const AGENT: &str = "
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

const STORE: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  replicas: 3
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['3600']}]
";

/// One cluster for all that follows: each part works in a namespace of its own.
#[test]
fn workloads_live_under_kubectl() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&["--nodes", "3"]);
    std::thread::scope(|scope| {
        for part in [
            deployments_roll_out_and_back,
            deployments_pause_and_scale,
            what_hinders_pods_is_told,
            owners_go_before_or_after_what_they_own,
            replication_controllers_scale_and_orphan,
            daemon_sets_follow_the_nodes,
            daemon_sets_roll_and_adopt,
            stateful_sets_keep_names_and_order,
        ] {
            let up = &up;
            scope.spawn(move || part(up));
        }
    });
}

fn namespace(up: &Up, name: &str) {
    up.kubectl(&["create", "namespace", name]);
    up.kubectl(&["wait", "--for=create", "sa/default", "-n", name, "--timeout=20s"]);
}

/// Waits until `jsonpath` of the object is `value`.
#[track_caller]
fn wait(up: &Up, n: &str, what: &str, jsonpath: &str, value: &str) {
    up.kubectl(&["wait", what, n, &format!("--for=jsonpath={{{jsonpath}}}={value}"), "--timeout=50s"]);
}

#[track_caller]
fn field(up: &Up, n: &str, what: &str, jsonpath: &str) -> String {
    up.kubectl(&["get", what, n, "-o", &format!("jsonpath={{{jsonpath}}}")])
}

/// The uids of the pods with a label, sorted.
fn pods(up: &Up, n: &str, label: &str) -> Vec<String> {
    let text = up.kubectl(&["get", "pods", n, "-l", label, "-o", "jsonpath={.items[*].metadata.uid}"]);
    let mut uids: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    uids.sort();
    uids
}

fn deployments_roll_out_and_back(up: &Up) {
    let n = "-nrollout";
    namespace(up, "rollout");
    up.kubectl_stdin(&["apply", n, "-f", "-"], WEB);
    let status = up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    assert!(status.ends_with("deployment \"web\" successfully rolled out\n"), "{status}");
    let row = up.kubectl(&["get", "deploy", "web", n, "--no-headers"]);
    assert!(row.contains("4/4") && row.contains("4     "), "{row}");
    let first = pods(up, n, "app=web");
    assert_eq!(first.len(), 4);

    // Applying a change leads to a second revision, going back to a third that is like the first.
    up.kubectl_stdin(&["apply", n, "-f", "-"], &WEB.replace("3600", "3601"));
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    let sets = up.kubectl(&["get", "rs", n, "--no-headers"]);
    assert_eq!(sets.lines().count(), 2, "{sets}");
    assert!(pods(up, n, "app=web").iter().all(|uid| !first.contains(uid)));
    assert!(up.kubectl(&["rollout", "history", "deploy/web", n]).contains("\n2 "));
    up.kubectl(&["rollout", "undo", "deploy/web", n]);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    assert_eq!(field(up, n, "deploy/web", ".spec.template.spec.containers[0].args[0]"), "3600");
    let history = up.kubectl(&["rollout", "history", "deploy/web", n]);
    assert!(history.contains("\n2 ") && history.contains("\n3 ") && !history.contains("\n1 "), "{history}");
    assert_eq!(
        up.kubectl(&["get", "rs", n, "--no-headers"]).lines().count(),
        2,
        "the first set is used again"
    );

    up.kubectl(&["rollout", "restart", "deploy/web", n]);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    let events = up.kubectl(&["get", "events", n, "--field-selector=reason=ScalingReplicaSet"]);
    assert!(events.contains("Scaled up replica set web-") && events.contains("Scaled down"), "{events}");
    assert!(up.kubectl(&["describe", "deploy", "web", n]).contains("NewReplicaSetAvailable"));
}

fn deployments_pause_and_scale(up: &Up) {
    let n = "-npause";
    namespace(up, "pause");
    up.kubectl_stdin(&["apply", n, "-f", "-"], WEB);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    up.kubectl(&["rollout", "pause", "deploy/web", n]);
    up.kubectl(&["set", "env", "deploy/web", "A=b", n]);
    assert_eq!(up.kubectl(&["scale", "deploy/web", "--replicas=6", n]), "deployment.apps/web scaled\n");
    wait(up, n, "deploy/web", ".status.availableReplicas", "6");
    assert_eq!(
        up.kubectl(&["get", "rs", n, "--no-headers"]).lines().count(),
        1,
        "a paused one does not roll"
    );
    up.kubectl(&["rollout", "resume", "deploy/web", n]);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    assert_eq!(up.kubectl(&["get", "rs", n, "--no-headers"]).lines().count(), 2);
    let wrong = up.kubectl_fails(&["scale", "deploy/web", "--replicas=2", "--current-replicas=5", n]);
    assert!(wrong.contains("Expected replicas to be 5, was 6"), "{wrong}");
    up.kubectl(&[
        "patch",
        "deploy",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        "{\"spec\":{\"replicas\":0}}",
        n,
    ]);
    up.kubectl(&["wait", "pods", "-l", "app=web", "--for=delete", "--timeout=50s", n]);
    let negative = up.kubectl_fails(&[
        "patch",
        "deploy",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        "{\"spec\":{\"replicas\":-1}}",
        n,
    ]);
    assert!(
        negative.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{negative}"
    );
}

fn what_hinders_pods_is_told(up: &Up) {
    let n = "-nhindered";
    namespace(up, "hindered");
    let web = WEB.replace("      containers", "      serviceAccountName: robot\n      containers");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &web);
    up.kubectl(&["wait", "deploy/web", n, "--for=condition=ReplicaFailure", "--timeout=50s"]);
    let message = field(up, n, "deploy/web", ".status.conditions[?(@.type==\"ReplicaFailure\")].message");
    assert!(message.contains("error looking up service account hindered/robot"), "{message}");
    let events = up.kubectl(&["get", "events", n, "--field-selector=reason=FailedCreate"]);
    assert!(events.contains("Error creating: "), "{events}");
    up.kubectl(&["create", "serviceaccount", "robot", n]);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    let conditions = field(up, n, "deploy/web", ".status.conditions[*].type");
    assert!(!conditions.contains("ReplicaFailure"), "{conditions}");
}

fn owners_go_before_or_after_what_they_own(up: &Up) {
    let n = "-ncascade";
    namespace(up, "cascade");
    for policy in ["background", "foreground"] {
        up.kubectl_stdin(&["apply", n, "-f", "-"], WEB);
        up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
        up.kubectl(&["delete", "deploy", "web", n, &format!("--cascade={policy}")]);
        if policy == "background" {
            up.kubectl(&["wait", "pods", "-l", "app=web", "--for=delete", "--timeout=50s", n]);
            up.kubectl(&["wait", "rs", "-l", "app=web", "--for=delete", "--timeout=50s", n]);
        }
        // In the foreground the owner is the last to go, and kubectl waits for it.
        assert_eq!(up.kubectl(&["get", "pods,rs", n, "-o", "name"]), "");
    }
    up.kubectl_stdin(&["apply", n, "-f", "-"], WEB);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    let before = pods(up, n, "app=web");
    up.kubectl(&["delete", "deploy", "web", n, "--cascade=orphan"]);
    assert_eq!(field(up, n, "rs", ".items[*].metadata.ownerReferences"), "");
    up.kubectl_stdin(&["apply", n, "-f", "-"], WEB);
    up.kubectl(&["rollout", "status", "deploy/web", n, "--timeout=50s"]);
    assert_eq!(pods(up, n, "app=web"), before, "the set was adopted as it is");
    assert_eq!(field(up, n, "rs", ".items[*].metadata.ownerReferences[*].name"), "web");
    up.kubectl(&["delete", "namespace", "cascade", "--timeout=50s"]);
}

fn replication_controllers_scale_and_orphan(up: &Up) {
    let n = "-nrc";
    namespace(up, "rc");
    let controller = "
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: old}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['3600']}]
";
    up.kubectl_stdin(&["apply", n, "-f", "-"], controller);
    wait(up, n, "rc/old", ".status.readyReplicas", "2");
    up.kubectl(&["scale", "rc/old", "--replicas=3", n]);
    wait(up, n, "rc/old", ".status.readyReplicas", "3");
    // A deleted pod is made again, one that no longer matches is released and replaced.
    let pod = field(up, n, "pods", ".items[0].metadata.name");
    up.kubectl(&["label", "pod", &pod, "app=mine", "--overwrite", n]);
    wait(up, n, &format!("pod/{pod}"), ".metadata.labels.app", "mine");
    up.kubectl(&["wait", "pods", "-l", "app=old", "--for=condition=Ready", "--timeout=50s", n]);
    wait(up, n, "rc/old", ".status.readyReplicas", "3");
    assert_eq!(field(up, n, &format!("pod/{pod}"), ".metadata.ownerReferences"), "");
    up.kubectl(&["delete", "rc", "old", "--cascade=orphan", n]);
    assert_eq!(pods(up, n, "app=old").len(), 3);
}

fn daemon_sets_follow_the_nodes(up: &Up) {
    let n = "-nnodes";
    namespace(up, "nodes");
    up.kubectl_stdin(&["apply", n, "-f", "-"], AGENT);
    let status = up.kubectl(&["rollout", "status", "ds/agent", n, "--timeout=50s"]);
    assert!(status.ends_with("daemon set \"agent\" successfully rolled out\n"), "{status}");
    let fast = AGENT.replace("name: agent", "name: fast").replace("app: agent", "app: fast").replace(
        "terminationGracePeriodSeconds: 0",
        "terminationGracePeriodSeconds: 0\n      nodeSelector: {disk: ssd}",
    );
    up.kubectl_stdin(&["apply", n, "-f", "-"], &fast);
    wait(up, n, "ds/fast", ".status.observedGeneration", "1");
    assert_eq!(field(up, n, "ds/fast", ".status.desiredNumberScheduled"), "0");
    up.kubectl(&["label", "node", "node-1", "disk=ssd"]);
    wait(up, n, "ds/fast", ".status.numberReady", "1");
    let on = up.kubectl(&["get", "pods", n, "-l", "app=fast", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    assert_eq!(on, "node-1");
    up.kubectl(&["label", "node", "node-1", "disk-"]);
    up.kubectl(&["wait", "pods", "-l", "app=fast", "--for=delete", "--timeout=50s", n]);

    // A pod that is deleted comes again where it was.
    let lost = field(up, n, "pods", ".items[0].metadata.name");
    let node = field(up, n, &format!("pod/{lost}"), ".spec.nodeName");
    up.kubectl(&["delete", "pod", &lost, n]);
    up.kubectl(&["rollout", "status", "ds/agent", n, "--timeout=50s"]);
    wait(up, n, "ds/agent", ".status.numberReady", "3");
    let all = up.kubectl(&["get", "pods", n, "-l", "app=agent", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    assert!(all.contains(&node) && !all.contains(&lost), "{all}");

    // A node that comes is served, one that goes is forgotten with its pod.
    up.kubectl_stdin(
        &["apply", "-f", "-"],
        "
apiVersion: v1
kind: Node
metadata: {name: guest, labels: {kubernetes.io/hostname: guest}}
",
    );
    wait(up, n, "ds/agent", ".status.desiredNumberScheduled", "4");
    wait(up, n, "ds/agent", ".status.currentNumberScheduled", "4");
    up.kubectl(&["delete", "node", "guest"]);
    wait(up, n, "ds/agent", ".status.desiredNumberScheduled", "3");
    let row = up.kubectl(&["get", "ds", "agent", n, "--no-headers"]);
    assert_eq!(
        row.split_whitespace().skip(1).take(6).collect::<Vec<_>>(),
        ["3", "3", "3", "3", "3", "<none>"]
    );
}

fn daemon_sets_roll_and_adopt(up: &Up) {
    let n = "-nroll";
    namespace(up, "roll");
    // Not on the node that another part adds for a while.
    let agent = AGENT.replace(
        "terminationGracePeriodSeconds: 0",
        "terminationGracePeriodSeconds: 0\n      nodeSelector: {coracle.dev/runtime: wasm}",
    );
    up.kubectl_stdin(&["apply", n, "-f", "-"], &agent);
    up.kubectl(&["rollout", "status", "ds/agent", n, "--timeout=50s"]);
    up.kubectl(&["set", "env", "ds/agent", "A=b", n]);
    up.kubectl(&["rollout", "status", "ds/agent", n, "--timeout=50s"]);
    let second = pods(up, n, "app=agent");
    let history = up.kubectl(&["rollout", "history", "ds/agent", n]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    let revisions = up.kubectl(&["get", "controllerrevisions", n, "--no-headers"]);
    assert_eq!(revisions.matches("daemonset.apps/agent").count(), 2, "{revisions}");
    up.kubectl(&["rollout", "undo", "ds/agent", n]);
    up.kubectl(&["rollout", "status", "ds/agent", n, "--timeout=50s"]);
    assert_eq!(field(up, n, "ds/agent", ".spec.template.spec.containers[0].env"), "");
    let third = pods(up, n, "app=agent");
    assert!(third.len() == 3 && third.iter().all(|uid| !second.contains(uid)));

    // Orphaned, the pods stay as they are, and a set with the same selector takes them over.
    up.kubectl(&["delete", "ds", "agent", n, "--cascade=orphan"]);
    assert_eq!(pods(up, n, "app=agent"), third);
    let manual = agent.replace("  selector", "  updateStrategy: {type: OnDelete}\n  selector");
    let manual = manual.replace("3600", "3601");
    up.kubectl_stdin(&["apply", n, "-f", "-"], &manual);
    wait(up, n, "ds/agent", ".status.numberReady", "3");
    assert_eq!(pods(up, n, "app=agent"), third, "OnDelete leaves them");
    assert_eq!(field(up, n, "ds/agent", ".status.updatedNumberScheduled"), "");
    // By hand, one after the other.
    let name = field(up, n, "pods", ".items[0].metadata.name");
    up.kubectl(&["delete", "pod", &name, n]);
    wait(up, n, "ds/agent", ".status.updatedNumberScheduled", "1");
    up.kubectl(&["delete", "ds", "agent", n, "--cascade=foreground"]);
    assert_eq!(up.kubectl(&["get", "pods,controllerrevisions", n, "-o", "name"]), "");
}

fn stateful_sets_keep_names_and_order(up: &Up) {
    let n = "-nstateful";
    namespace(up, "stateful");
    up.kubectl_stdin(&["apply", n, "-f", "-"], STORE);
    let status = up.kubectl(&["rollout", "status", "sts/store", n, "--timeout=50s"]);
    assert!(status.contains("roll out complete: 3 new pods"), "{status}");
    let names = |path: &str| field(up, n, "pods", &format!(".items[*].{path}"));
    assert_eq!(names("metadata.name"), "store-0 store-1 store-2");
    assert_eq!(names("spec.hostname"), "store-0 store-1 store-2");
    assert_eq!(names("spec.subdomain"), "store store store");
    let row = up.kubectl(&["get", "sts", "store", n, "--no-headers"]);
    assert!(row.contains("3/3"), "{row}");
    // All three were told of.
    let events = up.kubectl(&["get", "events", n, "--field-selector=involvedObject.kind=StatefulSet"]);
    for i in 0..3 {
        assert!(
            events.contains(&format!("create Pod store-{i} in StatefulSet store successful")),
            "{events}"
        );
    }

    // One that is lost comes again under its name; the last go first.
    let first = pods(up, n, "app=store");
    up.kubectl(&["delete", "pod", "store-1", n]);
    up.kubectl(&["wait", "--for=create", "pod/store-1", n, "--timeout=50s"]);
    wait(up, n, "sts/store", ".status.availableReplicas", "3");
    assert_eq!(pods(up, n, "app=store").iter().filter(|uid| !first.contains(uid)).count(), 1);
    up.kubectl(&["scale", "sts/store", "--replicas=1", n]);
    up.kubectl(&["wait", "pod/store-1", "pod/store-2", "--for=delete", "--timeout=50s", n]);
    assert_eq!(names("metadata.name"), "store-0");
    up.kubectl(&["scale", "sts/store", "--replicas=3", n]);
    wait(up, n, "sts/store", ".status.availableReplicas", "3");

    // An update as far as the partition, then whole, then back.
    let env = |label: &str| field(up, n, &format!("pod/{label}"), ".spec.containers[0].env[*].value");
    let partition = |to: &str| {
        let patch = format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":{to}}}}}}}}}"#);
        up.kubectl(&["patch", "sts", "store", n, "-p", &patch]);
    };
    partition("2");
    up.kubectl(&["set", "env", "sts/store", "A=b", n]);
    let status = up.kubectl(&["rollout", "status", "sts/store", n, "--timeout=50s"]);
    assert!(status.contains("partitioned roll out complete: 1 new pods"), "{status}");
    assert_eq!([env("store-0"), env("store-1"), env("store-2")], ["", "", "b"]);
    partition("0");
    up.kubectl(&["rollout", "status", "sts/store", n, "--timeout=50s"]);
    wait(up, n, "sts/store", ".status.updatedReplicas", "3");
    assert_eq!([env("store-0"), env("store-1"), env("store-2")], ["b", "b", "b"]);
    up.kubectl(&["rollout", "undo", "sts/store", n]);
    up.kubectl(&["rollout", "status", "sts/store", n, "--timeout=50s"]);
    assert_eq!([env("store-0"), env("store-1"), env("store-2")], ["", "", ""]);
    let claims = STORE.replace("  template:", "  volumeClaimTemplates: [{metadata: {name: v}}]\n  template:");
    let refused =
        up.kubectl_stdin_fails(&["create", n, "-f", "-"], &claims.replace("name: store", "name: other"));
    assert!(refused.contains("this cluster has no persistent volumes"), "{refused}");
    up.kubectl(&["delete", "sts", "store", n, "--cascade=foreground"]);
    assert_eq!(up.kubectl(&["get", "pods,controllerrevisions", n, "-o", "name"]), "");
}
