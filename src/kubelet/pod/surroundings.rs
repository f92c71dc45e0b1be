//! What a pod needs from around it: its volumes' sources, and news of what it waits for.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::api::ApiError;
use super::super::env;
use super::super::fields::Facts;
use super::super::lifecycle::Event;
use super::super::sources::{Found, fetch};
use super::super::start;
use super::super::volume::Volumes;
use super::{Actor, Outcome, RETRY};
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

    /// Reads the sources of the volumes, to make or to refresh them.
    pub(super) fn fetch_volumes(&mut self) {
        if self.fetching {
            self.fetch_again = true;
            return;
        }
        self.fetching = true;
        let (api, sources) = (self.node.api.clone(), self.volume_sources.clone());
        if sources.is_empty() {
            self.fetched(Ok(Found::default()));
            return;
        }
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        self.tasks.push(Box::pin(async move { Outcome::Fetched(fetch(&*api, &namespace, sources).await) }));
    }

    pub(super) fn fetched(&mut self, found: Result<Found, ApiError>) {
        self.fetching = false;
        if self.life.end.is_some() {
            return;
        }
        if std::mem::take(&mut self.fetch_again) {
            self.fetch_volumes();
            return;
        }
        let errors = match found {
            Ok(found) => {
                let pod = self.pod.clone();
                let facts = Facts {
                    pod: &pod,
                    host_ip: self.addresses.host,
                    pod_ip: self.addresses.pod.unwrap_or(Ipv4Addr::UNSPECIFIED),
                    allocatable: &self.node.config.capacity,
                };
                match &self.volumes {
                    Some(volumes) => volumes.refresh(&facts, &found),
                    None => match Volumes::make(&facts, &found) {
                        Ok(volumes) => {
                            self.mount_errors.clear();
                            self.volumes = Some(Arc::new(volumes));
                            self.step(Event::Prepared);
                            return;
                        }
                        // Tried again as soon as a source changes.
                        Err(errors) => errors,
                    },
                }
                .iter()
                .map(ToString::to_string)
                .collect()
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
        let about = client::reference(&*self.pod, None);
        for error in errors.iter().filter(|error| !self.mount_errors.contains(error)) {
            self.node.api.record(&about, true, "FailedMount", error.clone());
        }
        self.mount_errors = errors;
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
        self.inbox.sources_changed();
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
