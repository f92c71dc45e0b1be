//! What one run of a container sees of ConfigMaps and Secrets: which revisions, and what follows
//! from a change.
//!
//! Environment variables stay as they were when the run began; mounts follow the volumes. A
//! [`Tracker`] keeps both, tells the guest after the files have changed, and says which content the
//! run began with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::content::{Contents, Values, Version, Versions};
use super::sources::{Source, SourceKind};
use super::volume::{Part, Seen, Volumes};
use crate::runtime::config::{self, Config, Settings, Shown};

/// On the pod: which revisions each container sees, as JSON by container and source.
pub(crate) const REVISIONS: &str = "coracle.dev/config-revisions";

/// Follows one run of a container.
#[derive(Default)]
pub(crate) struct Tracker {
    feed: Arc<Config>,
    run: Mutex<Option<Run>>,
    has_news: AtomicBool,
}

/// How a run begins.
pub(crate) struct Beginning {
    /// The sources that the environment names, and those that it was made of.
    pub(crate) env_sources: Vec<Source>,
    pub(crate) env: Versions,
    /// What of it `wasi:config/store` tells.
    pub(crate) settings: Values,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) parts: Vec<Part>,
    /// Whether the spec names any source, be it there or not.
    pub(crate) has_sources: bool,
}

struct Run {
    beginning: Beginning,
    settings: Arc<Values>,
    /// What each part showed at first, and what its volume has now; a frozen part does not follow.
    first: Vec<Arc<Seen>>,
    now: Vec<Arc<Seen>>,
    revision: u64,
}

impl Tracker {
    /// For the guest.
    pub(crate) fn feed(&self) -> Arc<Config> {
        self.feed.clone()
    }

    /// The run is about to begin.
    pub(crate) fn begin(self: &Arc<Self>, mut beginning: Beginning) {
        // Before looking, so that no change is missed.
        beginning.volumes.track(&beginning.parts, self);
        let mut slot = self.run.lock().expect("no holder panics");
        let settings = Arc::new(std::mem::take(&mut beginning.settings));
        let first = beginning.seen();
        let mut run = Run { beginning, settings, now: first.clone(), first, revision: 0 };
        let sees = run.sees();
        run.revision = next_revision(0, &Versions::new(), &sees);
        self.feed.show(run.shown(sees));
        *slot = Some(run);
    }

    /// The volumes may have changed; what they show now is in their files. Tells the guest if the run
    /// sees other content than before.
    pub(crate) fn refresh(&self) {
        let mut slot = self.run.lock().expect("no holder panics");
        let Some(run) = &mut *slot else { return };
        let now = run.beginning.seen();
        if now.iter().zip(&run.now).all(|(now, before)| Arc::ptr_eq(now, before)) {
            return;
        }
        let before = run.sees();
        run.now = now;
        let after = run.sees();
        let revision = next_revision(run.revision, &before, &after);
        if revision != run.revision {
            run.revision = revision;
            self.feed.show(run.shown(after));
            self.has_news.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the guest was told of a change since this was last asked.
    pub(crate) fn take_news(&self) -> bool {
        self.has_news.swap(false, Ordering::Relaxed)
    }

    /// A source whose content is no longer what the run began with, and its revision now. `known` is
    /// what the node knows of the sources of the environment.
    pub(crate) fn outdated(&self, known: &Contents) -> Option<(Source, u64)> {
        let slot = self.run.lock().expect("no holder panics");
        let run = slot.as_ref()?;
        let named = run.beginning.env_sources.iter();
        let env = named.filter_map(|source| Some((source, known.get(source)?.version)));
        newer(&run.beginning.env, env).or_else(|| {
            run.first.iter().zip(&run.now).find_map(|(first, now)| {
                newer(&first.versions, now.versions.iter().map(|(source, version)| (source, *version)))
            })
        })
    }

    /// What the run sees, for the annotation; `None` before it begins and where it has no sources.
    pub(crate) fn report(&self) -> Option<Value> {
        let slot = self.run.lock().expect("no holder panics");
        let run = slot.as_ref().filter(|run| run.beginning.has_sources)?;
        Some(report(&run.beginning.env, &run.mounted()))
    }
}

impl Beginning {
    fn seen(&self) -> Vec<Arc<Seen>> {
        self.parts.iter().map(|part| self.volumes.seen(&part.volume)).collect()
    }
}

impl Run {
    /// What each part shows.
    fn parts(&self) -> impl Iterator<Item = (&Part, &Arc<Seen>)> {
        let both = self.beginning.parts.iter().zip(self.first.iter().zip(&self.now));
        both.map(|(part, (first, now))| (part, if part.frozen { first } else { now }))
    }

    fn mounted(&self) -> Versions {
        let mut mounted = Versions::new();
        for (_, seen) in self.parts() {
            mounted.extend(seen.versions.iter().map(|(source, version)| (source.clone(), *version)));
        }
        mounted
    }

    /// Everything, the newest of what is seen in several ways.
    fn sees(&self) -> Versions {
        let mut sees = self.mounted();
        for (source, version) in &self.beginning.env {
            let newest = sees.entry(source.clone()).or_insert(*version);
            if newest.revision < version.revision {
                *newest = *version;
            }
        }
        sees
    }

    fn shown(&self, sees: Versions) -> Shown {
        let sources = sees.into_iter().filter_map(|(source, version)| {
            let kind = match source.kind {
                SourceKind::ConfigMap => config::SourceKind::ConfigMap,
                SourceKind::Secret => config::SourceKind::Secret,
                SourceKind::Account => return None,
            };
            Some(config::Source { kind, name: source.name, revision: version.revision })
        });
        let env = Settings { values: self.settings.clone(), part: None };
        let parts = self
            .parts()
            .map(|(part, seen)| Settings { values: seen.settings.clone(), part: part.path.clone() });
        let settings = std::iter::once(env).chain(parts).filter(|settings| !settings.values.is_empty());
        Shown { revision: self.revision, sources: sources.collect(), settings: settings.collect() }
    }
}

/// The revision of a configuration that was `before` at revision `old` and is `after`: the highest of
/// its sources', which a source that goes away cannot lower.
///
/// One more than before is a revision that nothing else has: whatever took the source away was one,
/// and what comes later is higher.
fn next_revision(old: u64, before: &Versions, after: &Versions) -> u64 {
    let highest = after.values().map(|version| version.revision).max().unwrap_or_default();
    let same = before.len() == after.len()
        && before
            .iter()
            .all(|(source, version)| after.get(source).is_some_and(|new| new.hash == version.hash));
    match (same, highest > old) {
        (true, _) => old,
        (false, true) => highest,
        (false, false) => old + 1,
    }
}

/// The first source with newer content than a run began with. One that is gone is none: a run goes on
/// without it, as it does for Kubernetes.
fn newer<'a>(
    began: &Versions,
    now: impl IntoIterator<Item = (&'a Source, Version)>,
) -> Option<(Source, u64)> {
    now.into_iter().find_map(|(source, now)| {
        let differs =
            began.get(source).is_none_or(|began| began.hash != now.hash && began.revision < now.revision);
        differs.then(|| (source.clone(), now.revision))
    })
}

/// By source: the revision of its content as mounted, else of that in the environment; where both
/// are and differ, the latter is `envRevision`. A ConfigMap's content has its hash beside it; a
/// Secret's does not, since whoever may read pods could check guesses with it.
fn report(env: &Versions, mounted: &Versions) -> Value {
    let mut all = env.clone();
    all.extend(mounted.iter().map(|(source, version)| (source.clone(), *version)));
    let entry = |(source, version): (&Source, &Version)| {
        let mut entry = json!({"revision": version.revision});
        if source.kind == SourceKind::ConfigMap {
            entry["hash"] = json!(version.hash.to_string());
        }
        if let Some(older) = env.get(source).filter(|env| env.hash != version.hash) {
            entry["envRevision"] = json!(older.revision);
        }
        (source.to_string(), entry)
    };
    Value::Object(all.iter().map(entry).collect())
}

#[cfg(test)]
mod tests;
