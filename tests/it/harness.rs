//! Real clusters on free ports, and the programs that drive them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// Longer than anything here takes, shorter than a person's patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What Coracle logs at every level and its libraries up to debug, but for the compiler of guests, which
/// never sees an object and writes gigabytes.
const EVERYTHING: &str = "debug,coracle=trace,cranelift=warn,regalloc=warn,wasmtime=warn";

/// Whether a program is on this machine. One that is missing skips the test, loudly; with
/// `CORACLE_REQUIRE_TOOLS=1` it fails it.
#[must_use]
pub(crate) fn has(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(tool).is_file()));
    if !found {
        skipped(&format!("{tool} is not on this machine"));
    }
    found
}

/// Whether Python has this module, as [`has`] tells of tools.
pub(crate) fn has_python_module(module: &str) -> bool {
    let status =
        Command::new("python3").args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    if !found {
        skipped(&format!("Python's module {module} is not on this machine (pip install {module})"));
    }
    found
}

/// Says so loudly, or fails where all tools must be there.
fn skipped(text: &str) {
    assert!(std::env::var_os("CORACLE_REQUIRE_TOOLS").is_none(), "{text}, and CORACLE_REQUIRE_TOOLS is set");
    // Not `eprintln`, which the test runner keeps to itself when a test passes.
    let loudly = format!("\n******** SKIPPED: {text} ********\n\n");
    std::io::stderr().write_all(loudly.as_bytes()).unwrap();
}

/// `coracle`, to be given arguments.
#[must_use]
pub(crate) fn coracle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.stdin(Stdio::null());
    command
}

/// A running `coracle up`; killed when dropped.
pub(crate) struct Up {
    child: Child,
    pub(crate) url: String,
    pub(crate) kubeconfig: PathBuf,
    directory: TempDir,
    arguments: Vec<String>,
    /// Where it logs everything, if it does.
    log: Option<PathBuf>,
}

impl Up {
    /// Starts a cluster in memory with more `arguments` and waits until it is ready.
    #[must_use]
    pub(crate) fn ephemeral(arguments: &[&str]) -> Self {
        let mut all = vec!["--ephemeral"];
        all.extend(arguments);
        Self::start(TempDir::new().unwrap(), &all, None)
    }

    /// Starts a cluster that keeps its data.
    #[must_use]
    pub(crate) fn durable(arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let data = directory.path().join("data");
        let mut all = vec!["--data-dir", data.to_str().unwrap()];
        all.extend(arguments);
        Self::start(directory, &all, None)
    }

    /// As [`Up::durable`], with all that Coracle and its libraries have to say in [`Up::log`].
    #[must_use]
    pub(crate) fn logged(arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let (data, log) = (directory.path().join("data"), directory.path().join("log"));
        let mut all = vec!["--data-dir", data.to_str().unwrap()];
        all.extend(arguments);
        Self::start(directory, &all, Some(log))
    }

    /// As [`Up::ephemeral`], with what it says on stderr in [`Up::log`], started by `program`, which is given the
    /// command.
    #[must_use]
    pub(crate) fn ephemeral_by(program: &[&str], arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let log = directory.path().join("log");
        let mut all = vec!["--ephemeral"];
        all.extend(arguments);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(env!("CARGO_BIN_EXE_coracle")).stdin(Stdio::null());
        command.stderr(std::fs::File::create(&log).unwrap());
        Self::start_by(command, directory, &all, Some(log))
    }

    fn start(directory: TempDir, arguments: &[&str], log: Option<PathBuf>) -> Self {
        let mut command = coracle();
        log_everything(&mut command, log.as_deref());
        Self::start_by(command, directory, arguments, log)
    }

    fn start_by(command: Command, directory: TempDir, arguments: &[&str], log: Option<PathBuf>) -> Self {
        let kubeconfig = directory.path().join("kubeconfig");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (child, url) = spawn(command, &arguments, &kubeconfig);
        Self { child, url, kubeconfig, directory, arguments, log }
    }

    /// The process.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What a cluster of [`Up::logged`] or [`Up::ephemeral_by`] has logged.
    #[must_use]
    pub(crate) fn log(&self) -> Vec<u8> {
        std::fs::read(self.log.as_ref().unwrap()).unwrap()
    }

    /// kill -9, then the same command again on the same data.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// The same command again on the same data, after [`Up::stop`].
    pub(crate) fn start_again(&mut self) {
        let mut command = coracle();
        log_everything(&mut command, self.log.as_deref());
        (self.child, self.url) = spawn(command, &self.arguments, &self.kubeconfig);
    }

    #[must_use]
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A place for a test's own files.
    #[must_use]
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// `kubectl` against this cluster, with input from a string.
    #[must_use]
    pub(crate) fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // kubectl takes what begins with a brace for JSON, unless a document mark comes first.
        let input = format!("---\n{input}");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    #[must_use]
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        // kubectl's own request timeout does not end `logs -f` or `wait`.
        command.arg(DEADLINE.as_secs().to_string()).arg("kubectl");
        command.arg("--cache-dir").arg(self.scratch().join("kubectl-cache"));
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.scratch())
            .stdin(Stdio::null());
        command
    }

    #[must_use]
    pub(crate) fn kubectl_output(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().unwrap()
    }

    /// `kubectl`'s stdout; fails the test if kubectl fails or warns.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(arguments, self.kubectl_output(arguments))
    }

    /// As [`Up::kubectl`], with a manifest on stdin: give `-f -`.
    #[track_caller]
    pub(crate) fn kubectl_stdin(&self, arguments: &[&str], input: &str) -> String {
        succeeded(arguments, self.kubectl_with_input(arguments, input))
    }

    /// `kubectl`'s stderr; fails the test if kubectl succeeds.
    #[track_caller]
    pub(crate) fn kubectl_fails(&self, arguments: &[&str]) -> String {
        failed(arguments, self.kubectl_output(arguments))
    }

    #[track_caller]
    pub(crate) fn kubectl_stdin_fails(&self, arguments: &[&str], input: &str) -> String {
        failed(arguments, self.kubectl_with_input(arguments, input))
    }

    /// Imports a .wasm file as an image, as a user would.
    pub(crate) fn import(&self, wasm: &Path, name: &str) {
        let output = coracle()
            .args(["image", "import", wasm.to_str().unwrap(), "--name", name, "--data-dir"])
            .arg(self.data_dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn log_everything(command: &mut Command, log: Option<&Path>) {
    if let Some(path) = log {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        command.env("RUST_LOG", EVERYTHING).stderr(log);
    }
}

fn spawn(mut command: Command, arguments: &[String], kubeconfig: &Path) -> (Child, String) {
    // No test reaches beyond this machine.
    command
        .args(["up", "--offline", "--listen", "127.0.0.1:0", "--kubeconfig"])
        .arg(kubeconfig)
        .args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).ok();
        send.send(line).ok();
    });
    let line = receive.recv_timeout(DEADLINE).unwrap_or_default();
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("ready"), "`coracle up {}` printed {line:?}", arguments.join(" "));
    (child, words.next().unwrap().to_owned())
}

#[track_caller]
fn succeeded(arguments: &[&str], output: Output) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "kubectl {}: {stderr}{stdout}", arguments.join(" "));
    assert!(!stderr.contains("Warning"), "kubectl {}: {stderr}", arguments.join(" "));
    stdout
}

#[track_caller]
fn failed(arguments: &[&str], output: Output) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(!output.status.success(), "kubectl {} succeeded: {stdout}", arguments.join(" "));
    stderr
}

/// An address of this machine that is not loopback, if it has one.
pub(crate) fn outside() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only says where it would be sent from.
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

#[must_use]
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
