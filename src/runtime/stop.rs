//! What a guest is told of its end: `coracle:lifecycle/stop` (`wit/lifecycle/lifecycle.wit`).
//!
//! A guest that imports the interface is asked to stop and has until a deadline to end by itself. Whether
//! that deadline holds is up to whoever asks: see [`Container::kill`](super::Container::kill).

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use self::bindings::coracle::lifecycle::stop;
use crate::clock::Clock;

#[cfg(test)]
mod tests;

mod bindings {
    wasmtime::component::bindgen!({
        path: ["wit/deps/io", "wit/lifecycle"],
        world: "coracle:lifecycle/imports",
        require_store_data_send: true,
        imports: { default: trappable },
        with: { "wasi:io/poll": wasmtime_wasi::p2::bindings::io::poll },
    });
}

/// The interface, as images name it in their imports.
pub(super) const INTERFACE: &str = "coracle:lifecycle/stop@0.1.0";

/// One container's request to stop: `None` until there is one, then its deadline on the monotonic clock.
pub(super) struct Stop {
    clock: Clock,
    deadline: watch::Sender<Option<Duration>>,
}

impl Stop {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, deadline: watch::Sender::new(None) }
    }

    /// Asks the guest to end within `left`. Of several requests the earliest deadline counts.
    pub(super) fn ask(&self, left: Duration) {
        let asked = self.clock.monotonic().saturating_add(left);
        self.deadline.send_if_modified(|deadline| {
            let sooner = deadline.is_none_or(|known| asked < known);
            if sooner {
                *deadline = Some(asked);
            }
            sooner
        });
    }
}

impl Stop {
    /// Completes when it has been asked to end.
    pub(super) async fn asked(&self) {
        Requested(self.deadline.subscribe()).ready().await;
    }
}

/// The part of a guest's store that the interface needs.
pub(super) trait HasStop: Send {
    fn stop(&mut self) -> StopView<'_>;
}

pub(super) struct StopView<'a> {
    pub(super) stop: &'a Stop,
    pub(super) table: &'a mut ResourceTable,
}

struct HasStopView;

impl HasData for HasStopView {
    type Data<'a> = StopView<'a>;
}

/// Adds the interface to `linker`.
pub(super) fn add_to_linker<T: HasStop + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    stop::add_to_linker::<T, HasStopView>(linker, T::stop)
}

/// A time as WASI counts it.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl stop::Host for StopView<'_> {
    fn requested(&mut self) -> wasmtime::Result<Option<stop::Request>> {
        let deadline = *self.stop.deadline.borrow();
        Ok(deadline.map(|deadline| stop::Request {
            deadline: nanoseconds(deadline),
            left: nanoseconds(deadline.saturating_sub(self.stop.clock.monotonic())),
        }))
    }

    fn subscribe(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let requested = self.table.push(Requested(self.stop.deadline.subscribe()))?;
        subscribe(self.table, requested)
    }
}

/// Waits for the request.
struct Requested(watch::Receiver<Option<Duration>>);

#[async_trait]
impl Pollable for Requested {
    async fn ready(&mut self) {
        // Nobody is left to ask once the sender is gone.
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
