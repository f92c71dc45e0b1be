//! The actor of one pod: asks [`Life`] what to do, does it, and writes down what came of it.
//!
//! One task per pod, asleep until something happens. Status writes are coalesced: the latest state
//! is written, one write at a time, and a state that has passed before its write began is never
//! written at all.

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::admit::{self, Reservation};
use super::annotations::OnConfigChange;
use super::api::ApiError;
use super::config::Tracker;
use super::content::{self, Contents};
use super::inbox::{Inbox, Mail};
use super::lifecycle::{self, Action, Event, Hook, Life, Rejection, RestartPolicy, Slot, StartFailure};
use super::logs::PodLogs;
use super::nodes::NodeContext;
use super::probe::{Answer, ProbeKind};
use super::sources::{Source, Subscription};
use super::start::{self, Begun, Start};
use super::status::{self, Addresses};
use super::token::Tokens;
use super::volume::{self, Volumes};
use super::{annotations, config, limits};
use crate::client;
use crate::network::PodAddress;
use crate::network::services::OpenHostPorts;
use crate::runtime::Exit;
use crate::runtime::budget::Budget;

/// How long the status of a pod that may soon be further waits for that: a program that ends at
/// once costs one write instead of three, and nobody sees a millisecond.
const SETTLE: Duration = Duration::from_millis(1);
/// How long after a request that failed for no reason of ours it is made again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the annotation that tells revisions waits after a change of them: until the change has
/// reached every pod of this node, and others that follow it at once are in it too.
const REPORT: Duration = Duration::from_millis(250);

mod configuration;
mod handlers;
mod surroundings;

type Task = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What something begun earlier came to.
enum Outcome {
    /// The sources of the pod's volumes.
    Fetched(Result<Contents, ApiError>),
    Started {
        slot: Slot,
        result: Result<Begun, StartFailure>,
    },
    Exited {
        slot: Slot,
        exit: Exit,
    },
    Hooked {
        slot: Slot,
        hook: Hook,
        error: Option<String>,
    },
    Probed {
        slot: Slot,
        kind: ProbeKind,
        answer: Answer,
    },
    /// No service leads to the pod any more, or it has waited long enough for that.
    Withdrawn {
        slot: Slot,
        until: Timestamp,
    },
    /// With the rest of the news.
    ImagesChanged(watch::Receiver<u64>),
    Wrote(Result<Arc<Pod>, ApiError>),
    Read(Result<Arc<Pod>, ApiError>),
    Deleted(Result<(), ApiError>),
    /// A request that tells the pod of a change: why it failed, if it did.
    Announced(Option<String>),
    /// Time to fetch the sources of the volumes again.
    FetchAgain,
    /// What was begun was cancelled.
    Nothing,
}

/// One container's acting side.
#[derive(Default)]
struct Acting {
    starting: Option<AbortHandle>,
    begun: Option<Begun>,
    /// Of the hook that runs.
    hook: Option<AbortHandle>,
    /// Of the latest probe of each kind.
    probes: [Option<AbortHandle>; 3],
    runs: i32,
    /// Of the latest run, for as long as that lasts.
    tracker: Option<Arc<Tracker>>,
    /// What the annotation says of it.
    report: Option<serde_json::Value>,
    /// Fuel of the latest run that has ended, if that was counted.
    fuel: Option<u64>,
}

impl Acting {
    fn new(container: &lifecycle::Container) -> Self {
        let runs = container.restarts.saturating_add(i32::from(container.has_started()));
        Self { runs, ..Self::default() }
    }
}

struct Actor {
    node: Arc<NodeContext>,
    inbox: Arc<Inbox>,
    /// The newest content known, from the watch or from an answer.
    pod: Arc<Pod>,
    life: Life,
    acting: Vec<Acting>,
    logs: Arc<PodLogs>,
    tasks: FuturesUnordered<Task>,
    addresses: Addresses,
    /// Held until the pod has ended.
    holdings: Option<(Reservation, Option<PodAddress>, Option<OpenHostPorts>)>,
    volumes: Option<Arc<Volumes>>,
    volume_sources: Vec<Source>,
    /// None on a node that runs no code.
    tokens: Option<Tokens>,
    /// Of the environments, if the pod wants to hear of their changes; they are not waited for.
    env_sources: Vec<Source>,
    /// All of these as they were last seen.
    contents: Contents,
    on_config_change: OnConfigChange,
    /// The pod is being told of a change over HTTP, and of another after that.
    announcing: bool,
    announce_again: bool,
    /// What all containers draw on together, if the pod limits them so.
    budget: Option<Arc<Budget>>,
    subscriptions: Vec<Subscription>,
    fetching: bool,
    fetch_again: bool,
    /// What is wrong with the volumes, as last told.
    mount_errors: Vec<String>,
    hears_config: bool,
    hears_images: bool,
    /// The revisions of the Secrets that images are pulled with, as last seen by a pod that waits for one.
    pull_secrets: Option<Vec<Option<u64>>>,
    /// The status may differ from the written one.
    dirty: bool,
    /// Not to be written before.
    write_at: Option<Timestamp>,
    writing: bool,
    deleting: bool,
    deleted: bool,
}

/// Runs a pod to its end on its node; returns when the node has nothing more to do with it. A pod
/// that is over is only deleted, if it is to be.
pub(crate) async fn run(
    node: Arc<NodeContext>,
    inbox: Arc<Inbox>,
    pod: Arc<Pod>,
    reservation: Result<Reservation, Rejection>,
) {
    let now = node.shared.clock.now();
    let mut life = Life::new(&pod, now);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let runs_code = node.config.images.run_code();
    if !runs_code {
        life = life.without_handlers();
    }
    let tokens = runs_code.then(|| Tokens::new(node.api.clone(), node.shared.clock, &pod));
    let mut actor = Actor {
        logs: node.shared.logs.open(uid),
        acting: life.containers.iter().map(Acting::new).collect(),
        addresses: Addresses { host: node.config.ip, pod: None },
        volume_sources: volume::sources(&pod, runs_code),
        tokens,
        env_sources: Vec::new(),
        contents: Contents::new(),
        on_config_change: OnConfigChange::default(),
        announcing: false,
        announce_again: false,
        budget: limits::of_pod(&pod, node.shared.clock),
        node,
        inbox,
        pod,
        life,
        tasks: FuturesUnordered::new(),
        holdings: None,
        volumes: None,
        subscriptions: Vec::new(),
        fetching: false,
        fetch_again: false,
        mount_errors: Vec::new(),
        hears_config: false,
        hears_images: false,
        pull_secrets: None,
        dirty: false,
        write_at: None,
        writing: false,
        deleting: false,
        deleted: false,
    };
    actor.admit(reservation).await;
    actor.work().await;
    actor.end_with_the_process().await;
    for acting in &mut actor.acting {
        if let Some(begun) = acting.begun.take() {
            begun.log.close();
        }
    }
}

impl Actor {
    async fn admit(&mut self, reservation: Result<Reservation, Rejection>) {
        if self.life.end.is_some() {
            // It ended before this process did, and all of that was written.
            return;
        }
        if self.life.stop.is_some() {
            self.step(Event::Tick);
            return;
        }
        let is_new = self.life.accepted_at.is_none();
        let admitted = match reservation {
            Ok(reservation) if is_new => match self.node.api.node().await {
                Ok(node) => admit::fits(&self.pod, &node).map(|()| reservation),
                // The Node object is not what the pod depends on.
                Err(_) => Ok(reservation),
            },
            other => other,
        };
        let host_network = self.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        let event = match admitted {
            Ok(reservation) => {
                let address = if host_network { None } else { self.node.shared.networks.take_address() };
                let ip = address.as_ref().map_or(self.addresses.host, PodAddress::ip);
                self.addresses.pod = Some(ip);
                let services = self.node.shared.networks.services();
                let ports = services.open_host_ports(&self.pod, ip, self.addresses.host);
                self.holdings = Some((reservation, address, ports));
                Event::Accepted
            }
            Err(rejection) => Event::Rejected(rejection),
        };
        if event == Event::Accepted {
            if is_new {
                self.say_what_is_unsupported();
            }
            self.heed_annotations(is_new);
        }
        self.step(event);
    }

    async fn work(&mut self) {
        loop {
            let mail = self.inbox.take();
            if mail.shutdown {
                return;
            }
            self.read(mail);
            if self.write() {
                return;
            }
            let wake = [self.life.wake_at(), self.write_at.filter(|_| self.dirty && !self.writing)];
            let wake = wake.into_iter().flatten().min();
            let inbox = self.inbox.clone();
            let clock = self.node.shared.clock;
            tokio::select! {
                biased;
                Some(outcome) = self.tasks.next(), if !self.tasks.is_empty() => self.take(outcome),
                () = inbox.arrived() => {}
                () = async { clock.sleep_until(wake.unwrap_or(Timestamp::MAX)).await }, if wake.is_some() => {
                    if self.life.wake_at().is_some_and(|at| at <= clock.now()) {
                        self.step(Event::Tick);
                    }
                }
            }
        }
    }

    fn read(&mut self, mail: Mail) {
        if let Some(pod) = mail.pod {
            self.observe(pod, false);
        }
        if mail.gone {
            self.step(Event::Gone);
        }
        if let Some(news) = mail.sources {
            if self.life.accepted_at.is_some() && self.life.end.is_none() {
                self.sources_changed(news);
            }
            if self.life.waits_for_config() {
                self.step(Event::SourcesChanged);
            }
            if self.life.waits_for_image() {
                self.pull_secrets_changed();
            }
        }
    }

    /// Takes a newer content of the pod in; `is_ours` if its status is what was just written.
    fn observe(&mut self, pod: Arc<Pod>, is_ours: bool) {
        if revision(&pod).is_some_and(|new| revision(&self.pod).is_some_and(|old| new <= old)) {
            return;
        }
        let old = std::mem::replace(&mut self.pod, pod);
        let pod = self.pod.clone();
        let deletion = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_some().then_some(pod.metadata.deletion_grace_period_seconds)
        };
        if let Some(grace) = deletion(&pod)
            && deletion(&old) != Some(grace)
        {
            self.step(Event::Deleted { grace_seconds: grace.unwrap_or_default() });
        }
        self.heed_additions(&pod);
        for slot in 0..self.life.containers.len() {
            let Some((container, _)) = start::container(&pod, slot) else { continue };
            let image = container.image.clone().unwrap_or_default();
            if image != self.life.containers[slot].image {
                self.step(Event::SpecChanged { slot, image });
            }
        }
        let deadline = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        if deadline(&old) != deadline(&pod) {
            self.step(Event::DeadlineChanged(deadline(&pod)));
        }
        if annotations::wishes(&old) != annotations::wishes(&pod) {
            self.heed_annotations(true);
        }
        let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        if shown(&old) != shown(&pod) {
            if volume::shows_fields(&pod) && self.volumes.is_some() {
                self.fetch_volumes();
            }
            if self.life.waits_for_config() {
                self.step(Event::SourcesChanged);
            }
        }
        if !is_ours && old.status != pod.status {
            self.soil();
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.node.shared.clock.now();
        let actions = self.life.step(event, now);
        for action in actions {
            self.act(action);
        }
        if self.life.end.is_some() {
            // What the next pod may have is free before anybody reads that this one has ended.
            self.node.shared.meters.forget(self.pod.metadata.uid.as_deref().unwrap_or_default());
            self.holdings = None;
            self.volumes = None;
            self.subscriptions.clear();
            self.contents.clear();
        } else {
            if self.life.waits_for_config() && !self.hears_config {
                self.hear_config();
            }
            if self.life.waits_for_image() && !self.hears_images {
                self.hear_images();
            }
        }
        self.soil();
    }

    /// The status may have changed.
    fn soil(&mut self) {
        let may_soon_change = self.life.end.is_none()
            && self.life.stop.is_none()
            && (self.life.is_starting() || self.life.policy != RestartPolicy::Always);
        self.soil_by(if may_soon_change { SETTLE } else { Duration::ZERO });
    }

    /// Something is to be written within `wait`.
    fn soil_by(&mut self, wait: Duration) {
        let now = self.node.shared.clock.now();
        let at = now.checked_add(wait).unwrap_or(now);
        let already = self.write_at.filter(|_| self.dirty);
        self.write_at = Some(already.map_or(at, |already| already.min(at)));
        self.dirty = true;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Prepare => {
                if !self.volume_sources.is_empty() {
                    let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
                    let sources = self.volume_sources.iter().cloned();
                    let subscription = self.node.shared.sources.subscribe(&namespace, sources, &self.inbox);
                    self.subscriptions.push(subscription);
                }
                self.fetch_volumes();
            }
            Action::Start { slot } => self.start(slot),
            Action::Cancel { slot } => {
                if let Some(starting) = self.acting[slot].starting.take() {
                    starting.abort();
                }
            }
            Action::RunHook { slot, hook } => self.run_hook(slot, hook),
            Action::CancelHook { slot } => {
                if let Some(hook) = self.acting[slot].hook.take() {
                    hook.abort();
                }
            }
            Action::Probe { slot, kind } => self.probe(slot, kind),
            Action::Ask { slot, until } => self.ask(slot, until),
            Action::Kill { slot } => {
                if let Some(begun) = &self.acting[slot].begun {
                    begun.container.kill();
                }
            }
            Action::Record { slot, warning, reason, message } => {
                let part = slot
                    .and_then(|slot| start::container(&self.pod, slot))
                    .map(|(container, part)| format!("spec.{part}{{{}}}", container.name));
                let about = client::reference(&*self.pod, part);
                self.node.api.record(&about, warning, reason, message);
            }
        }
    }

    fn start(&mut self, slot: Slot) {
        let acting = &mut self.acting[slot];
        let tracker: Arc<Tracker> = Arc::default();
        acting.tracker = Some(tracker.clone());
        let start = Start {
            node: self.node.clone(),
            pod: self.pod.clone(),
            pod_ip: self.addresses.pod.unwrap_or(Ipv4Addr::UNSPECIFIED),
            volumes: self.volumes.clone().unwrap_or_default(),
            slot,
            run: acting.runs,
            budget: self.budget.clone(),
            tracker,
        };
        acting.runs = acting.runs.saturating_add(1);
        let (handle, registration) = AbortHandle::new_pair();
        acting.starting = Some(handle);
        let start = Abortable::new(start::start(start), registration);
        self.tasks.push(Box::pin(async move {
            match start.await {
                Ok(result) => Outcome::Started { slot, result },
                Err(_aborted) => Outcome::Nothing,
            }
        }));
    }

    fn take(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Fetched(found) => self.fetched(found),
            Outcome::FetchAgain => {
                if self.life.end.is_none() {
                    self.fetch_volumes();
                }
            }
            Outcome::Started { slot, result } => self.started(slot, result),
            Outcome::Exited { slot, exit } => self.exited(slot, exit),
            Outcome::Hooked { slot, hook, error } => {
                self.acting[slot].hook = None;
                self.step(Event::Hooked { slot, hook, error });
            }
            Outcome::Withdrawn { slot, until } => self.ask_now(slot, until),
            Outcome::Probed { slot, kind, answer } => self.step(Event::Probed { slot, kind, answer }),
            Outcome::ImagesChanged(news) => {
                if self.life.waits_for_image() {
                    // Other images come and go, and a registry that refuses is not asked again for that.
                    let mut waiting =
                        self.life.containers.iter().filter(|container| container.waiting.is_some());
                    if waiting.any(|container| self.node.config.images.has(&container.image)) {
                        self.step(Event::ImagesChanged);
                    }
                    self.await_images(news);
                } else {
                    self.hears_images = false;
                }
            }
            Outcome::Wrote(answer) => {
                self.writing = false;
                match answer {
                    Ok(pod) => self.observe(pod, true),
                    Err(error) => {
                        self.dirty = true;
                        self.failed(&error);
                    }
                }
            }
            Outcome::Read(answer) => {
                self.writing = false;
                match answer {
                    Ok(pod) if pod.metadata.uid == self.pod.metadata.uid => self.observe(pod, false),
                    Ok(_) => self.step(Event::Gone),
                    Err(error) => self.failed(&error),
                }
            }
            Outcome::Deleted(answer) => {
                self.deleting = false;
                match answer {
                    // A conflict is another pod of the same name.
                    Ok(()) | Err(ApiError::NotFound | ApiError::Conflict) => self.deleted = true,
                    Err(error) => {
                        self.dirty = true;
                        self.failed(&error);
                    }
                }
            }
            Outcome::Announced(error) => self.announced(error),
            Outcome::Nothing => {}
        }
    }

    /// A request about this pod failed.
    fn failed(&mut self, error: &ApiError) {
        let now = self.node.shared.clock.now();
        match error {
            ApiError::NotFound => self.step(Event::Gone),
            ApiError::Conflict => {
                // Somebody else has written: take that in and write again.
                self.writing = true;
                let api = self.node.api.clone();
                let meta = &self.pod.metadata;
                let namespace = meta.namespace.clone().unwrap_or_default();
                let name = meta.name.clone().unwrap_or_default();
                self.tasks.push(Box::pin(async move { Outcome::Read(api.pod(&namespace, &name).await) }));
            }
            ApiError::Other(why) => {
                tracing::warn!(pod = self.life.title, why, "cannot write a pod's status; trying again");
                self.write_at = now.checked_add(RETRY).ok();
            }
        }
    }

    fn started(&mut self, slot: Slot, result: Result<Begun, StartFailure>) {
        self.acting[slot].starting = None;
        match result {
            Ok(begun) => {
                let container = begun.container.clone();
                let (container_id, image_id) = (begun.container_id.clone(), begun.image_id.clone());
                self.acting[slot].begun = Some(begun);
                self.tasks.push(Box::pin(async move {
                    let exit = container.exited().await;
                    Outcome::Exited { slot, exit }
                }));
                self.step(Event::Started { slot, container_id, image_id });
                // Content may have changed while it was being started.
                self.renew_outdated(slot);
            }
            Err(failure) => self.step(Event::StartFailed { slot, failure }),
        }
    }

    fn exited(&mut self, slot: Slot, exit: Exit) {
        let now = self.node.shared.clock.now();
        self.take_reports();
        self.acting[slot].tracker = None;
        self.acting[slot].cancel_handlers();
        let Some(begun) = self.acting[slot].begun.take() else { return };
        if let Some(fuel) = begun.container.fuel() {
            self.acting[slot].fuel = Some(fuel);
        }
        let container = &self.life.containers[slot];
        let started_at = container.running_since();
        begun.log.close();
        self.logs.end(&container.name);
        let ended = start::ended(&self.pod, slot, exit, &begun, started_at, now);
        self.step(Event::Exited { slot, ended });
    }

    /// The annotations that are to say how much fuel was used, and do not yet.
    fn fuel(&self) -> Vec<(String, String)> {
        let written = self.pod.metadata.annotations.as_ref();
        let of = |(container, acting): (&lifecycle::Container, &Acting)| {
            let (key, value) =
                (format!("{}{}", annotations::FUEL_USED, container.name), acting.fuel?.to_string());
            (written.and_then(|all| all.get(&key)) != Some(&value)).then_some((key, value))
        };
        self.life.containers.iter().zip(&self.acting).filter_map(of).collect()
    }

    /// Begins what is to be written now; whether all is done and written.
    fn write(&mut self) -> bool {
        if self.life.stop == Some(super::lifecycle::Stop::Gone) {
            self.dirty = false;
            return self.life.end.is_some();
        }
        let now = self.node.shared.clock.now();
        if self.writing || self.deleting {
            return false;
        }
        if self.dirty {
            if self.write_at.is_some_and(|at| at > now) {
                return false;
            }
            self.dirty = false;
            self.write_at = None;
            let status = status::build(&self.pod, &self.life, self.addresses, now);
            let mut told = self.fuel();
            told.extend(self.revisions().map(|revisions| (config::REVISIONS.to_owned(), revisions)));
            if self.pod.status.as_ref() != Some(&status) || !told.is_empty() {
                let mut pod = (*self.pod).clone();
                pod.status = Some(status);
                if !told.is_empty() {
                    pod.metadata.annotations.get_or_insert_default().extend(told);
                }
                self.writing = true;
                let api = self.node.api.clone();
                self.tasks.push(Box::pin(async move { Outcome::Wrote(api.write_status(pod).await) }));
                return false;
            }
        }
        if self.life.end.is_none() {
            return false;
        }
        if self.pod.metadata.deletion_timestamp.is_none() || self.deleted {
            return true;
        }
        self.deleting = true;
        let (api, pod) = (self.node.api.clone(), self.pod.clone());
        self.tasks.push(Box::pin(async move { Outcome::Deleted(api.delete_pod(&pod).await) }));
        false
    }
}

fn revision(pod: &Pod) -> Option<u64> {
    Some(content::revision(&pod.metadata)).filter(|revision| *revision > 0)
}

#[cfg(test)]
mod tests;
