//! Content that is made when a guest first looks for it, and may be another on a later look: the token
//! of a service account. A guest that never looks costs nothing, and no timer renews anything.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::tree::{Ino, ROOT};
use super::{State, Volume, path};

/// Where late content comes from.
#[async_trait]
pub trait Source: Send + Sync {
    /// What the file is to hold now; `None` if it cannot be had, which the guest sees as an I/O error.
    async fn content(&self) -> Option<Bytes>;
}

/// Late content; equal only to its own clones.
#[derive(Clone)]
pub struct Late(Arc<dyn Source>);

impl Late {
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self(source)
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Late {}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

/// A late file that somebody is about to look at.
pub(super) struct Awaited {
    volume: Arc<Volume>,
    path: String,
    late: Late,
}

impl Awaited {
    /// The file behind `ino`, if its content is late. A node that `ino` was before the volume changed is
    /// not it: what is open keeps what it had.
    pub(super) fn find(volume: &Arc<Volume>, state: &State, ino: Ino) -> Option<Self> {
        let (path, late) = state
            .files
            .iter()
            .filter_map(|(path, file)| Some((path, file.late.as_ref()?)))
            .find(|(path, _)| node(state, path) == Some(ino))?;
        Some(Self { volume: Arc::clone(volume), path: path.clone(), late: late.clone() })
    }

    /// Returns once the file holds what it is to hold.
    pub(super) async fn arrive(self) -> Result<(), ErrorCode> {
        let content = self.late.0.content().await.ok_or(ErrorCode::Io)?;
        self.volume.fill(&self.path, &self.late, content);
        Ok(())
    }
}

impl Volume {
    /// Gives a late file its content: in place if it had none, since nobody can have seen that, else as
    /// every other change, in one step beside what is open.
    fn fill(&self, path: &str, late: &Late, content: Bytes) {
        let mut state = self.write();
        let now = state.now();
        let ino = node(&state, path);
        let State { tree, files, .. } = &mut *state;
        let Some(file) = files.get_mut(path).filter(|file| file.late.as_ref() == Some(late)) else { return };
        if file.content == content {
            return;
        }
        let is_first = file.content.is_empty();
        file.content = content.clone();
        match ino {
            Some(ino) if is_first => tree.fill(ino, content, now),
            Some(_) | None => tree.project(files, now),
        }
    }
}

fn node(state: &State, path: &str) -> Option<Ino> {
    path::walk(&state.tree, ROOT, path, true).ok()?.node
}
