//! Guest programs as a user runs them: `coracle run`, `coracle image`, and pods that misbehave.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use coracle::guests;
use tempfile::TempDir;

use crate::harness::{Up, coracle, has, text};

/// A program of `guests/` as a file.
pub(crate) fn file(directory: &Path, guest: &str) -> PathBuf {
    let path = directory.join(format!("{guest}.wasm"));
    fs::write(&path, guests::fixture(guest).unwrap()).unwrap();
    path
}

/// Exit code, stdout and stderr of `coracle run` with a data directory of its own.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let data = TempDir::new().unwrap();
    let mut command = coracle();
    command.args(["run", "--offline", "--data-dir"]).arg(data.path()).args(arguments);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_guest_is_run_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    let mut folders = vec![root.join("tests"), root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.to_str().unwrap().contains("test")
            {
                tests.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let guests: BTreeSet<String> = fs::read_dir(root.join("guests/src/bin"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(!guests.is_empty());
    for guest in guests {
        let named = [format!("\"{guest}\""), format!("\"{guest}.p1\""), format!("coracle.dev/{guest}:v1")];
        assert!(named.iter().any(|name| tests.contains(name)), "no test runs guests/src/bin/{guest}.rs");
    }
}

#[test]
fn run_passes_everything_through() {
    let directory = TempDir::new().unwrap();
    let (code, stdout, stderr) =
        run(&["-e", "GREETING=Ahoy $USER $(HOME)", "coracle.dev/hello:v1", "--", "sailor"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "Ahoy $USER $(HOME), sailor!\n", ""));

    // WASI 0.1 keeps an exit code, WASI 0.2 knows success and failure.
    let kept = file(directory.path(), "exit.p1");
    assert_eq!(run(&[kept.to_str().unwrap(), "--", "42"]).0, 42);
    let failed = file(directory.path(), "exit");
    assert_eq!(run(&[failed.to_str().unwrap(), "--", "42"]).0, 1);

    let settings = directory.path().join("settings");
    fs::create_dir(&settings).unwrap();
    fs::write(settings.join("password"), "twelve bytes").unwrap();
    let (code, stdout, _) = run(&[
        "--config",
        settings.to_str().unwrap(),
        "-e",
        "SECRET_FILE=/config/password",
        "coracle.dev/hello:v1",
    ]);
    assert_eq!((code, stdout.lines().nth(1)), (0, Some("I was told a secret of 12 bytes.")));

    let (code, _, stderr) = run(&[file(directory.path(), "trap").to_str().unwrap()]);
    assert_eq!(code, 134, "{stderr}");
    assert!(stderr.contains("unreachable"), "{stderr}");
}

#[test]
fn run_says_what_is_wrong() {
    let directory = TempDir::new().unwrap();
    for (arguments, expected) in [
        (vec!["nowhere.wasm"], "cannot read nowhere.wasm"),
        (vec!["--config", "/nowhere/at/all", "coracle.dev/hello:v1"], "cannot read the --config directory"),
        (vec!["unknown:v1"], "coracle image import"),
    ] {
        let (code, stdout, stderr) = run(&arguments);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{stderr}");
        assert!(stderr.contains(expected), "{expected} in {stderr}");
    }
    let garbage = directory.path().join("garbage.wasm");
    fs::write(&garbage, "not a program").unwrap();
    let (code, _, stderr) = run(&[garbage.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stderr.contains("WebAssembly"), "{stderr}");
    let lacking = directory.path().join("lacking.wasm");
    let wat = r#"(module (import "env" "warp_drive" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
    fs::write(&lacking, wat::parse_str(wat).unwrap()).unwrap();
    let (code, _, stderr) = run(&[lacking.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stderr.contains("env.warp_drive"), "{stderr}");
    assert_eq!(run(&["-e", "novalue", "coracle.dev/hello:v1"]).0, 2);
}

#[test]
fn images_are_imported_listed_and_removed() {
    let data = TempDir::new().unwrap();
    let hello = file(data.path(), "hello");
    let image = |arguments: &[&str]| {
        let output =
            coracle().arg("image").args(arguments).arg("--data-dir").arg(data.path()).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(image(&["import", hello.to_str().unwrap(), "--name", "mine:v1"]).0, 0);
    let list = image(&["list"]).1;
    assert!(list.contains("mine:v1") && list.contains("coracle.dev/hello:v1"), "{list}");
    let (code, _, stderr) = image(&["import", "Makefile", "--name", "bad"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("Makefile") && stderr.contains("WebAssembly"), "{stderr}");
    assert_eq!(image(&["import", hello.to_str().unwrap(), "--name", "Not A Name"]).0, 1);
    assert_eq!(image(&["remove", "mine:v1"]).0, 0);
    let (code, _, stderr) = image(&["remove", "mine:v1"]);
    assert_eq!((code, stderr.lines().count()), (1, 1), "{stderr}");
}

/// A pod of one container that never restarts.
fn pod(name: &str, image: &str, args: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, \
         containers: [{{name: main, image: \"{image}\", imagePullPolicy: IfNotPresent, args: {args}{more}}}]}}}}"
    )
}

#[test]
fn hostile_guests_are_bounded_and_their_neighbours_unharmed() {
    if !has("kubectl") {
        return;
    }
    let up = Up::durable(&[]);
    for guest in ["spin", "eatmem", "recurse", "spew", "trap"] {
        up.import(&file(up.scratch(), guest), &format!("{guest}:v1"));
    }
    let garbage = up.scratch().join("garbage.wasm");
    fs::write(&garbage, b"\0asm\x01\0\0\0 and nothing more").unwrap();
    up.import(&garbage, "garbage:v1");
    let limit = ", resources: {limits: {memory: 64Mi}}";
    for manifest in [
        pod("spin", "spin:v1", "[]", ""),
        pod("eatmem", "eatmem:v1", "[]", limit),
        pod("recurse", "recurse:v1", "[]", ""),
        pod("spew", "spew:v1", "[]", ""),
        pod("trap", "trap:v1", "[]", ""),
        pod("garbage", "garbage:v1", "[]", ""),
        pod("absent", "absent:v1", "[]", ""),
    ] {
        up.kubectl_stdin(&["create", "-f", "-"], &manifest);
    }
    for name in ["spin", "spew"] {
        let running = format!("pod/{name}");
        up.kubectl(&["wait", &running, "--for=condition=Ready", "--timeout=30s"]);
    }
    let reason = "jsonpath={.status.containerStatuses[0].state.*.reason}";
    for (name, expected) in [("eatmem", "OOMKilled"), ("recurse", "Error"), ("trap", "Error")] {
        let waited = format!("pod/{name}");
        up.kubectl(&["wait", &waited, "--for=jsonpath={.status.phase}=Failed", "--timeout=30s"]);
        assert_eq!(up.kubectl(&["get", "pod", name, "-o", reason]), expected);
    }
    let message = "jsonpath={.status.containerStatuses[0].state.*.message}";
    assert!(up.kubectl(&["get", "pod", "trap", "-o", message]).contains("unreachable"));
    let wait_for_message = |name: &str, part: &str| {
        let waiting = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
        up.kubectl(&["wait", &format!("pod/{name}"), &format!("--for={waiting}"), "--timeout=30s"]);
        let said = up.kubectl(&["get", "pod", name, "-o", waiting]);
        assert!(said.contains(part), "{name}: {said}");
    };
    wait_for_message("garbage", "WebAssembly");
    wait_for_message("absent", "absent:v1");

    // Beside two guests that never rest, a neighbour runs, and endless output is bounded.
    up.kubectl(&["run", "neighbour", "--image=coracle.dev/hello:v1", "--restart=Never"]);
    up.kubectl(&["wait", "pod/neighbour", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"]);
    assert_eq!(up.kubectl(&["logs", "neighbour"]), "Hello, WebAssembly!\n");
    assert!(up.kubectl(&["logs", "spew", "--tail=5"]).lines().count() >= 5);
    assert!(up.kubectl(&["logs", "spew"]).len() <= 4 << 20);
    // A guest that never listens does not survive its deletion.
    up.kubectl(&["delete", "pod", "spin", "spew", "--timeout=20s"]);

    // An image that appears is used without being asked for again.
    up.import(&file(up.scratch(), "hello"), "absent:v1");
    up.kubectl(&["wait", "pod/absent", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=40s"]);
}
