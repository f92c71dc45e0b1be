use super::*;

const MS: Duration = Duration::from_millis(1);

fn budget(memory: u64, above: Option<&Arc<Budget>>) -> Arc<Budget> {
    Budget::new(Limits { memory: Some(memory), ..Limits::default() }, Clock::real(), above.cloned())
}

#[test]
fn a_quota_makes_up_for_what_was_used() {
    // (clock, used, owed), in milliseconds, of a container with half a core.
    let cases = [
        (10, 5, 0),
        (20, 20, 20),
        (40, 20, 0),
        // Idle for a minute: one period is kept at most.
        (60_000, 21, 0),
        (60_010, 31, 10),
        (60_020, 31, 0),
    ];
    let mut quota = Quota::new(500, Duration::ZERO);
    for (now, used, owed) in cases {
        assert_eq!(quota.owed(now * MS, used * MS), owed * MS, "at {now} ms");
    }
}

#[test]
fn what_is_taken_counts_above_too() {
    let pod = budget(100, None);
    let (one, other) = (budget(80, Some(&pod)), budget(80, Some(&pod)));
    let first = one.charge(60).unwrap();
    // Its own limit, then the pod's.
    assert_eq!(one.charge(21).unwrap_err().to_string(), "the memory limit of 80 bytes was reached");
    assert_eq!(other.charge(41).unwrap_err().to_string(), "the memory limit of 100 bytes was reached");
    assert_eq!([&one, &other, &pod].map(|budget| budget.memory()), [60, 0, 60], "a refusal takes nothing");
    let second = other.charge(40).unwrap();
    drop(first);
    assert_eq!([&one, &other, &pod].map(|budget| budget.memory()), [0, 40, 40]);
    assert!(other.charge(u64::MAX).is_err());
    drop(second);
    assert_eq!(pod.memory(), 0);
}

#[test]
fn who_uses_up_a_quota_above_waits() {
    let clock = Clock::real();
    let limits = |cpu| Limits { cpu: Some(cpu), ..Limits::default() };
    let pod = Budget::new(limits(1), clock, None);
    let (one, other) = (
        Budget::new(limits(1_000_000), clock, Some(pod.clone())),
        Budget::new(Limits::default(), clock, Some(pod.clone())),
    );
    assert_eq!(other.owed(clock), Duration::ZERO);
    // A second of a thousandth of a core is a thousand seconds.
    one.spend(1_000_000_000);
    for budget in [&one, &other, &pod] {
        assert!(budget.owed(clock) > Duration::from_secs(900), "{budget:?}");
    }
    assert_eq!(other.used(), Duration::ZERO);
    assert_eq!(pod.used(), Duration::from_secs(1));
}

#[test]
fn requests_weigh_as_in_control_groups() {
    for (request, weight) in [
        (None, 2),
        (Some(0), 2),
        (Some(1), 2),
        (Some(100), 102),
        (Some(1_000), 1_024),
        (Some(u64::MAX), 262_144),
    ] {
        assert_eq!(shares(request), weight, "{request:?}");
    }
}
