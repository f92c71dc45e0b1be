//! `coracle up`: a cluster in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::progress::Progress;
use super::registry::RegistryArgs;
use super::{DataDir, Failure, KeyFile, READY_WITHIN};
use crate::apiserver::kubeconfig;
use crate::cluster::{Cluster, Config};
use crate::store;

/// Start a cluster in the foreground
///
/// Prints one line, `ready <URL> kubeconfig <PATH>`, once every node is Ready, and then stays quiet
/// until SIGINT or SIGTERM. What was acknowledged is on disk: start it again with the same data
/// directory and everything is there.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  coracle up                                    one node, data kept\n  \
    coracle up --nodes 3 --ephemeral              three nodes, nothing kept\n  \
    coracle up --ephemeral --listen 127.0.0.1:0   any free port\n  \
    coracle up --nodes 0 --sim-nodes 1000         a thousand simulated nodes")]
pub(super) struct Up {
    /// Nodes that run WebAssembly
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u32,
    /// Nodes whose pods play a script instead of running code
    ///
    /// The pod's annotations are the script: coracle.dev/sim-duration, sim-start-delay,
    /// sim-exit-code, sim-failure-rate, sim-jitter. Beside nodes that run code, pods choose by
    /// nodeSelector: coracle.dev/runtime is `wasm` or `sim`.
    #[arg(long, value_name = "M", default_value_t = 0)]
    sim_nodes: u32,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    key_file: KeyFile,
    /// Keep everything in memory and nothing afterwards
    #[arg(long, conflicts_with_all = ["data_dir", "key_file"])]
    ephemeral: bool,
    /// Where the API is served; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where to write the kubeconfig [default: kubeconfig in the data directory; a temporary file
    /// with --ephemeral]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Bytes of history to keep on disk, besides the current state
    #[arg(long, value_name = "BYTES", default_value_t = store::HISTORY_BYTES_DEFAULT)]
    history_bytes: u64,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Let pods use WebAssembly files below this directory as images: file:///DIR/x.wasm
    #[arg(long, value_name = "DIR")]
    allow_file_images: Option<PathBuf>,
}

impl Up {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let data_dir = if self.ephemeral { None } else { Some(self.data_dir.path()?) };
        let config = Config {
            data_dir: data_dir.clone(),
            key_file: self.key_file.key_file.clone(),
            history_bytes: self.history_bytes,
            listen: Some(self.listen),
            nodes: self.nodes,
            sim_nodes: self.sim_nodes,
            registries: Some(self.registries.options(data_dir.as_deref(), false)?),
            file_images: self.allow_file_images.clone(),
            ..Config::default()
        };
        super::runtime()?.block_on(self.serve(config, data_dir))
    }

    async fn serve(&self, config: Config, data_dir: Option<PathBuf>) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let progress = Progress::start("starting the cluster");
        let cluster = Cluster::start(config).await?;
        let started = async {
            let (path, temporary) = self.kubeconfig_path(data_dir)?;
            kubeconfig::write(&path, &cluster.kubeconfig())
                .map_err(|error| format!("cannot write the kubeconfig {}: {error}", path.display()))?;
            Ok::<_, Failure>((path, temporary))
        };
        let (path, temporary) = match started.await {
            Ok(started) => started,
            Err(error) => {
                cluster.shutdown().await;
                return Err(error);
            }
        };
        let (clock, mut failed) = (cluster.clock(), None);
        tokio::select! {
            ready = clock.timeout(READY_WITHIN, cluster.ready()) => match ready {
                Ok(Ok(())) => {
                    progress.finish();
                    println!("ready {} kubeconfig {}", cluster.url(), path.display());
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                }
                Ok(Err(error)) => failed = Some(format!("cannot make the nodes ready: {error}")),
                Err(_) => failed = Some(format!("not every node became Ready within {READY_WITHIN:?}")),
            },
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cluster.shutdown().await;
        if let Some(directory) = temporary
            && let Err(error) = std::fs::remove_dir_all(&directory)
        {
            tracing::warn!(%error, directory = %directory.display(), "cannot remove the temporary kubeconfig");
        }
        failed.map_or(Ok(()), |text| Err(text.into()))
    }

    /// The kubeconfig's path, and the directory to remove at the end if it is ours alone.
    fn kubeconfig_path(&self, data_dir: Option<PathBuf>) -> Result<(PathBuf, Option<PathBuf>), Failure> {
        if let Some(path) = &self.kubeconfig {
            return Ok((path.clone(), None));
        }
        if let Some(directory) = data_dir {
            return Ok((directory.join("kubeconfig"), None));
        }
        let directory = std::env::temp_dir().join(format!("coracle-{}", std::process::id()));
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
        Ok((directory.join("kubeconfig"), Some(directory)))
    }
}
