//! `coracle bench`: the benchmark harness.

use std::path::PathBuf;

use super::Failure;
use super::progress::Progress;
use crate::bench::{Options, SCENARIOS};

/// Measure a scenario and print its figures with their conditions
///
/// Scenarios: `pods` creates pods that exit at once until all have Succeeded, then takes the latency
/// from create to Running; `config-fanout` changes a ConfigMap that N pods mount and takes the latency
/// from the API's answer to the new bytes in each guest; `cron` has N CronJobs due at the same
/// minute and takes the time from that minute to each one's Job; `job` makes a Job of N completions of
/// pods that exit at once, plain and Indexed, and takes the time until it is Complete; `daemonset` makes a DaemonSet on N
/// simulated nodes and takes the time until each runs its pod, then until all are replaced; `stop` deletes pods that do
/// not heed it and takes the time from the end of their grace until they are gone; `hostile`
/// runs guests that take whatever they can get and measures their neighbour, which sleeps N times; `http` asks a
/// handler N times, by each kind of instance, and takes requests per second and latency, beside `wasmtime serve` of
/// the same component if the variable CORACLE_BENCH_WASMTIME names a wasmtime program; `footprint`
/// starts `coracle up` and looks at an idle cluster.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  coracle bench pods --count 10000\n  \
    coracle bench pods --durable --json pods.json\n  \
    coracle bench pods --simulated --nodes 1000 --count 10000\n  \
    coracle bench config-fanout --count 1000\n  coracle bench cron --count 100000\n  \
    coracle bench job --durable --nodes 10 --count 100000\n  \
    coracle bench daemonset --count 5000\n  coracle bench footprint")]
pub(super) struct Bench {
    #[arg(value_parser = SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>())]
    scenario: String,
    /// How many of what the scenario counts
    #[arg(long, value_name = "N", default_value_t = 5000)]
    count: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u32,
    /// Keep data on disk, in a temporary directory
    #[arg(long)]
    durable: bool,
    /// Simulated nodes instead of nodes that run code
    #[arg(long)]
    simulated: bool,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Bench {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let scenario = SCENARIOS
            .iter()
            .find(|scenario| scenario.name == self.scenario)
            .expect("clap takes known scenarios only");
        let options = Options {
            count: self.count,
            nodes: self.nodes,
            durable: self.durable,
            simulated: self.simulated,
        };
        let progress = Progress::start(scenario.about);
        let report = (scenario.run)(&options)?;
        progress.finish();
        print!("{report}");
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_vec_pretty(&report)?)
                .map_err(|error| format!("cannot write the report to {}: {error}", path.display()))?;
        }
        Ok(())
    }
}
