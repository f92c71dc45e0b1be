//! Pods whose images are handlers of HTTP requests, with the real kubectl and curl.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use coracle::guests;

use crate::harness::{DEADLINE, Up, has, text};

/// The fixture `handler`, with a ConfigMap, a limit, and a neighbour that is a command.
const PODS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {greeting: good morning}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations: {coracle.dev/http-instances: "pooled:2", coracle.dev/http-access-log: "true"}
spec:
  terminationGracePeriodSeconds: 50
  containers:
  - name: main
    image: handler:v1
    args: [serving, you]
    env: [{name: COLOR, value: green}]
    ports: [{name: web, containerPort: 8088}]
    readinessProbe: {httpGet: {path: /status/200, port: web}, periodSeconds: 1}
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: config, mountPath: /etc/config}]
  - name: other
    image: coracle.dev/worker:v1
    args: ["3600"]
  volumes: [{name: config, configMap: {name: config}}]
"#;

fn up() -> Up {
    let up = Up::durable(&[]);
    let file = up.scratch().join("handler.wasm");
    std::fs::write(&file, guests::fixture("handler").unwrap()).unwrap();
    up.import(&file, "handler:v1");
    up
}

fn ip(up: &Up, pod: &str) -> String {
    up.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=50s"]);
    up.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

fn curl_command(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    let deadline = DEADLINE.as_secs().to_string();
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", &deadline]).args(arguments);
    command.stdin(Stdio::null());
    command
}

fn curl(arguments: &[&str]) -> Output {
    curl_command(arguments).output().unwrap()
}

/// What curl prints; fails the test if curl fails.
#[track_caller]
fn ask(arguments: &[&str]) -> String {
    let output = curl(arguments);
    assert!(output.status.success(), "curl {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout)
}

/// A request under way, of which the first line of the answer is here.
struct UnderWay {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl UnderWay {
    fn begin(arguments: &[&str]) -> Self {
        let mut child = curl_command(arguments).arg("--no-buffer").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "line 0");
        Self { child, lines }
    }

    /// The rest of the answer's lines.
    fn finish(mut self) -> Vec<String> {
        let lines = self.lines.map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        lines
    }
}

#[test]
fn a_handler_is_a_container_like_others() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let up = up();
    up.kubectl_stdin(&["apply", "-f", "-"], PODS);
    let ip = ip(&up, "web");
    let url = |path: &str| format!("http://{ip}:8088{path}");
    assert_eq!(ask(&[&url("/env/COLOR")]), "green");
    assert_eq!(ask(&[&url("/env/HOSTNAME")]), "web");
    assert!(ask(&[&url("/args")]).ends_with("serving you"));
    assert_eq!(ask(&[&url("/file/etc/config/greeting")]), "good morning");
    up.kubectl(&["patch", "configmap", "config", "-p", r#"{"data":{"greeting":"good night"}}"#]);
    for _ in 0..1_000 {
        if ask(&[&url("/file/etc/config/greeting")]) == "good night" {
            break;
        }
    }
    assert_eq!(ask(&[&url("/file/etc/config/greeting")]), "good night");
    // HTTP/2 from the first byte, by an upgrade it is not asked for; and trailers.
    let h2 = ["--http2-prior-knowledge", "--write-out", "%{http_version}"];
    assert_eq!(ask(&[&h2[..], &[&url("/env/COLOR")]].concat()), "green2");
    let trailers = ask(&["--include", "--raw", &url("/trailers")]);
    assert!(trailers.contains("with trailers"), "{trailers}");
    let big = ask(&["--output", "/dev/null", "--write-out", "%{size_download}", &url("/big/20000000")]);
    assert_eq!(big, "20000000");
    // A trap, and too much memory, are the request's alone.
    let code = |path: &str| ask(&["--output", "/dev/null", "--write-out", "%{http_code}", &url(path)]);
    assert_eq!((code("/trap"), code("/memory/100"), code("/")), ("500".into(), "500".into(), "200".into()));
    ask(&["--data", "from a request", &url("/print")]);
    let log = up.kubectl(&["logs", "web", "-c", "main"]);
    for expected in [
        "coracle: GET /trap failed: ",
        "coracle: GET /memory/100 failed: it took more memory than the container's limit",
        "\nfrom a request\n",
        "\"GET /env/COLOR HTTP/2.0\" 200 5 ",
        "\"GET /trap HTTP/1.1\" 500 ",
    ] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    let restarts = "jsonpath={.status.containerStatuses[*].restartCount}";
    assert_eq!(up.kubectl(&["get", "pod", "web", "-o", restarts]), "0 0");
    // It is looked into as others are; there is only no command to be run.
    assert_eq!(up.kubectl(&["exec", "web", "-c", "main", "--", "cat", "/etc/config/greeting"]), "good night");
    let refused = up.kubectl_fails(&["exec", "web", "-c", "main", "--", "self"]);
    assert!(refused.contains("is a handler of HTTP requests and no command"), "{refused}");
}

#[test]
fn a_handler_that_is_deleted_answers_what_it_was_asked() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let up = up();
    up.kubectl_stdin(&["apply", "-f", "-"], PODS);
    let url = format!("http://{}:8088/count/30/100", ip(&up, "web"));
    let (first, second) = (UnderWay::begin(&[&url]), UnderWay::begin(&["--http2-prior-knowledge", &url]));
    up.kubectl(&["delete", "pod", "web", "--wait=false"]);
    let last = "line 29".to_owned();
    assert_eq!(first.finish().last(), Some(&last));
    assert_eq!(second.finish().last(), Some(&last));
    // It does not wait for its grace period when it is done.
    up.kubectl(&["wait", "pod/web", "--for=delete", "--timeout=40s"]);
    assert!(!curl(&[&url]).status.success());
}

#[test]
fn the_built_in_handler_shows_itself() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    for name in ["one", "two"] {
        up.kubectl(&["run", name, "--image=coracle.dev/hello-http:v1"]);
    }
    let (one, two) = (ip(&up, "one"), ip(&up, "two"));
    assert_eq!(ask(&[&format!("http://{one}:8080/")]), "hello from one\n");
    let echo = format!("http://{one}:8080/echo");
    assert_eq!(ask(&["--data", "back again", &echo]), "back again");
    assert_eq!(ask(&[&format!("http://{one}:8080/fetch/{two}:8080/")]), "hello from two\n");
    let refused = format!("http://{one}:8080/fetch/{two}:81/");
    assert!(ask(&[&refused]).contains("ConnectionRefused"));
    // A mistake in an annotation is told.
    up.kubectl(&[
        "run",
        "odd",
        "--image=coracle.dev/hello-http:v1",
        "--annotations=coracle.dev/http-instances=pooled:many",
    ]);
    ip(&up, "odd");
    let events = up.kubectl(&["get", "events", "--field-selector=involvedObject.name=odd"]);
    assert!(events.contains("InvalidAnnotation") && events.contains("pooled:many"), "{events}");
}
