//! What is true: objects by key in one sequence of revisions.
//!
//! The store knows keys, revisions and metadata, not kinds. State is an index over an append-only
//! history; one commit point assigns revisions, and a list and the watch that continues it leave
//! no gap.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::kind::{Encoded, Object};

/// Numbers every write of every kind; the first is 1.
pub type Revision = u64;

/// The name of one object. Ordered by collection, namespace, name: the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `pods`, `leases`: the kind's plural; never seen by the store's users on the wire.
    pub collection: &'static str,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// One object at one revision. Immutable; shared by history, watchers and readers.
pub struct Record {
    pub key: Key,
    /// The revision that wrote this content.
    pub revision: Revision,
    /// The revision that created the object.
    pub created: Revision,
    /// Complete JSON, `resourceVersion` included: GET, LIST and watches send just these bytes.
    pub json: Bytes,
    object: OnceLock<Arc<dyn Object>>,
}

impl std::fmt::Debug for Record {
    /// Without the content, which may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({:?} at {})", self.key, self.revision)
    }
}

impl Record {
    /// The decoded object, whose `resourceVersion` is this revision. `decode` is called at most once
    /// in the record's life, and not at all for one committed by this process.
    pub fn object(&self, decode: impl FnOnce(&[u8]) -> Arc<dyn Object>) -> Arc<dyn Object> {
        self.object.get_or_init(|| decode(&self.json)).clone()
    }
}

/// What must hold of a key for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is stored there.
    Absent,
    /// Something is stored, at just this revision.
    Revision(Revision),
}

/// One change in a transaction.
pub enum Change {
    Put {
        object: Box<dyn Object>,
        encoded: Encoded,
    },
    Delete,
    /// Only the expectation is checked.
    Nothing,
}

pub struct Write {
    pub key: Key,
    pub expect: Expect,
    pub change: Change,
}

/// Why a transaction did not happen. Nothing of it did.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation failed; `found` is what is there now.
    #[error("{}/{}/{} is not as the write expected", .key.collection, .key.namespace, .key.name)]
    Conflict { key: Key, found: Option<Arc<Record>> },
    /// The log cannot be written; the store takes no more writes.
    #[error("the store cannot write its log: {0}")]
    Unwritable(Arc<std::io::Error>),
}

/// Which objects: a collection, of one namespace or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub collection: &'static str,
    pub namespace: Option<Arc<str>>,
}

/// Records of a range at one revision, in key order.
pub struct Listing {
    pub revision: Revision,
    pub records: Vec<Arc<Record>>,
}

/// One committed change, as watchers see it.
#[derive(Clone)]
pub struct Event {
    pub revision: Revision,
    /// What is stored now; for a deletion, the last content with the deletion's revision in it
    /// (its `object` too).
    pub record: Arc<Record>,
    /// What was stored before; `None` if the object is new.
    pub previous: Option<Arc<Record>>,
    pub deleted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision lies before the history that is kept. `oldest` is the first that can be read.
    #[error("revision {asked} is older than the history, which begins at {oldest}")]
    Expired { asked: Revision, oldest: Revision },
    /// The revision has not happened yet.
    #[error("revision {asked} is in the future, the newest is {current}")]
    Future { asked: Revision, current: Revision },
    #[error("the store cannot read its history: {0}")]
    Unreadable(Arc<std::io::Error>),
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {} is in use by another process; stop it, or choose another with --data-dir", .0.display())]
    Held(PathBuf),
    #[error("the data directory {} was written by a newer Coracle (format {found}, this one reads {known}); use that version", .path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("the data directory is damaged: {} at byte {offset}: {what}; restore it from a copy, or start afresh with another --data-dir", .path.display())]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error("cannot open {}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// How a durable store keeps its files.
#[derive(Clone, Debug)]
pub struct Options {
    pub directory: PathBuf,
    /// Bytes of history to keep on disk, besides what the current state needs.
    pub history_bytes: u64,
}

/// The history kept on disk unless told otherwise: 256 MiB.
pub const HISTORY_BYTES_DEFAULT: u64 = 256 << 20;

/// A cheap handle to the one store of a cluster.
#[derive(Clone)]
pub struct Store(Arc<()>);

/// A stream of the changes of a range, from one revision on, without a gap.
pub struct Watch(());

impl Store {
    /// A store in memory; commits are applied by the committing task itself.
    #[must_use]
    pub fn ephemeral() -> Self {
        todo!()
    }

    /// Opens or creates a durable store; recovers everything that was acknowledged.
    pub fn open(_options: &Options) -> Result<Self, OpenError> {
        todo!()
    }

    /// All of `writes` or none, in order, each with a revision of its own, the next in the sequence.
    /// Returns once durable, with the new records (for deletions the last content at the deletion's
    /// revision; `None` for [`Change::Nothing`]).
    pub async fn commit(&self, _writes: Vec<Write>) -> Result<Vec<Option<Arc<Record>>>, CommitError> {
        todo!()
    }

    /// The newest revision that readers can see.
    #[must_use]
    pub fn revision(&self) -> Revision {
        todo!()
    }

    /// Returns once [`Store::revision`] is at least `revision`.
    pub async fn reached(&self, _revision: Revision) {
        todo!()
    }

    #[must_use]
    pub fn get(&self, _key: &Key) -> Option<Arc<Record>> {
        todo!()
    }

    /// The range as it is now, from the first key after `after` (namespace, name) on, at most `max`
    /// records of those that `keep` accepts. (Paging with selectors must fill its pages.)
    #[must_use]
    pub fn list(
        &self,
        _range: &Range,
        _after: Option<(&str, &str)>,
        _max: Option<usize>,
        _keep: &dyn Fn(&Record) -> bool,
    ) -> Listing {
        todo!()
    }

    /// As [`Store::list`], at a past revision. Reads the history, so it is slower.
    pub async fn list_at(&self, _revision: Revision, _range: &Range) -> Result<Listing, ReadError> {
        todo!()
    }

    /// Everything that happened in `range` after `from`.
    pub async fn watch(&self, _range: Range, _from: Revision) -> Result<Watch, ReadError> {
        todo!()
    }

    /// Flushes, stops the commit thread and releases the directory.
    pub fn close(&self) {
        todo!()
    }
}

impl Watch {
    /// The next changes, at least one, in order: all that are ready, so that a busy watcher takes a
    /// batch at a time. Also given: the newest revision this watcher has now seen everything up to.
    /// `None` once the store is closed or the watcher fell so far behind that it was cut off (it
    /// resumes by revision).
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        todo!()
    }

    /// The revision up to which this watcher has been given everything; also moves when other
    /// ranges change, which is what bookmarks are for.
    #[must_use]
    pub fn progress(&self) -> Revision {
        todo!()
    }
}
