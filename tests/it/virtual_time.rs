//! A whole cluster in virtual time: hours pass at once, and the same seed gives the same history.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use coracle::client::{Client, Event, Select, Watcher};
use coracle::clock::{self, Clock};
use coracle::cluster::{Cluster, Config};
use coracle::kind::Object;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Pod};
use serde_json::json;

fn pod(name: &str, restart_policy: &str, args: &[&str]) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"restartPolicy": restart_policy, "nodeSelector": {"coracle.dev/runtime": "wasm"}, "containers": [
            {"name": "main", "image": "coracle.dev/worker:v1", "args": args}]},
    }))
    .unwrap()
}

/// Waits for a state of a pod, for at most a virtual day.
async fn until(clock: Clock, watcher: &mut Watcher<Pod>, name: &str, holds: impl Fn(&Pod) -> bool) {
    let mut last = None;
    let day = Duration::from_secs(24 * 3600);
    let reached = clock.timeout(day, seen(watcher, name, &mut last, holds)).await;
    assert!(reached.is_ok(), "{name} after a day: {last:#?}");
}

async fn seen(
    watcher: &mut Watcher<Pod>,
    name: &str,
    last: &mut Option<Arc<Pod>>,
    holds: impl Fn(&Pod) -> bool,
) {
    loop {
        for event in watcher.next_batch().await.unwrap() {
            let pods = match event {
                Event::Restarted(pods) => pods,
                Event::Applied(pod) => vec![pod],
                Event::Deleted(_) => Vec::new(),
            };
            for pod in pods.into_iter().filter(|pod| pod.metadata.name.as_deref() == Some(name)) {
                if holds(&pod) {
                    return;
                }
                *last = Some(pod);
            }
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.map_or(0, |statuses| statuses.iter().map(|status| status.restart_count).sum())
}

/// Everything that happened, as text.
async fn history(client: &Client) -> String {
    let mut text = String::new();
    let pods = client.list::<Pod>(&Select::default()).await.unwrap();
    for pod in pods.items {
        writeln!(text, "{}", pod.to_value()).unwrap();
    }
    for event in client.list::<CoreEvent>(&Select::default()).await.unwrap().items {
        writeln!(text, "{}", event.to_value()).unwrap();
    }
    text
}

fn run(seed: u64) -> (String, Duration) {
    clock::virtual_runtime().unwrap().block_on(async {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let config =
            Config { nodes: 3, sim_nodes: 5, virtual_time: Some((start, seed)), ..Config::default() };
        let cluster = Cluster::start(config).await.unwrap();
        cluster.ready().await.unwrap();
        let client = cluster.client();
        let mut watcher = client.watch::<Pod>(Select::default());
        // Sleeps for an hour; and fails at once, again and again, until its back-off is five minutes.
        client.create(pod("hour", "Never", &["3600"])).await.unwrap();
        until(cluster.clock(), &mut watcher, "hour", |pod| phase(pod) == "Succeeded").await;
        client.create(pod("crash", "Always", &["0", "1"])).await.unwrap();
        until(cluster.clock(), &mut watcher, "crash", |pod| restarts(pod) >= 8).await;
        let text = history(&client).await;
        let passed = cluster.clock().monotonic();
        cluster.shutdown().await;
        (text, passed)
    })
}

#[test]
fn an_hour_passes_at_once_and_a_seed_repeats_itself() {
    let (first, passed) = run(7);
    assert!(passed >= Duration::from_secs(3600), "{passed:?} passed");
    let (second, passed_again) = run(7);
    assert_eq!((first, passed), (second, passed_again));
}
