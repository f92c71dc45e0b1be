//! How many requests of a container are being answered at a time, and how many wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;

/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a request lets others go first before it stands in the line: most places are free again within
/// microseconds, and to be called up from the line takes longer than that.
const YIELDS: usize = 4;

/// Lets so many in.
pub(super) struct Gate {
    places: Arc<Semaphore>,
    count: u16,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// Too many wait already.
    Full,
    /// It has waited for too long.
    Late,
}

impl Gate {
    pub(super) fn new(count: u16, waiting_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(usize::from(count)));
        Self { places, count, waiting: AtomicUsize::new(0), waiting_max }
    }

    /// A place, until it is dropped; for those in the line in the order of coming.
    pub(super) async fn enter(&self, clock: Clock) -> Result<OwnedSemaphorePermit, Busy> {
        for _ in 0..YIELDS {
            // None is left while somebody is in the line.
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Ok(place);
            }
            tokio::task::yield_now().await;
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(Busy::Full);
        }
        let place = clock.timeout(WAIT_MAX, Arc::clone(&self.places).acquire_owned()).await;
        drop(waiting);
        place.map_err(|_| Busy::Late)?.map_err(|_| Busy::Late)
    }

    /// Whether somebody waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until nobody is in.
    pub(super) async fn empty(&self) {
        // It is never closed.
        drop(self.places.acquire_many(u32::from(self.count)).await);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
