//! The threads that guests run on, apart from the control plane's.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::clock::Clock;

/// By how much the system prefers other threads to those of guests that compute.
const NICE: i32 = 10;

/// `event_interval(1)` keeps guests' timers exact beside guests that compute; and those that compute for
/// long have threads of their own, which the system prefers less. `None` in virtual time, where there is
/// one thread for all.
pub(super) struct GuestThreads(Option<[Runtime; 2]>);

impl GuestThreads {
    pub(super) fn start(clock: Clock) -> std::io::Result<Self> {
        if clock.is_virtual() {
            return Ok(Self(None));
        }
        let waiting = builder("guest").build()?;
        let computing = builder("guest-computing").on_thread_start(yield_to_others).build()?;
        Ok(Self(Some([waiting, computing])))
    }

    pub(super) fn waiting(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |[waiting, _]| waiting.handle().clone())
    }

    pub(super) fn computing(&self) -> Option<Handle> {
        self.0.as_ref().map(|[_, computing]| computing.handle().clone())
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        for runtime in self.0.take().into_iter().flatten() {
            // Waiting for its threads is not allowed among tasks, and nothing is left to wait for.
            runtime.shutdown_background();
        }
    }
}

fn builder(name: &str) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.thread_name(name).event_interval(1).enable_all();
    builder
}

/// On Linux a thread has a priority of its own; elsewhere it is the process's.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "threads of guests that compute are as preferred as others");
    }
}
