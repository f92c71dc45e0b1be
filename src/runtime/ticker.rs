//! The clock hand of the engines: a thread that moves the epoch while guests are being polled.
//!
//! A guest looks at the epoch in every loop and function and gives way when it has moved. The thread
//! parks while no guest runs, so that an idle process has no wake-ups.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

use crate::clock;

/// Longest time that a guest runs on. Several guests that spin take turns on a thread, and a kill
/// waits for the turn of its guest.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// Ticks without a guest before the thread parks: guests often come in quick succession.
const IDLE_TICKS: u32 = 2;

#[derive(Default)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: OnceLock<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Guests being polled right now.
    polling: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
    engines: Mutex<Vec<EngineWeak>>,
}

impl Ticker {
    /// Moves the epoch of `engine` too.
    pub(super) fn add(&self, engine: &Engine) {
        self.shared.engines.lock().expect("no holder panics").push(engine.weak());
        self.thread.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("epoch".to_owned()).spawn(move || shared.run());
            thread.expect("the system has a thread left")
        });
    }

    /// Says that a guest is being polled, until the result is dropped.
    pub(super) fn polling(&self) -> Polling<'_> {
        self.shared.polling.fetch_add(1, Ordering::SeqCst);
        // The thread sets `parked` before it looks at `polling` a last time, and we the other way
        // round: one of the two sees the other.
        if self.shared.parked.load(Ordering::SeqCst) && self.shared.parked.swap(false, Ordering::SeqCst) {
            self.unpark();
        }
        Polling(&self.shared.polling)
    }

    fn unpark(&self) {
        self.thread.get().map(JoinHandle::thread).map(Thread::unpark);
    }
}

pub(super) struct Polling<'a>(&'a AtomicUsize);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            if self.polling.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > IDLE_TICKS {
                self.park();
                idle = 0;
            }
            clock::sleep_thread(TICK);
            for engine in self.engines.lock().expect("no holder panics").iter() {
                if let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                }
            }
        }
    }

    fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        while self.parked.load(Ordering::SeqCst)
            && self.polling.load(Ordering::SeqCst) == 0
            && !self.stopped.load(Ordering::SeqCst)
        {
            thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.unpark();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the epoch thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parks_without_guests_and_wakes_for_one() {
        let engine = Engine::default();
        let ticker = Ticker::default();
        ticker.add(&engine);
        let wait_for = |parked: bool| {
            for _ in 0..1_000 {
                if ticker.shared.parked.load(Ordering::SeqCst) == parked {
                    return;
                }
                clock::sleep_thread(Duration::from_millis(1));
            }
            panic!("parked is still {}", !parked);
        };
        wait_for(true);
        let polling = ticker.polling();
        wait_for(false);
        drop(polling);
        wait_for(true);
    }
}
