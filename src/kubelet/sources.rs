//! ConfigMaps and Secrets that pods use, and the news that one has changed.
//!
//! Contents are read from the API when they are needed, so they are never older than the pod that
//! reads them. What is kept here is who wants to hear of changes: one watch per kind for the whole
//! process, begun when the first pod asks and ended when a change finds nobody asking.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio_util::sync::CancellationToken;

use super::api::{ApiError, NodeApi};
use super::inbox::Inbox;
use crate::client::{self, Client, Select};
use crate::kind::Typed;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    ConfigMap,
    Secret,
}

/// A ConfigMap or Secret in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) kind: SourceKind,
    pub(crate) name: String,
}

impl Source {
    pub(crate) fn config_map(name: &str) -> Self {
        Self { kind: SourceKind::ConfigMap, name: name.to_owned() }
    }

    pub(crate) fn secret(name: &str) -> Self {
        Self { kind: SourceKind::Secret, name: name.to_owned() }
    }
}

/// Sources of one namespace as they are now; what is not in it does not exist.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Arc<Secret>>,
}

impl Found {
    pub(crate) fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name).map(Arc::as_ref)
    }

    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name).map(Arc::as_ref)
    }
}

/// Reads sources of `namespace`; an absent one is no error.
pub(crate) async fn fetch(
    api: &dyn NodeApi,
    namespace: &str,
    sources: impl IntoIterator<Item = Source>,
) -> Result<Found, ApiError> {
    let mut found = Found::default();
    for source in sources {
        let name = source.name;
        match source.kind {
            SourceKind::ConfigMap if !found.config_maps.contains_key(&name) => {
                if let Some(map) = present(api.config_map(namespace, &name).await)? {
                    found.config_maps.insert(name, map);
                }
            }
            SourceKind::Secret if !found.secrets.contains_key(&name) => {
                if let Some(secret) = present(api.secret(namespace, &name).await)? {
                    found.secrets.insert(name, secret);
                }
            }
            SourceKind::ConfigMap | SourceKind::Secret => {}
        }
    }
    Ok(found)
}

fn present<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(ApiError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who wants to hear of changes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Sources(Arc<Inner>);

struct Inner {
    /// `None` in tests, which call [`Sources::changed`] themselves.
    client: Option<Client>,
    stop: CancellationToken,
    state: Mutex<State>,
}

/// By namespace and name.
type ByName = BTreeMap<(String, String), Vec<(u64, Arc<Inbox>)>>;

#[derive(Default)]
struct State {
    next_id: u64,
    /// Each with the subscription's number.
    subscribers: BTreeMap<SourceKind, ByName>,
    watched: Vec<SourceKind>,
}

/// Keeps one pod's inbox hearing of some sources.
pub(crate) struct Subscription {
    sources: Sources,
    id: u64,
    keys: Vec<(SourceKind, (String, String))>,
}

impl Sources {
    pub(crate) fn new(client: Option<Client>, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner { client, stop, state: Mutex::default() }))
    }

    /// From now on `inbox` hears of every change of `sources`; read them after this.
    pub(crate) fn subscribe(
        &self,
        namespace: &str,
        sources: impl IntoIterator<Item = Source>,
        inbox: &Arc<Inbox>,
    ) -> Subscription {
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        let mut keys = Vec::new();
        for source in sources {
            let key = (source.kind, (namespace.to_owned(), source.name));
            if keys.contains(&key) {
                continue;
            }
            let by_name = state.subscribers.entry(key.0).or_default();
            by_name.entry(key.1.clone()).or_default().push((id, inbox.clone()));
            if !state.watched.contains(&key.0) {
                state.watched.push(key.0);
                self.watch(key.0);
            }
            keys.push(key);
        }
        Subscription { sources: self.clone(), id, keys }
    }

    fn watch(&self, kind: SourceKind) {
        let Some(client) = self.0.client.clone() else { return };
        let sources = self.clone();
        tokio::spawn(async move {
            let stop = sources.0.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = async {
                    match kind {
                        SourceKind::ConfigMap => sources.follow::<ConfigMap>(&client, kind).await,
                        SourceKind::Secret => sources.follow::<Secret>(&client, kind).await,
                    }
                } => {}
            }
        });
    }

    async fn follow<K: Typed>(&self, client: &Client, kind: SourceKind) {
        let mut watcher = client.watch::<K>(Select::default());
        while let Some(event) = watcher.next().await {
            let wanted = match event {
                client::Event::Restarted(_) => self.restarted(kind),
                client::Event::Applied(object) | client::Event::Deleted(object) => {
                    let meta = object.metadata();
                    let text = |part: &Option<String>| part.clone().unwrap_or_default();
                    self.changed(kind, text(&meta.namespace), text(&meta.name))
                }
            };
            if !wanted {
                return;
            }
        }
        self.state().watched.retain(|watched| *watched != kind);
    }

    /// Anything may have changed. Whether anybody still asks; if not, the watch counts as ended.
    fn restarted(&self, kind: SourceKind) -> bool {
        self.tell(kind, |by_name| by_name.values().flatten().map(|(_, inbox)| inbox.clone()).collect())
    }

    /// One object has changed, come or gone. Whether anybody still asks, as above.
    pub(crate) fn changed(&self, kind: SourceKind, namespace: String, name: String) -> bool {
        self.tell(kind, |by_name| {
            by_name.get(&(namespace, name)).into_iter().flatten().map(|(_, inbox)| inbox.clone()).collect()
        })
    }

    fn tell(&self, kind: SourceKind, choose: impl FnOnce(&ByName) -> Vec<Arc<Inbox>>) -> bool {
        let mut state = self.state();
        let Some(by_name) = state.subscribers.get(&kind).filter(|by_name| !by_name.is_empty()) else {
            state.watched.retain(|watched| *watched != kind);
            return false;
        };
        let inboxes = choose(by_name);
        drop(state);
        for inbox in inboxes {
            inbox.sources_changed();
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.sources.state();
        for (kind, key) in &self.keys {
            let Some(by_name) = state.subscribers.get_mut(kind) else { continue };
            if let Some(subscribers) = by_name.get_mut(key) {
                subscribers.retain(|(id, _)| *id != self.id);
                if subscribers.is_empty() {
                    by_name.remove(key);
                }
            }
        }
    }
}
