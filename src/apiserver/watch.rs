//! Watches: selected changes of a range, as a stream (BEHAVIOURS 1.7 to 1.14).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use super::filter::Filter;
use super::status::Error;
use crate::clock::Clock;
use crate::kind::Kind;
use crate::store::{self, Event, Record};

/// Between two bookmarks.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long before the end the last bookmark is sent.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

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

/// The events of one watch. [`WatchStream::next`] may be dropped while it waits: no event is lost.
pub struct WatchStream {
    /// What the objects are, for rendering.
    pub kind: &'static Kind,
    filter: Filter,
    clock: Clock,
    /// `None` once the watch has failed or ended.
    source: Option<store::Watch>,
    ready: Vec<WatchEvent>,
    /// Monotonic time.
    ends: Duration,
    /// When the next bookmark is due, if any is to come.
    bookmark_at: Option<Duration>,
}

/// How a watch begins and how long it lasts.
pub(super) struct Plan {
    /// Events to begin with.
    pub(super) initial: Vec<WatchEvent>,
    pub(super) lasts: Duration,
    pub(super) bookmarks: bool,
}

impl WatchStream {
    pub(super) fn new(
        kind: &'static Kind,
        filter: Filter,
        clock: Clock,
        source: store::Watch,
        plan: Plan,
    ) -> Self {
        let now = clock.monotonic();
        let mut stream = Self {
            kind,
            filter,
            clock,
            source: Some(source),
            ready: plan.initial,
            ends: now + plan.lasts,
            bookmark_at: None,
        };
        if plan.bookmarks {
            stream.plan_bookmark(now);
        }
        stream
    }

    /// A watch that tells of its failure and ends.
    pub(super) fn failed(kind: &'static Kind, filter: Filter, clock: Clock, error: Error) -> Self {
        let ready = vec![WatchEvent::Error(error.0)];
        let ends = clock.monotonic();
        Self { kind, filter, clock, source: None, ready, ends, bookmark_at: None }
    }

    /// The next events, at least one: all that are ready. `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        loop {
            if !self.ready.is_empty() {
                return Some(std::mem::take(&mut self.ready));
            }
            let source = self.source.as_mut()?;
            let now = self.clock.monotonic();
            if now >= self.ends {
                self.source = None;
                return None;
            }
            let wake = self.bookmark_at.map_or(self.ends, |at| at.min(self.ends));
            let events = match self.clock.timeout(wake.saturating_sub(now), source.next()).await {
                Ok(Some(events)) => events,
                Ok(None) => {
                    self.source = None;
                    return None;
                }
                Err(_) => Vec::new(),
            };
            let progress = source.progress();
            self.ready
                .extend(events.iter().filter_map(|event| selected(event, |one| self.filter.keeps(one))));
            let now = self.clock.monotonic();
            if self.bookmark_at.is_some_and(|at| now >= at) {
                self.ready.push(WatchEvent::Bookmark { revision: progress, initial_end: false });
                self.plan_bookmark(now);
            }
        }
    }

    /// The next bookmark comes after the period, the last one a little before the end.
    fn plan_bookmark(&mut self, now: Duration) {
        let last = self.ends.saturating_sub(BOOKMARK_BEFORE_END);
        self.bookmark_at = (now < last).then(|| last.min(now + BOOKMARK_PERIOD));
    }
}

/// What a watcher with a selector sees of a change (BEHAVIOURS 1.10).
fn selected(event: &Event, keeps: impl Fn(&Record) -> bool) -> Option<WatchEvent> {
    if event.deleted {
        return keeps(&event.record).then(|| WatchEvent::Deleted(event.record.clone()));
    }
    let before = event.previous.as_ref().filter(|previous| keeps(previous));
    match (before, keeps(&event.record)) {
        (None, false) => None,
        (None, true) => Some(WatchEvent::Added(event.record.clone())),
        (Some(_), true) => Some(WatchEvent::Modified(event.record.clone())),
        (Some(previous), false) => Some(WatchEvent::Deleted(previous.with_revision(event.revision))),
    }
}
