//! Pods with configuration, steered to nodes, as kubectl shows them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use coracle::guests;

use crate::harness::{Up, has};

const CONFIGURED: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, COLOR_OF_SEA: green, nested.key: deep}
binaryData: {raw: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Pod
metadata:
  name: configured
  labels: {app: test}
  annotations: {note: "a \"quoted\" one"}
spec:
  restartPolicy: Never
  # kubectl calls every pod "configured" to whose volumes the server has added one.
  automountServiceAccountToken: false
  containers:
  - name: main
    image: env:v1
    imagePullPolicy: IfNotPresent
    args: ["$(COLOR)", "$$(COLOR)", "$(UNKNOWN)"]
    workingDir: /work
    resources: {requests: {cpu: 250m}, limits: {memory: 64Mi}}
    envFrom:
    - configMapRef: {name: settings}
    - prefix: P_
      secretRef: {name: secret}
    - configMapRef: {name: absent, optional: true}
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: MIXED, value: "the sea is $(COLOR_OF_SEA)"}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    volumeMounts: [{name: work, mountPath: /work}]
  volumes: [{name: work, emptyDir: {}}]
"#;

#[test]
fn pods_are_configured_steered_and_logged() {
    if !has("kubectl") {
        return;
    }
    let up = Up::durable(&["--nodes", "3"]);
    for guest in ["env", "files", "exit.p1"] {
        let wasm = up.scratch().join(format!("{guest}.wasm"));
        fs::write(&wasm, guests::fixture(guest).unwrap()).unwrap();
        up.import(&wasm, &format!("{}:v1", guest.trim_end_matches(".p1")));
    }
    up.kubectl(&["wait", "--for=create", "sa/default", "--timeout=10s"]);
    sees_its_environment(&up);
    sees_its_volumes(&up);
    waits_for_what_is_missing(&up);
    sees_edits_while_it_runs(&up);
    goes_where_it_is_steered(&up);
    restarts_and_keeps_logs(&up);
    runs_containers_in_order(&up);
}

fn sees_its_environment(up: &Up) {
    up.kubectl_stdin(&["apply", "-f", "-"], CONFIGURED);
    up.kubectl(&["wait", "pod/configured", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"]);
    let log = up.kubectl(&["logs", "configured"]);
    let node = up.kubectl(&["get", "pod", "configured", "-o", "jsonpath={.spec.nodeName}"]);
    let api = up.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]);
    for line in [
        r#""blue", "$(COLOR)", "$(UNKNOWN)"]"#,
        "COLOR=blue",
        "COLOR_OF_SEA=green",
        "MIXED=the sea is green",
        "P_password=hunter2",
        "nested.key=deep",
        "POD_NAME=configured",
        "HOSTNAME=configured",
        &format!("NODE={node}"),
        "LABEL=test",
        "CPU=250",
        "MEMORY=64",
        &format!("KUBERNETES_SERVICE_HOST={api}"),
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
    ] {
        assert!(log.contains(line), "{line} in\n{log}");
    }
    // kubectl apply again changes nothing, and describe shows what a person needs.
    assert!(up.kubectl_stdin(&["apply", "-f", "-"], CONFIGURED).contains("pod/configured unchanged"));
    let described = up.kubectl(&["describe", "pod", "configured"]);
    for part in ["Status:           Succeeded", "Exit Code:    0", "Normal  Started", "Burstable"] {
        assert!(described.contains(part), "{part} in\n{described}");
    }
}

const VOLUMES: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: volumes, labels: {app: test, tier: front}}
spec:
  restartPolicy: Never
  initContainers:
  - name: writer
    image: files:v1
    imagePullPolicy: IfNotPresent
    args: ["write /shared/note from-init"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: files:v1
    imagePullPolicy: IfNotPresent
    args:
    - list /config
    - readlink /config/color
    - read /config/color
    - write /config/color red
    - read /secret/deep/password
    - list /secret
    - read /all/labels
    - read /all/settings/color
    - read /all/password
    - read /one.txt
    - read /shared/note
    - append /shared/note !
    - read /shared/note
    - list /optional
    - read /etc/passwd
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
    - {name: all, mountPath: /all}
    - {name: config, mountPath: /one.txt, subPath: color}
    - {name: shared, mountPath: /shared}
    - {name: optional, mountPath: /optional}
  volumes:
  - {name: config, configMap: {name: settings, defaultMode: 0400}}
  - {name: secret, secret: {secretName: secret, items: [{key: password, path: deep/password}]}}
  - {name: shared, emptyDir: {sizeLimit: 1Mi}}
  - {name: optional, configMap: {name: absent, optional: true}}
  - name: all
    projected:
      sources:
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
      - configMap: {name: settings, items: [{key: color, path: settings/color}]}
      - secret: {name: secret}
"#;

fn sees_its_volumes(up: &Up) {
    up.kubectl_stdin(&["apply", "-f", "-"], VOLUMES);
    up.kubectl(&["wait", "pod/volumes", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"]);
    let log = up.kubectl(&["logs", "volumes", "-c", "main"]);
    for line in [
        "readlink /config/color: ..data/color",
        "read /config/color: blue",
        "write /config/color red: Read-only file system",
        "read /secret/deep/password: hunter2",
        "read /all/labels: app=\"test\"\ntier=\"front\"",
        "read /all/settings/color: blue",
        "read /all/password: hunter2",
        "read /one.txt: blue",
        "read /shared/note: from-init",
        "read /shared/note: from-init!",
        "list /optional: ",
    ] {
        assert!(log.contains(line), "{line} in\n{log}");
    }
    let host = log.lines().find(|line| line.starts_with("read /etc/passwd")).unwrap();
    assert!(!host.contains("root"), "{host}");
    let listed = log.lines().find(|line| line.starts_with("list /config")).unwrap();
    assert!(
        listed.contains("..data@") && listed.contains("nested.key@") && listed.contains("raw@"),
        "{listed}"
    );
}

fn waits_for_what_is_missing(up: &Up) {
    up.kubectl_stdin(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: Pod, metadata: {name: early}, spec: {restartPolicy: Never, containers: [{name: main, image: coracle.dev/hello:v1, env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: later, key: text}}}]}]}}",
    );
    let reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    up.kubectl(&[
        "wait",
        "pod/early",
        &format!("--for={reason}=CreateContainerConfigError"),
        "--timeout=20s",
    ]);
    let message = up.kubectl(&[
        "get",
        "pod",
        "early",
        "-o",
        "jsonpath={.status.containerStatuses[0].state.waiting.message}",
    ]);
    assert_eq!(message, "configmap \"later\" not found");
    let refused = up.kubectl_fails(&["logs", "early"]);
    assert!(
        refused
            .contains("container \"main\" in pod \"early\" is waiting to start: CreateContainerConfigError"),
        "{refused}"
    );
    up.kubectl(&["create", "configmap", "later", "--from-literal=text=Finally"]);
    up.kubectl(&["wait", "pod/early", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s"]);
    assert_eq!(up.kubectl(&["logs", "early"]), "Finally, WebAssembly!\n");
}

fn sees_edits_while_it_runs(up: &Up) {
    up.kubectl(&["create", "configmap", "live", "--from-literal=text=one"]);
    up.kubectl_stdin(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: Pod, metadata: {name: live}, spec: {containers: [{name: main, image: coracle.dev/logger:v1, args: [/config/text], volumeMounts: [{name: config, mountPath: /config}]}], volumes: [{name: config, configMap: {name: live}}]}}",
    );
    up.kubectl(&["wait", "pod/live", "--for=condition=Ready", "--timeout=20s"]);
    let mut child = up.kubectl_command(&["logs", "-f", "live"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "/config/text: one");
    up.kubectl(&["patch", "configmap", "live", "-p", r#"{"data":{"text":"two"}}"#]);
    assert_eq!(lines.next().unwrap(), "/config/text: two");
    // Deleting the pod ends its log.
    up.kubectl(&["delete", "pod", "live", "--timeout=20s"]);
    assert_eq!(lines.next(), None);
    assert!(child.wait().unwrap().success());
}

fn goes_where_it_is_steered(up: &Up) {
    up.kubectl(&["label", "node", "node-1", "disk=fast"]);
    up.kubectl(&["taint", "node", "node-2", "dedicated=db:NoSchedule"]);
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: coracle.dev/worker:v1, args: ['3600']}}], {more}}}}}"
        )
    };
    up.kubectl_stdin(&["create", "-f", "-"], &pod("fast", "nodeSelector: {disk: fast}"));
    up.kubectl(&["wait", "pod/fast", "--for=condition=Ready", "--timeout=20s"]);
    assert_eq!(up.kubectl(&["get", "pod", "fast", "-o", "jsonpath={.spec.nodeName}"]), "node-1");
    up.kubectl_stdin(&["create", "-f", "-"], &pod("nowhere", "nodeSelector: {disk: none}"));
    up.kubectl(&["wait", "pod/nowhere", "--for=condition=PodScheduled=false", "--timeout=20s"]);
    let message = up.kubectl(&["get", "pod", "nowhere", "-o", "jsonpath={.status.conditions[0].message}"]);
    assert!(
        message.starts_with("0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 2 node(s) didn't match Pod's node affinity/selector."),
        "{message}"
    );
    assert!(up.kubectl(&["get", "pod", "nowhere"]).contains("Pending"));
    // A label makes it fit.
    up.kubectl(&["label", "node", "node-0", "disk=none"]);
    up.kubectl(&["wait", "pod/nowhere", "--for=condition=Ready", "--timeout=30s"]);
    up.kubectl(&["cordon", "node-0"]);
    assert!(up.kubectl(&["get", "node", "node-0"]).contains("Ready,SchedulingDisabled"));
    up.kubectl(&["uncordon", "node-0"]);
    up.kubectl(&["delete", "pod", "fast", "nowhere"]);
}

fn restarts_and_keeps_logs(up: &Up) {
    up.kubectl(&["run", "crash", "--image=exit:v1", "--image-pull-policy=IfNotPresent", "--", "3"]);
    let restarted = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    up.kubectl(&["wait", "pod/crash", restarted, "--timeout=20s"]);
    let reason = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff";
    up.kubectl(&["wait", "pod/crash", reason, "--timeout=20s"]);
    let last = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(up.kubectl(&["get", "pod", "crash", "-o", last]), "3");
    assert!(up.kubectl(&["get", "pod", "crash"]).contains("CrashLoopBackOff"));
    assert_eq!(up.kubectl(&["logs", "crash"]), "leaving with 3\n");
    assert_eq!(up.kubectl(&["logs", "crash", "--previous"]), "leaving with 3\n");
    let stamped = up.kubectl(&["logs", "crash", "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.ends_with("Z leaving with 3\n"), "{stamped}");
    assert_eq!(up.kubectl(&["logs", "crash", "--since=1h", "--limit-bytes=7"]), "leaving");
    let missing = up.kubectl_fails(&["logs", "crash", "-c", "other"]);
    assert!(missing.contains("container other is not valid for pod crash"), "{missing}");
    up.kubectl(&["delete", "pod", "crash", "--timeout=20s"]);
}

fn runs_containers_in_order(up: &Up) {
    up.kubectl_stdin(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: Pod, metadata: {name: several}, spec: {restartPolicy: Never, \
         initContainers: [{name: first, image: coracle.dev/worker:v1, args: ['0']}, {name: side, image: coracle.dev/worker:v1, args: ['3600'], restartPolicy: Always}], \
         containers: [{name: a, image: coracle.dev/hello:v1, args: [a]}, {name: b, image: coracle.dev/hello:v1, args: [b]}]}}",
    );
    up.kubectl(&["wait", "pod/several", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s"]);
    let which = up.kubectl_fails(&["get", "--raw", "/api/v1/namespaces/default/pods/several/log"]);
    assert!(
        which.contains("a container name must be specified for pod several, choose one of: [a b]"),
        "{which}"
    );
    let all = up.kubectl(&["logs", "several", "--all-containers"]);
    for line in ["done", "Hello, a!", "Hello, b!"] {
        assert!(all.contains(line), "{line} in {all}");
    }
}
