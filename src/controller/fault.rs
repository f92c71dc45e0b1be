//! A place to die, for tests of crashes: the driver stops as if killed before a chosen write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

/// Counts the writes of some controllers, and may stop them all before one; cheap to clone.
#[derive(Clone, Debug)]
pub struct Fault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whose writes count.
    controllers: Vec<&'static str>,
    /// The write that does not happen, the first being 1; 0 lets all pass.
    before: usize,
    writes: AtomicUsize,
    killed: CancellationToken,
}

impl Fault {
    /// Dies before the `before`th write of `controllers`, the first being 1; with 0 it only counts.
    #[must_use]
    pub fn before(before: usize, controllers: &[&'static str]) -> Self {
        Self(Arc::new(Inner {
            controllers: controllers.to_vec(),
            before,
            writes: AtomicUsize::new(0),
            killed: CancellationToken::new(),
        }))
    }

    /// Writes that were begun.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::Relaxed)
    }

    /// Returns once the controllers have been stopped.
    pub async fn killed(&self) {
        self.0.killed.cancelled().await;
    }

    /// Returns if the write may happen, else never.
    pub(super) async fn pass(&self, controller: &'static str) {
        let inner = &*self.0;
        if !inner.killed.is_cancelled() {
            if !inner.controllers.contains(&controller) {
                return;
            }
            let number = inner.writes.fetch_add(1, Ordering::Relaxed) + 1;
            if number != inner.before {
                return;
            }
            inner.killed.cancel();
        }
        std::future::pending().await
    }
}
