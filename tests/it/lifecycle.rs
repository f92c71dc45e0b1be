//! The life of a pod with the real kubectl: how it is probed, and how it ends (BEHAVIOURS 9.8 to 9.12).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use coracle::clock::Clock;

use crate::harness::{Up, has};

/// A grace that no test here waits for.
const LONG: i64 = 600;
const CREATE: &[&str] = &["create", "-f", "-"];

/// A pod of one container; with a finalizer, so that it can be looked at when it has ended in deletion.
fn pod(name: &str, grace: i64, container: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, finalizers: [example.com/look]}}, \
         spec: {{terminationGracePeriodSeconds: {grace}, containers: [{{name: main, {container}}}]}}}}"
    )
}

fn get(up: &Up, pod: &str, path: &str) -> String {
    up.kubectl(&["get", "pod", pod, "-o", &format!("jsonpath={{{path}}}")])
}

#[track_caller]
fn wait_for(up: &Up, pod: &str, path: &str, value: &str) {
    let pod_name = format!("pod/{pod}");
    up.kubectl(&["wait", &pod_name, &format!("--for=jsonpath={{{path}}}={value}"), "--timeout=50s"]);
}

fn ready(up: &Up, pod: &str) {
    wait_for(up, pod, ".status.conditions[?(@.type==\"Ready\")].status", "True");
}

/// Waits until the container of a pod in deletion has ended, and says with which code; then lets the pod go.
fn ended(up: &Up, pod: &str) -> String {
    let state = ".status.containerStatuses[0].state.terminated";
    wait_for(
        up,
        pod,
        &format!("{state}.containerID"),
        &get(up, pod, ".status.containerStatuses[0].containerID"),
    );
    let code = get(up, pod, &format!("{state}.exitCode"));
    up.kubectl(&["patch", "pod", pod, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    up.kubectl(&["wait", &format!("pod/{pod}"), "--for=delete", "--timeout=50s"]);
    code
}

fn events(up: &Up, pod: &str) -> String {
    let field = format!("--field-selector=involvedObject.name={pod}");
    up.kubectl(&[
        "get",
        "events",
        &field,
        "-o",
        "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
    ])
}

/// Waits until an event of the pod says so.
#[track_caller]
fn wait_for_event(up: &Up, pod: &str, text: &str) {
    watch_events(up, pod, "{.reason}: {.message}", |line| line.contains(text));
}

/// Waits until a line about an event of the pod, in this template, is as wanted.
#[track_caller]
fn watch_events(up: &Up, pod: &str, template: &str, wanted: impl Fn(&str) -> bool) {
    let field = format!("--field-selector=involvedObject.name={pod}");
    let template = format!("jsonpath={template}{{\"\\n\"}}");
    let mut watch = up
        .kubectl_command(&["get", "events", &field, "--watch", "-o", &template])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen = Vec::new();
    let found = lines.inspect(|line| seen.push(line.clone())).any(|line| wanted(&line));
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(found, "not among {seen:#?}");
}

/// Stands in for a guest that serves HTTP on the pod's address: answers every request with a status.
struct Web {
    status: Arc<AtomicU16>,
}

impl Web {
    fn serve(ip: &str, port: u16) -> Self {
        let listener = TcpListener::bind((ip, port)).unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let answer = Arc::clone(&status);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    request.push(byte[0]);
                }
                let status = answer.load(Ordering::SeqCst);
                write!(stream, "HTTP/1.1 {status} Any\r\nContent-Length: 0\r\n\r\n").ok();
            }
        });
        Self { status }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// A port that is free on loopback at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn pods_are_probed_and_stopped() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    for test in [
        ends_within_its_grace,
        is_killed_when_the_grace_is_over,
        cannot_hear_and_ends_at_once,
        runs_its_hook_first,
        is_ready_while_its_probe_passes,
        is_ready_when_its_guest_serves,
        runs_commands_beside_it,
        is_restarted_when_its_probe_fails,
        waits_for_readiness_gates,
        stops_sidecars_of_a_job,
        leaves_a_message,
        is_over_at_its_deadline,
    ] {
        test(&up);
    }
}

// BEHAVIOURS 9.10.
fn ends_within_its_grace(up: &Up) {
    up.kubectl_stdin(CREATE, &pod("hears", LONG, "image: coracle.dev/finish:v1, args: ['0.05']"));
    ready(up, "hears");
    let mut logs = up.kubectl_command(&["logs", "-f", "hears"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "working");
    up.kubectl(&["delete", "pod", "hears", "--wait=false"]);
    let asked = lines.next().unwrap();
    assert!(
        asked.starts_with("asked to stop within 5") || asked.starts_with("asked to stop within 600.0 s"),
        "{asked}"
    );
    assert_eq!(lines.next().unwrap(), "finished");
    assert_eq!(lines.next(), None);
    assert!(logs.wait().unwrap().success());
    assert_eq!(ended(up, "hears"), "0");
    assert!(events(up, "hears").contains("Killing: Stopping container main"));
}

fn is_killed_when_the_grace_is_over(up: &Up) {
    up.kubectl_stdin(CREATE, &pod("ignores", LONG, "image: coracle.dev/finish:v1, args: ['0.01', ignore]"));
    ready(up, "ignores");
    up.kubectl(&["delete", "pod", "ignores", "--wait=false"]);
    let mut logs = up.kubectl_command(&["logs", "-f", "ignores"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(logs.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.into_iter().any(|line| line == "going on"));
    logs.kill().unwrap();
    logs.wait().unwrap();
    // It would have ten minutes; a second deletion shortens that.
    assert_eq!(get(up, "ignores", ".status.containerStatuses[0].state.terminated"), "");
    up.kubectl(&["delete", "pod", "ignores", "--wait=false", "--grace-period=1"]);
    assert_eq!(ended(up, "ignores"), "137");
    // By force the object goes at once, and the node still stops it.
    up.kubectl_stdin(CREATE, &pod("forced", LONG, "image: coracle.dev/finish:v1, args: ['0.01', ignore]"));
    ready(up, "forced");
    up.kubectl(&["patch", "pod", "forced", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    let forced =
        up.kubectl_output(&["delete", "pod", "forced", "--force", "--grace-period=0", "--wait=false"]);
    assert!(forced.status.success(), "{forced:?}");
    assert!(up.kubectl_fails(&["get", "pod", "forced"]).contains("not found"));
}

fn cannot_hear_and_ends_at_once(up: &Up) {
    up.kubectl_stdin(CREATE, &pod("deaf", LONG, "image: coracle.dev/worker:v1, args: ['3600']"));
    ready(up, "deaf");
    up.kubectl(&["delete", "pod", "deaf", "--wait=false"]);
    assert_eq!(ended(up, "deaf"), "137");
}

fn runs_its_hook_first(up: &Up) {
    let sleeps = "lifecycle: {preStop: {sleep: {seconds: 2}}, postStart: {sleep: {seconds: 1}}}";
    up.kubectl_stdin(
        CREATE,
        &pod("hooks", LONG, &format!("image: coracle.dev/worker:v1, args: ['3600'], {sleeps}")),
    );
    ready(up, "hooks");
    let clock = Clock::real();
    up.kubectl(&["delete", "pod", "hooks", "--wait=false"]);
    assert_eq!(ended(up, "hooks"), "137");
    assert!(clock.monotonic() >= Duration::from_secs(2), "{:?}", clock.monotonic());

    // Hooks that fail: after the start for good, before the stop as far as it matters.
    let port = free_port();
    let refused = format!("{{httpGet: {{port: {port}}}}}");
    let container =
        format!("image: coracle.dev/worker:v1, args: ['3600'], lifecycle: {{postStart: {refused}}}");
    up.kubectl_stdin(CREATE, &pod("unhooked", LONG, &container));
    wait_for_event(up, "unhooked", "FailedPostStartHook: PostStartHook failed");
    wait_for(up, "unhooked", ".status.containerStatuses[0].state.waiting.reason", "CrashLoopBackOff");
    up.kubectl(&["delete", "pod", "unhooked", "--wait=false"]);
    ended(up, "unhooked");
    let container =
        format!("image: coracle.dev/worker:v1, args: ['3600'], lifecycle: {{preStop: {refused}}}");
    up.kubectl_stdin(CREATE, &pod("unheard", LONG, &container));
    ready(up, "unheard");
    up.kubectl(&["delete", "pod", "unheard", "--wait=false"]);
    assert_eq!(ended(up, "unheard"), "137");
    wait_for_event(up, "unheard", "FailedPreStopHook: PreStopHook failed");
}

// BEHAVIOURS 9.5 and 9.9.
fn is_ready_while_its_probe_passes(up: &Up) {
    let port = free_port();
    let probe = format!(
        "ports: [{{name: web, containerPort: {port}}}], \
         readinessProbe: {{httpGet: {{port: web, path: /healthz}}, periodSeconds: 1, failureThreshold: 1}}"
    );
    up.kubectl_stdin(
        CREATE,
        &pod("probed", LONG, &format!("image: coracle.dev/worker:v1, args: ['3600'], {probe}")),
    );
    wait_for(up, "probed", ".status.containerStatuses[0].started", "true");
    let ip = get(up, "probed", ".status.podIP");
    wait_for_event(
        up,
        "probed",
        &format!(
            "Unhealthy: Readiness probe failed: Get \"http://{ip}:{port}/healthz\": dial tcp {ip}:{port}: connect: connection refused"
        ),
    );
    assert_eq!(get(up, "probed", ".status.containerStatuses[0].ready"), "false");
    let condition = |what: &str| format!(".status.conditions[?(@.type==\"ContainersReady\")].{what}");
    assert_eq!(get(up, "probed", &condition("message")), "containers with unready status: [main]");
    let web = Web::serve(&ip, port);
    ready(up, "probed");
    web.answers(503);
    wait_for(up, "probed", ".status.conditions[?(@.type==\"Ready\")].status", "False");
    wait_for_event(up, "probed", "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503");
    web.answers(399);
    ready(up, "probed");
    assert_eq!(get(up, "probed", ".status.containerStatuses[0].restartCount"), "0");
    up.kubectl(&["delete", "pod", "probed", "--wait=false"]);
    ended(up, "probed");
}

fn is_ready_when_its_guest_serves(up: &Up) {
    let port = free_port();
    let probes = format!(
        "startupProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1, failureThreshold: 600}}, \
         readinessProbe: {{httpGet: {{port: {port}, path: /health}}, periodSeconds: 1, failureThreshold: 1}}"
    );
    up.kubectl_stdin(
        CREATE,
        &pod("web", LONG, &format!("image: coracle.dev/http:v1, args: ['{port}'], {probes}")),
    );
    ready(up, "web");
    let mut stream = TcpStream::connect((&*get(up, "web", ".status.podIP"), port)).unwrap();
    write!(stream, "POST /fail HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(stream);
    wait_for_event(up, "web", "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 500");
    wait_for(up, "web", ".status.conditions[?(@.type==\"Ready\")].status", "False");
    up.kubectl(&["delete", "pod", "web", "--wait=false"]);
    ended(up, "web");
}

// BEHAVIOURS 9.9 and 9.12.
fn runs_commands_beside_it(up: &Up) {
    let with = |name: &str, container: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{volumes: [{{name: shared, emptyDir: {{}}}}], \
             containers: [{{name: main, image: coracle.dev/worker:v1, args: ['3600'], \
             volumeMounts: [{{name: shared, mountPath: /shared}}], {container}}}]}}}}"
        )
    };
    let touched = "lifecycle: {postStart: {exec: {command: [touch, /shared/there]}}}, \
                   readinessProbe: {exec: {command: [cat, /shared/there]}, periodSeconds: 1, timeoutSeconds: 60}";
    up.kubectl_stdin(CREATE, &with("commands", touched));
    ready(up, "commands");
    let missing = "lifecycle: {preStop: {exec: {command: ['false']}}}, \
                   readinessProbe: {exec: {command: [cat, /shared/there]}, periodSeconds: 1, timeoutSeconds: 60}";
    up.kubectl_stdin(CREATE, &with("fails", missing));
    wait_for_event(
        up,
        "fails",
        "Unhealthy: Readiness probe failed: /shared/there: No such file or directory",
    );
    // 9.14: what happens again is one event.
    let count = "{.reason} {.type} {.count}";
    watch_events(up, "fails", count, |line| {
        line.strip_prefix("Unhealthy Warning ").is_some_and(|count| count.parse::<u32>().unwrap() > 1)
    });
    for reason in ["Scheduled: ", "Created: ", "Started: "] {
        assert_eq!(events(up, "fails").matches(reason).count(), 1, "{reason}");
    }
    up.kubectl(&["delete", "pod", "commands", "fails", "--timeout=50s"]);
    wait_for_event(up, "fails", "FailedPreStopHook: PreStopHook failed");
}

fn is_restarted_when_its_probe_fails(up: &Up) {
    let port = free_port();
    let probes = format!(
        "startupProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1, failureThreshold: 600}}, \
         livenessProbe: {{httpGet: {{port: {port}}}, periodSeconds: 1, failureThreshold: 2}}"
    );
    let container = format!("image: coracle.dev/finish:v1, args: ['0.05'], {probes}");
    up.kubectl_stdin(CREATE, &pod("live", LONG, &container));
    wait_for_event(up, "live", "Unhealthy: Startup probe failed: dial tcp");
    assert_eq!(get(up, "live", ".status.containerStatuses[0].started"), "false");
    let web = Web::serve(&get(up, "live", ".status.podIP"), port);
    wait_for(up, "live", ".status.containerStatuses[0].started", "true");
    web.answers(500);
    wait_for_event(up, "live", "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500");
    wait_for_event(up, "live", "Killing: Container main failed liveness probe, will be restarted");
    web.answers(200);
    wait_for(up, "live", ".status.containerStatuses[0].lastState.terminated.exitCode", "0");
    assert!(up.kubectl(&["logs", "live", "--previous"]).ends_with("finished\n"), "it was asked to stop");
    wait_for(up, "live", ".status.containerStatuses[0].started", "true");
    up.kubectl(&["delete", "pod", "live", "--wait=false"]);
    ended(up, "live");
}

fn waits_for_readiness_gates(up: &Up) {
    up.kubectl_stdin(
        CREATE,
        "{apiVersion: v1, kind: Pod, metadata: {name: gated}, spec: {readinessGates: [{conditionType: example.com/open}], \
         containers: [{name: main, image: coracle.dev/worker:v1, args: ['3600']}]}}",
    );
    wait_for(up, "gated", ".status.conditions[?(@.type==\"ContainersReady\")].status", "True");
    let reason = ".status.conditions[?(@.type==\"Ready\")].reason";
    assert_eq!(get(up, "gated", reason), "ReadinessGatesNotReady");
    let open = r#"{"status":{"conditions":[{"type":"example.com/open","status":"True"}]}}"#;
    up.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", open]);
    ready(up, "gated");
    up.kubectl(&["delete", "pod", "gated", "--timeout=50s"]);
}

// BEHAVIOURS 9.8.
fn stops_sidecars_of_a_job(up: &Up) {
    up.kubectl_stdin(
        CREATE,
        "{apiVersion: batch/v1, kind: Job, metadata: {name: aided}, spec: {template: {spec: {restartPolicy: Never, \
         initContainers: [{name: aid, image: coracle.dev/finish:v1, args: ['0.05'], restartPolicy: Always}], \
         containers: [{name: main, image: coracle.dev/hello:v1}]}}}}",
    );
    up.kubectl(&["wait", "job/aided", "--for=condition=Complete", "--timeout=50s"]);
    let aid = "jsonpath={.items[0].status.initContainerStatuses[0].state.terminated.exitCode}";
    assert_eq!(up.kubectl(&["get", "pods", "-l", "batch.kubernetes.io/job-name=aided", "-o", aid]), "0");
    let logs = up.kubectl(&["logs", "job/aided", "-c", "aid"]);
    assert!(logs.starts_with("working\n") && logs.ends_with("finished\n"), "{logs}");
}

// BEHAVIOURS 9.13.
fn leaves_a_message(up: &Up) {
    for (name, policy, script, code, message) in [
        ("written", "File", "echo bye > /dev/termination-log; echo out; exit 3", "3", "bye\n"),
        ("silent", "File", "echo out; exit 3", "3", ""),
        ("logged", "FallbackToLogsOnError", "echo one; echo two; exit 3", "3", "one\ntwo\n"),
        ("both", "FallbackToLogsOnError", "echo bye > /dev/termination-log; echo out; exit 3", "3", "bye\n"),
        ("well", "FallbackToLogsOnError", "echo one", "0", ""),
    ] {
        up.kubectl_stdin(
            CREATE,
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, containers: [{{name: main, \
                 image: coracle.dev/toolbox:v1, args: [sh, -c, '{script}'], terminationMessagePolicy: {policy}}}]}}}}"
            ),
        );
        let state = ".status.containerStatuses[0].state.terminated";
        wait_for(up, name, &format!("{state}.exitCode"), code);
        assert_eq!(get(up, name, &format!("{state}.message")), message, "{name}");
    }
}

// BEHAVIOURS 9.11.
fn is_over_at_its_deadline(up: &Up) {
    up.kubectl_stdin(
        CREATE,
        "{apiVersion: v1, kind: Pod, metadata: {name: limited}, spec: {activeDeadlineSeconds: 2, \
         containers: [{name: main, image: coracle.dev/finish:v1, args: ['0.05']}]}}",
    );
    wait_for(up, "limited", ".status.reason", "DeadlineExceeded");
    assert_eq!(get(up, "limited", ".status.phase"), "Failed");
    let message = "Pod was active on the node longer than the specified deadline";
    assert_eq!(get(up, "limited", ".status.message"), message);
    assert_eq!(
        get(up, "limited", ".status.containerStatuses[0].state.terminated.exitCode"),
        "0",
        "asked first"
    );
}

#[test]
fn a_process_that_is_told_to_end_gives_its_guests_time() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::ephemeral(&["--nodes", "2"]);
    up.kubectl(&["run", "quick", "--image=coracle.dev/finish:v1", "--", "0.05"]);
    up.kubectl(&["run", "slow", "--image=coracle.dev/finish:v1", "--", "0.05", "ignore"]);
    ready(&up, "quick");
    ready(&up, "slow");
    // Five seconds, and no more, though the pods have thirty.
    let clock = Clock::real();
    up.stop();
    assert!(clock.monotonic() >= Duration::from_secs(4), "{:?}", clock.monotonic());
    assert!(clock.monotonic() < Duration::from_secs(30), "{:?}", clock.monotonic());
}
