//! What a guest is told of its configuration: `coracle:config/revisions` (`wit/config.wit`) and
//! `wasi:config/store`.
//!
//! Files carry the content; here are only its revision, and the settings among it that a guest may
//! ask for by name. The node shows a new revision once the files have the new bytes, so a guest that
//! is woken by it reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use self::bindings::coracle::config::revisions;
use self::bindings::wasi::config::store;

#[cfg(test)]
mod tests;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "coracle:config/imports",
        require_store_data_send: true,
        imports: { default: trappable },
        with: { "wasi:io/poll": wasmtime_wasi::p2::bindings::io::poll },
    });
}

/// The configuration of one container, as it is now: shared by its node, which shows what changes,
/// and the guest. Shows nothing at first.
#[derive(Default)]
pub struct Config(watch::Sender<Arc<Shown>>);

/// What a guest may know.
#[derive(Default)]
pub struct Shown {
    /// Grows with every change of content.
    pub revision: u64,
    /// Ordered by kind and name.
    pub sources: Vec<Source>,
    /// For `wasi:config/store`; later ones win.
    pub settings: Vec<Settings>,
}

/// A ConfigMap or Secret, by its revision only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub kind: SourceKind,
    pub name: String,
    pub revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    ConfigMap,
    Secret,
}

/// Values by key, shared with other containers; those that are not UTF-8 are passed over.
#[derive(Clone)]
pub struct Settings {
    pub values: Arc<BTreeMap<String, Bytes>>,
    /// Only the value of this key, and those of keys below it as a directory.
    pub part: Option<Arc<str>>,
}

impl Config {
    pub fn show(&self, shown: Shown) {
        self.0.send_replace(Arc::new(shown));
    }

    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.0.borrow().clone()
    }
}

impl Shown {
    fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find_map(|settings| {
            let value = settings.values.get(key).filter(|_| settings.includes(key))?;
            std::str::from_utf8(value).ok()
        })
    }

    fn all(&self) -> BTreeMap<&str, &str> {
        let pairs = self.settings.iter().flat_map(|settings| {
            settings
                .values
                .iter()
                .filter(|(key, _)| settings.includes(key))
                .filter_map(|(key, value)| Some((key.as_str(), std::str::from_utf8(value).ok()?)))
        });
        pairs.collect()
    }
}

impl Settings {
    fn includes(&self, key: &str) -> bool {
        self.part.as_deref().is_none_or(|part| {
            key.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// The part of a guest's store that these interfaces need.
pub(super) trait HasConfig: Send {
    fn config(&mut self) -> ConfigView<'_>;
}

pub(super) struct ConfigView<'a> {
    /// `None` is a configuration that has nothing and never changes.
    pub(super) config: Option<&'a Config>,
    pub(super) table: &'a mut ResourceTable,
}

struct HasConfigView;

impl HasData for HasConfigView {
    type Data<'a> = ConfigView<'a>;
}

/// Adds the interfaces to `linker`.
pub(super) fn add_to_linker<T: HasConfig + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    revisions::add_to_linker::<T, HasConfigView>(linker, T::config)?;
    store::add_to_linker::<T, HasConfigView>(linker, T::config)
}

impl ConfigView<'_> {
    fn shown(&self) -> Arc<Shown> {
        self.config.map(Config::shown).unwrap_or_default()
    }
}

impl revisions::Host for ConfigView<'_> {
    fn current(&mut self) -> wasmtime::Result<u64> {
        Ok(self.shown().revision)
    }

    fn sources(&mut self) -> wasmtime::Result<Vec<revisions::Source>> {
        let shown = self.shown();
        let sources = shown.sources.iter().map(|source| revisions::Source {
            kind: match source.kind {
                SourceKind::ConfigMap => revisions::SourceKind::ConfigMap,
                SourceKind::Secret => revisions::SourceKind::Secret,
            },
            name: source.name.clone(),
            revision: source.revision,
        });
        Ok(sources.collect())
    }

    fn subscribe(&mut self, seen: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let news = self.config.map(|config| config.0.subscribe());
        let change = self.table.push(Change { seen, news })?;
        subscribe(self.table, change)
    }
}

/// Waits for a revision other than the one seen.
struct Change {
    seen: u64,
    news: Option<watch::Receiver<Arc<Shown>>>,
}

#[async_trait]
impl Pollable for Change {
    async fn ready(&mut self) {
        let moved = match &mut self.news {
            // The guest's own store holds on to the sender, so there is no end of news.
            Some(news) => news.wait_for(|shown| shown.revision != self.seen).await.is_ok(),
            None => self.seen != 0,
        };
        if !moved {
            std::future::pending::<()>().await;
        }
    }
}

impl store::Host for ConfigView<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.shown().get(&key).map(str::to_owned)))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        let shown = self.shown();
        let pairs = shown.all().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(Ok(pairs.collect()))
    }
}
