use super::*;
use serde_json::json;

mod ephemeral;
mod handlers;
mod stopping;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn pod(policy: &str, init: &[(&str, bool)], apps: &[&str]) -> Pod {
    let init: Vec<_> = init
        .iter()
        .map(|(name, sidecar)| {
            let mut container = json!({"name": name, "image": "i"});
            if *sidecar {
                container["restartPolicy"] = "Always".into();
            }
            container
        })
        .collect();
    let apps: Vec<_> = apps.iter().map(|name| json!({"name": name, "image": "i"})).collect();
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": apps},
    }))
    .unwrap()
}

/// A pod that is driven by short words, its actions rendered as short lines.
struct Drive {
    life: Life,
    now: i64,
}

impl Drive {
    fn new(pod: &Pod) -> Self {
        let mut drive = Self { life: Life::new(pod, at(0)), now: 0 };
        if drive.life.end.is_none() && drive.life.stop.is_none() {
            assert_eq!(drive.step(Event::Accepted), ["prepare"]);
        }
        drive
    }

    /// Accepted and with its volumes: the first actions.
    fn prepared(pod: &Pod) -> (Self, Vec<String>) {
        let mut drive = Self::new(pod);
        let lines = drive.step(Event::Prepared);
        (drive, lines)
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        let actions = self.life.step(event, at(self.now));
        let name = |slot: Slot| self.life.containers[slot].name.clone();
        let render = |action| match action {
            Action::Prepare => "prepare".to_owned(),
            Action::Start { slot } => format!("start {}", name(slot)),
            Action::Cancel { slot } => format!("cancel {}", name(slot)),
            Action::RunHook { slot, hook } => format!("hook {hook:?} {}", name(slot)),
            Action::CancelHook { slot } => format!("cancel hook {}", name(slot)),
            Action::Probe { slot, kind } => format!("probe {kind:?} {}", name(slot)),
            Action::Ask { slot, until } => format!("ask {} until {}", name(slot), until.as_second()),
            Action::Kill { slot } => format!("kill {}", name(slot)),
            Action::Record { reason, message, .. } => format!("{reason}: {message}"),
        };
        actions.into_iter().map(render).collect()
    }

    fn slot(&self, name: &str) -> Slot {
        self.life.containers.iter().position(|c| c.name == name).unwrap()
    }

    fn started(&mut self, name: &str) -> Vec<String> {
        let slot = self.slot(name);
        self.step(Event::Started { slot, container_id: format!("x://{name}"), image_id: "sha256:1".into() })
    }

    fn exited(&mut self, name: &str, exit_code: i32) -> Vec<String> {
        let (slot, now) = (self.slot(name), at(self.now));
        let reason = if exit_code == 0 { "Completed" } else { "Error" }.to_owned();
        self.step(Event::Exited {
            slot,
            ended: Ended { exit_code, reason, finished_at: Some(now), ..Ended::default() },
        })
    }

    fn failed(&mut self, name: &str, cause: Cause, reason: &'static str, retry: bool) -> Vec<String> {
        let failure = StartFailure { cause, reason, message: "why".into(), retry };
        let slot = self.slot(name);
        self.step(Event::StartFailed { slot, failure })
    }

    fn deleted(&mut self, grace_seconds: i64) -> Vec<String> {
        self.step(Event::Deleted { grace_seconds })
    }

    fn hooked(&mut self, name: &str, hook: Hook, error: Option<&str>) -> Vec<String> {
        let slot = self.slot(name);
        self.step(Event::Hooked { slot, hook, error: error.map(str::to_owned) })
    }

    fn probed(&mut self, name: &str, kind: ProbeKind, answer: Answer) -> Vec<String> {
        let slot = self.slot(name);
        self.step(Event::Probed { slot, kind, answer })
    }

    fn tick(&mut self, now: i64) -> Vec<String> {
        self.now = now;
        self.step(Event::Tick)
    }

    fn wake(&self) -> Option<i64> {
        self.life.wake_at().map(Timestamp::as_second)
    }

    fn waiting(&self, name: &str) -> &'static str {
        self.life.containers[self.slot(name)].waiting.as_ref().map_or("", |w| w.reason)
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn what_ends_well_ends_the_pod_unless_it_is_to_run_always() {
    // BEHAVIOURS 9.4.
    for (policy, code, restarts, end) in [
        ("Never", 0, false, Some(End::Succeeded)),
        ("Never", 1, false, Some(End::Failed)),
        ("OnFailure", 0, false, Some(End::Succeeded)),
        ("OnFailure", 1, true, None),
        ("Always", 0, true, None),
        ("Always", 1, true, None),
    ] {
        let (mut drive, first) = Drive::prepared(&pod(policy, &[], &["a"]));
        assert_eq!(first, ["start a"]);
        assert_eq!(drive.started("a"), NOTHING);
        let lines = drive.exited("a", code);
        assert_eq!(lines, if restarts { vec!["start a"] } else { vec![] }, "{policy} {code}");
        assert_eq!(drive.life.end, end, "{policy} {code}");
    }
}

#[test]
fn the_pod_ends_with_its_last_container() {
    let (mut drive, first) = Drive::prepared(&pod("Never", &[], &["a", "b"]));
    assert_eq!(first, ["start a", "start b"]);
    drive.started("a");
    drive.started("b");
    drive.exited("a", 3);
    assert_eq!(drive.life.end, None);
    drive.exited("b", 0);
    assert_eq!(drive.life.end, Some(End::Failed));
}

#[test]
fn restarts_wait_longer_each_time_and_say_so_once() {
    // BEHAVIOURS 9.7.
    let (mut drive, _) = Drive::prepared(&pod("Always", &[], &["a"]));
    drive.started("a");
    assert_eq!(drive.exited("a", 1), ["start a"]);
    drive.started("a");
    assert_eq!(drive.exited("a", 1), ["BackOff: Back-off restarting failed container a in pod p_n(u)"]);
    let container = &drive.life.containers[0];
    let waiting = container.waiting.as_ref().unwrap();
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(waiting.message, "back-off 10s restarting failed container=a pod=p_n(u)");
    assert_eq!(container.restarts, 1);
    assert_eq!(drive.wake(), Some(10));
    assert_eq!(drive.tick(9), NOTHING);
    assert_eq!(drive.tick(10), ["start a"]);
    drive.started("a");
    drive.now = 30;
    drive.exited("a", 0);
    assert_eq!(drive.wake(), Some(50), "20 s from the last exit");
    assert_eq!(drive.tick(50), ["start a"]);
    drive.started("a");
    drive.now = 50 + 601;
    assert_eq!(drive.exited("a", 1), ["start a"], "ten minutes of running are forgiveness");
    assert_eq!(drive.life.containers[0].restarts, 3);
}

#[test]
fn init_containers_run_one_by_one() {
    // BEHAVIOURS 9.8.
    let (mut drive, first) = Drive::prepared(&pod("Always", &[("i", false), ("j", false)], &["a"]));
    assert_eq!(first, ["start i"]);
    assert_eq!(drive.started("i"), NOTHING);
    assert_eq!(drive.exited("i", 0), ["start j"]);
    drive.started("j");
    assert_eq!(drive.exited("j", 1), ["start j"], "tried again, the first time at once");
    drive.started("j");
    assert!(!drive.life.is_initialized());
    assert_eq!(drive.exited("j", 0), ["start a"]);
    assert!(drive.life.is_initialized());
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let (mut drive, _) = Drive::prepared(&pod("Never", &[("i", false)], &["a"]));
    drive.started("i");
    assert_eq!(drive.exited("i", 1), NOTHING);
    assert_eq!(drive.life.end, Some(End::Failed));
}

#[test]
fn sidecars_start_in_order_restart_and_are_stopped_last_in_reverse() {
    let (mut drive, first) =
        Drive::prepared(&pod("Never", &[("s", true), ("i", false), ("t", true)], &["a"]));
    assert_eq!(first, ["start s"]);
    assert_eq!(drive.started("s"), ["start i"]);
    assert_eq!(drive.exited("s", 0), ["start s"], "whatever the policy");
    drive.started("s");
    drive.started("i");
    assert_eq!(drive.exited("i", 0), ["start t"]);
    assert_eq!(drive.started("t"), ["start a"]);
    drive.started("a");
    assert_eq!(
        drive.exited("a", 0),
        ["Killing: Stopping container s", "Killing: Stopping container t", "ask t until 30"]
    );
    assert_eq!(drive.life.end, None);
    assert_eq!(drive.exited("t", 137), ["ask s until 30"]);
    assert_eq!(drive.exited("s", 137), NOTHING);
    assert_eq!(drive.life.end, Some(End::Succeeded), "sidecars do not count");
}

#[test]
fn a_missing_image_fails_then_backs_off_and_is_tried_when_images_come() {
    let (mut drive, _) = Drive::prepared(&pod("Never", &[], &["a"]));
    assert_eq!(drive.failed("a", Cause::Image, "ErrImagePull", true), ["Failed: why"]);
    assert_eq!(drive.waiting("a"), "ErrImagePull");
    assert_eq!(drive.wake(), Some(2));
    assert_eq!(drive.tick(2), ["BackOff: Back-off pulling image \"i\": why"]);
    assert_eq!(drive.waiting("a"), "ImagePullBackOff");
    assert_eq!(drive.wake(), Some(10));
    assert_eq!(drive.tick(10), ["start a"]);
    assert_eq!(drive.failed("a", Cause::Image, "ErrImagePull", true), NOTHING, "said before");
    assert_eq!(drive.life.containers[0].retry_at, Some(at(30)));
    assert_eq!(drive.step(Event::SourcesChanged), NOTHING);
    assert_eq!(drive.step(Event::ImagesChanged), ["start a"]);
    assert_eq!(drive.started("a"), NOTHING);
    assert_eq!(drive.waiting("a"), "");
    assert_eq!(drive.life.containers[0].restarts, 0);
}

#[test]
fn an_image_that_never_comes_by_itself_is_not_looked_for() {
    for (reason, event) in [
        ("ErrImageNeverPull", "ErrImageNeverPull: why"),
        ("InvalidImageName", "InspectFailed: why"),
        ("CreateContainerError", "Failed: Error: why"),
    ] {
        let (mut drive, _) = Drive::prepared(&pod("Always", &[], &["a"]));
        assert_eq!(drive.failed("a", Cause::Image, reason, false), [event]);
        assert_eq!((drive.waiting("a"), drive.wake()), (reason, None));
        assert_eq!(drive.step(Event::ImagesChanged), ["start a"]);
    }
}

#[test]
fn a_missing_key_is_waited_for() {
    // BEHAVIOURS 10.3.
    let (mut drive, _) = Drive::prepared(&pod("Never", &[], &["a"]));
    let reason = "CreateContainerConfigError";
    assert_eq!(drive.failed("a", Cause::Config, reason, false), ["Failed: Error: why"]);
    assert_eq!((drive.waiting("a"), drive.wake()), (reason, None));
    assert_eq!(drive.step(Event::SourcesChanged), ["start a"]);
    // One that comes while the container is being started is not missed.
    assert_eq!(drive.step(Event::SourcesChanged), NOTHING);
    assert_eq!(drive.failed("a", Cause::Config, reason, false), ["start a"]);
    assert_eq!(drive.failed("a", Cause::Config, reason, false), NOTHING);
    assert_eq!(drive.step(Event::SourcesChanged), ["start a"]);
}

#[test]
fn a_sidecar_that_backs_off_does_not_wake_a_pod_that_is_ending() {
    let (mut drive, _) = Drive::prepared(&pod("Never", &[("s", true), ("t", true)], &["a"]));
    for name in ["s", "t", "a", "t", "t"] {
        if name == "t" && drive.life.containers[1].ended.is_some() {
            drive.exited(name, 1);
        }
        drive.started(name);
    }
    drive.exited("t", 1);
    drive.started("t");
    drive.exited("t", 1);
    assert!(drive.wake().is_some(), "t backs off");
    assert_eq!(drive.exited("a", 0), ["Killing: Stopping container s", "ask s until 30"]);
    assert_eq!(drive.wake(), Some(30), "for s alone");
    drive.exited("s", 137);
    assert_eq!(drive.life.end, Some(End::Succeeded));
}

#[test]
fn a_pod_deleted_before_it_begins_never_does() {
    let mut pod = pod("Always", &[], &["a"]);
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    let mut drive = Drive::new(&pod);
    assert_eq!(drive.step(Event::Tick), NOTHING);
    assert_eq!(drive.life.end, Some(End::Failed));
}

#[test]
fn the_deadline_counts_from_the_start() {
    // BEHAVIOURS 9.11.
    let mut pod = pod("Always", &[], &["a"]);
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(30);
    let (mut drive, _) = Drive::prepared(&pod);
    drive.started("a");
    assert_eq!(drive.wake(), Some(30));
    drive.step(Event::DeadlineChanged(Some(20)));
    assert_eq!(drive.tick(19), NOTHING);
    let why = "Pod was active on the node longer than the specified deadline";
    assert_eq!(
        drive.tick(20),
        [format!("DeadlineExceeded: {why}"), "Killing: Stopping container a".into(), "ask a until 50".into()]
    );
    drive.exited("a", 0);
    assert_eq!(drive.life.end, Some(End::Failed), "whatever the code");
}

#[test]
fn another_image_restarts_a_container_without_waiting() {
    let (mut drive, _) = Drive::prepared(&pod("Never", &[], &["a"]));
    drive.started("a");
    let changed = Event::SpecChanged { slot: 0, image: "j".into() };
    assert_eq!(
        drive.step(changed),
        ["Killing: Container a definition changed, will be restarted", "ask a until 30"]
    );
    assert_eq!(drive.exited("a", 137), ["start a"]);
    drive.started("a");
    assert_eq!(drive.life.containers[0].restarts, 1);
}

#[test]
fn new_configuration_restarts_what_runs_whatever_the_policy() {
    let changed = |drive: &Drive, name: &str| Event::ConfigChanged {
        slot: drive.slot(name),
        source: "configmap/m".into(),
        revision: 7,
    };
    let killing = |name: &str| {
        vec![
            format!(
                "Killing: Container {name} uses configmap/m, which changed in revision 7, will be restarted"
            ),
            format!("ask {name} until 30"),
        ]
    };
    for policy in ["Always", "OnFailure", "Never"] {
        let (mut drive, _) = Drive::prepared(&pod(policy, &[("i", false), ("s", true)], &["a"]));
        // What is not running begins with the new content anyway; init containers do their work once.
        for name in ["i", "a"] {
            let event = changed(&drive, name);
            assert_eq!(drive.step(event), NOTHING, "{policy} {name}");
        }
        drive.started("i");
        let event = changed(&drive, "i");
        assert_eq!(drive.step(event), NOTHING, "{policy}");
        drive.exited("i", 0);
        drive.started("s");
        drive.started("a");
        for name in ["a", "s"] {
            for restarts in 1..4 {
                let event = changed(&drive, name);
                assert_eq!(drive.step(event.clone()), killing(name), "{policy}");
                assert_eq!(drive.step(event), NOTHING, "said once");
                // At once, and every time: no crash, no back-off.
                assert_eq!(drive.exited(name, 137), [format!("start {name}")], "{policy}");
                assert_eq!(drive.life.end, None);
                drive.started(name);
                assert_eq!(drive.life.containers[drive.slot(name)].restarts, restarts);
            }
        }
        // What is missing now is waited for.
        let event = changed(&drive, "a");
        drive.step(event);
        drive.exited("a", 137);
        assert_eq!(
            drive.failed("a", Cause::Config, "CreateContainerConfigError", false),
            ["Failed: Error: why"]
        );
        assert_eq!((drive.life.end, drive.waiting("a")), (None, "CreateContainerConfigError"));
        assert_eq!(drive.step(Event::SourcesChanged), ["start a"]);
        drive.started("a");
        // A pod in deletion stays on its way.
        drive.deleted(30);
        let event = changed(&drive, "a");
        assert_eq!(drive.step(event), NOTHING);
    }
}

#[test]
fn a_refused_pod_fails_at_once() {
    let mut life = Life::new(&pod("Always", &[], &["a"]), at(0));
    let rejection = Rejection { reason: "OutOfcpu".into(), message: "no cpu".into() };
    let actions = life.step(Event::Rejected(rejection), at(0));
    assert!(matches!(&actions[..], [Action::Record { reason: "OutOfcpu", warning: true, .. }]));
    assert_eq!(life.end, Some(End::Failed));
}

/// A pod as it is found in the API after its node was restarted.
fn found(policy: &str, init: serde_json::Value, apps: serde_json::Value) -> Pod {
    let init_names: Vec<(&str, bool)> = init.as_array().unwrap().iter().map(|_| ("i", false)).collect();
    let mut pod = pod(policy, &init_names, &["a"]);
    pod.status = Some(
        serde_json::from_value(json!({
            "phase": "Running", "startTime": "1970-01-01T00:00:00Z",
            "initContainerStatuses": init, "containerStatuses": apps,
        }))
        .unwrap(),
    );
    pod
}

fn status(name: &str, state: serde_json::Value, restarts: i32) -> serde_json::Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": restarts, "state": state})
}

#[test]
fn after_a_restart_of_the_node_what_ran_is_run_again() {
    let running = json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}});
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    for (policy, app, first, end) in [
        ("Always", running.clone(), "start i", None),
        ("OnFailure", running.clone(), "start i", None),
        ("Never", running.clone(), "", Some(End::Failed)),
        ("Always", done.clone(), "start i", None),
        ("OnFailure", done.clone(), "", Some(End::Succeeded)),
        ("Never", done.clone(), "", Some(End::Succeeded)),
    ] {
        let pod = found(policy, json!([status("i", done.clone(), 0)]), json!([status("a", app, 2)]));
        let (mut drive, lines) = Drive::prepared(&pod);
        assert_eq!(lines.join(","), first, "{policy}");
        assert_eq!(drive.life.end, end, "{policy}");
        if end.is_none() {
            drive.started("i");
            assert_eq!(drive.exited("i", 0), ["start a"], "{policy}");
            drive.started("a");
            let app = &drive.life.containers[1];
            assert_eq!(app.restarts, 3, "{policy}");
        }
    }
}

#[test]
fn what_died_with_the_node_is_shown_as_unknown() {
    let running = json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}});
    let (drive, lines) = Drive::prepared(&found("Always", json!([]), json!([status("a", running, 0)])));
    assert_eq!(lines, ["start a"], "at once: back-offs are not kept");
    let ended = drive.life.containers[0].ended.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
}

#[test]
fn a_pod_that_was_never_begun_begins() {
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    let pod = found("Never", json!([status("i", waiting.clone(), 0)]), json!([status("a", waiting, 0)]));
    let (mut drive, lines) = Drive::prepared(&pod);
    assert_eq!(lines, ["start i"]);
    drive.started("i");
    assert_eq!(drive.life.containers[0].restarts, 0);
}
