//! One container, one instance.
//!
//! A [`Runtime`] turns a [`ContainerSpec`] into a [`Container`] that runs until it exits or is
//! killed. [`wasm`] runs the code; [`sim`] plays a script of delays, durations and failures. Nothing
//! here knows of pods or of the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

#[cfg(target_os = "linux")]
mod arena;
pub mod budget;
mod cache;
mod component;
pub mod config;
pub mod doors;
mod engine;
mod environment;
pub mod fs;
pub mod http;
mod instance;
mod limits;
pub mod log;
pub mod network;
pub mod pipe;
pub mod queue;
mod shares;
pub mod sim;
mod sockets;
pub mod stdio;
mod stop;
mod ticker;
mod turns;
pub mod wasm;

pub use component::{Surface, describe};

/// An image made ready to run: compiled, or nothing for `sim`.
pub trait Image: Send + Sync + std::any::Any {
    /// `sha256:…` of the bytes it was made from.
    fn digest(&self) -> &str;

    /// It can be run as a command.
    fn is_command(&self) -> bool {
        true
    }

    /// It is a handler of HTTP requests: a container of it is served, with [`ContainerSpec::http`].
    fn is_handler(&self) -> bool {
        false
    }
}

/// Why bytes cannot become an image, in words for a pod's status.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// Not WebAssembly, or damaged.
    #[error("not a WebAssembly module or component: {0}")]
    Garbage(String),
    /// Imports that the host does not offer, each as `wasi:sockets/tcp@0.2.0` or `env.foo`.
    #[error("imports that the host lacks: {}", .0.join(", "))]
    MissingImports(Vec<String>),
    /// Valid, but nothing that runs: it exports no `wasi:cli/run`, no `wasi:http/incoming-handler` and no
    /// `_start`.
    #[error("not a command: {0}")]
    NotACommand(String),
}

/// Everything one run of a container needs.
pub struct ContainerSpec {
    /// For logs of our own: `namespace/pod/container`.
    pub label: String,
    pub image: Arc<dyn Image>,
    /// The program's name first.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// The guest's initial working directory, `PWD`; `None` is the root.
    pub working_dir: Option<String>,
    /// Directories (or single files) at absolute paths in the guest, longest first wins.
    pub mounts: Vec<fs::Mount>,
    /// What the guest may know of its configuration; `None` if it has none.
    pub config: Option<Arc<config::Config>>,
    /// The work of its Job; `None` if it has none.
    pub queue: Option<Arc<dyn queue::Queue>>,
    /// Where its sockets are and what they reach; `None` is a container without a network.
    pub network: Option<Arc<dyn network::Network>>,
    /// How it is served if its image is a handler; `None` runs the command, as beside a container.
    pub http: Option<http::Http>,
    /// Memory and processor time, shared with the container's other runs. A run that asks for more memory
    /// ends with [`Exit::OutOfMemory`].
    pub budget: Arc<budget::Budget>,
    pub fuel: Fuel,
    pub stdio: stdio::Stdio,
    /// The pod's annotations: where `sim` finds its script.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a run's work is counted, in wasmtime's fuel: about one for each instruction of WebAssembly.
/// It makes a run slower; for the same work the count is the same on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fuel {
    #[default]
    Off,
    Count,
    /// Counted, and so much ends it with [`Exit::Trap`].
    Limit(u64),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The program's own code (WASI 0.2's `exit` carries only 0 and 1; WASMTIME.md section 2).
    Code(i32),
    /// A trap, in words.
    Trap(String),
    /// The memory limit was hit.
    OutOfMemory,
    /// Killed by [`Container::kill`].
    Killed,
}

/// A running container. Dropping it kills it.
pub struct Container {
    exit: watch::Receiver<Option<Exit>>,
    kill: Box<dyn Fn() + Send + Sync>,
    /// Asks it to end within a time, if it can hear that.
    ask: Option<Box<dyn Fn(Duration) + Send + Sync>>,
    meter: Option<Arc<limits::Meter>>,
}

impl Container {
    /// For runtimes: `kill` must make `exit` come true soon.
    #[must_use]
    pub fn new(exit: watch::Receiver<Option<Exit>>, kill: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { exit, kill, ask: None, meter: None }
    }

    fn with_meter(mut self, meter: Arc<limits::Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// For runtimes: this run can hear that it is to end within a time, by `ask`.
    #[must_use]
    pub fn hearing(mut self, ask: Box<dyn Fn(Duration) + Send + Sync>) -> Self {
        self.ask = Some(ask);
        self
    }

    /// Processor time used so far by all runs that share its budget; zero where nothing runs.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.meter.as_ref().map_or(Duration::ZERO, |meter| meter.budget().used())
    }

    /// Bytes that all runs that share its budget take; zero where nothing runs.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.meter.as_ref().map_or(0, |meter| meter.budget().memory())
    }

    /// Fuel that it has used, as of when it last gave way, but for a loop that has called nothing yet; `None`
    /// if that is not counted.
    #[must_use]
    pub fn fuel(&self) -> Option<u64> {
        self.meter.as_ref().and_then(|meter| meter.fuel())
    }

    /// Completes when the run has ended.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().expect("waited for it"),
            Err(_) => Exit::Killed,
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Asks the guest to end by itself within `left`, for the earliest of the deadlines it was given; false
    /// if its image cannot hear that. Nothing else happens when the time is over.
    #[must_use]
    pub fn ask_to_stop(&self, left: Duration) -> bool {
        self.ask.as_ref().map(|ask| ask(left)).is_some()
    }

    /// Ends the run at once; [`Container::exited`] tells when it has.
    pub fn kill(&self) {
        (self.kill)();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        (self.kill)();
    }
}

/// Tells how a run ended once its task is gone, by itself or killed.
struct Ending {
    stdio: stdio::Stdio,
    exit: watch::Sender<Option<Exit>>,
    result: Exit,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.result = Exit::Trap("the runtime failed while it ran the container".to_owned());
        }
        self.stdio.close();
        self.exit.send_replace(Some(self.result.clone()));
    }
}

/// What runs containers on a node.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// `wasmtime://48.0.8`-like, for `nodeInfo.containerRuntimeVersion`.
    fn version(&self) -> String;

    /// Makes an image from its bytes; cached by digest, on disk where the runtime compiles.
    async fn prepare(&self, wasm: Bytes) -> Result<Arc<dyn Image>, ImageError>;

    /// Starts a run. Returns once the run is in the hands of the guests' threads; a guest that fails
    /// to instantiate ends with [`Exit::Trap`]. The output is closed when the run ends.
    async fn start(&self, spec: ContainerSpec) -> Container;

    /// How long a start pretends to take, for scripts; zero for code that runs. The caller waits for
    /// this long before [`Runtime::start`].
    fn start_delay(&self, _annotations: &BTreeMap<String, String>) -> Duration {
        Duration::ZERO
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}
