//! The life of one pod on its node, as a pure state machine (BEHAVIOURS 9).
//!
//! [`Life::step`] takes one event and the time and answers what to do. Whatever the event was, the
//! answer follows from the whole state, so that a lost or repeated event does no harm. Nothing here
//! waits, reads or writes: `pod.rs` acts.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};

use super::backoff::Backoff;
use super::probe::{Answer, ProbeKind};
use crate::kind::pod::as_container;

mod container;
mod starting;
mod stopping;

pub(crate) use container::{Cause, Container, Ended, RestartPolicy, Role, Run, StartFailure, Waiting};

/// A container's place in the pod: init containers first, then its own, then ephemeral ones as they were
/// added.
pub(crate) type Slot = usize;

/// Why the pod is being stopped before its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has a deletionTimestamp.
    Deleted,
    /// `activeDeadlineSeconds` is over (BEHAVIOURS 9.11).
    DeadlineExceeded,
    /// The object is gone: nothing is left to report.
    Gone,
}

/// Refused by the node (BEHAVIOURS 15.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Failed,
}

/// The state of one pod on its node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Life {
    /// `name_namespace(uid)`, as messages name the pod.
    pub(crate) title: String,
    pub(crate) policy: RestartPolicy,
    pub(crate) containers: Vec<Container>,
    /// When the node accepted the pod.
    pub(crate) accepted_at: Option<Timestamp>,
    pub(crate) rejected: Option<Rejection>,
    pub(crate) stop: Option<Stop>,
    /// Set once nothing runs any more and nothing will.
    pub(crate) end: Option<End>,
    /// What the spec gives containers to end by themselves.
    grace: Duration,
    /// What the deletion gives them, once there is one; it only ever shrinks.
    deletion_grace: Option<Duration>,
    deadline_seconds: Option<i64>,
    preparing: bool,
    prepared: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// The node takes the pod.
    Accepted,
    Rejected(Rejection),
    /// Every volume is there.
    Prepared,
    Started {
        slot: Slot,
        container_id: String,
        image_id: String,
    },
    StartFailed {
        slot: Slot,
        failure: StartFailure,
    },
    Exited {
        slot: Slot,
        ended: Ended,
    },
    /// A ConfigMap or Secret that something waits for may have come.
    SourcesChanged,
    /// An image may have come.
    ImagesChanged,
    /// What a hook came to: `None` if it did what it should.
    Hooked {
        slot: Slot,
        hook: Hook,
        error: Option<String>,
    },
    /// What a probe came to.
    Probed {
        slot: Slot,
        kind: ProbeKind,
        answer: Answer,
    },
    /// The object says so: it has a deletionTimestamp, or a shorter grace than before.
    Deleted {
        grace_seconds: i64,
    },
    /// The object has another `activeDeadlineSeconds`.
    DeadlineChanged(Option<i64>),
    /// A container has another image.
    SpecChanged {
        slot: Slot,
        image: String,
    },
    /// An ephemeral container was added to the pod, after all others.
    Added(Box<ContainerSpec>),
    /// A container runs with content that has changed since, and is to have the new one.
    ConfigChanged {
        slot: Slot,
        /// As `configmap/settings`.
        source: String,
        revision: u64,
    },
    /// The object is gone.
    Gone,
    /// Time went on.
    Tick,
}

/// A hook of a container (BEHAVIOURS 9.10, 9.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    PostStart,
    PreStop,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make the volumes; answered by [`Event::Prepared`].
    Prepare,
    /// Answered by [`Event::Started`] or [`Event::StartFailed`].
    Start { slot: Slot },
    /// Forget a start that was not yet answered.
    Cancel { slot: Slot },
    /// Answered by [`Event::Hooked`], unless the container ends before or the hook is cancelled.
    RunHook { slot: Slot, hook: Hook },
    /// Nobody waits for the container's hook any more.
    CancelHook { slot: Slot },
    /// Answered by [`Event::Probed`], unless the container ends before.
    Probe { slot: Slot, kind: ProbeKind },
    /// Ask it to end until then; what cannot hear that is killed. Answered by [`Event::Exited`].
    Ask { slot: Slot, until: Timestamp },
    /// Answered by [`Event::Exited`].
    Kill { slot: Slot },
    /// Tell the user, about one container or the pod.
    Record { slot: Option<Slot>, warning: bool, reason: &'static str, message: String },
}

impl Life {
    /// A pod that the node sees for the first time, or again after the node was restarted: then its
    /// containers are found in its status, and those that ran have died with the node.
    #[must_use]
    pub(crate) fn new(pod: &Pod, now: Timestamp) -> Self {
        let spec = pod.spec.as_ref();
        let policy = match spec.and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some(_) | None => RestartPolicy::Always,
        };
        let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let apps = spec.map_or(&[][..], |spec| &spec.containers);
        let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
        let role = |container: &ContainerSpec| match container.restart_policy.as_deref() {
            Some("Always") => Role::Sidecar,
            Some(_) | None => Role::Init,
        };
        let containers = (init.iter().map(|container| Container::new(container, role(container))))
            .chain(apps.iter().map(|container| Container::new(container, Role::App)))
            .chain(ephemeral.iter().map(|one| Container::new(&as_container(one), Role::Ephemeral)))
            .collect();
        let mut life = Self {
            title: title(pod),
            policy,
            containers,
            accepted_at: None,
            rejected: None,
            stop: None,
            end: None,
            grace: stopping::grace(spec.and_then(|spec| spec.termination_grace_period_seconds)),
            deletion_grace: None,
            deadline_seconds: spec.and_then(|spec| spec.active_deadline_seconds),
            preparing: false,
            prepared: false,
        };
        if let Some(status) = &pod.status {
            life.recover(status, now);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            life.stop = Some(Stop::Deleted);
            life.deletion_grace = Some(stopping::grace(pod.metadata.deletion_grace_period_seconds));
        }
        life
    }

    /// For a node that runs no code: there is nothing to probe, and no hook to run.
    pub(crate) fn without_handlers(mut self) -> Self {
        for container in &mut self.containers {
            container.probes = super::probe::Probes::default();
            container.has_post_start = false;
            container.has_pre_stop = false;
        }
        self
    }

    fn recover(&mut self, status: &k8s_openapi::api::core::v1::PodStatus, now: Timestamp) {
        self.accepted_at = status.start_time.as_ref().map(|time| time.0);
        match status.phase.as_deref() {
            Some("Succeeded") => self.end = Some(End::Succeeded),
            Some("Failed") => self.end = Some(End::Failed),
            Some(_) | None => {}
        }
        let init = status.init_container_statuses.iter().flatten();
        let apps = status.container_statuses.iter().flatten();
        let ephemeral = status.ephemeral_container_statuses.iter().flatten();
        for status in init.chain(apps).chain(ephemeral) {
            if let Some(container) = self.containers.iter_mut().find(|c| c.name == status.name) {
                container.recover(status, now);
            }
        }
        // A pod that has anything left to run begins with its init containers again, as after a
        // reboot; with policy Never what has run stays as it is.
        let policy = self.policy;
        let over = self.apps().all(|c| c.ended.is_some() && !c.wants_run(policy));
        for container in &mut self.containers {
            let succeeded = container.ended.as_ref().is_some_and(|ended| ended.exit_code == 0);
            container.done = succeeded && (over || policy == RestartPolicy::Never);
        }
    }

    /// Takes one event in and answers what to do now.
    pub(crate) fn step(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.apply(event, now, &mut actions);
        self.advance(now, &mut actions);
        self.go_on_stopping(now, &mut actions);
        self.probe(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    #[must_use]
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        if self.end.is_some() {
            return None;
        }
        let mut wakes: Vec<Timestamp> = Vec::new();
        for container in &self.containers {
            wakes.extend(container.stopping.and_then(|stopping| stopping.wake_at()));
            if matches!(container.run, Run::Running { .. }) {
                wakes.extend(container.probes.wake_at(container.stopping.is_some()));
            }
        }
        // What is being stopped is not started again.
        if self.stop.is_none() && !(self.prepared && self.is_over()) {
            let idle = self.containers.iter().filter(|c| c.run == Run::Idle);
            wakes.extend(idle.flat_map(|c| [c.retry_at, c.flip_at]).flatten());
            wakes.extend(self.deadline());
        }
        wakes.into_iter().min()
    }

    /// Whether every init container has done what the others wait for.
    #[must_use]
    pub(crate) fn is_initialized(&self) -> bool {
        self.containers.iter().all(Container::is_initialized) || self.has_app_started()
    }

    /// Whether any app container has ever run.
    #[must_use]
    pub(crate) fn has_app_started(&self) -> bool {
        self.apps().any(Container::has_started)
    }

    #[must_use]
    pub(crate) fn has_init(&self) -> bool {
        self.containers.first().is_some_and(|container| matches!(container.role, Role::Init | Role::Sidecar))
    }

    pub(crate) fn apps(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.role == Role::App)
    }

    #[must_use]
    pub(crate) fn is_starting(&self) -> bool {
        self.containers.iter().any(|container| container.run == Run::Starting)
    }

    /// Whether something waits for an image.
    #[must_use]
    pub(crate) fn waits_for_image(&self) -> bool {
        self.waits_for(Cause::Image)
    }

    /// Whether a container waits for a ConfigMap or Secret.
    #[must_use]
    pub(crate) fn waits_for_config(&self) -> bool {
        self.waits_for(Cause::Config)
    }

    fn waits_for(&self, cause: Cause) -> bool {
        let waits = |c: &Container| c.waiting.as_ref().is_some_and(|waiting| waiting.cause == cause);
        self.end.is_none() && self.containers.iter().any(waits)
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.deadline_seconds?;
        self.accepted_at?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }

    fn apply(&mut self, event: Event, now: Timestamp, actions: &mut Vec<Action>) {
        match event {
            Event::Accepted => {
                self.accepted_at.get_or_insert(now);
            }
            Event::Rejected(rejection) => {
                let (reason, message) = ("Rejected", rejection.message.clone());
                let reason = rejection_reason(&rejection.reason).unwrap_or(reason);
                actions.push(Action::Record { slot: None, warning: true, reason, message });
                self.rejected = Some(rejection);
                self.end = Some(End::Failed);
            }
            Event::Prepared => self.prepared = true,
            Event::Started { slot, container_id, image_id } => {
                let container = &mut self.containers[slot];
                if container.has_started() {
                    container.restarts = container.restarts.saturating_add(1);
                }
                container.replaced = false;
                container.waiting = None;
                container.woken = false;
                container.pull_backoff = Backoff::default();
                container.container_id = Some(container_id);
                container.image_id = image_id;
                if container.has_post_start {
                    container.run = Run::PostStart { started_at: now };
                    actions.push(Action::RunHook { slot, hook: Hook::PostStart });
                } else {
                    container.begin(now);
                }
            }
            Event::StartFailed { slot, failure } => self.start_failed(slot, failure, now, actions),
            Event::Exited { slot, ended } => {
                let container = &mut self.containers[slot];
                container.run = Run::Idle;
                container.stopping = None;
                // Of a postStart hook that failed.
                container.waiting = None;
                container.probes.end();
                container.done |= ended.exit_code == 0;
                container.previous = container.ended.replace(ended);
            }
            Event::SourcesChanged => self.wake(Cause::Config, now),
            Event::ImagesChanged => self.wake(Cause::Image, now),
            Event::Hooked { slot, hook, error } => self.hooked(slot, hook, error, now, actions),
            Event::Probed { slot, kind, answer } => self.probed(slot, kind, answer, now, actions),
            Event::Deleted { grace_seconds } => {
                self.stop.get_or_insert(Stop::Deleted);
                let grace = stopping::grace(Some(grace_seconds));
                if self.deletion_grace.is_none_or(|known| grace < known) {
                    self.deletion_grace = Some(grace);
                    self.shorten(grace, now, actions);
                }
            }
            Event::DeadlineChanged(seconds) => self.deadline_seconds = seconds,
            Event::SpecChanged { slot, image } => {
                self.containers[slot].image = image;
                self.replace(slot, now, actions);
            }
            Event::Added(spec) => self.containers.push(Container::new(&spec, Role::Ephemeral)),
            Event::ConfigChanged { slot, source, revision } => {
                let container = &self.containers[slot];
                // Some do their work once; and what is stopped is not started again.
                if matches!(container.role, Role::App | Role::Sidecar) && self.stop.is_none() {
                    let name = &container.name;
                    let message = format!(
                        "Container {name} uses {source}, which changed in revision {revision}, will be restarted"
                    );
                    self.renew(slot, message, now, actions);
                }
            }
            Event::Gone => {
                self.stop = Some(Stop::Gone);
                self.shorten(stopping::GONE_GRACE, now, actions);
            }
            Event::Tick => {}
        }
    }

    /// What follows from the state.
    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.end.is_some() {
            return;
        }
        if self.stop.is_none() && self.deadline().is_some_and(|deadline| deadline <= now) {
            self.stop = Some(Stop::DeadlineExceeded);
            let message = super::status::DEADLINE_EXCEEDED.to_owned();
            actions.push(Action::Record { slot: None, warning: false, reason: "DeadlineExceeded", message });
        }
        if self.stop.is_some() {
            if self.stop_all(now, actions) {
                self.finish(if self.stop == Some(Stop::DeadlineExceeded) {
                    End::Failed
                } else {
                    self.verdict()
                });
            }
            return;
        }
        if self.accepted_at.is_none() {
            return;
        }
        if !self.prepared {
            if !self.preparing {
                self.preparing = true;
                actions.push(Action::Prepare);
            }
            return;
        }
        if self.is_over() {
            if self.stop_all(now, actions) {
                self.finish(self.verdict());
            }
            return;
        }
        // Ephemeral ones wait for no other, so that a pod that does not come up can be looked into.
        let ephemeral = self.containers.iter().position(|container| container.role == Role::Ephemeral);
        let ephemeral = ephemeral.unwrap_or(self.containers.len());
        for slot in (ephemeral..self.containers.len()).chain(0..ephemeral) {
            let container = &self.containers[slot];
            if !container.is_active() && container.wants_run(self.policy) {
                self.start(slot, now, actions);
            }
            let container = &self.containers[slot];
            let blocks = match container.role {
                Role::Init => !container.done,
                Role::Sidecar => !container.passed,
                Role::Ephemeral => false,
                // Upstream starts one after the other, and a postStart hook holds up what follows.
                Role::App => {
                    container.has_post_start && matches!(container.run, Run::Starting | Run::PostStart { .. })
                }
            };
            if blocks {
                return;
            }
        }
    }

    /// Whether nothing is left to run but sidecars and ephemeral containers.
    fn is_over(&self) -> bool {
        let failed_init = self.containers.iter().any(|c| {
            c.role == Role::Init
                && !c.is_active()
                && !c.done
                && c.ended.is_some()
                && !c.wants_run(self.policy)
        });
        let apps_over = self.apps().all(|c| c.has_started() && !c.is_active() && !c.wants_run(self.policy));
        apps_over || (failed_init && !self.has_app_started())
    }

    fn finish(&mut self, end: End) {
        for container in &mut self.containers {
            // What has run is shown by how it ended, not by what it would have waited for.
            if container.ended.is_some() {
                container.waiting = None;
            }
        }
        self.end = Some(end);
    }

    /// Success if every container that had to succeed did.
    fn verdict(&self) -> End {
        let succeeded = self.containers.iter().all(|c| match c.role {
            Role::Init => c.done,
            Role::Sidecar | Role::Ephemeral => true,
            Role::App => c.ended.as_ref().is_some_and(|ended| ended.exit_code == 0),
        });
        if succeeded { End::Succeeded } else { End::Failed }
    }
}

/// `name_namespace(uid)`
fn title(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// Event reasons are a fixed set.
fn rejection_reason(reason: &str) -> Option<&'static str> {
    ["OutOfcpu", "OutOfmemory", "OutOfephemeral-storage", "OutOfpods", "NodeAffinity", "TaintToleration"]
        .into_iter()
        .find(|known| *known == reason)
}

#[cfg(test)]
mod tests;
