//! One container's part of a pod's life.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, ContainerStateTerminated, ContainerStatus};

use super::super::backoff::Backoff;
use super::super::probe::Probes;
use super::stopping::Stopping;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container with `restartPolicy: Always` (BEHAVIOURS 9.8).
    Sidecar,
    App,
    /// Added to look into the pod; it runs once, and nothing waits for it (BEHAVIOURS 8.6).
    Ephemeral,
}

/// How a run ended, as the status tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) container_id: Option<String>,
}

/// What a container does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Idle,
    Starting,
    /// Its code runs, but it does not count as running before its postStart hook has returned.
    PostStart {
        started_at: Timestamp,
    },
    Running {
        started_at: Timestamp,
    },
}

/// What a container that does not run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The end of its back-off.
    Restart,
    /// An image that is not there, or is not usable.
    Image,
    /// A ConfigMap, Secret or key that is not there.
    Config,
}

/// Why a container does not run, in the status' words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) cause: Cause,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StartFailure {
    pub(crate) cause: Cause,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Whether trying again later may help without anybody's doing.
    pub(crate) retry: bool,
}

/// One container's part of the state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) role: Role,
    pub(crate) run: Run,
    /// Why it is idle, if not simply because it has not begun or has ended.
    pub(crate) waiting: Option<Waiting>,
    /// The end of the latest run that has ended.
    pub(crate) ended: Option<Ended>,
    /// The end of the run before that.
    pub(crate) previous: Option<Ended>,
    pub(crate) restarts: i32,
    pub(crate) container_id: Option<String>,
    pub(crate) image_id: String,
    /// An init container that need not run (again).
    pub(super) done: bool,
    /// It is being stopped, and said so.
    pub(super) stopping: Option<Stopping>,
    pub(super) has_post_start: bool,
    pub(super) has_pre_stop: bool,
    pub(crate) probes: Probes,
    /// A sidecar that has counted as started once: the next container need not wait for it again.
    pub(super) passed: bool,
    /// It is stopped to be started anew with another spec or configuration, whatever the policy.
    pub(crate) replaced: bool,
    /// Not to be started before; `None` with a `waiting` is until something changes.
    pub(super) retry_at: Option<Timestamp>,
    pub(super) restart_backoff: Backoff,
    pub(super) pull_backoff: Backoff,
    /// When a failed pull becomes a back-off.
    pub(super) flip_at: Option<Timestamp>,
    /// What it waited for may have come while it was being started.
    pub(super) woken: bool,
}

impl Container {
    pub(super) fn new(spec: &ContainerSpec, role: Role) -> Self {
        Self {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            role,
            run: Run::Idle,
            waiting: None,
            ended: None,
            previous: None,
            restarts: 0,
            container_id: None,
            image_id: String::new(),
            done: false,
            stopping: None,
            has_post_start: spec.lifecycle.as_ref().is_some_and(|hooks| hooks.post_start.is_some()),
            has_pre_stop: spec.lifecycle.as_ref().is_some_and(|hooks| hooks.pre_stop.is_some()),
            probes: Probes::of(spec),
            passed: false,
            replaced: false,
            retry_at: None,
            restart_backoff: Backoff::default(),
            pull_backoff: Backoff::default(),
            flip_at: None,
            woken: false,
        }
    }

    pub(super) fn recover(&mut self, status: &ContainerStatus, now: Timestamp) {
        self.restarts = status.restart_count;
        self.image_id.clone_from(&status.image_id);
        self.container_id.clone_from(&status.container_id);
        let state = status.state.as_ref();
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref()).map(Ended::from);
        if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
            self.ended = Some(terminated.into());
            self.previous = last;
        } else if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            self.ended = Some(Ended {
                exit_code: 255,
                reason: "Unknown".into(),
                message: Some("The node was restarted while the container was running".into()),
                started_at: running.started_at.as_ref().map(|time| time.0),
                finished_at: Some(now),
                container_id: status.container_id.clone(),
            });
            self.previous = last;
        } else {
            self.ended = last;
        }
    }

    /// Whether it has ever run.
    #[must_use]
    pub(crate) fn has_started(&self) -> bool {
        self.ended.is_some() || matches!(self.run, Run::Running { .. })
    }

    /// Whether its code runs.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        self.running_since().is_some()
    }

    /// Since when its code runs.
    #[must_use]
    pub(crate) fn running_since(&self) -> Option<Timestamp> {
        match self.run {
            Run::PostStart { started_at } | Run::Running { started_at } => Some(started_at),
            Run::Idle | Run::Starting => None,
        }
    }

    /// Whether it runs and its startup probe has passed, if it has one.
    #[must_use]
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.run, Run::Running { .. }) && self.probes.is_started()
    }

    /// Whether it runs, has started and is ready (BEHAVIOURS 9.9).
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.run, Run::Running { .. }) && self.probes.is_ready()
    }

    /// Whether it runs or is about to.
    #[must_use]
    pub(crate) fn is_active(&self) -> bool {
        self.run != Run::Idle
    }

    #[must_use]
    pub(crate) fn is_initialized(&self) -> bool {
        match self.role {
            Role::Init => self.done,
            Role::Sidecar => self.is_started(),
            Role::App | Role::Ephemeral => true,
        }
    }

    /// Whether it is to run (again), were it idle (BEHAVIOURS 9.4, 9.8).
    pub(super) fn wants_run(&self, policy: RestartPolicy) -> bool {
        let Some(ended) = &self.ended else { return !self.done };
        match self.role {
            Role::Ephemeral => false,
            _ if self.replaced => true,
            Role::Sidecar => true,
            // Succeeded before the node was restarted counts as not yet done.
            Role::Init => !self.done && (policy != RestartPolicy::Never || ended.exit_code == 0),
            Role::App => match policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => ended.exit_code != 0,
                RestartPolicy::Never => false,
            },
        }
    }
}

impl From<&ContainerStateTerminated> for Ended {
    fn from(state: &ContainerStateTerminated) -> Self {
        Self {
            exit_code: state.exit_code,
            reason: state.reason.clone().unwrap_or_default(),
            message: state.message.clone(),
            started_at: state.started_at.as_ref().map(|time| time.0),
            finished_at: state.finished_at.as_ref().map(|time| time.0),
            container_id: state.container_id.clone(),
        }
    }
}
