//! When a container is probed, and what the answers come to (BEHAVIOURS 9.9; upstream `prober/worker.go`).
//!
//! Pure: [`Probes`] says what is due at a time and takes answers in. `handler.rs` asks.
//!
//! ```text
//!  runs ──► startup probe ──passed──► liveness and readiness probes
//!  │           │ failed too often        │ liveness failed too often
//!  │           ▼                         ▼
//!  └─ again ◄─ stopped, by the restart policy
//! ```

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Probe as ProbeSpec};

/// Defaults of the API, for specs that have not gone through it.
const PERIOD_SECONDS: i32 = 10;
const FAILURE_THRESHOLD: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As events begin.
    #[must_use]
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// A container's probe of this kind.
    #[must_use]
    pub(crate) fn of(self, container: &ContainerSpec) -> Option<&ProbeSpec> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What one probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Passed,
    /// Passed, with something to tell.
    Warned(String),
    Failed(String),
    /// It could not be asked, which says nothing of the container.
    Unclear(String),
}

/// One probe of a container.
#[derive(Clone, Debug, PartialEq)]
struct Prober {
    initial_delay: Duration,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    grace: Option<Duration>,
    state: State,
}

/// What is known of the present run.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    /// What the container is taken for; `None` until a threshold was reached.
    verdict: Option<bool>,
    last: Option<bool>,
    in_a_row: u32,
    /// `None` while nothing runs, or once it has failed for good.
    next_at: Option<Timestamp>,
    asking: bool,
}

/// The probes of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Probes {
    startup: Option<Prober>,
    liveness: Option<Prober>,
    readiness: Option<Prober>,
}

fn seconds(given: Option<i32>, default: i32) -> Duration {
    let given = given.filter(|given| *given > 0).unwrap_or(default);
    Duration::from_secs(u64::try_from(given).unwrap_or_default())
}

impl Prober {
    fn new(spec: &ProbeSpec) -> Self {
        let count = |given: Option<i32>, default: i32| {
            u32::try_from(given.filter(|given| *given > 0).unwrap_or(default)).unwrap_or(1)
        };
        let grace = spec.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
        Self {
            initial_delay: seconds(spec.initial_delay_seconds, 0),
            period: seconds(spec.period_seconds, PERIOD_SECONDS),
            success_threshold: count(spec.success_threshold, 1),
            failure_threshold: count(spec.failure_threshold, FAILURE_THRESHOLD),
            grace: grace.map(Duration::from_secs),
            state: State::default(),
        }
    }

    fn begin(&mut self, started_at: Timestamp) {
        let first = started_at.checked_add(self.initial_delay).unwrap_or(Timestamp::MAX);
        self.state = State { next_at: Some(first), ..State::default() };
    }

    fn ask(&mut self, now: Timestamp) -> bool {
        let due = !self.state.asking && self.state.next_at.is_some_and(|at| at <= now);
        if due {
            self.state.asking = true;
            self.state.next_at = now.checked_add(self.period).ok();
        }
        due
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.state.next_at.filter(|_| !self.state.asking)
    }

    /// Whether a threshold was reached.
    fn answered(&mut self, answer: &Answer) -> Option<bool> {
        let state = &mut self.state;
        state.asking = false;
        let passed = match answer {
            Answer::Passed | Answer::Warned(_) => true,
            Answer::Failed(_) => false,
            Answer::Unclear(_) => return None,
        };
        state.in_a_row = if state.last == Some(passed) { state.in_a_row.saturating_add(1) } else { 1 };
        state.last = Some(passed);
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if state.in_a_row < threshold {
            return None;
        }
        state.verdict = Some(passed);
        Some(passed)
    }

    fn has_passed(&self) -> bool {
        self.state.verdict == Some(true)
    }
}

impl Probes {
    #[must_use]
    pub(crate) fn of(container: &ContainerSpec) -> Self {
        let prober = |kind: ProbeKind| kind.of(container).map(Prober::new);
        Self {
            startup: prober(ProbeKind::Startup),
            liveness: prober(ProbeKind::Liveness),
            readiness: prober(ProbeKind::Readiness),
        }
    }

    fn get(&mut self, kind: ProbeKind) -> Option<&mut Prober> {
        match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Liveness => self.liveness.as_mut(),
            ProbeKind::Readiness => self.readiness.as_mut(),
        }
    }

    /// The container runs, anew: nothing is known of it.
    pub(crate) fn begin(&mut self, started_at: Timestamp) {
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            if let Some(prober) = self.get(kind) {
                prober.begin(started_at);
            }
        }
    }

    /// The container has ended.
    pub(crate) fn end(&mut self) {
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            if let Some(prober) = self.get(kind) {
                prober.state = State::default();
            }
        }
    }

    /// Whether a container that runs has started up.
    #[must_use]
    pub(crate) fn is_started(&self) -> bool {
        self.startup.as_ref().is_none_or(Prober::has_passed)
    }

    /// Whether a container that runs is ready.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.is_started() && self.readiness.as_ref().is_none_or(Prober::has_passed)
    }

    /// What may be asked now: startup first, then the others; of what is being stopped only whether it is ready.
    fn open(&self, stopping: bool) -> &'static [ProbeKind] {
        match (self.is_started(), stopping) {
            (false, false) => &[ProbeKind::Startup],
            (false, true) => &[],
            (true, false) => &[ProbeKind::Liveness, ProbeKind::Readiness],
            (true, true) => &[ProbeKind::Readiness],
        }
    }

    /// What is to be asked now; each is to be answered by [`Probes::answered`] before it is asked again.
    pub(crate) fn ask(&mut self, now: Timestamp, stopping: bool) -> Vec<ProbeKind> {
        let open = self.open(stopping).iter().copied();
        open.filter(|kind| self.get(*kind).is_some_and(|prober| prober.ask(now))).collect()
    }

    /// When something is to be asked next.
    #[must_use]
    pub(crate) fn wake_at(&self, stopping: bool) -> Option<Timestamp> {
        let probers = self.open(stopping).iter().filter_map(|kind| match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        });
        probers.filter_map(Prober::wake_at).min()
    }

    /// Whether the container is to be stopped for this.
    pub(crate) fn answered(&mut self, kind: ProbeKind, answer: &Answer) -> bool {
        let Some(prober) = self.get(kind) else { return false };
        let failed = prober.answered(answer) == Some(false);
        if failed && kind != ProbeKind::Readiness {
            // Not asked again before there is a new run.
            prober.state.next_at = None;
        }
        failed && kind != ProbeKind::Readiness
    }

    /// The grace that a probe gives for itself.
    #[must_use]
    pub(crate) fn grace(&self, kind: ProbeKind) -> Option<Duration> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref()?.grace,
            ProbeKind::Liveness => self.liveness.as_ref()?.grace,
            ProbeKind::Readiness => None,
        }
    }
}

#[cfg(test)]
mod tests;
