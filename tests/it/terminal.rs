//! Somebody at a terminal: `kubectl exec -it` and `attach -it` under a pseudo terminal (BEHAVIOURS 8.7).

use std::path::Path;
use std::process::Command;

use crate::harness::{DEADLINE, Up, has, text};

/// Runs kubectl under a pseudo terminal and converses as the script says: each line is what to wait for, a
/// tab, and what to type then, both with Python's escapes. Prints all that was shown, and the exit code.
const CONVERSE: &str = r#"
import os, pty, sys, select, time
script = [line.encode().decode("unicode_escape").split("\t") for line in open(sys.argv[1]).read().splitlines()]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen, shown, end = b"", b"", time.monotonic() + float(os.environ["DEADLINE"])
while True:
    if script and script[0][0].encode() in seen:
        seen = b""
        os.write(fd, script.pop(0)[1].encode())
    ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
    if not ready:
        os.kill(pid, 9)
        sys.exit(f"waited in vain for {script[:1]!r} in {shown!r}")
    try:
        more = os.read(fd, 65536)
    except OSError:
        more = b""
    if not more:
        break
    seen += more
    shown += more
_, status = os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
print(f"exit {os.waitstatus_to_exitcode(status)}, {len(script)} left")
"#;

/// What kubectl showed, and at the end how it ended.
#[track_caller]
fn converse(up: &Up, arguments: &[&str], script: &str) -> String {
    let write = |name: &str, content: &str| -> std::path::PathBuf {
        let path = up.scratch().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let program = write("converse.py", CONVERSE);
    let script = write("script", script);
    let output = Command::new("python3")
        .args([program.as_path(), &script, Path::new("kubectl")])
        .arg("--cache-dir")
        .arg(up.scratch().join("kubectl-cache"))
        .args(arguments)
        .env("KUBECONFIG", &up.kubeconfig)
        .env("DEADLINE", DEADLINE.as_secs().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// BEHAVIOURS 8.7.
#[test]
fn a_shell_can_be_typed_at() {
    if !has("kubectl") || !has("python3") {
        return;
    }
    let up = Up::ephemeral(&[]);
    up.kubectl(&["run", "p", "--image=coracle.dev/worker:v1", "--", "3600"]);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    let exec = |words: &[&str], script: &str| {
        let arguments = [&["exec", "-it", "p", "--"], words].concat();
        converse(&up, &arguments, script)
    };

    // Lines are echoed, can be erased and abandoned; ^D on an empty line is the end.
    let shown = exec(&["sh"], "$ \techo onX\\x7fe\\r\n$ \tfalse\\x03\n$ \texit 7\\r\n");
    assert!(shown.contains("echo onX\x08 \x08e\r\none\r\n"), "{shown:?}");
    assert!(shown.contains("false^C\r\n"), "{shown:?}");
    assert!(shown.ends_with("exit 7, 0 left\n"), "{shown:?}");
    let shown = exec(&["sh"], "$ \techo out; echo err >&2\\r\nerr\\r\\n\t\\x04\n");
    assert!(shown.contains("out\r\nerr\r\n"), "{shown:?}");
    assert!(shown.ends_with("exit 0, 0 left\n"), "{shown:?}");

    // ^C ends what runs, whatever it does.
    let shown = exec(&["sh"], "$ \techo now; sleep 3600\\r\nnow\\r\\n\t\\x03\n");
    assert!(shown.contains("^C\r\n") && shown.ends_with("exit 130, 0 left\n"), "{shown:?}");
    let shown = exec(&["cat"], "\tone\\r\none\\r\\none\ttwo\\x03\n");
    assert!(shown.contains("two^C\r\n") && shown.ends_with("exit 130, 0 left\n"), "{shown:?}");
    // A code of its own still comes through.
    let shown = exec(&["sh", "-c", "read word; exit $word"], "\t5\\r\n");
    assert!(shown.ends_with("exit 5, 0 left\n"), "{shown:?}");
}

/// BEHAVIOURS 8.7.
#[test]
fn a_containers_own_run_is_typed_at_and_not_interrupted() {
    if !has("kubectl") || !has("python3") {
        return;
    }
    let up = Up::ephemeral(&[]);
    let run = ["run", "-it", "--restart=Never", "--image=coracle.dev/toolbox:v1", "shell", "--", "sh"];
    let script = "press\t\\r\n$ \techo abandoned\\x03\n$ \techo kept\\r\nkept\\r\\n\t\\x03\n$ \texit\\r\n";
    let shown = converse(&up, &run, script);
    assert!(shown.contains("echo abandoned^C\r\n") && shown.contains("kept\r\n"), "{shown:?}");
    assert!(shown.ends_with("exit 0, 0 left\n"), "{shown:?}");
    let phase = up.kubectl(&["get", "pod", "shell", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(phase, "Succeeded");
}
