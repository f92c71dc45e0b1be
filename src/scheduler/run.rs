//! The loop around the decisions: what was seen goes in, bindings and conditions go out.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::NAME;
use super::cache::{Cache, Pending};
use super::diagnosis::Diagnosis;
use super::filter::Blocker;
use super::place::{Work, place};
use super::queue::{PodKey, Queue, pod_key};
use crate::client::{Client, Event, Recorder, Result, Select, reference};
use crate::clock::Clock;
use crate::random::Random;

/// Writes under way at one time, so that they share the store's flushes.
const WRITES_MAX: usize = 512;
/// Pods placed before news is looked at again.
const TURN_MAX: usize = 256;
/// Tries of a condition that somebody else's status update gets in the way of.
const CONFLICTS_MAX: usize = 5;

/// How a write that the loop started ended.
enum Done {
    Bound { pending: Pending, node: String, result: Result<()> },
    Explained,
}

struct State {
    client: Client,
    recorder: Recorder,
    clock: Clock,
    random: Random,
    cache: Cache,
    queue: Queue,
    work: Work,
    /// Uids of pods that count on a node though no watch has shown them there yet.
    assumed: BTreeSet<String>,
    writes: JoinSet<Done>,
    nodes_known: bool,
    pods_known: bool,
}

pub(super) async fn run(
    client: Client,
    recorder: Recorder,
    clock: Clock,
    random: Random,
    stop: CancellationToken,
) {
    let mut nodes = client.watch::<Node>(Select::default());
    let mut pods = client.watch::<Pod>(Select::default());
    let mut namespaces = client.watch::<Namespace>(Select::default());
    let mut state = State {
        client,
        recorder,
        clock,
        random,
        cache: Cache::default(),
        queue: Queue::default(),
        work: Work::default(),
        assumed: BTreeSet::new(),
        writes: JoinSet::new(),
        nodes_known: false,
        pods_known: false,
    };
    loop {
        let more = state.schedule();
        let due = state.queue.due();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = state.writes.join_next() => state.finished(done.expect("a write does not panic")),
            batch = nodes.next_batch() => match batch {
                Some(batch) => state.saw_nodes(batch),
                None => break,
            },
            batch = namespaces.next_batch() => match batch {
                Some(batch) => state.saw_namespaces(batch),
                None => break,
            },
            batch = pods.next_batch() => match batch {
                Some(batch) => state.saw_pods(batch),
                None => break,
            },
            () = wait(clock, due), if due.is_some() => {}
            () = tokio::task::yield_now(), if more => {}
        }
    }
    while let Some(done) = state.writes.join_next().await {
        state.finished(done.expect("a write does not panic"));
    }
}

/// Returns at `due`, in the clock's monotonic time.
async fn wait(clock: Clock, due: Option<std::time::Duration>) {
    if let Some(due) = due {
        clock.sleep(due.saturating_sub(clock.monotonic())).await;
    }
}

impl State {
    /// Tries the pods that are next. Returns whether there are more to try at once.
    fn schedule(&mut self) -> bool {
        if !(self.nodes_known && self.pods_known) {
            return false;
        }
        for _ in 0..TURN_MAX {
            if self.writes.len() >= WRITES_MAX {
                // A write that ends wakes the loop.
                return false;
            }
            let Some(pending) = self.queue.pop(self.clock.monotonic()) else { return false };
            match place(&mut self.cache, &pending, &self.random, &mut self.work) {
                Ok(node) => self.bind(pending, node),
                Err(diagnosis) => self.explain(&pending, &diagnosis),
            }
        }
        self.queue.has_active()
    }

    fn bind(&mut self, pending: Pending, node: usize) {
        let node = self.cache.node(node).name.to_string();
        self.cache.add_pod(&pending, &node);
        let uid = pending.pod.metadata.uid.clone().unwrap_or_default();
        self.assumed.insert(uid.clone());
        let client = self.client.clone();
        self.writes.spawn(async move {
            let (namespace, name) = pod_key(&pending);
            let result = client.bind(&namespace, &name, &uid, &node).await;
            Done::Bound { pending, node, result }
        });
    }

    fn finished(&mut self, done: Done) {
        let Done::Bound { pending, node, result } = done else { return };
        let key = pod_key(&pending);
        let uid = pending.pod.metadata.uid.as_deref().unwrap_or_default();
        let about = reference(&*pending.pod, None);
        match result {
            Ok(()) => {
                self.remove_if(&key, uid);
                let message = format!("Successfully assigned {}/{} to {node}", key.0, key.1);
                self.recorder.normal(&about, "Scheduled", message);
            }
            Err(error) => {
                // What a watch has shown meanwhile stands; only the assumption is undone.
                if self.assumed.remove(uid) && self.cache.remove_pod(uid) {
                    self.woke(&[Blocker::Room, Blocker::Pods]);
                }
                if self.queue.get(&key).is_some_and(|known| known.pod.metadata.uid.as_deref() == Some(uid)) {
                    self.recorder.warning(&about, "FailedScheduling", format!("binding rejected: {error}"));
                    self.queue.failed(&key, self.clock.monotonic());
                }
            }
        }
    }

    fn remove_if(&mut self, key: &PodKey, uid: &str) {
        if self.queue.get(key).is_some_and(|pending| pending.pod.metadata.uid.as_deref() == Some(uid)) {
            self.queue.remove(key);
        }
    }

    fn explain(&mut self, pending: &Pending, diagnosis: &Arc<Diagnosis>) {
        self.queue.unschedulable(&pod_key(pending), &diagnosis.blockers, self.clock.monotonic());
        let condition = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("Unschedulable".into()),
            message: Some(diagnosis.message.clone()),
            ..PodCondition::default()
        };
        if says(&pending.pod, &condition) {
            return;
        }
        self.recorder.warning(&reference(&*pending.pod, None), "FailedScheduling", diagnosis.message.clone());
        self.write_condition(pending.pod.clone(), condition);
    }

    fn write_condition(&mut self, pod: Arc<Pod>, condition: PodCondition) {
        let (client, now) = (self.client.clone(), self.clock.now());
        self.writes.spawn(async move {
            if let Err(error) = write_condition(&client, pod, condition, Time(now)).await {
                tracing::debug!(%error, "cannot write why a pod is not scheduled");
            }
            Done::Explained
        });
    }

    fn saw_nodes(&mut self, batch: Vec<Event<Node>>) {
        let mut changed = false;
        for event in batch {
            match event {
                Event::Restarted(nodes) => {
                    let there: BTreeSet<&str> =
                        nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
                    for name in self.cache.node_names() {
                        if !there.contains(&*name) {
                            self.cache.remove_node(&name);
                        }
                    }
                    for node in &nodes {
                        self.cache.set_node(node.clone());
                    }
                    self.nodes_known = true;
                    changed = true;
                }
                Event::Applied(node) => changed |= self.cache.set_node(node),
                Event::Deleted(node) => {
                    self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                    // The messages of those that wait count the nodes.
                    changed = true;
                }
            }
        }
        if changed {
            self.woke(&[Blocker::Node]);
        }
    }

    fn saw_namespaces(&mut self, batch: Vec<Event<Namespace>>) {
        let topology = &mut self.cache.topology;
        let labels = |namespace: &Namespace| namespace.metadata.labels.clone().unwrap_or_default();
        let name = |namespace: &Namespace| namespace.metadata.name.clone().unwrap_or_default();
        for event in batch {
            match event {
                Event::Restarted(namespaces) => {
                    topology.clear_namespaces();
                    for namespace in &namespaces {
                        topology.set_namespace(&name(namespace), Some(labels(namespace)));
                    }
                }
                Event::Applied(namespace) => {
                    topology.set_namespace(&name(&namespace), Some(labels(&namespace)))
                }
                Event::Deleted(namespace) => topology.set_namespace(&name(&namespace), None),
            }
        }
    }

    fn saw_pods(&mut self, batch: Vec<Event<Pod>>) {
        let mut helped = BTreeSet::new();
        for event in batch {
            match event {
                Event::Restarted(pods) => {
                    self.forget_all_but(&pods);
                    for pod in pods {
                        self.saw_pod(pod, &mut helped);
                    }
                    self.pods_known = true;
                    helped.extend([Blocker::Room, Blocker::Pods]);
                }
                Event::Applied(pod) => self.saw_pod(pod, &mut helped),
                Event::Deleted(pod) => self.forget(&pod, &mut helped),
            }
        }
        let helped: Vec<Blocker> = helped.into_iter().collect();
        self.woke(&helped);
    }

    fn saw_pod(&mut self, pod: Arc<Pod>, helped: &mut BTreeSet<Blocker>) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.forget(&pod, helped);
        }
        let key = key_of(&pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let Some(spec) = &pod.spec else { return };
        if let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) {
            self.remove_if(&key, &uid);
            if self.assumed.remove(&uid) || !self.cache.holds(&uid) {
                helped.insert(Blocker::Pods);
            }
            let pending = self.cache.pending(pod);
            self.cache.add_pod(&pending, &node);
            return;
        }
        if spec.scheduler_name.as_deref().is_some_and(|name| name != NAME) {
            return;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return self.queue.remove(&key);
        }
        if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            return self.gated(pod);
        }
        match self.queue.get(&key) {
            // A status or an annotation changes nothing here; the condition just written is one.
            Some(known)
                if known.pod.metadata.uid == pod.metadata.uid
                    && known.pod.spec == pod.spec
                    && known.pod.metadata.labels == pod.metadata.labels =>
            {
                self.queue.refresh(&key, pod);
            }
            _ => {
                let pending = self.cache.pending(pod);
                self.queue.add(pending, self.clock.monotonic());
            }
        }
    }

    fn gated(&mut self, pod: Arc<Pod>) {
        let condition = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("SchedulingGated".into()),
            message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
            ..PodCondition::default()
        };
        if !says(&pod, &condition) {
            self.write_condition(pod, condition);
        }
    }

    fn forget(&mut self, pod: &Pod, helped: &mut BTreeSet<Blocker>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.remove_if(&key_of(pod), uid);
        self.assumed.remove(uid);
        if self.cache.remove_pod(uid) {
            helped.extend([Blocker::Room, Blocker::Pods]);
        }
    }

    fn forget_all_but(&mut self, pods: &[Arc<Pod>]) {
        let there: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        for uid in self.cache.pod_uids() {
            if !there.contains(uid.as_str()) {
                self.assumed.remove(&uid);
                self.cache.remove_pod(&uid);
            }
        }
        for key in self.queue.keys() {
            let uid = self.queue.get(&key).and_then(|pending| pending.pod.metadata.uid.clone());
            if !there.contains(uid.as_deref().unwrap_or_default()) {
                self.queue.remove(&key);
            }
        }
    }

    fn woke(&mut self, blockers: &[Blocker]) {
        if !blockers.is_empty() {
            self.queue.wake(blockers, self.clock.monotonic());
        }
    }
}

fn key_of(pod: &Pod) -> PodKey {
    let meta = &pod.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Whether the pod has the condition already.
fn says(pod: &Pod, condition: &PodCondition) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|known| known.type_ == condition.type_).any(|known| {
        known.status == condition.status
            && known.reason == condition.reason
            && known.message == condition.message
    })
}

/// Sets a condition of a pod that is still waiting, whatever else happens to its status.
async fn write_condition(client: &Client, pod: Arc<Pod>, condition: PodCondition, now: Time) -> Result<()> {
    let (namespace, name) = key_of(&pod);
    let mut current = pod.clone();
    for _ in 0..CONFLICTS_MAX {
        let gone = current.metadata.uid != pod.metadata.uid;
        let bound = current.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if gone || bound || says(&current, &condition) {
            return Ok(());
        }
        match client.update_status(with_condition(&current, &condition, &now)).await {
            Err(error) if error.is_conflict() => current = client.get::<Pod>(&namespace, &name).await?,
            other => return other.map(drop),
        }
    }
    Ok(())
}

fn with_condition(pod: &Pod, condition: &PodCondition, now: &Time) -> Pod {
    let mut pod = pod.clone();
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut condition = condition.clone();
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) => {
            let same = known.status == condition.status;
            condition.last_transition_time =
                if same { known.last_transition_time.clone() } else { Some(now.clone()) };
            *known = condition;
        }
        None => {
            condition.last_transition_time = Some(now.clone());
            conditions.push(condition);
        }
    }
    pod
}
