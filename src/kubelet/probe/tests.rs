use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn probes(spec: serde_json::Value) -> Probes {
    let mut container = json!({"name": "c", "image": "i"});
    container.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    Probes::of(&serde_json::from_value(container).unwrap())
}

fn failed() -> Answer {
    Answer::Failed("why".into())
}

/// Lets time go on to `until` and answers each probe as `answer` says; what was asked when, what each came
/// to, and whether the container is to be stopped.
fn play(
    probes: &mut Probes,
    from: i64,
    until: i64,
    stopping: bool,
    mut answer: impl FnMut(ProbeKind, i64) -> Answer,
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut now = from;
    loop {
        for kind in probes.ask(at(now), stopping) {
            let answer = answer(kind, now);
            let stop = if probes.answered(kind, &answer) { " stop" } else { "" };
            let word = match answer {
                Answer::Passed | Answer::Warned(_) => "ok",
                Answer::Failed(_) => "failed",
                Answer::Unclear(_) => "unclear",
            };
            lines.push(format!("{now} {} {word}{stop}", kind.title()));
        }
        match probes.wake_at(stopping).map(Timestamp::as_second) {
            Some(next) if next <= until => now = next.max(now),
            Some(_) | None => return lines,
        }
    }
}

struct Case {
    name: &'static str,
    probes: serde_json::Value,
    until: i64,
    answer: fn(ProbeKind, i64) -> Answer,
    lines: &'static [&'static str],
    started: bool,
    ready: bool,
}

// BEHAVIOURS 9.9.
#[test]
fn what_is_asked_when_and_what_it_comes_to() {
    let always = |_, _| Answer::Passed;
    let never = |_, _| failed();
    let cases = [
        Case {
            name: "no probe is success",
            probes: json!({}),
            until: 100,
            answer: never,
            lines: &[],
            started: true,
            ready: true,
        },
        Case {
            name: "the defaults, and readiness begins as false",
            probes: json!({"readinessProbe": {}}),
            until: 25,
            answer: never,
            lines: &["0 Readiness failed", "10 Readiness failed", "20 Readiness failed"],
            started: true,
            ready: false,
        },
        Case {
            name: "ready after the delay and as many successes in a row as it wants",
            probes: json!({"readinessProbe": {"initialDelaySeconds": 7, "periodSeconds": 2, "successThreshold": 2}}),
            until: 9,
            answer: always,
            lines: &["7 Readiness ok", "9 Readiness ok"],
            started: true,
            ready: true,
        },
        Case {
            name: "one success of two is not yet ready",
            probes: json!({"readinessProbe": {"periodSeconds": 1, "successThreshold": 2}}),
            until: 2,
            answer: |_, now| if now == 1 { failed() } else { Answer::Passed },
            lines: &["0 Readiness ok", "1 Readiness failed", "2 Readiness ok"],
            started: true,
            ready: false,
        },
        Case {
            name: "unready after three failures in a row; one that could not be asked is none",
            probes: json!({"readinessProbe": {"periodSeconds": 1, "failureThreshold": 3}}),
            until: 4,
            answer: |_, now| match now {
                0 => Answer::Passed,
                3 => Answer::Unclear("busy".into()),
                _ => failed(),
            },
            lines: &[
                "0 Readiness ok",
                "1 Readiness failed",
                "2 Readiness failed",
                "3 Readiness unclear",
                "4 Readiness failed",
            ],
            started: true,
            ready: false,
        },
        Case {
            name: "unready and ready again",
            probes: json!({"readinessProbe": {"periodSeconds": 1, "failureThreshold": 1}}),
            until: 2,
            answer: |_, now| if now == 1 { failed() } else { Answer::Warned("moved".into()) },
            lines: &["0 Readiness ok", "1 Readiness failed", "2 Readiness ok"],
            started: true,
            ready: true,
        },
        Case {
            name: "liveness stops the container after failures in a row, once",
            probes: json!({"livenessProbe": {"periodSeconds": 5, "failureThreshold": 2}}),
            until: 100,
            answer: |_, now| if now == 5 { Answer::Passed } else { failed() },
            lines: &["0 Liveness failed", "5 Liveness ok", "10 Liveness failed", "15 Liveness failed stop"],
            started: true,
            ready: true,
        },
        Case {
            name: "the others wait for startup, and their delays count from the start",
            probes: json!({
                "startupProbe": {"periodSeconds": 3, "failureThreshold": 5},
                "livenessProbe": {"periodSeconds": 10, "initialDelaySeconds": 8},
                "readinessProbe": {"periodSeconds": 10},
            }),
            until: 10,
            answer: |kind, now| {
                if kind == ProbeKind::Startup && now < 6 { failed() } else { Answer::Passed }
            },
            lines: &[
                "0 Startup failed",
                "3 Startup failed",
                "6 Startup ok",
                "6 Readiness ok",
                "8 Liveness ok",
            ],
            started: true,
            ready: true,
        },
        Case {
            name: "a container that never starts up is stopped",
            probes: json!({"startupProbe": {"periodSeconds": 1}, "livenessProbe": {}}),
            until: 100,
            answer: never,
            lines: &["0 Startup failed", "1 Startup failed", "2 Startup failed stop"],
            started: false,
            ready: false,
        },
    ];
    for case in cases {
        let mut probes = probes(case.probes);
        probes.begin(at(0));
        let lines = play(&mut probes, 0, case.until, false, case.answer);
        assert_eq!(lines, case.lines, "{}", case.name);
        assert_eq!((probes.is_started(), probes.is_ready()), (case.started, case.ready), "{}", case.name);
    }
}

#[test]
fn another_run_begins_afresh() {
    let mut probes = probes(json!({
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 7},
        "readinessProbe": {"periodSeconds": 1},
    }));
    assert_eq!(probes.wake_at(false), None, "nothing runs");
    probes.begin(at(0));
    assert_eq!(play(&mut probes, 0, 5, false, |_, _| failed()), ["0 Startup failed stop"]);
    assert_eq!(probes.grace(ProbeKind::Startup), Some(Duration::from_secs(7)));
    assert_eq!(probes.grace(ProbeKind::Readiness), None);
    probes.end();
    probes.begin(at(10));
    let lines = play(&mut probes, 10, 11, false, |_, _| Answer::Passed);
    assert_eq!(lines, ["10 Startup ok", "10 Readiness ok", "11 Readiness ok"]);
    probes.end();
    assert_eq!((probes.is_started(), probes.is_ready(), probes.wake_at(false)), (false, false, None));
}

#[test]
fn while_it_is_stopped_only_readiness_is_asked() {
    let mut probes = probes(json!({
        "livenessProbe": {"periodSeconds": 1, "failureThreshold": 1},
        "readinessProbe": {"periodSeconds": 2, "failureThreshold": 1},
    }));
    probes.begin(at(0));
    play(&mut probes, 0, 0, false, |_, _| Answer::Passed);
    assert_eq!(play(&mut probes, 1, 4, true, |_, _| failed()), ["2 Readiness failed", "4 Readiness failed"]);
    assert!(!probes.is_ready());
}

#[test]
fn one_that_takes_longer_than_its_period_is_asked_again_after_its_answer() {
    let mut probes = probes(json!({"livenessProbe": {"periodSeconds": 1}}));
    probes.begin(at(0));
    assert_eq!(probes.ask(at(0), false), [ProbeKind::Liveness]);
    assert_eq!(probes.ask(at(3), false), []);
    assert_eq!(probes.wake_at(false), None);
    probes.answered(ProbeKind::Liveness, &Answer::Passed);
    assert_eq!(probes.wake_at(false), Some(at(1)));
    assert_eq!(probes.ask(at(3), false), [ProbeKind::Liveness]);
}
