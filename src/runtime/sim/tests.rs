use super::super::budget::{Budget, Limits};
use super::super::log::Log;
use super::super::stdio::Stdio;
use super::*;
use crate::clock::virtual_runtime;

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (format!("coracle.dev/sim-{key}"), (*value).to_owned())).collect()
}

/// How and after which time since the start a container ends.
async fn play_one(runtime: &SimRuntime, pairs: &[(&str, &str)]) -> (Exit, Duration) {
    let began = runtime.clock.monotonic();
    let annotations = annotations(pairs);
    runtime.clock.sleep(runtime.start_delay(&annotations)).await;
    let container = runtime.start(spec(runtime, annotations).await).await;
    let exit = container.exited().await;
    (exit, runtime.clock.monotonic() - began)
}

async fn spec(runtime: &SimRuntime, annotations: BTreeMap<String, String>) -> ContainerSpec {
    ContainerSpec {
        label: "ns/pod/main".to_owned(),
        image: runtime.prepare(Bytes::new()).await.unwrap(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        config: None,
        queue: None,
        network: None,
        http: None,
        budget: Budget::new(Limits::default(), runtime.clock, None),
        fuel: super::super::Fuel::Off,
        stdio: Stdio::log(&Arc::new(Log::new(runtime.clock, 1_000))),
        annotations,
    }
}

fn in_virtual_time<F: Future<Output = ()>>(test: impl FnOnce(Arc<SimRuntime>) -> F) {
    virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        test(SimRuntime::new(clock, Random::from_seed(1), Handle::current())).await;
    });
}

#[test]
fn scripts() {
    /// Annotations, how the container ends, and after how many milliseconds.
    type Case = (&'static [(&'static str, &'static str)], Exit, u64);
    let cases: [Case; 8] = [
        (&[("duration", "5s")], Exit::Code(0), 5_000),
        (&[("duration", "1m30s"), ("start-delay", "100ms")], Exit::Code(0), 90_100),
        (&[("duration", "0s"), ("start-delay", "100ms"), ("start-delay.main", "300ms")], Exit::Code(0), 300),
        (&[("duration", "0s"), ("exit-code", "3")], Exit::Code(3), 0),
        (&[("duration", "1h"), ("duration.main", "1s"), ("duration.other", "2s")], Exit::Code(0), 1_000),
        (&[("duration", "1s"), ("failure-rate", "1")], Exit::Code(1), 1_000),
        (&[("duration", "1s"), ("failure-rate", "1"), ("exit-code", "7")], Exit::Code(7), 1_000),
        (&[("duration", "1s"), ("failure-rate", "0"), ("exit-code", "7")], Exit::Code(0), 1_000),
    ];
    in_virtual_time(|runtime| async move {
        for (pairs, exit, milliseconds) in cases {
            let expected = (exit, Duration::from_millis(milliseconds));
            assert_eq!(play_one(&runtime, pairs).await, expected, "{pairs:?}");
        }
        assert_eq!(runtime.start_delay(&annotations(&[("start-delay", "2s")])), Duration::from_secs(2));
    });
}

#[test]
fn a_value_without_sense_ends_the_container_with_a_message() {
    let cases = [
        (
            "duration",
            "soon",
            "annotation coracle.dev/sim-duration: \"soon\" is not a duration like 100ms or 1m30s",
        ),
        (
            "duration",
            "-1s",
            "annotation coracle.dev/sim-duration: \"-1s\" is not a duration like 100ms or 1m30s",
        ),
        ("exit-code", "x", "annotation coracle.dev/sim-exit-code: \"x\" is not a whole number"),
        ("failure-rate", "2", "annotation coracle.dev/sim-failure-rate: 2 is not a number from 0 to 1"),
    ];
    in_virtual_time(|runtime| async move {
        for (key, value, message) in cases {
            let (exit, _) = play_one(&runtime, &[(key, value)]).await;
            assert_eq!(exit, Exit::Trap(message.to_owned()));
        }
    });
}

#[test]
fn the_seed_decides_failures_and_jitter() {
    let runs = || {
        let mut seen = Vec::new();
        let pairs = [("duration", "1s"), ("jitter", "1s"), ("failure-rate", "0.5")];
        virtual_runtime().unwrap().block_on(async {
            let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
            let runtime = SimRuntime::new(clock, Random::from_seed(7), Handle::current());
            for _ in 0..20 {
                seen.push(play_one(&runtime, &pairs).await);
            }
        });
        seen
    };
    let seen = runs();
    assert_eq!(seen, runs());
    assert!(seen.iter().any(|(exit, _)| *exit == Exit::Code(0)));
    assert!(seen.iter().any(|(exit, _)| *exit == Exit::Code(1)));
    assert!(seen.iter().all(|(_, time)| (1..3).contains(&time.as_secs())));
}

#[test]
fn ten_thousand_run_until_killed() {
    in_virtual_time(|runtime| async move {
        let mut containers = Vec::new();
        for _ in 0..10_000 {
            containers.push(runtime.start(spec(&runtime, BTreeMap::new()).await).await);
        }
        runtime.clock.sleep(Duration::from_secs(3600)).await;
        assert!(containers.iter().all(|container| container.exit().is_none()));
        for container in containers {
            container.kill();
            assert_eq!(container.exited().await, Exit::Killed);
        }
    });
}
