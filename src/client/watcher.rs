//! A list and the watch that continues it, resumed for as long as somebody listens.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Client, Select, decoded};
use crate::apiserver::{Response, Verb, WatchEvent, WatchStream};
use crate::kind::{Kind, Object, Typed, object};

/// What a watcher tells; `K` is a type, or `dyn Object` for a kind known only at run time.
#[derive(Debug)]
pub enum Event<K: ?Sized> {
    /// The whole state: at the start, and again after a gap in the history. What is not in it is gone.
    Restarted(Vec<Arc<K>>),
    Applied(Arc<K>),
    /// The last content.
    Deleted(Arc<K>),
}

/// Seconds that an in-process watch may last: no client is on the other side that could have gone
/// unnoticed, and ending it would only wake an idle cluster.
const WATCH_SECONDS: u64 = 365 * 24 * 3600;

/// Watches objects of a kind known at run time.
pub struct AnyWatcher {
    client: Client,
    kind: &'static Kind,
    select: Select,
    /// Everything up to here has been told; 0 before the first list.
    revision: u64,
    stream: Option<WatchStream>,
}

impl AnyWatcher {
    pub(super) fn new(client: Client, kind: &'static Kind, select: Select) -> Self {
        Self { client, kind, select, revision: 0, stream: None }
    }

    /// The next changes, at least one: all that are ready. `None` once the API refuses, which it
    /// does only when it is shut down or the user may not watch.
    pub async fn next_batch(&mut self) -> Option<Vec<Event<dyn Object>>> {
        loop {
            if self.revision == 0 {
                let (revision, records) = self.client.list_records(self.kind, &self.select).await.ok()?;
                self.revision = revision;
                let objects = records.iter().map(|record| decoded(record, self.kind)).collect();
                return Some(vec![Event::Restarted(objects)]);
            }
            if self.stream.is_none() {
                self.stream = Some(self.open().await?);
            }
            let batch = self.stream.as_mut().expect("opened above").next().await;
            let Some(batch) = batch else {
                self.stream = None;
                continue;
            };
            let events = self.take(batch);
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    /// Up to where everything has been told; 0 before the first list, and while the state is to be
    /// listed again.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    async fn open(&self) -> Option<WatchStream> {
        let namespace = self.select.namespace.clone().unwrap_or_default();
        let mut request = self.client.request(Verb::Watch, self.kind, &namespace, None);
        request.options = self.select.options();
        request.options.resource_version = Some(self.revision.to_string());
        request.options.timeout_seconds = Some(WATCH_SECONDS);
        match self.client.answer(request).await {
            Ok(Response::Watch(stream)) => Some(stream),
            Ok(_) => unreachable!("a watch is answered with a watch"),
            Err(error) => {
                tracing::error!(kind = ?self.kind, %error, "cannot watch");
                None
            }
        }
    }

    fn take(&mut self, batch: Vec<WatchEvent>) -> Vec<Event<dyn Object>> {
        let mut events = Vec::with_capacity(batch.len());
        for event in batch {
            match event {
                WatchEvent::Added(record) | WatchEvent::Modified(record) => {
                    self.revision = record.revision;
                    events.push(Event::Applied(decoded(&record, self.kind)));
                }
                WatchEvent::Deleted(record) => {
                    self.revision = record.revision;
                    events.push(Event::Deleted(decoded(&record, self.kind)));
                }
                WatchEvent::Bookmark { revision, .. } => self.revision = revision,
                // Too old, most likely: begin again with a list.
                WatchEvent::Error(_) => {
                    self.revision = 0;
                    self.stream = None;
                }
            }
        }
        events
    }
}

/// Watches objects of type `K`.
pub struct Watcher<K> {
    inner: AnyWatcher,
    ready: VecDeque<Event<K>>,
    of: PhantomData<K>,
}

impl<K: Typed> Watcher<K> {
    pub(super) fn new(inner: AnyWatcher) -> Self {
        Self { inner, ready: VecDeque::new(), of: PhantomData }
    }

    /// The next change; `None` as [`AnyWatcher::next_batch`].
    pub async fn next(&mut self) -> Option<Event<K>> {
        if self.ready.is_empty() {
            self.ready = self.next_batch().await?.into();
        }
        self.ready.pop_front()
    }

    /// The next changes, at least one: all that are ready.
    pub async fn next_batch(&mut self) -> Option<Vec<Event<K>>> {
        if !self.ready.is_empty() {
            return Some(self.ready.drain(..).collect());
        }
        let batch = self.inner.next_batch().await?;
        Some(batch.into_iter().map(typed_event).collect())
    }
}

fn typed_event<K: Typed>(event: Event<dyn Object>) -> Event<K> {
    let typed = |object| object::downcast_arc(object).expect("a kind's records hold objects of its type");
    match event {
        Event::Restarted(objects) => Event::Restarted(objects.into_iter().map(typed).collect()),
        Event::Applied(object) => Event::Applied(typed(object)),
        Event::Deleted(object) => Event::Deleted(typed(object)),
    }
}
