//! The only source of chance: uids, generated names, ties and jitter.
//!
//! Seeded from the operating system for a real cluster, from a number for one that must give the
//! same result twice.

use std::sync::{Arc, Mutex};

use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng, TryRng};

/// Letters and digits of generated names: no vowels and nothing mistaken for them, so that no words
/// appear (BEHAVIOURS 2.1).
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Fills `bytes` for a cryptographic key or nonce: from the operating system always, whatever seed the
/// cluster has.
///
/// # Panics
/// If the operating system gives none, which no supported one does once it runs.
pub fn fill_secret(bytes: &mut [u8]) {
    SysRng.try_fill_bytes(bytes).expect("the operating system has randomness");
}

/// A shared generator; cheap to clone.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// Seeded by the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// The same numbers every time for the same seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A version 4 UUID in its usual form.
    #[must_use]
    pub fn uid(&self) -> String {
        let mut bytes: [u8; 16] = self.with(|rng| rng.random());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (i, byte) in bytes.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from_digit(u32::from(digit), 16).expect("a nibble is a hex digit"));
            }
        }
        text
    }

    /// `length` characters of Kubernetes' name alphabet.
    #[must_use]
    pub fn name_suffix(&self, length: usize) -> String {
        self.with(|rng| {
            (0..length).map(|_| char::from(NAME_ALPHABET[rng.random_range(0..NAME_ALPHABET.len())])).collect()
        })
    }

    /// A number below `bound`; 0 if `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.with(|rng| rng.random_range(0..bound)) }
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().expect("no draw panics"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |random: Random| (random.uid(), random.name_suffix(5), random.below(100));
        assert_eq!(draw(Random::from_seed(7)), draw(Random::from_seed(7)));
        assert_ne!(draw(Random::from_seed(7)), draw(Random::from_seed(8)));
    }

    #[test]
    fn secrets_differ_whatever_the_seed() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        fill_secret(&mut a);
        fill_secret(&mut b);
        assert!(a != b && a != [0; 32]);
    }

    #[test]
    fn a_uid_is_a_version_4_uuid() {
        let uid = Random::from_os().uid();
        let parts: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!((parts, &uid[14..15]), (vec![8, 4, 4, 4, 12], "4"));
    }
}
