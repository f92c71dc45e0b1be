//! Opening a data directory: everything that was acknowledged, or the reason why not.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::directory::{Catalog, Directory};
use super::format::{
    self, Content, Contents, FORMAT, HeaderError, Kept, KeyText, LogFrame, Logged, SnapshotFrame, Stored,
};
use super::record::Moment;
use super::seal::{Vault, data_keys};
use super::segment::{Found, Reader, Segment};
use super::state::State;
use super::{Key, Limits, OpenError, Options, Record, Revision, Sealing};

pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) directory: Directory,
    pub(super) segment: Segment,
    /// The revision that names the segment.
    pub(super) segment_base: Revision,
    /// The keys of what is sealed, if anything is to be.
    pub(super) vault: Option<Vault>,
    /// Something lies open in the files that is to be sealed: all must be written anew.
    pub(super) is_to_be_sealed: bool,
}

/// Opens the directory, creating it if there is nothing.
///
/// Reads what the state needs, the newest snapshot and the log from there on. Of the older history only
/// the headers are checked.
pub(super) fn open(options: &Options, limits: &Limits) -> Result<Recovered, OpenError> {
    let (path, sealing) = (options.directory.as_path(), options.sealing.as_ref());
    let mut directory = Directory::hold(path)?;
    directory.sealed = sealing.map_or(0, |sealing| format::sealed_mark(&sealing.collections));
    let catalog = directory.catalog();
    let found = check_headers(path, &directory, &catalog)?;
    let vault = Vault::open(path, sealing)?;
    let mut loaded = Loaded::new(limits, vault.as_ref());
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    if catalog.segments.is_empty() && catalog.snapshots.is_empty() {
        let Loaded { state, .. } = loaded;
        if vault.as_ref().is_some_and(|vault| !vault.is_empty()) {
            // No crash leaves that, and with the keys went what may only have been mislaid.
            return Err(damaged(
                data_keys::path(path),
                0,
                "the log and snapshots that it belongs to are missing",
            ));
        }
        let vault = begin_sealing(path, sealing, vault, &state)?;
        let segment = directory.create_segment(0, limits.step_bytes).map_err(io)?;
        return Ok(Recovered { state, directory, segment, segment_base: 0, vault, is_to_be_sealed: false });
    }
    let Some(base) = catalog.base(Revision::MAX) else {
        let first = catalog.segments.keys().next().copied().unwrap_or_default();
        let what = "the snapshot that it goes on from is missing";
        return Err(damaged(directory.file(Contents::Log, first), 0, what));
    };
    if catalog.snapshots.contains_key(&base) {
        load_snapshot(directory.file(Contents::Snapshot, base), &mut loaded)?;
    }
    let mut revision = base;
    let mut segment = None;
    let newest = catalog.segments.keys().next_back().copied().unwrap_or_default();
    for start in catalog.segments.range(base..).map(|(start, _)| *start) {
        let path = directory.file(Contents::Log, start);
        if start != revision {
            let what = format!("it goes on from revision {start}, but what is before it ends at {revision}");
            return Err(damaged(path, 0, what));
        }
        let mut replay = Replay { path: &path, loaded: &mut loaded, revision };
        if start == newest {
            segment = Some(replay.newest(limits)?);
        } else {
            replay.sealed()?;
        }
        revision = replay.revision;
    }
    let Some(mut segment) = segment else {
        return Err(damaged(directory.file(Contents::Log, base), 0, "the file is missing"));
    };
    if let Some(key) = loaded.destroyed.first() {
        let Key { collection, namespace, name } = key;
        let what = match &vault {
            Some(vault) if vault.is_damaged() => "damaged",
            Some(_) | None => "missing",
        };
        let what = format!("the data key of {collection}/{namespace}/{name} is {what}");
        return Err(damaged(data_keys::path(path), 0, what));
    }
    let Loaded { mut state, .. } = loaded;
    state.opened(revision);
    let vault = begin_sealing(path, sealing, vault, &state)?;
    if let Some(vault) = &vault {
        seal(&mut state, vault).map_err(io)?;
    }
    let mut segment_base = newest;
    let is_to_be_sealed = !found.is_sealed;
    if found.format != FORMAT || is_to_be_sealed {
        // Nothing is appended to a file whose header promises another format.
        segment.trim().map_err(io)?;
        directory.note(Contents::Log, newest, segment.end());
        segment = directory.create_segment(revision, limits.step_bytes).map_err(io)?;
        segment_base = revision;
    }
    Ok(Recovered { state, directory, segment, segment_base, vault, is_to_be_sealed })
}

/// The keys with which sealing goes on, or begins, with none left that no object has.
fn begin_sealing(
    path: &Path,
    sealing: Option<&Sealing>,
    vault: Option<Vault>,
    state: &State,
) -> Result<Option<Vault>, OpenError> {
    let vault = match (vault, sealing) {
        (None, Some(sealing)) => Vault::create(path, sealing)?,
        (Some(vault), _) => vault,
        (None, None) => return Ok(None),
    };
    let live = state.records().filter_map(|record| record.data_key()).map(|key| key.id).collect();
    let destroyed =
        vault.retain(&live).map_err(|source| OpenError::Io { path: data_keys::path(path), source })?;
    if destroyed > 0 {
        tracing::info!(destroyed, "destroyed data keys that a crash left without their objects");
    }
    Ok(Some(vault))
}

/// Gives a data key to what is to be sealed and has none.
fn seal(state: &mut State, vault: &Vault) -> io::Result<()> {
    let lies_open = |record: &&Arc<Record>| record.data_key().is_none();
    let sealed: Vec<_> = state
        .records()
        .filter(lies_open)
        .filter_map(|record| {
            vault.new_key(record.key.collection).map(|key| (key.clone(), record.sealed_with(key)))
        })
        .collect();
    let (keys, records): (Vec<_>, Vec<_>) = sealed.into_iter().unzip();
    vault.keep(&keys)?;
    for record in records {
        state.insert(record);
    }
    Ok(())
}

/// What has been read of the state.
struct Loaded<'a> {
    state: State,
    keys: Keys,
    vault: Option<&'a Vault>,
    /// Objects whose data key is destroyed: a deletion of each must follow.
    destroyed: BTreeSet<Key>,
}

impl<'a> Loaded<'a> {
    fn new(limits: &Limits, vault: Option<&'a Vault>) -> Self {
        Self { state: State::new(limits), keys: Keys::default(), vault, destroyed: BTreeSet::new() }
    }

    fn put(
        &mut self,
        key: &KeyText<'_>,
        revision: Revision,
        committed: Moment,
        content: Content<'_>,
    ) -> Result<(), &'static str> {
        let key = self.keys.key(key);
        let stored = self.state.get(&key).map(|record| record.key.clone());
        let key = stored.unwrap_or(key);
        match content.record(key.clone(), revision, committed, self.vault)? {
            Stored::Record(record) => {
                self.destroyed.remove(&key);
                self.state.insert(record);
            }
            Stored::Destroyed => {
                self.state.remove(&key);
                self.destroyed.insert(key);
            }
        }
        Ok(())
    }

    /// Whether it was there.
    fn delete(&mut self, key: &KeyText<'_>) -> bool {
        let key = self.keys.key(key);
        let is_there = self.state.get(&key).is_some();
        if is_there {
            self.state.remove(&key);
        }
        self.destroyed.remove(&key) || is_there
    }
}

/// What the headers of the files say.
struct Headers {
    /// Of the newest segment.
    format: u32,
    /// Whether in every file that is sealed what is to be.
    is_sealed: bool,
}

fn check_headers(path: &Path, directory: &Directory, catalog: &Catalog) -> Result<Headers, OpenError> {
    let mut found = Headers { format: FORMAT, is_sealed: true };
    let logs = catalog.segments.keys().map(|at| (Contents::Log, *at));
    for (contents, at) in catalog.snapshots.keys().map(|at| (Contents::Snapshot, *at)).chain(logs) {
        let file = directory.file(contents, at);
        let read = Reader::open(&file).and_then(|mut reader| reader.header());
        let header = read.map_err(|source| OpenError::Io { path: file.clone(), source })?;
        let Some(header) = header else { return Err(damaged(file, 0, "the header is cut short")) };
        match format::check_header(&header, contents, at) {
            Ok((format, sealed)) => {
                found.format = format;
                found.is_sealed &= directory.sealed == 0 || sealed == directory.sealed;
            }
            Err(HeaderError::Newer(found)) => {
                return Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT });
            }
            Err(HeaderError::Damaged(what)) => return Err(damaged(file, 0, what)),
        }
    }
    Ok(found)
}

fn damaged(path: PathBuf, offset: u64, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { path, offset, what: what.into() }
}

fn load_snapshot(path: PathBuf, loaded: &mut Loaded<'_>) -> Result<(), OpenError> {
    let result = read_snapshot(
        &path,
        |_| true,
        |kept| loaded.put(&kept.key, kept.revision, kept.committed, kept.content),
    );
    result.map_err(|error| match error {
        SnapshotError::Damaged { offset, what } => damaged(path, offset, what),
        SnapshotError::Io(source) => OpenError::Io { path, source },
    })
}

#[derive(Debug)]
pub(super) enum SnapshotError {
    Damaged { offset: u64, what: &'static str },
    Io(io::Error),
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Hands the records of a snapshot that `wanted` accepts to `take`, which tells what is wrong with one.
pub(super) fn read_snapshot(
    path: &Path,
    wanted: impl Fn(&KeyText<'_>) -> bool,
    mut take: impl FnMut(Kept<'_>) -> Result<(), &'static str>,
) -> Result<(), SnapshotError> {
    let mut reader = Reader::open(path)?;
    let mut seen = 0;
    loop {
        let offset = reader.offset();
        let damaged = |what| Err(SnapshotError::Damaged { offset, what });
        match reader.next()? {
            Found::Frame(payload) => match format::parse_snapshot(payload) {
                Some(SnapshotFrame::Records(records)) => {
                    seen += format::to_u64(records.len());
                    for kept in records {
                        if wanted(&kept.key)
                            && let Err(what) = take(kept)
                        {
                            return damaged(what);
                        }
                    }
                }
                Some(SnapshotFrame::End { count }) if count == seen => return Ok(()),
                Some(SnapshotFrame::End { .. }) => return damaged("the number of objects does not match"),
                None => return damaged("a frame makes no sense"),
            },
            Found::End => return damaged("the snapshot is cut short"),
            Found::Bad(what) => return damaged(what),
        }
    }
}

/// Applies a segment to the state.
struct Replay<'a, 'v> {
    path: &'a Path,
    loaded: &'a mut Loaded<'v>,
    revision: Revision,
}

/// How the frames of a segment ended.
enum End {
    Clean {
        is_closed: bool,
    },
    /// Not with zeros.
    Bad(&'static str),
}

impl Replay<'_, '_> {
    /// A segment that another follows: all of it was acknowledged.
    fn sealed(&mut self) -> Result<(), OpenError> {
        let mut reader = Reader::open(self.path).map_err(|error| self.io(error))?;
        match self.frames(&mut reader)? {
            End::Clean { .. } => Ok(()),
            End::Bad(what) => Err(damaged(self.path.to_owned(), reader.offset(), what)),
        }
    }

    /// The last segment, whose end may have been torn by a crash. What was torn was not acknowledged.
    fn newest(&mut self, limits: &Limits) -> Result<Segment, OpenError> {
        let open = || {
            let file = OpenOptions::new().read(true).write(true).open(self.path)?;
            Ok((file.try_clone()?, Reader::new(file)))
        };
        let (file, mut reader): (File, Reader) = open().map_err(|error| self.io(error))?;
        let end = self.frames(&mut reader)?;
        let offset = reader.offset();
        let mut is_closed = false;
        match end {
            End::Clean { is_closed: closed } => is_closed = closed,
            End::Bad(what) => {
                if format::was_flushed(&reader.rest().map_err(|error| self.io(error))?, offset) {
                    return Err(damaged(self.path.to_owned(), offset, what));
                }
                // What is left of the torn frames must not be found behind later ones.
                file.set_len(offset).and_then(|()| file.sync_all()).map_err(|error| self.io(error))?;
                tracing::info!(file = %self.path.display(), offset, "cut off a write that a crash interrupted");
            }
        }
        Segment::resume(file, offset, limits.step_bytes, is_closed).map_err(|error| self.io(error))
    }

    fn frames(&mut self, reader: &mut Reader) -> Result<End, OpenError> {
        let mut is_closed = false;
        loop {
            let offset = reader.offset();
            let bad = match reader.next().map_err(|error| self.io(error))? {
                Found::Frame(payload) => {
                    let frame = format::parse_log(payload);
                    is_closed = matches!(frame, Some(LogFrame::Closed));
                    let result = match frame {
                        Some(LogFrame::Transaction { first, committed, writes }) => {
                            self.transaction(first, committed, writes)
                        }
                        Some(LogFrame::Closed) => Ok(()),
                        None => Err("a frame makes no sense".to_owned()),
                    };
                    result.map_err(|what| damaged(self.path.to_owned(), offset, what))?;
                    continue;
                }
                Found::End => None,
                Found::Bad(what) => Some(what),
            };
            if let Some(what) = bad {
                return Ok(End::Bad(what));
            }
            let is_zero = reader.is_zero_from_here().map_err(|error| self.io(error))?;
            let end = if is_zero { End::Clean { is_closed } } else { End::Bad("something follows the end") };
            return Ok(end);
        }
    }

    fn transaction(
        &mut self,
        first: Revision,
        committed: Moment,
        writes: Vec<Logged<'_>>,
    ) -> Result<(), String> {
        if first != self.revision + 1 {
            return Err(format!("revision {first} follows {}", self.revision));
        }
        for Logged { revision, key, put } in writes {
            match put {
                Some(content) => self.loaded.put(&key, revision, committed, content)?,
                None if self.loaded.delete(&key) => {}
                None => return Err(format!("revision {revision} deletes what is not there")),
            }
            self.revision = revision;
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io { path: self.path.to_owned(), source }
    }
}

/// Makes keys of text, sharing what neighbours have in common.
#[derive(Default)]
pub(super) struct Keys {
    last: Option<(&'static str, Arc<str>)>,
}

impl Keys {
    pub(super) fn key(&mut self, text: &KeyText<'_>) -> Key {
        let (collection, namespace) = match &self.last {
            Some((collection, namespace)) => (
                if *collection == text.collection { collection } else { intern(text.collection) },
                if **namespace == *text.namespace { namespace.clone() } else { text.namespace.into() },
            ),
            None => (intern(text.collection), text.namespace.into()),
        };
        self.last = Some((collection, namespace.clone()));
        Key { collection, namespace, name: text.name.into() }
    }
}

/// The collection's name for the rest of the process. There are as many as there are kinds, so what is
/// leaked is little, and each only once.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = name.to_owned().leak();
    names.insert(name);
    name
}
