//! `fair`: what guests that compute without end do to others.
//!
//! Beside none, a few and many of them: how late a guest wakes that sleeps for 5 ms at a time, and how
//! long the API takes to answer. Then what each gets of a full machine by what it requests.

use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::apiserver::request::LogOptions;
use crate::client::{DeleteOptions, Select};
use crate::cluster::Cluster;

/// How long a guest sleeps, and the time between two questions to the API.
pub(super) const NAP: Duration = Duration::from_millis(5);
/// Guests that compute, one round after the other.
const SPINNERS: [u32; 3] = [0, 2, 8];
/// Milli-cores of those that share a full machine; as many of each as there are cores.
const REQUESTS: [u32; 3] = [100, 300, 600];
/// How long they compute: so long that the moments between their starts make no difference.
const COMPUTING: Duration = Duration::from_secs(5);
/// No round may take longer than its naps would, by so much.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("fair measures guests that run; leave out --simulated".into());
    }
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("fair", options);
    report.condition("naps", options.count.to_string());
    stage::on_cluster(options, stage::config(options), async |cluster| {
        for spinners in SPINNERS {
            round(cluster, options.count, spinners, &mut report).await?;
        }
        by_request(cluster, &mut report).await
    })
    .await?;
    Ok(report)
}

async fn round(cluster: &Cluster, naps: u32, spinners: u32, report: &mut Report) -> Result<(), Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    let prefix = format!("spinner-{spinners}-");
    for number in 0..spinners {
        client.create(pod(&format!("{prefix}{number}"), &["cpu"])).await?;
    }
    wait_for(&mut watcher, &prefix, "Running", spinners).await?;

    let probe = format!("probe-{spinners}");
    client.create(pod(&probe, &["late", &naps.to_string(), &NAP.as_millis().to_string()])).await?;
    let both = async { tokio::try_join!(ask(cluster, naps), wait_for(&mut watcher, &probe, "Succeeded", 1)) };
    let (mut answers, ()) = clock
        .timeout(PATIENCE + NAP * naps * 4, both)
        .await
        .map_err(|_| format!("the probe beside {spinners} guests that compute did not end"))??;

    let title = format!("beside {spinners} that compute");
    for (name, micros) in lateness(&log(cluster, &probe).await?)? {
        report.figure(format!("{title}: timer late {name}"), micros / 1e3, "ms");
    }
    report.percentiles(&format!("{title}: API"), &mut answers);
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete_collection(crate::kind::of::<Pod>(), "default", at_once).await?;
    Ok(())
}

/// What those that compute get, in percent of all, by what they request.
async fn by_request(cluster: &Cluster, report: &mut Report) -> Result<(), Failure> {
    let client = cluster.client();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = |request: u32, number: usize| format!("share-{request}-{number}");
    let seconds = COMPUTING.as_secs().to_string();
    let all = REQUESTS.iter().flat_map(|request| (0..cores).map(|number| (*request, number)));
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    for (request, number) in all {
        let mut pod = pod(&name(request, number), &["cpu", &seconds]);
        let container = pod.spec.as_mut().and_then(|spec| spec.containers.first_mut());
        let requests = [("cpu".to_owned(), Quantity(format!("{request}m")))].into();
        let resources = ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() };
        container.ok_or("a pod has a container")?.resources = Some(resources);
        client.create(pod).await?;
    }
    let pods = u32::try_from(cores * REQUESTS.len())?;
    let done = wait_for(&mut watcher, "share-", "Succeeded", pods);
    let done = cluster.clock().timeout(PATIENCE + COMPUTING, done).await;
    done.map_err(|_| "those that compute by their requests did not end")??;
    let mut rounds = Vec::new();
    for request in REQUESTS {
        let mut sum = 0.0;
        for number in 0..cores {
            sum += computed(&log(cluster, &name(request, number)).await?)?;
        }
        rounds.push(sum);
    }
    let all: f64 = rounds.iter().sum();
    for (request, rounds) in REQUESTS.iter().zip(rounds) {
        report.figure(format!("full machine: requests {request}m get"), rounds * 100.0 / all.max(1.0), "%");
    }
    Ok(())
}

/// The rounds of `computed 123 in 45 rounds`.
fn computed(log: &str) -> Result<f64, Failure> {
    let line =
        log.lines().find_map(|line| line.strip_prefix("computed ")).ok_or("a guest did not compute")?;
    Ok(line.split(' ').nth(2).ok_or("a guest did not say how much it computed")?.parse()?)
}

/// Asks the API so often, once a nap: how long each answer took.
pub(super) async fn ask(cluster: &Cluster, naps: u32) -> Result<Vec<Duration>, Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let mut answers = Vec::new();
    for _ in 0..naps {
        clock.sleep(NAP).await;
        let before = clock.monotonic();
        client.get::<Namespace>("", "default").await?;
        answers.push(clock.monotonic().saturating_sub(before));
    }
    Ok(answers)
}

pub(super) async fn log(cluster: &Cluster, pod: &str) -> Result<String, Failure> {
    let mut log = cluster.client().logs("default", pod, LogOptions::default()).await?;
    let mut text = Vec::new();
    while let Some(chunk) = log.next().await {
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(text)?)
}

/// The names and figures of `late: p50 80 us, p99 200 us, max 300 us`, in microseconds.
pub(super) fn lateness(log: &str) -> Result<Vec<(String, f64)>, Failure> {
    let line = log.lines().find_map(|line| line.strip_prefix("late: ")).ok_or("the probe said nothing")?;
    line.split(", ")
        .map(|part| {
            let mut words = part.split(' ');
            let (name, figure) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            Ok((name.to_owned(), figure.parse()?))
        })
        .collect()
}

pub(super) fn pod(name: &str, args: &[&str]) -> Pod {
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
                image: Some("coracle.dev/load:v1".into()),
                args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_its_figures() {
        let options = Options { count: 10, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        assert_eq!(report.figures.len(), SPINNERS.len() * 5 + REQUESTS.len(), "{report}");
    }

    #[test]
    fn what_the_probe_says_is_understood() {
        let said = lateness("sleeping\nlate: p50 80 us, p99 200 us, max 3000 us\n").unwrap();
        assert_eq!(said[1], ("p99".to_owned(), 200.0));
        assert_eq!(said[2], ("max".to_owned(), 3000.0));
        assert!(lateness("sleeping\n").is_err());
        assert_eq!(computed("computing\ncomputed 99 in 45 rounds\n").unwrap(), 45.0);
        assert!(computed("computing\n").is_err());
    }
}
