//! `daemonset`: how soon a pod runs on each of many simulated nodes, and how soon all have been replaced.
//!
//! In process, through the one door, as `pods` is.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::json;

use super::{Failure, Options, Report, cpu, stage};
use crate::client::{Client, Event, Select, Watcher};
use crate::cluster::Cluster;

const NAME: &str = "agent";

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    stage::block_on(measure(&Options { nodes: options.count, simulated: true, ..options.clone() }))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("daemonset", options);
    let measured = async |cluster: &Cluster| rounds(cluster, options.nodes, &mut report).await;
    stage::on_cluster(options, stage::config(options), measured).await?;
    Ok(report)
}

async fn rounds(cluster: &Cluster, nodes: u32, report: &mut Report) -> Result<(), Failure> {
    let client = cluster.client();
    let mut watcher = client.watch(Select { namespace: Some("default".into()), ..Select::default() });

    let before = (cluster.clock().monotonic(), cpu::used());
    client.create(set()).await?;
    until_ready(&mut watcher, 1, nodes).await?;
    let took = (cluster.clock().monotonic().saturating_sub(before.0), cpu::used().saturating_sub(before.1));
    tell(report, "all run", nodes, took);

    // All at once, since each may be missing.
    let before = (cluster.clock().monotonic(), cpu::used());
    replace(&client).await?;
    until_ready(&mut watcher, 2, nodes).await?;
    let took = (cluster.clock().monotonic().saturating_sub(before.0), cpu::used().saturating_sub(before.1));
    tell(report, "all replaced", nodes, took);
    Ok(())
}

fn tell(report: &mut Report, what: &str, pods: u32, took: (Duration, Duration)) {
    let (wall, cpu) = (took.0.as_secs_f64(), took.1.as_secs_f64());
    report.figure(what, wall, "s");
    report.figure(format!("{what}, throughput"), f64::from(pods) / wall, "pods/s");
    report.figure(format!("{what}, CPU for 1,000 pods"), cpu / f64::from(pods) * 1e3, "s");
}

async fn replace(client: &Client) -> Result<(), Failure> {
    let patch = json!({ "spec": {
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": "100%" } },
        "template": { "metadata": { "annotations": { "round": "2" } } },
    } });
    client.merge_patch::<DaemonSet>("default", NAME, None, patch).await?;
    Ok(())
}

/// Waits until so many pods of the set's newest template are ready.
async fn until_ready(watcher: &mut Watcher<DaemonSet>, generation: i64, nodes: u32) -> Result<(), Failure> {
    let wanted = i32::try_from(nodes)?;
    let is_done = |status: &DaemonSetStatus| {
        status.observed_generation >= Some(generation)
            && status.number_ready == wanted
            && status.updated_number_scheduled == Some(wanted)
    };
    loop {
        for event in watcher.next_batch().await.ok_or("the watch ended")? {
            let sets = match event {
                Event::Restarted(sets) => sets,
                Event::Applied(set) => vec![set],
                Event::Deleted(_) => return Err("the daemon set was deleted".into()),
            };
            if sets.iter().any(|set| set.status.as_ref().is_some_and(is_done)) {
                return Ok(());
            }
        }
    }
}

fn set() -> DaemonSet {
    let labels = || Some([("app".to_owned(), NAME.to_owned())].into());
    DaemonSet {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        spec: Some(DaemonSetSpec {
            selector: LabelSelector { match_labels: labels(), match_expressions: None },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: labels(), ..ObjectMeta::default() }),
                spec: Some(PodSpec {
                    termination_grace_period_seconds: Some(0),
                    containers: vec![Container {
                        name: "main".into(),
                        image: Some("coracle.dev/worker:v1".into()),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
            },
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}
