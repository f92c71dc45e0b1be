use super::super::budget::Limits;
use super::*;

fn limit(bytes: u64) -> (Arc<Budget>, MemoryLimit) {
    let limits = Limits { memory: Some(bytes), ..Limits::default() };
    let budget = Budget::new(limits, Clock::real(), None);
    (Arc::clone(&budget), MemoryLimit::new(budget))
}

#[test]
fn memories_and_tables_share_one_limit() {
    let (budget, mut limit) = limit(100_000);
    assert!(limit.memory_growing(0, 65_536, None).unwrap());
    assert!(limit.table_growing(0, 1_000, None).unwrap());
    // More than the module's own maximum is the guest's own affair.
    assert!(!limit.memory_growing(65_536, 131_072, Some(65_536)).unwrap());
    assert!(!limit.hit);
    // A growth that fails afterwards does not count.
    assert!(limit.memory_growing(65_536, 90_000, None).unwrap());
    limit.memory_grow_failed(wasmtime::format_err!("no")).unwrap();
    assert_eq!(budget.memory(), 65_536 + 8_000);
    assert!(limit.memory_growing(65_536, 90_000, None).unwrap());
    let error = limit.table_growing(1_000, 10_000, None).unwrap_err();
    assert_eq!(error.to_string(), "the memory limit of 100000 bytes was reached");
    assert!(limit.hit);
    assert_eq!(budget.memory(), 98_000);
    drop(limit);
    assert_eq!(budget.memory(), 0);
}

#[test]
fn two_runs_share_what_their_container_may_have() {
    let (budget, mut limit) = limit(100_000);
    let mut beside = MemoryLimit::new(Arc::clone(&budget));
    assert!(limit.memory_growing(0, 65_536, None).unwrap());
    assert!(beside.memory_growing(0, 65_536, None).is_err());
    assert!(beside.hit && !limit.hit, "it ends the run that asked");
    drop(limit);
    assert!(beside.memory_growing(0, 65_536, None).unwrap());
}
