//! `density`: how many pods of sleeping guests live in one process, and what each costs.
//!
//! Pods are made in steps until there are as many as were asked for, or one does not come to run, or the
//! machine's memory is nearly used up; which of the three it was is said.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::client::{Client, Select, Watcher};
use crate::cluster::Cluster;

/// Pods on one node at most, which is what a node takes.
const PODS_EACH: u32 = 1_000;
/// Pods made before memory is looked at again.
const STEP: u32 = 1_000;
/// Pods created at the same time.
const WRITERS: usize = 64;
/// The share of the machine's memory that is left free, in percent.
const FREE: u64 = 10;
/// No step may take longer.
const DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    let nodes = options.nodes.max(options.count.div_ceil(PODS_EACH));
    stage::block_on(measure(&Options { nodes, ..options.clone() }))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("density", options);
    stage::on_cluster(options, stage::config(options), async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        let mut watcher =
            client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
        let (before, mappings_before, began) = (resident()?, mappings()?, clock.monotonic());
        let (mut live, mut bound) = (0, "as many as were asked for".to_owned());
        while live < options.count {
            let step = STEP.min(options.count - live);
            if let Err(error) = make(cluster, &client, &mut watcher, live, step).await {
                bound = error.to_string();
                break;
            }
            live += step;
            if available()? < total()? * FREE / 100 {
                bound = format!("less than {FREE} % of the machine's memory is left");
                break;
            }
        }
        let took = clock.monotonic().saturating_sub(began);
        let each = |amount: u64| amount as f64 / f64::from(live.max(1));
        report.condition("ended by", bound);
        report.figure("live pods", f64::from(live), "");
        report.figure("memory each", each(resident()?.saturating_sub(before)), "KiB");
        report.figure("mappings each", each(mappings()?.saturating_sub(mappings_before)), "");
        report.figure("memory of the process", resident()? as f64 / 1024.0, "MiB");
        report.figure("made", f64::from(live) / took.as_secs_f64().max(1e-6), "pods/s");
        Ok(())
    })
    .await?;
    Ok(report)
}

/// Makes pods number `first` and up, and waits until all of them run.
async fn make(
    cluster: &Cluster,
    client: &Client,
    watcher: &mut Watcher<Pod>,
    first: u32,
    count: u32,
) -> Result<(), Failure> {
    let prefix = format!("asleep-{first}-");
    let creating = async {
        let pods = (0..count).map(|number| client.create(pod(&format!("{prefix}{number}"))));
        let mut creating = stream::iter(pods).buffer_unordered(WRITERS);
        while let Some(created) = creating.next().await {
            created?;
        }
        Ok::<_, Failure>(())
    };
    let running = wait_for(watcher, &prefix, "Running", count);
    let made = async { tokio::try_join!(creating, running).map(|_| ()) };
    let made = cluster.clock().timeout(DEADLINE, made).await;
    made.map_err(|_| format!("not all of {count} more pods ran within {DEADLINE:?}"))?
}

fn pod(name: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            containers: vec![Container {
                name: "main".into(),
                image: Some("coracle.dev/worker:v1".into()),
                args: Some(vec!["1000000".to_owned()]),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// Memory of this process, in KiB.
pub(super) fn resident() -> Result<u64, Failure> {
    amount("/proc/self/status", "VmRSS:")
}

fn available() -> Result<u64, Failure> {
    amount("/proc/meminfo", "MemAvailable:")
}

fn total() -> Result<u64, Failure> {
    amount("/proc/meminfo", "MemTotal:")
}

fn amount(file: &str, name: &str) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("read {file}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{file} does not say {name}").into())
}

fn mappings() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/maps")?;
    Ok(u64::try_from(text.lines().count())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_live_until_there_are_enough() {
        let options = Options { count: 10, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        assert_eq!(report.conditions["ended by"], "as many as were asked for");
        assert_eq!(report.figures[0].value, 10.0);
    }
}
