//! Probes and hooks of a pod's containers: each is a task of the actor, which ends with its container. And what
//! becomes of containers when the process ends.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable, join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container as ContainerSpec;

use super::super::handler::{self, Target};
use super::super::lifecycle::{Hook, Slot};
use super::super::probe::{Answer, ProbeKind};
use super::super::setup::Setup;
use super::super::start;
use super::{Acting, Actor, Outcome};
use crate::clock::Clock;

/// What guests that can hear have to end by themselves when the process ends, if their pod gives them as much.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long a pod that is deleted goes on as before while services lead to it; some do so for ever, such as
/// those whose EndpointSlices somebody has written by hand.
const WITHDRAWN_MAX: Duration = Duration::from_secs(2);
/// How long connections take to arrive whose makers were still led to the pod.
const ON_THE_WAY: Duration = Duration::from_millis(10);

/// What a handler needs of the pod, apart from it.
pub(super) struct Surroundings {
    container: ContainerSpec,
    ip: Ipv4Addr,
    clock: Clock,
    setup: Option<Arc<Setup>>,
}

impl Surroundings {
    pub(super) fn target(&self) -> Target<'_> {
        Target { container: &self.container, ip: self.ip, clock: self.clock, setup: self.setup.as_ref() }
    }
}

impl Acting {
    /// Nobody waits for what a run was asked any more.
    pub(super) fn cancel_handlers(&mut self) {
        for handle in
            self.hook.take().into_iter().chain(std::mem::take(&mut self.probes).into_iter().flatten())
        {
            handle.abort();
        }
    }
}

impl Actor {
    pub(super) fn surroundings(&self, slot: Slot) -> Option<Surroundings> {
        let (container, _) = start::container(&self.pod, slot)?;
        let ip = self.addresses.pod.unwrap_or(self.addresses.host);
        let setup = self.acting[slot].begun.as_ref().map(|begun| begun.place.setup.clone());
        Some(Surroundings { container: container.into_owned(), ip, clock: self.node.shared.clock, setup })
    }

    pub(super) fn run_hook(&mut self, slot: Slot, hook: Hook) {
        let Some(surroundings) = self.surroundings(slot) else { return };
        let handle = self.begin_task(async move {
            let lifecycle = surroundings.container.lifecycle.as_ref();
            let handler = lifecycle.and_then(|lifecycle| match hook {
                Hook::PostStart => lifecycle.post_start.as_ref(),
                Hook::PreStop => lifecycle.pre_stop.as_ref(),
            });
            let error = match handler {
                Some(handler) => handler::hook(handler, surroundings.target()).await,
                None => None,
            };
            Outcome::Hooked { slot, hook, error }
        });
        self.acting[slot].hook = Some(handle);
    }

    /// Asks a container to stop, once no service leads to its pod: upstream, who connects while the word is still
    /// on its way is refused, unless a preStop hook waits for that.
    pub(super) fn ask(&mut self, slot: Slot, until: Timestamp) {
        let services = self.node.shared.networks.services();
        let own = self.addresses.pod.filter(|ip| *ip != self.addresses.host);
        let offered = own.filter(|ip| services.offers(*ip));
        let (Some(ip), true) = (offered, self.pod.metadata.deletion_timestamp.is_some()) else {
            return self.ask_now(slot, until);
        };
        let (services, clock) = (services.clone(), self.node.shared.clock);
        let left = Duration::try_from(until.duration_since(clock.now())).unwrap_or_default();
        self.tasks.push(Box::pin(async move {
            let withdrawn = async {
                services.withdrawn(ip).await;
                clock.sleep(ON_THE_WAY).await;
            };
            if clock.timeout(left.min(WITHDRAWN_MAX), withdrawn).await.is_err() {
                tracing::debug!(%ip, "services still lead to a pod that is going");
            }
            Outcome::Withdrawn { slot, until }
        }));
    }

    pub(super) fn ask_now(&mut self, slot: Slot, until: Timestamp) {
        let left = until.duration_since(self.node.shared.clock.now());
        let left = Duration::try_from(left).unwrap_or_default();
        // What cannot hear it is ended, as a process is that does not handle SIGTERM.
        if let Some(begun) = &self.acting[slot].begun
            && !begun.container.ask_to_stop(left)
        {
            begun.container.kill();
        }
    }

    pub(super) fn probe(&mut self, slot: Slot, kind: ProbeKind) {
        let Some(surroundings) = self.surroundings(slot) else { return };
        let handle = self.begin_task(async move {
            let answer = match kind.of(&surroundings.container) {
                Some(probe) => handler::probe(probe, surroundings.target()).await,
                None => Answer::Passed,
            };
            Outcome::Probed { slot, kind, answer }
        });
        self.acting[slot].probes[kind as usize] = Some(handle);
    }

    /// A task that can be cancelled.
    fn begin_task(&mut self, task: impl Future<Output = Outcome> + Send + 'static) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        let task = Abortable::new(task, registration);
        self.tasks.push(Box::pin(async move { task.await.unwrap_or(Outcome::Nothing) }));
        handle
    }

    /// The process ends, and with it what still runs: guests that can hear it may finish first. Their hooks are
    /// not run, since what those would ask may have ended already; and nothing is reported.
    pub(super) async fn end_with_the_process(&mut self) {
        let grace = self.life.grace().min(SHUTDOWN_GRACE);
        let running = self.acting.iter().filter_map(|acting| acting.begun.as_ref());
        let asked =
            running.filter(|begun| begun.container.exit().is_none() && begun.container.ask_to_stop(grace));
        let ended = join_all(asked.map(|begun| begun.container.exited()));
        if self.node.shared.clock.timeout(grace, ended).await.is_err() {
            tracing::debug!(pod = self.life.title, "containers were asked to end and went on");
        }
    }
}
