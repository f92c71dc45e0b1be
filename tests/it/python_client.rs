//! The Python client, unmodified, with the cluster's kubeconfig: `pods/exec` by `v4.channel.k8s.io`
//! (BEHAVIOURS 8.7).

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Up, has, has_python_module, text};

/// Runs commands in the pod `p`; prints what came of them as JSON.
const PROGRAM: &str = r#"
import json, sys
from kubernetes import client, config
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
seconds = int(sys.argv[2])
api = client.CoreV1Api()

def run(command, text=None, **more):
    ws = stream(api.connect_get_namespaced_pod_exec, "p", "default", command=command, stdin=text is not None,
                stdout=True, stderr=True, tty=False, _preload_content=False, **more)
    if text is not None:
        ws.write_stdin(text)
    ws.run_forever(timeout=seconds)
    found = [ws.read_stdout(timeout=0), ws.read_stderr(timeout=0), ws.returncode]
    ws.close()
    return found

whole = stream(api.connect_get_namespaced_pod_exec, "p", "default", command=["echo", "whole"], stdin=False,
               stdout=True, stderr=True, tty=False, _request_timeout=seconds)
try:
    stream(api.connect_get_namespaced_pod_exec, "p", "default", container="none", command=["ls"], stdout=True)
    refused = None
except client.exceptions.ApiException as error:
    refused = "Handshake status 400" in str(error.reason)
print(json.dumps({
    "phases": [pod.status.phase for pod in api.list_namespaced_pod("default").items],
    "asked": run(["sh", "-c", "read word; echo got $word; echo and err >&2; exit 3"], "hello\n"),
    "large": [len(run(["head", "-c", "300000", "/dev/noise/a"])[0])],
    "fine": run(["true"]),
    "absent": run(["bash"])[2],
    "whole": whole,
    "refused": refused,
}))
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: main
    image: coracle.dev/worker:v1
    args: ["3600"]
    volumeMounts: [{name: noise, mountPath: /dev/noise}]
  volumes: [{name: noise, emptyDir: {}}]
"#;

/// BEHAVIOURS 8.7.
#[test]
fn exec_has_input_output_and_a_return_code() {
    if !has("kubectl") || !has("python3") || !has_python_module("kubernetes") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], POD);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    let fill = "for i in 1 2 3 4 5 6 7 8; do cat a a a a a a a a > b; mv b a; done";
    up.kubectl(&["exec", "p", "--", "sh", "-c", &format!("cd /dev/noise; echo x > a; {fill}")]);
    let output = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(&up.kubeconfig)
        .arg(DEADLINE.as_secs().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        found,
        json!({
            "phases": ["Running"],
            "asked": ["got hello\n", "and err\n", 3],
            "large": [300_000],
            "fine": ["", "", 0],
            "absent": 127,
            "whole": "whole\n",
            "refused": true,
        })
    );
}
