//! `jobs/queue`: the work of a Job, handed out piece by piece, which is ours.
//!
//! ```text
//! GET  /apis/batch/v1/namespaces/NS/jobs/NAME/queue
//!      {"kind":"WorkQueue","apiVersion":"coracle.dev/v1","waiting":3,"claimed":1,"failed":0,
//!       "items":[{"id":…,"state":"Claimed","attempts":1,"worker":…,"failed":why}]}    the first hundred
//! POST one of
//!      {"add":{"items":["text",…],"base64":["…",…]}}                   → {"added":2}
//!      {"claim":{"worker":"w","leaseSeconds":30}}                      → {"state":"item","id":…,"token":7,
//!                                                                         "attempt":1,"base64":"…"}
//!                                                                       or {"state":"waiting","until":time}
//!                                                                       or {"state":"done"}
//!      {"complete":{"id":…,"token":7}}                                 → {}
//!      {"fail":{"id":…,"token":7,"why":"…"}}                           → {}
//!      {"extend":{"id":…,"token":7,"leaseSeconds":30}}                 → {"token":9}
//! ```
//!
//! Every item is done at least once. Who claims one has it until the lease expires; then it is handed out
//! again. The token is the revision at which it was handed out: when that has changed, somebody else has
//! the item, and what the first says of it is refused (409). An item that was handed out
//! `coracle.dev/queue-attempts` times without being done is failed: it stays to be looked at, and is
//! handed out no more.
//!
//! `done` is said when nothing waits and nobody has an item, so that all peers are done too. It is not
//! said while `coracle.dev/queue-open` is `"true"` on the Job, or `coracle.dev/queue-from` is being read.
//! `waiting` is said when others still have items; at `until` the first lease of theirs expires.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Inner, Target, decoded, store_failed};
use crate::apiserver::decode;
use crate::apiserver::request::{Body, Response};
use crate::apiserver::status::Error;
use crate::kind::queue_item::{self, QueueItem, State};
use crate::kind::{Object, job};
use crate::store::{CommitError, Expect, Key, Range, Record};

/// Items that an answer shows.
const SHOWN_MAX: usize = 100;
/// A lease may last this long, in seconds: a day.
const LEASE_SECONDS_MAX: i64 = 86_400;
/// Characters of a reason that are kept.
const WHY_CHARS_MAX: usize = 1024;
/// How often a claim is tried when others take the items it finds.
const CLAIM_TRIES_MAX: usize = 64;

/// What hands out items and their places.
#[derive(Default)]
pub(super) struct Desk(Mutex<Open>);

#[derive(Default)]
struct Open {
    /// Items on their way into somebody's hands, so that others look for another at once.
    claiming: BTreeSet<Key>,
    /// The last place given to an added item.
    place: i128,
}

impl Desk {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of so many places, by which items added later come after those added before.
    fn places(&self, now: Timestamp, count: usize) -> i128 {
        let mut open = self.open();
        let first = now.as_nanosecond().max(open.place + 1);
        open.place = first + i128::try_from(count).unwrap_or_default();
        first
    }
}

#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Asked(Option<Ask>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Ask {
    Add(Add),
    Claim(Claim),
    Complete(Held),
    Fail(Fail),
    Extend(Extend),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Add {
    #[serde(default)]
    items: Vec<String>,
    #[serde(default)]
    base64: Vec<ByteString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Claim {
    worker: String,
    lease_seconds: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Held {
    id: String,
    token: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fail {
    id: String,
    token: u64,
    #[serde(default)]
    why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extend {
    id: String,
    token: u64,
    lease_seconds: i64,
}

/// A Job's queue: where its items are.
struct Queue<'a> {
    target: &'a Target,
    job: &'a Job,
    name: &'a str,
}

impl Inner {
    /// What is in the queue.
    pub(super) fn show_queue(&self, target: &Target) -> Result<Response, Error> {
        let record = self.find(target)?;
        let job = decoded(target.kind, &record);
        let queue = Queue::of(target, &*job)?;
        let now = self.clock.now();
        let mut counts = [0_u64; 3];
        let mut items = Vec::new();
        for record in
            self.store.list(&queue.range(), Some(queue.after()), None, &|one| queue.has(one)).records
        {
            let Some((item, state)) = state(&record, now) else { continue };
            counts[state as usize] += 1;
            if items.len() < SHOWN_MAX {
                let mut shown = json!({ "id": &*record.key.name, "state": state.name(), "attempts": item.status.attempts });
                if let Some(worker) = item.status.worker.as_ref().filter(|_| state == State::Claimed) {
                    shown["worker"] = json!(worker);
                }
                if let Some(why) = &item.status.failed {
                    shown["failed"] = json!(why);
                }
                items.push(shown);
            }
        }
        let [waiting, claimed, failed] = counts;
        Ok(Response::Document(json!({
            "kind": "WorkQueue", "apiVersion": "coracle.dev/v1",
            "waiting": waiting, "claimed": claimed, "failed": failed, "items": items,
        })))
    }

    /// Does what the body asks.
    pub(super) async fn use_queue(&self, target: &Target, body: Body) -> Result<Response, Error> {
        let asked: Asked = decode::document(body, "request to the queue")?;
        let record = self.find(target)?;
        let job = decoded(target.kind, &record);
        let queue = Queue::of(target, &*job)?;
        let answer = match asked.0 {
            None => {
                return Err(Error::bad_request(
                    "the request to the queue is empty: it must be one of add, claim, complete, fail, extend",
                ));
            }
            Some(Ask::Add(add)) => self.add(&queue, add).await?,
            Some(Ask::Claim(claim)) => self.claim(&queue, &claim).await?,
            Some(Ask::Complete(held)) => {
                let (record, _) = self.held(&queue, &held.id, held.token)?;
                self.remove(&record).await.map_err(|error| queue.lost(&held.id, &error))?;
                json!({})
            }
            Some(Ask::Fail(fail)) => {
                let (record, mut item) = self.held(&queue, &fail.id, fail.token)?;
                item.status.worker = None;
                item.status.lease_expires = None;
                if item.status.attempts >= queue.attempts_max() {
                    let why: String = fail.why.chars().take(WHY_CHARS_MAX).collect();
                    item.status.failed = Some(if why.is_empty() { "failed".to_owned() } else { why });
                }
                self.rewrite(&record, item).await.map_err(|error| queue.lost(&fail.id, &error))?;
                json!({})
            }
            Some(Ask::Extend(extend)) => {
                let (record, mut item) = self.held(&queue, &extend.id, extend.token)?;
                item.status.lease_expires = Some(self.lease(extend.lease_seconds)?);
                let record =
                    self.rewrite(&record, item).await.map_err(|error| queue.lost(&extend.id, &error))?;
                json!({ "token": record.revision })
            }
        };
        Ok(Response::Document(answer))
    }

    fn lease(&self, seconds: i64) -> Result<MicroTime, Error> {
        if !(1..=LEASE_SECONDS_MAX).contains(&seconds) {
            return Err(Error::bad_request(format!(
                "leaseSeconds is {seconds}: it must be between 1 and {LEASE_SECONDS_MAX}"
            )));
        }
        Ok(MicroTime(self.clock.now() + SignedDuration::from_secs(seconds)))
    }

    async fn add(&self, queue: &Queue<'_>, add: Add) -> Result<Value, Error> {
        if job::is_finished(queue.job) {
            let why = "it has ended, so nobody would do what is added to its queue";
            return Err(Error::conflict(queue.target.kind, queue.name, why));
        }
        let texts = add.items.into_iter().map(|text| ByteString(text.into_bytes()));
        let payloads: Vec<ByteString> = texts.chain(add.base64).collect();
        let items = Target {
            user: queue.target.user.clone(),
            kind: &queue_item::KIND,
            namespace: queue.target.namespace.clone(),
            name: None,
        };
        let added = payloads.len();
        // The order of names is that in which items are handed out.
        let places = self.desk.places(self.clock.now(), added)..;
        let creations = places.zip(payloads).map(|(place, payload)| {
            let item = queue_item::of(queue.job, &format!("{place:020}"), payload);
            self.create_object(&items, Box::new(item), false, Vec::new())
        });
        for created in futures_util::future::join_all(creations).await {
            created?;
        }
        Ok(json!({ "added": added }))
    }

    async fn claim(&self, queue: &Queue<'_>, claim: &Claim) -> Result<Value, Error> {
        let annotation = |key: &str| queue.job.metadata.annotations.as_ref()?.get(key);
        let is_filling = annotation(queue_item::FROM).is_some() && annotation(queue_item::FILLED).is_none();
        if is_filling {
            return Ok(json!({ "state": "waiting" }));
        }
        for _ in 0..CLAIM_TRIES_MAX {
            let expires = self.lease(claim.lease_seconds)?;
            let Search { found, claimed, until } = self.search(queue);
            let Some(record) = found else {
                let is_open = annotation(queue_item::OPEN).is_some_and(|open| open == "true");
                if !claimed && !is_open {
                    return Ok(json!({ "state": "done" }));
                }
                let until = until.map(|until| until.to_string());
                return Ok(json!({ "state": "waiting", "until": until }));
            };
            let taking = Taking { desk: &self.desk, key: &record.key };
            let Some((item, _)) = state(&record, self.clock.now()) else { continue };
            let mut item = (*item).clone();
            let gives_up = item.status.attempts >= queue.attempts_max();
            if gives_up {
                // Whoever had it did not even say that it failed.
                item.status.failed = Some(format!("not done after {} attempts", item.status.attempts));
                item.status.worker = None;
                item.status.lease_expires = None;
            } else {
                item.status.attempts += 1;
                item.status.worker = Some(claim.worker.clone());
                item.status.lease_expires = Some(expires);
            }
            let (attempt, payload) = (item.status.attempts, STANDARD.encode(&item.spec.payload.0));
            let written = self.rewrite(&record, item).await;
            drop(taking);
            match written {
                Ok(_) if gives_up => {}
                Ok(record) => {
                    return Ok(json!({
                        "state": "item", "id": &*record.key.name, "token": record.revision,
                        "attempt": attempt, "base64": payload,
                    }));
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error @ CommitError::Unwritable(_)) => return Err(store_failed(&error)),
            }
        }
        Ok(json!({ "state": "waiting" }))
    }

    /// The first item that waits, which is then being claimed; or what stands in the way.
    fn search(&self, queue: &Queue<'_>) -> Search {
        let now = self.clock.now();
        let mut open = self.desk.open();
        let seen = std::cell::RefCell::new((false, None::<Timestamp>));
        let free = |record: &Record| {
            if !queue.has(record) {
                return false;
            }
            let Some((item, state)) = state(record, now) else { return false };
            let (claimed, until) = &mut *seen.borrow_mut();
            match state {
                State::Failed => false,
                State::Waiting if open.claiming.contains(&record.key) => {
                    *claimed = true;
                    false
                }
                State::Waiting => true,
                State::Claimed => {
                    *claimed = true;
                    let expires = item.status.lease_expires.as_ref().map(|time| time.0);
                    *until = match (*until, expires) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (one, other) => one.or(other),
                    };
                    false
                }
            }
        };
        let found =
            self.store.list(&queue.range(), Some(queue.after()), Some(1), &free).records.into_iter().next();
        if let Some(record) = &found {
            open.claiming.insert(record.key.clone());
        }
        let (claimed, until) = seen.into_inner();
        Search { found, claimed, until }
    }

    /// The item, if the token is that of its last claim.
    fn held(&self, queue: &Queue<'_>, id: &str, token: u64) -> Result<(Arc<Record>, QueueItem), Error> {
        let record = self.store.get(&queue.key(id)).filter(|record| queue.has(record));
        let record = record.filter(|record| record.revision == token);
        let record = record.ok_or_else(|| queue.not_held(id))?;
        let object = decoded(&queue_item::KIND, &record);
        let item = object.downcast_ref::<QueueItem>().ok_or_else(|| Error::internal("not a QueueItem"))?;
        Ok((record, item.clone()))
    }

    async fn rewrite(&self, record: &Record, mut item: QueueItem) -> Result<Arc<Record>, CommitError> {
        item.metadata.resource_version = None;
        let encoded = item.encode();
        self.put(&record.key, Expect::Revision(record.revision), Box::new(item), encoded, None).await
    }
}

struct Search {
    found: Option<Arc<Record>>,
    /// Whether somebody has an item.
    claimed: bool,
    /// When the first lease expires.
    until: Option<Timestamp>,
}

/// Takes the key from the [`Desk`] when the claim is written, or given up with its request.
struct Taking<'a> {
    desk: &'a Desk,
    key: &'a Key,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.desk.open().claiming.remove(self.key);
    }
}

fn state(record: &Record, now: Timestamp) -> Option<(Arc<QueueItem>, State)> {
    let item = crate::kind::object::downcast_arc::<QueueItem>(decoded(&queue_item::KIND, record))?;
    let state = item.state(now);
    Some((item, state))
}

impl<'a> Queue<'a> {
    fn of(target: &'a Target, job: &'a dyn Object) -> Result<Self, Error> {
        let job = job.downcast_ref::<Job>().ok_or_else(|| Error::internal("not a Job"))?;
        Ok(Self { target, job, name: target.name()? })
    }

    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    fn range(&self) -> Range {
        Range { collection: queue_item::KIND.collection(), namespace: Some(self.namespace().into()) }
    }

    /// Before all items, in the order of keys.
    fn after(&self) -> (&str, &str) {
        (self.namespace(), self.name)
    }

    fn key(&self, id: &str) -> Key {
        Key { collection: queue_item::KIND.collection(), namespace: self.namespace().into(), name: id.into() }
    }

    /// Whether it is an item of this queue, by its name.
    fn has(&self, record: &Record) -> bool {
        record.key.name.strip_prefix(self.name).is_some_and(|rest| rest.starts_with('.'))
    }

    fn attempts_max(&self) -> i32 {
        let given = self.job.metadata.annotations.as_ref().and_then(|all| all.get(queue_item::ATTEMPTS));
        given.and_then(|text| text.parse().ok()).filter(|n| *n >= 1).unwrap_or(queue_item::ATTEMPTS_DEFAULT)
    }

    fn not_held(&self, id: &str) -> Error {
        let why =
            "the token is not that of its last claim: the lease expired and another has it, or it is done";
        Error::conflict(&queue_item::KIND, id, why)
    }

    fn lost(&self, id: &str, error: &CommitError) -> Error {
        match error {
            CommitError::Conflict { .. } => self.not_held(id),
            CommitError::Unwritable(_) => store_failed(error),
        }
    }
}
