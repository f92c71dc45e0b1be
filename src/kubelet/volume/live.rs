//! A volume as it is shown at the moment, to one pod or to all that would see the same.
//!
//! What comes from ConfigMaps and Secrets alone is the same for every pod that names it in the same
//! way, so a change of it is one step for a thousand pods: the watch's news is shown here and runs are
//! told, before pods hear of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use k8s_openapi::api::core::v1::Volume;

use super::super::config::Tracker;
use super::super::content::{Contents, Values, Versions, settle};
use super::super::sources::{Latest, Source};
use super::{Shown, named_by, shown_by_sources, sources_of};
use crate::runtime::fs;

pub(crate) struct Live {
    pub(super) volume: Arc<fs::Volume>,
    /// Whether it names ConfigMaps or Secrets, be they there or not.
    pub(super) has_sources: bool,
    seen: Mutex<Arc<Seen>>,
    shared: Option<Shared>,
}

/// What a volume shows at the moment.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Of its sources, each as of the change of its content.
    pub(crate) versions: Versions,
    pub(crate) settings: Arc<Values>,
}

/// Of a volume that several pods may show.
struct Shared {
    /// Without a name, which is each pod's own.
    spec: Volume,
    sources: Vec<Source>,
    known: Mutex<Known>,
    /// Runs to tell of changes; those that are over are forgotten now and then.
    trackers: Mutex<Vec<Weak<Tracker>>>,
}

#[derive(Default)]
struct Known {
    sources: BTreeMap<Source, Latest>,
    /// Why what is known cannot be shown; what was shown before stays.
    cause: Option<String>,
}

impl Known {
    fn contents(&self) -> Contents {
        let present = |(source, latest): (&Source, &Latest)| Some((source.clone(), latest.content.clone()?));
        self.sources.iter().filter_map(present).collect()
    }
}

impl Seen {
    /// After `settings` came from `sources` as they are in `contents`.
    fn after(&self, sources: Vec<Source>, contents: &Contents, settings: Values) -> Self {
        let version = |source: Source| {
            let new = contents.get(&source)?.version;
            let version = settle(self.versions.get(&source), new);
            Some((source, version))
        };
        let versions = sources.into_iter().filter_map(version).collect();
        let same = *self.settings == settings;
        Self { versions, settings: if same { self.settings.clone() } else { Arc::new(settings) } }
    }
}

/// The volume's definition, but for its name, if all that it shows comes from ConfigMaps and Secrets.
pub(super) fn shareable(volume: &Volume) -> Option<Volume> {
    let by_sources = match &volume.projected {
        Some(projected) => {
            let mut sources = projected.sources.iter().flatten();
            sources.all(|source| source.config_map.is_some() || source.secret.is_some())
        }
        None => volume.config_map.is_some() || volume.secret.is_some(),
    };
    let spec = by_sources.then(|| Volume { name: String::new(), ..volume.clone() })?;
    Some(spec).filter(|spec| !named_by(spec).is_empty())
}

impl Live {
    pub(super) fn empty_dir(bytes_max: u64) -> Self {
        let volume = fs::Volume::empty_dir(bytes_max);
        Self { volume, has_sources: false, seen: Mutex::default(), shared: None }
    }

    /// Of one pod, which has it shown anew with [`Live::show`].
    pub(super) fn of_one(volume: &Volume, contents: &Contents, shown: Shown) -> Self {
        let sources = sources_of(volume);
        Self {
            volume: fs::Volume::projected(shown.files),
            has_sources: !sources.is_empty(),
            seen: Mutex::new(Arc::new(Seen::default().after(sources, contents, shown.settings))),
            shared: None,
        }
    }

    /// Of all pods that define a volume by `spec`; shows nothing yet.
    pub(crate) fn of_many(spec: &Volume) -> Self {
        Self {
            volume: fs::Volume::projected(BTreeMap::new()),
            has_sources: true,
            seen: Mutex::default(),
            shared: Some(Shared {
                spec: spec.clone(),
                sources: named_by(spec),
                known: Mutex::default(),
                trackers: Mutex::default(),
            }),
        }
    }

    /// Whether it is that of all pods that define a volume by `spec`.
    pub(crate) fn is_of(&self, spec: &Volume) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.spec == *spec)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Shows what a pod has made of it.
    pub(super) fn show(&self, volume: &Volume, contents: &Contents, shown: Shown) {
        self.volume.replace(shown.files);
        let mut seen = self.seen.lock().expect("no holder panics");
        *seen = Arc::new(seen.after(sources_of(volume), contents, shown.settings));
    }

    pub(super) fn seen(&self) -> Arc<Seen> {
        self.seen.lock().expect("no holder panics").clone()
    }

    /// The watch told of a source: shows it and tells every run that sees it.
    pub(crate) fn told(&self, source: &Source, latest: &Latest) {
        self.learn(|known| Self::take(known, source, latest.clone()));
    }

    /// A pod has read its sources: shows what is newer than what is known, and says why that cannot
    /// be done. What is not in `contents` does not exist if they are `whole`, else it is unknown.
    pub(super) fn read(&self, contents: &Contents, whole: bool) -> Option<String> {
        self.learn(|known| {
            let mut changed = false;
            for source in self.shared.iter().flat_map(|shared| &shared.sources) {
                if let Some(content) = contents.get(source) {
                    let latest =
                        Latest { revision: content.version.revision, content: Some(content.clone()) };
                    changed |= Self::take(known, source, latest);
                } else if let Some(latest) = known.sources.get_mut(source).filter(|_| whole) {
                    changed |= latest.content.take().is_some();
                    // Should it have been read before it was made, the watch's word of it counts.
                    latest.revision = latest.revision.saturating_sub(1);
                }
            }
            changed
        })
    }

    fn take(known: &mut Known, source: &Source, latest: Latest) -> bool {
        let is_newer = known.sources.get(source).is_none_or(|old| old.revision < latest.revision);
        if is_newer {
            known.sources.insert(source.clone(), latest);
        }
        is_newer
    }

    /// Files first, then the news of them.
    fn learn(&self, learn: impl FnOnce(&mut Known) -> bool) -> Option<String> {
        let shared = self.shared.as_ref()?;
        let mut known = shared.known.lock().expect("no holder panics");
        let is_first = known.sources.is_empty();
        if !learn(&mut known) && !is_first {
            return known.cause.clone();
        }
        let contents = known.contents();
        known.cause = match shown_by_sources(&shared.spec, &contents) {
            Ok(shown) => {
                self.show(&shared.spec, &contents, shown);
                None
            }
            Err(cause) => Some(cause),
        };
        let cause = known.cause.clone();
        drop(known);
        if cause.is_none() {
            let trackers = shared.trackers.lock().expect("no holder panics").clone();
            for tracker in trackers.iter().filter_map(Weak::upgrade) {
                tracker.refresh();
            }
        }
        cause
    }

    /// From now on `tracker` is told of changes.
    pub(super) fn track(&self, tracker: &Arc<Tracker>) {
        if let Some(shared) = &self.shared {
            let mut trackers = shared.trackers.lock().expect("no holder panics");
            if trackers.len() == trackers.capacity() {
                trackers.retain(|tracker| tracker.strong_count() > 0);
            }
            trackers.push(Arc::downgrade(tracker));
        }
    }
}

#[cfg(test)]
mod tests;
