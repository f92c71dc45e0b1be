//! Where a guest runs: among those that mostly wait, or among those that compute.
//!
//! A guest that computes without end gives way every few milliseconds, but on two threads eight of those
//! still keep one that only wants to look at the clock waiting for their turns. So there are two sets of
//! threads, and the system prefers one to the other: a guest that has used up a few turns in a row goes
//! on in the second, and comes back once it waits. There [`shares`](super::shares) says whose turn it is.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::task::coop::unconstrained;

use super::limits::Meter;
use super::shares::{Shares, Ticket};
use super::ticker::Ticker;
use super::{Ending, Exit};
use crate::clock::Clock;

#[cfg(test)]
mod tests;

/// Turns that a guest uses up in a row before it counts as computing.
const TURNS_MAX: u32 = 2;

/// The threads of guests.
#[derive(Clone)]
pub(super) struct Threads {
    pub(super) waiting: Handle,
    /// None where there is one set for all, as in virtual time.
    pub(super) computing: Option<Handle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Computing,
}

/// Whether a guest goes on where it is after one more poll, in which it `used_up` its turn or not.
#[derive(Debug)]
struct Turns {
    place: Place,
    in_a_row: u32,
}

impl Turns {
    fn new(place: Place) -> Self {
        Self { place, in_a_row: 0 }
    }

    fn stays(&mut self, used_up: bool) -> bool {
        self.in_a_row = if used_up { self.in_a_row + 1 } else { 0 };
        match self.place {
            Place::Waiting => self.in_a_row < TURNS_MAX,
            Place::Computing => used_up,
        }
    }
}

/// Ends a run, wherever it is.
#[derive(Default)]
pub(super) struct Switch(Mutex<State>);

#[derive(Default)]
struct State {
    killed: bool,
    task: Option<AbortHandle>,
}

impl Switch {
    pub(super) fn kill(&self) {
        let mut state = self.0.lock().expect("no holder panics");
        state.killed = true;
        if let Some(task) = state.task.take() {
            task.abort();
        }
    }

    /// Spawns what the run goes on in, unless it was killed: then that is dropped.
    fn go_on(&self, threads: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.0.lock().expect("no holder panics");
        if !state.killed {
            state.task = Some(threads.spawn(task).abort_handle());
        }
    }
}

/// One turn. Ticks alone end it: tokio would end it sooner for a guest whose every call is answered at once, and that
/// looks like waiting.
fn poll(run: &mut Run, meter: &Meter, ticker: &Ticker, context: &mut Context<'_>) -> Poll<Exit> {
    let mut run = unconstrained(run.as_mut());
    meter.poll(ticker, || Pin::new(&mut run).poll(context))
}

type Run = Pin<Box<dyn Future<Output = Exit> + Send>>;

/// One run of a guest.
pub(super) struct Turn {
    pub(super) run: Run,
    pub(super) ticker: Arc<Ticker>,
    pub(super) meter: Arc<Meter>,
    pub(super) clock: Clock,
    /// Its place among those that compute.
    pub(super) ticket: Ticket,
    pub(super) threads: Threads,
    pub(super) switch: Arc<Switch>,
    /// Told how it ended; `None` if whoever made it knows by other means.
    pub(super) ending: Option<Ending>,
}

/// Where runs begin.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) ticker: Arc<Ticker>,
    pub(super) clock: Clock,
    pub(super) shares: Arc<Shares>,
    pub(super) threads: Threads,
}

impl Stage {
    /// Begins a run that `meter` measures and `switch` ends.
    pub(super) fn begin(&self, run: Run, meter: Arc<Meter>, switch: Arc<Switch>, ending: Option<Ending>) {
        self.turn(run, meter, switch, ending).begin();
    }

    /// The same with the first turn in the caller's own task, which is all that many runs need: they then cost no
    /// task of their own, and no way there and back. The caller must be on the threads of guests that wait.
    pub(super) async fn begin_here(&self, run: Run, meter: Arc<Meter>, switch: Arc<Switch>) {
        let mut turn = self.turn(run, meter, switch, None);
        let is_over = poll_fn(|context| {
            let is_owed = !turn.meter.budget().owed(turn.clock).is_zero();
            let Turn { run, meter, ticker, .. } = &mut turn;
            Poll::Ready(!is_owed && poll(run, meter, ticker, context).is_ready())
        });
        if !is_over.await {
            // Polled there at once, it says anew what it waits for.
            turn.begin();
        }
    }

    fn turn(&self, run: Run, meter: Arc<Meter>, switch: Arc<Switch>, ending: Option<Ending>) -> Turn {
        Turn {
            run,
            ticker: Arc::clone(&self.ticker),
            clock: self.clock,
            ticket: self.shares.ticket(meter.budget()),
            meter,
            threads: self.threads.clone(),
            switch,
            ending,
        }
    }
}

impl Turn {
    /// Begins the run.
    pub(super) fn begin(self) {
        self.go_on(Place::Waiting);
    }

    fn go_on(self, place: Place) {
        let threads = match (place, &self.threads.computing) {
            (Place::Computing, Some(threads)) => threads,
            (Place::Computing, None) | (Place::Waiting, _) => &self.threads.waiting,
        };
        let (threads, switch) = (threads.clone(), Arc::clone(&self.switch));
        switch.go_on(&threads, self.take(place));
    }

    async fn take(mut self, place: Place) {
        let mut turns = Turns::new(place);
        let has_choice = self.threads.computing.is_some();
        let mut pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        let ended = poll_fn(|context| {
            // What it is woken for meanwhile waits too, so many short runs come under a limit as one long one.
            loop {
                if let Some(paused) = &mut pause {
                    ready!(paused.as_mut().poll(context));
                    pause = None;
                }
                let (clock, owed) = (self.clock, self.meter.budget().owed(self.clock));
                if owed.is_zero() {
                    break;
                }
                self.ticket.withdraw();
                pause = Some(Box::pin(async move { clock.sleep(owed).await }));
            }
            let turn = match place {
                Place::Computing => Some(ready!(self.ticket.poll_turn(context))),
                Place::Waiting => None,
            };
            let polled = poll(&mut self.run, &self.meter, &self.ticker, context);
            let used_up = self.meter.used_up_turn();
            if let Some(turn) = turn.filter(|_| used_up && polled.is_pending()) {
                turn.again();
            }
            match polled {
                Poll::Ready(exit) => Poll::Ready(Some(exit)),
                Poll::Pending if has_choice && !turns.stays(used_up) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match (ended, place) {
            (Some(exit), _) => {
                if let Some(ending) = &mut self.ending {
                    ending.result = exit;
                }
            }
            // Polled there at once, it says anew what it waits for.
            (None, Place::Waiting) => self.go_on(Place::Computing),
            (None, Place::Computing) => self.go_on(Place::Waiting),
        }
    }
}
