//! Keys whose own writes have not been seen yet.
//!
//! A controller that decided again before the watches told it of what it just did would do it twice.
//! Kubernetes' controllers count "expectations" to avoid that; here every write answers with its
//! revision, and every watch says up to which revision it has told everything, so it is enough to wait
//! until the one has reached the other. Each revision of a kind is either told as an event or covered by
//! a later list, so nothing waits for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::KindRef;
use super::apply::Wrote;

/// Keys of type `K`, each with something of type `T` to go on with.
pub(super) struct Parking<K, T> {
    /// Up to where each kind has been told.
    told: BTreeMap<KindRef, u64>,
    waiting: BTreeMap<K, (Wrote, T)>,
    /// The next thing each key waits for.
    by_kind: BTreeMap<KindRef, BTreeSet<(u64, K)>>,
}

impl<K: Ord + Clone, T> Parking<K, T> {
    /// `kinds` are those that are watched: nobody can wait for others.
    pub(super) fn new(kinds: impl Iterator<Item = KindRef>) -> Self {
        let told = kinds.map(|kind| (kind, 0)).collect();
        Self { told, waiting: BTreeMap::new(), by_kind: BTreeMap::new() }
    }

    /// Keeps a key until all of `wrote` has been told; gives it back if it has been already.
    pub(super) fn park(&mut self, key: K, mut wrote: Wrote, then: T) -> Option<(K, T)> {
        match self.first_unseen(&mut wrote) {
            None => Some((key, then)),
            Some((kind, revision)) => {
                self.by_kind.entry(kind).or_default().insert((revision, key.clone()));
                self.waiting.insert(key, (wrote, then));
                None
            }
        }
    }

    /// Everything of `kind` up to `revision` has been told. Returns the keys that may go on.
    pub(super) fn told(&mut self, kind: KindRef, revision: u64) -> Vec<(K, T)> {
        let Some(told) = self.told.get_mut(&kind) else { return Vec::new() };
        *told = revision.max(*told);
        let told = *told;
        let mut free = Vec::new();
        while let Some(waiting) = self.by_kind.get_mut(&kind)
            && waiting.first().is_some_and(|(revision, _)| *revision <= told)
            && let Some((_, key)) = waiting.pop_first()
        {
            let Some((wrote, then)) = self.waiting.remove(&key) else { continue };
            free.extend(self.park(key, wrote, then));
        }
        free
    }

    fn first_unseen(&self, wrote: &mut Wrote) -> Option<(KindRef, u64)> {
        wrote.retain(|kind, revision| self.told.get(kind).is_some_and(|told| told < revision));
        wrote.first_key_value().map(|(kind, revision)| (*kind, *revision))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Binding, Node, Pod};

    use super::*;

    #[test]
    fn a_key_waits_for_all_it_wrote_and_for_nothing_else() {
        let (pods, nodes, bindings) = (KindRef::of::<Pod>(), KindRef::of::<Node>(), KindRef::of::<Binding>());
        let mut parking = Parking::new([pods, nodes].into_iter());
        assert_eq!(parking.told(pods, 5), []);
        // Nothing new, or of a kind that nobody watches.
        assert_eq!(parking.park("a", Wrote::from([(pods, 5), (bindings, 9)]), 1), Some(("a", 1)));
        assert_eq!(parking.park("b", Wrote::from([(pods, 6), (nodes, 8)]), 2), None);
        assert_eq!(parking.park("c", Wrote::from([(pods, 7)]), 3), None);
        assert_eq!(parking.told(nodes, 8), []);
        assert_eq!(parking.told(pods, 6), [("b", 2)]);
        // A list is as good as an event, and may be past what is waited for.
        assert_eq!(parking.told(pods, 70), [("c", 3)]);
        assert_eq!(parking.told(pods, 3), [], "nothing is untold");
        assert_eq!(parking.park("d", Wrote::from([(pods, 70)]), 4), Some(("d", 4)));
    }
}
