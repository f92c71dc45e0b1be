use super::*;

/// All bytes of a slot above its guard.
#[expect(clippy::mut_from_ref, reason = "a slot is memory, and these tests alone look into theirs")]
fn bytes(slot: &Slot) -> &mut [u8] {
    // SAFETY: the slot is ours alone, as long as it is borrowed; each test looks at it once at a time.
    unsafe { std::slice::from_raw_parts_mut(slot.start(), slot.length()) }
}

#[test]
fn a_slot_that_was_given_back_is_empty() {
    for guard in [0, GUARD] {
        let arena = Arena::new(1 << 20, guard);
        let mut first = arena.take().unwrap();
        first.used = first.length();
        assert_eq!(bytes(&first).len(), (1 << 20) - guard);
        bytes(&first).fill(0xa5);
        let was = first.start();
        let neighbour = arena.take().unwrap();
        assert!(bytes(&neighbour).iter().all(|byte| *byte == 0));
        drop(first);
        let second = arena.take().unwrap();
        assert_eq!(second.start(), was, "it is the same place");
        assert!(bytes(&second).iter().all(|byte| *byte == 0), "and nothing is left in it");
    }
}

#[test]
fn more_slots_than_fit_into_one_mapping() {
    let arena = Arena::new(64 << 10, 0);
    let slots: Vec<Slot> = (0..SLOTS + 1).map(|_| arena.take().unwrap()).collect();
    for (number, slot) in slots.iter().enumerate() {
        bytes(slot)[..8].copy_from_slice(&number.to_le_bytes());
    }
    for (number, slot) in slots.iter().enumerate() {
        assert_eq!(bytes(slot)[..8], number.to_le_bytes());
    }
    assert!(!Arc::ptr_eq(&slots[0].place.mapping, &slots[SLOTS].place.mapping));
    drop(slots);
    assert_eq!(arena.slots.lock().unwrap().free.len(), SLOTS + 1);
}

/// Whether the kernel can read the byte there: a fault is an error of a system call, not of this process.
fn is_readable(at: *const u8) -> bool {
    let (_reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the kernel checks the address itself.
    unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&writer), at.cast(), 1) == 1 }
}

#[test]
fn what_is_below_a_stack_cannot_be_touched() {
    let (stacks, _) = arenas(2 << 20).unwrap();
    let stack = || stacks.new_stack(2 << 20, false).unwrap();
    let (first, second) = (stack(), stack());
    for stack in [&first, &second] {
        let guard = stack.guard_range();
        assert!(!is_readable(guard.start) && !is_readable(guard.end.wrapping_sub(1)));
        assert!(is_readable(guard.end) && is_readable(stack.top().wrapping_sub(1)));
        assert_eq!(stack.range(), guard.end.addr()..stack.top().addr());
    }
    // It is still there for the next one.
    let at = first.guard_range().start;
    drop(first);
    let again = stack();
    assert!(again.guard_range().start == at && !is_readable(at));
    assert!(stacks.new_stack(4 << 20, false).is_err());
}

#[test]
fn a_memory_that_outgrows_its_slot_keeps_what_it_has() {
    let arena = Arena::new(64 << 10, 0);
    let room = Room::new(&arena, 0).unwrap();
    let mut memory = Memory { arena: arena.clone(), room, size: 0 };
    memory.grow_to(1000).unwrap();
    let before = memory.as_ptr();
    // SAFETY: so many bytes are its own.
    unsafe { before.write_bytes(7, 1000) };
    memory.grow_to(memory.byte_capacity()).unwrap();
    assert_eq!(memory.as_ptr(), before, "it does not move within its capacity");
    for size in [(64 << 10) + 1, 1 << 20] {
        memory.grow_to(size).unwrap();
        assert_eq!(memory.byte_size(), size);
        // SAFETY: so many bytes are its own.
        let content = unsafe { std::slice::from_raw_parts(memory.as_ptr(), size) };
        assert!(content[..1000].iter().all(|byte| *byte == 7));
        assert!(content[1000..].iter().all(|byte| *byte == 0));
    }
    assert_ne!(memory.as_ptr(), before);
    assert!(bytes(&arena.take().unwrap()).iter().all(|byte| *byte == 0), "its slot went back empty");
}
