//! What an open store needs for sealing: which collections, and the data keys.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::data_keys::{self, DataKeys};
use super::key_file::KeyFile;
use super::{DataKey, DataKeyId, erase};
use crate::store::{Event, OpenError, Sealing};

/// The data keys of an open store.
#[derive(Debug)]
pub(in crate::store) struct Vault {
    collections: Vec<&'static str>,
    data_keys: DataKeys,
}

impl Vault {
    /// The keys of a store that has some; `None` if nothing was ever sealed in it.
    ///
    /// To be called by who holds the directory.
    pub(in crate::store) fn open(
        directory: &Path,
        sealing: Option<&Sealing>,
    ) -> Result<Option<Self>, OpenError> {
        let path = data_keys::path(directory);
        erase::finish(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let wanted = data_keys::wrapped_with(&path)?;
        let Some(sealing) = sealing else {
            return match wanted {
                Some(_) => Err(OpenError::Sealed(directory.to_owned())),
                None => Ok(None),
            };
        };
        KeyFile::finish(&sealing.key_file)?;
        let Some(wanted) = wanted else { return Ok(None) };
        let keys = KeyFile::load_for(&sealing.key_file, directory, wanted)?;
        let data_keys = DataKeys::open(&path, keys.key_for(directory, wanted)?.clone())?;
        Ok(Some(Self { collections: sealing.collections.clone(), data_keys }))
    }

    /// Begins to seal. Makes the key file if there is none, as nothing was sealed with one that is gone.
    pub(in crate::store) fn create(directory: &Path, sealing: &Sealing) -> Result<Self, OpenError> {
        let keys = match KeyFile::load(&sealing.key_file)? {
            Some(keys) => keys,
            None => KeyFile::create(&sealing.key_file)?,
        };
        let path = data_keys::path(directory);
        let data_keys = DataKeys::create(&path, keys.newest().clone())
            .map_err(|source| OpenError::Io { path, source })?;
        Ok(Self { collections: sealing.collections.clone(), data_keys })
    }

    pub(in crate::store) fn seals(&self, collection: &str) -> bool {
        self.collections.contains(&collection)
    }

    /// A key for a new object, which is not kept yet; `None` if its collection is not sealed.
    pub(in crate::store) fn new_key(&self, collection: &str) -> Option<Arc<DataKey>> {
        self.seals(collection).then(|| Arc::new(DataKey::generate()))
    }

    /// A key that is not destroyed.
    pub(in crate::store) fn get(&self, id: DataKeyId) -> Option<Arc<DataKey>> {
        self.data_keys.get(id)
    }

    pub(in crate::store) fn keep(&self, keys: &[Arc<DataKey>]) -> io::Result<()> {
        self.data_keys.add(keys)
    }

    /// Before the log tells of `events`: keeps the data keys of what they create.
    pub(in crate::store) fn prepare(&self, events: &[Event]) -> io::Result<()> {
        let created = events.iter().filter(|event| event.previous.is_none());
        let keys: Vec<_> = created.filter_map(|event| event.record.data_key().cloned()).collect();
        self.data_keys.add(&keys)
    }

    /// Once the log has `events`: destroys the data keys of what they delete.
    pub(in crate::store) fn settle(&self, events: &[Event]) -> io::Result<()> {
        let deleted = events.iter().filter(|event| event.deleted);
        let ids: Vec<_> = deleted.filter_map(|event| event.record.data_key()).map(|key| key.id).collect();
        self.data_keys.destroy(&ids)
    }

    /// Destroys the keys that no object has: of creations that did not happen, and of deletions that did.
    pub(in crate::store) fn retain(&self, live: &HashSet<DataKeyId>) -> io::Result<usize> {
        self.data_keys.retain(live)
    }

    /// Whether there is no key.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.data_keys.len() == 0
    }

    pub(in crate::store) fn is_damaged(&self) -> bool {
        self.data_keys.is_damaged()
    }
}
