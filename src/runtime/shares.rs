//! Whose turn it is among guests that compute, when more want to than there are cores.
//!
//! As the kernel's scheduler does for groups, each container has a position that moves as it computes, the
//! slower the more processor it requests, and whoever is furthest behind goes next. So time is shared by
//! requests while all want it, and whoever wants none leaves it to the others. Nothing is asked of those
//! that wait most of the time: they have threads of their own ([`turns`](super::turns)).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use super::budget::Budget;
use super::ticker::TICK;

#[cfg(test)]
mod tests;

/// How many of its own turns a container may be behind and still catch up on: more than it misses while
/// others take theirs. One that could have no more than one core gets no claim to more of it later.
const TURNS_BEHIND: u64 = 4;

/// The cores of this machine, as turns to be had at the same time.
pub(super) struct Shares(Mutex<State>);

struct State {
    line: Line,
    /// Those in the line or called up, by number.
    asked: HashMap<u64, Asked>,
    last: u64,
}

struct Asked {
    position: u64,
    called: bool,
    waker: Option<Waker>,
}

/// Who waits, by position; and how many turns are to be had.
#[derive(Debug)]
struct Line {
    free: usize,
    waiting: BTreeSet<(u64, u64)>,
    /// The furthest position of those that were called up: where newcomers begin.
    floor: u64,
}

impl Line {
    fn new(turns: usize) -> Self {
        Self { free: turns, waiting: BTreeSet::new(), floor: 0 }
    }

    /// Where somebody stands who was at `position`, and may be `behind` the others by so much.
    fn stand(&self, position: u64, behind: u64) -> u64 {
        position.max(self.floor.saturating_sub(behind))
    }

    /// Who has the next free turn.
    fn call(&mut self) -> Option<u64> {
        if self.free == 0 {
            return None;
        }
        let (position, number) = self.waiting.pop_first()?;
        self.free -= 1;
        self.floor = self.floor.max(position);
        Some(number)
    }
}

impl Shares {
    pub(super) fn new(turns: usize) -> Arc<Self> {
        let line = Line::new(turns.max(1));
        Arc::new(Self(Mutex::new(State { line, asked: HashMap::new(), last: 0 })))
    }

    /// For one run that draws on `budget`.
    pub(super) fn ticket(self: &Arc<Self>, budget: &Arc<Budget>) -> Ticket {
        let mut state = self.state();
        state.last += 1;
        Ticket { shares: Arc::clone(self), budget: Arc::clone(budget), number: state.last }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

impl State {
    fn enter(&mut self, number: u64, budget: &Budget, behind: u64, waker: Option<Waker>) {
        let position = self.line.stand(budget.position(), behind);
        budget.moved_to(position);
        self.line.waiting.insert((position, number));
        self.asked.insert(number, Asked { position, called: false, waker });
    }

    /// Tells those whose turn it is.
    fn call(&mut self) {
        while let Some(number) = self.line.call() {
            let asked = self.asked.get_mut(&number).expect("whoever is in the line has asked");
            asked.called = true;
            if let Some(waker) = asked.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A run's place among those that compute; dropped, others need not wait for it.
pub(super) struct Ticket {
    shares: Arc<Shares>,
    budget: Arc<Budget>,
    number: u64,
}

impl Ticket {
    /// Waits for a turn.
    pub(super) fn poll_turn(&self, context: &mut Context<'_>) -> Poll<Taken<'_>> {
        let mut state = self.shares.state();
        if !state.asked.contains_key(&self.number) {
            state.enter(self.number, &self.budget, 0, None);
            state.call();
        }
        let asked = state.asked.get_mut(&self.number).expect("just asked");
        if !asked.called {
            asked.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.asked.remove(&self.number);
        Poll::Ready(Taken { ticket: self, goes_on: false })
    }

    /// Wants no turn any more, until it asks again.
    pub(super) fn withdraw(&self) {
        let mut state = self.shares.state();
        match state.asked.remove(&self.number) {
            Some(Asked { called: true, .. }) => {
                state.line.free += 1;
                state.call();
            }
            Some(Asked { position, .. }) => {
                state.line.waiting.remove(&(position, self.number));
            }
            None => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// A turn, until this is dropped.
pub(super) struct Taken<'a> {
    ticket: &'a Ticket,
    goes_on: bool,
}

impl Taken<'_> {
    /// The turn is over, and the run wants another: it stands in the line at once, ahead of whoever has
    /// computed more.
    pub(super) fn again(mut self) {
        self.goes_on = true;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Ticket { shares, budget, number } = self.ticket;
        let mut state = shares.state();
        state.line.free += 1;
        if self.goes_on {
            let turn = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
            // It wakes itself, since it was made to give way, and asks then.
            state.enter(*number, budget, budget.distance(turn * TURNS_BEHIND), None);
        }
        state.call();
    }
}
