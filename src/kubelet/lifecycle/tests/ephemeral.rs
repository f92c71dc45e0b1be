//! Containers that are added to look into a pod (BEHAVIOURS 8.6).

use super::*;

fn added(drive: &mut Drive, name: &str) -> Vec<String> {
    let spec = ContainerSpec { name: name.to_owned(), image: Some("i".into()), ..ContainerSpec::default() };
    drive.step(Event::Added(Box::new(spec)))
}

/// 8.6
#[test]
fn one_runs_once_and_nothing_waits_for_it() {
    let (mut drive, _) = Drive::prepared(&pod("Always", &[("i", false)], &["a"]));
    drive.started("i");
    // The pod is not initialized, which is what one may want to look into.
    assert_eq!(added(&mut drive, "debug"), ["start debug"]);
    assert_eq!(drive.started("debug"), NOTHING);
    assert_eq!(drive.exited("i", 0), ["start a"]);
    drive.started("a");
    assert_eq!(drive.exited("debug", 1), NOTHING);
    let slot = drive.slot("debug");
    assert_eq!(drive.life.containers[slot].run, Run::Idle);
    assert_eq!(drive.tick(600), NOTHING);
    let changed = Event::ConfigChanged { slot, source: "configmap/c".into(), revision: 2 };
    assert_eq!(drive.step(changed), NOTHING);
    assert_eq!(drive.life.end, None);
}

#[test]
fn one_ends_with_its_pod() {
    for policy in ["Never", "Always"] {
        let (mut drive, _) = Drive::prepared(&pod(policy, &[("s", true)], &["a"]));
        drive.started("s");
        drive.started("a");
        added(&mut drive, "debug");
        drive.started("debug");
        let mut lines = if policy == "Never" { drive.exited("a", 0) } else { drive.deleted(30) };
        lines.sort();
        assert!(lines.contains(&"Killing: Stopping container debug".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("ask debug")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("ask s")), "sidecars end last: {lines:?}");
        drive.exited("debug", 137);
        if policy == "Always" {
            drive.exited("a", 0);
        }
        drive.exited("s", 0);
        assert_eq!(drive.life.end, Some(End::Succeeded), "{policy}: how it ended is not how the pod did");
        assert_eq!(added(&mut drive, "late"), NOTHING);
    }
}

#[test]
fn an_image_that_is_not_there_is_waited_for() {
    let (mut drive, _) = Drive::prepared(&pod("Always", &[], &["a"]));
    drive.started("a");
    added(&mut drive, "debug");
    drive.failed("debug", Cause::Image, "ErrImagePull", true);
    assert_eq!(drive.waiting("debug"), "ErrImagePull");
    assert_eq!(drive.step(Event::ImagesChanged), ["start debug"]);
}

#[test]
fn one_that_ran_when_the_node_was_restarted_has_ended() {
    let mut pod = pod("Always", &[], &["a"]);
    let json = json!([{"name": "debug", "image": "i"}]);
    pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(json).unwrap();
    let status = json!({
        "phase": "Running", "startTime": "2025-01-01T00:00:00Z",
        "ephemeralContainerStatuses": [{
            "name": "debug", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"running": {"startedAt": "2025-01-01T00:00:00Z"}},
        }],
    });
    pod.status = serde_json::from_value(status).unwrap();
    let (drive, lines) = Drive::prepared(&pod);
    assert_eq!(lines, ["start a"]);
    let ended = drive.life.containers[drive.slot("debug")].ended.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
}
