//! What all runs of one container have in common: its own, and those beside it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Container;
use tokio_util::sync::CancellationToken;

use super::nodes::NodeContext;
use crate::clock::Clock;
use crate::runtime::budget::Budget;
use crate::runtime::config::Config;
use crate::runtime::log::Log;
use crate::runtime::network::Network;
use crate::runtime::pipe::{PIPE_BYTES, Pipe};
use crate::runtime::queue::Queue;
use crate::runtime::stdio::{Output, Stdio, Taps};
use crate::runtime::{ContainerSpec, Fuel, Image, fs};

/// A container made ready to run: made once by [`start`](super::start), for as long as that run lasts.
pub(crate) struct Setup {
    pub(crate) node: Arc<NodeContext>,
    /// `namespace/pod/container`
    pub(crate) label: String,
    pub(crate) pod_ip: Ipv4Addr,
    /// None where the pod has no address.
    pub(crate) network: Option<Arc<dyn Network>>,
    pub(crate) image: Arc<dyn Image>,
    /// The name that the container's own program goes by: the first word of its command line.
    pub(crate) program: String,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: Option<String>,
    pub(crate) mounts: Vec<fs::Mount>,
    pub(crate) config: Option<Arc<Config>>,
    pub(crate) queue: Option<Arc<dyn Queue>>,
    /// Of all its runs together.
    pub(crate) budget: Arc<Budget>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) streams: Streams,
    /// The container's own run has ended, and with it every other.
    pub(crate) over: CancellationToken,
}

impl Setup {
    /// A run of `image` as a command with these arguments, the program's name first, and everything else as the
    /// container has it. Limits are shared by all runs.
    pub(crate) fn spec(
        &self,
        image: Arc<dyn Image>,
        args: Vec<String>,
        stdio: Stdio,
        fuel: Fuel,
    ) -> ContainerSpec {
        ContainerSpec {
            label: self.label.clone(),
            image,
            args,
            env: self.env.clone(),
            working_dir: self.working_dir.clone(),
            mounts: self.mounts.clone(),
            config: self.config.clone(),
            queue: self.queue.clone(),
            network: self.network.clone(),
            http: None,
            budget: self.budget.clone(),
            fuel,
            stdio,
            annotations: self.annotations.clone(),
        }
    }
}

/// The standard streams of the container's own run, for those who attach to it.
pub(crate) struct Streams {
    /// Waits for somebody to attach, if the container has a `stdin`.
    pub(crate) stdin: Option<Arc<Pipe>>,
    /// Whoever attached first ends it when it goes.
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) stdout: Arc<Taps>,
    pub(crate) stderr: Arc<Taps>,
}

impl Streams {
    pub(crate) fn new(container: &Container, clock: Clock, budget: &Arc<Budget>) -> Self {
        let has_stdin = container.stdin.unwrap_or(false);
        let tty = container.tty.unwrap_or(false);
        let taps = || Taps::new(clock, budget.clone());
        let stdout = taps();
        Self {
            stdin: has_stdin.then(|| Pipe::new(PIPE_BYTES)),
            stdin_once: container.stdin_once.unwrap_or(false),
            tty,
            // A terminal has one stream of output.
            stderr: if tty { stdout.clone() } else { taps() },
            stdout,
        }
    }

    /// The same for the runtime; what is written is kept in `log` too.
    pub(crate) fn stdio(&self, log: &Arc<Log>) -> Stdio {
        let output = |taps: &Arc<Taps>| Output::Log { log: log.clone(), taps: Some(taps.clone()) };
        Stdio {
            stdin: self.stdin.clone(),
            stdout: output(&self.stdout),
            stderr: output(&self.stderr),
            tty: self.tty,
        }
    }
}
