//! `hostile`: guests that take whatever they can get, and what a neighbour notices of them.
//!
//! One kind after the other: a few pods of it beside a guest that sleeps for 5 ms at a time and a client that
//! asks the API as often. How late both are, how the guests ended, and how much memory it took is said.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, ResourceRequirements, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::density::resident;
use super::fair::{NAP, ask, lateness, log, pod};
use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::client::{DeleteOptions, Select};
use crate::cluster::Cluster;

/// Pods of one kind at a time.
const PODS: u32 = 4;
/// Memory limit of each, and how much its volume takes.
const MEMORY: &str = "64Mi";
const VOLUME: &str = "16Mi";
/// Nothing that is waited for may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at how far the pods have come.
const LOOK: Duration = Duration::from_millis(10);
/// How long those have that are asked to stop.
const GRACE_SECONDS: i64 = 1;

/// One way to be hostile.
struct Kind {
    name: &'static str,
    /// Where the report says how its pods ended.
    ended: &'static str,
    image: &'static str,
    args: &'static [&'static str],
    /// How each of its pods is to be found afterwards.
    expected: &'static str,
}

const LOAD: &str = "coracle.dev/load:v1";
const RUNS: &str = "Running";
const OUT_OF_MEMORY: &str = "OOMKilled";
const TRAPPED: &str = "Error 134";

macro_rules! kind {
    ($name:literal, $image:expr, $args:expr, $expected:expr) => {
        Kind {
            name: $name,
            ended: concat!("ended: ", $name),
            image: $image,
            args: &$args,
            expected: $expected,
        }
    };
}

static KINDS: &[Kind] = &[
    kind!("loop", LOAD, ["cpu"], RUNS),
    kind!("allocate", LOAD, ["grow"], OUT_OF_MEMORY),
    kind!("recurse", LOAD, ["recurse"], TRAPPED),
    kind!("spam output", LOAD, ["spew"], RUNS),
    // There are only so many handles, and one more ends the guest, if memory lasts so long.
    kind!("open files", LOAD, ["open", "/data"], TRAPPED),
    kind!("list directories", LOAD, ["list", "/data"], TRAPPED),
    kind!("fill a volume", LOAD, ["fill", "/data"], RUNS),
    kind!("listen", LOAD, ["listen"], RUNS),
    kind!("connect", LOAD, ["dial"], RUNS),
    kind!("sleep", LOAD, ["sleep"], RUNS),
    kind!("ignore stop", "coracle.dev/finish:v1", ["0.01", "ignore"], RUNS),
];

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("hostile measures guests that run; leave out --simulated".into());
    }
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("hostile", options);
    report.condition("naps", options.count.to_string());
    report.condition("pods of a kind", PODS.to_string());
    stage::on_cluster(options, stage::config(options), async |cluster| {
        for image in [LOAD, "coracle.dev/finish:v1"] {
            // Compiling is not what is measured.
            let mut first = pod("first", &["0.01", "ignore"]);
            container(&mut first)?.image = Some(image.to_owned());
            cluster.client().create(first).await?;
            settled(cluster, "first", 1).await?;
            clear(cluster).await?;
        }
        round(cluster, options.count, None, &mut report).await?;
        for kind in KINDS {
            round(cluster, options.count, Some(kind), &mut report).await?;
        }
        Ok(())
    })
    .await?;
    Ok(report)
}

/// Measures a neighbour of pods of one kind, or of none.
async fn round(
    cluster: &Cluster,
    count: u32,
    kind: Option<&Kind>,
    report: &mut Report,
) -> Result<(), Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let title = kind.map_or_else(|| "beside none".to_owned(), |kind| format!("beside {}", kind.name));
    let before = resident()?;
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    client.create(pod("probe", &["late", &count.to_string(), &NAP.as_millis().to_string()])).await?;
    let hostile = async {
        for number in 0..PODS {
            if let Some(kind) = kind {
                client.create(kind.pod(number)?).await?;
            }
        }
        Ok::<_, Failure>(())
    };
    let probe = wait_for(&mut watcher, "probe", "Succeeded", 1);
    let all = async { tokio::try_join!(ask(cluster, count), hostile, probe) };
    let (mut answers, (), ()) = clock
        .timeout(PATIENCE + NAP * count * 4, all)
        .await
        .map_err(|_| format!("the neighbour did not go on {title}"))??;
    if let Some(kind) = kind {
        settled(cluster, "hostile-", PODS).await?;
        // Those that end come to that; those that go on are still there.
        let ends = ends(cluster, kind).await?;
        let words: Vec<String> = ends.iter().map(|(how, pods)| format!("{pods} {how}")).collect();
        report.condition(kind.ended, words.join(", "));
        report.figure(
            format!("{title}: pods as expected"),
            f64::from(*ends.get(kind.expected).unwrap_or(&0)),
            "",
        );
    }
    for (name, micros) in lateness(&log(cluster, "probe").await?)? {
        report.figure(format!("{title}: timer late {name}"), micros / 1e3, "ms");
    }
    report.percentiles(&format!("{title}: API"), &mut answers);
    let most = answers.last().copied().unwrap_or_default();
    report.figure(format!("{title}: API max"), most.as_secs_f64() * 1e3, "ms");
    let mib = |kib: u64| kib as f64 / 1024.0;
    report.figure(format!("{title}: memory before"), mib(before), "MiB");
    report.figure(format!("{title}: memory beside"), mib(resident()?), "MiB");
    let asked = clock.monotonic();
    clear(cluster).await?;
    let gone = clock.monotonic().saturating_sub(asked);
    report.figure(format!("{title}: all gone within"), gone.as_secs_f64() * 1e3, "ms");
    report.figure(format!("{title}: memory after"), mib(resident()?), "MiB");
    Ok(())
}

/// Waits until so many pods of this prefix run or have ended.
async fn settled(cluster: &Cluster, prefix: &str, count: u32) -> Result<(), Failure> {
    let begun = |pods: &[(String, Pod)]| {
        let has_begun = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Pending");
        let begun = pods.iter().filter(|(name, pod)| name.starts_with(prefix) && has_begun(pod)).count();
        begun >= count as usize
    };
    until(cluster, &format!("{count} pods {prefix}* to run"), begun).await
}

/// Deletes all pods, with a short grace, and waits until they are gone.
async fn clear(cluster: &Cluster) -> Result<(), Failure> {
    let options = DeleteOptions { grace_period_seconds: Some(GRACE_SECONDS), ..DeleteOptions::default() };
    cluster.client().delete_collection(crate::kind::of::<Pod>(), "default", options).await?;
    until(cluster, "all pods to be gone", <[_]>::is_empty).await
}

async fn until(
    cluster: &Cluster,
    what: &str,
    reached: impl Fn(&[(String, Pod)]) -> bool,
) -> Result<(), Failure> {
    let clock = cluster.clock();
    let looking = async {
        while !reached(&pods(cluster).await?) {
            clock.sleep(LOOK).await;
        }
        Ok::<_, Failure>(())
    };
    clock.timeout(PATIENCE, looking).await.map_err(|_| format!("waited {PATIENCE:?} for {what}"))?
}

async fn pods(cluster: &Cluster) -> Result<Vec<(String, Pod)>, Failure> {
    let select = Select { namespace: Some("default".into()), ..Select::default() };
    let list = cluster.client().list::<Pod>(&select).await?;
    let pods = list.items.into_iter();
    Ok(pods.map(|pod| (pod.metadata.name.clone().unwrap_or_default(), (*pod).clone())).collect())
}

/// How the hostile pods are, once each that is to end has: `OOMKilled`, `Error 134`, `Running`.
async fn ends(cluster: &Cluster, kind: &Kind) -> Result<BTreeMap<String, u32>, Failure> {
    if kind.expected != RUNS {
        let ended = |pods: &[(String, Pod)]| {
            pods.iter().filter(|(name, _)| name.starts_with("hostile-")).all(|(_, pod)| end(pod) != RUNS)
        };
        until(cluster, &format!("guests that {} to end", kind.name), ended).await?;
    }
    let mut ends = BTreeMap::new();
    for (_, pod) in pods(cluster).await?.iter().filter(|(name, _)| name.starts_with("hostile-")) {
        *ends.entry(end(pod)).or_insert(0) += 1;
    }
    Ok(ends)
}

fn end(pod: &Pod) -> String {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let state = statuses.and_then(|all| all.first()).and_then(|status| status.state.as_ref());
    let Some(ended) = state.and_then(|state| state.terminated.as_ref()) else { return RUNS.to_owned() };
    match ended.reason.as_deref() {
        Some("OOMKilled") => OUT_OF_MEMORY.to_owned(),
        reason => format!("{} {}", reason.unwrap_or_default(), ended.exit_code),
    }
}

fn container(pod: &mut Pod) -> Result<&mut k8s_openapi::api::core::v1::Container, Failure> {
    let container = pod.spec.as_mut().and_then(|spec| spec.containers.first_mut());
    container.ok_or_else(|| "a pod has a container".into())
}

impl Kind {
    fn pod(&self, number: u32) -> Result<Pod, Failure> {
        let mut pod = pod(&format!("hostile-{number}"), self.args);
        let container = container(&mut pod)?;
        container.image = Some(self.image.to_owned());
        let limits = [("memory".to_owned(), Quantity(MEMORY.to_owned()))].into();
        container.resources =
            Some(ResourceRequirements { limits: Some(limits), ..ResourceRequirements::default() });
        let mount =
            VolumeMount { name: "data".to_owned(), mount_path: "/data".to_owned(), ..VolumeMount::default() };
        container.volume_mounts = Some(vec![mount]);
        let empty_dir = EmptyDirVolumeSource {
            size_limit: Some(Quantity(VOLUME.to_owned())),
            ..EmptyDirVolumeSource::default()
        };
        let volume = Volume { name: "data".to_owned(), empty_dir: Some(empty_dir), ..Volume::default() };
        pod.spec.as_mut().ok_or("a pod has a spec")?.volumes = Some(vec![volume]);
        Ok(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind is bounded, told of, and leaves a neighbour that goes on.
    #[test]
    fn hostile_guests_are_bounded_and_their_neighbour_goes_on() {
        let options = Options { count: 10, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        for kind in KINDS {
            assert_eq!(report.conditions[kind.ended], format!("{PODS} {}", kind.expected), "{}", kind.name);
        }
        let most = u64::from(PODS) * 64;
        for figure in report.figures.iter().filter(|figure| figure.name.ends_with("memory beside")) {
            let before = figure.name.replace("beside", "before").replacen("before", "beside", 1);
            let before = report.figures.iter().find(|figure| figure.name == before).unwrap();
            assert!(figure.value - before.value < most as f64, "{report}");
        }
    }
}
