//! Kubernetes Events on behalf of one component.
//!
//! A repeat of an Event raises its `count` and `lastTimestamp` instead of making another
//! (BEHAVIOURS 9.14). Recording never waits: a bounded queue stands between the component and the
//! task that writes; when it is full, Events are dropped and counted, because nothing may depend on
//! them. Nor does one object fill the store: of one reason it has a few dozen at once, and then one
//! every five minutes, as in client-go's spam filter, which counts all reasons together and so loses
//! the last word of a Job that has said much. And of what went as expected, one component of one node
//! writes so much a second and no more, as a kubelet does: thousands of pods a second would otherwise
//! cost more to tell of than to run. What went wrong is always told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;

use super::Client;
use crate::clock::Clock;

/// Events that may wait to be written.
const QUEUE_MAX: usize = 8192;
/// Events written at the same time, so that they share the store's flushes.
const IN_FLIGHT_MAX: usize = 64;
/// Events remembered for their repeats, as in client-go's correlator.
const REMEMBERED_MAX: usize = 4096;

/// Events of one reason about one object that are written at once, and how long until one more is
/// (client-go's `defaultSpamBurst` and `defaultSpamQPS`).
const BURST: u32 = 25;
const REFILL: SignedDuration = SignedDuration::from_secs(300);

/// Normal Events of one recorder: so many at once, and so many a second after that (a kubelet's
/// `eventBurst` and `eventRecordQPS`).
const NORMAL_BURST: u32 = 100;
const NORMAL_PER_SECOND: u32 = 50;

/// A component's pen; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
    clock: Clock,
    rate: Arc<Mutex<Rate>>,
    dropped: Arc<AtomicU64>,
}

/// How many Normal Events there may be by now.
struct Rate {
    /// In microseconds' worth of Events.
    earned: i64,
    at: Timestamp,
}

/// What one Event costs, and the most that is saved up.
const NORMAL_COST: i64 = 1_000_000 / NORMAL_PER_SECOND as i64;
const SAVED_MAX: i64 = NORMAL_COST * NORMAL_BURST as i64;

impl Rate {
    fn new(now: Timestamp) -> Self {
        Self { earned: SAVED_MAX, at: now }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.at).as_micros().max(0);
        self.at = self.at.max(now);
        let passed = i64::try_from(passed).unwrap_or(SAVED_MAX);
        self.earned = self.earned.saturating_add(passed).min(SAVED_MAX);
        let has_enough = self.earned >= NORMAL_COST;
        if has_enough {
            self.earned -= NORMAL_COST;
        }
        has_enough
    }
}

#[derive(Clone)]
struct Entry {
    about: ObjectReference,
    r#type: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

/// What makes two entries the same Event.
type Identity = (Option<String>, Option<String>, &'static str, String, String);

impl Recorder {
    /// `component` is `source.component`, such as `kubelet`; `host` the node, if it is one.
    /// Starts the task that writes, which ends when the last clone is dropped.
    #[must_use]
    pub fn start(client: Client, clock: Clock, component: &str, host: Option<&str>) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE_MAX);
        let source = EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        let writer = Writer {
            client,
            source,
            names: 0,
            known: HashMap::new(),
            order: VecDeque::new(),
            allowances: HashMap::new(),
            topics: VecDeque::new(),
        };
        tokio::spawn(writer.run(entries));
        let rate = Arc::new(Mutex::new(Rate::new(clock.now())));
        Self { queue, clock, rate, dropped: Arc::default() }
    }

    /// Records something expected.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        if self.rate.lock().expect("no holder panics").take(self.clock.now()) {
            self.record(about, "Normal", reason, message.into());
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records something that went wrong.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, "Warning", reason, message.into());
    }

    /// Events lost because there were too many.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn record(&self, about: &ObjectReference, r#type: &'static str, reason: &str, message: String) {
        let entry =
            Entry { about: about.clone(), r#type, reason: reason.to_owned(), message, at: self.clock.now() };
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An object and a reason.
type Topic = (Option<String>, String);

/// How many more Events there may be about a topic.
struct Allowance {
    left: u32,
    /// Since when the next one is earned.
    since: Timestamp,
}

impl Allowance {
    fn new(now: Timestamp) -> Self {
        Self { left: BURST, since: now }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        let earned = now.duration_since(self.since).as_secs() / REFILL.as_secs();
        let earned = u32::try_from(earned.max(0)).unwrap_or(BURST).min(BURST);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.since =
            if self.left == BURST { now } else { self.since + REFILL * i32::try_from(earned).unwrap_or(0) };
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

/// The task that writes what recorders queue.
struct Writer {
    client: Client,
    source: EventSource,
    /// Nanoseconds used in the last name, so that no two names of this writer are equal.
    names: i128,
    /// Name and count of Events written before, by what makes a repeat.
    known: HashMap<Identity, (String, i32)>,
    /// The keys of `known`, the longest unused first.
    order: VecDeque<Identity>,
    allowances: HashMap<Topic, Allowance>,
    /// The keys of `allowances`, the oldest first.
    topics: VecDeque<Topic>,
}

/// One write to make: a new Event, or the new count of a known one.
enum Step {
    Create(Box<Event>),
    Raise { namespace: String, name: String, count: i32, last: Timestamp, or_else: Box<Event> },
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut batch = Vec::with_capacity(IN_FLIGHT_MAX);
        while entries.recv_many(&mut batch, IN_FLIGHT_MAX).await > 0 {
            // Repeats within a batch are folded, so its writes concern different Events and may
            // happen side by side.
            let mut folded: Vec<(Identity, Entry, i32)> = Vec::new();
            for entry in batch.drain(..) {
                if !self.allows(&entry) {
                    continue;
                }
                let identity = entry.identity();
                match folded.iter_mut().find(|(known, ..)| *known == identity) {
                    Some((_, last, times)) => {
                        last.at = entry.at;
                        *times += 1;
                    }
                    None => folded.push((identity, entry, 1)),
                }
            }
            let steps: Vec<Step> = folded
                .into_iter()
                .map(|(identity, entry, times)| self.decide(identity, entry, times))
                .collect();
            join_all(steps.into_iter().map(|step| write(&self.client, step))).await;
        }
    }

    fn allows(&mut self, entry: &Entry) -> bool {
        let topic = (entry.about.uid.clone().or_else(|| entry.about.name.clone()), entry.reason.clone());
        if let Some(allowance) = self.allowances.get_mut(&topic) {
            return allowance.take(entry.at);
        }
        if self.topics.len() == REMEMBERED_MAX
            && let Some(oldest) = self.topics.pop_front()
        {
            self.allowances.remove(&oldest);
        }
        self.topics.push_back(topic.clone());
        self.allowances.entry(topic).or_insert_with(|| Allowance::new(entry.at)).take(entry.at)
    }

    fn decide(&mut self, identity: Identity, entry: Entry, times: i32) -> Step {
        self.names = (self.names + 1).max(entry.at.as_nanosecond());
        let event = self.event(&entry, times);
        let name = event.metadata.name.clone().unwrap_or_default();
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        if let Some((name, count)) = self.known.get_mut(&identity) {
            *count += times;
            let (name, count) = (name.clone(), *count);
            return Step::Raise { namespace, name, count, last: entry.at, or_else: Box::new(event) };
        }
        if self.order.len() == REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        self.known.insert(identity, (name, times));
        Step::Create(Box::new(event))
    }

    fn event(&self, entry: &Entry, count: i32) -> Event {
        // Events about cluster-scoped objects live in `default`.
        let namespace = entry.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:x}", entry.about.name.as_deref().unwrap_or_default(), self.names);
        Event {
            metadata: ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() },
            involved_object: entry.about.clone(),
            type_: Some(entry.r#type.to_owned()),
            reason: Some(entry.reason.clone()),
            message: Some(entry.message.clone()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(entry.at)),
            last_timestamp: Some(Time(entry.at)),
            count: Some(count),
            ..Event::default()
        }
    }
}

impl Entry {
    fn identity(&self) -> Identity {
        (
            self.about.uid.clone().or_else(|| self.about.name.clone()),
            self.about.field_path.clone(),
            self.r#type,
            self.reason.clone(),
            self.message.clone(),
        )
    }
}

/// An Event that cannot be written, as in a namespace that is going away, is let go: nothing
/// depends on it and nobody could mend it.
async fn write(client: &Client, step: Step) {
    let failed = match step {
        Step::Create(event) => client.create(*event).await.err(),
        Step::Raise { namespace, name, count, last, or_else } => {
            let patch = json!({ "count": count, "lastTimestamp": Time(last) });
            match client.merge_patch::<Event>(&namespace, &name, None, patch).await {
                Err(error) if error.is_not_found() => client.create(*or_else).await.err(),
                other => other.err(),
            }
        }
    };
    if let Some(error) = failed {
        tracing::debug!(%error, "an Event was not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_as_expected_is_told_so_often_a_second() {
        let start = Timestamp::UNIX_EPOCH;
        let mut rate = Rate::new(start);
        let mut taken = |millis: i64, tries: u32| {
            let now = start + SignedDuration::from_millis(millis);
            (0..tries).filter(|_| rate.take(now)).count()
        };
        for (millis, tries, expected) in [
            (0, 150, 100),
            (19, 5, 0),
            (20, 5, 1),
            (1_020, 80, 50),
            (1_000, 5, 0),
            (1_030, 5, 0),
            (1_040, 5, 1),
            (1_000_000, 150, 100),
        ] {
            assert_eq!(taken(millis, tries), expected, "at {millis} ms");
        }
    }

    #[test]
    fn a_topic_has_a_burst_and_then_one_every_five_minutes() {
        let start = Timestamp::UNIX_EPOCH;
        let mut allowance = Allowance::new(start);
        let mut taken = |seconds: i64, tries: u32| {
            let now = start + SignedDuration::from_secs(seconds);
            (0..tries).filter(|_| allowance.take(now)).count()
        };
        for (seconds, tries, expected) in [
            (0, 30, 25),
            (299, 5, 0),
            (300, 5, 1),
            // What was earned in part is kept.
            (450, 5, 0),
            (600, 5, 1),
            (599, 5, 0),
            (1_500, 2, 2),
            (1_501, 2, 1),
            (1_000_000, 30, 25),
        ] {
            assert_eq!(taken(seconds, tries), expected, "at {seconds}");
        }
    }
}
