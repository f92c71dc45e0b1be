//! `kubectl exec`, `cp`, `attach`, `run -i` and `port-forward` against real pods (BEHAVIOURS 8.7).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Output, Stdio};
use std::thread;

use crate::harness::{DEADLINE, Up, has, text};

/// Two containers that share a volume; the first has an environment and a ConfigMap of its own.
const PODS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {greeting: good morning}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: main
    image: coracle.dev/worker:v1
    args: ["3600"]
    workingDir: /data
    env: [{name: COLOR, value: green}]
    volumeMounts: [{name: config, mountPath: /etc/config}, {name: data, mountPath: /data}]
  - name: other
    image: coracle.dev/worker:v1
    args: ["3600"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - {name: config, configMap: {name: config}}
  - {name: data, emptyDir: {}}
"#;

fn up() -> Up {
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], PODS);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    up
}

/// kubectl with bytes on its stdin, written while its output is read.
fn with_bytes(up: &Up, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = up
        .kubectl_command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writes = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writes.join().unwrap();
    output
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

#[track_caller]
fn code(up: &Up, arguments: &[&str]) -> (i32, String, String) {
    let output = up.kubectl_output(arguments);
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// BEHAVIOURS 8.7.
#[test]
fn commands_run_beside_a_container() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let exec = |rest: &[&str]| code(&up, &[&["exec", "p", "-c", "main", "--"][..], rest].concat());
    assert_eq!(exec(&["cat", "/etc/config/greeting"]), (0, "good morning".into(), String::new()));
    assert_eq!(exec(&["/bin/printenv", "COLOR"]).1, "green\n");
    assert_eq!(exec(&["pwd"]).1, "/data\n");
    assert_eq!(exec(&["ls", "/"]).1, "data\ndev\netc\nvar\n");

    // What one run writes, the next one and the other container see.
    assert_eq!(exec(&["sh", "-c", "echo one > /data/a; echo two >> a; wc -l < a"]).1, "2\n");
    let (_, seen, _) = code(&up, &["exec", "p", "-c", "other", "--", "cat", "/data/a"]);
    assert_eq!(seen, "one\ntwo\n");
    assert_eq!(code(&up, &["exec", "p", "-c", "other", "--", "printenv", "COLOR"]).0, 1);

    // Output and errors apart, and the exit code as kubectl's own.
    let (exit, out, err) = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((exit, out.as_str()), (3, "out\n"));
    assert_eq!(err, "err\ncommand terminated with exit code 3\n");
    // The container's own program, by its name.
    let (exit, out, _) = exec(&["worker", "0", "5"]);
    assert_eq!(exit, 5);
    assert!(out.contains("working for 0 s"), "{out}");
    let (exit, _, err) = exec(&["bash", "-c", "true"]);
    assert_eq!(exit, 127);
    assert!(err.contains(r#"exec: "bash": executable file not found"#) && err.contains(" sh "), "{err}");

    // The first container is the default, as everywhere.
    let (exit, out, err) = code(&up, &["exec", "p", "--", "echo", "hi"]);
    assert_eq!((exit, out.as_str()), (0, "hi\n"), "{err}");
}

/// BEHAVIOURS 8.7.
#[test]
fn input_and_output_are_streams() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let bytes = noise(1 << 20);
    let output = with_bytes(&up, &["exec", "-i", "p", "-c", "main", "--", "cat"], &bytes);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    let output = with_bytes(&up, &["exec", "-i", "p", "-c", "main", "--", "wc", "-c"], &bytes);
    assert_eq!(text(&output.stdout).trim(), bytes.len().to_string());
    // A program that does not read its input ends all the same.
    let output = with_bytes(&up, &["exec", "-i", "p", "-c", "main", "--", "echo", "done"], &bytes);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "done\n"));
}

/// BEHAVIOURS 8.7: (local) what cannot be served is refused at once.
#[test]
fn what_does_not_run_is_refused_at_once() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let fails = |arguments: &[&str], why: &str| {
        let error = up.kubectl_fails(arguments);
        assert!(error.contains(why), "kubectl {}: {error}", arguments.join(" "));
    };
    fails(&["exec", "nobody", "--", "ls"], r#"pods "nobody" not found"#);
    fails(&["exec", "p", "-c", "nothing", "--", "ls"], "container nothing is not valid for pod p");
    up.kubectl(&["run", "done", "--image=coracle.dev/hello:v1", "--restart=Never"]);
    up.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/done", "--timeout=60s"]);
    fails(&["exec", "done", "--", "ls"], "cannot exec into a container in a completed pod");
    up.kubectl(&["run", "waits", "--image=example.com/nowhere:v1", "--image-pull-policy=Never"]);
    let waits = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull";
    up.kubectl(&["wait", waits, "pod/waits", "--timeout=60s"]);
    fails(&["exec", "waits", "--", "ls"], r#"container not found ("waits")"#);
    fails(&["attach", "waits"], "waits");
    let off = ["run", "off", "--image=x", "--overrides"];
    let nowhere = r#"{"spec": {"nodeSelector": {"is": "nowhere"}}}"#;
    up.kubectl(&[&off[..], &[nowhere]].concat());
    fails(&["exec", "off", "--", "ls"], "pod off does not have a host assigned");

    // Clients that speak only SPDY are told so.
    let output = up
        .kubectl_command(&["exec", "p", "-c", "main", "--", "ls"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(error.contains("SPDY/3.1 is not served"), "{error}");
}

/// BEHAVIOURS 8.7.
#[test]
fn simulated_nodes_refuse_at_once() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&["--nodes", "0", "--sim-nodes", "1"]);
    up.kubectl(&["run", "s", "--image=x"]);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/s", "--timeout=60s"]);
    let error = up.kubectl_fails(&["exec", "s", "--", "ls"]);
    assert!(error.contains(r#"node "sim-0" is simulated"#), "{error}");
}

/// BEHAVIOURS 8.7.
#[test]
fn files_are_copied_both_ways() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let here = up.scratch().join("copies");
    std::fs::create_dir_all(here.join("folder/deep")).unwrap();
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    std::fs::write(here.join("text.txt"), "a few words\n").unwrap();
    std::fs::write(here.join("bytes.bin"), &every_byte).unwrap();
    std::fs::write(here.join("folder/one"), "1").unwrap();
    std::fs::write(here.join("folder/deep/two"), "22").unwrap();
    let path = |name: &str| here.join(name).to_str().unwrap().to_owned();
    for (from, to) in
        [("text.txt", "p:/data/text.txt"), ("bytes.bin", "p:/data/renamed.bin"), ("folder", "p:/data")]
    {
        up.kubectl(&["cp", "-c", "main", &path(from), to]);
    }
    let listed = up.kubectl(&["exec", "p", "-c", "other", "--", "find", "/data", "-type", "f"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["/data/folder/deep/two", "/data/folder/one", "/data/renamed.bin", "/data/text.txt"]);
    for (from, to) in [
        ("p:/data/text.txt", "text.back"),
        ("p:/data/renamed.bin", "bytes.back"),
        ("p:/data/folder", "folder.back"),
        ("p:/etc/config/greeting", "greeting.back"),
    ] {
        // tar says on stderr that it makes names relative.
        let arguments = ["cp", "-c", "main", from, &path(to)];
        let output = up.kubectl_output(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let read = |name: &str| std::fs::read(here.join(name)).unwrap();
    assert_eq!(read("text.back"), b"a few words\n");
    assert!(read("bytes.back") == every_byte);
    assert_eq!(read("folder.back/one"), b"1");
    assert_eq!(read("folder.back/deep/two"), b"22");
    // kubectl cp itself may not wait for how tar ends.
    let (exit, _, error) = code(&up, &["exec", "p", "-c", "main", "--", "tar", "cf", "-", "/data/absent"]);
    assert_eq!(exit, 2);
    assert!(error.contains("tar: /data/absent: Cannot stat"), "{error}");
}

/// BEHAVIOURS 8.7.
#[test]
fn a_containers_own_run_is_joined() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&[]);
    let toolbox = "--image=coracle.dev/toolbox:v1";
    let script = "cat; echo and the end";
    let run = ["run", "-i", "--rm", "--restart=Never", "--quiet", toolbox, "once", "--", "sh", "-c", script];
    let output = with_bytes(&up, &run, b"a line\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("a line\nand the end\n"), "{}", text(&output.stdout));
    assert_eq!(up.kubectl(&["get", "pods", "-o", "name"]), "", "--rm");

    // Two that are attached: each sees what is written, also what the other one says. The input ends
    // only where the pod says so (stdinOnce), which it does not here.
    let echoes = "while read line; do echo \"heard $line\"; done";
    let pod =
        ["run", "echo", toolbox, "--stdin", "--leave-stdin-open", "--attach=false", "--", "sh", "-c", echoes];
    up.kubectl(&pod);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/echo", "--timeout=60s"]);
    let mut first = Attached::to(&up, "echo");
    first.say("one");
    first.hears("heard one");
    let mut second = Attached::to(&up, "echo");
    second.say("two");
    second.hears("heard two");
    first.hears("heard two");
    drop(second);
    first.say("three");
    first.hears("heard three");
    let logs = up.kubectl(&["logs", "echo"]);
    assert_eq!(logs, "heard one\nheard two\nheard three\n");
}

/// `kubectl attach -i`, with its lines.
struct Attached {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Attached {
    fn to(up: &Up, pod: &str) -> Self {
        let mut child = up
            .kubectl_command(&["attach", "-i", pod])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    fn hears(&mut self, expected: &str) {
        // kubectl itself is ended by the deadline, and with it what can be read.
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the end before {expected:?}");
            if line.trim_end() == expected {
                return;
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends kubectl, which runs under `timeout`.
pub(crate) fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
    child.wait().ok();
}

/// BEHAVIOURS 8.7: nobody's run goes on.
#[test]
fn a_client_that_vanishes_ends_its_run() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let ticks = "while true; do echo tick >> /data/ticks; sleep 0.05; done";
    let arguments = ["-n", "default", "exec", "p", "-c", "main", "--", "sh", "-c", ticks];
    let mut child = up.kubectl_command(&arguments).stdout(Stdio::null()).spawn().unwrap();
    let seen = "test -s /data/ticks || sleep 0.1; wc -l < /data/ticks; sleep 1; wc -l < /data/ticks";
    let counts = || {
        let output = up.kubectl_output(&["exec", "p", "-c", "other", "--", "sh", "-c", seen]);
        let text = text(&output.stdout);
        let mut counts = text.lines().map(|line| line.parse::<u64>().unwrap());
        counts.next().zip(counts.next())
    };
    let until = |holds: &dyn Fn(u64, u64) -> bool| {
        // Each look takes a second of the guest's.
        let came =
            (0..DEADLINE.as_secs()).any(|_| counts().is_some_and(|(before, after)| holds(before, after)));
        assert!(came, "it never came true");
    };
    until(&|before, after| before < after);
    end(&mut child);
    until(&|before, after| before == after);
}

/// A listener at the pod's address, in the place of a guest that listens.
fn listener(up: &Up) -> TcpListener {
    let address = up.kubectl(&["get", "pod", "p", "-o", "jsonpath={.status.podIP}"]);
    TcpListener::bind((address.as_str(), 0)).unwrap()
}

/// `kubectl port-forward` of one port, and where it listens.
struct Forward {
    child: Child,
    address: String,
    /// Kept, or what kubectl says next would end it.
    _said: BufReader<ChildStdout>,
}

impl Forward {
    fn to(up: &Up, port: u16) -> Self {
        let mut child = up
            .kubectl_command(&["port-forward", "pod/p", &format!(":{port}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address, _said: said }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// BEHAVIOURS 8.7.
#[test]
fn ports_are_forwarded() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let listener = listener(&up);
    let port = listener.local_addr().unwrap().port();
    // Reads all there is, then says it back: that the client has ended must arrive.
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    let forward = Forward::to(&up, port);
    let bytes = noise(3 << 20);
    let talks: Vec<_> = (0..5)
        .map(|number| {
            let (mut stream, bytes) = (forward.connect(), bytes[number * 1_000..].to_vec());
            thread::spawn(move || {
                stream.write_all(&bytes).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
            })
        })
        .collect();
    for talk in talks {
        talk.join().unwrap();
    }
}

/// BEHAVIOURS 8.7.
#[test]
fn a_port_that_nobody_listens_on_is_told() {
    if !has("kubectl") {
        return;
    }
    let up = up();
    let port = listener(&up).local_addr().unwrap().port();
    let mut forward = Forward::to(&up, port);
    let mut stream = forward.connect();
    let mut nothing = Vec::new();
    stream.read_to_end(&mut nothing).ok();
    assert!(nothing.is_empty());
    let mut error = String::new();
    let mut lines = BufReader::new(forward.child.stderr.take().unwrap());
    while !error.contains("error forwarding port") {
        assert!(lines.read_line(&mut error).unwrap() > 0, "kubectl only said {error:?}");
    }
    assert!(error.contains("connection refused"), "{error}");
}
