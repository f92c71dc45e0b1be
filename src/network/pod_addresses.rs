//! Hands out the pods' addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use crate::kind::address_plan::{PODS, PODS_MAX};
use crate::random::Random;

/// The first of the pods' addresses as a number.
const FIRST: u32 = PODS.to_bits();

/// Gives every pod of the process an address of its own; cheap to clone. An address that was given
/// back is used again as late as possible.
#[derive(Clone, Default)]
pub(crate) struct PodAddresses(Arc<Mutex<Pool>>);

#[derive(Default)]
struct Pool {
    used: BTreeSet<u32>,
    last: u32,
}

/// A pod's address; free again when dropped.
pub(crate) struct PodAddress {
    pool: PodAddresses,
    offset: u32,
}

impl PodAddresses {
    /// Begins anywhere in the plan, since other clusters of this machine share it.
    pub(crate) fn beginning_anywhere(random: &Random) -> Self {
        let last = u32::try_from(random.below(u64::from(PODS_MAX - 2))).expect("below a 32-bit number");
        Self(Arc::new(Mutex::new(Pool { used: BTreeSet::new(), last })))
    }

    /// A free address; `None` when eight million pods have one.
    pub(crate) fn take(&self) -> Option<PodAddress> {
        let mut pool = self.0.lock().expect("no holder panics");
        if pool.used.len() + 2 >= usize::try_from(PODS_MAX).expect("an address space fits") {
            return None;
        }
        let mut offset = pool.last;
        loop {
            // Not the first, which names the network, and not the last, which is its broadcast.
            offset = offset % (PODS_MAX - 2) + 1;
            if pool.used.insert(offset) {
                break;
            }
        }
        pool.last = offset;
        Some(PodAddress { pool: self.clone(), offset })
    }
}

impl PodAddress {
    pub(crate) fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(FIRST + self.offset)
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        self.pool.0.lock().expect("no holder panics").used.remove(&self.offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_return() {
        let pool = PodAddresses::default();
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_eq!(first.ip().to_string(), "127.128.0.1");
        assert_eq!(second.ip().to_string(), "127.128.0.2");
        drop(first);
        let third = pool.take().unwrap();
        assert_eq!(third.ip().to_string(), "127.128.0.3");
        assert_eq!(pool.0.lock().unwrap().used.len(), 2);
    }

    #[test]
    fn the_pool_wraps_around_what_is_used() {
        let pool = PodAddresses::default();
        let first = pool.take().unwrap();
        pool.0.lock().unwrap().last = PODS_MAX - 2;
        let next = pool.take().unwrap();
        assert_eq!(next.ip().to_string(), "127.128.0.2");
        drop(first);
    }

    #[test]
    fn clusters_of_one_machine_begin_elsewhere() {
        let first = |seed| PodAddresses::beginning_anywhere(&Random::from_seed(seed)).take().unwrap().ip();
        assert_ne!(first(1), first(2));
        assert!(first(1).octets()[1] >= 128);
    }
}
