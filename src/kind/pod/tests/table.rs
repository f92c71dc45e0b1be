use super::KIND;
use crate::kind::testing::{cells, check_cells};

/// Status and restarts of a pod with the containers `a`, `b` and the given status (and more).
#[track_caller]
fn check(status: &str, expected: [&str; 3]) {
    check_pod("{containers: [{name: a}, {name: b}]}", status, "", expected);
}

#[track_caller]
fn check_pod(spec: &str, status: &str, metadata: &str, expected: [&str; 3]) {
    let pod = format!("{{metadata: {{name: p{metadata}}}, spec: {spec}, status: {{{status}}}}}");
    assert_eq!(cells(&KIND, &pod)[1..4], expected, "{status}");
}

#[test]
fn every_column_has_its_cell() {
    check_cells(
        &KIND,
        "
        metadata: {name: web, creationTimestamp: 2025-01-01T23:54:48Z}
        spec: {nodeName: n1, containers: [{name: a}], readinessGates: [{conditionType: x/a}, {conditionType: x/b}]}
        status:
          phase: Running
          podIPs: [{ip: 10.0.0.7}]
          nominatedNodeName: n2
          conditions: [{type: x/a, status: 'True'}]
          containerStatuses: [{name: a, ready: true, restartCount: 0, image: i, imageID: i, state: {running: {}}}]
        ",
        &["web", "1/1", "Running", "0", "5m12s", "10.0.0.7", "n1", "n2", "1/2"],
    );
    check_cells(
        &KIND,
        "{metadata: {name: web}, spec: {containers: [{name: a}]}, status: {phase: Pending}}",
        &["web", "0/1", "Pending", "0", "<unknown>", "<none>", "<none>", "<none>", "<none>"],
    );
}

fn container(name: &str, state: &str, more: &str) -> String {
    format!("{{name: {name}, image: i, imageID: i, ready: false, restartCount: 0, state: {{{state}}}{more}}}")
}

fn running(name: &str) -> String {
    container(name, "running: {}", "").replace("ready: false", "ready: true")
}

#[test]
fn the_status_tells_of_the_containers() {
    let two = |a: &str, b: &str| format!("phase: Running, containerStatuses: [{a}, {b}]");
    check("phase: Pending", ["0/2", "Pending", "0"]);
    check("phase: Failed, reason: Evicted", ["0/2", "Evicted", "0"]);
    check(&two(&running("a"), &running("b")), ["2/2", "Running", "0"]);
    // The first container's reason wins.
    let creating = container("a", "waiting: {reason: ContainerCreating}", "");
    check(
        &two(&creating, &container("b", "waiting: {reason: ErrImagePull}", "")),
        ["0/2", "ContainerCreating", "0"],
    );
    check(
        &two(&running("a"), &container("b", "waiting: {reason: CrashLoopBackOff}", "")),
        ["1/2", "CrashLoopBackOff", "0"],
    );
    let ended = |what: &str| container("a", &format!("terminated: {{{what}}}"), "");
    check(&two(&ended("exitCode: 1, reason: Error"), &running("b")), ["1/2", "Error", "0"]);
    check(&two(&ended("exitCode: 3"), &running("b")), ["1/2", "ExitCode:3", "0"]);
    check(&two(&ended("exitCode: 137, signal: 9"), &running("b")), ["1/2", "Signal:9", "0"]);
    check(&two(&ended("exitCode: 137, reason: OOMKilled"), &running("b")), ["1/2", "OOMKilled", "0"]);
    // One is done while another runs.
    let done = ended("exitCode: 0, reason: Completed");
    check(&two(&done, &running("b")), ["1/2", "NotReady", "0"]);
    let ready = "conditions: [{type: Ready, status: 'True'}], ";
    check(&format!("{ready}{}", two(&done, &running("b"))), ["1/2", "Running", "0"]);
    check(&two(&done, &done.replace("name: a", "name: b")), ["0/2", "Completed", "0"]);
    check(
        "phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]",
        ["0/2", "SchedulingGated", "0"],
    );
}

#[test]
fn restarts_are_counted_and_dated() {
    let restarted = |name: &str, count: u32, ended: &str| {
        running(name).replace(
            "restartCount: 0",
            &format!(
                "restartCount: {count}, lastState: {{terminated: {{exitCode: 1, finishedAt: '{ended}'}}}}"
            ),
        )
    };
    let a = restarted("a", 2, "2025-01-01T23:59:50Z");
    let b = restarted("b", 1, "2025-01-01T20:00:00Z");
    check(&format!("phase: Running, containerStatuses: [{a}, {b}]"), ["2/2", "Running", "3 (10s ago)"]);
    check(
        &format!(
            "phase: Running, containerStatuses: [{}]",
            running("a").replace("restartCount: 0", "restartCount: 3")
        ),
        ["1/2", "Running", "3"],
    );
}

#[test]
fn initialization_is_shown_step_by_step() {
    const SPEC: &str = "{containers: [{name: a}], initContainers: [{name: x}, {name: z}]}";
    let check = |first: &str, second: &str, expected: [&str; 3]| {
        let inits = [container("x", first, ""), container("z", second, "")].join(", ");
        let waiting = container("a", "waiting: {reason: PodInitializing}", "");
        let status =
            format!("phase: Pending, initContainerStatuses: [{inits}], containerStatuses: [{waiting}]");
        check_pod(SPEC, &status, "", expected);
    };
    let (initializing, done) =
        ("waiting: {reason: PodInitializing}", "terminated: {exitCode: 0, reason: Completed}");
    check(initializing, initializing, ["0/1", "Init:0/2", "0"]);
    check("running: {}", initializing, ["0/1", "Init:0/2", "0"]);
    check(done, "running: {}", ["0/1", "Init:1/2", "0"]);
    check("terminated: {exitCode: 1, reason: Error}", initializing, ["0/1", "Init:Error", "0"]);
    check("terminated: {exitCode: 1}", initializing, ["0/1", "Init:ExitCode:1", "0"]);
    check("terminated: {exitCode: 1, signal: 9}", initializing, ["0/1", "Init:Signal:9", "0"]);
    check(done, "waiting: {reason: CrashLoopBackOff}", ["0/1", "Init:CrashLoopBackOff", "0"]);
    check(done, done, ["0/1", "PodInitializing", "0"]);
}

#[test]
fn sidecars_count_as_containers() {
    const SPEC: &str =
        "{containers: [{name: a}], initContainers: [{name: s, restartPolicy: Always}, {name: z}]}";
    let sidecar = running("s").replace("restartCount: 0", "restartCount: 2, started: true");
    let check = |sidecar: &str, second: &str, expected: [&str; 3]| {
        let second = container("z", second, "");
        let status = format!(
            "phase: Running, initContainerStatuses: [{sidecar}, {second}], containerStatuses: [{}]",
            running("a")
        );
        check_pod(SPEC, &status, "", expected);
    };
    check(&sidecar, "terminated: {exitCode: 0}", ["2/2", "Running", "2"]);
    check(&sidecar, "running: {}", ["1/2", "Init:1/2", "2"]);
    check(&sidecar.replace("started: true", "started: false"), "waiting: {}", ["0/2", "Init:0/2", "2"]);
}

#[test]
fn deletion_shows_until_the_end() {
    const SPEC: &str = "{containers: [{name: a}]}";
    let deleted = ", deletionTimestamp: 2025-01-01T00:00:00Z";
    check_pod(SPEC, "phase: Running", deleted, ["0/1", "Terminating", "0"]);
    check_pod(SPEC, "phase: Succeeded", deleted, ["0/1", "Succeeded", "0"]);
    check_pod(SPEC, "phase: Running, reason: NodeLost", deleted, ["0/1", "Unknown", "0"]);
}
