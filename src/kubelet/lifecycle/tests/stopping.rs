//! BEHAVIOURS 9.10, and 9.8 where sidecars are stopped.

use super::*;

/// With these hooks in the first app container.
fn hooked_pod(hooks: &[&str]) -> Pod {
    let mut pod = pod("Always", &[], &["a"]);
    let sleep = json!({"sleep": {"seconds": 1}});
    let hooks: serde_json::Map<_, _> = hooks.iter().map(|hook| ((*hook).to_owned(), sleep.clone())).collect();
    pod.spec.as_mut().unwrap().containers[0].lifecycle = serde_json::from_value(json!(hooks)).unwrap();
    pod
}

// BEHAVIOURS 9.10.
#[test]
fn deletion_stops_what_runs_and_ends_the_pod() {
    let (mut drive, _) = Drive::prepared(&pod("Always", &[("s", true)], &["a", "b", "c"]));
    drive.started("s");
    drive.started("a");
    drive.started("b");
    drive.exited("b", 0);
    drive.started("b");
    drive.exited("b", 0);
    assert_eq!(
        drive.deleted(30),
        ["Killing: Stopping container s", "Killing: Stopping container a", "cancel c", "ask a until 30"],
        "b waits for its restart, and s for a"
    );
    assert_eq!(drive.deleted(30), NOTHING);
    assert_eq!(drive.wake(), Some(30), "nothing is started any more");
    assert_eq!(drive.tick(15), NOTHING);
    assert_eq!(drive.exited("a", 0), ["ask s until 30"], "within what is left of the grace");
    assert_eq!(drive.exited("s", 137), NOTHING);
    assert_eq!(drive.life.end, Some(End::Failed), "c never ran");
    assert_eq!(drive.waiting("b"), "");
    assert_eq!(drive.wake(), None);
}

#[test]
fn what_does_not_end_within_the_grace_is_killed_and_only_once() {
    for grace in [0, 1, 2, 10, 60] {
        let (mut drive, _) = Drive::prepared(&pod("Always", &[("s", true)], &["a"]));
        drive.started("s");
        drive.started("a");
        drive.now = 100;
        let lines = drive.deleted(grace);
        // A sidecar's turn comes when the grace is over at the latest, and even then it has two seconds.
        let (turn, end) = (100 + grace.max(1), 100 + grace.max(2));
        assert_eq!(lines[2..], [format!("ask a until {end}")], "{grace}");
        assert_eq!(drive.wake(), Some(turn.min(end)), "{grace}");
        let mut lines = drive.tick(turn);
        if turn < end {
            lines.extend(drive.tick(end));
        }
        lines.sort();
        assert_eq!(lines, [format!("ask s until {}", turn + 2), "kill a".to_owned()], "{grace}");
        assert_eq!(drive.tick(turn + 2), ["kill s"], "{grace}");
        assert_eq!((drive.wake(), drive.tick(500)), (None, vec![]), "{grace}");
        drive.exited("s", 137);
        assert_eq!(drive.life.end, None);
        drive.exited("a", 137);
        assert_eq!(drive.life.end, Some(End::Failed));
    }
}

#[test]
fn another_deletion_shortens_the_grace_and_never_lengthens_it() {
    let (mut drive, _) = Drive::prepared(&pod("Always", &[], &["a"]));
    drive.started("a");
    drive.deleted(30);
    drive.now = 5;
    assert_eq!(drive.deleted(60), NOTHING);
    assert_eq!(drive.deleted(10), ["ask a until 15"], "it is told of the new deadline");
    assert_eq!(drive.deleted(10), NOTHING);
    assert_eq!(drive.deleted(1), ["ask a until 7"]);
    assert_eq!(drive.tick(7), ["kill a"]);
}

#[test]
fn the_hook_comes_first_and_its_time_is_within_the_grace() {
    struct Case {
        name: &'static str,
        hook_takes: i64,
        error: Option<&'static str>,
        lines: &'static [&'static str],
    }
    let cases = [
        Case {
            name: "a quick hook",
            hook_takes: 3,
            error: None,
            lines: &["3: ask a until 10", "10: kill a"],
        },
        Case {
            name: "one that fails is told of, and the rest goes on",
            hook_takes: 3,
            error: Some("no such host"),
            lines: &["3: FailedPreStopHook: PreStopHook failed", "3: ask a until 10", "10: kill a"],
        },
        Case {
            name: "two seconds are left in any case",
            hook_takes: 9,
            error: None,
            lines: &["9: ask a until 11", "11: kill a"],
        },
        Case {
            name: "one that takes longer than the grace is not waited for",
            hook_takes: 20,
            error: None,
            lines: &["10: cancel hook a", "10: ask a until 12", "12: kill a"],
        },
    ];
    for case in cases {
        let (mut drive, _) = Drive::prepared(&hooked_pod(&["preStop"]));
        drive.started("a");
        assert_eq!(drive.deleted(10), ["Killing: Stopping container a", "hook PreStop a"], "{}", case.name);
        let mut lines = Vec::new();
        for now in 1..=12 {
            drive.now = now;
            let mut more = drive.step(Event::Tick);
            if now == case.hook_takes {
                more.extend(drive.hooked("a", Hook::PreStop, case.error));
            }
            lines.extend(more.into_iter().map(|line| format!("{now}: {line}")));
        }
        assert_eq!(lines, case.lines, "{}", case.name);
    }
}

#[test]
fn hooks_of_sidecars_run_with_the_others_and_their_turn_comes_last() {
    let mut pod = pod("Always", &[("s", true), ("t", true)], &["a"]);
    let spec = pod.spec.as_mut().unwrap();
    spec.init_containers.as_mut().unwrap()[0].lifecycle =
        serde_json::from_value(json!({"preStop": {"sleep": {"seconds": 1}}})).unwrap();
    let (mut drive, _) = Drive::prepared(&pod);
    for name in ["s", "t", "a"] {
        drive.started(name);
    }
    assert_eq!(
        drive.deleted(30),
        [
            "Killing: Stopping container s",
            "hook PreStop s",
            "Killing: Stopping container t",
            "Killing: Stopping container a",
            "ask a until 30",
        ]
    );
    drive.now = 1;
    assert_eq!(drive.hooked("s", Hook::PreStop, None), NOTHING);
    assert_eq!(drive.exited("a", 0), ["ask t until 30"]);
    assert_eq!(drive.exited("t", 0), ["ask s until 30"]);
}

#[test]
fn an_object_that_is_gone_leaves_nothing_to_say_and_little_time() {
    let (mut drive, _) = Drive::prepared(&pod("Always", &[("s", true)], &["a"]));
    drive.started("s");
    drive.started("a");
    assert_eq!(drive.step(Event::Gone), ["ask a until 2"]);
    assert_eq!(drive.exited("a", 137), ["ask s until 2"]);
    assert_eq!(drive.life.end, None);
    drive.exited("s", 137);
    assert!(drive.life.end.is_some());
    // By force while it is being stopped already.
    let (mut drive, _) = Drive::prepared(&hooked_pod(&["preStop"]));
    drive.started("a");
    drive.deleted(30);
    drive.now = 5;
    assert_eq!(drive.step(Event::Gone), NOTHING);
    assert_eq!(drive.tick(6), ["cancel hook a", "ask a until 8"]);
    assert_eq!(drive.tick(8), ["kill a"]);
}

#[test]
fn one_that_is_restarted_has_the_grace_of_the_spec_and_of_a_deletion_meanwhile() {
    let mut pod = pod("Always", &[("s", true)], &["a"]);
    pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(7);
    let (mut drive, _) = Drive::prepared(&pod);
    drive.started("s");
    drive.started("a");
    // A sidecar that is restarted by itself waits for nobody.
    let changed = Event::SpecChanged { slot: 0, image: "j".into() };
    assert_eq!(
        drive.step(changed),
        ["Killing: Container s definition changed, will be restarted", "ask s until 7"]
    );
    drive.now = 1;
    assert_eq!(drive.deleted(3), ["ask s until 4", "Killing: Stopping container a", "ask a until 4"]);
    assert_eq!(drive.tick(4), ["kill s", "kill a"]);
    drive.exited("s", 137);
    assert_eq!(drive.exited("a", 137), NOTHING, "s is not started again");
    assert!(drive.life.end.is_some());
}
