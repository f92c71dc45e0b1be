//! Secrets on the disk of a real cluster: encrypted, and unreadable with any key but the one beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Up, coracle, has, text};

const CANARY: &str = "canary-5b0e71c2d94f";

/// Every file under `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// The files that hold one of `texts`.
fn holding(folder: &Path, texts: &[String]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    files(folder).into_iter().filter(holds).collect()
}

/// The canary as it may lie about: as it is, and in base64 whatever is around it.
fn traces() -> Vec<String> {
    let encoded = |start: usize| {
        let text = STANDARD.encode(format!("{}{CANARY}", "x".repeat(start)));
        // Without what depends on the neighbours.
        text[4.min(start * 4)..text.len() - 4].to_owned()
    };
    let mut traces = vec![CANARY.to_owned()];
    traces.extend((0..3).map(encoded));
    traces
}

fn key_file(up: &Up) -> PathBuf {
    up.data_dir().with_extension("key")
}

fn key_command(up: &Up, arguments: &[&str]) -> Output {
    let mut command = coracle();
    command.arg("key").args(arguments).arg("--data-dir").arg(up.data_dir());
    command.output().unwrap()
}

/// `coracle up` on the data of a cluster that has stopped, which is to fail: what it says.
#[track_caller]
fn refused(up: &Up) -> String {
    let output = coracle()
        .args(["up", "--nodes", "0", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(up.data_dir())
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn no_trace_of_a_secret_is_on_the_disk() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&["--nodes", "0"]);
    let literal = format!("--from-literal=password={CANARY}");
    up.kubectl(&["create", "secret", "generic", "raw", &literal]);
    up.kubectl(&["create", "secret", "generic", "goes", &literal]);
    // `apply` keeps all of it in an annotation.
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: applied}}\nstringData: {{password: {CANARY}}}\n"
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &manifest);
    let encoded = STANDARD.encode(CANARY);
    up.kubectl(&["patch", "secret", "raw", "-p", &format!("{{\"data\":{{\"other\":\"{encoded}\"}}}}")]);
    // The same in the open shows that the search finds what is there.
    up.kubectl(&["create", "cm", "open", "--from-literal=k=not-a-secret-5b0e"]);
    up.kubectl(&["delete", "secret", "goes"]);
    assert_eq!(holding(&up.data_dir(), &traces()), [] as [PathBuf; 0]);
    assert!(!holding(&up.data_dir(), &["not-a-secret-5b0e".to_owned()]).is_empty());

    up.kill_and_restart();
    assert_eq!(holding(&up.data_dir(), &traces()), [] as [PathBuf; 0]);
    for name in ["raw", "applied"] {
        let value = up.kubectl(&["get", "secret", name, "-o", "jsonpath={.data.password}"]);
        assert_eq!(value, encoded, "{name}");
    }
    assert!(up.kubectl_fails(&["get", "secret", "goes"]).contains("NotFound"));

    // Whatever has a key in it is the owner's alone.
    assert_eq!(mode(&key_file(&up)), 0o600);
    for folder in [up.data_dir(), up.data_dir().join("store"), up.data_dir().join("pki")] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    for path in files(&up.data_dir().join("store")).iter().chain(&files(&up.data_dir().join("pki"))) {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    let keys = "PRIVATE KEY".to_owned();
    for path in holding(up.scratch(), &[keys, "coracle key file".to_owned(), "client-key-data".to_owned()]) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(holding(&up.data_dir(), &["coracle key file".to_owned()]).is_empty());
}

#[test]
fn a_key_is_rotated() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&["--nodes", "0"]);
    up.kubectl(&["create", "secret", "generic", "a", &format!("--from-literal=k={CANARY}")]);
    let shown = text(&key_command(&up, &["show"]).stdout);
    assert!(
        shown.starts_with(&format!("key file {}\nkey ", key_file(&up).canonicalize().unwrap().display()))
    );
    assert!(shown.ends_with(" in use\n") && shown.lines().count() == 2, "{shown}");
    let held = key_command(&up, &["rotate"]);
    assert_eq!(held.status.code(), Some(1));
    assert!(text(&held.stderr).contains("in use by another process"), "{}", text(&held.stderr));

    up.stop();
    let before = fs::read_to_string(key_file(&up)).unwrap();
    let rotated = key_command(&up, &["rotate"]);
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    let after = fs::read_to_string(key_file(&up)).unwrap();
    let old = before.lines().last().unwrap().split(' ').nth(1).unwrap();
    assert!(text(&rotated.stdout).contains(&format!("replaces {old} in")), "{}", text(&rotated.stdout));
    assert!(!after.contains(old) && after.lines().count() == before.lines().count());
    assert_ne!(text(&key_command(&up, &["show"]).stdout), shown);
    // Nothing says what a key is.
    let secret = after.lines().last().unwrap().split(' ').nth(2).unwrap();
    for output in [&rotated, &key_command(&up, &["show"])] {
        assert!(!text(&output.stdout).contains(secret) && !text(&output.stderr).contains(secret));
    }
    // The old key is of no use any more.
    fs::write(key_file(&up), &before).unwrap();
    let error = refused(&up);
    assert!(error.contains("is encrypted with key") && error.contains(old), "{error}");
    fs::write(key_file(&up), &after).unwrap();
    up.start_again();
    let value = up.kubectl(&["get", "secret", "a", "-o", "jsonpath={.data.k}"]);
    assert_eq!(value, STANDARD.encode(CANARY));
}

#[test]
fn data_is_refused_without_its_key() {
    let mut up = Up::durable(&["--nodes", "0"]);
    let file = key_file(&up);
    up.stop();
    let good = fs::read(&file).unwrap();
    let name = file.canonicalize().unwrap().display().to_string();

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let error = refused(&up);
    assert!(error.contains(&format!("run `chmod 600 {name}`")) && error.contains("(mode 0644)"), "{error}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    fs::write(&file, &good[..good.len() - 9]).unwrap();
    let error = refused(&up);
    assert!(error.contains(&format!("the key file {name} is damaged: line ")), "{error}");

    fs::remove_file(&file).unwrap();
    let error = refused(&up);
    assert!(error.contains(&format!("the key file {name} is not there; put it back")), "{error}");
    assert!(!file.exists(), "no key is made in its place");

    // Another cluster's.
    let mut other = Up::durable(&["--nodes", "0"]);
    other.stop();
    fs::copy(key_file(&other), &file).unwrap();
    let error = refused(&up);
    assert!(error.contains("name the right one with --key-file"), "{error}");

    fs::write(&file, &good).unwrap();
    up.start_again();
}

#[test]
fn the_key_file_is_where_the_user_says() {
    let scratch = tempfile::tempdir().unwrap();
    let elsewhere = scratch.path().join("elsewhere.key");
    let mut up = Up::durable(&["--nodes", "0", "--key-file", elsewhere.to_str().unwrap()]);
    up.stop();
    assert!(elsewhere.exists() && !key_file(&up).exists());
    assert!(refused(&up).contains("is not there; put it back, or name it with --key-file"));
    up.start_again();

    let inside = up.data_dir().join("key");
    let output = coracle()
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(up.data_dir())
        .arg("--key-file")
        .arg(&inside)
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert!(error.contains("is inside the data directory") && !inside.exists(), "{error}");
}
