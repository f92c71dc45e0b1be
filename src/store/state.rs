//! What is stored now, in key order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::feed::{Applied, Feed, Window};
use super::{Event, Key, Limits, Listing, Range, Record, Revision, Shared};

/// Names within a namespace.
type Names = BTreeMap<Arc<str>, Arc<Record>>;

pub(super) struct State {
    revision: Revision,
    collections: BTreeMap<&'static str, Collection>,
    window: Window,
    /// Bytes of JSON of everything stored.
    live_bytes: u64,
    /// The window holds nothing up to this revision.
    opened_at: Revision,
    /// Collections whose deleted objects do not stay in the window.
    forgetful: Vec<&'static str>,
    saving: Option<Saving>,
}

struct Collection {
    namespaces: BTreeMap<Arc<str>, Names>,
    feed: Arc<Feed>,
}

/// A snapshot in the making: what it needs of records that changed since its revision.
struct Saving {
    at: Revision,
    replaced: Vec<Arc<Record>>,
}

impl State {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            revision: 0,
            collections: BTreeMap::new(),
            window: Window::new(limits),
            live_bytes: 0,
            opened_at: 0,
            forgetful: Vec::new(),
            saving: None,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.collections.get(key.collection)?.namespaces.get(&key.namespace)?.get(&key.name)
    }

    /// The key with the namespace's text shared with the other keys in it.
    pub(super) fn share_namespace(&self, mut key: Key) -> Key {
        let known = self.collections.get(key.collection);
        if let Some((namespace, _)) = known.and_then(|known| known.namespaces.get_key_value(&key.namespace)) {
            key.namespace = namespace.clone();
        }
        key
    }

    /// The records of a range in key order, those after `after`.
    pub(super) fn range<'a>(
        &'a self,
        range: &'a Range,
        after: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        let only = range.namespace.as_deref();
        let low = only.max(after.map(|(namespace, _)| namespace));
        // An inverted range would panic; it holds nothing.
        let some = self.collections.get(range.collection).filter(|_| only.is_none() || low == only);
        some.into_iter()
            .flat_map(move |collection| {
                let low = low.map_or(Bound::Unbounded, Bound::Included);
                let high = only.map_or(Bound::Unbounded, Bound::Included);
                collection.namespaces.range::<str, _>((low, high))
            })
            .flat_map(move |(namespace, names)| {
                let low = match after {
                    Some((reached, name)) if reached == &**namespace => Bound::Excluded(name),
                    Some(_) | None => Bound::Unbounded,
                };
                names.range::<str, _>((low, Bound::Unbounded)).map(|(_, record)| record)
            })
    }

    /// Everything that is stored.
    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.collections
            .values()
            .flat_map(|collection| collection.namespaces.values())
            .flat_map(Names::values)
    }

    /// Makes events happen, which must be the next in the sequence.
    pub(super) fn apply(&mut self, events: Vec<Event>) -> Applied {
        let mut applied = Applied::default();
        for event in &events {
            if let (Some(saving), Some(previous)) = (&mut self.saving, &event.previous)
                && previous.revision <= saving.at
            {
                saving.replaced.push(previous.clone());
            }
            if event.deleted {
                self.remove(&event.record.key)
            } else {
                self.insert(event.record.clone())
            }
            self.revision = event.revision;
        }
        for run in events.chunk_by(|a, b| a.record.key.collection == b.record.key.collection) {
            if let Some(collection) = run.first().map(|event| event.record.key.collection) {
                let feed = self.feed(collection);
                self.window.push(&feed, run, &mut applied);
                if self.forgetful.contains(&collection)
                    && let Some(deletion) = run.iter().rfind(|event| event.deleted)
                {
                    applied.doom(&feed, deletion.revision);
                }
            }
        }
        applied
    }

    pub(super) fn insert(&mut self, record: Arc<Record>) {
        let bytes = length(&record);
        let collection = self.collection(record.key.collection);
        let names = match collection.namespaces.get_mut(&record.key.namespace) {
            Some(names) => names,
            None => collection.namespaces.entry(record.key.namespace.clone()).or_default(),
        };
        let replaced = names.insert(record.key.name.clone(), record);
        self.live_bytes += bytes;
        self.live_bytes -= replaced.map_or(0, |record| length(&record));
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let collection = self.collection(key.collection);
        let Some(names) = collection.namespaces.get_mut(&key.namespace) else { return };
        let removed = names.remove(&key.name);
        if names.is_empty() {
            collection.namespaces.remove(&key.namespace);
        }
        self.live_bytes -= removed.map_or(0, |record| length(&record));
    }

    /// The collection's part of the window, whether or not anything is in it.
    pub(super) fn feed(&mut self, collection: &'static str) -> Arc<Feed> {
        self.collection(collection).feed.clone()
    }

    /// The collection's part of the window, if it was ever used.
    pub(super) fn known_feed(&self, collection: &str) -> Option<&Arc<Feed>> {
        self.collections.get(collection).map(|collection| &collection.feed)
    }

    pub(super) fn feeds(&self) -> impl Iterator<Item = &Arc<Feed>> {
        self.collections.values().map(|collection| &collection.feed)
    }

    pub(super) fn collections(&self) -> Vec<&'static str> {
        self.collections.keys().copied().collect()
    }

    /// The window holds nothing up to this revision, at which the store was opened.
    pub(super) fn opened_at(&self) -> Revision {
        self.opened_at
    }

    /// Recovery is done: the sequence goes on from `revision`.
    pub(super) fn opened(&mut self, revision: Revision) {
        self.revision = revision;
        self.opened_at = revision;
        for collection in self.collections.values_mut() {
            collection.feed = Feed::new(revision);
        }
    }

    /// [`super::Store::forget_deleted`].
    pub(super) fn forget_deleted(&mut self, collections: Vec<&'static str>) {
        self.forgetful = collections;
    }

    /// From now on records of the present that get replaced are kept, for a snapshot of the present.
    pub(super) fn start_saving(&mut self) {
        self.saving = Some(Saving { at: self.revision, replaced: Vec::new() });
    }

    /// Ends what [`State::start_saving`] began.
    pub(super) fn end_saving(&mut self) -> Vec<Arc<Record>> {
        self.saving.take().map(|saving| saving.replaced).unwrap_or_default()
    }

    fn collection(&mut self, name: &'static str) -> &mut Collection {
        let opened_at = self.opened_at;
        self.collections
            .entry(name)
            .or_insert_with(|| Collection { namespaces: BTreeMap::new(), feed: Feed::new(opened_at) })
    }
}

fn length(record: &Record) -> u64 {
    u64::try_from(record.json.len()).expect("a length fits 64 bits")
}

/// [`super::Store::list`]. Judging records can be slow, so it is done without the lock: records are
/// taken in pieces, and if the collection changed between two of them, once more in one piece.
pub(super) fn list(
    shared: &Shared,
    range: &Range,
    after: Option<(&str, &str)>,
    max: Option<usize>,
    keep: &dyn Fn(&Record) -> bool,
) -> Listing {
    let Some(max) = max else {
        let state = shared.read();
        let revision = state.revision();
        let mut records: Vec<_> = state.range(range, after).cloned().collect();
        drop(state);
        records.retain(|record| keep(record));
        return Listing { revision, records };
    };
    let mut piece_max = max.saturating_mul(2).max(256);
    let mut records: Vec<Arc<Record>> = Vec::new();
    let mut seen_last = None;
    let mut reached: Option<Arc<Record>> = None;
    loop {
        let position = reached.as_ref().map(|record| (&*record.key.namespace, &*record.key.name)).or(after);
        let state = shared.read();
        let revision = state.revision();
        let last = state.known_feed(range.collection).map_or(0, |feed| feed.last());
        if *seen_last.get_or_insert(last) != last {
            let records =
                state.range(range, after).filter(|record| keep(record)).take(max).cloned().collect();
            return Listing { revision, records };
        }
        let piece: Vec<_> = state.range(range, position).take(piece_max).cloned().collect();
        drop(state);
        reached = piece.last().cloned();
        let is_end = piece.len() < piece_max;
        let room = max - records.len();
        records.extend(piece.into_iter().filter(|record| keep(record)).take(room));
        if is_end || records.len() == max {
            return Listing { revision, records };
        }
        piece_max = piece_max.saturating_mul(2);
    }
}
