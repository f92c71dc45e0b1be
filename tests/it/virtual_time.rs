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

// BEHAVIOURS 9.6 and 9.7.
#[test]
fn a_crash_loop_waits_longer_each_time_and_says_how_long() {
    clock::virtual_runtime().unwrap().block_on(async {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let cluster =
            Cluster::start(Config { virtual_time: Some((start, 3)), ..Config::default() }).await.unwrap();
        cluster.ready().await.unwrap();
        let client = cluster.client();
        let mut watcher = client.watch::<Pod>(Select::default());
        // Each run takes a second, which is not part of the wait.
        client.create(pod("crash", "Always", &["1", "3"])).await.unwrap();
        let mut waits: Vec<(i32, String, Timestamp)> = Vec::new();
        let mut collect = |pod: &Pod| {
            let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let Some(container) = status.map(|statuses| &statuses[0]) else { return false };
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            if let Some(waiting) = waiting.filter(|why| why.reason.as_deref() == Some("CrashLoopBackOff"))
                && waits.last().is_none_or(|(restarts, ..)| *restarts != container.restart_count)
            {
                let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
                assert_eq!(ended.map(|ended| ended.exit_code), Some(3));
                let message = waiting.message.clone().unwrap();
                let wait = message.split(' ').nth(1).unwrap().to_owned();
                assert!(message.starts_with(&format!(
                    "back-off {wait} restarting failed container=main pod=crash_default("
                )));
                let finished_at = ended.and_then(|ended| ended.finished_at.clone()).unwrap().0;
                waits.push((container.restart_count, wait, finished_at));
            }
            waits.len() == 8
        };
        let clock = cluster.clock();
        let day = Duration::from_secs(24 * 3600);
        let all = async {
            loop {
                for event in watcher.next_batch().await.unwrap() {
                    if let Event::Applied(pod) = event
                        && collect(&pod)
                    {
                        return;
                    }
                }
            }
        };
        assert!(clock.timeout(day, all).await.is_ok(), "after a day");
        let told: Vec<(i32, &str)> = waits.iter().map(|(restarts, wait, _)| (*restarts, &**wait)).collect();
        assert_eq!(
            told,
            [
                (1, "10s"),
                (2, "20s"),
                (3, "40s"),
                (4, "1m20s"),
                (5, "2m40s"),
                (6, "5m0s"),
                (7, "5m0s"),
                (8, "5m0s"),
            ]
        );
        // From one exit to the next: the wait, and the run of a second.
        let between: Vec<i64> =
            waits.windows(2).map(|pair| pair[1].2.duration_since(pair[0].2).as_secs()).collect();
        for (between, wait) in between.iter().zip([10, 20, 40, 80, 160, 300, 300]) {
            assert!((wait + 1..=wait + 2).contains(between), "{between} s for a wait of {wait} s");
        }
        cluster.shutdown().await;
    });
}
