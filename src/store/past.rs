//! Reading at past revisions: from the window if it reaches so far, else from the files.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::directory::Directory;
use super::feed::Chunk;
use super::format::{self, Contents, KeyText, LogFrame, Stored};
use super::record::Moment;
use super::recover::{Keys, SnapshotError, read_snapshot};
use super::segment::{Found, Reader};
use super::{Key, Listing, Range, ReadError, Record, Revision, Shared};

/// What of a range is wanted, as [`super::Store::list`] has it.
pub(super) struct Page<'a> {
    pub(super) range: &'a Range,
    pub(super) after: Option<(&'a str, &'a str)>,
    pub(super) max: Option<usize>,
    pub(super) keep: &'a (dyn Fn(&Record) -> bool + Sync),
}

/// [`super::Store::page_at`].
pub(super) async fn list(
    shared: &Arc<Shared>,
    directory: Option<&Arc<Directory>>,
    revision: Revision,
    page: Page<'_>,
) -> Result<Listing, ReadError> {
    let current = shared.revision();
    if revision > current {
        return Err(ReadError::Future { asked: revision, current });
    }
    let evicted = match undo(shared, revision, &page) {
        Ok(listing) => return Ok(listing),
        Err(evicted) => evicted,
    };
    let Some(directory) = directory else {
        return Err(ReadError::Expired { asked: revision, oldest: evicted });
    };
    let (shared, directory, wanted) = (shared.clone(), directory.clone(), Wanted::range(page.range));
    let read = move || {
        let past = Past::open(shared, directory, wanted, revision)?;
        if past.holds_destroyed() {
            return Err(ReadError::Expired { asked: revision, oldest: past.whole_since()? });
        }
        Ok(past.records())
    };
    let mut records = blocking(read).await??;
    records.retain(|record| page.after.is_none_or(|after| position(record) > after) && (page.keep)(record));
    records.truncate(page.max.unwrap_or(usize::MAX));
    Ok(Listing { revision, records })
}

/// Runs what waits for the disk where that delays nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| unreadable(io::Error::other(error)))
}

fn unreadable(error: io::Error) -> ReadError {
    ReadError::Unreadable(Arc::new(error))
}

fn position(record: &Record) -> (&str, &str) {
    (&record.key.namespace, &record.key.name)
}

/// The page as the window tells it: what is now, without what happened since. If the window does not
/// reach so far, the revision from which on it does.
fn undo(shared: &Shared, revision: Revision, page: &Page<'_>) -> Result<Listing, Revision> {
    let state = shared.read();
    let chunks = match state.known_feed(page.range.collection) {
        Some(feed) => feed.since(revision, state.revision()).ok_or(feed.evicted())?,
        None if revision < state.opened_at() => return Err(state.opened_at()),
        None => Vec::new(),
    };
    let undone = before(&chunks, revision, page);
    let mut records: Vec<_> = {
        let is_same = |record: &&Arc<Record>| !undone.contains_key(&position(record));
        let now = state.range(page.range, page.after).filter(is_same);
        let merged = merge(now, undone.values().copied().flatten());
        match page.max {
            Some(max) => merged.filter(|record| (page.keep)(record)).take(max).cloned().collect(),
            None => merged.cloned().collect(),
        }
    };
    drop(state);
    if page.max.is_none() {
        // Judging records can be slow, so it is done without the lock.
        records.retain(|record| (page.keep)(record));
    }
    Ok(Listing { revision, records })
}

/// Both in key order.
fn merge<'a>(
    a: impl Iterator<Item = &'a Arc<Record>>,
    b: impl Iterator<Item = &'a Arc<Record>>,
) -> impl Iterator<Item = &'a Arc<Record>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if position(y) < position(x) => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// What the keys of the page that changed after `revision` held then.
fn before<'a>(
    chunks: &'a [Chunk],
    revision: Revision,
    page: &Page<'_>,
) -> BTreeMap<(&'a str, &'a str), Option<&'a Arc<Record>>> {
    let mut before = BTreeMap::new();
    for event in chunks.iter().flat_map(|chunk| chunk.iter()).filter(|event| event.revision > revision) {
        let position = position(&event.record);
        let in_page = page.range.namespace.as_deref().is_none_or(|namespace| namespace == position.0)
            && page.after.is_none_or(|after| position > after);
        if in_page {
            before.entry(position).or_insert(event.previous.as_ref());
        }
    }
    before
}

/// Which objects are read: a range, or one object in it.
#[derive(Clone)]
pub(super) struct Wanted {
    range: Range,
    name: Option<Arc<str>>,
}

impl Wanted {
    pub(super) fn range(range: &Range) -> Self {
        Self { range: range.clone(), name: None }
    }

    pub(super) fn one(key: &Key) -> Self {
        let range = Range { collection: key.collection, namespace: Some(key.namespace.clone()) };
        Self { range, name: Some(key.name.clone()) }
    }

    fn has(&self, key: &KeyText<'_>) -> bool {
        key.collection == self.range.collection
            && self.range.namespace.as_deref().is_none_or(|namespace| namespace == key.namespace)
            && self.name.as_deref().is_none_or(|name| name == key.name)
    }
}

/// What is wanted as it was at a past revision, moving forward through the files.
pub(super) struct Past {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    wanted: Wanted,
    asked: Revision,
    at: Revision,
    held: BTreeMap<(Arc<str>, Arc<str>), Held>,
    keys: Keys,
    segment: Revision,
    reader: Reader,
    /// What is not yet applied of the transaction that was read last.
    steps: VecDeque<Step>,
    /// The last revision of that transaction.
    read_to: Revision,
}

/// One version of an object, as it is found today.
#[derive(Clone)]
pub(super) enum Held {
    Record(Arc<Record>),
    /// It was sealed, and its data key went when the object was deleted.
    Destroyed {
        revision: Revision,
        committed: Moment,
    },
}

impl Held {
    fn new(stored: Stored, revision: Revision, committed: Moment) -> Self {
        match stored {
            Stored::Record(record) => Self::Record(record),
            Stored::Destroyed => Self::Destroyed { revision, committed },
        }
    }

    fn is_destroyed(&self) -> bool {
        matches!(self, Self::Destroyed { .. })
    }
}

/// A change of one object.
pub(super) struct Step {
    pub(super) revision: Revision,
    pub(super) committed: Moment,
    position: (Arc<str>, Arc<str>),
    /// What it became; `None` if it was deleted.
    pub(super) held: Option<Held>,
}

impl Past {
    /// What is wanted as it was at `revision`, which must have happened. Waits for the disk.
    pub(super) fn open(
        shared: Arc<Shared>,
        directory: Arc<Directory>,
        wanted: Wanted,
        revision: Revision,
    ) -> Result<Self, ReadError> {
        let expired = || expired(&shared, &directory, revision);
        let catalog = directory.catalog();
        let base = catalog.base(revision).ok_or_else(expired)?;
        let mut keys = Keys::default();
        let mut held = BTreeMap::new();
        if catalog.snapshots.contains_key(&base) {
            let path = directory.file(Contents::Snapshot, base);
            let is_wanted = |key: &KeyText<'_>| wanted.has(key);
            let result = read_snapshot(&path, is_wanted, |kept| {
                let key = keys.key(&kept.key);
                let position = (key.namespace.clone(), key.name.clone());
                let stored = kept.record(key, shared.vault())?;
                held.insert(position, Held::new(stored, kept.revision, kept.committed));
                Ok(())
            });
            match result {
                Ok(()) => {}
                Err(SnapshotError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(expired());
                }
                Err(SnapshotError::Io(error)) => return Err(unreadable(error)),
                Err(SnapshotError::Damaged { offset, what }) => {
                    return Err(damaged(&directory, Contents::Snapshot, base, offset, what));
                }
            }
        }
        let reader = open_segment(&shared, &directory, base, revision)?;
        let mut past = Self {
            shared,
            directory,
            wanted,
            asked: revision,
            at: base,
            held,
            keys,
            segment: base,
            reader,
            steps: VecDeque::new(),
            read_to: base,
        };
        past.advance(revision, |_, _| true)?;
        Ok(past)
    }

    /// The revision up to which everything was told.
    pub(super) fn at(&self) -> Revision {
        self.at
    }

    /// Moves on to `until`, which must have happened, telling `take` of each change and what was there
    /// before it, as long as it says true. Waits for the disk.
    pub(super) fn advance(
        &mut self,
        until: Revision,
        mut take: impl FnMut(Step, Option<Held>) -> bool,
    ) -> Result<(), ReadError> {
        while self.at < until {
            while let Some(step) = self.steps.pop_front_if(|step| step.revision <= until) {
                self.at = step.revision;
                let previous = match &step.held {
                    Some(held) => self.held.insert(step.position.clone(), held.clone()),
                    None => self.held.remove(&step.position),
                };
                if !take(step, previous) {
                    return Ok(());
                }
            }
            self.at = self.read_to.min(until).max(self.at);
            if self.at < until {
                self.read_transaction()?;
            }
        }
        Ok(())
    }

    /// What is there at [`Past::at`] and can be read.
    pub(super) fn records(&self) -> Vec<Arc<Record>> {
        let state = self.shared.read();
        let records = self.held.values().filter_map(|held| match held {
            Held::Record(record) => Some(present(&state, record.clone())),
            Held::Destroyed { .. } => None,
        });
        records.collect()
    }

    /// What is there at [`Past::at`], readable or not.
    pub(super) fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    fn holds_destroyed(&self) -> bool {
        self.held.values().any(Held::is_destroyed)
    }

    /// As [`Past::open`], for who wants to be told of all that happened since: refuses if some of it
    /// cannot be read any more.
    pub(super) fn open_to_follow(
        shared: Arc<Shared>,
        directory: Arc<Directory>,
        wanted: Wanted,
        revision: Revision,
    ) -> Result<Self, ReadError> {
        if !shared.vault().is_some_and(|vault| vault.seals(wanted.range.collection)) {
            return Self::open(shared, directory, wanted, revision);
        }
        // Whoever followed up to what cannot be read would come back to just before it, forever.
        let ahead = Self::open(shared.clone(), directory.clone(), wanted.clone(), revision)?;
        let oldest = ahead.whole_since()?;
        if oldest > revision {
            return Err(ReadError::Expired { asked: revision, oldest });
        }
        Self::open(shared, directory, wanted, revision)
    }

    /// The revision from which on all that is wanted can be read up to the present; where this is if all of
    /// it can.
    fn whole_since(mut self) -> Result<Revision, ReadError> {
        let until = self.shared.revision();
        let mut since = self.at;
        self.advance(until, |step, previous| {
            if [step.held, previous].iter().flatten().any(Held::is_destroyed) {
                since = step.revision;
            }
            true
        })?;
        // If there still is one, its deletion is under way.
        Ok(if self.holds_destroyed() { until + 1 } else { since })
    }

    fn read_transaction(&mut self) -> Result<(), ReadError> {
        let offset = self.reader.offset();
        let damaged = |what| damaged(&self.directory, Contents::Log, self.segment, offset, what);
        let (first, committed, writes) = match self.reader.next().map_err(unreadable)? {
            Found::Frame(payload) => match format::parse_log(payload) {
                Some(LogFrame::Transaction { first, committed, writes }) => (first, committed, writes),
                Some(LogFrame::Closed) => return Ok(()),
                None => return Err(damaged("a frame makes no sense")),
            },
            Found::End if self.segment == self.at => {
                return Err(damaged("the log ends before what was asked for"));
            }
            Found::End => {
                self.reader = open_segment(&self.shared, &self.directory, self.at, self.asked)?;
                self.segment = self.at;
                return Ok(());
            }
            Found::Bad(what) => return Err(damaged(what)),
        };
        if first != self.at + 1 {
            return Err(damaged("revisions are missing"));
        }
        self.read_to = self.at + format::to_u64(writes.len());
        let state = self.shared.read();
        for write in writes.into_iter().filter(|write| self.wanted.has(&write.key)) {
            let key = self.keys.key(&write.key);
            let position = (key.namespace.clone(), key.name.clone());
            let held = match write.put {
                Some(content) => {
                    let vault = self.shared.vault();
                    let stored =
                        match content.record(key, write.revision, committed, vault).map_err(damaged)? {
                            Stored::Record(record) => Stored::Record(present(&state, record)),
                            Stored::Destroyed => Stored::Destroyed,
                        };
                    Some(Held::new(stored, write.revision, committed))
                }
                None => None,
            };
            self.steps.push_back(Step { revision: write.revision, committed, position, held });
        }
        Ok(())
    }
}

/// The stored record, if it is the same: it may be decoded, and is there anyway.
fn present(state: &super::State, record: Arc<Record>) -> Arc<Record> {
    match state.get(&record.key) {
        Some(stored) if stored.revision == record.revision => stored.clone(),
        Some(_) | None => record,
    }
}

fn open_segment(
    shared: &Shared,
    directory: &Directory,
    base: Revision,
    asked: Revision,
) -> Result<Reader, ReadError> {
    match Reader::open(&directory.file(Contents::Log, base)) {
        Ok(reader) => Ok(reader),
        // Dropped between two looks.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(expired(shared, directory, asked)),
        Err(error) => Err(unreadable(error)),
    }
}

fn expired(shared: &Shared, directory: &Directory, asked: Revision) -> ReadError {
    let oldest = directory.catalog().oldest().unwrap_or(shared.revision());
    ReadError::Expired { asked, oldest }
}

fn damaged(
    directory: &Directory,
    contents: Contents,
    revision: Revision,
    offset: u64,
    what: &str,
) -> ReadError {
    let path = directory.file(contents, revision);
    unreadable(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} at byte {offset}: {what}", path.display()),
    ))
}
