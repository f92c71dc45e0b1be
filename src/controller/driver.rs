//! Runs all controllers over one snapshot of all kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::{Applied, Hands, Wrote};
use super::fault::Fault;
use super::parking::Parking;
use super::{Change, Controller, Key, KindRef, Moment, Snapshot, snapshot};
use crate::client::{Client, Event, Recorder, Select};
use crate::clock::Clock;
use crate::kind::{self, Kind, Object};

/// Decisions being applied at one time.
const APPLYING_MAX: usize = 64;
/// Decisions made before news is looked at again.
const TURN_MAX: usize = 256;

/// Which controller, which of its keys.
type Item = (usize, Key);

/// Kinds that have objects of their own to list and watch.
pub(super) fn watched() -> impl Iterator<Item = KindRef> {
    let stored = |kind: &&&'static Kind| kind.stored_as.is_none() && kind.verbs.contains(&"watch");
    kind::ALL.iter().filter(stored).map(|kind| KindRef(kind))
}

type Batch = Vec<Event<dyn Object>>;
/// News of a kind, and up to which revision it is now known.
type News = (Batch, u64);
type Changes = Pin<Box<dyn Stream<Item = (KindRef, Option<News>)> + Send>>;

fn changes(client: &Client, kind: KindRef) -> Changes {
    let watcher = client.watch_any(kind.0, Select::default());
    Box::pin(stream::unfold(Some(watcher), move |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next_batch().await {
            Some(batch) => Some(((kind, Some((batch, watcher.revision()))), Some(watcher))),
            // Told, because without one kind nothing may be decided.
            None => Some(((kind, None), None)),
        }
    }))
}

/// How work on a key ended.
enum Outcome {
    Done { requeue_after: Option<Duration> },
    Retry,
}

struct Driver {
    client: Client,
    recorder: Recorder,
    clock: Clock,
    fault: Option<Fault>,
    controllers: Vec<Box<dyn Controller>>,
    seen: Snapshot,
    /// Kinds whose first list has not come yet.
    unknown: BTreeSet<KindRef>,
    queue: super::queue::Queue<Item>,
    /// Since when a key waits.
    waiting: BTreeMap<Item, Duration>,
    applying: JoinSet<(Item, Option<Duration>, Applied)>,
    /// Keys whose writes `seen` does not have in it yet, so that no decision is made twice.
    parked: Parking<Item, Outcome>,
}

pub(super) async fn run(
    client: Client,
    recorder: Recorder,
    clock: Clock,
    controllers: Vec<Box<dyn Controller>>,
    fault: Option<Fault>,
    stop: CancellationToken,
) {
    let indexes = controllers.iter().flat_map(|controller| controller.indexes());
    let mut driver = Driver {
        seen: Snapshot::new(indexes),
        unknown: watched().collect(),
        queue: super::queue::Queue::default(),
        waiting: BTreeMap::new(),
        applying: JoinSet::new(),
        parked: Parking::new(watched()),
        client,
        recorder,
        clock,
        fault,
        controllers,
    };
    for (number, controller) in driver.controllers.iter().enumerate() {
        for key in controller.start() {
            driver.queue.add((number, key));
        }
    }
    let mut jumps = clock.jumps();
    let mut changes = stream::select_all(watched().map(|kind| changes(&driver.client, kind)));
    loop {
        let more = driver.decide();
        let due = driver.queue.due();
        tokio::select! {
            biased;
            // First, as what the killed were at never ends.
            () = killed(driver.fault.as_ref()) => return,
            () = stop.cancelled() => break,
            Some(done) = driver.applying.join_next() => {
                let (item, requeue_after, applied) = done.expect("applying does not panic");
                driver.applied(item, requeue_after, applied);
            }
            change = changes.next() => match change {
                Some((kind, Some((batch, revision)))) => driver.saw(kind, batch, revision),
                Some((kind, None)) => {
                    tracing::info!(kind = ?kind.0, "the API is gone, controllers stop");
                    break;
                }
                None => break,
            },
            () = wait(clock, due), if due.is_some() && driver.unknown.is_empty() => {}
            // Whoever waits for a wall time may be late, or have longer to wait.
            () = jumps.next(), if due.is_some() => driver.queue.hurry(),
            () = tokio::task::yield_now(), if more => {}
        }
    }
    while driver.applying.join_next().await.is_some() {}
}

async fn killed(fault: Option<&Fault>) {
    match fault {
        Some(fault) => fault.killed().await,
        None => std::future::pending().await,
    }
}

async fn wait(clock: Clock, due: Option<Duration>) {
    if let Some(due) = due {
        clock.sleep(due.saturating_sub(clock.monotonic())).await;
    }
}

impl Driver {
    /// Decides about keys that are ready and starts applying. Returns whether there are more.
    fn decide(&mut self) -> bool {
        if !self.unknown.is_empty() {
            return false;
        }
        for _ in 0..TURN_MAX {
            if self.applying.len() >= APPLYING_MAX {
                return false;
            }
            let now = self.clock.monotonic();
            let Some(item) = self.queue.pop(now) else { return false };
            let waited = self.waiting.get(&item).map_or(Duration::ZERO, |since| now.saturating_sub(*since));
            let moment = Moment { now: self.clock.now(), waited };
            let controller = &self.controllers[item.0];
            let decision = controller.reconcile(&self.seen, &item.1, moment);
            tracing::debug!(controller = controller.name(), key = ?item.1, ?decision, "decided");
            if decision.waiting {
                self.waiting.entry(item.clone()).or_insert(now);
            } else {
                self.waiting.remove(&item);
            }
            if decision.actions.is_empty() {
                self.finish(&item, decision.requeue_after);
                continue;
            }
            let hands = self.hands(item.0);
            self.applying.spawn(async move {
                let applied = hands.apply_all(decision.actions).await;
                (item, decision.requeue_after, applied)
            });
        }
        self.queue.is_ready()
    }

    fn hands(&self, controller: usize) -> Hands {
        Hands {
            client: self.client.clone(),
            recorder: self.recorder.clone(),
            controller: self.controllers[controller].name(),
            fault: self.fault.clone(),
        }
    }

    fn finish(&mut self, item: &Item, requeue_after: Option<Duration>) {
        self.queue.done(item);
        if let Some(after) = requeue_after {
            self.queue.add_at(item.clone(), self.clock.monotonic() + after);
        }
    }

    fn applied(&mut self, item: Item, requeue_after: Option<Duration>, applied: Applied) {
        let Applied { wrote, result } = applied;
        let outcome = match result {
            None | Some(Ok(true)) => Outcome::Done { requeue_after },
            // What was seen lags behind what is.
            Some(Ok(false)) => Outcome::Retry,
            Some(Err(error)) => {
                let controller = self.controllers[item.0].name();
                if error.is_conflict() {
                    tracing::debug!(controller, key = ?item.1, %error, "decided on an old version");
                } else {
                    tracing::warn!(controller, key = ?item.1, %error, "will be tried again");
                    let now = self.clock.now();
                    let told = self.controllers[item.0].failed(&self.seen, &item.1, &error, now);
                    if !told.is_empty() {
                        let hands = self.hands(item.0);
                        self.applying
                            .spawn(async move { (item, None, hands.tell_failure(told, wrote).await) });
                        return;
                    }
                }
                Outcome::Retry
            }
        };
        self.park(item, wrote, outcome);
    }

    /// Goes on with the key once what it wrote has been seen, which may be now.
    fn park(&mut self, item: Item, wrote: Wrote, outcome: Outcome) {
        if let Some((item, outcome)) = self.parked.park(item, wrote, outcome) {
            self.settle(&item, outcome);
        }
    }

    fn settle(&mut self, item: &Item, outcome: Outcome) {
        match outcome {
            Outcome::Done { requeue_after } => self.finish(item, requeue_after),
            Outcome::Retry => self.queue.retry(item, self.clock.monotonic()),
        }
    }

    fn saw(&mut self, kind: KindRef, batch: Batch, revision: u64) {
        for event in batch {
            match event {
                Event::Restarted(objects) => {
                    let there: BTreeSet<(&str, &str)> = objects
                        .iter()
                        .map(|object| (snapshot::namespace(&**object), snapshot::name(&**object)))
                        .collect();
                    let gone: Vec<_> = self
                        .seen
                        .all(kind)
                        .filter(|o| !there.contains(&(snapshot::namespace(&***o), snapshot::name(&***o))))
                        .cloned()
                        .collect();
                    for object in gone {
                        self.removed(kind, &object);
                    }
                    for object in &objects {
                        self.changed(kind, object.clone());
                    }
                    self.unknown.remove(&kind);
                }
                Event::Applied(object) => self.changed(kind, object),
                Event::Deleted(object) => self.removed(kind, &object),
            }
        }
        for (item, outcome) in self.parked.told(kind, revision) {
            self.settle(&item, outcome);
        }
    }

    fn changed(&mut self, kind: KindRef, object: Arc<dyn Object>) {
        let old = self.seen.insert(kind, object.clone());
        self.wake(&Change { kind, old: old.as_ref(), new: Some(&object) });
    }

    fn removed(&mut self, kind: KindRef, object: &Arc<dyn Object>) {
        let old = self.seen.remove(kind, snapshot::namespace(&**object), snapshot::name(&**object));
        self.wake(&Change { kind, old: old.as_ref().or(Some(object)), new: None });
    }

    fn wake(&mut self, change: &Change<'_>) {
        for (number, controller) in self.controllers.iter().enumerate() {
            controller.wakes(&self.seen, change, &mut |key| self.queue.add((number, key)));
        }
    }
}

#[cfg(test)]
mod tests;
