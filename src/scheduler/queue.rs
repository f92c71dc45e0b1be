//! Which pod is next (kube-scheduler `scheduling_queue.go`, BEHAVIOURS 15.5, 15.6).
//!
//! A pod is *active* (to be tried now, by priority, then age), *backing off* (to be tried at a
//! time), *unschedulable* (to be tried when something changes that could help, at the latest after
//! five minutes), or being tried, when only its attempts are kept here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cache::Pending;
use super::filter::Blocker;

/// The wait after the first failure; doubled by each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest that a pod stays unschedulable without a new try.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// Namespace and name.
pub type PodKey = (String, String);

/// Where a pod stands in line: by priority, then age, then arrival.
type Order = (Reverse<i32>, i64, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Active,
    Backoff(Duration),
    Unschedulable { since: Duration, blockers: BTreeSet<Blocker> },
    Tried,
}

struct Entry {
    pending: Pending,
    order: Order,
    place: Place,
    attempts: u32,
    /// When the next try is allowed.
    rested: Duration,
}

/// Waiting pods. Times are of [`crate::clock::Clock::monotonic`].
#[derive(Default)]
pub struct Queue {
    pods: BTreeMap<PodKey, Entry>,
    active: BTreeMap<Order, PodKey>,
    backoff: BTreeSet<(Duration, Order, PodKey)>,
    unschedulable: BTreeMap<BTreeSet<Blocker>, BTreeSet<PodKey>>,
    /// Unschedulable pods by when they became so.
    overdue: BTreeSet<(Duration, PodKey)>,
    arrivals: u64,
}

impl Queue {
    /// Takes a pod that is new or was changed. An unschedulable one is tried again.
    pub fn add(&mut self, pending: Pending, now: Duration) {
        let key = pod_key(&pending);
        let priority = pending.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        if let Some(entry) = self.pods.get_mut(&key) {
            if entry.pending.pod.metadata.uid == pending.pod.metadata.uid {
                entry.pending = pending;
                if matches!(entry.place, Place::Unschedulable { .. }) {
                    self.retry(&key, now);
                }
                return;
            }
            self.remove(&key);
        }
        let created = pending.pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        self.arrivals += 1;
        let order = (Reverse(priority), created, self.arrivals);
        self.active.insert(order, key.clone());
        let entry = Entry { pending, order, place: Place::Active, attempts: 0, rested: now };
        self.pods.insert(key, entry);
    }

    /// The pod as it was last added.
    #[must_use]
    pub fn get(&self, key: &PodKey) -> Option<&Pending> {
        self.pods.get(key).map(|entry| &entry.pending)
    }

    /// Takes new content that changes nothing about where the pod may run.
    pub fn refresh(&mut self, key: &PodKey, pod: std::sync::Arc<k8s_openapi::api::core::v1::Pod>) {
        if let Some(entry) = self.pods.get_mut(key) {
            entry.pending.pod = pod;
        }
    }

    pub fn remove(&mut self, key: &PodKey) {
        self.unlink(key);
        self.pods.remove(key);
    }

    #[must_use]
    pub fn keys(&self) -> Vec<PodKey> {
        self.pods.keys().cloned().collect()
    }

    /// The pod to try now, if any.
    pub fn pop(&mut self, now: Duration) -> Option<Pending> {
        self.flush(now);
        let (_, key) = self.active.pop_first()?;
        let entry = self.pods.get_mut(&key).expect("what is active is there");
        entry.place = Place::Tried;
        entry.attempts += 1;
        let doublings = (entry.attempts - 1).min(16);
        entry.rested = now + (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_MAX);
        Some(entry.pending.clone())
    }

    /// No node fits the pod that was popped.
    pub fn unschedulable(&mut self, key: &PodKey, blockers: &BTreeSet<Blocker>, now: Duration) {
        let Some(entry) = self.pods.get_mut(key) else { return };
        entry.place = Place::Unschedulable { since: now, blockers: blockers.clone() };
        self.unschedulable.entry(blockers.clone()).or_default().insert(key.clone());
        self.overdue.insert((now, key.clone()));
    }

    /// Binding the pod that was popped failed; it is tried again after its back-off.
    pub fn failed(&mut self, key: &PodKey, now: Duration) {
        if self.pods.contains_key(key) {
            self.retry(key, now);
        }
    }

    /// Something changed that may help pods blocked by any of `blockers`.
    pub fn wake(&mut self, blockers: &[Blocker], now: Duration) {
        let helped: Vec<PodKey> = self
            .unschedulable
            .iter()
            .filter(|(why, _)| blockers.iter().any(|blocker| why.contains(blocker)))
            .flat_map(|(_, keys)| keys.iter().cloned())
            .collect();
        for key in helped {
            self.retry(&key, now);
        }
    }

    /// When [`Queue::pop`] may have more, if only time must pass.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let rested = self.backoff.first().map(|(at, ..)| *at);
        let overdue = self.overdue.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        rested.into_iter().chain(overdue).min()
    }

    /// Whether [`Queue::pop`] has a pod without time passing.
    #[must_use]
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// To be tried as soon as the back-off is over.
    fn retry(&mut self, key: &PodKey, now: Duration) {
        self.unlink(key);
        let entry = self.pods.get_mut(key).expect("the caller has seen it");
        if entry.rested <= now {
            entry.place = Place::Active;
            self.active.insert(entry.order, key.clone());
        } else {
            entry.place = Place::Backoff(entry.rested);
            self.backoff.insert((entry.rested, entry.order, key.clone()));
        }
    }

    /// Moves pods whose time has come.
    fn flush(&mut self, now: Duration) {
        while let Some((at, _, key)) = self.backoff.first()
            && *at <= now
        {
            let key = key.clone();
            self.retry(&key, now);
        }
        while let Some((since, key)) = self.overdue.first()
            && *since + UNSCHEDULABLE_MAX <= now
        {
            let key = key.clone();
            self.retry(&key, now);
        }
    }

    /// Takes the pod out of the index of its place.
    fn unlink(&mut self, key: &PodKey) {
        let Some(entry) = self.pods.get_mut(key) else { return };
        match std::mem::replace(&mut entry.place, Place::Tried) {
            Place::Active => {
                self.active.remove(&entry.order);
            }
            Place::Backoff(at) => {
                self.backoff.remove(&(at, entry.order, key.clone()));
            }
            Place::Unschedulable { since, blockers } => {
                self.overdue.remove(&(since, key.clone()));
                if let Some(keys) = self.unschedulable.get_mut(&blockers) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.unschedulable.remove(&blockers);
                    }
                }
            }
            Place::Tried => {}
        }
    }
}

#[must_use]
pub fn pod_key(pending: &Pending) -> PodKey {
    let meta = &pending.pod.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
