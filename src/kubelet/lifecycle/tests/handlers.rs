//! Hooks and probes in the life of a pod (BEHAVIOURS 9.8, 9.9, 9.12).

use super::*;

/// A pod of `a` and `b`, with more in the spec of `a`.
fn with(policy: &str, more: serde_json::Value) -> Pod {
    let mut pod = pod(policy, &[], &["a", "b"]);
    let mut container = json!({"name": "a", "image": "i"});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod.spec.as_mut().unwrap().containers[0] = serde_json::from_value(container).unwrap();
    pod
}

fn failed() -> Answer {
    Answer::Failed("why".into())
}

// BEHAVIOURS 9.12.
#[test]
fn a_container_does_not_run_before_its_post_start_hook_has_returned() {
    let hook = json!({"lifecycle": {"postStart": {"sleep": {"seconds": 1}}}, "readinessProbe": {}});
    let (mut drive, first) = Drive::prepared(&with("Always", hook.clone()));
    assert_eq!(first, ["start a"], "what follows waits for the hook");
    assert_eq!(drive.started("a"), ["hook PostStart a"]);
    assert!(!drive.life.containers[0].has_started() && drive.life.containers[0].is_up());
    drive.now = 5;
    assert_eq!(drive.hooked("a", Hook::PostStart, None), ["start b", "probe Readiness a"]);
    assert_eq!(drive.life.containers[0].run, Run::Running { started_at: at(0) });

    // One that fails ends the container, which the policy may start again.
    for (policy, then) in [("Always", "start a"), ("Never", "start b")] {
        let (mut drive, _) = Drive::prepared(&with(policy, hook.clone()));
        drive.started("a");
        assert_eq!(
            drive.hooked("a", Hook::PostStart, Some("it says a secret")),
            ["FailedPostStartHook: PostStartHook failed", "Killing: FailedPostStartHook", "ask a until 30"]
        );
        assert_eq!(drive.waiting("a"), "PostStartHookError");
        assert_eq!(drive.exited("a", 137), [then], "{policy}");
    }

    // It may end by itself meanwhile, or the pod may be deleted.
    let (mut drive, _) = Drive::prepared(&with("Never", hook.clone()));
    drive.started("a");
    assert_eq!(drive.exited("a", 0), ["start b"]);
    assert_eq!(drive.hooked("a", Hook::PostStart, None), NOTHING, "too late");
    let (mut drive, _) = Drive::prepared(&with("Always", hook));
    drive.started("a");
    assert_eq!(drive.deleted(30), ["Killing: Stopping container a", "cancel hook a", "ask a until 30"]);
    assert_eq!(drive.exited("a", 0), NOTHING);
    assert!(drive.life.end.is_some());
}

// BEHAVIOURS 9.9.
#[test]
fn liveness_stops_a_container_with_the_grace_of_its_probe() {
    for (policy, grace, message, until) in [
        ("Always", None, "Container a failed liveness probe, will be restarted", 31),
        ("OnFailure", Some(5), "Container a failed liveness probe, will be restarted", 6),
        ("Never", Some(5), "Container a failed liveness probe", 6),
    ] {
        let probe =
            json!({"periodSeconds": 1, "failureThreshold": 2, "terminationGracePeriodSeconds": grace});
        let (mut drive, _) = Drive::prepared(&with(policy, json!({"livenessProbe": probe})));
        drive.started("b");
        assert_eq!(drive.started("a"), ["probe Liveness a"]);
        assert_eq!(
            drive.probed("a", ProbeKind::Liveness, failed()),
            ["Unhealthy: Liveness probe failed: why"]
        );
        assert_eq!(drive.wake(), Some(1));
        assert_eq!(drive.tick(1), ["probe Liveness a"]);
        assert_eq!(
            drive.probed("a", ProbeKind::Liveness, failed()),
            [
                "Unhealthy: Liveness probe failed: why".to_owned(),
                format!("Killing: {message}"),
                format!("ask a until {until}"),
            ]
        );
        assert_eq!(drive.wake(), Some(until), "not asked any more");
        let then = drive.exited("a", 137);
        assert_eq!(then, if policy == "Never" { vec![] } else { vec!["start a"] }, "{policy}");
        if policy != "Never" {
            assert_eq!(drive.started("a"), ["probe Liveness a"], "afresh");
            assert_eq!(
                drive.probed("a", ProbeKind::Liveness, failed()),
                ["Unhealthy: Liveness probe failed: why"]
            );
        }
    }
}

#[test]
fn startup_holds_the_others_up_and_readiness_only_shows() {
    let probes = json!({
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {"periodSeconds": 100},
        "readinessProbe": {"periodSeconds": 1, "failureThreshold": 1},
    });
    let (mut drive, _) = Drive::prepared(&with("Always", probes));
    drive.started("b");
    assert_eq!(drive.started("a"), ["probe Startup a"]);
    assert!(!drive.life.containers[0].is_started());
    assert_eq!(
        drive.probed("a", ProbeKind::Startup, Answer::Passed),
        ["probe Liveness a", "probe Readiness a"]
    );
    assert!(drive.life.containers[0].is_started() && !drive.life.containers[0].is_ready());
    drive.probed("a", ProbeKind::Readiness, Answer::Passed);
    assert!(drive.life.containers[0].is_ready());
    assert_eq!(drive.tick(1), ["probe Readiness a"]);
    let lines = drive.probed("a", ProbeKind::Readiness, failed());
    assert_eq!(lines, ["Unhealthy: Readiness probe failed: why"]);
    assert!(drive.life.containers[0].is_started() && !drive.life.containers[0].is_ready());
    drive.tick(2);
    assert_eq!(
        drive.probed("a", ProbeKind::Readiness, Answer::Warned("moved".into())),
        ["ProbeWarning: Readiness probe warning: moved"]
    );
    assert!(drive.life.containers[0].is_ready());
    // In deletion only readiness goes on.
    assert_eq!(
        drive.deleted(200),
        [
            "Killing: Stopping container a",
            "Killing: Stopping container b",
            "ask a until 202",
            "ask b until 202"
        ]
    );
    assert_eq!(drive.tick(150), ["probe Readiness a"]);
    drive.exited("a", 0);
    assert!(!drive.life.containers[0].is_ready());
    assert_eq!(drive.probed("a", ProbeKind::Readiness, failed()), NOTHING, "too late");
}

// BEHAVIOURS 9.8.
#[test]
fn a_sidecar_counts_as_started_once_its_startup_probe_has_passed() {
    let mut pod = pod("Always", &[("s", true), ("i", false)], &["a"]);
    let spec = pod.spec.as_mut().unwrap();
    spec.init_containers.as_mut().unwrap()[0].startup_probe =
        serde_json::from_value(json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}))
            .unwrap();
    let (mut drive, _) = Drive::prepared(&pod);
    assert_eq!(drive.started("s"), ["probe Startup s"]);
    assert_eq!(
        drive.probed("s", ProbeKind::Startup, failed()),
        [
            "Unhealthy: Startup probe failed: why",
            "Killing: Init container s failed startup probe",
            "ask s until 30",
        ]
    );
    assert_eq!(drive.exited("s", 137), ["start s"]);
    drive.started("s");
    assert!(!drive.life.is_initialized());
    assert_eq!(drive.probed("s", ProbeKind::Startup, Answer::Passed), ["start i"]);
    drive.started("i");
    assert_eq!(drive.exited("i", 0), ["start a"]);
    assert!(drive.life.is_initialized());
}
