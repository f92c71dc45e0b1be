//! How containers are stopped (BEHAVIOURS 9.10; upstream `kuberuntime_container.go` `killContainer`), by hooks
//! and probes too.
//!
//! ```text
//!  preStop hook ──► its turn ──► asked to stop ──► killed
//!       all of it within the grace, but for the last two seconds, which everything has
//! ```
//!
//! Its turn is at once, but for sidecars of a pod that ends: those wait for all others and for the sidecars
//! after them, as long as the grace lasts.

use std::time::Duration;

use jiff::Timestamp;

use super::super::probe::{Answer, ProbeKind};
use super::{Action, Cause, Container, Hook, Life, RestartPolicy, Role, Run, Slot, Stop, Waiting};

/// The grace of a spec that has not gone through the API's defaults.
const GRACE_SECONDS: i64 = 30;
/// Even a grace of nothing is a second for hooks, as upstream; also what is left when the object is gone.
pub(super) const GONE_GRACE: Duration = Duration::from_secs(1);
/// What a container has from being asked until it is killed, at least.
const ASKED_MIN: Duration = Duration::from_secs(2);

/// Where a container is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopping {
    step: Step,
    /// When the step is over, done or not.
    until: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    PreStop,
    /// Until the containers that depend on it have ended.
    Turn,
    Asked,
    Killed,
}

impl Stopping {
    pub(super) fn wake_at(self) -> Option<Timestamp> {
        match self.step {
            Step::PreStop | Step::Turn | Step::Asked => Some(self.until),
            Step::Killed => None,
        }
    }
}

/// A grace in seconds as upstream takes it: at least one.
pub(super) fn grace(seconds: Option<i64>) -> Duration {
    Duration::from_secs(u64::try_from(seconds.unwrap_or(GRACE_SECONDS)).unwrap_or_default()).max(GONE_GRACE)
}

fn after(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

impl Container {
    /// It counts as running from now on.
    pub(super) fn begin(&mut self, started_at: Timestamp) {
        self.run = Run::Running { started_at };
        self.probes.begin(started_at);
        self.passed |= self.probes.is_started();
    }
}

impl Life {
    /// What its containers have to end by themselves, unless a probe says otherwise.
    pub(crate) fn grace(&self) -> Duration {
        match self.stop {
            Some(Stop::Gone) => GONE_GRACE,
            Some(Stop::Deleted | Stop::DeadlineExceeded) | None => self.deletion_grace.unwrap_or(self.grace),
        }
    }

    pub(super) fn replace(&mut self, slot: Slot, now: Timestamp, actions: &mut Vec<Action>) {
        let container = &mut self.containers[slot];
        match container.run {
            Run::Idle => {
                if container.waiting.as_ref().is_some_and(|w| w.cause != Cause::Restart) {
                    container.retry_at = Some(now);
                }
            }
            Run::Starting => {
                container.run = Run::Idle;
                actions.push(Action::Cancel { slot });
            }
            Run::PostStart { .. } | Run::Running { .. } => {
                let message = format!("Container {} definition changed, will be restarted", container.name);
                self.renew(slot, message, now, actions);
            }
        }
    }

    /// Ends a run, to begin another at once, whatever the policy.
    pub(super) fn renew(&mut self, slot: Slot, message: String, now: Timestamp, actions: &mut Vec<Action>) {
        let container = &mut self.containers[slot];
        if container.is_up() && container.stopping.is_none() {
            container.replaced = true;
            self.stop_one(slot, self.grace(), message, now, actions);
        }
    }

    /// Stops what runs; whether nothing does any more.
    pub(super) fn stop_all(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let grace = self.grace();
        for slot in 0..self.containers.len() {
            let container = &mut self.containers[slot];
            match container.run {
                Run::Idle => {}
                Run::Starting => {
                    container.run = Run::Idle;
                    actions.push(Action::Cancel { slot });
                }
                Run::PostStart { .. } | Run::Running { .. } => {
                    let message = format!("Stopping container {}", container.name);
                    self.stop_one(slot, grace, message, now, actions);
                }
            }
        }
        !self.containers.iter().any(Container::is_active)
    }

    /// Begins to stop a container that is up, unless that has begun.
    fn stop_one(
        &mut self,
        slot: Slot,
        grace: Duration,
        message: String,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let container = &mut self.containers[slot];
        if container.stopping.is_some() {
            return;
        }
        if self.stop != Some(Stop::Gone) {
            actions.push(Action::Record { slot: Some(slot), warning: false, reason: "Killing", message });
        }
        // One that has failed says so in `waiting`, and is over.
        if matches!(container.run, Run::PostStart { .. }) && container.waiting.is_none() {
            actions.push(Action::CancelHook { slot });
        }
        let step = if container.has_pre_stop { Step::PreStop } else { Step::Turn };
        if step == Step::PreStop {
            actions.push(Action::RunHook { slot, hook: Hook::PreStop });
        }
        container.stopping = Some(Stopping { step, until: after(now, grace) });
    }

    /// What is being stopped already has no more than `grace` from now on.
    pub(super) fn shorten(&mut self, grace: Duration, now: Timestamp, actions: &mut Vec<Action>) {
        for (slot, container) in self.containers.iter_mut().enumerate() {
            let Some(stopping) = &mut container.stopping else { continue };
            let asked = stopping.step == Step::Asked;
            let until = after(now, if asked { grace.max(ASKED_MIN) } else { grace });
            if until < stopping.until {
                stopping.until = until;
                if asked {
                    actions.push(Action::Ask { slot, until });
                }
            }
        }
    }

    /// Takes every container that is being stopped as far as it is to be by now.
    pub(super) fn go_on_stopping(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let in_order = self.stop.is_some() || self.is_over();
        for slot in 0..self.containers.len() {
            let Some(mut stopping) = self.containers[slot].stopping else { continue };
            let over = stopping.until <= now;
            if stopping.step == Step::PreStop && over {
                actions.push(Action::CancelHook { slot });
                stopping.step = Step::Turn;
            }
            if stopping.step == Step::Turn && (over || !in_order || self.is_turn_of(slot)) {
                let until = stopping.until.max(after(now, ASKED_MIN));
                stopping = Stopping { step: Step::Asked, until };
                actions.push(Action::Ask { slot, until });
            } else if stopping.step == Step::Asked && over {
                stopping.step = Step::Killed;
                actions.push(Action::Kill { slot });
            }
            self.containers[slot].stopping = Some(stopping);
        }
    }

    /// Sidecars end after all others, and among themselves in reverse (BEHAVIOURS 9.8).
    fn is_turn_of(&self, slot: Slot) -> bool {
        let waits_for = |(other, container): (Slot, &Container)| {
            container.is_active() && (container.role != Role::Sidecar || other > slot)
        };
        self.containers[slot].role != Role::Sidecar || !self.containers.iter().enumerate().any(waits_for)
    }

    pub(super) fn hooked(
        &mut self,
        slot: Slot,
        hook: Hook,
        error: Option<String>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let gone = self.stop == Some(Stop::Gone);
        let grace = self.grace();
        let container = &mut self.containers[slot];
        // The events do not say why: what a hook answers may be secret (upstream says so too).
        let failed = |reason, message: &str, actions: &mut Vec<Action>| {
            if !gone {
                let message = message.to_owned();
                actions.push(Action::Record { slot: Some(slot), warning: true, reason, message });
            }
        };
        match (hook, container.run, error) {
            (Hook::PostStart, Run::PostStart { started_at }, None) => container.begin(started_at),
            (Hook::PostStart, Run::PostStart { .. }, Some(error)) => {
                failed("FailedPostStartHook", "PostStartHook failed", actions);
                container.waiting =
                    Some(Waiting { cause: Cause::Restart, reason: "PostStartHookError", message: error });
                self.stop_one(slot, grace, "FailedPostStartHook".to_owned(), now, actions);
            }
            (Hook::PreStop, Run::PostStart { .. } | Run::Running { .. }, error) => {
                if error.is_some() {
                    failed("FailedPreStopHook", "PreStopHook failed", actions);
                }
                if let Some(stopping) = container.stopping.as_mut().filter(|s| s.step == Step::PreStop) {
                    stopping.step = Step::Turn;
                }
            }
            (Hook::PostStart, Run::Idle | Run::Starting | Run::Running { .. }, _)
            | (Hook::PreStop, Run::Idle | Run::Starting, _) => {}
        }
    }

    pub(super) fn probed(
        &mut self,
        slot: Slot,
        kind: ProbeKind,
        answer: Answer,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let grace = self.grace();
        let container = &mut self.containers[slot];
        if !matches!(container.run, Run::Running { .. }) {
            return;
        }
        let failed = container.probes.answered(kind, &answer);
        container.passed |= container.probes.is_started();
        let title = kind.title();
        let told = match answer {
            Answer::Passed => None,
            Answer::Warned(why) => Some(("ProbeWarning", format!("{title} probe warning: {why}"))),
            Answer::Failed(why) => Some(("Unhealthy", format!("{title} probe failed: {why}"))),
            Answer::Unclear(why) => {
                let message = format!("{title} probe errored and resulted in unknown state: {why}");
                Some(("Unhealthy", message))
            }
        };
        if let Some((reason, message)) = told {
            actions.push(Action::Record { slot: Some(slot), warning: true, reason, message });
        }
        if failed && container.stopping.is_none() {
            let what = if container.role == Role::Sidecar { "Init container" } else { "Container" };
            let again = match (container.role, self.policy) {
                (Role::App, RestartPolicy::Always | RestartPolicy::OnFailure) => ", will be restarted",
                (Role::App, RestartPolicy::Never) | (Role::Init | Role::Sidecar | Role::Ephemeral, _) => "",
            };
            let message =
                format!("{what} {} failed {} probe{again}", container.name, title.to_ascii_lowercase());
            let grace = match self.deletion_grace {
                Some(grace) => grace,
                None => container.probes.grace(kind).unwrap_or(grace),
            };
            self.stop_one(slot, grace, message, now, actions);
        }
    }

    /// Asks what is due.
    pub(super) fn probe(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for (slot, container) in self.containers.iter_mut().enumerate() {
            if matches!(container.run, Run::Running { .. }) {
                let due = container.probes.ask(now, container.stopping.is_some());
                actions.extend(due.into_iter().map(|kind| Action::Probe { slot, kind }));
            }
        }
    }
}
