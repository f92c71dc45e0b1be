//! The newest events, by collection, and who waits for them.
//!
//! Watchers read a collection's events by position; a commit appends once, and wakes only those whose
//! collection, and namespace if they named one, it touched. The window over all collections is
//! bounded; what leaves it is gone for readers who have not come so far.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use super::{Event, Limits, Range, Revision};

/// Events that stand and fall together, oldest first; never empty.
pub(super) type Chunk = Arc<[Event]>;

/// Longer runs are cut, so that the window lets go of little at a time.
const CHUNK_EVENTS_MAX: usize = 256;

/// What an event weighs besides its JSON.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// One collection's part of the window.
pub(super) struct Feed {
    ring: RwLock<Ring>,
    all: Arc<Interest>,
}

struct Ring {
    chunks: VecDeque<Chunk>,
    /// Namespaces that somebody watches, and how many do.
    namespaces: BTreeMap<Arc<str>, (Arc<Interest>, usize)>,
}

/// What a group of watchers, of a collection or of one namespace in it, needs to know.
pub(super) struct Interest {
    /// No event later than this one has happened.
    last: AtomicU64,
    /// No event later than this one has left the window.
    evicted: AtomicU64,
    /// Told after an event has become visible.
    pub(super) notify: Notify,
}

impl Interest {
    fn new(last: Revision, evicted: Revision) -> Arc<Self> {
        Arc::new(Self { last: last.into(), evicted: evicted.into(), notify: Notify::new() })
    }

    pub(super) fn last(&self) -> Revision {
        self.last.load(Ordering::Acquire)
    }

    pub(super) fn evicted(&self) -> Revision {
        self.evicted.load(Ordering::Acquire)
    }
}

impl Feed {
    /// `from`: nothing up to there will ever be in it.
    pub(super) fn new(from: Revision) -> Arc<Self> {
        let ring = Ring { chunks: VecDeque::new(), namespaces: BTreeMap::new() };
        Arc::new(Self { ring: RwLock::new(ring), all: Interest::new(from, from) })
    }

    /// The newest revision that touched the collection, if not older than the feed.
    pub(super) fn last(&self) -> Revision {
        self.all.last()
    }

    /// Everything after this revision can be read here.
    pub(super) fn evicted(&self) -> Revision {
        self.all.evicted()
    }

    /// Joins those who watch `range`.
    pub(super) fn join(&self, range: &Range) -> Arc<Interest> {
        let Some(namespace) = &range.namespace else { return self.all.clone() };
        let mut ring = self.write();
        if let Some((interest, watchers)) = ring.namespaces.get_mut(namespace) {
            *watchers += 1;
            return interest.clone();
        }
        // Whether the latest events were of this namespace is not known; that they might is safe.
        let interest = Interest::new(self.all.last(), self.all.evicted());
        ring.namespaces.insert(namespace.clone(), (interest.clone(), 1));
        interest
    }

    /// Takes back one [`Feed::join`] of the same range.
    pub(super) fn leave(&self, range: &Range) {
        let Some(namespace) = &range.namespace else { return };
        let mut ring = self.write();
        let Some((_, watchers)) = ring.namespaces.get_mut(namespace) else { return };
        *watchers -= 1;
        if *watchers == 0 {
            ring.namespaces.remove(namespace);
        }
    }

    /// The events after `after` and up to `until`; `None` if some have left the window.
    pub(super) fn since(&self, after: Revision, until: Revision) -> Option<Vec<Chunk>> {
        Some(self.some_since(&self.all, after, until, usize::MAX)?.0)
    }

    /// The same for one interest, about `max` at most, and up to which revision they go. The first and
    /// last chunk may hold events outside.
    pub(super) fn some_since(
        &self,
        interest: &Interest,
        after: Revision,
        until: Revision,
        max: usize,
    ) -> Option<(Vec<Chunk>, Revision)> {
        let ring = self.read();
        if interest.evicted() > after {
            return None;
        }
        let start = ring.chunks.partition_point(|chunk| last_of(chunk) <= after);
        let (mut chunks, mut events, mut reached) = (Vec::new(), 0, after);
        for chunk in ring.chunks.range(start..) {
            if first_of(chunk) > until {
                break;
            }
            if events >= max {
                return Some((chunks, reached));
            }
            events += chunk.len();
            reached = last_of(chunk).min(until);
            chunks.push(chunk.clone());
        }
        Some((chunks, until))
    }

    pub(super) fn wake_all(&self) {
        self.all.notify.notify_waiters();
        for (interest, _) in self.read().namespaces.values() {
            interest.notify.notify_waiters();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first_of(chunk: &Chunk) -> Revision {
    chunk.first().map_or(0, |event| event.revision)
}

fn last_of(chunk: &Chunk) -> Revision {
    chunk.last().map_or(0, |event| event.revision)
}

/// The bound over all feeds: oldest events leave first, whosever they are.
pub(super) struct Window {
    order: VecDeque<Entry>,
    events: usize,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

struct Entry {
    feed: Arc<Feed>,
    events: usize,
    bytes: usize,
}

/// What is to be done about an applied commit once the locks are released: wake watchers, and free what
/// has left the window.
#[derive(Default)]
pub(super) struct Applied {
    touched: Vec<Arc<Interest>>,
    evicted: Vec<Chunk>,
}

impl Applied {
    pub(super) fn announce(self) {
        for interest in &self.touched {
            interest.notify.notify_waiters();
        }
        drop(self.evicted);
    }

    fn touch(&mut self, interest: &Arc<Interest>, revision: Revision) {
        interest.last.store(revision, Ordering::Release);
        if !self.touched.iter().any(|touched| Arc::ptr_eq(touched, interest)) {
            self.touched.push(interest.clone());
        }
    }
}

impl Window {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            order: VecDeque::new(),
            events: 0,
            bytes: 0,
            events_max: limits.window_events,
            bytes_max: limits.window_bytes,
        }
    }

    /// Appends events of one collection, whose feed this is.
    pub(super) fn push(&mut self, feed: &Arc<Feed>, events: &[Event], applied: &mut Applied) {
        for chunk in events.chunks(CHUNK_EVENTS_MAX) {
            self.push_chunk(feed, chunk.into(), applied);
        }
    }

    fn push_chunk(&mut self, feed: &Arc<Feed>, chunk: Chunk, applied: &mut Applied) {
        let entry = Entry { feed: feed.clone(), events: chunk.len(), bytes: chunk.iter().map(weight).sum() };
        self.events += entry.events;
        self.bytes += entry.bytes;
        self.order.push_back(entry);
        applied.touch(&feed.all, last_of(&chunk));
        let mut ring = feed.write();
        if !ring.namespaces.is_empty() {
            for event in chunk.iter() {
                if let Some((interest, _)) = ring.namespaces.get(&event.record.key.namespace) {
                    applied.touch(interest, event.revision);
                }
            }
        }
        ring.chunks.push_back(chunk);
        drop(ring);
        self.trim(applied);
    }

    fn trim(&mut self, applied: &mut Applied) {
        while self.order.len() > 1 && (self.events > self.events_max || self.bytes > self.bytes_max) {
            let Some(oldest) = self.order.pop_front() else { return };
            self.events -= oldest.events;
            self.bytes -= oldest.bytes;
            let mut ring = oldest.feed.write();
            let Some(chunk) = ring.chunks.pop_front() else { continue };
            oldest.feed.all.evicted.store(last_of(&chunk), Ordering::Release);
            if !ring.namespaces.is_empty() {
                for event in chunk.iter() {
                    if let Some((interest, _)) = ring.namespaces.get(&event.record.key.namespace) {
                        interest.evicted.store(event.revision, Ordering::Release);
                    }
                }
            }
            applied.evicted.push(chunk);
        }
    }
}

fn weight(event: &Event) -> usize {
    event.record.json.len() + EVENT_OVERHEAD_BYTES
}
