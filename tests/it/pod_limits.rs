//! Limits of whole pods: all containers draw on them together.

use crate::harness::{Up, has};

/// Each holds as much; two are more than the pod may have.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  restartPolicy: Never
  resources: {limits: {memory: 64Mi}}
  containers:
  - {name: holds, image: 'coracle.dev/load:v1', args: [memory, '40']}
  - {name: late, image: 'coracle.dev/load:v1', args: [memory, '40']}
---
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  restartPolicy: Never
  resources: {limits: {memory: 64Mi, cpu: 500m}}
  containers:
  - {name: holds, image: 'coracle.dev/load:v1', args: [memory, '40']}
"#;

/// 9.3: the class too is the pod's own.
#[test]
fn memory_is_limited_over_all_containers_of_a_pod() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], PODS);
    let reasons = "{.status.containerStatuses[*].state.terminated.reason}";
    up.kubectl(&["wait", &format!("--for=jsonpath={reasons}=OOMKilled"), "pod/two", "--timeout=60s"]);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/one", "--timeout=60s"]);
    let running = "-o=jsonpath={.status.containerStatuses[*].state.running}";
    let of_two = up.kubectl(&["get", "pod", "two", running]);
    assert_eq!(of_two.matches("startedAt").count(), 1, "the other goes on: {of_two}");
    let class = "-o=jsonpath={.items[*].status.qosClass} {.items[*].spec.resources.requests}";
    let shown = up.kubectl(&["get", "pods", class]);
    assert_eq!(shown, r#"Guaranteed Burstable {"cpu":"500m","memory":"64Mi"} {"memory":"64Mi"}"#);
    // What its containers ask for together is what it asks for, which is more than it may have.
    let more = PODS.replace("40']}", "40'], resources: {requests: {memory: 48Mi}}}");
    let refused = up.kubectl_stdin_fails(&["create", "-f", "-"], &more.replace("name: two", "name: three"));
    assert!(refused.contains("\"96Mi\": must be less than or equal to memory limit of 64Mi"), "{refused}");
}
