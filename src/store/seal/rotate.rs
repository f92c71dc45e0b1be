//! Another key for a cluster, and what keys it has.

use std::path::{Path, PathBuf};

use super::data_keys::{self, DataKeys};
use super::erase;
use super::key_file::{ClusterKey, KeyFile, KeyId};
use crate::store::OpenError;
use crate::store::directory::Directory;

/// What became of a cluster's key.
#[derive(Debug)]
pub struct Rotation {
    pub key_file: PathBuf,
    pub old: KeyId,
    pub new: KeyId,
    /// How many data keys were wrapped anew.
    pub data_keys: usize,
}

/// The keys of a data directory.
#[derive(Debug)]
pub struct Keys {
    pub key_file: PathBuf,
    /// The key that the directory is sealed with; `None` if nothing was sealed yet.
    pub used: Option<KeyId>,
    /// The keys in the file, the newest first.
    pub held: Vec<KeyId>,
}

/// Which key a store is sealed with, and which the key file holds. Changes nothing, and works while the
/// store is in use.
///
/// # Errors
/// If a file cannot be read; a key file that is missing where there is nothing sealed is fine.
pub fn keys(directory: &Path, key_file: &Path) -> Result<Keys, OpenError> {
    let used = data_keys::wrapped_with(&data_keys::path(directory))?;
    let file = match used {
        Some(wanted) => Some(KeyFile::load_for(key_file, directory, wanted)?),
        None => KeyFile::load(key_file)?,
    };
    let held = file.iter().flat_map(|file| file.keys()).map(|key| key.id).collect();
    Ok(Keys { key_file: key_file.to_owned(), used, held })
}

/// Makes a new key, wraps the data keys of the store in `directory` with it and drops the old key. The
/// sealed objects themselves stay as they are. Takes hold of the directory, so nobody may have it open.
///
/// A crash leaves the store readable with what is in the key file; rotating again completes it.
///
/// # Errors
/// If nothing was sealed yet, the key does not fit, the store is in use or a file cannot be written.
pub fn rotate(directory: &Path, key_file: &Path) -> Result<Rotation, OpenError> {
    run(directory, key_file, &mut |_| {})
}

/// The points at which a test looks at what a crash would leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BothKeysHeld,
    Rewrapped,
    OldKeyDropped,
}

fn run(directory: &Path, key_file: &Path, reached: &mut dyn FnMut(Step)) -> Result<Rotation, OpenError> {
    let path = data_keys::path(directory);
    if !path.exists() {
        return Err(OpenError::NothingSealed(directory.to_owned()));
    }
    let held = Directory::hold(directory)?;
    let io = |source| OpenError::Io { path: path.clone(), source };
    erase::finish(&path).map_err(io)?;
    KeyFile::finish(key_file)?;
    let Some(wanted) = data_keys::wrapped_with(&path)? else {
        return Err(OpenError::NothingSealed(directory.to_owned()));
    };
    let mut file = KeyFile::load_for(key_file, directory, wanted)?;
    let old = file.key_for(directory, wanted)?.clone();
    let data_keys = DataKeys::open(&path, old.clone())?;
    let new = ClusterKey::generate();
    file.replace(vec![new.clone(), old.clone()])?;
    reached(Step::BothKeysHeld);
    erase::replace(&path, &data_keys.rewrapped(&new)).map_err(io)?;
    reached(Step::Rewrapped);
    file.replace(vec![new.clone()])?;
    reached(Step::OldKeyDropped);
    held.release();
    Ok(Rotation { key_file: file.path().to_owned(), old: old.id, new: new.id, data_keys: data_keys.len() })
}

#[cfg(test)]
mod tests;
