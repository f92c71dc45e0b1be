//! Hooks, and how runs are asked to stop, with the time that passes.

use super::*;
use crate::kubelet::handler::{self, Target};

/// On a node that runs code.
fn harness() -> Harness {
    let store = Arc::new(ImageStore::in_memory());
    store.import("hello", &Bytes::from_static(b"\0asm\x0d\0\x01\0")).unwrap();
    Harness::with_images(|runtime| Images::local(store, runtime))
}

fn hooks(arg: &str, hooks: &Value) -> Pod {
    with(pod(arg, "Always"), json!({"container": {"lifecycle": hooks}}))
}

fn sleeps(seconds: i64) -> Value {
    json!({"sleep": {"seconds": seconds}})
}

impl Harness {
    /// Milliseconds since the beginning.
    fn elapsed(&self) -> i64 {
        self.node.shared.clock.now().as_millisecond()
    }

    fn asked(&self) -> Vec<u128> {
        self.runtime.asked.lock().unwrap().clone()
    }

    fn killed(&self) -> u32 {
        *self.runtime.killed.lock().unwrap()
    }
}

// BEHAVIOURS 9.10.
#[test]
fn a_deleted_pod_is_asked_and_has_its_grace() {
    struct Case {
        arg: &'static str,
        pre_stop: i64,
        asked: &'static [u128],
        written: &'static str,
        killed: u32,
        seconds: i64,
    }
    for case in [
        Case {
            arg: "hears",
            pre_stop: 0,
            asked: &[10_000],
            written: "Succeeded Completed 0",
            killed: 0,
            seconds: 0,
        },
        Case {
            arg: "ignores",
            pre_stop: 0,
            asked: &[10_000],
            written: "Failed Error 137",
            killed: 1,
            seconds: 10,
        },
        Case { arg: "sleep", pre_stop: 0, asked: &[], written: "Failed Error 137", killed: 1, seconds: 0 },
        Case {
            arg: "hears",
            pre_stop: 3,
            asked: &[7_000],
            written: "Succeeded Completed 0",
            killed: 0,
            seconds: 3,
        },
        Case {
            arg: "ignores",
            pre_stop: 20,
            asked: &[2_000],
            written: "Failed Error 137",
            killed: 1,
            seconds: 12,
        },
        Case { arg: "sleep", pre_stop: 20, asked: &[], written: "Failed Error 137", killed: 1, seconds: 10 },
    ] {
        in_virtual_time(async {
            let mut harness = harness();
            let pod = if case.pre_stop == 0 {
                pod(case.arg, "Always")
            } else {
                hooks(case.arg, &json!({"preStop": sleeps(case.pre_stop)}))
            };
            harness.run(pod);
            harness.until_written("Running running").await;
            let begun = harness.elapsed();
            harness.delete_within(10);
            harness.ended().await;
            assert_eq!(harness.api.writes().last().unwrap(), case.written, "{}", case.arg);
            assert_eq!(
                (harness.asked(), harness.killed()),
                (case.asked.to_vec(), case.killed),
                "{}",
                case.arg
            );
            let late = harness.elapsed() - begun - case.seconds * 1_000;
            assert!((0..=20).contains(&late), "{}: {late} ms late", case.arg);
            assert_eq!(harness.api.state.lock().unwrap().deletions, 1);
        });
    }
}

#[test]
fn a_second_deletion_shortens_the_grace() {
    in_virtual_time(async {
        let mut harness = harness();
        harness.run(pod("ignores", "Always"));
        harness.until_written("Running running").await;
        harness.delete_within(600);
        harness.node.shared.clock.sleep(Duration::from_secs(5)).await;
        harness.delete_within(3);
        harness.ended().await;
        assert_eq!((harness.asked(), harness.killed()), (vec![600_000, 3_000], 1));
        assert!((8_000..8_100).contains(&harness.elapsed()), "{}", harness.elapsed());
    });
}

#[test]
fn a_pod_that_is_gone_has_two_seconds() {
    in_virtual_time(async {
        let mut harness = harness();
        harness.run(pod("ignores", "Always"));
        harness.until_written("Running running").await;
        harness.inbox.pod_gone();
        harness.ended().await;
        assert_eq!((harness.asked(), harness.killed()), (vec![2_000], 1));
        assert!(!harness.events().iter().any(|event| event.starts_with("Killing")));
    });
}

#[test]
fn the_end_of_the_process_leaves_some_seconds_and_the_pod_as_it_is() {
    for (arg, seconds, killed) in [("hears", 0, 0), ("ignores", 5, 1), ("sleep", 0, 1)] {
        in_virtual_time(async {
            let mut harness = harness();
            harness.run(hooks(arg, &json!({"preStop": sleeps(20)})));
            harness.until_written("Running running").await;
            let begun = harness.elapsed();
            harness.inbox.shutdown();
            harness.ended().await;
            assert_eq!(harness.api.writes(), ["Running running"], "{arg}");
            assert_eq!(harness.killed(), killed, "{arg}");
            assert_eq!((harness.elapsed() - begun) / 1_000, seconds, "{arg}");
        });
    }
}

// BEHAVIOURS 9.12.
#[test]
fn it_runs_once_its_post_start_hook_has_returned() {
    in_virtual_time(async {
        let mut harness = harness();
        harness.run(hooks("sleep", &json!({"postStart": sleeps(5)})));
        harness.until_written("Pending ContainerCreating").await;
        assert_eq!(harness.runtime.started.lock().unwrap().len(), 1, "beside the hook");
        harness.until_written("Running running").await;
        assert!((5_000..5_100).contains(&harness.elapsed()), "{}", harness.elapsed());
        harness.inbox.shutdown();
        harness.ended().await;
    });
    in_virtual_time(async {
        let mut harness = harness();
        harness.run(hooks("sleep", &json!({"postStart": {"tcpSocket": {"port": 1}}})));
        harness.until_written("Running CrashLoopBackOff").await;
        let events = harness.events();
        for expected in ["FailedPostStartHook: PostStartHook failed", "Killing: FailedPostStartHook"] {
            assert!(events.iter().any(|event| event == expected), "{events:?}");
        }
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn where_no_code_runs_nothing_is_probed_and_no_hook_is_run() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        let spec = json!({"container": {
            "readinessProbe": {"httpGet": {"port": 1, "path": "/"}},
            "lifecycle": {"postStart": {"tcpSocket": {"port": 1}}},
        }});
        harness.run(with(pod("sleep", "Always"), spec));
        harness.until_written("Running running").await;
        let status = harness.api.state.lock().unwrap().pod.as_ref().unwrap().status.clone().unwrap();
        assert!(status.container_statuses.unwrap()[0].ready);
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

/// BEHAVIOURS 9.9: commands of probes, by their exit codes.
#[test]
fn a_command_passes_a_probe_by_its_exit_code() {
    in_virtual_time(async {
        let mut harness = harness();
        harness.run(pod("sleep", "Always"));
        harness.until_written("Running running").await;
        let pod = harness.api.state.lock().unwrap().pod.clone().unwrap();
        let joined = harness.node.shared.running.find(&pod, "c").unwrap();
        let (clock, container) =
            (harness.node.shared.clock, pod.spec.as_ref().unwrap().containers[0].clone());
        let ask = async |command: &[&str], runs: bool| {
            let probe = json!({"exec": {"command": command}, "timeoutSeconds": 2});
            let setup = runs.then(|| joined.setup());
            let target = Target { container: &container, ip: Ipv4Addr::LOCALHOST, clock, setup };
            handler::probe(&serde_json::from_value(probe).unwrap(), target).await
        };
        let failed = |text: &str| Answer::Failed(text.to_owned());
        for (command, expected) in [
            (&["self", "0"][..], Answer::Passed),
            (&["hello", "0", "all is well"], Answer::Passed),
            (&["self", "3"], failed("")),
            (&["self", "3", "not yet"], failed("not yet")),
            (&["self", "trap", "begun, "], failed("begun, unreachable")),
            (&["self", "oom"], failed("it took more memory than its limit")),
            (&["self", "sleep"], failed("command timed out: \"self sleep\" timed out after 2s")),
        ] {
            assert_eq!(ask(command, true).await, expected, "{command:?}");
        }
        let Answer::Failed(absent) = ask(&["bash"], true).await else { panic!("it is not there") };
        assert!(absent.starts_with("exec: \"bash\": executable file not found"), "{absent}");
        // This store has no toolbox, which says nothing about the container.
        let Answer::Unclear(why) = ask(&["ls"], true).await else { panic!("it cannot be run") };
        assert!(why.starts_with("cannot run \"ls\""), "{why}");
        assert_eq!(ask(&["self", "0"], false).await, Answer::Unclear("the container has ended".to_owned()));
        let much = "x".repeat(20 << 10);
        let Answer::Failed(told) = ask(&["self", "1", &much], true).await else { panic!("it fails") };
        assert_eq!(told.len(), 10 << 10);
        harness.delete();
        harness.ended().await;
    });
}

#[test]
fn a_deleted_pod_is_asked_to_stop_once_no_service_leads_to_it() {
    // A service that leads to nobody here is waited for as little as none.
    for (leads, withdrawn, left) in
        [(true, Some(500), 30_000 - 510), (true, None, 30_000 - 2_000), (false, None, 30_000)]
    {
        in_virtual_time(async {
            let mut harness = harness();
            let clock = harness.node.shared.clock;
            harness.run(pod("hears", "Always"));
            harness.until_written("Running running").await;
            let ip = harness
                .api
                .state
                .lock()
                .unwrap()
                .pod
                .clone()
                .unwrap()
                .status
                .clone()
                .unwrap()
                .pod_ip
                .unwrap();
            let services = harness.node.shared.networks.services().clone();
            let lead = |going: bool| {
                let service = json!({
                    "metadata": {"name": "web", "namespace": "n"},
                    "spec": {"clusterIP": "127.96.0.9", "ports": [{"port": 80}]},
                });
                let slice = json!({
                    "metadata": {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
                    "addressType": "IPv4", "ports": [{"port": 8080}],
                    "endpoints": [{
                        "addresses": [if leads { &ip } else { "127.128.0.99" }],
                        "conditions": {"ready": !going, "serving": true, "terminating": going},
                    }],
                });
                services.set(
                    vec![serde_json::from_value(service).unwrap()],
                    vec![serde_json::from_value(slice).unwrap()],
                );
            };
            lead(false);
            harness.delete();
            if let Some(millis) = withdrawn {
                clock.sleep(Duration::from_millis(millis)).await;
                lead(true);
            }
            harness.ended().await;
            assert_eq!(*harness.runtime.asked.lock().unwrap(), [left], "{leads} {withdrawn:?}");
        });
    }
}
