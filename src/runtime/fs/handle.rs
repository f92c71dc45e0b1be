//! What a guest holds of its volumes: its mounts, and descriptors open in them.

use std::sync::Arc;

use jiff::Timestamp;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, MetadataHashValue, OpenFlags,
};

use super::late::Awaited;
use super::path::{self, Place};
use super::tree::{Ino, NodeType};
use super::{Mount, Open, State};
use crate::clock::Clock;

/// What a guest sees of its volumes; part of its store.
pub(in crate::runtime) struct Files {
    pub(super) mounts: Vec<(String, Handle)>,
}

impl Files {
    /// Opens every mount. The error names the one that failed.
    ///
    /// The C library of guests starts in `/` whatever WASI's `initial-cwd` says, and looks relative
    /// paths up in the preopen `.`: that is the working directory, if it is in a volume.
    pub(in crate::runtime) fn mount(
        mounts: &[Mount],
        working_dir: Option<&str>,
        clock: Clock,
    ) -> Result<Self, String> {
        let mut opened: Vec<(String, Handle)> = Vec::with_capacity(mounts.len());
        for (number, mount) in mounts.iter().enumerate() {
            let (open, follows) =
                mount.open(clock).map_err(|error| format!("mount {}: {error}", mount.path))?;
            let same = opened.iter().find(|(_, other)| Arc::ptr_eq(&other.open.volume, &open.volume));
            let device = same.map_or_else(|| u64::try_from(number).expect("few mounts"), |(_, h)| h.device);
            let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
            let handle =
                Handle { open, follows, device, read_only: mount.is_read_only(), flags, preopen: true };
            opened.push((mount.path.clone(), handle));
        }
        if let Some(handle) = working_dir.and_then(|path| find_directory(&opened, path)) {
            opened.push((".".to_owned(), handle));
        }
        Ok(Self { mounts: opened })
    }
}

/// An open descriptor.
#[derive(Clone)]
pub(super) struct Handle {
    /// The node, unless `follows` leads further.
    open: Open,
    /// Looked up from there at each use, so that the content may change: a part of a projected volume.
    follows: Option<Arc<str>>,
    /// Tells volumes apart within a container, as a device number does.
    pub(super) device: u64,
    pub(super) read_only: bool,
    /// `READ` and `WRITE` as asked for when opening.
    pub(super) flags: DescriptorFlags,
    /// One of the mounts. Guests take all of these for directories, so a single file that is mounted
    /// looks like a directory in which the path `.` is the file.
    pub(super) preopen: bool,
}

/// The directory at an absolute path, in the mount that reaches closest to it.
fn find_directory(mounts: &[(String, Handle)], path: &str) -> Option<Handle> {
    let inside = |mount: &str| {
        let rest = path.strip_prefix(mount.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/').to_owned())
    };
    let candidates = mounts.iter().filter_map(|(mount, handle)| Some((mount, handle, inside(mount)?)));
    let (_, handle, rest) = candidates.max_by_key(|(mount, ..)| mount.len())?;
    if handle.open.volume.writable {
        let rest = if rest.is_empty() { "." } else { &rest };
        return handle.open_at(rest, true, OpenFlags::DIRECTORY, handle.flags & DescriptorFlags::READ).ok();
    }
    // What a projected volume holds is replaced as a whole: the path is what stays.
    let mut handle = handle.clone();
    if !rest.is_empty() {
        let base = handle.follows.take().map(|base| format!("{base}/{rest}"));
        handle.follows = Some(base.unwrap_or(rest).into());
    }
    let is_directory = handle.look(|state| Ok(state.tree.is_directory(handle.node(state)?)));
    is_directory.unwrap_or(false).then_some(handle)
}

impl Handle {
    /// Looks at the volume.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> Result<T, ErrorCode>) -> FsResult<T> {
        Ok(look(&self.open.volume.state())?)
    }

    /// Changes the volume, if it is not read-only here.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State, Timestamp) -> Result<T, ErrorCode>,
    ) -> FsResult<T> {
        if self.read_only {
            return Err(ErrorCode::ReadOnly.into());
        }
        let mut state = self.open.volume.write();
        let now = state.now();
        Ok(change(&mut state, now)?)
    }

    /// What this is a descriptor of.
    pub(super) fn node(&self, state: &State) -> Result<Ino, ErrorCode> {
        match &self.follows {
            None => Ok(self.open.ino),
            Some(path) => path::walk(&state.tree, self.open.ino, path, true)?.existing(),
        }
    }

    /// Holds on to what this is a descriptor of now.
    pub(super) fn hold(&self) -> FsResult<Open> {
        let mut state = self.open.volume.write();
        let ino = self.node(&state)?;
        Ok(Open::new(&self.open.volume, &mut state.tree, ino))
    }

    pub(super) fn place(&self, state: &State, path: &str, follow: bool) -> Result<Place, ErrorCode> {
        let node = self.node(state)?;
        if self.preopen && !state.tree.is_directory(node) {
            return match path {
                "." | "./" => Ok(Place { entry: None, node: Some(node), directory: false }),
                _ => Err(ErrorCode::NotDirectory),
            };
        }
        path::walk(&state.tree, node, path, follow)
    }

    /// The late content that `path` leads to, to be waited for before looking at it.
    pub(super) fn awaited(&self, path: &str, follow: bool) -> Option<Awaited> {
        let state = self.open.volume.state();
        if !state.has_late {
            return None;
        }
        let ino = self.place(&state, path, follow).ok()?.node?;
        Awaited::find(&self.open.volume, &state, ino)
    }

    pub(super) fn may(&self, flag: DescriptorFlags) -> Result<(), ErrorCode> {
        if self.flags.contains(flag) { Ok(()) } else { Err(ErrorCode::BadDescriptor) }
    }

    /// Checks that this is a file opened for writing.
    pub(super) fn may_write(&self) -> FsResult<()> {
        self.look(|state| match state.tree.node_type(self.node(state)?) {
            NodeType::File => self.may(DescriptorFlags::WRITE),
            NodeType::Directory => Err(ErrorCode::IsDirectory),
            NodeType::Link => Err(ErrorCode::Invalid),
        })
    }

    pub(super) fn metadata_hash(&self, ino: u64) -> MetadataHashValue {
        MetadataHashValue { lower: ino, upper: self.device }
    }

    /// Opens what `path` names, as `open-at` says.
    pub(super) fn open_at(
        &self,
        path: &str,
        follow: bool,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Self> {
        let truncate = open_flags.contains(OpenFlags::TRUNCATE);
        let create = open_flags.contains(OpenFlags::CREATE);
        let directory = open_flags.contains(OpenFlags::DIRECTORY);
        let write = flags.contains(DescriptorFlags::WRITE) || truncate;
        if create && directory {
            return Err(ErrorCode::Invalid.into());
        }
        let mut state = self.open.volume.write();
        let now = state.now();
        let follow = follow && !(create && open_flags.contains(OpenFlags::EXCLUSIVE));
        let place = self.place(&state, path, follow)?;
        let ino = match place.node {
            Some(_) if create && open_flags.contains(OpenFlags::EXCLUSIVE) => {
                return Err(ErrorCode::Exist.into());
            }
            Some(ino) => {
                match state.tree.node_type(ino) {
                    NodeType::Link => return Err(ErrorCode::Loop.into()),
                    NodeType::File if directory || place.directory => {
                        return Err(ErrorCode::NotDirectory.into());
                    }
                    NodeType::Directory if write || create => return Err(ErrorCode::IsDirectory.into()),
                    NodeType::File | NodeType::Directory => {}
                }
                if write && self.read_only {
                    return Err(ErrorCode::ReadOnly.into());
                }
                if truncate {
                    state.tree.resize(ino, 0, now)?;
                }
                ino
            }
            None if !create => return Err(ErrorCode::NoEntry.into()),
            None if self.read_only => return Err(ErrorCode::ReadOnly.into()),
            None => state.tree.create_file(&place, now)?,
        };
        let open = Open::new(&self.open.volume, &mut state.tree, ino);
        Ok(Self { open, follows: None, preopen: false, flags, ..*self })
    }
}
