//! What scenarios stand on: threads, a directory if the store is durable, and a cluster for the length
//! of a measurement.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Failure, Options, Report};
use crate::cluster::{Cluster, Config};

/// Runs a scenario on threads of its own.
pub(super) fn block_on(scenario: impl Future<Output = Result<Report, Failure>>) -> Result<Report, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(scenario)
}

/// A report that says how the cluster is run.
pub(super) fn report(scenario: &'static str, options: &Options) -> Report {
    let mut report = Report::new(scenario);
    report.condition("nodes", options.nodes.to_string());
    report.condition("store", if options.durable { "durable" } else { "ephemeral" });
    report.condition("code", if options.simulated { "simulated" } else { "run" });
    report.condition("client", "in process");
    report
}

/// The nodes that the options ask for.
pub(super) fn config(options: &Options) -> Config {
    let (nodes, sim_nodes) = if options.simulated { (0, options.nodes) } else { (options.nodes, 0) };
    Config { nodes, sim_nodes, ..Config::default() }
}

/// Measures on a cluster that is there for this alone, durable if the options say so.
pub(super) async fn on_cluster<T>(
    options: &Options,
    config: Config,
    measured: impl AsyncFnOnce(&Cluster) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let scratch = Scratch::new();
    let data_dir = options.durable.then(|| scratch.0.join("data"));
    on(Config { data_dir, ..config }, measured).await
}

/// As [`on_cluster`], with all as the configuration says.
pub(super) async fn on<T>(
    config: Config,
    measured: impl AsyncFnOnce(&Cluster) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let cluster = Cluster::start(config).await?;
    let result = match cluster.ready().await {
        Ok(()) => measured(&cluster).await,
        Err(error) => Err(error.into()),
    };
    cluster.shutdown().await;
    result
}

/// A directory of this process that goes with this value.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("coracle-bench-{}-{number}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Of a scenario in memory there is none.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
