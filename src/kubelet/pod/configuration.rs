//! A pod's configuration: the sources of its volumes, and what follows when they change.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::super::annotations::{self, ON_CONFIG_CHANGE, OnConfigChange};
use super::super::api::ApiError;
use super::super::config::REVISIONS;
use super::super::content::Contents;
use super::super::fields::Facts;
use super::super::handler;
use super::super::inbox::SourceNews;
use super::super::lifecycle::{Event, Slot};
use super::super::sources::{Latest, Source, fetch_contents};
use super::super::volume::{self, MountError, Volumes};
use super::super::{env, start};
use super::{Actor, Outcome, REPORT, RETRY};
use crate::client;

/// How long a pod may take to answer that it has heard of a change, and how often it is asked, at most.
const ANNOUNCEMENT: Duration = Duration::from_secs(10);
const ANNOUNCEMENTS_MAX: u32 = 5;

impl Actor {
    /// Does as the pod's annotations say from now on, and says which of them mean nothing.
    pub(super) fn heed_annotations(&mut self, tell: bool) {
        let wishes = annotations::wishes(&self.pod);
        let about = client::reference(&*self.pod, None);
        for complaint in wishes.complaints.into_iter().filter(|_| tell) {
            self.node.api.record(&about, true, "InvalidAnnotation", complaint);
        }
        if wishes.on_config_change == self.on_config_change {
            return;
        }
        self.on_config_change = wishes.on_config_change;
        match &self.on_config_change {
            OnConfigChange::Ignore | OnConfigChange::Http { .. } => {}
            OnConfigChange::Restart => {
                if self.env_sources.is_empty() {
                    let pod = self.pod.clone();
                    let slots = 0..self.life.containers.len();
                    let containers = slots.filter_map(|slot| start::container(&pod, slot));
                    self.env_sources = containers
                        .flat_map(|(container, _)| env::sources(&container).collect::<Vec<_>>())
                        .collect();
                }
                // What they are now decides, whenever they came to be so.
                if self.hears_config || self.env_sources.is_empty() {
                    self.inbox.sources_changed(SourceNews::Unknown);
                } else {
                    self.hear_config();
                }
            }
        }
    }

    /// What is to be known: what volumes need first.
    fn wanted(&self) -> Vec<Source> {
        let restarts = self.on_config_change == OnConfigChange::Restart;
        let env = self.env_sources.iter().filter(|_| restarts);
        self.volume_sources.iter().chain(env).cloned().collect()
    }

    /// A source has changed: takes what the watch has told, or reads what it has not.
    pub(super) fn sources_changed(&mut self, news: SourceNews) {
        if news == SourceNews::Unknown || self.fetching || self.volumes.is_none() {
            self.fetch_volumes();
            return;
        }
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let wanted = self.wanted();
        let latest = self.node.shared.sources.latest(namespace, &wanted);
        let contents = merge(&self.contents, wanted, latest);
        // One pod among a thousand that hear of it: only what has changed is made anew, unless something
        // was wrong, of which the whole is to be told.
        self.show(contents, !self.mount_errors.is_empty());
    }

    /// Reads the sources of the volumes, to make or to refresh them.
    pub(super) fn fetch_volumes(&mut self) {
        if self.fetching {
            self.fetch_again = true;
            return;
        }
        self.fetching = true;
        let sources = self.wanted();
        if sources.is_empty() {
            self.fetched(Ok(Contents::new()));
            return;
        }
        let (api, shared) = (self.node.api.clone(), self.node.shared.sources.clone());
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        self.tasks.push(Box::pin(async move {
            Outcome::Fetched(fetch_contents(&*api, &namespace, sources, &shared).await)
        }));
    }

    pub(super) fn fetched(&mut self, contents: Result<Contents, ApiError>) {
        self.fetching = false;
        if self.life.end.is_some() {
            return;
        }
        if std::mem::take(&mut self.fetch_again) {
            self.fetch_volumes();
            return;
        }
        let errors = match contents {
            Ok(contents) if self.volumes.is_some() => return self.show(contents, true),
            Ok(contents) => {
                let pod = self.pod.clone();
                let shared = &self.node.shared.sources;
                match Volumes::make(&self.facts(&pod), &contents, self.tokens.as_ref(), shared) {
                    Ok(volumes) => {
                        self.mount_errors.clear();
                        self.volumes = Some(Arc::new(volumes));
                        self.contents = contents;
                        self.step(Event::Prepared);
                        return;
                    }
                    // Tried again as soon as a source changes.
                    Err(errors) => told(&errors),
                }
            }
            Err(error) => {
                let clock = self.node.shared.clock;
                self.tasks.push(Box::pin(async move {
                    clock.sleep(RETRY).await;
                    Outcome::FetchAgain
                }));
                vec![format!("cannot read the sources of the pod's volumes: {error}")]
            }
        };
        self.say_mount_errors(errors);
    }

    /// Says what is wrong with the volumes, but for what was said last time.
    fn say_mount_errors(&mut self, errors: Vec<String>) {
        let about = client::reference(&*self.pod, None);
        for error in errors.iter().filter(|error| !self.mount_errors.contains(error)) {
            self.node.api.record(&about, true, "FailedMount", error.clone());
        }
        self.mount_errors = errors;
    }

    fn facts<'a>(&'a self, pod: &'a k8s_openapi::api::core::v1::Pod) -> Facts<'a> {
        Facts {
            pod,
            host_ip: self.addresses.host,
            pod_ip: self.addresses.pod.unwrap_or(Ipv4Addr::UNSPECIFIED),
            allocatable: &self.node.config.capacity,
        }
    }

    /// Shows contents in the volumes that are there, in `all` of them or in those whose sources have
    /// changed: first the files, then the news of them.
    fn show(&mut self, contents: Contents, all: bool) {
        let pod = self.pod.clone();
        if let Some(volumes) = &self.volumes {
            let has_changed = |volume: &_| volume::differs(&pod, volume, &self.contents, &contents);
            let tokens = self.tokens.as_ref();
            let errors = told(&volumes.refresh(&self.facts(&pod), &contents, tokens, all, has_changed));
            self.say_mount_errors(errors);
        }
        self.contents = contents;
        let mut changed = false;
        for tracker in self.acting.iter().filter_map(|acting| acting.tracker.as_ref()) {
            tracker.refresh();
            changed |= tracker.take_news();
        }
        for slot in 0..self.acting.len() {
            self.renew_outdated(slot);
        }
        if changed {
            self.soil_by(REPORT);
            self.announce();
        }
    }

    /// Tells the pod of a change over HTTP, if it wants that: one request after the other, and after the last
    /// change one that began later.
    fn announce(&mut self) {
        let OnConfigChange::Http { path, port } = self.on_config_change.clone() else { return };
        let up = |slot: &Slot| self.life.containers[*slot].is_up();
        let Some(slot) = (0..self.life.containers.len()).find(up) else { return };
        if self.announcing {
            self.announce_again = true;
            return;
        }
        let Some(surroundings) = self.surroundings(slot) else { return };
        self.announcing = true;
        let clock = self.node.shared.clock;
        self.tasks.push(Box::pin(async move {
            let mut error = None;
            for attempt in 0..ANNOUNCEMENTS_MAX {
                if attempt > 0 {
                    clock.sleep(RETRY).await;
                }
                error = handler::announce(&path, port, ANNOUNCEMENT, surroundings.target()).await;
                if error.is_none() {
                    break;
                }
            }
            Outcome::Announced(error)
        }));
    }

    /// The pod has heard of a change, or why it could not.
    pub(super) fn announced(&mut self, error: Option<String>) {
        self.announcing = false;
        if self.life.end.is_some() || self.life.stop.is_some() {
            return;
        }
        if let Some(why) = error {
            let about = client::reference(&*self.pod, None);
            let message =
                format!("annotation {ON_CONFIG_CHANGE}: the pod could not be told of a change: {why}");
            self.node.api.record(&about, true, "FailedConfigChange", message);
        }
        if std::mem::take(&mut self.announce_again) {
            self.announce();
        }
    }

    /// Starts a container anew that runs with content that has changed, if the pod wants that.
    pub(super) fn renew_outdated(&mut self, slot: Slot) {
        if self.on_config_change != OnConfigChange::Restart {
            return;
        }
        let outdated =
            self.acting[slot].tracker.as_ref().and_then(|tracker| tracker.outdated(&self.contents));
        if let Some((source, revision)) = outdated {
            self.step(Event::ConfigChanged { slot, source: source.to_string(), revision });
        }
    }

    /// Keeps what there is to say of each run that has begun.
    pub(super) fn take_reports(&mut self) {
        for acting in &mut self.acting {
            if let Some(report) = acting.tracker.as_ref().and_then(|tracker| tracker.report()) {
                acting.report = Some(report);
            }
        }
    }

    /// What the annotation is to say, if that differs from what it says.
    pub(super) fn revisions(&mut self) -> Option<String> {
        self.take_reports();
        let names = self.life.containers.iter().map(|container| container.name.clone());
        let reports =
            names.zip(&self.acting).filter_map(|(name, acting)| Some((name, acting.report.clone()?)));
        let reports: serde_json::Map<_, _> = reports.collect();
        if reports.is_empty() {
            return None;
        }
        let text = serde_json::Value::Object(reports).to_string();
        let written = self.pod.metadata.annotations.as_ref().and_then(|all| all.get(REVISIONS));
        Some(text).filter(|text| written != Some(text))
    }
}

fn told(errors: &[MountError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What is known of `sources`, of which the watch told `latest`: nothing where nothing has changed
/// since it was read. And what was read may be newer.
fn merge(known: &Contents, sources: Vec<Source>, latest: Vec<Option<Latest>>) -> Contents {
    let newest = |(source, latest): (Source, Option<Latest>)| {
        let known = known.get(&source);
        let content = match latest {
            Some(latest) if known.is_none_or(|known| known.version.revision <= latest.revision) => {
                latest.content
            }
            Some(_) | None => known.cloned(),
        };
        Some((source, content?))
    };
    sources.into_iter().zip(latest).filter_map(newest).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::super::super::content::{self, Content, Values, Version};
    use super::*;

    #[test]
    fn the_newer_of_what_was_read_and_what_was_told_is_known() {
        let content = |revision| {
            let version = Version { revision, ..content::version(&ConfigMap::default()) };
            Arc::new(Content { version, values: Values::new() })
        };
        let source = Source::config_map("m");
        for (known, told, expected) in [
            (None, None, None),
            (Some(3), None, Some(3)),
            (None, Some((4, true)), Some(4)),
            (Some(3), Some((4, true)), Some(4)),
            (Some(5), Some((4, true)), Some(5)),
            (Some(3), Some((4, false)), None),
            // Made anew since.
            (Some(5), Some((4, false)), Some(5)),
        ] {
            let read: Contents =
                known.map(|revision| (source.clone(), content(revision))).into_iter().collect();
            let latest = told
                .map(|(revision, exists)| Latest { revision, content: exists.then(|| content(revision)) });
            let merged = merge(&read, vec![source.clone()], vec![latest]);
            let found = merged.get(&source).map(|content| content.version.revision);
            assert_eq!(found, expected, "{known:?} {told:?}");
        }
    }
}
