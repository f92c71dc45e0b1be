//! Where the content of a Secret is, and where it is not: a value that occurs nowhere else is looked
//! for in the memory of the process, in its data directory, in its log at every level, and in Events.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle::clock::{Clock, sleep_thread};
use memchr::memmem;

use crate::harness::{DEADLINE, Up, has, text};

/// Of a length that is a multiple of three, so that its base64 form does not depend on what follows.
const CANARY: &str = "canary-7f3e-sings-9c41-at-dawn";

/// How often memory is read again while it may still change.
const AGAIN: Duration = Duration::from_millis(100);

/// The forms in which the value could lie about.
fn needles() -> Vec<Vec<u8>> {
    assert_eq!(CANARY.len() % 3, 0);
    vec![CANARY.into(), STANDARD.encode(CANARY).into()]
}

fn holds(haystack: &[u8]) -> bool {
    needles().iter().any(|needle| memmem::find(haystack, needle).is_some())
}

/// Files below `directory` that hold the value.
fn files_with_canary(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with_canary(&path));
        } else if holds(&fs::read(&path).unwrap()) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// The parts of a process's memory that hold the value.
fn memory_with_canary(pid: u32) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next().unwrap(), words.next().unwrap());
        let name = words.nth(3).unwrap_or("anonymous");
        if !access.starts_with('r') || matches!(name, "[vvar]" | "[vvar_vclock]" | "[vsyscall]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        for (from, bytes) in present(&mut pages, start, end) {
            let mut content = vec![0; usize::try_from(bytes).unwrap()];
            // What is unmapped meanwhile is gone.
            if memory.seek(SeekFrom::Start(from)).is_ok()
                && memory.read_exact(&mut content).is_ok()
                && holds(&content)
            {
                found.push(format!("{from:x} {name}"));
            }
        }
    }
    found
}

/// Runs of pages that have a content, as offset and length; the guests' pool reserves far more than that.
fn present(pages: &mut File, start: u64, end: u64) -> Vec<(u64, u64)> {
    const PAGE: u64 = 4096;
    /// Present, or in the swap.
    const THERE: u64 = 0b11 << 62;
    let mut entries = vec![0; usize::try_from((end - start) / PAGE * 8).unwrap()];
    pages.seek(SeekFrom::Start(start / PAGE * 8)).unwrap();
    pages.read_exact(&mut entries).unwrap();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (number, entry) in (0..).zip(entries.as_chunks().0) {
        let at = start + number * PAGE;
        if u64::from_ne_bytes(*entry) & THERE == 0 {
            continue;
        }
        match runs.last_mut() {
            Some((from, bytes)) if *from + *bytes == at => *bytes += PAGE,
            _ => runs.push((at, PAGE)),
        }
    }
    runs
}

/// One reads it as a file, and even prints it: its log goes with the pod.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: files
    image: coracle.dev/logger:v1
    args: [/secret/value]
    volumeMounts: [{name: secret, mountPath: /secret}]
  - name: env
    image: coracle.dev/worker:v1
    args: ['600']
    envFrom: [{secretRef: {name: canary}}]
  volumes: [{name: secret, secret: {secretName: canary}}]
";

#[test]
fn a_secret_is_nowhere_but_where_it_is_used() {
    if !has("kubectl") {
        return;
    }
    let up = Up::logged(&[]);
    up.kubectl(&["wait", "--for=create", "sa/default", "--timeout=10s"]);
    let literal = format!("--from-literal=value={CANARY}");
    up.kubectl(&["create", "secret", "generic", "canary", &literal]);
    // What `apply` writes into the annotation is as secret as the data.
    let manifest = up.kubectl(&["get", "secret", "canary", "-o", "yaml"]);
    up.kubectl(&["delete", "secret", "canary"]);
    let stripped: Vec<&str> =
        manifest.lines().filter(|line| !line.contains("resourceVersion") && !line.contains("uid:")).collect();
    up.kubectl_stdin(&["apply", "-f", "-"], &stripped.join("\n"));
    up.kubectl_stdin(&["apply", "-f", "-"], POD);
    up.kubectl(&["wait", "pod/listener", "--for=condition=Ready", "--timeout=30s"]);
    // Refused, with the content in the request.
    let wrong = format!("--patch={{\"type\": \"other/type\", \"stringData\": {{\"value\": \"{CANARY}\"}}}}");
    up.kubectl_fails(&["patch", "secret", "canary", &wrong]);

    // In use it is in memory: the search can find it. Everywhere else it never is.
    assert!(!memory_with_canary(up.pid()).is_empty());
    outside_memory(&up);

    up.kubectl(&["delete", "pod", "listener"]);
    up.kubectl(&["delete", "secret", "canary"]);
    // Buffers are freed a moment after the answer.
    let clock = Clock::real();
    let deadline = clock.now() + jiff::SignedDuration::try_from(DEADLINE).unwrap();
    loop {
        let left = memory_with_canary(up.pid());
        if left.is_empty() {
            break;
        }
        assert!(clock.now() < deadline, "still in memory: {left:#?}");
        sleep_thread(AGAIN);
    }
    outside_memory(&up);
}

fn outside_memory(up: &Up) {
    let files = files_with_canary(&up.data_dir());
    assert!(files.is_empty(), "in files: {files:?}");
    let log = up.log();
    let line = log.split(|byte| *byte == b'\n').find(|line| holds(line));
    assert!(line.is_none(), "logged: {}", text(line.unwrap()));
    let events = up.kubectl(&["get", "events", "-A", "-o", "yaml"]);
    assert!(!holds(events.as_bytes()), "{events}");
    let pods = up.kubectl(&["get", "pods", "-A", "-o", "yaml"]);
    assert!(!holds(pods.as_bytes()), "{pods}");
}
