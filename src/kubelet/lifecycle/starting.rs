//! How a container comes to run, or does not yet.

use jiff::Timestamp;

use super::super::backoff::{Backoff, go_duration};
use super::{Action, Cause, Life, Run, Slot, StartFailure, Waiting};

/// How long `ErrImagePull` is shown before it turns into `ImagePullBackOff`.
const FAILED_PULL_SHOWN: std::time::Duration = std::time::Duration::from_secs(2);

impl Life {
    pub(super) fn start_failed(
        &mut self,
        slot: Slot,
        failure: StartFailure,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let container = &mut self.containers[slot];
        container.run = Run::Idle;
        let record = |reason, message| Action::Record { slot: Some(slot), warning: true, reason, message };
        let (reason, message) = match failure.reason {
            "ErrImagePull" => ("Failed", failure.message.clone()),
            "ErrImageNeverPull" => ("ErrImageNeverPull", failure.message.clone()),
            "InvalidImageName" => ("InspectFailed", failure.message.clone()),
            _ => ("Failed", format!("Error: {}", failure.message)),
        };
        let repeated = container.waiting.as_ref().is_some_and(|w| w.message.ends_with(&failure.message));
        if !repeated {
            actions.push(record(reason, message));
        }
        container.retry_at = None;
        container.flip_at = None;
        if failure.retry {
            container.pull_backoff.tried(now);
            let wait = container.pull_backoff.wait(now).unwrap_or_default();
            container.retry_at = now.checked_add(wait).ok();
            if failure.reason == "ErrImagePull" {
                container.flip_at = now.checked_add(FAILED_PULL_SHOWN).ok();
            }
        }
        if std::mem::take(&mut container.woken) {
            container.retry_at = Some(now);
        }
        container.waiting =
            Some(Waiting { cause: failure.cause, reason: failure.reason, message: failure.message });
    }

    /// What waits for `cause` may be tried again now.
    pub(super) fn wake(&mut self, cause: Cause, now: Timestamp) {
        for container in &mut self.containers {
            if !container.waiting.as_ref().is_some_and(|waiting| waiting.cause == cause) {
                continue;
            }
            container.pull_backoff = Backoff::default();
            match container.run {
                Run::Idle => container.retry_at = Some(now),
                Run::Starting => container.woken = true,
                Run::PostStart { .. } | Run::Running { .. } => {}
            }
        }
    }

    /// Starts a container now, or notes when.
    pub(super) fn start(&mut self, slot: Slot, now: Timestamp, actions: &mut Vec<Action>) {
        let title = &self.title;
        let container = &mut self.containers[slot];
        if container.flip_at.is_some_and(|at| at <= now)
            && let Some(waiting) = &mut container.waiting
        {
            waiting.reason = "ImagePullBackOff";
            waiting.message = format!("Back-off pulling image {:?}: {}", container.image, waiting.message);
            let message = waiting.message.clone();
            actions.push(Action::Record { slot: Some(slot), warning: false, reason: "BackOff", message });
            container.flip_at = None;
        }
        match (&container.waiting, container.retry_at) {
            (Some(_), Some(at)) if at > now => return,
            (Some(_), None) => return,
            (Some(_), Some(_)) => {}
            (None, _) => {
                // It has ended, or never begun.
                let finished_at = container.ended.as_ref().map(|ended| ended.finished_at.unwrap_or(now));
                if let Some(finished_at) = finished_at.filter(|_| !container.replaced)
                    && let Some(wait) = container.restart_backoff.wait(finished_at)
                    && let Ok(at) = finished_at.checked_add(wait)
                    && at > now
                {
                    let name = &container.name;
                    let message = format!(
                        "back-off {} restarting failed container={name} pod={title}",
                        go_duration(wait)
                    );
                    container.waiting =
                        Some(Waiting { cause: Cause::Restart, reason: "CrashLoopBackOff", message });
                    container.retry_at = Some(at);
                    let message = format!("Back-off restarting failed container {name} in pod {title}");
                    actions.push(Action::Record {
                        slot: Some(slot),
                        warning: true,
                        reason: "BackOff",
                        message,
                    });
                    return;
                }
            }
        }
        let restarts = container.waiting.as_ref().is_none_or(|w| w.cause == Cause::Restart);
        if container.ended.is_some() && restarts && !container.replaced {
            container.restart_backoff.tried(now);
        }
        container.retry_at = None;
        container.flip_at = None;
        container.run = Run::Starting;
        actions.push(Action::Start { slot });
    }
}
