//! What a pod waits for from around it, and what it cannot have.

use tokio::sync::watch;

use super::super::inbox::SourceNews;
use super::super::{env, start};
use super::{Actor, Outcome};
use crate::client;

impl Actor {
    /// Parts of a spec that have no effect here are said once, not silently dropped.
    pub(super) fn say_what_is_unsupported(&self) {
        let Some(spec) = &self.pod.spec else { return };
        let mut parts = Vec::new();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            for (name, is_there) in [
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
                ("lifecycle", container.lifecycle.is_some()),
                ("volumeDevices", container.volume_devices.is_some()),
            ] {
                if is_there {
                    parts.push(format!("{}.{name}", container.name));
                }
            }
        }
        if !parts.is_empty() {
            let message = format!(
                "This node does not act on {}; probes count as passed and hooks are not run",
                parts.join(", ")
            );
            self.node.api.record(&client::reference(&*self.pod, None), true, "Unsupported", message);
        }
    }

    /// Hears of the sources of every container's environment from now on, and tries again, since
    /// one may have come just before.
    pub(super) fn hear_config(&mut self) {
        self.hears_config = true;
        let pod = self.pod.clone();
        let containers = (0..self.life.containers.len()).filter_map(|slot| start::container(&pod, slot));
        let sources = containers.flat_map(|(container, _)| env::sources(container));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let subscription = self.node.shared.sources.subscribe(namespace, sources, &self.inbox);
        self.subscriptions.push(subscription);
        self.inbox.sources_changed(SourceNews::Unknown);
    }

    /// Hears of imported images from now on, and tries again, as above.
    pub(super) fn hear_images(&mut self) {
        let Some(mut news) = self.node.config.images.news() else { return };
        self.hears_images = true;
        news.mark_changed();
        self.await_images(news);
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
