//! Stacks and memories of guests without mappings of their own.
//!
//! A process may have 65,530 mappings (`vm.max_map_count`), and a guest's stack, its guard and its memory take
//! several. Here many guests live in one: a mapping is divided into slots, and a slot is a stack or a memory.
//! What keeps guests apart:
//!
//! - A memory is compiled with explicit checks of its bounds (no reservation, no guard), so a guest cannot
//!   reach beyond its own bytes, whatever lies there.
//! - Below each stack is a guard that the kernel keeps without splitting the mapping (`MADV_GUARD_INSTALL`,
//!   Linux 6.13): running over it faults, as with a page that is not mapped. Before that, guests' own stack
//!   checks end them, as everywhere. Without such a kernel there is no arena.
//! - A slot that is given back is emptied by the kernel (`MADV_DONTNEED`), which gives zeroed pages to whoever
//!   has it next; one that could not be emptied is never used again.
//!
//! A memory that outgrows its slot moves to a mapping of its own.

#![expect(unsafe_code, reason = "memory for guests is mapped here, and nowhere else")]

use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use wasmtime::{LinearMemory, MemoryCreator, MemoryType, StackCreator, StackMemory};

#[cfg(test)]
mod tests;

/// Slots in one mapping.
const SLOTS: usize = 1024;
/// Addresses, not memory, of a slot for a linear memory. A hundred thousand take 6 TiB of 128.
const MEMORY_SLOT: usize = 64 << 20;
/// What is not to be touched below a stack: more than one frame of the host's code takes.
const GUARD: usize = 64 << 10;

/// `MADV_GUARD_INSTALL` of `linux/mman.h`, which the library does not name yet.
const GUARD_INSTALL: i32 = 102;

/// A mapping, and what it is for as long as it lives: addresses that belong to nobody else.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it is a range of addresses; what is in them is accessed by whoever has a slot, and by nobody else.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing of it changes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that takes nothing until it is written to.
    fn new(length: usize) -> io::Result<Self> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at zero unless told to");
        let mapping = Self { start, length };
        // Huge pages would give two megabytes to whoever touches one. A kernel without them refuses, rightly.
        mapping.advise(0..length, libc::MADV_NOHUGEPAGE).ok();
        Ok(mapping)
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.length);
        // SAFETY: it stays within the mapping, or at its end.
        unsafe { self.start.as_ptr().add(offset) }
    }

    fn advise(&self, range: Range<usize>, advice: i32) -> io::Result<()> {
        assert!(range.end <= self.length, "advice about memory that is not ours");
        // SAFETY: the range is this mapping's, and callers own what the advice destroys.
        match unsafe { libc::madvise(self.at(range.start).cast(), range.len(), advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and whoever had a part of it kept it alive.
        if unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) } != 0 {
            tracing::error!("cannot unmap memory of guests: {}", io::Error::last_os_error());
        }
    }
}

/// Slots of one size, as many as are asked for at the same time.
#[derive(Debug)]
struct Arena {
    slot: usize,
    /// Bytes at the bottom of each slot that are not to be touched.
    guard: usize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Empty ones, of any mapping.
    free: Vec<Place>,
    /// The newest mapping, and how many of its slots have been given out.
    newest: Option<(Arc<Mapping>, usize)>,
}

/// Where a slot is.
#[derive(Clone, Debug)]
struct Place {
    mapping: Arc<Mapping>,
    offset: usize,
}

/// A slot that somebody has: nobody else has it until this is dropped.
#[derive(Debug)]
struct Slot {
    arena: Arc<Arena>,
    place: Place,
    /// Bytes above the guard that may have been written to.
    used: usize,
}

impl Arena {
    fn new(slot: usize, guard: usize) -> Arc<Self> {
        Arc::new(Self { slot, guard, slots: Mutex::default() })
    }

    /// An empty slot: all zeroes above its guard.
    fn take(self: &Arc<Self>) -> io::Result<Slot> {
        let mut slots = self.slots.lock().expect("no holder panics");
        let place = match slots.free.pop() {
            Some(place) => place,
            None => self.next(&mut slots)?,
        };
        Ok(Slot { arena: Arc::clone(self), place, used: 0 })
    }

    /// A slot that nobody had before, with its guard.
    fn next(&self, slots: &mut Slots) -> io::Result<Place> {
        let (mapping, given) = match slots.newest.take() {
            Some(newest) if newest.1 < SLOTS => newest,
            Some(_) | None => (Arc::new(Mapping::new(self.slot * SLOTS)?), 0),
        };
        let offset = given * self.slot;
        let guarded = match self.guard {
            0 => Ok(()),
            guard => mapping.advise(offset..offset + guard, GUARD_INSTALL),
        };
        let place = Place { mapping: Arc::clone(&mapping), offset };
        slots.newest = Some((mapping, if guarded.is_ok() { given + 1 } else { given }));
        guarded.map(|()| place)
    }
}

impl Slot {
    fn start(&self) -> *mut u8 {
        self.place.mapping.at(self.place.offset + self.arena.guard)
    }

    fn guard(&self) -> *mut u8 {
        self.place.mapping.at(self.place.offset)
    }

    fn length(&self) -> usize {
        self.arena.slot - self.arena.guard
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let start = self.place.offset + self.arena.guard;
        match self.place.mapping.advise(start..start + self.used, libc::MADV_DONTNEED) {
            Ok(()) => {
                self.arena.slots.lock().expect("no holder panics").free.push(self.place.clone());
            }
            Err(error) => {
                tracing::error!("a guest's memory is not used again, it cannot be emptied: {error}")
            }
        }
    }
}

/// Makes guests' stacks.
pub(super) struct Stacks(Arc<Arena>);

/// Makes guests' memories.
pub(super) struct Memories(Arc<Arena>);

/// What an engine without mappings for each guest is made with, if this kernel has what it takes. `stack` is
/// the size of a stack without its guard.
pub(super) fn arenas(stack: usize) -> io::Result<(Arc<Stacks>, Arc<Memories>)> {
    let (stacks, memories) = (Arena::new(stack + GUARD, GUARD), Arena::new(MEMORY_SLOT, 0));
    // Here it shows whether there are guards, and addresses.
    drop((stacks.take()?, memories.take()?));
    Ok((Arc::new(Stacks(stacks)), Arc::new(Memories(memories))))
}

// SAFETY: a stack is a slot, which nobody else has, is aligned to pages, empty, and has its guard below.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let mut slot = self.0.take()?;
        wasmtime::ensure!(
            size <= slot.length(),
            "a stack of {size} bytes where {} were agreed",
            slot.length()
        );
        slot.used = slot.length();
        Ok(Box::new(Stack(slot)))
    }
}

struct Stack(Slot);

// SAFETY: the ranges are those of the slot, which lives as long as this.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.0.start().wrapping_add(self.0.length())
    }

    fn range(&self) -> Range<usize> {
        self.0.start().addr()..self.top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.0.guard()..self.0.start()
    }
}

// SAFETY: a memory is zeroed, nobody else has it, and it stays where it is as long as it was told to.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if guard != 0 {
            return Err(format!("a memory with a guard of {guard} bytes where none was agreed"));
        }
        let place = Room::new(&self.0, minimum.max(reserved.unwrap_or(0)));
        let room = place.map_err(|error| format!("no room for a memory of {minimum} bytes: {error}"))?;
        let mut memory = Memory { arena: Arc::clone(&self.0), room, size: 0 };
        memory.resize(minimum);
        Ok(Box::new(memory))
    }
}

struct Memory {
    arena: Arc<Arena>,
    room: Room,
    size: usize,
}

enum Room {
    Slot(Slot),
    Own(Mapping),
}

impl Room {
    fn new(arena: &Arc<Arena>, bytes: usize) -> io::Result<Self> {
        if bytes <= arena.slot { arena.take().map(Self::Slot) } else { Mapping::new(bytes).map(Self::Own) }
    }

    fn start(&self) -> *mut u8 {
        match self {
            Self::Slot(slot) => slot.start(),
            Self::Own(mapping) => mapping.at(0),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Slot(slot) => slot.length(),
            Self::Own(mapping) => mapping.length,
        }
    }
}

impl Memory {
    /// Within its room.
    fn resize(&mut self, size: usize) {
        assert!(size <= self.room.length(), "a memory beyond its room");
        self.size = size;
        if let Room::Slot(slot) = &mut self.room {
            slot.used = slot.used.max(size);
        }
    }
}

// SAFETY: `size` bytes from `as_ptr` on are in its room, which nobody else has; growing moves it only beyond
// the capacity that was told, and all that was in it moves with it.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.room.length()
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        if size > self.room.length() {
            // Twice as much, so that growing by small steps copies little.
            let larger = Room::new(&self.arena, size.max(self.room.length() * 2))?;
            // SAFETY: both have `self.size` bytes, and are apart.
            unsafe { ptr::copy_nonoverlapping(self.room.start(), larger.start(), self.size) };
            self.room = larger;
        }
        self.resize(size);
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.room.start()
    }
}
