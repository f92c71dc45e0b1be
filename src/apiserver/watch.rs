//! Watches: selected changes of a range, as a stream (BEHAVIOURS 1.7 to 1.14).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use crate::kind::Kind;
use crate::store::Record;

/// One event of a watch, as the client sees it.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Record>),
    Modified(Arc<Record>),
    /// The last content, with the deletion's revision in it.
    Deleted(Arc<Record>),
    /// Everything up to `revision` has been sent; `initial_end` marks the end of the initial events.
    Bookmark {
        revision: u64,
        initial_end: bool,
    },
    /// The last event of a failed watch.
    Error(Box<Status>),
}

/// The events of one watch.
pub struct WatchStream {
    /// What the objects are, for rendering.
    pub kind: &'static Kind,
}

impl WatchStream {
    /// The next events, at least one: all that are ready. `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        todo!()
    }
}
