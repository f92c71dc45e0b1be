//! Directories in memory that guests see as preopened (BEHAVIOURS 10.6, 10.7, 10.17).
//!
//! Skeleton: the runtime's author writes it, with this interface.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

/// One file's content and permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Bytes,
    pub mode: u32,
}

/// A volume of a pod; shared by its containers.
pub struct Volume(());

impl Volume {
    /// A configMap, secret, downwardAPI or projected volume: read-only for guests, replaced as a
    /// whole. Guests see the `..data` layout: a `..<timestamp>` directory, the `..data` link, and a
    /// link for each first path element. Paths are relative, with `/` for sub-directories.
    #[must_use]
    pub fn projected(_files: BTreeMap<String, File>) -> Arc<Self> {
        Arc::new(Self(()))
    }

    /// An emptyDir, writable, of at most `bytes_max`.
    #[must_use]
    pub fn empty_dir(_bytes_max: u64) -> Arc<Self> {
        Arc::new(Self(()))
    }

    /// Replaces the content of a projected volume in one atomic step, unless nothing differs. Open
    /// files keep what they had.
    pub fn replace(&self, _files: BTreeMap<String, File>) {}

    /// Content of a file by its path, for termination messages and tests.
    #[must_use]
    pub fn read(&self, _path: &str) -> Option<Bytes> {
        None
    }
}

/// A volume at a place in a guest.
#[derive(Clone)]
pub struct Mount {
    /// Absolute, without a trailing slash.
    pub path: String,
    pub volume: Arc<Volume>,
    /// A path inside the volume to mount instead of its root; may name a file. Already checked not
    /// to leave the volume.
    pub sub_path: Option<String>,
    pub read_only: bool,
}
