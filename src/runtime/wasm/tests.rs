use std::io::{BufRead, Read, Write};
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;

use super::super::budget::{Budget, Limits};
use super::super::config::{Config, Settings, Shown, Source, SourceKind};
use super::super::fs::{File, Mount, SubPath, Volume};
use super::super::log::{Log, LogQuery};
use super::super::network::fixture::Fixed;
use super::super::stdio::{Output, Stdio};
use super::*;
use crate::clock::virtual_runtime;
use crate::guests::fixture;

mod budgets;
mod sockets;
mod streams;

/// No wait for an event may take longer, on the slowest machine.
pub(in crate::runtime) const DEADLINE: Duration = Duration::from_secs(60);
const LOG_BYTES: usize = 100_000;

/// A runtime in real time, and the threads that its guests run on. One for all tests, as a process
/// has one.
pub(in crate::runtime) struct Real {
    pub(in crate::runtime) threads: tokio::runtime::Runtime,
    pub(in crate::runtime) runtime: Arc<WasmRuntime>,
    pub(in crate::runtime) clock: Clock,
}

pub(in crate::runtime) fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let threads = builder.worker_threads(2).event_interval(1).enable_all().build().unwrap();
        let clock = Clock::real();
        let runtime = runtime(clock, threads.handle().clone(), None);
        Real { threads, runtime, clock }
    })
}

pub(in crate::runtime) fn runtime(
    clock: Clock,
    guests: Handle,
    cache_dir: Option<PathBuf>,
) -> Arc<WasmRuntime> {
    let computing = (!clock.is_virtual()).then(|| guests.clone());
    let options =
        Options { clock, random: Random::from_seed(1), guests, computing, cache_dir, roots: Vec::new() };
    WasmRuntime::new(options).unwrap()
}

/// The spec of a container that runs the fixture `name` with `args`.
pub(in crate::runtime) async fn spec(runtime: &WasmRuntime, name: &str, args: &[&str]) -> ContainerSpec {
    spec_of(runtime, fixture(name).unwrap(), args).await
}

async fn spec_of(runtime: &WasmRuntime, wasm: Vec<u8>, args: &[&str]) -> ContainerSpec {
    ContainerSpec {
        label: "ns/pod/main".to_owned(),
        image: runtime.prepare(wasm.into()).await.unwrap(),
        args: [&["guest"], args].concat().into_iter().map(str::to_owned).collect(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        config: None,
        queue: None,
        network: None,
        http: None,
        budget: memory(64 << 20),
        fuel: Fuel::Off,
        stdio: Stdio::log(&Arc::new(Log::new(runtime.shared.world.clock, LOG_BYTES))),
        annotations: BTreeMap::new(),
    }
}

fn memory(bytes: u64) -> Arc<Budget> {
    Budget::new(Limits { memory: Some(bytes), ..Limits::default() }, Clock::real(), None)
}

/// Where a container of [`spec`] writes.
pub(in crate::runtime) fn log_of(spec: &ContainerSpec) -> Arc<Log> {
    match &spec.stdio.stdout {
        Output::Log { log, .. } => Arc::clone(log),
        Output::Pipe(_) => panic!("it writes to a pipe"),
    }
}

/// Runs a container to its end: how it ended and what it wrote.
async fn finish(runtime: &WasmRuntime, spec: ContainerSpec) -> (Exit, String) {
    let output = log_of(&spec);
    let container = runtime.start(spec).await;
    let exit = runtime.shared.world.clock.timeout(DEADLINE, container.exited()).await.unwrap();
    (exit, output.tail(usize::MAX, usize::MAX))
}

fn run(name: &str, args: &[&str]) -> (Exit, String) {
    run_with(name, args, |_| ())
}

pub(in crate::runtime) fn run_with(
    name: &str,
    args: &[&str],
    change: impl FnOnce(&mut ContainerSpec),
) -> (Exit, String) {
    let real = real();
    real.threads.block_on(async {
        let mut spec = spec(&real.runtime, name, args).await;
        change(&mut spec);
        finish(&real.runtime, spec).await
    })
}

/// Waits until a container has written `text`.
/// For a guest that says `text` once and no more than the log keeps.
pub(in crate::runtime) async fn wait_for_output(log: &Arc<Log>, text: &str) {
    let mut seen = Vec::new();
    let mut chunks = log.read(&LogQuery { follow: true, ..LogQuery::default() });
    let said = async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            seen.extend_from_slice(&chunks.next().await.expect("it goes on writing"));
            // So that the deadline is looked at even where output never pauses.
            tokio::task::consume_budget().await;
        }
    };
    let said = real().clock.timeout(DEADLINE, said).await;
    assert!(said.is_ok(), "no {text:?} in {:?}", log.tail(10, 1_000));
}

/// For a guest that writes faster than a reader follows.
async fn wait_for_bytes(log: &Arc<Log>, count: usize) {
    let mut chunks = log.read(&LogQuery { follow: true, ..LogQuery::default() });
    let written = async {
        let mut seen = 0;
        while seen < count {
            seen += chunks.next().await.expect("it goes on writing").len();
            tokio::task::consume_budget().await;
        }
    };
    real().clock.timeout(DEADLINE, written).await.unwrap();
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, File> {
    let file = |text: &str| File::new(Bytes::copy_from_slice(text.as_bytes()), 0o644);
    pairs.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
}

fn part(path: &str, frozen: bool) -> Option<SubPath> {
    Some(SubPath { path: path.to_owned(), frozen })
}

fn mount(path: &str, volume: &Arc<Volume>) -> Mount {
    Mount { path: path.to_owned(), volume: Arc::clone(volume), sub_path: None, read_only: false }
}

#[test]
fn the_version_is_that_of_the_dependency() {
    let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));
    assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"")));
}

#[test]
fn exit_codes() {
    let cases = [
        ("exit", "0", 0),
        // WASI 0.2 knows only success and failure.
        ("exit", "3", 1),
        ("exit.p1", "0", 0),
        ("exit.p1", "3", 3),
        ("exit.p1", "255", 255),
    ];
    for (name, code, expected) in cases {
        let (exit, output) = run(name, &[code]);
        assert_eq!((exit, output), (Exit::Code(expected), format!("leaving with {code}\n")), "{name}");
    }
    assert_eq!(run("worker.p1", &["0.01", "7"]), (Exit::Code(7), "working for 0.01 s\ndone\n".to_owned()));
    assert_eq!(run("worker", &["0"]), (Exit::Code(0), "working for 0 s\ndone\n".to_owned()));
}

#[test]
fn a_component_keeps_its_code_by_exit_with_code() {
    let wasm = wat::parse_str(
        r#"(component
            (import "wasi:cli/exit@0.2.12" (instance $exit
                (export "exit-with-code" (func (param "status-code" u8)))))
            (core module $m
                (import "exit" "code" (func $exit (param i32)))
                (func (export "run") (result i32) (call $exit (i32.const 42)) (i32.const 0)))
            (core func $code (canon lower (func $exit "exit-with-code")))
            (core instance $i (instantiate $m (with "exit" (instance (export "code" (func $code))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#,
    )
    .unwrap();
    let real = real();
    real.threads.block_on(async {
        let spec = spec_of(&real.runtime, wasm, &[]).await;
        assert_eq!(finish(&real.runtime, spec).await.0, Exit::Code(42));
    });
}

#[test]
fn a_guest_sees_its_arguments_environment_and_files() {
    let secret = Volume::projected(files(&[("token", "0123456789")]));
    let (exit, output) = run_with("hello", &["Kubernetes"], |spec| {
        spec.env.push(("GREETING".to_owned(), "Ahoy".to_owned()));
        spec.env.push(("SECRET_FILE".to_owned(), "/etc/secret/token".to_owned()));
        spec.mounts.push(mount("/etc/secret", &secret));
    });
    assert_eq!((exit, &*output), (Exit::Code(0), "Ahoy, Kubernetes!\nI was told a secret of 10 bytes.\n"));
    let (exit, output) = run_with("env", &["a", "b c"], |spec| {
        spec.env.push(("NAME".to_owned(), "value".to_owned()));
        spec.working_dir = Some("/work".to_owned());
    });
    assert_eq!(exit, Exit::Code(0));
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["NAME=value", "PWD=/work", "args [\"guest\", \"a\", \"b c\"]", "cwd /"]);
}

#[test]
fn traps_are_told_in_words() {
    let (exit, output) = run("trap", &[]);
    assert!(output.contains("there is no way on"), "{output}");
    let Exit::Trap(text) = exit else { panic!("{exit:?}") };
    assert!(text.starts_with("wasm trap: wasm `unreachable` instruction executed"), "{text}");
    let (exit, _) = run("recurse", &[]);
    assert!(matches!(&exit, Exit::Trap(text) if text.starts_with("wasm trap: ")), "{exit:?}");
}

#[test]
fn no_network_is_granted() {
    let denied = "connect false\nlisten false\nudp false\nlookup false\n";
    assert_eq!(run("connect", &[]), (Exit::Code(0), denied.to_owned()));
}

#[test]
fn a_guest_has_the_sockets_of_its_address() {
    let own: Ipv4Addr = "127.255.0.7".parse().unwrap();
    let other = std::net::TcpListener::bind("127.255.0.8:0").unwrap();
    let there = other.local_addr().unwrap().to_string();
    let machines = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = format!("127.0.0.1:{}", machines.local_addr().unwrap().port());
    let answering = std::thread::spawn(move || {
        let (mut stream, from) = other.accept().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
        write!(stream, "{} says {line}", from.ip()).unwrap();
    });
    let args = [
        ("bind", "0.0.0.0:7001", "127.255.0.7:7001".to_owned()),
        ("bind", "127.0.0.1:7002", "127.255.0.7:7002".to_owned()),
        ("bind", "127.255.0.8:7003", "denied".to_owned()),
        ("udp-bind", "0.0.0.0:7004", "127.255.0.7:7004".to_owned()),
        ("udp-bind", "127.64.0.1:7005", "denied".to_owned()),
        ("dial", &there, "127.255.0.7 says from 127.255.0.7".to_owned()),
        // Nobody listens there on the pod's own address; what listens is the machine's.
        ("dial", &here, "refused".to_owned()),
        ("dial", "127.0.0.2:7006", "denied".to_owned()),
        ("tcp-echo", "0.0.0.0:7007", "ping from 127.255.0.7".to_owned()),
        ("udp-echo", "0.0.0.0:7008", "ping from 127.255.0.7".to_owned()),
        ("lookup", "web", "127.96.0.2 127.96.0.4".to_owned()),
        ("lookup", "127.128.0.9", "127.128.0.9".to_owned()),
        ("lookup", "none", "unknown".to_owned()),
        ("lookup", "late", "later".to_owned()),
    ];
    let flat: Vec<&str> = args.iter().flat_map(|(what, address, _)| [*what, *address]).collect();
    let (exit, text) = run_with("connect", &flat, |spec| spec.network = Some(Arc::new(Fixed(own))));
    let expected: String =
        args.iter().map(|(what, address, answer)| format!("{what} {address}: {answer}\n")).collect();
    assert_eq!((exit, text), (Exit::Code(0), expected));
    answering.join().unwrap();
}

#[test]
fn a_guest_says_how_late_it_wakes_and_holds_what_it_may() {
    let (exit, text) = run("load", &["late", "20", "1"]);
    assert_eq!(exit, Exit::Code(0));
    assert!(text.starts_with("sleeping\nlate: p50 ") && text.ends_with(" us\n"), "{text}");
    assert_eq!(run("load", &["memory", "8", "0"]), (Exit::Code(0), "holding 8388608 bytes\n".to_owned()));
    assert_eq!(run("load", &["memory", "80"]).0, Exit::OutOfMemory);
    assert!(run("load", &["cpu", "0.01"]).1.starts_with("computing\ncomputed "));
}

#[test]
fn a_guest_serves_http_and_its_port_is_free_afterwards() {
    let real = real();
    for round in 0..2 {
        real.threads.block_on(async {
            let mut spec = spec(&real.runtime, "http", &["7010"]).await;
            spec.network = Some(Arc::new(Fixed("127.255.0.9".parse().unwrap())));
            spec.env = vec![("HOSTNAME".to_owned(), "web".to_owned())];
            let output = log_of(&spec);
            let container = real.runtime.start(spec).await;
            wait_for_output(&output, "listening on 127.255.0.9:7010").await;
            let ask = |request: &'static str| async move {
                let asked = tokio::task::spawn_blocking(move || {
                    let mut stream = std::net::TcpStream::connect("127.255.0.9:7010").unwrap();
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    answer
                });
                real.clock.timeout(DEADLINE, asked).await.unwrap().unwrap()
            };
            let answer = ask("GET / HTTP/1.1\r\n\r\n").await;
            assert!(answer.ends_with("\r\n\r\nhello from web\n"), "{answer}");
            let answer = ask("POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nabc"), "{answer}");
            if round == 0 {
                container.kill();
                assert_eq!(container.exited().await, Exit::Killed);
            } else {
                ask("POST /exit/0 HTTP/1.1\r\n\r\n").await;
                assert_eq!(container.exited().await, Exit::Code(0));
            }
        });
    }
}

#[test]
fn guests_that_spin_delay_nobody_and_die_at_once() {
    let real = real();
    real.threads.block_on(async {
        let mut spinning = Vec::new();
        for _ in 0..8 {
            let spec = spec(&real.runtime, "spin", &[]).await;
            let output = log_of(&spec);
            let container = real.runtime.start(spec).await;
            wait_for_output(&output, "spinning").await;
            spinning.push(container);
        }
        let (exit, _) = finish(&real.runtime, spec(&real.runtime, "hello", &[]).await).await;
        assert_eq!(exit, Exit::Code(0));
        for container in spinning {
            assert_eq!(container.exit(), None);
            container.kill();
            let exited = real.clock.timeout(Duration::from_secs(5), container.exited()).await;
            assert_eq!(exited, Ok(Exit::Killed));
            assert!(container.cpu_time() > Duration::ZERO);
        }
    });
}

#[test]
fn a_sleeping_guest_dies_at_once() {
    let real = real();
    real.threads.block_on(async {
        let spec = spec(&real.runtime, "worker", &["3600"]).await;
        let output = log_of(&spec);
        let container = real.runtime.start(spec).await;
        wait_for_output(&output, "working").await;
        container.kill();
        assert_eq!(real.clock.timeout(DEADLINE, container.exited()).await, Ok(Exit::Killed));
    });
}

#[test]
fn endless_output_stays_within_the_log() {
    let real = real();
    real.threads.block_on(async {
        let spec = spec(&real.runtime, "spew", &[]).await;
        let output = log_of(&spec);
        let container = real.runtime.start(spec).await;
        wait_for_bytes(&output, 4 * LOG_BYTES).await;
        let (exit, _) = finish(&real.runtime, super::tests::spec(&real.runtime, "hello", &[]).await).await;
        assert_eq!(exit, Exit::Code(0));
        drop(container);
        let end = output.read(&LogQuery { follow: true, ..LogQuery::default() }).count();
        real.clock.timeout(DEADLINE, end).await.unwrap();
        assert!(output.tail(usize::MAX, usize::MAX).len() < LOG_BYTES);
    });
}

#[test]
fn a_change_of_a_config_map_shows_in_a_running_guest() {
    let real = real();
    real.threads.block_on(async {
        let volume = Volume::projected(files(&[("greeting", "one")]));
        let mut spec = spec(&real.runtime, "logger", &["/etc/config/greeting"]).await;
        spec.mounts.push(mount("/etc/config", &volume));
        let output = log_of(&spec);
        let container = real.runtime.start(spec).await;
        wait_for_output(&output, "/etc/config/greeting: one\n").await;
        volume.replace(files(&[("greeting", "two"), ("more", "")]));
        wait_for_output(&output, "/etc/config/greeting: two\n").await;
        volume.replace(files(&[]));
        wait_for_output(&output, "/etc/config/greeting: No such file or directory").await;
        assert_eq!(container.exit(), None);
    });
}

#[test]
fn a_guest_without_a_job_has_no_queue() {
    let (exit, output) = run("queue", &[]);
    assert!(exit == Exit::Code(1) && output.contains("NoQueue"), "{exit:?}: {output}");
}

#[test]
fn a_guest_is_told_of_changes() {
    // A component, and a module that has our interfaces beside WASI 0.1.
    for guest in ["reload", "reload.p1"] {
        let real = real();
        real.threads.block_on(async {
            let volume = Volume::projected(files(&[("greeting", "one")]));
            let feed: Arc<Config> = Arc::default();
            let show = |revision, value: &str| {
                let values =
                    BTreeMap::from([("greeting".to_owned(), Bytes::copy_from_slice(value.as_bytes()))]);
                let settings = vec![Settings { values: Arc::new(values), part: None }];
                let source = Source { kind: SourceKind::ConfigMap, name: "settings".to_owned(), revision };
                feed.show(Shown { revision, sources: vec![source], settings });
            };
            show(7, "ONE");
            let mut spec = spec(&real.runtime, guest, &["/etc/greeting", "greeting", "none", "*"]).await;
            spec.mounts.push(Mount { sub_path: part("greeting", false), ..mount("/etc/greeting", &volume) });
            spec.config = Some(Arc::clone(&feed));
            let output = log_of(&spec);
            let container = real.runtime.start(spec).await;
            let wait = async |revision, file: &str, setting: &str| {
                let lines = [
                    format!("{revision} /etc/greeting: {file}"),
                    format!("{revision} greeting={setting}"),
                    format!("{revision} none=-"),
                    format!("{revision} of SourceKind::ConfigMap settings {revision}"),
                    format!("{revision} greeting={setting}"),
                ];
                wait_for_output(&output, &format!("{}\n", lines.join("\n"))).await;
            };
            wait(7, "one", "ONE").await;
            // Woken means: the new bytes are there.
            for round in 8..20_u64 {
                let text = round.to_string();
                volume.replace(files(&[("greeting", &text)]));
                show(round, &text);
                wait(round, &text, &text).await;
            }
            assert_eq!(container.exit(), None, "{guest}");
            // And only then.
            let lines = output.tail(usize::MAX, usize::MAX).lines().count();
            assert_eq!(lines, 13 * 5, "{guest}");
        });
    }
}

#[test]
fn a_change_shows_in_a_part_of_a_volume_unless_it_is_frozen() {
    let real = real();
    real.threads.block_on(async {
        let volume = Volume::projected(files(&[("greeting", "one")]));
        let mut running = Vec::new();
        for frozen in [false, true] {
            let mut spec = spec(&real.runtime, "logger", &["/etc/greeting"]).await;
            spec.mounts.push(Mount { sub_path: part("greeting", frozen), ..mount("/etc/greeting", &volume) });
            let output = log_of(&spec);
            running.push((real.runtime.start(spec).await, output));
        }
        let [(live, live_log), (frozen, frozen_log)] = &running[..] else { panic!() };
        wait_for_output(live_log, "/etc/greeting: one\n").await;
        wait_for_output(frozen_log, "/etc/greeting: one\n").await;
        volume.replace(files(&[("greeting", "two"), ("more", "")]));
        wait_for_output(live_log, "/etc/greeting: two\n").await;
        volume.replace(files(&[]));
        wait_for_output(live_log, "/etc/greeting: No such file or directory").await;
        volume.replace(files(&[("greeting", "back")]));
        wait_for_output(live_log, "/etc/greeting: back\n").await;
        assert_eq!((live.exit(), frozen.exit()), (None, None));
        assert_eq!(frozen_log.tail(usize::MAX, usize::MAX), "/etc/greeting: one\n");
    });
}

#[test]
fn what_guests_do_with_files() {
    // The C library for WASI 0.2 makes one error of every failed write to a stream, and the adapter
    // of WASI 0.1 looks at what it reads before it asks the host.
    check_files("files", "I/O error", "Is a directory");
    check_files("files.p1", "No space left on device", "Bad file descriptor");
}

#[track_caller]
fn check_files(guest: &str, full: &str, is_directory: &str) {
    let config = Volume::projected(files(&[("a", "alpha"), ("dir/b", "beta"), ("dir/deep/c", "")]));
    let scratch = Volume::empty_dir(1_000);
    // One line a step; the steps of a guest see what came before.
    let steps = [
        ("read /config/a", "alpha"),
        ("read /config/dir/b", "beta"),
        ("lstat /config/a", "link 8"),
        ("stat /config/a", "file 5"),
        ("readlink /config/a", "..data/a"),
        ("readlink /config/dir", "..data/dir"),
        ("list /config/dir", "b deep/"),
        ("stat /config/dir", "directory 0"),
        ("read /config/none", "No such file or directory"),
        ("read /config/dir", is_directory),
        ("read /config/a/b", "Not a directory"),
        ("read /config/../scratch/x", "Operation not permitted"),
        ("read /elsewhere", "No such file or directory"),
        ("write /config/a no", "Read-only file system"),
        ("write /config/new no", "Read-only file system"),
        ("rm /config/a", "Read-only file system"),
        ("mkdir /config/d", "Read-only file system"),
        (
            "walk /config",
            "..TIME/ ..TIME/a(5) ..TIME/dir/ ..TIME/dir/b(4) ..TIME/dir/deep/ ..TIME/dir/deep/c(0) \
             ..data->..TIME a->..data/a dir->..data/dir",
        ),
        ("read /config/..data/dir/b", "beta"),
        ("read /config/dir/../a", "alpha"),
        ("seek /config/a 1 +0 -2 +1", "1:lph 4:a 3:ha 6:"),
        ("together /config/a /config/dir/b /nested/a /etc/app.conf", "alpha beta alpha beta"),
        ("age /config/a", "recent"),
        ("env GREETING", "hi, there"),
        ("env NONE", "not set"),
        (
            "refused /config a",
            "overwrite=ReadOnlyFilesystem append=ReadOnlyFilesystem update=ReadOnlyFilesystem \
             truncate=ReadOnlyFilesystem create=ReadOnlyFilesystem mkdir=ReadOnlyFilesystem \
             remove=ReadOnlyFilesystem rmdir=ReadOnlyFilesystem rename=ReadOnlyFilesystem \
             link=ReadOnlyFilesystem",
        ),
        ("list /scratch", "inside/"),
        ("write /scratch/f hello", "done"),
        ("append /scratch/f , world", "no such step"),
        ("append /scratch/f -world", "done"),
        ("read /scratch/f", "hello-world"),
        ("overwrite /scratch/f 6 World", "hello-World"),
        ("create-new /scratch/f", "File exists"),
        ("create-new /scratch/g", "done"),
        ("truncate /scratch/f 5", "done"),
        ("read /scratch/f", "hello"),
        ("mkdir /scratch/d", "done"),
        ("mkdir /scratch/d", "File exists"),
        ("rename /scratch/f /scratch/d/f", "done"),
        ("list /scratch", "d/ g inside/"),
        ("rmdir /scratch/d", "Directory not empty"),
        ("rm /scratch/d", "Is a directory"),
        ("rename /scratch/d/f /config/f", "Cross-device link"),
        ("link /scratch/d/f /scratch/h", "done"),
        ("rm /scratch/d/f", "done"),
        ("read-removed /scratch/h", "hello"),
        ("rmdir /scratch/d", "done"),
        ("fill /scratch/big 1000", "done"),
        ("append /scratch/big x", full),
        ("rm /scratch/big", "done"),
        ("fill /scratch/big 1001", full),
        ("write /nested/over/inner/x 1", "done"),
        ("read /scratch/inside/x", "1"),
        ("read /nested/a", "alpha"),
        ("read /etc/app.conf", "beta"),
        ("stat /etc/app.conf", "file 4"),
        ("write /etc/app.conf no", "Read-only file system"),
        ("read /frozen.conf", "beta"),
        ("stat /frozen.conf", "file 4"),
        ("list /part", "b deep/"),
        ("stat /part", "directory 0"),
        ("read /part/b", "beta"),
        ("read /part/deep/c", ""),
        ("read /part/../a", "Operation not permitted"),
        ("rm /part/b", "Read-only file system"),
        ("read /later", "No such file or directory"),
        ("stat /later", "No such file or directory"),
        ("list /later", "No such file or directory"),
        ("list /never", ""),
        ("read /locked/g", ""),
        ("write /locked/g no", "Read-only file system"),
    ];
    let args: Vec<&str> = steps.iter().map(|(step, _)| *step).collect();
    let (exit, output) = run_with(guest, &args, |spec| {
        spec.env = vec![("GREETING".to_owned(), "hi, there".to_owned())];
        spec.mounts = vec![
            mount("/config", &config),
            mount("/scratch", &scratch),
            mount("/nested", &config),
            Mount { sub_path: part("inside", false), ..mount("/nested/over/inner", &scratch) },
            Mount { sub_path: part("dir/b", false), ..mount("/etc/app.conf", &config) },
            Mount { sub_path: part("dir/b", true), ..mount("/frozen.conf", &config) },
            Mount { sub_path: part("dir", false), ..mount("/part", &config) },
            Mount { sub_path: part("later", false), ..mount("/later", &config) },
            Mount { sub_path: part("later", true), ..mount("/never", &config) },
            Mount { read_only: true, ..mount("/locked", &scratch) },
        ];
    });
    assert_eq!(exit, Exit::Code(0));
    let expected: Vec<String> = steps.iter().map(|(step, result)| format!("{step}: {result}")).collect();
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn relative_paths_start_in_the_working_directory() {
    let volume = Volume::projected(files(&[("a", "outer"), ("dir/a", "inner")]));
    for (directory, expected) in [
        ("/config", "outer"),
        ("/config/", "outer"),
        ("/config/dir", "inner"),
        ("/config/none", "No such file or directory"),
        ("/", "No such file or directory"),
    ] {
        let (_, output) = run_with("files", &["read a", "read ./a"], |spec| {
            spec.working_dir = Some(directory.to_owned());
            spec.mounts.push(mount("/config", &volume));
        });
        assert_eq!(output, format!("read a: {expected}\nread ./a: {expected}\n"), "{directory}");
    }
}

#[test]
fn an_image_is_prepared_once() {
    let real = real();
    real.threads.block_on(async {
        let wasm = Bytes::from(fixture("spin").unwrap());
        let copy = Bytes::copy_from_slice(&wasm);
        let prepare = |wasm: &Bytes| real.runtime.prepare(wasm.clone());
        let (first, second) = tokio::join!(prepare(&wasm), prepare(&copy));
        let (first, second, third) = (first.unwrap(), second.unwrap(), prepare(&wasm).await.unwrap());
        assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &third));
        assert_eq!(first.digest(), format!("sha256:{}", hex(&Sha256::digest(&wasm))));
    });
}

#[test]
fn what_cannot_run_is_said_when_preparing() {
    let real = real();
    real.threads.block_on(async {
        let told = |wasm: Vec<u8>| async { real.runtime.prepare(wasm.into()).await.err().unwrap() };
        assert!(matches!(told(b"nothing of the kind".to_vec()).await, ImageError::Garbage(_)));
        // The header is right, but a byte of the code is not.
        let mut damaged = fixture("hello").unwrap();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 64].fill(0xff);
        assert!(matches!(told(damaged).await, ImageError::Garbage(_)));
        // The interface is there, but not all of it.
        let wasm = wat::parse_str(
            r#"(component (import "wasi:cli/exit@0.2.0" (instance (export "frob" (func))))
                (core module $m (func (export "run") (result i32) i32.const 0))
                (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $run (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $run)))"#,
        );
        let error = told(wasm.unwrap()).await;
        let ImageError::MissingImports(imports) = &error else { panic!("{error:?}") };
        assert!(imports[0].contains("wasi:cli/exit@0.2.0") && imports[0].contains("frob"), "{error}");
    });
}

#[test]
fn compiled_code_is_kept_and_replaced_when_damaged() {
    let real = real();
    let directory = tempfile::tempdir().unwrap();
    let compiled = directory.path().join("compiled");
    let wasm = fixture("hello").unwrap();
    // A new runtime, as after a restart; how often it had to compile.
    let hello = || {
        real.threads.block_on(async {
            let runtime = runtime(real.clock, real.threads.handle().clone(), Some(compiled.clone()));
            let spec = spec_of(&runtime, wasm.clone(), &[]).await;
            assert_eq!(finish(&runtime, spec).await.0, Exit::Code(0));
            runtime.compilations()
        })
    };
    assert_eq!(hello(), 1);
    assert_eq!(hello(), 0);
    let entry = std::fs::read_dir(&compiled).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&entry).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    for damaged in [bad, good[..good.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&entry, &damaged).unwrap();
        assert_eq!(hello(), 1);
        assert_eq!(hello(), 0);
    }
}

#[test]
fn more_guests_than_the_pool_has_places() {
    let real = real();
    real.threads.block_on(async {
        let image = spec(&real.runtime, "worker", &[]).await.image;
        let mut containers = Vec::new();
        for _ in 0..1_020 {
            let mut spec = spec(&real.runtime, "exit", &[]).await;
            spec.image = Arc::clone(&image);
            spec.args.push("3600".to_owned());
            let output = log_of(&spec);
            containers.push((real.runtime.start(spec).await, output));
        }
        for (container, output) in &containers {
            wait_for_output(output, "working").await;
            assert_eq!(container.exit(), None);
        }
    });
}

#[test]
fn a_guest_that_imports_the_interface_is_asked_to_stop() {
    let real = real();
    real.threads.block_on(async {
        for (name, args, ends) in [
            ("finish", &["0.01"][..], true),
            ("finish.p1", &["0.01"], true),
            ("finish", &["0.01", "ignore"], false),
        ] {
            let spec = spec(&real.runtime, name, args).await;
            let log = log_of(&spec);
            let container = real.runtime.start(spec).await;
            wait_for_output(&log, "working\n").await;
            assert!(container.ask_to_stop(Duration::from_secs(3_600)), "{name}");
            if ends {
                let exit = real.clock.timeout(DEADLINE, container.exited()).await.unwrap();
                assert_eq!(exit, Exit::Code(0), "{name}");
                let output = log.tail(usize::MAX, usize::MAX);
                assert!(
                    output.contains("asked to stop within 3599.") || output.contains("within 3600.0 s"),
                    "{output}"
                );
                assert!(output.ends_with("finished\n"), "{output}");
            } else {
                wait_for_output(&log, "going on\n").await;
                assert_eq!(container.exit(), None);
                container.kill();
                assert_eq!(container.exited().await, Exit::Killed);
            }
        }
        // Others are not, whatever they do.
        let container = real.runtime.start(spec(&real.runtime, "worker", &["3600"]).await).await;
        assert!(!container.ask_to_stop(Duration::ZERO));
    });
}

/// What a sleeping, drawing and killed guest do in virtual time.
fn in_virtual_time() -> Vec<String> {
    let threads = virtual_runtime().unwrap();
    threads.block_on(async {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = runtime(clock, Handle::current(), None);
        let mut seen = Vec::new();
        let (exit, output) = finish_slowly(&runtime, spec(&runtime, "worker", &["3600"]).await).await;
        seen.push(format!("{exit:?} {output} {}", clock.now()));
        let query = LogQuery { timestamps: true, ..LogQuery::default() };
        let logged = spec(&runtime, "worker.p1", &["60", "3"]).await;
        let log = log_of(&logged);
        seen.push(format!("{:?}", finish_slowly(&runtime, logged).await.0));
        let lines: Vec<Bytes> = log.read(&query).collect().await;
        seen.push(String::from_utf8(lines.concat()).unwrap());
        seen
    })
}

async fn finish_slowly(runtime: &WasmRuntime, spec: ContainerSpec) -> (Exit, String) {
    let output = log_of(&spec);
    let exit = runtime.start(spec).await.exited().await;
    (exit, output.tail(usize::MAX, usize::MAX))
}

#[test]
fn virtual_time_passes_while_guests_sleep() {
    let seen = in_virtual_time();
    assert_eq!(
        seen,
        [
            "Code(0) working for 3600 s\ndone\n 2026-01-01T01:00:00Z",
            "Code(3)",
            "2026-01-01T01:00:00.000000000Z working for 60 s\n2026-01-01T01:01:00.000000000Z done\n",
        ]
    );
    assert_eq!(seen, in_virtual_time());
}

#[test]
fn a_guest_that_spins_or_spews_can_be_killed_in_virtual_time() {
    let threads = virtual_runtime().unwrap();
    threads.block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let runtime = runtime(clock, Handle::current(), None);
        for name in ["spin", "spew"] {
            let container = runtime.start(spec(&runtime, name, &[]).await).await;
            clock.sleep(Duration::from_secs(3)).await;
            container.kill();
            assert_eq!(container.exited().await, Exit::Killed);
        }
    });
}
