//! Many nodes in one process.

use crate::harness::{coracle, text};

#[test]
fn a_thousand_simulated_nodes_run_ten_thousand_pods() {
    let directory = tempfile::TempDir::new().unwrap();
    let report = directory.path().join("report.json");
    let output = coracle()
        .args(["bench", "pods", "--simulated", "--nodes", "1000", "--count", "10000", "--json"])
        .arg(&report)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The scenario ends only when every pod has Succeeded.
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["figures"][0]["value"], 10000.0, "{report}");
    assert_eq!(report["conditions"]["nodes"], "1000", "{report}");
}

#[test]
fn a_daemon_set_comes_up_on_500_simulated_nodes() {
    let output = coracle().args(["bench", "daemonset", "--count", "500"]).output().unwrap();
    // The scenario ends only when every node runs its pod, twice.
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    assert!(report.contains("all replaced"), "{report}");
}
