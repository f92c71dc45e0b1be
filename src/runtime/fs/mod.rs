//! Directories in memory that guests see as preopened (BEHAVIOURS 10.6, 10.7, 10.17).
//!
//! A [`Volume`] is a small file system: [`tree`] holds its nodes and says what each operation does,
//! [`handle`] is what a guest holds of it, [`host`] offers it to guests as `wasi:filesystem`,
//! [`stream`] as streams of bytes; [`late`] makes content when it is looked for. One lock a
//! volume makes every operation one step for everybody else, which is what lets the content of a
//! ConfigMap change under a running guest without a moment of half old, half new.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use jiff::Timestamp;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use crate::clock::Clock;
pub use late::{Late, Source};
use tree::{Ino, ROOT, Tree};

pub(super) mod handle;
pub(super) mod host;
mod late;
mod path;
mod project;
mod stream;
mod tree;

#[cfg(test)]
mod tests;

/// One file's content and permission bits.
///
/// WASI shows guests no permission bits, so `mode` is kept only for whoever asks the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Bytes,
    pub mode: u32,
    /// Where `content` comes from once a guest looks for it; until then it is empty.
    pub late: Option<Late>,
}

impl File {
    #[must_use]
    pub fn new(content: Bytes, mode: u32) -> Self {
        Self { content, mode, late: None }
    }
}

/// A volume of a pod; shared by its containers.
///
/// It takes its time from the runtime that first mounts it.
pub struct Volume {
    state: RwLock<State>,
    writable: bool,
}

struct State {
    tree: Tree,
    clock: Option<Clock>,
    /// What a projected volume was last given.
    files: BTreeMap<String, File>,
    /// Whether the content of any of them is late.
    has_late: bool,
}

impl State {
    fn now(&self) -> Timestamp {
        self.clock.map_or(Timestamp::UNIX_EPOCH, |clock| clock.now())
    }
}

impl Volume {
    /// A configMap, secret, downwardAPI or projected volume: read-only for guests, replaced as a
    /// whole. Guests see the `..data` layout: a `..<timestamp>` directory, the `..data` link, and a
    /// link for each first path element. Paths are relative, with `/` for sub-directories.
    #[must_use]
    pub fn projected(files: BTreeMap<String, File>) -> Arc<Self> {
        let mut tree = Tree::new(u64::MAX, Timestamp::UNIX_EPOCH);
        tree.project(&files, Timestamp::UNIX_EPOCH);
        let has_late = files.values().any(|file| file.late.is_some());
        Arc::new(Self { state: RwLock::new(State { tree, clock: None, files, has_late }), writable: false })
    }

    /// An emptyDir, writable, of at most `bytes_max`.
    #[must_use]
    pub fn empty_dir(bytes_max: u64) -> Arc<Self> {
        let tree = Tree::new(bytes_max, Timestamp::UNIX_EPOCH);
        let state = State { tree, clock: None, files: BTreeMap::new(), has_late: false };
        Arc::new(Self { state: RwLock::new(state), writable: true })
    }

    /// Replaces the content of a projected volume in one atomic step, unless nothing differs. Open
    /// files keep what they had.
    pub fn replace(&self, mut files: BTreeMap<String, File>) {
        let mut state = self.write();
        for (path, file) in files.iter_mut().filter(|(_, file)| file.late.is_some()) {
            // What has arrived stays.
            if let Some(old) = state.files.get(path).filter(|old| old.late == file.late) {
                file.content = old.content.clone();
            }
        }
        if state.files != files {
            let now = state.now();
            state.tree.project(&files, now);
            state.has_late = files.values().any(|file| file.late.is_some());
            state.files = files;
        }
    }

    /// Content of a file by its path, for termination messages and tests.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Bytes> {
        let state = self.state();
        let ino = path::walk(&state.tree, ROOT, path, true).ok()?.node?;
        state.tree.read(ino, 0, usize::MAX).ok()
    }

    /// Bytes that the files in it take now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().tree.used()
    }

    /// Gives a volume its clock, the first time it is mounted. Nobody has looked into it before, so
    /// what it holds is made anew with the time of now.
    fn adopt(&self, clock: Clock) {
        if self.state().clock.is_some() {
            return;
        }
        let mut state = self.write();
        if state.clock.is_none() {
            state.clock = Some(clock);
            let now = state.now();
            let State { tree, files, .. } = &mut *state;
            *tree = Tree::new(tree.bytes_max(), now);
            if !self.writable {
                tree.project(files, now);
            }
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no operation on a tree panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no operation on a tree panics")
    }
}

/// A volume at a place in a guest.
#[derive(Clone)]
pub struct Mount {
    /// Absolute, without a trailing slash.
    pub path: String,
    pub volume: Arc<Volume>,
    /// The part of the volume to mount instead of its root.
    pub sub_path: Option<SubPath>,
    pub read_only: bool,
}

/// A part of a volume: a directory or a single file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubPath {
    /// From the root of the volume. Already checked not to leave it.
    pub path: String,
    /// What a projected volume has there when the container starts is what stays mounted, and an
    /// empty directory if that is nothing, as in Kubernetes (BEHAVIOURS 10.8).
    ///
    /// Otherwise the path is looked up at each use: a change of the volume shows, what is gone is
    /// `ENOENT`, and what comes (back) is there. Open files and directories keep what they had.
    ///
    /// A writable volume mounts one directory for good either way, and makes it if need be.
    pub frozen: bool,
}

/// A node held open: it stays, with what is below it, after its last name is gone.
///
/// To be dropped without holding the lock of its volume.
struct Open {
    volume: Arc<Volume>,
    ino: Ino,
}

impl Open {
    /// Opens a node that `tree`, the content of `volume`, has.
    fn new(volume: &Arc<Volume>, tree: &mut Tree, ino: Ino) -> Self {
        tree.acquire(ino);
        Self { volume: Arc::clone(volume), ino }
    }
}

impl Clone for Open {
    fn clone(&self) -> Self {
        Self::new(&self.volume, &mut self.volume.write().tree, self.ino)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.volume.write().tree.release(self.ino);
    }
}

impl Mount {
    fn is_read_only(&self) -> bool {
        self.read_only || !self.volume.writable
    }

    /// The node to mount, and the path to look up below it at each use, if any.
    fn open(&self, clock: Clock) -> Result<(Open, Option<Arc<str>>), ErrorCode> {
        self.volume.adopt(clock);
        let mut state = self.volume.write();
        let Some(SubPath { path, frozen }) = self.sub_path.as_ref().filter(|sub| !sub.path.is_empty()) else {
            return Ok((Open::new(&self.volume, &mut state.tree, ROOT), None));
        };
        if !self.volume.writable && !frozen {
            return Ok((Open::new(&self.volume, &mut state.tree, ROOT), Some(path.as_str().into())));
        }
        let now = state.now();
        let found = match path::walk(&state.tree, ROOT, path, true).map(|place| place.node) {
            Ok(Some(ino)) => Some(ino),
            Ok(None) | Err(ErrorCode::NoEntry) if self.volume.writable => {
                Some(state.tree.make_directories(path, now)?)
            }
            Ok(None) | Err(ErrorCode::NoEntry) => None,
            Err(error) => return Err(error),
        };
        Ok(match found {
            Some(ino) => (Open::new(&self.volume, &mut state.tree, ino), None),
            None => {
                let empty = Volume::empty_dir(0);
                (Open::new(&empty, &mut empty.write().tree, ROOT), None)
            }
        })
    }
}
