//! Watches: the events of a range from one revision on, without a gap.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::directory::Directory;
use super::feed::{Cursor, Feed};
use super::past::{self, Held, Past, Step, Wanted};
use super::{Event, Range, ReadError, Revision, Shared};

/// Events given at once, more or less.
const BATCH_EVENTS: usize = 1024;

/// Bytes of JSON read from the files at once, more or less.
const BATCH_BYTES: usize = 4 << 20;

/// A stream of the changes of a range, from one revision on, without a gap.
pub struct Watch {
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    /// Everything up to here has been given.
    cursor: Arc<Cursor>,
    range: Range,
    /// Reads the files until the window is reached.
    past: Option<CatchUp>,
}

/// Reading happens elsewhere; whoever stops waiting for it finds it again.
enum CatchUp {
    Idle(Box<Past>),
    Reading(JoinHandle<Batch>),
}

/// The reader, and what it has read.
type Batch = (Box<Past>, Result<Vec<Event>, ReadError>);

impl Watch {
    pub(super) async fn start(
        shared: Arc<Shared>,
        directory: Option<Arc<Directory>>,
        range: Range,
        from: Revision,
    ) -> Result<Self, ReadError> {
        let current = shared.revision();
        if from > current {
            return Err(ReadError::Future { asked: from, current });
        }
        let known = shared.read().known_feed(range.collection).cloned();
        let feed = known.unwrap_or_else(|| shared.write().feed(range.collection));
        let cursor = feed.join(&range, from);
        let mut watch = Self { shared, feed, cursor, range, past: None };
        let oldest = watch.cursor.interest.evicted();
        if oldest > from {
            let Some(directory) = directory else { return Err(ReadError::Expired { asked: from, oldest }) };
            let (shared, wanted) = (watch.shared.clone(), Wanted::range(&watch.range));
            let past =
                past::blocking(move || Past::open_to_follow(shared, directory, wanted, from)).await??;
            watch.past = Some(CatchUp::Idle(Box::new(past)));
        }
        Ok(watch)
    }

    /// The next changes, at least one, in order: all that are ready, so that a busy watcher takes a
    /// batch at a time. [`Watch::progress`] then tells up to where.
    /// `None` once the store is closed or the watcher fell so far behind that it was cut off (it
    /// resumes by revision). May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        // While events keep coming nothing here waits, which would starve other tasks.
        tokio::task::consume_budget().await;
        while let Some(past) = self.past.take() {
            match self.catch_up(past).await {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Some(events),
                Err(error) => {
                    tracing::debug!(range = ?self.range, %error, "a watch is cut off");
                    return None;
                }
            }
        }
        let interest = self.cursor.interest.clone();
        loop {
            let events = self.take()?;
            if !events.is_empty() {
                return Some(events);
            }
            let notified = interest.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let is_closed = self.shared.is_closed();
            let events = self.take()?;
            if !events.is_empty() {
                return Some(events);
            }
            if is_closed {
                return None;
            }
            notified.await;
        }
    }

    /// The revision up to which this watcher has been given everything; also moves when other
    /// ranges change, which is what bookmarks are for.
    #[must_use]
    pub fn progress(&self) -> Revision {
        // In this order: what `last` does not know yet is not visible yet.
        let visible = self.shared.revision();
        let reached = self.cursor.reached();
        let is_up_to_date = self.past.is_none() && self.cursor.interest.last() <= reached;
        if is_up_to_date { visible.max(reached) } else { reached }
    }

    /// What the window has for this watcher; `None` if some of it is gone.
    fn take(&self) -> Option<Vec<Event>> {
        loop {
            let visible = self.shared.revision();
            let (interest, before) = (&self.cursor.interest, self.cursor.reached());
            if interest.last() <= before {
                self.cursor.reach(visible.max(before));
                return Some(Vec::new());
            }
            let (chunks, reached) = self.feed.some_since(interest, before, visible, BATCH_EVENTS)?;
            let wanted = |event: &&Event| {
                let namespace = &event.record.key.namespace;
                (before + 1..=reached).contains(&event.revision)
                    && self.range.namespace.as_ref().is_none_or(|only| only == namespace)
            };
            let events: Vec<_> =
                chunks.iter().flat_map(|chunk| chunk.iter().filter(wanted)).cloned().collect();
            drop(chunks);
            self.cursor.reach(reached.max(before));
            self.feed.forget();
            if !events.is_empty() || reached >= visible {
                return Some(events);
            }
        }
    }

    /// Reads on in the files, until the window has the rest.
    async fn catch_up(&mut self, past: CatchUp) -> Result<Vec<Event>, ReadError> {
        let reading = match past {
            CatchUp::Idle(past) => {
                if past.at() >= self.cursor.interest.evicted()
                    && let Some(events) = self.take()
                {
                    return Ok(events);
                }
                let until = self.shared.revision();
                CatchUp::Reading(tokio::task::spawn_blocking(move || read_batch(past, until)))
            }
            CatchUp::Reading(reading) => CatchUp::Reading(reading),
        };
        let CatchUp::Reading(handle) = self.past.insert(reading) else { return Ok(Vec::new()) };
        let joined = handle.await;
        self.past = None;
        let (past, events) =
            joined.map_err(|error| ReadError::Unreadable(Arc::new(std::io::Error::other(error))))?;
        self.cursor.reach(past.at());
        let events = events?;
        self.past = Some(CatchUp::Idle(past));
        Ok(events)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Holds nothing back any more.
        self.cursor.reach(Revision::MAX);
        self.feed.leave(&self.range);
    }
}

fn read_batch(mut past: Box<Past>, until: Revision) -> Batch {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut destroyed = None;
    let result = past.advance(until, |step, previous| {
        let revision = step.revision;
        match event(step, previous) {
            Ok(Some(event)) => {
                bytes += event.record.json.len();
                events.push(event);
            }
            Ok(None) => {}
            Err(Destroyed) => destroyed = Some(revision),
        }
        destroyed.is_none() && events.len() < BATCH_EVENTS && bytes < BATCH_BYTES
    });
    let result = result.and_then(|()| match destroyed {
        // Whoever comes back from before it is told where to go on.
        Some(asked) => Err(ReadError::Expired { asked, oldest: until }),
        None => Ok(events),
    });
    (past, result)
}

/// The content went with its data key.
struct Destroyed;

fn event(step: Step, previous: Option<Held>) -> Result<Option<Event>, Destroyed> {
    let revision = step.revision;
    let previous = match previous {
        Some(Held::Record(record)) => Some(record),
        Some(Held::Destroyed { .. }) => return Err(Destroyed),
        None => None,
    };
    let (record, deleted) = match (step.held, &previous) {
        (Some(Held::Record(record)), _) => (record, false),
        (Some(Held::Destroyed { .. }), _) => return Err(Destroyed),
        (None, Some(previous)) => (previous.deleted(revision, step.committed), true),
        (None, None) => return Ok(None),
    };
    Ok(Some(Event { revision, record, previous, deleted }))
}
