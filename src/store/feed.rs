//! The newest events, by collection, and who waits for them.
//!
//! Watchers read a collection's events by position; a commit appends once, and wakes only those whose
//! collection, and namespace if they named one, it touched. The window over all collections is
//! bounded; what leaves it is gone for readers who have not come so far.
//!
//! What was deleted of collections that hold secrets does not wait for that: its events leave once
//! everybody who watches has them, so that its content is in memory no longer than that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::{Event, Key, Limits, Range, Revision};

/// Events that stand and fall together, oldest first. Empty once it is doomed and forgotten.
pub(super) type Chunk = Arc<[Event]>;

/// Longer runs are cut, so that the window lets go of little at a time.
const CHUNK_EVENTS_MAX: usize = 256;

/// Of so many forgotten events is known that they happened; older ones count as trimmed.
const FORGOTTEN_MAX: usize = 16 << 10;

/// What an event weighs besides its JSON.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// One collection's part of the window.
pub(super) struct Feed {
    ring: RwLock<Ring>,
    all: Arc<Interest>,
    /// What was deleted up to here is to be forgotten as soon as no watcher needs it; 0 if nothing is.
    doomed: AtomicU64,
}

struct Ring {
    chunks: VecDeque<Chunk>,
    /// Nothing later than this has left, but what was forgotten.
    trimmed: Revision,
    /// Oldest first within an object.
    forgotten: VecDeque<Forgotten>,
    /// How far each watcher has come.
    cursors: Vec<Weak<Cursor>>,
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

/// What is left of an event that was forgotten: that it happened.
#[derive(Clone)]
pub(super) struct Forgotten {
    pub(super) key: Key,
    pub(super) revision: Revision,
    pub(super) time: Option<Timestamp>,
    pub(super) deleted: bool,
}

/// How far a watcher has come.
pub(super) struct Cursor {
    pub(super) interest: Arc<Interest>,
    reached: AtomicU64,
}

impl Forgotten {
    fn of(event: &Event) -> Self {
        let Event { record, revision, deleted, .. } = event;
        Self { key: record.key.clone(), revision: *revision, time: record.time(), deleted: *deleted }
    }
}

impl Cursor {
    pub(super) fn reached(&self) -> Revision {
        self.reached.load(Ordering::Acquire)
    }

    pub(super) fn reach(&self, revision: Revision) {
        self.reached.store(revision, Ordering::Release);
    }

    /// Whether the watcher has all that happened up to `revision`.
    fn has(&self, revision: Revision) -> bool {
        let reached = self.reached();
        reached >= revision || self.interest.last() <= reached
    }
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
        let ring = Ring {
            chunks: VecDeque::new(),
            trimmed: from,
            forgotten: VecDeque::new(),
            cursors: Vec::new(),
            namespaces: BTreeMap::new(),
        };
        Arc::new(Self { ring: RwLock::new(ring), all: Interest::new(from, from), doomed: 0.into() })
    }

    /// The newest revision that touched the collection, if not older than the feed.
    pub(super) fn last(&self) -> Revision {
        self.all.last()
    }

    /// Everything after this revision can be read here.
    pub(super) fn evicted(&self) -> Revision {
        self.all.evicted()
    }

    /// Joins those who watch `range`, having come as far as `reached`.
    pub(super) fn join(&self, range: &Range, reached: Revision) -> Arc<Cursor> {
        let mut ring = self.write();
        let interest = match &range.namespace {
            None => self.all.clone(),
            Some(namespace) => match ring.namespaces.get_mut(namespace) {
                Some((interest, watchers)) => {
                    *watchers += 1;
                    interest.clone()
                }
                None => {
                    // Whether the latest events were of this namespace is not known; that they might
                    // is safe.
                    let interest = Interest::new(self.all.last(), self.all.evicted());
                    ring.namespaces.insert(namespace.clone(), (interest.clone(), 1));
                    interest
                }
            },
        };
        let cursor = Arc::new(Cursor { interest, reached: reached.into() });
        if ring.cursors.len() == ring.cursors.capacity() {
            // Before more room is taken: a constant share of each join.
            ring.cursors.retain(|cursor| cursor.strong_count() > 0);
        }
        ring.cursors.push(Arc::downgrade(&cursor));
        cursor
    }

    /// Takes back one [`Feed::join`] of the same range, whose cursor is already gone.
    pub(super) fn leave(&self, range: &Range) {
        if let Some(namespace) = &range.namespace {
            let mut ring = self.write();
            if let Some((_, watchers)) = ring.namespaces.get_mut(namespace) {
                *watchers -= 1;
                if *watchers == 0 {
                    ring.namespaces.remove(namespace);
                }
            }
        }
        self.forget();
    }

    /// Forgets what was deleted and is doomed, if no watcher needs it any more. To be called whenever a
    /// watcher has come further or gone.
    ///
    /// Other objects' events stay for their history, but who resumes from before cannot be told what
    /// became of those that are forgotten: for him the events have expired.
    pub(super) fn forget(&self) {
        let doomed = self.doomed.load(Ordering::Acquire);
        if doomed <= self.evicted() {
            return;
        }
        let mut ring = self.write();
        let is_needed = |cursor: Arc<Cursor>| !cursor.has(doomed);
        if ring.cursors.iter().filter_map(Weak::upgrade).any(is_needed) {
            return;
        }
        let Ring { chunks, namespaces, trimmed, forgotten, .. } = &mut *ring;
        let older = chunks.partition_point(|chunk| first_of(chunk) <= doomed);
        let mut gone: BTreeMap<(Arc<str>, Arc<str>), Revision> = BTreeMap::new();
        for event in chunks.range(..older).flat_map(|chunk| chunk.iter()) {
            let key = &event.record.key;
            if event.revision > doomed {
                continue;
            }
            if event.deleted {
                gone.insert((key.namespace.clone(), key.name.clone()), event.revision);
            }
            if let Some((interest, _)) = namespaces.get(&key.namespace) {
                interest.evicted.fetch_max(event.revision, Ordering::AcqRel);
            }
        }
        let is_gone = |event: &Event| {
            let key = &event.record.key;
            let deleted = gone.get(&(key.namespace.clone(), key.name.clone()));
            deleted.is_some_and(|deleted| event.revision <= *deleted)
        };
        let mut dropped = Vec::new();
        for chunk in chunks.range_mut(..older).filter(|chunk| chunk.iter().any(is_gone)) {
            forgotten.extend(chunk.iter().filter(|event| is_gone(event)).map(Forgotten::of));
            // The window counts chunks, so one that becomes empty stays in its place.
            let kept = chunk.iter().filter(|event| !is_gone(event)).cloned().collect();
            dropped.push(std::mem::replace(chunk, kept));
        }
        while forgotten.len() > FORGOTTEN_MAX {
            let oldest = forgotten.pop_front().map_or(0, |event| event.revision);
            *trimmed = (*trimmed).max(oldest);
        }
        self.all.evicted.fetch_max(doomed, Ordering::AcqRel);
        drop(ring);
        // Outside the lock: freeing takes a while.
        drop(dropped);
    }

    /// All events that are here, what is left of forgotten ones of `key`, and the revision since which
    /// that is everything.
    pub(super) fn held(&self, key: &Key) -> (Revision, Vec<Forgotten>, Vec<Chunk>) {
        let ring = self.read();
        let forgotten = ring.forgotten.iter().filter(|event| event.key == *key).cloned().collect();
        (ring.trimmed, forgotten, ring.chunks.iter().cloned().collect())
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

/// What is to be done about an applied commit once it is visible and the locks are released: wake
/// watchers, and free what has left the window or is to leave it.
#[derive(Default)]
pub(super) struct Applied {
    touched: Vec<Arc<Interest>>,
    evicted: Vec<Chunk>,
    doomed: Vec<(Arc<Feed>, Revision)>,
}

impl Applied {
    pub(super) fn announce(self) {
        for interest in &self.touched {
            interest.notify.notify_waiters();
        }
        drop(self.evicted);
        for (feed, revision) in self.doomed {
            feed.doomed.fetch_max(revision, Ordering::AcqRel);
            feed.forget();
        }
    }

    /// What was deleted in `feed` up to `revision` is to be forgotten: now, or once the last watcher has it.
    pub(super) fn doom(&mut self, feed: &Arc<Feed>, revision: Revision) {
        self.doomed.push((feed.clone(), revision));
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
            ring.trimmed = ring.trimmed.max(last_of(&chunk));
            oldest.feed.all.evicted.fetch_max(last_of(&chunk), Ordering::AcqRel);
            if !ring.namespaces.is_empty() {
                for event in chunk.iter() {
                    if let Some((interest, _)) = ring.namespaces.get(&event.record.key.namespace) {
                        interest.evicted.fetch_max(event.revision, Ordering::AcqRel);
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
