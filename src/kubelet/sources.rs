//! ConfigMaps, Secrets and ServiceAccounts that pods use, and the news that one has changed.
//!
//! What a start needs is read from the API, so it is never older than the pod that reads it. After
//! that one watch per kind tells all pods of the process of changes: begun when the first pod asks
//! and ended when a change finds nobody asking. A change is taken apart once, however many pods see
//! it, shown in the volumes that several pods share, and is held only while one of them does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::api::{ApiError, NodeApi};
use super::content::{Content, Contents, HasValues, revision};
use super::inbox::{Inbox, SourceNews};
use super::volume::Live;
use crate::client::{self, Client, Select};
use crate::kind::Typed;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    ConfigMap,
    Secret,
    /// Shows nothing, but must be there for its tokens.
    Account,
}

/// A ConfigMap, Secret or ServiceAccount in the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) kind: SourceKind,
    pub(crate) name: String,
}

/// As `kubectl` names it: `configmap/settings`.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            SourceKind::ConfigMap => write!(f, "configmap/{}", self.name),
            SourceKind::Secret => write!(f, "secret/{}", self.name),
            SourceKind::Account => write!(f, "serviceaccount/{}", self.name),
        }
    }
}

impl Source {
    pub(crate) fn config_map(name: &str) -> Self {
        Self { kind: SourceKind::ConfigMap, name: name.to_owned() }
    }

    pub(crate) fn secret(name: &str) -> Self {
        Self { kind: SourceKind::Secret, name: name.to_owned() }
    }

    pub(crate) fn account(name: &str) -> Self {
        Self { kind: SourceKind::Account, name: name.to_owned() }
    }
}

/// Sources of one namespace as they are now; what is not in it does not exist.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Arc<Secret>>,
    pub(crate) accounts: BTreeMap<String, Arc<ServiceAccount>>,
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
            SourceKind::Account if !found.accounts.contains_key(&name) => {
                if let Some(account) = present(api.account(namespace, &name).await)? {
                    found.accounts.insert(name, account);
                }
            }
            SourceKind::ConfigMap | SourceKind::Secret | SourceKind::Account => {}
        }
    }
    Ok(found)
}

/// Reads the contents of sources of `namespace`; an absent one is no error.
pub(crate) async fn fetch_contents(
    api: &dyn NodeApi,
    namespace: &str,
    sources: Vec<Source>,
    shared: &Sources,
) -> Result<Contents, ApiError> {
    let found = fetch(api, namespace, sources.iter().cloned()).await?;
    let content = |source: &Source| match source.kind {
        SourceKind::ConfigMap => {
            found.config_maps.get(&source.name).map(|map| shared.content(namespace, &**map))
        }
        SourceKind::Secret => found.secrets.get(&source.name).map(|map| shared.content(namespace, &**map)),
        SourceKind::Account => found.accounts.get(&source.name).map(|one| shared.content(namespace, &**one)),
    };
    Ok(sources.iter().filter_map(|source| Some((source.clone(), content(source)?))).collect())
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
type ByName = BTreeMap<(String, String), Followed>;

#[derive(Default)]
struct State {
    next_id: u64,
    followed: BTreeMap<SourceKind, ByName>,
    watched: Vec<SourceKind>,
}

/// A source that somebody wants to hear of.
#[derive(Default)]
struct Followed {
    /// By the subscription's number, since every pod asks for the cluster's authority.
    subscribers: BTreeMap<u64, Arc<Inbox>>,
    /// Volumes of several pods that show it.
    live: Vec<Weak<Live>>,
    /// What somebody read last, to be shared by whoever reads the same revision.
    read: Weak<Content>,
    /// What the watch told last; `None` if that is not known.
    latest: Option<Latest>,
}

/// A source as of a revision.
#[derive(Clone)]
pub(crate) struct Latest {
    /// Of its last change, or of its deletion.
    pub(crate) revision: u64,
    /// `None`: it does not exist.
    pub(crate) content: Option<Arc<Content>>,
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

    /// Without an API.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(None, CancellationToken::new())
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
            let by_name = state.followed.entry(key.0).or_default();
            by_name.entry(key.1.clone()).or_default().subscribers.insert(id, inbox.clone());
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
                        SourceKind::Account => sources.follow::<ServiceAccount>(&client, kind).await,
                    }
                } => {}
            }
        });
    }

    async fn follow<K: Typed + HasValues>(&self, client: &Client, kind: SourceKind) {
        let mut watcher = client.watch::<K>(Select::default());
        while let Some(event) = watcher.next().await {
            let wanted = match event {
                client::Event::Restarted(_) => self.restarted(kind),
                client::Event::Applied(object) => {
                    self.told(kind, object.metadata(), || Some(Content::of(&*object)))
                }
                client::Event::Deleted(object) => self.told(kind, object.metadata(), || None),
            };
            if !wanted {
                return;
            }
        }
        self.state().watched.retain(|watched| *watched != kind);
    }

    /// Anything may have changed. Whether anybody still asks; if not, the watch counts as ended.
    fn restarted(&self, kind: SourceKind) -> bool {
        let mut state = self.state();
        let Some(by_name) = state.asked_for(kind) else { return false };
        let mut inboxes = Vec::new();
        for followed in by_name.values_mut() {
            followed.latest = None;
            inboxes.extend(followed.subscribers.values().cloned());
        }
        drop(state);
        inboxes.iter().for_each(|inbox| inbox.sources_changed(SourceNews::Unknown));
        true
    }

    /// One object has changed, come or gone, in a way that is not known here. Whether anybody still
    /// asks, as above.
    #[cfg(test)]
    pub(crate) fn changed(&self, kind: SourceKind, namespace: String, name: String) -> bool {
        self.learned(kind, (namespace, name), SourceNews::Unknown, |_| None)
    }

    /// The watch told of an object, whose content `content` takes out if somebody wants it.
    pub(crate) fn told(
        &self,
        kind: SourceKind,
        meta: &ObjectMeta,
        content: impl FnOnce() -> Option<Content>,
    ) -> bool {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let key = (text(&meta.namespace), text(&meta.name));
        self.learned(kind, key, SourceNews::Told, |before| {
            let content = content().map(|content| Arc::new(content.sharing(before)));
            Some(Latest { revision: revision(meta), content })
        })
    }

    fn learned(
        &self,
        kind: SourceKind,
        key: (String, String),
        news: SourceNews,
        latest: impl FnOnce(Option<&Content>) -> Option<Latest>,
    ) -> bool {
        let mut state = self.state();
        let Some(by_name) = state.asked_for(kind) else { return false };
        let Some(followed) = by_name.get_mut(&key) else { return true };
        let before = followed.latest.take().and_then(|latest| latest.content);
        let latest = latest(before.as_deref());
        followed.latest.clone_from(&latest);
        followed.live.retain(|live| live.strong_count() > 0);
        let live: Vec<Arc<Live>> = followed.live.iter().filter_map(Weak::upgrade).collect();
        let inboxes: Vec<Arc<Inbox>> = followed.subscribers.values().cloned().collect();
        drop(state);
        if let Some(latest) = latest {
            let source = Source { kind, name: key.1 };
            live.iter().for_each(|live| live.told(&source, &latest));
        }
        inboxes.iter().for_each(|inbox| inbox.sources_changed(news));
        true
    }

    /// The volume of all pods of a namespace that define it by `spec`, which names `sources`.
    pub(crate) fn live(&self, namespace: &str, spec: &Volume, sources: &[Source]) -> Arc<Live> {
        let mut state = self.state();
        let first = sources.first().and_then(|source| state.followed(namespace, source));
        let mut known = first.into_iter().flat_map(|followed| &followed.live).filter_map(Weak::upgrade);
        if let Some(live) = known.find(|live| live.is_of(spec)) {
            return live;
        }
        let live = Arc::new(Live::of_many(spec));
        for source in sources {
            if let Some(followed) = state.followed(namespace, source) {
                followed.live.push(Arc::downgrade(&live));
            }
        }
        live
    }

    /// What the watch told last of each of `sources`, all of which are subscribed to; `None` where it
    /// has told nothing since it began.
    pub(crate) fn latest(&self, namespace: &str, sources: &[Source]) -> Vec<Option<Latest>> {
        let state = self.state();
        let latest = |source: &Source| {
            let by_name = state.followed.get(&source.kind)?;
            by_name.get(&(namespace.to_owned(), source.name.clone()))?.latest.clone()
        };
        sources.iter().map(latest).collect()
    }

    /// The content of an object, shared with the other pods that hold the same revision of it if it
    /// is subscribed to.
    fn content<K: Typed + HasValues>(&self, namespace: &str, object: &K) -> Arc<Content> {
        let meta = object.metadata();
        let mut state = self.state();
        let key = (namespace.to_owned(), meta.name.clone().unwrap_or_default());
        let Some(followed) = state.followed.get_mut(&K::SOURCE).and_then(|by_name| by_name.get_mut(&key))
        else {
            return Arc::new(Content::of(object));
        };
        let latest = followed.latest.as_ref().and_then(|latest| latest.content.clone());
        let same = |content: &Arc<Content>| content.version.revision == revision(meta);
        if let Some(content) = latest.filter(same).or_else(|| followed.read.upgrade().filter(same)) {
            return content;
        }
        let content = Arc::new(Content::of(object));
        followed.read = Arc::downgrade(&content);
        content
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }
}

impl State {
    fn followed(&mut self, namespace: &str, source: &Source) -> Option<&mut Followed> {
        self.followed.get_mut(&source.kind)?.get_mut(&(namespace.to_owned(), source.name.clone()))
    }

    /// What of a kind somebody asks for. If nothing is, its watch counts as ended.
    fn asked_for(&mut self, kind: SourceKind) -> Option<&mut ByName> {
        let Self { followed, watched, .. } = self;
        let by_name = followed.get_mut(&kind).filter(|by_name| !by_name.is_empty());
        if by_name.is_none() {
            watched.retain(|watched| *watched != kind);
        }
        by_name
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.sources.state();
        for (kind, key) in &self.keys {
            let Some(by_name) = state.followed.get_mut(kind) else { continue };
            if let Some(followed) = by_name.get_mut(key) {
                followed.subscribers.remove(&self.id);
                if followed.subscribers.is_empty() {
                    by_name.remove(key);
                }
            }
        }
    }
}
