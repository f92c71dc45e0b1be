//! How many requests of a container are being answered at a time, who waits, and the instances that have nothing to
//! do meanwhile.
//!
//! Whoever has answered a request goes on with the next in line: an instance then changes no thread, and nobody has to
//! be woken to have it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Lets so many in.
pub(super) struct Gate<Job, Instance> {
    line: Mutex<Line<Job, Instance>>,
    count: u16,
    waiting_max: usize,
    /// Told when the last has left.
    left: Notify,
}

struct Line<Job, Instance> {
    free: u16,
    idle: Vec<Instance>,
    waiting: VecDeque<(u64, Job)>,
    last: u64,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Too many wait already.
    Full,
    /// It has waited for too long.
    Late,
}

/// What becomes of a request.
pub(super) enum Entered<Job, Instance> {
    /// It is to be answered by the caller, with that instance if there is one.
    Now(Next<Job, Instance>),
    /// Somebody else will.
    Later(Ticket<Job, Instance>),
}

impl<Job, Instance> Gate<Job, Instance> {
    pub(super) fn new(count: u16, waiting_max: usize) -> Arc<Self> {
        let line = Line { free: count, idle: Vec::new(), waiting: VecDeque::new(), last: 0 };
        Arc::new(Self { line: Mutex::new(line), count, waiting_max, left: Notify::new() })
    }

    /// Lets a request in, or has it wait; in the order of coming.
    pub(super) fn enter(self: &Arc<Self>, job: Job) -> Result<Entered<Job, Instance>, Busy> {
        let mut line = self.line();
        if let Some(free) = line.free.checked_sub(1) {
            line.free = free;
            let place = Place { gate: Arc::clone(self), is_held: true };
            return Ok(Entered::Now((place, line.idle.pop(), job)));
        }
        if line.waiting.len() >= self.waiting_max {
            return Err(Busy::Full);
        }
        line.last += 1;
        let number = line.last;
        line.waiting.push_back((number, job));
        Ok(Entered::Later(Ticket { gate: Arc::clone(self), number }))
    }

    /// Whether somebody waits.
    pub(super) fn is_wanted(&self) -> bool {
        !self.line().waiting.is_empty()
    }

    /// Waits until nobody is in.
    pub(super) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.line().free == self.count {
                return;
            }
            left.await;
        }
    }

    /// Takes the instances that have nothing to do.
    pub(super) fn take_idle(&self) -> Vec<Instance> {
        std::mem::take(&mut self.line().idle)
    }

    fn give_back(&self, line: &mut Line<Job, Instance>) {
        line.free += 1;
        if line.free == self.count {
            self.left.notify_waiters();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<Job, Instance>> {
        self.line.lock().expect("no holder panics")
    }
}

/// The right to answer one request at a time, until it is dropped.
pub(super) struct Place<Job, Instance> {
    gate: Arc<Gate<Job, Instance>>,
    is_held: bool,
}

/// What is to be done next, and with what.
pub(super) type Next<Job, Instance> = (Place<Job, Instance>, Option<Instance>, Job);

impl<Job, Instance> Place<Job, Instance> {
    /// The request that is next in line; without one the place is given up, and the instance has nothing to do.
    pub(super) fn next(mut self, instance: Option<Instance>) -> Option<Next<Job, Instance>> {
        let gate = Arc::clone(&self.gate);
        // One step: whoever comes now either is in the line that was looked at, or finds the place.
        let mut line = gate.line();
        if let Some((_, job)) = line.waiting.pop_front() {
            drop(line);
            return Some((self, instance, job));
        }
        line.idle.extend(instance);
        self.is_held = false;
        gate.give_back(&mut line);
        None
    }
}

impl<Job, Instance> Drop for Place<Job, Instance> {
    fn drop(&mut self) {
        if self.is_held {
            self.gate.give_back(&mut self.gate.line());
        }
    }
}

/// A request's place in the line; dropped, it no longer waits.
pub(super) struct Ticket<Job, Instance> {
    gate: Arc<Gate<Job, Instance>>,
    number: u64,
}

impl<Job, Instance> Ticket<Job, Instance> {
    /// Leaves the line. Whether it was still in it.
    pub(super) fn leave(&self) -> bool {
        let mut line = self.gate.line();
        let at = line.waiting.iter().position(|(number, _)| *number == self.number);
        let job = at.and_then(|at| line.waiting.remove(at));
        drop(line);
        job.is_some()
    }
}

impl<Job, Instance> Drop for Ticket<Job, Instance> {
    fn drop(&mut self) {
        self.leave();
    }
}
