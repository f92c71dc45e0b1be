//! The kubelets over the real API, in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use serde_json::json;

use super::*;
use crate::apiserver::authn::User;
use crate::apiserver::request::{LogOptions, LogStream};
use crate::apiserver::{Api, Error, NodeAccess};
use crate::client::{DeleteOptions, Select};
use crate::kind::address_plan::AddressPlan;
use crate::runtime::sim::SimRuntime;
use crate::store::Store;

struct NoLogs;

#[async_trait::async_trait]
impl NodeAccess for NoLogs {
    async fn logs(&self, _: &Pod, _: &str, _: &LogOptions) -> std::result::Result<LogStream, Error> {
        Ok(Box::pin(futures_util::stream::empty()))
    }
}

struct Cluster {
    api: Api,
    random: Random,
    nodes: u32,
    client: Client,
    clock: Clock,
    kubelets: Kubelets,
}

async fn cluster(nodes: u32) -> Cluster {
    let clock = Clock::starting_at(jiff::Timestamp::from_second(1_700_000_000).unwrap());
    let random = Random::from_seed(1);
    let store = Store::ephemeral(clock);
    let tokens = Arc::new(crate::apiserver::token::SigningKey::generate().unwrap());
    let nodes_access = Arc::new(NoLogs);
    let api = Api::new(crate::apiserver::Parts {
        store,
        clock,
        random: random.clone(),
        nodes: nodes_access,
        tokens,
        plan: AddressPlan::default(),
    });
    let client = Client::new(api.clone(), User::admin());
    for name in ["default", "kube-node-lease"] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.into());
        client.create(namespace).await.unwrap();
    }
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("default".into());
    account.metadata.namespace = Some("default".into());
    client.create(account).await.unwrap();
    let door = api.clone();
    let kubelets = kubelets(&api, clock, &random, nodes).await;
    Cluster { api: door, client, clock, random, kubelets, nodes }
}

/// The kubelets of a process, as after its start.
async fn kubelets(api: &Api, clock: Clock, random: &Random, nodes: u32) -> Kubelets {
    let runtime = SimRuntime::new(clock, random.clone(), tokio::runtime::Handle::current());
    let images = image::Images::any(runtime.clone());
    let config = |i: u32| {
        NodeConfig::sim(&format!("node-{i}"), AddressPlan::default().node(i), runtime.clone(), images.clone())
    };
    let kubelets = Kubelets::start(Parts {
        client: Client::new(api.clone(), User::admin()),
        client_for: {
            let api = api.clone();
            Box::new(move |node| Client::new(api.clone(), User::node(node)))
        },
        clock,
        networks: Networks::new(AddressPlan::default(), clock, random),
        random: random.clone(),
        nodes: (0..nodes).map(config).collect(),
        logs: Logs::default(),
        running: Running::default(),
        meters: crate::kubelet::Meters::default(),
    });
    kubelets.ready().await.unwrap();
    kubelets
}

fn pod(name: &str, node: u32, policy: &str, annotations: &[(&str, &str)]) -> Pod {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "nodeName": format!("node-{node}"), "restartPolicy": policy,
            "containers": [{"name": "c", "image": "hello"}],
        },
    }))
    .unwrap()
}

impl Cluster {
    /// Ends the kubelets and starts them again, as a restart of the process does.
    async fn restart(self) -> Self {
        self.kubelets.shutdown().await;
        let kubelets = kubelets(&self.api, self.clock, &self.random, self.nodes).await;
        Self { kubelets, ..self }
    }

    async fn until(&self, name: &str, holds: impl Fn(Option<&Pod>) -> bool) {
        let mut watcher = self.client.watch::<Pod>(Select::default());
        let wait = async {
            loop {
                let pods = self.client.list::<Pod>(&Select::default()).await.unwrap();
                if holds(
                    pods.items
                        .iter()
                        .map(AsRef::as_ref)
                        .find(|pod| pod.metadata.name.as_deref() == Some(name)),
                ) {
                    return;
                }
                watcher.next().await.unwrap();
            }
        };
        if self.clock.timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("never came: {:#?}", self.client.list::<Pod>(&Select::default()).await.unwrap().items);
        }
    }
}

fn phase(pod: Option<&Pod>) -> &str {
    pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).unwrap_or("gone")
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    crate::clock::virtual_runtime().unwrap().block_on(test);
}

#[test]
fn nodes_register_once_and_keep_what_users_set() {
    in_virtual_time(async {
        let cluster = cluster(3).await;
        let nodes = cluster.client.list::<Node>(&Select::default()).await.unwrap();
        assert_eq!(nodes.items.len(), 3);
        let status = nodes.items[0].status.as_ref().unwrap();
        assert_eq!(status.conditions.as_ref().unwrap().len(), 4);
        let ready = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "True");
        let patch = json!({"metadata": {"labels": {"disk": "ssd"}}, "spec": {"unschedulable": true}});
        cluster.client.merge_patch::<Node>("", "node-0", None, patch).await.unwrap();
        let cluster = cluster.restart().await;
        let node = cluster.client.get::<Node>("", "node-0").await.unwrap();
        assert_eq!(node.metadata.labels.as_ref().unwrap()["disk"], "ssd");
        assert_eq!(node.spec.as_ref().unwrap().unschedulable, Some(true));
        cluster.kubelets.shutdown().await;
    });
}

#[test]
fn pods_run_to_their_end_and_are_deleted() {
    in_virtual_time(async {
        let cluster = cluster(2).await;
        let short = [("coracle.dev/sim-duration", "5s")];
        cluster.client.create(pod("short", 0, "Never", &short)).await.unwrap();
        cluster.client.create(pod("long", 1, "Always", &[])).await.unwrap();
        cluster.until("short", |pod| phase(pod) == "Running").await;
        cluster.until("short", |pod| phase(pod) == "Succeeded").await;
        cluster.until("long", |pod| phase(pod) == "Running").await;
        cluster.client.delete::<Pod>("default", "long", DeleteOptions::default()).await.unwrap();
        cluster.until("long", |pod| pod.is_none()).await;
        cluster.kubelets.shutdown().await;
    });
}

#[test]
fn a_config_map_that_comes_later_starts_the_pod() {
    in_virtual_time(async {
        let cluster = cluster(1).await;
        let mut waiting = pod("waiting", 0, "Always", &[]);
        waiting.spec.as_mut().unwrap().containers[0].env_from =
            serde_json::from_value(json!([{"configMapRef": {"name": "m"}}])).unwrap();
        cluster.client.create(waiting).await.unwrap();
        let reason = |pod: Option<&Pod>| {
            let status = pod?.status.clone()?.container_statuses?.remove(0);
            status.state?.waiting?.reason
        };
        cluster.until("waiting", |pod| reason(pod).as_deref() == Some("CreateContainerConfigError")).await;
        let mut map = ConfigMap::default();
        map.metadata.name = Some("m".into());
        map.metadata.namespace = Some("default".into());
        cluster.client.create(map).await.unwrap();
        cluster.until("waiting", |pod| phase(pod) == "Running").await;
        cluster.kubelets.shutdown().await;
    });
}

#[test]
fn after_a_restart_pods_go_on_as_after_a_reboot() {
    in_virtual_time(async {
        let cluster = cluster(1).await;
        let short = [("coracle.dev/sim-duration", "1s")];
        cluster.client.create(pod("done", 0, "Never", &short)).await.unwrap();
        cluster.client.create(pod("always", 0, "Always", &[])).await.unwrap();
        cluster.client.create(pod("never", 0, "Never", &[])).await.unwrap();
        cluster.until("done", |pod| phase(pod) == "Succeeded").await;
        cluster.until("never", |pod| phase(pod) == "Running").await;
        cluster.until("always", |pod| phase(pod) == "Running").await;
        let cluster = cluster.restart().await;
        cluster.until("never", |pod| phase(pod) == "Failed").await;
        let container = |pod: Option<&Pod>| pod?.status.clone()?.container_statuses.map(|mut c| c.remove(0));
        cluster
            .until("always", |pod| {
                container(pod)
                    .is_some_and(|c| c.restart_count == 1 && c.state.is_some_and(|s| s.running.is_some()))
            })
            .await;
        cluster
            .until("always", |pod| {
                let last = container(pod).and_then(|c| c.last_state?.terminated);
                last.is_some_and(|last| last.exit_code == 255 && last.reason.as_deref() == Some("Unknown"))
            })
            .await;
        cluster.until("done", |pod| container(pod).is_some_and(|c| c.restart_count == 0)).await;
        cluster.kubelets.shutdown().await;
    });
}

#[test]
fn many_nodes_share_one_process() {
    in_virtual_time(async {
        let cluster = cluster(100).await;
        let short = [("coracle.dev/sim-duration", "1ms")];
        for i in 0..500 {
            cluster.client.create(pod(&format!("p-{i}"), i % 100, "Never", &short)).await.unwrap();
        }
        let mut watcher = cluster.client.watch::<Pod>(Select::default());
        loop {
            let pods = cluster.client.list::<Pod>(&Select::default()).await.unwrap().items;
            if pods.iter().all(|pod| phase(Some(pod)) == "Succeeded") {
                break;
            }
            watcher.next_batch().await.unwrap();
        }
        cluster.kubelets.shutdown().await;
    });
}

#[test]
fn a_change_of_configuration_is_delivered_reported_and_acted_on() {
    in_virtual_time(async {
        let cluster = cluster(1).await;
        let map = |value: &str| -> ConfigMap {
            serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "settings", "namespace": "default"}, "data": {"k": value},
            }))
            .unwrap()
        };
        let made = cluster.client.create(map("one")).await.unwrap();
        let mut pod = pod("p", 0, "Never", &[("coracle.dev/on-config-change", "restart")]);
        let spec = pod.spec.as_mut().unwrap();
        spec.volumes = serde_json::from_value(json!([
            {"name": "v", "configMap": {"name": "settings", "optional": true}},
        ]))
        .unwrap();
        spec.containers[0].volume_mounts =
            serde_json::from_value(json!([{"name": "v", "mountPath": "/m"}])).unwrap();
        cluster.client.create(pod).await.unwrap();
        let told = |pod: &Pod| -> serde_json::Value {
            let annotations = pod.metadata.annotations.as_ref().unwrap();
            let text = annotations.get("coracle.dev/config-revisions").map_or("null", String::as_str);
            serde_json::from_str(text).unwrap()
        };
        let is_at = |pod: Option<&Pod>, restarts: i32, map: &ConfigMap| {
            let revision: u64 = map.metadata.resource_version.as_ref().unwrap().parse().unwrap();
            pod.is_some_and(|pod| {
                let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
                let count = status.map(|all| all[0].restart_count);
                phase(Some(pod)) == "Running"
                    && count == Some(restarts)
                    && told(pod)["c"]["configmap/settings"]["revision"] == revision
            })
        };
        cluster.until("p", |pod| is_at(pod, 0, &made)).await;
        let changed = cluster.client.update(map("two")).await.unwrap();
        cluster.until("p", |pod| is_at(pod, 1, &changed)).await;
        // Neither a label nor a deletion is new content; only the latter is a change.
        let mut labelled = map("two");
        labelled.metadata.labels = Some(BTreeMap::from([("a".into(), "b".into())]));
        cluster.client.update(labelled).await.unwrap();
        cluster.clock.sleep(Duration::from_secs(60)).await;
        cluster.until("p", |pod| is_at(pod, 1, &changed)).await;
        cluster.client.delete::<ConfigMap>("default", "settings", DeleteOptions::default()).await.unwrap();
        cluster.until("p", |pod| pod.is_some_and(|pod| told(pod) == json!({"c": {}}))).await;
        let again = cluster.client.create(map("three")).await.unwrap();
        cluster.until("p", |pod| is_at(pod, 2, &again)).await;
        cluster.kubelets.shutdown().await;
    });
}
