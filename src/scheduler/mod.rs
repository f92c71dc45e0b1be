//! Where it runs: finds a node for each pod that has none (BEHAVIOURS 15).
//!
//! ```text
//! watches ──► Cache   nodes by class, room by tree, pods that take it
//!        └──► Queue   active ─► tried ─► bound
//!                        ▲       └────► unschedulable ─► (backing off) ─► active
//! place(Cache, pod) = candidates (filter) ─► marks (score) ─► the best, ties by chance
//! ```
//!
//! Deciding is pure: [`place::place`] looks at the [`cache::Cache`] alone. A placed pod counts on
//! its node at once and is bound behind that, many at a time, by the binding subresource; if binding
//! fails, the count is undone and the pod waits its back-off. Pushing lower priorities out
//! (preemption) is not done.

pub mod cache;
pub mod diagnosis;
pub mod filter;
pub mod place;
pub mod queue;
pub mod resources;
mod run;
pub mod score;
pub mod shape;
pub mod topology;
pub mod tree;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Recorder};
use crate::clock::Clock;
use crate::random::Random;

/// The name pods ask for in `spec.schedulerName`; others are left alone (BEHAVIOURS 15.7).
pub const NAME: &str = "default-scheduler";

/// The cluster's scheduler.
pub struct Scheduler;

/// A running scheduler.
pub struct Handle {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Scheduler {
    /// Starts scheduling. `random` breaks ties between equal nodes.
    #[must_use]
    pub fn start(client: Client, recorder: Recorder, clock: Clock, random: Random) -> Handle {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run::run(client, recorder, clock, random, stop.clone()));
        Handle { stop, task }
    }
}

impl Handle {
    /// Stops placing pods and returns once bindings under way are answered.
    ///
    /// # Panics
    /// If the scheduler did.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.task.await.expect("the scheduler does not panic");
    }
}

#[cfg(test)]
mod tests;
