//! The actor against doubles of the API and the runtime, in virtual time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, ObjectReference, Secret, ServiceAccount};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::{self, Clock};
use crate::kind::address_plan::AddressPlan;
use crate::kubelet::admit::Usage;
use crate::kubelet::api::NodeApi;
use crate::kubelet::image::{ImageStore, Images};
use crate::kubelet::logs::Logs;
use crate::kubelet::node::NodeConfig;
use crate::kubelet::nodes::{Dispatch, Shared};
use crate::kubelet::running::Running;
use crate::kubelet::sources::{SourceKind, Sources};
use crate::network::Networks;
use crate::random::Random;
use crate::runtime::stdio::Output;
use crate::runtime::{Container, ContainerSpec, Image, ImageError, Runtime};

mod config;
mod configuration;
mod handlers;

/// The API: one pod, and what was said about it.
#[derive(Default)]
struct FakeApi {
    state: Mutex<State>,
    changed: tokio::sync::watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    pod: Option<Arc<Pod>>,
    revision: u64,
    /// `phase` and the first container's state, of each write.
    writes: Vec<String>,
    events: Vec<String>,
    deletions: u32,
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
    map_revision: u64,
}

impl FakeApi {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.send_modify(|changes| *changes += 1);
        result
    }

    fn put(&self, mut pod: Pod) -> Arc<Pod> {
        self.change(|state| {
            state.revision += 1;
            pod.metadata.resource_version = Some(state.revision.to_string());
            let pod = Arc::new(pod);
            state.pod = Some(pod.clone());
            pod
        })
    }

    fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }
}

fn summary(pod: &Pod) -> String {
    let status = pod.status.as_ref().unwrap();
    let container = status.container_statuses.iter().flatten().next();
    let state = container.and_then(|container| container.state.as_ref());
    let word = state.map_or_else(String::new, |state| match (&state.waiting, &state.terminated) {
        (Some(waiting), _) => waiting.reason.clone().unwrap(),
        (None, Some(ended)) => format!("{} {}", ended.reason.as_ref().unwrap(), ended.exit_code),
        (None, None) => "running".into(),
    });
    format!("{} {word}", status.phase.as_ref().unwrap()).trim().to_owned()
}

#[async_trait]
impl NodeApi for FakeApi {
    async fn queue(
        &self,
        _namespace: &str,
        _job: &str,
        _ask: Option<serde_json::Value>,
    ) -> Result<serde_json::Value, ApiError> {
        unreachable!("no test here has a queue")
    }

    fn queue_changes(&self, _namespace: &str, _job: &str) -> Box<dyn crate::kubelet::api::QueueChanges> {
        unreachable!("no test here has a queue")
    }

    async fn pod(&self, _namespace: &str, _name: &str) -> Result<Arc<Pod>, ApiError> {
        self.state.lock().unwrap().pod.clone().ok_or(ApiError::NotFound)
    }

    async fn write_status(&self, pod: Pod) -> Result<Arc<Pod>, ApiError> {
        tokio::task::yield_now().await;
        let current = self.state.lock().unwrap().pod.clone().ok_or(ApiError::NotFound)?;
        if current.metadata.resource_version != pod.metadata.resource_version {
            return Err(ApiError::Conflict);
        }
        self.change(|state| state.writes.push(summary(&pod)));
        Ok(self.put(pod))
    }

    async fn delete_pod(&self, _pod: &Pod) -> Result<(), ApiError> {
        self.change(|state| {
            state.deletions += 1;
            state.pod = None;
        });
        Ok(())
    }

    async fn node(&self) -> Result<Arc<Node>, ApiError> {
        Ok(Arc::default())
    }

    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        self.state.lock().unwrap().config_maps.get(name).cloned().ok_or(ApiError::NotFound)
    }

    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        self.state.lock().unwrap().secrets.get(name).cloned().ok_or(ApiError::NotFound)
    }

    async fn account(&self, _namespace: &str, _name: &str) -> Result<Arc<ServiceAccount>, ApiError> {
        Err(ApiError::NotFound)
    }

    async fn token(
        &self,
        _namespace: &str,
        _account: &str,
        _request: TokenRequest,
    ) -> Result<(String, Timestamp), ApiError> {
        Err(ApiError::NotFound)
    }

    fn record(&self, _about: &ObjectReference, _warning: bool, reason: &str, message: String) {
        self.change(|state| state.events.push(format!("{reason}: {message}")));
    }
}

/// Runs that end as their first argument says: a code at once, or not (`sleep`); `hears` and `ignores` are asked
/// to stop, and only the first does so. A second argument is what is written, if that is to a pipe.
#[derive(Default)]
struct FakeRuntime {
    started: Mutex<Vec<ContainerSpec>>,
    killed: Arc<Mutex<u32>>,
    /// What each was asked to end within, in milliseconds.
    asked: Arc<Mutex<Vec<u128>>>,
}

struct FakeImage;

impl Image for FakeImage {
    fn digest(&self) -> &'static str {
        "sha256:1"
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn version(&self) -> String {
        "fake://1".into()
    }

    async fn prepare(&self, wasm: Bytes) -> Result<Arc<dyn Image>, ImageError> {
        if wasm.ends_with(b"bad") {
            return Err(ImageError::MissingImports(vec!["env.foo".into()]));
        }
        Ok(Arc::new(FakeImage))
    }

    async fn start(&self, spec: ContainerSpec) -> Container {
        let exit = match spec.args.get(1).map(String::as_str) {
            Some("sleep" | "hears" | "ignores") | None => None,
            Some("trap") => Some(Exit::Trap("unreachable".into())),
            Some("oom") => Some(Exit::OutOfMemory),
            Some(code) => Some(Exit::Code(code.parse().unwrap())),
        };
        let word = spec.args.get(1).cloned();
        if let (Output::Pipe(stdout), Some(_)) = (&spec.stdio.stdout, &exit) {
            let says = spec.args.get(2).cloned().unwrap_or_default();
            stdout.write(says.into()).await;
            stdout.end();
        }
        self.started.lock().unwrap().push(spec);
        let (sender, receiver) = watch::channel(exit);
        let sender = Arc::new(sender);
        let end = move |how: Exit| {
            sender.send_if_modified(|exit| exit.is_none() && exit.replace(how.clone()).is_none())
        };
        let (killed, kill) = (self.killed.clone(), end.clone());
        let container = Container::new(
            receiver,
            Box::new(move || {
                if kill(Exit::Killed) {
                    *killed.lock().unwrap() += 1;
                }
            }),
        );
        if !matches!(word.as_deref(), Some("hears" | "ignores")) {
            return container;
        }
        let asked = self.asked.clone();
        container.hearing(Box::new(move |left| {
            asked.lock().unwrap().push(left.as_millis());
            if word.as_deref() == Some("hears") {
                end(Exit::Code(0));
            }
        }))
    }
}

struct Harness {
    api: Arc<FakeApi>,
    runtime: Arc<FakeRuntime>,
    node: Arc<NodeContext>,
    inbox: Arc<Inbox>,
    task: Option<tokio::task::JoinHandle<()>>,
}

fn pod(arg: &str, policy: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {
            "nodeName": "node", "restartPolicy": policy,
            "containers": [{"name": "c", "image": "hello", "args": [arg]}],
        },
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

fn with(mut pod: Pod, spec: Value) -> Pod {
    let mut whole = serde_json::to_value(&pod.spec).unwrap();
    let container = whole["containers"][0].as_object_mut().unwrap();
    container.extend(spec["container"].as_object().cloned().unwrap_or_default());
    if let Some(volumes) = spec.get("volumes") {
        whole["volumes"] = volumes.clone();
    }
    pod.spec = serde_json::from_value(whole).unwrap();
    pod
}

impl Harness {
    fn new() -> Self {
        Self::with_images(Images::any)
    }

    fn with_images(images: impl FnOnce(Arc<dyn Runtime>) -> Arc<Images>) -> Self {
        let runtime = Arc::new(FakeRuntime::default());
        let api = Arc::new(FakeApi::default());
        let config =
            NodeConfig::sim("node", AddressPlan::default().node(0), runtime.clone(), images(runtime.clone()));
        let shared = Arc::new(Shared {
            clock: Clock::starting_at(Timestamp::UNIX_EPOCH),
            sources: Sources::new(None, CancellationToken::new()),
            networks: Networks::new(
                AddressPlan::default(),
                Clock::starting_at(Timestamp::UNIX_EPOCH),
                &Random::from_seed(1),
            ),
            logs: Logs::default(),
            running: Running::default(),
            meters: crate::kubelet::Meters::default(),
        });
        let usage = Usage::new(config.capacity.clone());
        let node = Arc::new(NodeContext { config, api: api.clone(), usage, shared });
        Self { api, runtime, node, inbox: Arc::default(), task: None }
    }

    fn run(&mut self, pod: Pod) {
        let pod = self.api.put(pod);
        let reservation = self.node.usage.reserve(&pod, false);
        let run = super::run(self.node.clone(), self.inbox.clone(), pod, reservation);
        self.task = Some(tokio::spawn(run));
    }

    /// Waits until it holds; fails with what is known if nothing more happens.
    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changed = self.api.changed.subscribe();
        let wait = async {
            while !holds(&self.api.state.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        let limit = Duration::from_secs(3600);
        if self.node.shared.clock.timeout(limit, wait).await.is_err() {
            let state = self.api.state.lock().unwrap();
            panic!("never came: {:?} {:?}", state.writes, state.events);
        }
    }

    async fn until_written(&self, summary: &str) {
        self.until(|state| state.writes.last().is_some_and(|last| last == summary)).await;
    }

    async fn ended(&mut self) {
        let task = self.task.take().unwrap();
        let limit = Duration::from_secs(3600);
        self.node.shared.clock.timeout(limit, task).await.expect("the actor ends").unwrap();
    }

    fn config_map(&self, name: &str, value: &str) {
        let map: ConfigMap = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value},
        }))
        .unwrap();
        self.api.change(|state| {
            let mut map = map;
            state.map_revision += 1;
            map.metadata.resource_version = Some(state.map_revision.to_string());
            state.config_maps.insert(name.into(), Arc::new(map));
        });
        self.node.shared.sources.changed(SourceKind::ConfigMap, "n".into(), name.into());
    }

    fn delete(&self) {
        self.delete_within(30);
    }

    fn delete_within(&self, grace_seconds: i64) {
        let mut pod = (**self.api.state.lock().unwrap().pod.as_ref().unwrap()).clone();
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.node.shared.clock.now()));
        pod.metadata.deletion_grace_period_seconds = Some(grace_seconds);
        self.inbox.pod_changed(self.api.put(pod));
    }

    fn events(&self) -> Vec<String> {
        self.api.state.lock().unwrap().events.clone()
    }
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    clock::virtual_runtime().unwrap().block_on(test);
}

#[test]
fn a_pod_that_exits_at_once_costs_one_write() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(pod("0", "Never"));
        harness.ended().await;
        assert_eq!(harness.api.writes(), ["Succeeded Completed 0"]);
        assert_eq!(
            harness.events(),
            [
                "Pulled: Container image \"hello\" already present on machine",
                "Created: Created container: c",
                "Started: Started container c",
            ]
        );
        assert_eq!(harness.api.state.lock().unwrap().deletions, 0);
        let env = harness.runtime.started.lock().unwrap()[0].env.clone();
        assert_eq!(env[0], ("HOSTNAME".into(), "p".into()));
    });
}

#[test]
fn exits_are_told_in_kubernetes_words() {
    for (arg, written) in
        [("3", "Failed Error 3"), ("trap", "Failed Error 134"), ("oom", "Failed OOMKilled 137")]
    {
        in_virtual_time(async {
            let mut harness = Harness::new();
            harness.run(pod(arg, "Never"));
            harness.ended().await;
            assert_eq!(harness.api.writes(), [written]);
            let state = harness.api.state.lock().unwrap();
            let status = state.pod.as_ref().unwrap().status.as_ref().unwrap();
            let ended = status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap();
            let message = ended.terminated.as_ref().unwrap().message.as_deref();
            assert_eq!(message, (arg == "trap").then_some("unreachable"));
        });
    }
}

#[test]
fn a_deleted_pod_is_killed_reported_and_removed() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(pod("sleep", "Always"));
        harness.until_written("Running running").await;
        harness.delete();
        harness.ended().await;
        assert_eq!(harness.api.writes(), ["Running running", "Failed Error 137"]);
        assert_eq!(harness.api.state.lock().unwrap().deletions, 1);
        assert_eq!(harness.events().last().unwrap(), "Killing: Stopping container c");
        let left = harness.node.shared.clock.now();
        assert!(left.as_second() < 1, "no grace is waited for: {left}");
    });
}

#[test]
fn a_pod_that_is_gone_is_killed_in_silence() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(pod("sleep", "Always"));
        harness.until_written("Running running").await;
        harness.inbox.pod_gone();
        harness.ended().await;
        assert_eq!(harness.api.writes(), ["Running running"]);
        assert_eq!(*harness.runtime.killed.lock().unwrap(), 1);
    });
}

#[test]
fn a_shutdown_kills_and_reports_nothing() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(pod("sleep", "Never"));
        harness.until_written("Running running").await;
        harness.inbox.shutdown();
        harness.ended().await;
        assert_eq!(harness.api.writes(), ["Running running"]);
        assert_eq!(*harness.runtime.killed.lock().unwrap(), 1);
    });
}

#[test]
fn a_crashing_container_is_restarted_ever_later() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(pod("1", "Always"));
        harness
            .until(|state| state.events.iter().filter(|event| event.starts_with("Started")).count() == 4)
            .await;
        let now = harness.node.shared.clock.now().as_second();
        assert_eq!(now, 30, "at once, after 10 s and after 20 s");
        assert!(harness.api.writes().contains(&"Running CrashLoopBackOff".to_owned()));
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn a_missing_key_is_waited_for_and_found() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        let env = json!([{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]);
        harness.run(with(pod("0", "Never"), json!({"container": {"env": env}})));
        harness.until_written("Pending CreateContainerConfigError").await;
        assert_eq!(harness.events(), ["Failed: Error: configmap \"m\" not found"]);
        harness.config_map("m", "found");
        harness.ended().await;
        assert_eq!(harness.api.writes().last().unwrap(), "Succeeded Completed 0");
        let started = harness.runtime.started.lock().unwrap();
        assert!(started[0].env.contains(&("V".into(), "found".into())));
        assert!(harness.node.shared.clock.now().as_second() < 1);
    });
}

#[test]
fn a_missing_volume_is_waited_for_and_found() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(with(
            pod("0", "Never"),
            json!({
                "container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                "volumes": [{"name": "v", "configMap": {"name": "m"}}],
            }),
        ));
        harness.until_written("Pending ContainerCreating").await;
        assert_eq!(
            harness.events(),
            ["FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found"]
        );
        harness.config_map("m", "found");
        harness.ended().await;
        assert_eq!(harness.api.writes().last().unwrap(), "Succeeded Completed 0");
    });
}

#[test]
fn a_change_of_a_config_map_shows_at_once() {
    // BEHAVIOURS 10.6 and, unlike 10.8, in a part of a volume too.
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.config_map("m", "old");
        let mounts = json!([
            {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/part", "subPath": "k"},
        ]);
        harness.run(with(
            pod("sleep", "Always"),
            json!({
                "container": {"volumeMounts": mounts},
                "volumes": [{"name": "v", "configMap": {"name": "m", "optional": true}}],
            }),
        ));
        harness.until_written("Running running").await;
        let mount = |i: usize| harness.runtime.started.lock().unwrap()[0].mounts[i].clone();
        let (whole, part) = (mount(0).volume, mount(1));
        assert!(Arc::ptr_eq(&whole, &part.volume));
        assert!(!part.sub_path.unwrap().frozen);
        let clock = harness.node.shared.clock;
        for (change, expected) in [(Some("new"), Some("new")), (None, None), (Some("again"), Some("again"))] {
            match change {
                Some(value) => harness.config_map("m", value),
                None => {
                    harness.api.change(|state| state.config_maps.clear());
                    harness.node.shared.sources.changed(SourceKind::ConfigMap, "n".into(), "m".into());
                }
            }
            clock.sleep(Duration::from_millis(5)).await;
            assert_eq!(whole.read("k"), expected.map(|text| Bytes::from(text.as_bytes())));
        }
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn services_and_the_api_are_in_the_environment() {
    // BEHAVIOURS 10.5.
    let service = |namespace: &str, name: &str| {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "127.96.0.1", "ports": [{"port": 80}]},
        }))
        .unwrap()
    };
    for (links, expected) in [
        (true, vec!["KUBERNETES_SERVICE_HOST", "WEB_SERVICE_HOST"]),
        (false, vec!["KUBERNETES_SERVICE_HOST"]),
    ] {
        in_virtual_time(async {
            let mut harness = Harness::new();
            let services = vec![service("default", "kubernetes"), service("n", "web"), service("o", "other")];
            harness.node.shared.networks.services().set(services, Vec::new());
            let mut pod = pod("0", "Never");
            pod.spec.as_mut().unwrap().enable_service_links = Some(links);
            harness.run(pod);
            harness.ended().await;
            let started = harness.runtime.started.lock().unwrap();
            let names = started[0].env.iter().map(|(name, _)| name.as_str());
            let hosts: Vec<&str> = names.filter(|name| name.ends_with("_HOST")).collect();
            assert_eq!(hosts, expected);
        });
    }
}

#[test]
fn what_somebody_else_wrote_meanwhile_is_kept() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(pod("0", "Never"));
        let mut labelled = pod("0", "Never");
        labelled.metadata.labels = Some(BTreeMap::from([("a".into(), "b".into())]));
        harness.api.put(labelled);
        harness.ended().await;
        assert_eq!(harness.api.writes(), ["Succeeded Completed 0"]);
        let state = harness.api.state.lock().unwrap();
        assert!(state.pod.as_ref().unwrap().metadata.labels.is_some());
    });
}

#[test]
fn an_image_that_is_imported_later_starts_the_pod_at_once() {
    in_virtual_time(async {
        let store = Arc::new(ImageStore::in_memory());
        let mut harness = Harness::with_images(|runtime| Images::local(store.clone(), runtime));
        harness.run(pod("0", "Never"));
        harness.until_written("Pending ErrImagePull").await;
        assert_eq!(harness.events().len(), 1);
        assert!(harness.events()[0].contains("coracle image import FILE.wasm --name hello:latest"));
        harness.until_written("Pending ImagePullBackOff").await;
        let before = harness.node.shared.clock.now();
        store.import("hello", &Bytes::from_static(b"\0asm\x0d\0\x01\0")).unwrap();
        harness.node.config.images.imported();
        harness.ended().await;
        assert_eq!(harness.api.writes().last().unwrap(), "Succeeded Completed 0");
        let took = harness.node.shared.clock.now().duration_since(before);
        assert!(took.as_secs() < 1, "{took}");
    });
}

#[test]
fn an_image_that_cannot_run_says_why() {
    in_virtual_time(async {
        let store = Arc::new(ImageStore::in_memory());
        store.import("hello", &Bytes::from_static(b"\0asm\x0d\0\x01\0bad")).unwrap();
        let mut harness = Harness::with_images(|runtime| Images::local(store.clone(), runtime));
        harness.run(pod("0", "Never"));
        harness.until_written("Pending CreateContainerError").await;
        let why = "Failed: Error: image \"hello\" cannot run: imports that the host lacks: env.foo";
        assert_eq!(harness.events(), [why]);
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn a_refused_pod_fails_and_holds_nothing() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        let big = json!({"container": {"resources": {"requests": {"cpu": "64"}}}});
        harness.run(with(pod("0", "Never"), big));
        harness.ended().await;
        assert_eq!(harness.api.writes(), ["Failed"]);
        assert_eq!(
            harness.events(),
            ["OutOfcpu: Node didn't have enough resource: cpu, requested: 64000, used: 0, capacity: 32000"]
        );
    });
}

#[test]
fn what_has_no_effect_is_said() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        let device = json!({"container": {"volumeDevices": [{"name": "d", "devicePath": "/dev/d"}]}});
        harness.run(with(pod("sleep", "Always"), device));
        harness.until_written("Running running").await;
        assert_eq!(harness.events()[0], "Unsupported: This node does not act on c.volumeDevices");
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn a_late_echo_does_not_run_a_finished_pod_again() {
    in_virtual_time(async {
        let harness = Harness::new();
        let mut dispatch = Dispatch::new(vec![harness.node.clone()], harness.node.shared.clone());
        let new = harness.api.put(pod("0", "Never"));
        dispatch.take(client::Event::Restarted(vec![new.clone()]));
        harness.until_written("Succeeded Completed 0").await;
        dispatch.settle().await;
        dispatch.take(client::Event::Applied(new.clone()));
        dispatch.take(client::Event::Applied(harness.api.state.lock().unwrap().pod.clone().unwrap()));
        dispatch.settle().await;
        assert_eq!(harness.runtime.started.lock().unwrap().len(), 1);
        let read = |pod: &Pod| harness.node.shared.logs.read(pod, "c", false, &Default::default()).is_ok();
        assert!(read(&new), "its output stays until it goes");
        dispatch.take(client::Event::Deleted(new.clone()));
        assert!(!read(&new));
    });
}

#[test]
fn logs_tell_why_there_are_none() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        let logs = harness.node.shared.logs.clone();
        let read =
            |pod: &Pod, previous| logs.read(pod, "c", previous, &Default::default()).err().map(|e| e.0);
        let new = pod("1", "Always");
        assert_eq!(
            read(&new, false).unwrap(),
            "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        harness.run(new.clone());
        harness.until_written("Running CrashLoopBackOff").await;
        let now = harness.api.state.lock().unwrap().pod.clone().unwrap();
        assert_eq!((read(&now, false), read(&now, true)), (None, None));
        harness.inbox.shutdown();
        harness.ended().await;
        let mut harness = Harness::new();
        harness.run(pod("sleep", "Always"));
        harness.until_written("Running running").await;
        let now = harness.api.state.lock().unwrap().pod.clone().unwrap();
        let none = harness.node.shared.logs.read(&now, "c", true, &Default::default()).err().unwrap();
        assert_eq!(none.0, "previous terminated container \"c\" in pod \"p\" not found");
        harness.inbox.shutdown();
        harness.ended().await;
    });
}
