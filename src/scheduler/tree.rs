//! Finds nodes with enough room without looking at each.

/// Resources the tree knows: cpu, memory, ephemeral storage, pods.
pub const DIMENSIONS: usize = 4;

/// Free amounts, or needed ones.
pub type Amounts = [i64; DIMENSIONS];

/// Less than any node has: an empty slot, which no need fits.
const EMPTY: Amounts = [i64::MIN; DIMENSIONS];
/// A need that any node meets, even one that is over-committed.
pub const NO_NEED: i64 = i64::MIN + 1;

/// Free amounts by slot, under a binary tree of maxima. [`FreeTree::next`] skips every subtree in
/// which some resource is short everywhere, so a search in a full cluster stops near the root.
#[derive(Debug, Default)]
pub struct FreeTree {
    /// `maxima[1]` is the root, the children of `i` are `2i` and `2i + 1`, the leaves are the upper
    /// half.
    maxima: Vec<Amounts>,
}

impl FreeTree {
    fn leaves(&self) -> usize {
        self.maxima.len() / 2
    }

    /// Sets the free amounts of `slot`; `None` empties it.
    pub fn set(&mut self, slot: usize, free: Option<Amounts>) {
        if slot >= self.leaves() {
            self.grow(slot + 1);
        }
        let mut at = self.leaves() + slot;
        self.maxima[at] = free.unwrap_or(EMPTY);
        while at > 1 {
            at /= 2;
            let maxima = larger(self.maxima[2 * at], self.maxima[2 * at + 1]);
            if self.maxima[at] == maxima {
                break;
            }
            self.maxima[at] = maxima;
        }
    }

    fn grow(&mut self, slots: usize) {
        let leaves = slots.next_power_of_two();
        let mut maxima = vec![EMPTY; 2 * leaves];
        let old = self.leaves();
        maxima[leaves..leaves + old].copy_from_slice(&self.maxima[old..]);
        for at in (1..leaves).rev() {
            maxima[at] = larger(maxima[2 * at], maxima[2 * at + 1]);
        }
        self.maxima = maxima;
    }

    /// The first slot from `from` on whose free amounts cover `need`. Adds the number of tree nodes
    /// looked at to `steps`.
    #[must_use]
    pub fn next(&self, from: usize, need: &Amounts, steps: &mut u64) -> Option<usize> {
        if from >= self.leaves() { None } else { self.descend(1, 0, self.leaves(), from, need, steps) }
    }

    /// Searches the subtree `at`, which covers `count` slots from `first` on.
    fn descend(
        &self,
        at: usize,
        first: usize,
        count: usize,
        from: usize,
        need: &Amounts,
        steps: &mut u64,
    ) -> Option<usize> {
        if first + count <= from {
            return None;
        }
        *steps += 1;
        if !covers(&self.maxima[at], need) {
            return None;
        }
        if count == 1 {
            return Some(first);
        }
        let half = count / 2;
        self.descend(2 * at, first, half, from, need, steps)
            .or_else(|| self.descend(2 * at + 1, first + half, half, from, need, steps))
    }
}

fn larger(a: Amounts, b: Amounts) -> Amounts {
    std::array::from_fn(|i| a[i].max(b[i]))
}

fn covers(free: &Amounts, need: &Amounts) -> bool {
    free.iter().zip(need).all(|(free, need)| free >= need)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tree: &FreeTree, from: usize, need: Amounts) -> Option<usize> {
        tree.next(from, &need, &mut 0)
    }

    #[test]
    fn the_next_slot_with_room_in_every_resource_is_found() {
        let mut tree = FreeTree::default();
        assert_eq!(found(&tree, 0, [NO_NEED; 4]), None);
        for slot in 0..9 {
            tree.set(slot, Some([i64::try_from(slot).unwrap(), 100, 0, 10]));
        }
        assert_eq!(found(&tree, 0, [3, 100, NO_NEED, 1]), Some(3));
        assert_eq!(found(&tree, 5, [3, 100, NO_NEED, 1]), Some(5));
        assert_eq!(found(&tree, 9, [3, 100, NO_NEED, 1]), None);
        assert_eq!(found(&tree, 0, [3, 101, NO_NEED, 1]), None);
        // One has cpu, another memory: neither will do.
        tree.set(4, Some([0, 200, 0, 10]));
        assert_eq!(found(&tree, 0, [8, 200, NO_NEED, 1]), None);
        tree.set(8, None);
        assert_eq!(found(&tree, 0, [8, 1, NO_NEED, 1]), None);
        // An over-committed node takes pods that ask for nothing, an empty slot takes none.
        tree.set(8, Some([-5, -5, -5, 1]));
        assert_eq!(found(&tree, 8, [NO_NEED, NO_NEED, NO_NEED, 1]), Some(8));
        assert_eq!(found(&tree, 9, [NO_NEED, NO_NEED, NO_NEED, 1]), None);
    }

    #[test]
    fn a_full_cluster_is_seen_at_the_root() {
        let mut tree = FreeTree::default();
        for slot in 0..1000 {
            tree.set(slot, Some([0, 0, 0, 100]));
        }
        let mut steps = 0;
        assert_eq!(tree.next(0, &[1, NO_NEED, NO_NEED, 1], &mut steps), None);
        assert_eq!(steps, 1);
    }
}
