//! What a pod waits for from around it, and what it cannot have.

use tokio::sync::watch;

use super::super::inbox::SourceNews;
use super::super::lifecycle::Event;
use super::super::sources::Source;
use super::super::{env, pull, start};
use super::{Acting, Actor, Outcome};
use crate::client;

use k8s_openapi::api::core::v1::Pod;

impl Actor {
    /// Parts of a spec that have no effect here are said once, not silently dropped.
    pub(super) fn say_what_is_unsupported(&self) {
        let Some(spec) = &self.pod.spec else { return };
        let mut parts = Vec::new();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            if container.volume_devices.is_some() {
                parts.push(format!("{}.volumeDevices", container.name));
            }
        }
        if !parts.is_empty() {
            let message = format!("This node does not act on {}", parts.join(", "));
            self.node.api.record(&client::reference(&*self.pod, None), true, "Unsupported", message);
        }
    }

    /// Takes ephemeral containers in that were added to the pod since.
    pub(super) fn heed_additions(&mut self, pod: &Pod) {
        while let Some((container, _)) = start::container(pod, self.life.containers.len()) {
            // What it takes its environment from is to be heard of too, if somebody waits for such.
            self.hears_config &= env::sources(&container).next().is_none();
            self.acting.push(Acting::default());
            self.step(Event::Added(Box::new(container.into_owned())));
        }
    }

    /// Hears of the sources of every container's environment from now on, and tries again, since
    /// one may have come just before.
    pub(super) fn hear_config(&mut self) {
        self.hears_config = true;
        let pod = self.pod.clone();
        let containers = (0..self.life.containers.len()).filter_map(|slot| start::container(&pod, slot));
        let sources = containers.flat_map(|(container, _)| env::sources(&container).collect::<Vec<_>>());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let subscription = self.node.shared.sources.subscribe(namespace, sources, &self.inbox);
        self.subscriptions.push(subscription);
        self.inbox.sources_changed(SourceNews::Unknown);
    }

    /// Hears of imported images, and of the Secrets that images are pulled with, from now on, and tries
    /// again, as above.
    pub(super) fn hear_images(&mut self) {
        let Some(mut news) = self.node.config.images.news() else { return };
        self.hears_images = true;
        let secrets: Vec<Source> = pull::secrets(&self.pod).collect();
        if self.pull_secrets.is_none() && !secrets.is_empty() {
            let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
            self.subscriptions.push(self.node.shared.sources.subscribe(namespace, secrets, &self.inbox));
            // One may have changed since it was read: whatever they are now is news.
            self.pull_secrets = Some(Vec::new());
            self.inbox.sources_changed(SourceNews::Unknown);
        }
        news.mark_changed();
        self.await_images(news);
    }

    fn pull_secret_revisions(&self) -> Vec<Option<u64>> {
        let secrets: Vec<Source> = pull::secrets(&self.pod).collect();
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let latest = self.node.shared.sources.latest(namespace, &secrets);
        latest.into_iter().map(|latest| latest.map(|latest| latest.revision)).collect()
    }

    /// Some source has changed: if it is a Secret that images are pulled with, the pull is tried again at
    /// once, whatever its back-off.
    pub(super) fn pull_secrets_changed(&mut self) {
        let Some(before) = &self.pull_secrets else { return };
        let now = self.pull_secret_revisions();
        if *before != now {
            self.pull_secrets = Some(now);
            self.step(Event::ImagesChanged);
        }
    }

    pub(super) fn await_images(&mut self, mut news: watch::Receiver<u64>) {
        self.tasks.push(Box::pin(async move {
            match news.changed().await {
                Ok(()) => Outcome::ImagesChanged(news),
                Err(_) => Outcome::Nothing,
            }
        }));
    }
}
