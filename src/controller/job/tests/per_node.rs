//! Jobs with one pod for each node.

use super::*;

fn per_node(annotations: Value, status: Value) -> Job {
    let mut job = job(json!({"completionMode": "PerNode", "backoffLimit": 9}), status);
    job.metadata.annotations = serde_json::from_value(annotations).unwrap();
    job
}

/// A pod on a node, or pinned to it.
fn on(name: &str, phase: &str, node: &str) -> Pod {
    pod(name, phase, json!({"spec": {"nodeName": node}}))
}

fn pinned(name: &str, node: &str) -> Pod {
    let mut pod = pod(name, "Pending", json!({"spec": {"nodeName": null}}));
    eligibility::pin(pod.spec.as_mut().unwrap(), node);
    pod
}

/// What is decided with these nodes, among which `~name` keeps only new pods away: the status and what
/// happens to pods, then the annotations as they are to be.
#[track_caller]
fn check(job: &Job, nodes: &str, pods: &[Pod], expected: &[&str]) {
    let nodes = nodes.split_whitespace().map(|name| match name.strip_prefix('~') {
        Some(name) => (name.to_owned(), Verdict::Stays),
        None => (name.to_owned(), Verdict::Runs),
    });
    let seen = sync::Seen { job, pods: pods.iter().collect(), nodes: nodes.collect() };
    let plan = sync::decide(&seen, Timestamp::from_second(NOW).unwrap());
    let annotations = plan.status.as_ref().and_then(|job| job.metadata.annotations.clone());
    let mut lines = lines(plan);
    let nodes = annotations.into_iter().flatten().filter(|(name, _)| name.starts_with("coracle.dev/nodes"));
    lines.extend(
        nodes.map(|(name, value)| format!("{}={value}", name.trim_start_matches("coracle.dev/nodes-"))),
    );
    assert_eq!(lines, expected);
}

#[test]
fn every_node_has_its_turn_once() {
    let fresh = per_node(json!({}), json!({}));
    check(&fresh, "x y", &[], &["status active=2", "create x y"]);
    check(&fresh, "", &[], &["status"]);
    let active = |n: i32| with(started(), json!({"active": n}));
    // A pod counts for its node when it runs, and before, when it is only pinned.
    check(&per_node(json!({}), active(2)), "x y", &[on("p", "Running", "x"), pinned("q", "y")], &[]);
    let pods = [on("p", "Succeeded", "x"), on("q", "Running", "y")];
    let expected = ["status active=1 uncounted+p", "release p", "succeeded=x"];
    check(&per_node(json!({}), active(2)), "x y", &pods, &expected);
    // One that comes before the end is served too.
    let one = json!({"coracle.dev/nodes-succeeded": "x"});
    let expected = ["status active=2", "create z", "succeeded=x"];
    check(&per_node(one.clone(), active(1)), "x y z", &[on("q", "Running", "y")], &expected);
    // The end comes with the last success, though nodes that are gone had theirs.
    let expected =
        ["status uncounted+q SuccessCriteriaMet=True CompletionsReached", "release q", "succeeded=x,y"];
    check(&per_node(one, active(1)), "y", &[on("q", "Succeeded", "y")], &expected);
}

#[test]
fn failures_are_told_by_node_and_tried_again() {
    let active = with(started(), json!({"active": 1}));
    let failed = pod("p", "Failed", with(exited(1, ""), json!({"spec": {"nodeName": "x"}})));
    let expected = ["status uncounted-p", "release p", "again in 5 s", "failed=x"];
    check(&per_node(json!({}), active.clone()), "x", std::slice::from_ref(&failed), &expected);
    // The node's last word counts: a success after the failure, not a failure after the success.
    let before = json!({"coracle.dev/nodes-failed": "x,y"});
    let expected = [
        "status uncounted+q SuccessCriteriaMet=True CompletionsReached",
        "release q",
        "failed=y",
        "succeeded=x",
    ];
    check(&per_node(before, active.clone()), "x", &[on("q", "Succeeded", "x")], &expected);
    let before = json!({"coracle.dev/nodes-succeeded": "x"});
    let expected = ["status uncounted-p", "release p", "again in 5 s", "succeeded=x"];
    check(&per_node(before, active), "x y", &[failed], &expected);
}

#[test]
fn pods_follow_what_nodes_say() {
    let active = |n: i32| with(started(), json!({"active": n}));
    let job = per_node(json!({}), active(2));
    // Twins, and pods on nodes that are not the Job's any more.
    let pods = [on("p", "Running", "x"), pinned("q", "x"), on("r", "Running", "gone")];
    check(&job, "x", &pods, &["status active=1 terminating=2", "drop q r"]);
    // A taint that keeps new pods away lets those that are there end, and is not waited for otherwise.
    let job = per_node(json!({}), active(1));
    check(&job, "x ~y", &[on("p", "Running", "x")], &[]);
    check(&job, "~x ~y", &[on("p", "Running", "x")], &[]);
    let one = json!({"coracle.dev/nodes-succeeded": "x"});
    check(&per_node(one, active(1)), "x ~y", &[on("p", "Running", "y")], &[]);
}

#[test]
fn later_nodes_keep_a_job_going() {
    let annotations = json!({"coracle.dev/later-nodes": "run", "coracle.dev/nodes-succeeded": "x"});
    let job = per_node(annotations, with(started(), json!({"succeeded": 1})));
    check(&job, "x", &[], &[]);
    check(&job, "x y", &[], &["status active=1 succeeded=1", "create y", "succeeded=x"]);
}
