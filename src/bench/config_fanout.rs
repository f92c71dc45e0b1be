//! `config-fanout`: how soon a change of a ConfigMap is in the guests of many pods that mount it.
//!
//! Twice, since there are two ways for a guest to learn of it:
//! - *A look*: all but a few pods sleep, and those few look into the file every millisecond. That
//!   is how soon a guest that reads the file reads the new bytes.
//! - *Told*: every pod's guest waits to be told (`coracle:config/revisions`), and on a change all of
//!   them open, read and print the file at once. That is how soon a whole fleet has acted on it, and
//!   most of it is the guests' own time.
//!
//! A sample is the time from the API's answer to a change to the moment at which one guest has
//! printed the new bytes, by the time in its log. Logs are read when all is quiet again, so that
//! reading costs no guest time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, Pod, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::apiserver::request::LogOptions;
use crate::client::{Client, DeleteOptions, Select};
use crate::cluster::Cluster;
use crate::kind;

/// Pods on one node at most, which is what a node takes.
const PODS_EACH: u32 = 1_000;
/// Pods created at the same time.
const WRITERS: usize = 64;
/// Changes measured, after one that is not.
const CHANGES: u32 = 20;
/// Between changes, so that each meets a quiet cluster: what a change leaves to be written (which
/// revisions a pod runs with) has been by then.
const PAUSE: Duration = Duration::from_secs(2);
/// Before a log is looked at again.
const RETRY: Duration = Duration::from_millis(100);
/// Pods that look, each this often.
const LOOKING: u32 = 10;
const LOOK_MILLIS: &str = "1";
/// No delivery may take longer.
const DEADLINE: Duration = Duration::from_secs(30);

const NAME: &str = "settings";
const FILE: &str = "/etc/settings/greeting";

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("config-fanout measures guests that run; leave out --simulated".into());
    }
    let nodes = options.nodes.max(options.count.div_ceil(PODS_EACH));
    stage::block_on(measure(&Options { nodes, ..options.clone() }))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("config-fanout", options);
    report.condition("pods", options.count.to_string());
    stage::on_cluster(options, stage::config(options), async |cluster| {
        for way in [Way::Look, Way::Told] {
            let mut latencies = deliveries(cluster, way, options.count, CHANGES, PAUSE).await?;
            report.figure(format!("{}: deliveries", way.name()), latencies.len() as f64, "");
            report.percentiles(&format!("{}: answer to new bytes in a guest", way.name()), &mut latencies);
            if let Some(last) = latencies.last() {
                let name = format!("{}: answer to new bytes in a guest max", way.name());
                report.figure(&name, last.as_secs_f64() * 1e3, "ms");
            }
        }
        Ok(())
    })
    .await?;
    Ok(report)
}

#[derive(Clone, Copy)]
enum Way {
    Look,
    Told,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Told => "told",
        }
    }

    /// The pods, and the names of those that print what they read.
    fn pods(self, count: u32) -> (Vec<Pod>, Vec<String>) {
        let of = |number: u32| match self {
            Self::Told => pod(&format!("told-{number}"), "reload", &[FILE]),
            Self::Look if number < LOOKING => pod(&format!("look-{number}"), "logger", &[FILE, LOOK_MILLIS]),
            Self::Look => pod(&format!("look-asleep-{number}"), "worker", &["1000000"]),
        };
        let pods: Vec<Pod> = (0..count).map(of).collect();
        let names = pods.iter().filter_map(|pod| pod.metadata.name.clone());
        let printing = names.filter(|name| !name.contains("asleep")).collect();
        (pods, printing)
    }
}

/// The time of each delivery of each change but the first.
async fn deliveries(
    cluster: &Cluster,
    way: Way,
    count: u32,
    changes: u32,
    pause: Duration,
) -> Result<Vec<Duration>, Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    client.create(config_map("before")).await?;
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    let (pods, names) = way.pods(count);
    let creating = async {
        let mut creating = stream::iter(pods).map(|pod| client.create(pod)).buffer_unordered(WRITERS);
        while let Some(created) = creating.next().await {
            created?;
        }
        Ok::<_, Failure>(())
    };
    let running = wait_for(&mut watcher, way.name(), "Running", count);
    tokio::try_join!(creating, running)?;
    drop(watcher);
    printed(cluster, &names, "before").await?;

    let mut samples = Vec::new();
    for change in 0..=changes {
        clock.sleep(pause).await;
        let text = format!("change {change}");
        client.update(config_map(&text)).await?;
        let answered = clock.now();
        clock.sleep(pause / 2).await;
        for time in printed(cluster, &names, &text).await? {
            // A guest may well have it before the answer is read.
            let took = Duration::try_from(time.duration_since(answered)).unwrap_or_default();
            if change > 0 {
                samples.push(took);
            }
        }
    }
    client.delete::<ConfigMap>("default", NAME, DeleteOptions::default()).await?;
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete_collection(kind::of::<Pod>(), "default", at_once).await?;
    Ok(samples)
}

/// When each pod printed `text` as its last line; waits for those that have not yet.
async fn printed(cluster: &Cluster, pods: &[String], text: &str) -> Result<Vec<Timestamp>, Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let wanted = format!("{FILE}: {text}");
    let mut times = Vec::with_capacity(pods.len());
    for pod in pods {
        let waiting = async {
            loop {
                if let Some(time) = last_line(&client, pod, &wanted).await? {
                    return Ok::<_, Failure>(time);
                }
                clock.sleep(RETRY).await;
            }
        };
        let time = clock.timeout(DEADLINE, waiting).await;
        times.push(time.map_err(|_| format!("pod {pod} did not see {text:?} within {DEADLINE:?}"))??);
    }
    Ok(times)
}

/// The time of the last line of a pod's log, if that ends as `wanted`.
async fn last_line(client: &Client, pod: &str, wanted: &str) -> Result<Option<Timestamp>, Failure> {
    let options = LogOptions { tail_lines: Some(1), timestamps: true, ..LogOptions::default() };
    let mut log = client.logs("default", pod, options).await?;
    let mut line = Vec::new();
    while let Some(chunk) = log.next().await {
        line.extend_from_slice(&chunk);
    }
    let line = String::from_utf8(line)?;
    let Some((time, rest)) = line.trim_end().split_once(' ') else { return Ok(None) };
    if rest.ends_with(wanted) { Ok(Some(time.parse()?)) } else { Ok(None) }
}

fn config_map(greeting: &str) -> ConfigMap {
    ConfigMap {
        metadata: meta(NAME),
        data: Some(BTreeMap::from([("greeting".to_owned(), greeting.to_owned())])),
        ..ConfigMap::default()
    }
}

fn pod(name: &str, image: &str, args: &[&str]) -> Pod {
    let mount =
        VolumeMount { name: NAME.into(), mount_path: "/etc/settings".into(), ..VolumeMount::default() };
    let source = ConfigMapVolumeSource { name: NAME.into(), ..ConfigMapVolumeSource::default() };
    Pod {
        metadata: meta(name),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".into(),
                image: Some(format!("coracle.dev/{image}:v1")),
                args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
                volume_mounts: Some(vec![mount]),
                ..Container::default()
            }],
            volumes: Some(vec![Volume { name: NAME.into(), config_map: Some(source), ..Volume::default() }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some("default".into()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Config;

    #[test]
    fn every_change_reaches_every_guest() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster = Cluster::start(Config::default()).await.unwrap();
            cluster.ready().await.unwrap();
            for (way, count, expected) in [(Way::Look, LOOKING + 2, 2 * LOOKING as usize), (Way::Told, 3, 6)]
            {
                let samples = deliveries(&cluster, way, count, 2, Duration::from_millis(10)).await.unwrap();
                assert_eq!(samples.len(), expected);
                assert!(samples.iter().all(|took| *took < DEADLINE));
            }
            cluster.shutdown().await;
        });
    }
}
