//! The command line: one file a command. A contract that tests and users rely on.

mod access;
mod bench;
mod config;
mod image;
mod key;
mod progress;
mod queue;
mod registry;
mod run;
mod trigger;
mod up;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use etcetera::BaseStrategy;
use tracing_subscriber::EnvFilter;

/// Why a command failed: every error knows what was attempted, on what, and often the mend.
pub type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(
    name = "coracle",
    version,
    about = "A whole Kubernetes cluster in one small binary, whose pods are WebAssembly",
    after_help = "First steps:\n  \
        coracle up                                       start a cluster; leave it running\n  \
        export KUBECONFIG=<the path that `up` prints>    in another terminal\n  \
        kubectl run hello --image=coracle.dev/hello --restart=Never\n  \
        kubectl logs hello\n\n\
        Just one program, no cluster to keep:\n  \
        coracle run hello.wasm -- first second\n\n\
        Logs of Coracle itself go to stderr; RUST_LOG=coracle=debug shows each decision."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Run(run::Run),
    Image(image::Image),
    Compile(image::Compile),
    Key(key::Key),
    Config(config::Config),
    Trigger(trigger::Trigger),
    Queue(queue::Queue),
    Bench(bench::Bench),
}

/// Runs the command; the number is the process's exit code.
pub fn run(cli: Cli) -> Result<u8, Failure> {
    match cli.command {
        Command::Up(up) => up.run().map(|()| 0),
        Command::Run(run) => run.run(),
        Command::Image(image) => image.run().map(|()| 0),
        Command::Compile(compile) => compile.run().map(|()| 0),
        Command::Key(key) => key.run().map(|()| 0),
        Command::Config(config) => config.run(),
        Command::Trigger(trigger) => trigger.run().map(|()| 0),
        Command::Queue(queue) => queue.run().map(|()| 0),
        Command::Bench(bench) => bench.run().map(|()| 0),
    }
}

/// Sends Coracle's own log to stderr: warnings and worse, or what `RUST_LOG` says.
pub fn install_tracing() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).init();
}

/// Says on one line why a command failed: what was attempted, on what, and every cause.
pub fn tell(error: &(dyn Error + 'static)) {
    eprintln!("coracle: {}", one_line(error));
}

/// Keeps what the process has in memory, Secrets among it, out of core dumps.
///
/// A limit of one byte, not of none: where `core_pattern` names a program the kernel ignores every
/// limit but this one, at which it starts none (Linux `fs/coredump.c`). Where the limit cannot be had,
/// because it is lower already and raising it needs a privilege, the process becomes one that is never
/// dumped; that is second choice, because such a process of a user other than root cannot read its own
/// pagemap, with which guests start faster.
pub fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    let limited = setrlimit(Resource::Core, limit);
    #[cfg(target_os = "linux")]
    let limited = limited
        .or_else(|_| rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable));
    if let Err(error) = limited {
        eprintln!("coracle: cannot forbid core dumps, which could hold Secrets: {error}");
    }
}

/// Lets the process have as many files as it may: each connection is one, or three where it is a pod's through a
/// Service, and shells begin with a limit that is low for the sake of old programs.
pub fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.map_or(FILES_MAX, |maximum| maximum.min(FILES_MAX));
    if current.is_some_and(|current| current < most)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum })
    {
        tracing::debug!(%error, most, "the limit of open files stays");
    }
}

/// More open files than a cluster of one machine has, and few enough for every system to allow.
const FILES_MAX: u64 = 1 << 20;

/// An error and its causes as one line.
#[must_use]
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line.replace('\n', " ")
}

/// Where a cluster keeps its data.
#[derive(clap::Args, Clone, Debug)]
struct DataDir {
    /// Where objects and images are kept [default: coracle in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// Whether the user chose it.
    fn is_named(&self) -> bool {
        self.data_dir.is_some()
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.data_dir {
            return Ok(path.clone());
        }
        let base = etcetera::choose_base_strategy().map_err(|error| {
            format!("cannot tell the user's data directory ({error}); name one with --data-dir")
        })?;
        Ok(base.data_dir().join("coracle"))
    }
}

/// Where the key is that Secrets are encrypted with.
#[derive(clap::Args, Clone, Debug)]
struct KeyFile {
    /// The key that Secrets are encrypted with [default: the data directory's path with .key appended]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeyFile {
    fn path(&self, data_dir: &Path) -> Result<PathBuf, Failure> {
        Ok(crate::store::locate(data_dir, self.key_file.as_deref())?)
    }
}

/// The control plane's runtime: its own threads, so that guests cannot delay it.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("coracle")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime's threads: {error}").into())
}

/// Reads a file that the user named.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

/// How long a command waits for a cluster to be ready before it says that something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(60);
