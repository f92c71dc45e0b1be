//! The data directory: who holds it, what its files are called, which of them are still needed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::format::{Contents, header};
use super::seal::erase::{self, sync_directory};
use super::segment::{Segment, create};
use super::{OpenError, Revision};

/// An open data directory.
pub(super) struct Directory {
    path: PathBuf,
    /// Locked for as long as it is there.
    lock: Mutex<Option<File>>,
    catalog: Mutex<Catalog>,
    /// What the headers of new files say of it.
    pub(super) sealed: u32,
}

/// The files by their revision, with their sizes in bytes; the newest segment's is not kept up to date.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    pub(super) segments: BTreeMap<Revision, u64>,
    pub(super) snapshots: BTreeMap<Revision, u64>,
}

impl Catalog {
    /// The oldest revision that can be read: that of a snapshot, or the beginning of everything.
    pub(super) fn oldest(&self) -> Option<Revision> {
        if self.segments.contains_key(&0) { Some(0) } else { self.snapshots.keys().next().copied() }
    }

    /// The newest point at or before `revision` from which reading can begin.
    pub(super) fn base(&self, revision: Revision) -> Option<Revision> {
        let snapshot = self.snapshots.range(..=revision).next_back().map(|(at, _)| *at);
        snapshot.or_else(|| self.segments.contains_key(&0).then_some(0))
    }

    /// Files that neither the state nor `history_bytes` of history need, oldest first: a snapshot before
    /// the segments that go on from it, so that what a crash leaves of them is known to be useless.
    fn surplus(&self, history_bytes: u64) -> Vec<(Contents, Revision)> {
        let Some(newest) = self.snapshots.keys().next_back().copied() else { return Vec::new() };
        let sizes = self.segments.range(..newest).chain(self.snapshots.range(..newest));
        let mut history: u64 = sizes.map(|(_, bytes)| bytes).sum();
        let mut surplus = Vec::new();
        let mut start = 0;
        for end in self.snapshots.keys().copied() {
            if history <= history_bytes {
                break;
            }
            // Everything in start..end is of no use without its beginning, so it goes as one.
            for (at, bytes) in self.snapshots.range(start..end) {
                surplus.push((Contents::Snapshot, *at));
                history -= bytes;
            }
            for (at, bytes) in self.segments.range(start..end) {
                surplus.push((Contents::Log, *at));
                history -= bytes;
            }
            start = end;
        }
        surplus
    }

    /// Files that can be of no use, because what they go on from is missing.
    fn stranded(&self) -> Vec<(Contents, Revision)> {
        let Some(oldest) = self.oldest() else { return Vec::new() };
        self.segments.range(..oldest).map(|(at, _)| (Contents::Log, *at)).collect()
    }

    fn files(&mut self, contents: Contents) -> &mut BTreeMap<Revision, u64> {
        match contents {
            Contents::Log => &mut self.segments,
            Contents::Snapshot => &mut self.snapshots,
        }
    }
}

impl Directory {
    /// Creates the directory if need be, and takes hold of it.
    pub(super) fn hold(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_directory(parent).map_err(io)?;
            }
        }
        let lock = create(&path.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Held(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let catalog = scan(path).map_err(io)?;
        let directory = Self {
            path: path.to_owned(),
            lock: Mutex::new(Some(lock)),
            catalog: Mutex::new(catalog),
            sealed: 0,
        };
        let stranded = directory.catalog().stranded();
        directory.remove(stranded).map_err(io)?;
        Ok(directory)
    }

    /// Lets another process have the directory.
    pub(super) fn release(&self) {
        // Closing the file is what unlocks it.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn catalog(&self) -> Catalog {
        self.locked_catalog().clone()
    }

    pub(super) fn file(&self, contents: Contents, revision: Revision) -> PathBuf {
        self.path.join(file_name(contents, revision))
    }

    /// Makes the segment that goes on from `base`.
    pub(super) fn create_segment(&self, base: Revision, step_bytes: u64) -> io::Result<Segment> {
        let new = self.path.join(format!("{}.tmp", file_name(Contents::Log, base)));
        let file = create(&new)?;
        let mut segment = Segment::resume(file, 0, step_bytes, false)?;
        segment.append(&header(Contents::Log, base, self.sealed))?;
        self.publish(&new, Contents::Log, base, 0)?;
        Ok(segment)
    }

    /// Gives a complete and flushed file its name.
    pub(super) fn publish(
        &self,
        new: &Path,
        contents: Contents,
        revision: Revision,
        bytes: u64,
    ) -> io::Result<()> {
        erase::put_in_place(&self.file(contents, revision), new)?;
        self.note(contents, revision, bytes);
        Ok(())
    }

    /// Notes the size of a file.
    pub(super) fn note(&self, contents: Contents, revision: Revision, bytes: u64) {
        self.locked_catalog().files(contents).insert(revision, bytes);
    }

    /// Drops the oldest history beyond `history_bytes`.
    pub(super) fn trim(&self, history_bytes: u64) -> io::Result<()> {
        let surplus = self.locked_catalog().surplus(history_bytes);
        self.remove(surplus)
    }

    /// Overwrites and removes everything that is older than the snapshot at `revision`.
    pub(super) fn erase_before(&self, revision: Revision) -> io::Result<()> {
        let catalog = self.catalog();
        let snapshots = catalog.snapshots.range(..revision).map(|(at, _)| (Contents::Snapshot, *at));
        let segments = catalog.segments.range(..revision).map(|(at, _)| (Contents::Log, *at));
        let mut gone = Vec::new();
        for (contents, at) in snapshots.chain(segments) {
            self.locked_catalog().files(contents).remove(&at);
            let path = self.file(contents, at);
            let renamed = self.path.join(format!("{}.{GONE}", file_name(contents, at)));
            fs::rename(&path, &renamed)?;
            gone.push(renamed);
        }
        // Half overwritten under its own name, a file would be damage.
        sync_directory(&self.path)?;
        for path in gone {
            erase::erase(&path)?;
        }
        Ok(())
    }

    fn remove(&self, files: Vec<(Contents, Revision)>) -> io::Result<()> {
        // Readers must not begin with what is about to go.
        for (contents, revision) in &files {
            self.locked_catalog().files(*contents).remove(revision);
        }
        for (contents, revision) in files {
            fs::remove_file(self.file(contents, revision))?;
        }
        Ok(())
    }

    fn locked_catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last part of the name of a file that is being overwritten and then removed.
const GONE: &str = "gone";

/// A name that sorts by revision.
fn file_name(contents: Contents, revision: Revision) -> String {
    let extension = match contents {
        Contents::Log => "log",
        Contents::Snapshot => "snap",
    };
    format!("{revision:020}.{extension}")
}

/// What is there, without the files that were never finished, which are removed, and those of which more
/// must go than the name.
fn scan(path: &Path) -> io::Result<Catalog> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(GONE) => erase::erase(&path)?,
            Some("old") => erase::finish(&path.with_extension(""))?,
            Some(_) | None => {}
        }
    }
    let mut catalog = Catalog::default();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((stem, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(revision) = stem.parse() else { continue };
        let contents = match extension {
            "log" => Contents::Log,
            "snap" => Contents::Snapshot,
            "log.tmp" | "snap.tmp" => {
                fs::remove_file(entry.path())?;
                continue;
            }
            _ => continue,
        };
        catalog.files(contents).insert(revision, entry.metadata()?.len());
    }
    Ok(catalog)
}
