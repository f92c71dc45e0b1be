//! Keys that want attention, each at most once (client-go `workqueue`).
//!
//! A key added while it is being worked on is handed out again afterwards, so two workers never
//! hold one key and no change is missed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The wait after a first failure, doubled by each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);

/// A queue without duplicates, with times and back-off. Times are of
/// [`crate::clock::Clock::monotonic`]. Its bound is the number of keys that exist.
pub struct Queue<K> {
    ready: VecDeque<K>,
    /// What `ready` holds.
    waiting: BTreeSet<K>,
    /// Handed out; true if added again meanwhile.
    working: BTreeMap<K, bool>,
    later: BTreeSet<(Duration, K)>,
    due: BTreeMap<K, Duration>,
    failures: BTreeMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            working: BTreeMap::new(),
            later: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// To be looked at now.
    pub fn add(&mut self, key: K) {
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// To be looked at once the clock shows `at`. One time is kept for a key, the newest given.
    pub fn add_at(&mut self, key: K, at: Duration) {
        if let Some(old) = self.due.insert(key.clone(), at) {
            self.later.remove(&(old, key.clone()));
        }
        self.later.insert((at, key));
    }

    /// The next key, which is being worked on until [`Queue::done`].
    pub fn pop(&mut self, now: Duration) -> Option<K> {
        while let Some((at, _)) = self.later.first()
            && *at <= now
        {
            let (_, key) = self.later.pop_first().expect("just seen");
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone(), false);
        Some(key)
    }

    /// The key was worked on and is well. A time given before is forgotten.
    pub fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.release(key);
    }

    /// Work on the key failed; it comes back after a while that doubles from 5 ms to 1000 s.
    pub fn retry(&mut self, key: &K, now: Duration) {
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(*failures)).min(BACKOFF_MAX);
        *failures = failures.saturating_add(1);
        self.release(key);
        self.add_at(key.clone(), now + wait);
    }

    fn release(&mut self, key: &K) {
        if let Some(at) = self.due.remove(key) {
            self.later.remove(&(at, key.clone()));
        }
        if self.working.remove(key) == Some(true) {
            self.add(key.clone());
        }
    }

    /// Makes all keys ready that wait for a time, for when it cannot be told how long they still have to.
    pub fn hurry(&mut self) {
        self.due.clear();
        for (_, key) in std::mem::take(&mut self.later) {
            self.add(key);
        }
    }

    /// When the next key that waits for a time is due.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Whether [`Queue::pop`] has a key without time passing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_key_is_handed_out_once_and_again_if_added_meanwhile() {
        let mut queue = Queue::default();
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        assert_eq!([queue.pop(ms(0)), queue.pop(ms(0)), queue.pop(ms(0))], [Some("a"), Some("b"), None]);
        queue.add("a");
        assert_eq!(queue.pop(ms(0)), None);
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!([queue.pop(ms(0)), queue.pop(ms(0))], [Some("a"), None]);
    }

    #[test]
    fn failures_wait_5_ms_to_1000_s_and_success_forgets_them() {
        let mut queue = Queue::default();
        let mut now = ms(0);
        let mut waits = Vec::new();
        queue.add("a");
        for _ in 0..20 {
            assert_eq!(queue.pop(now), Some("a"));
            queue.retry(&"a", now);
            let due = queue.due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits[..4], [ms(5), ms(10), ms(20), ms(40)]);
        assert_eq!(waits[19], Duration::from_secs(1000));
        assert_eq!(queue.pop(now), Some("a"));
        queue.done(&"a");
        assert_eq!((queue.due(), queue.is_ready()), (None, false));
        queue.add("a");
        queue.pop(now);
        queue.retry(&"a", now);
        assert_eq!(queue.due(), Some(now + ms(5)));
    }

    #[test]
    fn who_is_hurried_waits_no_more() {
        let mut queue = Queue::default();
        queue.add_at("a", ms(10));
        queue.add_at("b", ms(30));
        queue.hurry();
        assert_eq!([queue.pop(ms(0)), queue.pop(ms(0)), queue.pop(ms(0))], [Some("a"), Some("b"), None]);
        assert_eq!(queue.due(), None);
        // One that is being worked on comes back.
        queue.add_at("a", ms(10));
        queue.hurry();
        assert_eq!(queue.pop(ms(0)), None);
        queue.done(&"a");
        assert_eq!(queue.pop(ms(0)), Some("a"));
    }

    #[test]
    fn the_newest_time_counts() {
        let mut queue = Queue::default();
        queue.add_at("a", ms(10));
        queue.add_at("a", ms(30));
        assert_eq!(queue.pop(ms(10)), None);
        assert_eq!(queue.pop(ms(30)), Some("a"));
    }
}
