//! `service`: what a Service's address costs beside that of its pod.
//!
//! A pod serves HTTP, one connection a request: by a socket of its own, or as a handler. Another pod, and then
//! this process, ask it N times one after the other: at its own address, and at its Service's. Rounds of both
//! alternate, so that both have the same machine; the best of each is told.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::apiserver::request::LogOptions;
use crate::client::Select;
use crate::cluster::{Cluster, Config};

/// What serves, and as what.
const SERVERS: [(&str, &str); 2] =
    [("socket", "coracle.dev/http:v1"), ("handler", "coracle.dev/hello-http:v1")];
/// Rounds of each address.
const ROUNDS: usize = 3;
/// No round may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
const PORT: u16 = 8080;

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("service measures guests that run; leave out --simulated".into());
    }
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("service", options);
    report.condition("requests a round", options.count.to_string());
    report.condition("requests", "one after the other, a connection each");
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { listen, ..stage::config(options) };
    stage::on_cluster(options, config, async |cluster| {
        for (name, image) in SERVERS {
            both(cluster, options.count, &mut report, name, image).await?;
        }
        Ok(())
    })
    .await?;
    Ok(report)
}

async fn both(
    cluster: &Cluster,
    count: u32,
    report: &mut Report,
    server: &str,
    image: &str,
) -> Result<(), Failure> {
    let client = cluster.client();
    let select = Select { namespace: Some("default".into()), ..Select::default() };
    let mut watcher = client.watch::<Pod>(select);
    client.create(pod(server, image, &[])).await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": server, "namespace": "default"},
        "spec": {"selector": {"app": server}, "ports": [{"port": PORT}]},
    }))?;
    let service = client.create(service).await?;
    wait_for(&mut watcher, server, "Running", 1).await?;
    let pod_of_it = client.get::<Pod>("default", server).await?;
    let own =
        pod_of_it.status.as_ref().and_then(|status| status.pod_ip.clone()).ok_or("the pod has no address")?;
    let virtual_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).ok_or("no clusterIP")?;
    let places = [("pod address", format!("{own}:{PORT}")), ("service", format!("{virtual_ip}:{PORT}"))];
    for (_, place) in &places {
        answers(cluster, place).await?;
    }

    let mut best = [[0.0_f64; 2]; 2];
    for round in 0..ROUNDS {
        for (which, (_, place)) in places.iter().enumerate() {
            let name = format!("asks-{server}-{round}-{which}");
            client.create(pod(&name, "coracle.dev/load:v1", &["get", &count.to_string(), place])).await?;
            wait_for(&mut watcher, &name, "Succeeded", 1).await?;
            best[0][which] = best[0][which].max(said(&log(cluster, &name).await?)?);
            best[1][which] = best[1][which].max(ask(cluster, count, place).await?);
        }
    }
    for (from, rates) in ["a pod", "this process"].into_iter().zip(best) {
        for ((title, _), rate) in places.iter().zip(rates) {
            report.figure(format!("{server}, from {from}: {title}"), rate, "requests/s");
        }
        let ratio = rates[1] / rates[0] * 100.0;
        report.figure(format!("{server}, from {from}: service to pod address"), ratio, "%");
    }
    Ok(())
}

/// Waits until somebody answers at `place`.
async fn answers(cluster: &Cluster, place: &str) -> Result<(), Failure> {
    let clock = cluster.clock();
    let asking = async {
        while get(place).await.is_err() {
            clock.sleep(Duration::from_millis(5)).await;
        }
    };
    clock.timeout(PATIENCE, asking).await.map_err(|_| format!("nobody answers at {place}").into())
}

/// Requests a second of this process.
async fn ask(cluster: &Cluster, count: u32, place: &str) -> Result<f64, Failure> {
    let clock = cluster.clock();
    let before = clock.monotonic();
    for _ in 0..count {
        get(place).await?;
    }
    Ok(f64::from(count) / clock.monotonic().saturating_sub(before).as_secs_f64())
}

async fn get(place: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(place).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(format!("{place} answered {:?}", String::from_utf8_lossy(&answer)).into())
    }
}

async fn log(cluster: &Cluster, pod: &str) -> Result<String, Failure> {
    let mut log = cluster.client().logs("default", pod, LogOptions::default()).await?;
    let mut text = Vec::new();
    while let Some(chunk) = log.next().await {
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(text)?)
}

/// The rate of `got: 1000 in 0.25 s`.
fn said(log: &str) -> Result<f64, Failure> {
    let line =
        log.lines().find_map(|line| line.strip_prefix("got: ")).ok_or("the pod that asks said nothing")?;
    let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [count, seconds] if seconds > 0.0 => Ok(count / seconds),
        _ => Err(format!("the pod that asks said {line:?}").into()),
    }
}

fn pod(name: &str, image: &str, args: &[&str]) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".into()),
            labels: Some([("app".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            containers: vec![Container {
                name: "main".into(),
                image: Some(image.into()),
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
    fn both_addresses_have_figures() {
        let options = Options { count: 10, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        assert_eq!(report.figures.len(), 6 * SERVERS.len(), "{report}");
    }

    #[test]
    fn what_the_pod_says_is_understood() {
        assert_eq!(said("getting\ngot: 1000 in 0.25 s\n").unwrap(), 4000.0);
        assert!(said("getting\n").is_err() && said("got: x\n").is_err());
    }
}
