//! `pods`: how many pods a second go from created to Succeeded, and how soon a pod runs.
//!
//! In process, through the one door: what the API, the store, the scheduler, the kubelet and the
//! runtime cost, without a client's encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Failure, Options, Report, stage};
use crate::client::{Client, DeleteOptions, Event, Select, Watcher};
use crate::cluster::Cluster;

/// Pods created at the same time, as a Job controller would.
const WRITERS: u32 = 64;
/// Pods whose latency is taken, one after the other.
const LATENCY_PODS: u32 = 200;

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("pods", options);
    stage::on_cluster(options, stage::config(options), async |cluster| {
        let mut pods = Pods::new(cluster);
        // The first pod compiles the image.
        pods.throughput(1, "warm-up").await?;
        let took = pods.throughput(options.count, "pods").await?;
        report.figure("pods created to Succeeded", f64::from(options.count), "pods");
        report.figure("throughput", f64::from(options.count) / took.as_secs_f64(), "pods/s");
        let mut latencies = pods.latency(LATENCY_PODS).await?;
        report.percentiles("create to Running", &mut latencies);
        Ok(())
    })
    .await?;
    Ok(report)
}

struct Pods<'a> {
    cluster: &'a Cluster,
    client: Client,
    watcher: Watcher<Pod>,
}

impl<'a> Pods<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let client = cluster.client();
        let watcher = client.watch(Select { namespace: Some("default".into()), ..Select::default() });
        Self { cluster, client, watcher }
    }

    /// Creates `count` pods that exit at once and waits until all have Succeeded.
    async fn throughput(&mut self, count: u32, prefix: &str) -> Result<Duration, Failure> {
        let before = self.cluster.clock().monotonic();
        let create = |first: u32| {
            let client = self.client.clone();
            async move {
                for i in (first..count).step_by(WRITERS as usize) {
                    client.create(pod(&format!("{prefix}-{i}"), &["0"], "0s")).await?;
                }
                Ok::<_, Failure>(())
            }
        };
        let creating = try_join_all((0..WRITERS.min(count)).map(create));
        let succeeded = wait_for(&mut self.watcher, prefix, "Succeeded", count);
        tokio::try_join!(creating, succeeded)?;
        Ok(self.cluster.clock().monotonic().saturating_sub(before))
    }

    /// Creates pods that stay, one after the other; the time until each is seen Running.
    async fn latency(&mut self, count: u32) -> Result<Vec<Duration>, Failure> {
        let mut samples = Vec::new();
        for i in 0..count {
            let name = format!("latency-{i}");
            let before = self.cluster.clock().monotonic();
            self.client.create(pod(&name, &["3600"], "1h")).await?;
            wait_for(&mut self.watcher, &name, "Running", 1).await?;
            samples.push(self.cluster.clock().monotonic().saturating_sub(before));
            let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            self.client.delete::<Pod>("default", &name, at_once).await?;
        }
        Ok(samples)
    }
}

/// Waits until `count` pods whose name begins with `prefix` have been seen in `phase`.
pub(super) async fn wait_for(
    watcher: &mut Watcher<Pod>,
    prefix: &str,
    phase: &str,
    count: u32,
) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    while seen.len() < count as usize {
        for event in watcher.next_batch().await.ok_or("the watch ended")? {
            let pods = match event {
                Event::Restarted(pods) => pods,
                Event::Applied(pod) => vec![pod],
                Event::Deleted(_) => Vec::new(),
            };
            for pod in pods {
                let named = pod.metadata.name.as_deref().is_some_and(|name| name.starts_with(prefix));
                let now = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
                if named && now == "Failed" {
                    return Err(
                        format!("pod {} failed", pod.metadata.name.as_deref().unwrap_or_default()).into()
                    );
                }
                if named && now == phase {
                    seen.insert(pod.metadata.name.clone());
                }
            }
        }
    }
    Ok(())
}

fn pod(name: &str, args: &[&str], simulated_duration: &str) -> Pod {
    let annotations =
        BTreeMap::from([("coracle.dev/sim-duration".to_owned(), simulated_duration.to_owned())]);
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".into()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            containers: vec![Container {
                name: "main".into(),
                image: Some("coracle.dev/worker:v1".into()),
                args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}
