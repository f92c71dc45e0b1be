use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

struct Case {
    /// Seconds from now, and the grace, of a deletion that has begun.
    deleting: Option<(i64, i64)>,
    finalizers: &'static [&'static str],
    requested: Option<i64>,
    decided: i64,
    policy: Option<Policy>,
    default: Propagation,
    held: bool,
}

const PLAIN: Case = Case {
    deleting: None,
    finalizers: &[],
    requested: None,
    decided: 0,
    policy: None,
    default: Propagation::Background,
    held: false,
};

#[track_caller]
fn check(case: Case, expected: &str) {
    let now = Timestamp::from_second(1_000).unwrap();
    let meta = ObjectMeta {
        deletion_timestamp: case.deleting.map(|(at, _)| Time(now + SignedDuration::from_secs(at))),
        deletion_grace_period_seconds: case.deleting.map(|(_, grace)| grace),
        finalizers: Some(case.finalizers.iter().map(|one| (*one).to_owned()).collect()),
        ..ObjectMeta::default()
    };
    let asked = Asked {
        grace_seconds: case.requested,
        grace_seconds_decided: case.decided,
        policy: case.policy,
        policy_default: case.default,
        held_otherwise: case.held,
    };
    let text = match decide(&meta, now, &asked) {
        Decision::Remove => "remove".to_owned(),
        Decision::Keep => "keep".to_owned(),
        Decision::Mark(marks) => format!(
            "mark {:+} grace {} {:?}",
            marks.deletion_timestamp.as_second() - 1_000,
            marks.grace_seconds,
            marks.finalizers
        ),
    };
    assert_eq!(text, expected);
}

#[test]
fn without_grace_and_finalizers_it_goes() {
    check(PLAIN, "remove");
}

#[test]
fn grace_and_finalizers_hold() {
    check(Case { decided: 30, ..PLAIN }, "mark +30 grace 30 []");
    check(Case { finalizers: &["a/b"], ..PLAIN }, r#"mark +0 grace 0 ["a/b"]"#);
    check(Case { held: true, ..PLAIN }, "mark +0 grace 0 []");
}

#[test]
fn a_second_deletion_only_shortens() {
    let waiting = Case { deleting: Some((20, 30)), decided: 30, ..PLAIN };
    check(Case { ..waiting }, "keep");
    check(Case { requested: Some(60), ..waiting }, "keep");
    check(Case { requested: Some(5), ..waiting }, "mark -5 grace 5 []");
    check(Case { requested: Some(0), ..waiting }, "remove");
    let held = Case { deleting: Some((20, 30)), decided: 30, finalizers: &["a/b"], ..PLAIN };
    check(Case { requested: Some(0), ..held }, r#"mark -10 grace 0 ["a/b"]"#);
    check(Case { deleting: Some((-10, 0)), finalizers: &["a/b"], ..PLAIN }, "keep");
    check(Case { deleting: Some((-10, 0)), ..PLAIN }, "remove");
}

#[test]
fn policies_are_finalizers() {
    let foreground = Some(Policy::Foreground);
    let orphan = Some(Policy::Orphan);
    check(Case { policy: foreground, ..PLAIN }, r#"mark +0 grace 0 ["foregroundDeletion"]"#);
    check(Case { policy: orphan, ..PLAIN }, r#"mark +0 grace 0 ["orphan"]"#);
    check(Case { default: Propagation::Orphan, ..PLAIN }, r#"mark +0 grace 0 ["orphan"]"#);
    check(Case { default: Propagation::Orphan, policy: Some(Policy::Background), ..PLAIN }, "remove");
    check(Case { finalizers: &["orphan"], ..PLAIN }, r#"mark +0 grace 0 ["orphan"]"#);
    check(
        Case { finalizers: &["orphan", "a/b"], policy: foreground, ..PLAIN },
        r#"mark +0 grace 0 ["a/b", "foregroundDeletion"]"#,
    );
    check(Case { finalizers: &["foregroundDeletion"], policy: Some(Policy::Background), ..PLAIN }, "remove");
}

#[test]
fn policies_are_read() {
    for (policy, orphan, expected) in [
        (None, None, Ok(None)),
        (Some("Foreground"), None, Ok(Some(Policy::Foreground))),
        (Some("Background"), None, Ok(Some(Policy::Background))),
        (None, Some(true), Ok(Some(Policy::Orphan))),
        (None, Some(false), Ok(Some(Policy::Background))),
        (
            Some("Orphan"),
            Some(true),
            Err(r#"Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#),
        ),
        (
            Some("x"),
            None,
            Err(r#"Unsupported value: "x": supported values: "Foreground", "Background", "Orphan", "nil""#),
        ),
    ] {
        let found = Policy::parse(policy, orphan);
        assert_eq!(
            found.as_ref().map_err(|errors| errors.0[0].message.as_str()),
            expected.as_ref().map_err(|why| *why)
        );
    }
}
