//! The part of an object that matters to the pods that use it, as one number to compare.
//!
//! The hash of a ConfigMap or Secret is the SHA-256 of one piece for each of its entries, in this order:
//!
//! ```text
//! Secret      type, then each entry of data
//! ConfigMap   each entry of data, then each of binaryData
//! ```
//!
//! Entries of a map are ordered by key, byte by byte. The piece is the field's name (`type`, `data`,
//! `binaryData`), the key (empty for `type`), the value's length in bytes as a decimal number, each
//! followed by a zero byte, and then the value's bytes, those behind the base64. An absent map is an
//! empty one. Metadata and `immutable` do not count, so two objects of the same content have the same
//! hash, whatever they are called and whenever they were written.
//!
//! A Secret's hash must go to nobody who may not read the Secret: it lets a guess be checked.

use sha2::{Digest, Sha256};

/// The SHA-256 of an object's content; shown as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Takes the pieces one after the other.
#[derive(Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn add(mut self, field: &str, key: &str, value: &[u8]) -> Self {
        for text in [field, key, &value.len().to_string()] {
            self.0.update(text);
            self.0.update([0]);
        }
        self.0.update(value);
        self
    }

    pub(super) fn end(self) -> ContentHash {
        ContentHash(self.0.finalize().into())
    }
}
