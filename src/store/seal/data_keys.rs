//! The file of data keys: slots of one size, each overwritten when its key is destroyed.
//!
//! ```text
//! header  "coracle datakeys", format u32, cluster key's id 8 bytes, zeros, crc32 of these 124 bytes
//! slot    data key's id 16 bytes, the key sealed with the cluster's, zeros, crc32 of these 124 bytes
//! ```
//!
//! All of them are 128 bytes long, so that no slot lies in two sectors of a disk; an empty slot is zeros.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key_file::{ClusterKey, KeyId};
use super::{DataKey, DataKeyId, KEY_BYTES, KeyBytes, SEAL_BYTES, erase};
use crate::store::OpenError;
use crate::store::format::to_u64;

const MAGIC: &[u8; 16] = b"coracle datakeys";
const FORMAT: u32 = 1;

const SLOT_BYTES: usize = 128;
const WRAPPED_BYTES: usize = KEY_BYTES + SEAL_BYTES;

/// The file grows by so many slots at once: a page.
const STEP_SLOTS: usize = 32;

type Slot = [u8; SLOT_BYTES];

const EMPTY: Slot = [0; SLOT_BYTES];

/// The data keys of a store, on disk and in memory.
pub(in crate::store) struct DataKeys {
    file: File,
    cluster_key: ClusterKey,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// By id: where it lies, and the key.
    known: HashMap<DataKeyId, (usize, Arc<DataKey>)>,
    /// Places of zeros, up to `count`.
    free: Vec<usize>,
    /// Places that hold something that is no key: torn by a crash, or damaged.
    broken: Vec<usize>,
    count: usize,
}

impl std::fmt::Debug for DataKeys {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKeys({})", self.cluster_key.id)
    }
}

/// Where the data keys of a store are.
pub(in crate::store) fn path(directory: &Path) -> PathBuf {
    directory.join("datakeys")
}

/// The id of the cluster key that the file's keys are wrapped with; `None` if there is no file.
pub(super) fn wrapped_with(path: &Path) -> Result<Option<KeyId>, OpenError> {
    match File::open(path) {
        Ok(mut file) => read_header(path, &mut file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), source }),
    }
}

fn read_header(path: &Path, file: &mut File) -> Result<KeyId, OpenError> {
    let damaged = |what: &str| OpenError::Damaged { path: path.to_owned(), offset: 0, what: what.to_owned() };
    let mut header = EMPTY;
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(damaged("the header is cut short"));
        }
        Err(source) => return Err(OpenError::Io { path: path.to_owned(), source }),
    }
    let Some(payload) = payload_of(&header).filter(|payload| payload.starts_with(MAGIC)) else {
        return Err(damaged("the header is not one of Coracle's"));
    };
    let rest = &payload[MAGIC.len()..];
    let (format, rest) = rest.split_first_chunk::<4>().expect("a slot is longer");
    let found = u32::from_le_bytes(*format);
    if found != FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    let (id, _) = rest.split_first_chunk::<{ KeyId::BYTES }>().expect("a slot is longer");
    Ok(KeyId::from_bytes(*id))
}

fn slot(payload: &[&[u8]]) -> Slot {
    let mut slot = EMPTY;
    let mut at = 0;
    for part in payload {
        slot[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let crc = crc32fast::hash(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// What is before the checksum, if that is right.
fn payload_of(slot: &Slot) -> Option<&[u8]> {
    let (payload, crc) = slot.split_last_chunk::<4>()?;
    (crc32fast::hash(payload) == u32::from_le_bytes(*crc)).then_some(payload)
}

fn header(key: &ClusterKey) -> Slot {
    slot(&[MAGIC, &FORMAT.to_le_bytes(), &key.id.bytes()])
}

/// The associated data of a wrapped key.
fn bound_to(cluster_key: KeyId, id: DataKeyId) -> Vec<u8> {
    [b"coracle data key 1".as_slice(), &cluster_key.bytes(), &id.0].concat()
}

fn wrap(cluster_key: &ClusterKey, key: &DataKey) -> Slot {
    let mut wrapped = Vec::new();
    let bound = bound_to(cluster_key.id, key.id);
    super::seal(&cluster_key.bytes, &bound, &mut wrapped, KEY_BYTES, |buffer| {
        buffer.extend_from_slice(key.bytes());
    });
    slot(&[&key.id.0, &wrapped])
}

fn unwrap(cluster_key: &ClusterKey, slot: &Slot) -> Option<DataKey> {
    let payload = payload_of(slot)?;
    let (id, rest) = payload.split_first_chunk::<{ DataKeyId::BYTES }>()?;
    let id = DataKeyId(*id);
    let plain = super::open(&cluster_key.bytes, &bound_to(cluster_key.id, id), rest.get(..WRAPPED_BYTES)?)?;
    let mut bytes = KeyBytes::default();
    bytes.copy_from_slice(&plain);
    Some(DataKey::of(id, bytes))
}

fn offset_of(place: usize) -> u64 {
    to_u64((place + 1) * SLOT_BYTES)
}

impl DataKeys {
    /// Makes a file without keys, durably.
    pub(super) fn create(path: &Path, cluster_key: ClusterKey) -> io::Result<Self> {
        erase::create(path, &header(&cluster_key))?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file, cluster_key, slots: Mutex::default() })
    }

    /// Opens a file whose keys are wrapped with `cluster_key`, as [`wrapped_with`] tells.
    pub(super) fn open(path: &Path, cluster_key: ClusterKey) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        read_header(path, &mut file)?;
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(to_u64(SLOT_BYTES))).map_err(io)?;
        file.read_to_end(&mut bytes).map_err(io)?;
        let mut slots = Slots::default();
        // What is behind the last whole slot was torn while the file grew, and is overwritten.
        for (place, slot) in bytes.as_chunks::<SLOT_BYTES>().0.iter().enumerate() {
            if *slot == EMPTY {
                slots.free.push(place);
            } else if let Some(key) = unwrap(&cluster_key, slot) {
                slots.known.insert(key.id, (place, Arc::new(key)));
            } else {
                slots.broken.push(place);
            }
            slots.count = place + 1;
        }
        Ok(Self { file, cluster_key, slots: Mutex::new(slots) })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Whoever panicked left at worst a slot on disk that is not known.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A data key that is not destroyed.
    pub(in crate::store) fn get(&self, id: DataKeyId) -> Option<Arc<DataKey>> {
        self.slots().known.get(&id).map(|(_, key)| key.clone())
    }

    /// Whether keys were found damaged. A crash can do that to one that nothing names yet.
    pub(in crate::store) fn is_damaged(&self) -> bool {
        !self.slots().broken.is_empty()
    }

    /// Keeps new keys, with one flush.
    pub(in crate::store) fn add(&self, keys: &[Arc<DataKey>]) -> io::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut slots = self.slots();
        let missing = keys.len().saturating_sub(slots.free.len());
        if missing > 0 {
            let new = missing.div_ceil(STEP_SLOTS) * STEP_SLOTS;
            self.file.write_all_at(&vec![0; new * SLOT_BYTES], offset_of(slots.count))?;
            let first = slots.count;
            slots.count += new;
            // The lowest are taken first.
            drop(slots.free.splice(0..0, (first..first + new).rev()));
        }
        for key in keys {
            let place = slots.free.pop().expect("as many were made as were missing");
            self.file.write_all_at(&wrap(&self.cluster_key, key), offset_of(place))?;
            slots.known.insert(key.id, (place, key.clone()));
        }
        drop(slots);
        self.file.sync_data()
    }

    /// Overwrites keys, with one flush. They cannot be got any more even if that fails.
    pub(in crate::store) fn destroy(&self, ids: &[DataKeyId]) -> io::Result<()> {
        let places: Vec<usize> = {
            let mut slots = self.slots();
            ids.iter().filter_map(|id| slots.known.remove(id)).map(|(place, _)| place).collect()
        };
        self.empty(places)
    }

    /// Destroys all keys but these.
    pub(in crate::store) fn retain(&self, live: &HashSet<DataKeyId>) -> io::Result<usize> {
        let places: Vec<usize> = {
            let mut slots = self.slots();
            let mut places = std::mem::take(&mut slots.broken);
            slots.known.retain(|id, (place, _)| {
                let keep = live.contains(id);
                if !keep {
                    places.push(*place);
                }
                keep
            });
            places
        };
        let count = places.len();
        self.empty(places).map(|()| count)
    }

    fn empty(&self, places: Vec<usize>) -> io::Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        for place in &places {
            self.file.write_all_at(&EMPTY, offset_of(*place))?;
        }
        self.file.sync_data()?;
        // Only now: a place that still holds a key must not be known as free.
        self.slots().free.extend(places);
        Ok(())
    }

    /// The same keys, wrapped with another cluster key, as the bytes of a file.
    pub(super) fn rewrapped(&self, cluster_key: &ClusterKey) -> Vec<u8> {
        let slots = self.slots();
        let mut bytes = header(cluster_key).to_vec();
        for (_, key) in slots.known.values() {
            bytes.extend_from_slice(&wrap(cluster_key, key));
        }
        bytes
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots().known.len()
    }
}

#[cfg(test)]
mod tests;
