use super::*;

const MS: Duration = Duration::from_millis(1);

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
fn memories_and_tables_share_one_limit() {
    let meter = Arc::new(Meter::default());
    let mut limit = MemoryLimit::new(Some(100_000), Arc::clone(&meter));
    assert!(limit.memory_growing(0, 65_536, None).unwrap());
    assert!(limit.table_growing(0, 1_000, None).unwrap());
    // More than the module's own maximum is the guest's own affair.
    assert!(!limit.memory_growing(65_536, 131_072, Some(65_536)).unwrap());
    assert!(!limit.hit);
    // A growth that fails afterwards does not count.
    assert!(limit.memory_growing(65_536, 90_000, None).unwrap());
    limit.memory_grow_failed(wasmtime::format_err!("no")).unwrap();
    assert_eq!(meter.memory(), 65_536 + 8_000);
    assert!(limit.memory_growing(65_536, 90_000, None).unwrap());
    let error = limit.table_growing(1_000, 10_000, None).unwrap_err();
    assert_eq!(error.to_string(), "the memory limit of 100000 bytes was reached");
    assert!(limit.hit);
}
