//! kill -9 of the whole cluster, and what is there afterwards.

use crate::harness::{Up, coracle, has, text};

#[test]
fn everything_acknowledged_survives_kill_9() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&["--nodes", "2"]);
    up.kubectl(&["create", "namespace", "keep"]);
    up.kubectl(&["create", "cm", "a", "--from-literal=k=v", "-nkeep"]);
    up.kubectl(&["label", "node", "node-1", "disk=fast"]);
    up.kubectl(&["run", "stays", "--image=coracle.dev/worker:v1", "-nkeep", "--", "3600"]);
    up.kubectl(&["run", "done", "--image=coracle.dev/worker:v1", "--restart=Never", "-nkeep", "--", "0"]);
    up.kubectl(&["wait", "pod/stays", "-nkeep", "--for=condition=Ready", "--timeout=30s"]);
    up.kubectl(&["wait", "pod/done", "-nkeep", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"]);
    let version = "jsonpath={.metadata.uid} {.metadata.resourceVersion}";
    let before = up.kubectl(&["get", "cm", "a", "-nkeep", "-o", version]);

    up.kill_and_restart();
    assert_eq!(up.kubectl(&["get", "cm", "a", "-nkeep", "-o", version]), before);
    assert!(up.kubectl(&["get", "node", "node-1", "--show-labels"]).contains("disk=fast"));
    // The node restarts what it ran, as after a reboot; what had finished stays finished.
    up.kubectl(&[
        "wait",
        "pod/stays",
        "-nkeep",
        "--for=jsonpath={.status.containerStatuses[0].restartCount}=1",
        "--timeout=30s",
    ]);
    up.kubectl(&["wait", "pod/stays", "-nkeep", "--for=condition=Ready", "--timeout=30s"]);
    let done = up.kubectl(&[
        "get",
        "pod",
        "done",
        "-nkeep",
        "-o",
        "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}",
    ]);
    assert_eq!(done, "Succeeded 0");
    // Revisions go on where they stopped.
    let written = up.kubectl(&["create", "cm", "b", "-nkeep", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let number = |text: &str| text.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(number(&written) > number(&before));
}

#[test]
fn a_directory_in_use_is_refused() {
    let up = Up::durable(&[]);
    let second =
        coracle().args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(up.data_dir()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = text(&second.stderr);
    assert!(stderr.contains("in use by another process") && stderr.lines().count() == 1, "{stderr}");
}
