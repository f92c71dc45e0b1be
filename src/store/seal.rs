//! Sealing: what is written of collections that hold secrets can be read with a key only, and by nobody
//! once that key is destroyed.
//!
//! ```text
//! key file, beside the data directory   the cluster's key                     `key_file`
//! store/datakeys                        a data key for each object, wrapped   `data_keys`
//!                                       with the cluster's key
//! store/*.log, *.snap                   the object's versions, each sealed    `format`
//!                                       with its data key, which they name
//! ```
//!
//! A data key belongs to one life of an object, from its creation to its deletion; an object created
//! anew under the same name has another. The history is only ever appended to, but data keys lie in
//! slots that are overwritten: that is how a deletion reaches into the history. (Overwriting in place
//! is all that a program can do: flash cells and copy-on-write file systems may keep what was there,
//! which then can still be read with the cluster's key.)
//!
//! Order: a data key is durable before the creation that names it; a deletion is durable before its
//! data key is destroyed, which is before it is acknowledged. What a crash leaves in between is a data
//! key that no object names, and opening the store destroys it.
//!
//! ChaCha20-Poly1305 with random nonces: one made of the revision would be used twice when a crash takes
//! back a write that had reached the disk. 96 bits are enough for them, as a data key seals the versions of
//! one object, and the cluster's key one box for each object: after 2^32 of them, more than any has, two
//! would be the same with a probability of 2^-33.

pub(super) mod data_keys;
pub(super) mod erase;
pub(super) mod key_file;
pub(super) mod rotate;
mod vault;

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::Revision;
use super::format::KeyText;
use crate::random;

pub(super) use vault::Vault;

pub(super) const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = NONCE_LEN;
const TAG_BYTES: usize = 16;

/// What a sealed box is longer than what is in it.
pub(super) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// 256 bits that are overwritten when they go.
pub(super) type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

pub(super) fn new_key_bytes() -> KeyBytes {
    let mut bytes = KeyBytes::default();
    random::fill_secret(&mut *bytes);
    bytes
}

/// The name of a data key, drawn at random; all zeros is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DataKeyId(pub(super) [u8; Self::BYTES]);

impl DataKeyId {
    pub(super) const BYTES: usize = 16;
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What the versions of one object are sealed with, from its creation to its deletion.
pub(super) struct DataKey {
    pub(super) id: DataKeyId,
    bytes: KeyBytes,
}

impl fmt::Debug for DataKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({:?})", self.id)
    }
}

impl DataKey {
    pub(super) fn generate() -> Self {
        let mut id = [0; DataKeyId::BYTES];
        random::fill_secret(&mut id);
        Self { id: DataKeyId(id), bytes: new_key_bytes() }
    }

    pub(super) fn of(id: DataKeyId, bytes: KeyBytes) -> Self {
        Self { id, bytes }
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Appends a sealed box to `buffer` that opens only as just this version of just this object.
    /// `fill` writes what is to be in it, `length` bytes.
    pub(super) fn seal(
        &self,
        version: &Version<'_>,
        buffer: &mut Vec<u8>,
        length: usize,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        seal(&self.bytes, &version.bound_to(self.id), buffer, length, fill);
    }

    /// What is in a box; `None` if it was not sealed with this key as this version, or was changed.
    pub(super) fn open(&self, version: &Version<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open(&self.bytes, &version.bound_to(self.id), sealed)
    }
}

/// What a sealed content is of, all of it readable beside the content.
#[derive(Clone, Copy)]
pub(super) struct Version<'a> {
    pub(super) key: KeyText<'a>,
    pub(super) created: Revision,
    pub(super) revision: Revision,
}

impl Version<'_> {
    /// The box's associated data: a content that was moved to another object, version or life of an
    /// object does not open.
    fn bound_to(&self, id: DataKeyId) -> Vec<u8> {
        let mut bound = b"coracle content 1".to_vec();
        bound.extend_from_slice(&id.0);
        bound.extend_from_slice(&self.created.to_le_bytes());
        bound.extend_from_slice(&self.revision.to_le_bytes());
        for text in [self.key.collection, self.key.namespace, self.key.name] {
            bound.extend_from_slice(&super::format::to_u64(text.len()).to_le_bytes());
            bound.extend_from_slice(text.as_bytes());
        }
        bound
    }
}

/// Appends nonce, ciphertext and tag. Encrypts where the plain bytes are, so that no copy is left.
pub(super) fn seal(
    key: &KeyBytes,
    bound: &[u8],
    buffer: &mut Vec<u8>,
    length: usize,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    buffer.reserve(length + SEAL_BYTES);
    let mut nonce = [0; NONCE_BYTES];
    random::fill_secret(&mut nonce);
    buffer.extend_from_slice(&nonce);
    let plain_at = buffer.len();
    fill(buffer);
    debug_assert_eq!(buffer.len(), plain_at + length);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher(key)
        .seal_in_place_separate_tag(nonce, Aad::from(bound), &mut buffer[plain_at..])
        .expect("transactions are refused long before 256 GiB");
    buffer.extend_from_slice(tag.as_ref());
}

pub(super) fn open(key: &KeyBytes, bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, content) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let mut content = Zeroizing::new(content.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(key).open_in_place(nonce, Aad::from(bound), &mut content).ok()?.len();
    content.truncate(length);
    Some(content)
}

fn cipher(key: &KeyBytes) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &**key).expect("it takes keys of this length"))
}

#[cfg(test)]
mod tests;
