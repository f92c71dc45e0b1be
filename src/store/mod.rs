//! What is true: objects by key in one sequence of revisions.
//!
//! The store knows keys, revisions and metadata, not kinds. State is an index over an append-only
//! history; one commit point assigns revisions, and a list and the watch that continues it leave
//! no gap.
//!
//! The path of a write: `plan` checks a transaction against what is there and gives its writes their
//! revisions. In memory the committing task does so itself under the lock of `state`. In a durable
//! store a thread (`committer`) takes everything that waits, writes it to the newest `segment` as one
//! piece, flushes once, and only then applies, publishes and acknowledges it.
//!
//! The path of a read: `state` answers what is now; `feed` keeps the newest events of each collection
//! and serves watches from them by position, so that a commit costs the same however many watch; `past`
//! reads older revisions from the files, `history` every version of one object.
//!
//! The files of a durable store (`directory` names them, `format` says what is in them):
//!
//! ```text
//! lock                        held while a process has the store open
//! 00000000000000000000.log    a segment: the transactions after the revision that names it
//! 00000000000000041973.snap   a snapshot: every object at the revision that names it
//! 00000000000000041973.log    the segment that goes on from there
//! datakeys                    the keys of sealed objects (`seal`)
//! ```
//!
//! State is the newest snapshot and the segments from there on; what is older is history, dropped
//! oldest first once it exceeds [`Options::history_bytes`].
//!
//! Single look-ups go through the same ordered index as lists. A concurrent hash map beside it would
//! cost a second insertion for each write and some 60 bytes for each object, and two look-ups could
//! see one transaction half done.

mod committer;
mod directory;
mod feed;
mod format;
mod history;
mod past;
mod plan;
mod record;
mod recover;
mod seal;
mod segment;
mod snapshot;
mod state;
mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::kind::{Encoded, Object};

use committer::Committer;
use directory::Directory;
use plan::Plan;
use record::Moment;
use seal::Vault;
use state::State;

pub use history::{Content, History, Version};
pub use record::Record;
pub use seal::key_file::{KeyId, locate};
pub use seal::rotate::{Keys, Rotation, keys, rotate};
pub use watch::Watch;

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
    /// (its `object` too) and the deletion's time.
    pub record: Arc<Record>,
    /// What was stored before; `None` if the object is new.
    pub previous: Option<Arc<Record>>,
    pub deleted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision lies before the history that is kept, or what was asked for holds a sealed object that
    /// was deleted since, which nobody can read any more. From `oldest` on the history is whole.
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
    #[error("the data directory {} is encrypted with key {wanted}, but the key file {} is not there; put it back, or name it with --key-file", .directory.display(), .key_file.display())]
    KeyFileMissing { directory: PathBuf, key_file: PathBuf, wanted: KeyId },
    #[error("the data directory {} is encrypted with key {wanted}, but the key file {} holds {found}; name the right one with --key-file", .directory.display(), .key_file.display())]
    WrongKey { directory: PathBuf, key_file: PathBuf, wanted: KeyId, found: String },
    #[error("the key file {file} can be read by others than its owner (mode {mode:04o}): whoever did so has the key; if nobody did, run `chmod 600 {file}`", file = .path.display())]
    KeyFileExposed { path: PathBuf, mode: u32 },
    #[error("the key file {} is damaged: {what}; restore it from a copy", .path.display())]
    KeyFileDamaged { path: PathBuf, what: String },
    #[error("cannot write the key file {}: {source}; choose another place with --key-file", .path.display())]
    KeyFileUnwritable { path: PathBuf, source: std::io::Error },
    #[error("the key file {} is inside the data directory {}: whoever copies that has the key, too; name one elsewhere with --key-file", .path.display(), .directory.display())]
    KeyFileInside { path: PathBuf, directory: PathBuf },
    #[error("there is no place for a key file beside the data directory {}; name one with --key-file", .0.display())]
    NoPlaceForKeyFile(PathBuf),
    #[error("the data directory {} is encrypted, and is to be opened without a key file", .0.display())]
    Sealed(PathBuf),
    #[error("nothing in the data directory {} is encrypted yet: its first start with this version does that", .0.display())]
    NothingSealed(PathBuf),
}

/// How a durable store keeps its files.
#[derive(Clone, Debug)]
pub struct Options {
    pub directory: PathBuf,
    /// Tells each transaction its time.
    pub clock: Clock,
    /// Bytes of history to keep on disk, besides what the current state needs.
    pub history_bytes: u64,
    /// `None` writes everything as it is, and opens only what was written so.
    pub sealing: Option<Sealing>,
}

/// What is to be encrypted, and with which key.
#[derive(Clone, Debug)]
pub struct Sealing {
    pub collections: Vec<&'static str>,
    /// Made at the first start, outside the directory. As [`locate`] gives it.
    pub key_file: PathBuf,
}

/// The history kept on disk unless told otherwise: 256 MiB.
pub const HISTORY_BYTES_DEFAULT: u64 = 256 << 20;

/// Sizes at which the store acts. The defaults are meant for everyone; tests use tiny ones.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Events kept in memory for watches and reads a little in the past.
    pub window_events: usize,
    /// Bytes of JSON that those events may hold.
    pub window_bytes: usize,
    /// A segment of the log ends once it is this long and longer than all that is stored, so that
    /// snapshots cost no more than the log itself.
    pub segment_bytes: u64,
    /// Disk space is taken in steps of this size, ahead of the log's end.
    pub step_bytes: u64,
}

impl Limits {
    /// 32 MiB of log at most are read at start beyond a snapshot of the same size, some tenths of a
    /// second. The window holds a few seconds of a busy cluster.
    pub const DURABLE: Self = Self {
        window_events: 32 << 10,
        window_bytes: 16 << 20,
        segment_bytes: 32 << 20,
        step_bytes: 8 << 20,
    };

    /// Nothing is behind this window, so it is larger.
    pub const EPHEMERAL: Self = Self { window_events: 128 << 10, window_bytes: 64 << 20, ..Self::DURABLE };
}

/// A cheap handle to the one store of a cluster. The last one to go closes it.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    clock: Clock,
    /// `None` in memory.
    durable: Option<Durable>,
}

struct Durable {
    directory: Arc<Directory>,
    committer: Committer,
}

/// What readers, watchers and committers share.
struct Shared {
    state: RwLock<State>,
    /// The newest revision that is applied; only ever the last of a transaction.
    visible: AtomicU64,
    /// Told whenever `visible` moves.
    moved: Notify,
    closed: AtomicBool,
    /// `None` if nothing is sealed.
    vault: Option<Vault>,
}

impl Shared {
    fn new(state: State, vault: Option<Vault>) -> Arc<Self> {
        let visible = AtomicU64::new(state.revision());
        Arc::new(Self {
            state: RwLock::new(state),
            visible,
            moved: Notify::new(),
            closed: AtomicBool::new(false),
            vault,
        })
    }

    fn vault(&self) -> Option<&Vault> {
        self.vault.as_ref()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // Whoever panicked held the state whole: writers apply what was checked before.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn revision(&self) -> Revision {
        self.visible.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Makes whole transactions visible: to readers under the lock, then to those who wait.
    fn publish(&self, mut state: RwLockWriteGuard<'_, State>, events: Vec<Event>) {
        let applied = state.apply(events);
        self.visible.store(state.revision(), Ordering::Release);
        drop(state);
        applied.announce();
        self.moved.notify_waiters();
    }

    fn end_watches(&self) {
        self.closed.store(true, Ordering::Release);
        for feed in self.read().feeds() {
            feed.wake_all();
        }
    }
}

/// The bytes that one transaction may hold, well above what the API lets through.
const TRANSACTION_BYTES_MAX: usize = 256 << 20;

impl Store {
    /// A store in memory; commits are applied by the committing task itself.
    #[must_use]
    pub fn ephemeral(clock: Clock) -> Self {
        Self::ephemeral_with(clock, &Limits::EPHEMERAL)
    }

    /// As [`Store::ephemeral`], with a window of another size.
    #[must_use]
    pub fn ephemeral_with(clock: Clock, limits: &Limits) -> Self {
        Self(Arc::new(Handle { shared: Shared::new(State::new(limits), None), clock, durable: None }))
    }

    /// Opens or creates a durable store; recovers everything that was acknowledged.
    ///
    /// Its commits wait for a thread, so it is not for virtual time.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        Self::open_with(options, &Limits::DURABLE)
    }

    /// As [`Store::open`], with other sizes.
    pub fn open_with(options: &Options, limits: &Limits) -> Result<Self, OpenError> {
        let recovered = recover::open(options, limits)?;
        let shared = Shared::new(recovered.state, recovered.vault);
        let directory = Arc::new(recovered.directory);
        if recovered.is_to_be_sealed {
            seal_all(&shared, &directory)
                .map_err(|source| OpenError::Io { path: options.directory.clone(), source })?;
        }
        let committer = Committer::start(committer::Parts {
            shared: shared.clone(),
            directory: directory.clone(),
            segment: recovered.segment,
            segment_base: recovered.segment_base,
            limits: limits.clone(),
            history_bytes: options.history_bytes,
        })
        .map_err(|source| OpenError::Io { path: options.directory.clone(), source })?;
        let durable = Some(Durable { directory, committer });
        Ok(Self(Arc::new(Handle { shared, clock: options.clock, durable })))
    }

    /// All of `writes` or none, in order, each with a revision of its own, the next in the sequence.
    /// Returns once durable, with the new records (for deletions the last content at the deletion's
    /// revision; `None` for [`Change::Nothing`], and for the deletion of what is not there).
    ///
    /// A key may occur more than once; each expectation is about what the writes before it left. A
    /// caller that stops waiting does not undo the commit.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Option<Arc<Record>>>, CommitError> {
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        if bytes > TRANSACTION_BYTES_MAX {
            let what = format!("a transaction of {bytes} bytes exceeds {TRANSACTION_BYTES_MAX}");
            return Err(unwritable(std::io::ErrorKind::InvalidInput, what));
        }
        if let Some(durable) = &self.0.durable {
            return durable.committer.commit(writes, || self.now()).await;
        }
        // Such a commit never waits for anything, so a loop of them would starve those who watch.
        tokio::task::consume_budget().await;
        if self.0.shared.is_closed() {
            return Err(closed());
        }
        let state = self.0.shared.write();
        let mut plan = Plan::new(&state, None, writes.len() > 1);
        let records = plan.add(&state, writes, self.now())?;
        let events = plan.into_events();
        if !events.is_empty() {
            self.0.shared.publish(state, events);
        }
        Ok(records)
    }

    /// From now on what is deleted from `collections` leaves the events in memory, with all that happened
    /// in the collection before, as soon as every watch of it has seen the deletion. Who asks for older
    /// revisions of it is answered from the files, or that they have expired.
    pub fn forget_deleted(&self, collections: Vec<&'static str>) {
        self.0.shared.write().forget_deleted(collections);
    }

    /// The newest revision that readers can see.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.0.shared.revision()
    }

    /// Returns once [`Store::revision`] is at least `revision`.
    pub async fn reached(&self, revision: Revision) {
        while self.revision() < revision {
            let moved = self.0.shared.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.revision() >= revision {
                break;
            }
            moved.await;
        }
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Record>> {
        self.0.shared.read().get(key).cloned()
    }

    /// The range as it is now, from the first key after `after` (namespace, name) on, at most `max`
    /// records of those that `keep` accepts. (Paging with selectors must fill its pages.)
    ///
    /// `keep` must not use the store, whose lock may be held.
    #[must_use]
    pub fn list(
        &self,
        range: &Range,
        after: Option<(&str, &str)>,
        max: Option<usize>,
        keep: &dyn Fn(&Record) -> bool,
    ) -> Listing {
        state::list(&self.0.shared, range, after, max, keep)
    }

    /// As [`Store::list`], at a past revision. Reads the history, so it is slower.
    pub async fn list_at(&self, revision: Revision, range: &Range) -> Result<Listing, ReadError> {
        self.page_at(revision, range, None, None, &|_| true).await
    }

    /// A page at a past revision: [`Store::list`]'s arguments, [`Store::list_at`]'s meaning.
    pub async fn page_at(
        &self,
        revision: Revision,
        range: &Range,
        after: Option<(&str, &str)>,
        max: Option<usize>,
        keep: &(dyn Fn(&Record) -> bool + Sync),
    ) -> Result<Listing, ReadError> {
        past::list(&self.0.shared, self.directory(), revision, past::Page { range, after, max, keep }).await
    }

    /// Every version of one object that is kept, deletions among them, oldest first. Reads all of the
    /// history if that reaches further back than the window, so it takes a while; it holds no more in
    /// memory than what it returns.
    pub async fn history(&self, key: &Key) -> Result<History, ReadError> {
        history::read(&self.0.shared, self.directory(), key).await
    }

    /// Everything that happened in `range` after `from`.
    ///
    /// Starts in memory if it can. Otherwise it reads the files until it has caught up.
    pub async fn watch(&self, range: Range, from: Revision) -> Result<Watch, ReadError> {
        Watch::start(self.0.shared.clone(), self.directory().cloned(), range, from).await
    }

    /// Flushes, stops the commit thread and releases the directory. Watches end once they have given
    /// what was committed; later commits are refused, reads go on from memory.
    pub fn close(&self) {
        self.0.close();
    }

    fn now(&self) -> Moment {
        Moment::of(self.0.clock.now())
    }

    fn directory(&self) -> Option<&Arc<Directory>> {
        self.0.durable.as_ref().map(|durable| &durable.directory)
    }
}

impl Handle {
    fn close(&self) {
        if let Some(durable) = &self.durable {
            durable.committer.stop();
        }
        self.shared.end_watches();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Write {
    /// About what it takes in the log.
    fn bytes(&self) -> usize {
        let json = match &self.change {
            Change::Put { encoded, .. } => encoded.json.len(),
            Change::Delete | Change::Nothing => 0,
        };
        json + self.key.namespace.len() + self.key.name.len() + 128
    }
}

/// Writes everything once more, sealed as it is to be, and overwrites the files of before. If it does not
/// come to its end, the next start begins anew.
fn seal_all(shared: &Shared, directory: &Directory) -> std::io::Result<()> {
    let revision = shared.revision();
    tracing::warn!(
        revision,
        "objects that are to be encrypted were not: writing all anew; the history before is erased"
    );
    shared.write().start_saving();
    snapshot::write(shared, directory, revision, &AtomicBool::new(false))?;
    directory.erase_before(revision)
}

fn unwritable(
    kind: std::io::ErrorKind,
    what: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CommitError {
    CommitError::Unwritable(Arc::new(std::io::Error::new(kind, what)))
}

fn closed() -> CommitError {
    unwritable(std::io::ErrorKind::NotConnected, "the store is closed")
}
