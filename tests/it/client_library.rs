//! A client library that knows nothing of Coracle: kube-rs, over HTTPS, with a kubeconfig.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Client, Config};
use serde_json::json;

use crate::harness::{DEADLINE, Up};

pub(crate) async fn client(up: &Up) -> Client {
    let kubeconfig = Kubeconfig::read_from(&up.kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[test]
fn kube_rs_creates_watches_and_deletes() {
    let up = Up::ephemeral(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all = async {
            let client = client(&up).await;
            assert_eq!(client.apiserver_version().await.unwrap().minor, "32");
            config_maps(Api::default_namespaced(client.clone())).await;
            pods(Api::default_namespaced(client)).await;
        };
        let clock = coracle::clock::Clock::real();
        clock.timeout(DEADLINE, all).await.unwrap();
    });
}

async fn config_maps(maps: Api<ConfigMap>) {
    let map =
        |name: &str| serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).unwrap();
    maps.create(&PostParams::default(), &map("first")).await.unwrap();
    // A list and a watch, streaming lists included.
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = watcher(maps.clone(), config).boxed();
        loop {
            match events.try_next().await.unwrap().unwrap() {
                Event::InitApply(map) if map.metadata.name.as_deref() == Some("first") => {}
                Event::InitDone => break,
                Event::Init | Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
            }
        }
        maps.create(&PostParams::default(), &map("second")).await.unwrap();
        maps.delete("second", &DeleteParams::default()).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match events.try_next().await.unwrap().unwrap() {
                Event::Apply(map) if map.metadata.name.as_deref() == Some("second") => seen.push("applied"),
                Event::Delete(map) if map.metadata.name.as_deref() == Some("second") => seen.push("deleted"),
                Event::Init | Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_) => {}
            }
        }
        assert_eq!(seen, ["applied", "deleted"]);
    }
    let patch = Patch::Merge(json!({"data": {"b": "2"}}));
    let patched = maps.patch("first", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    let error = maps.get("absent").await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound"));
}

async fn pods(pods: Api<Pod>) {
    let pod = json!({"metadata": {"name": "hello"}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "coracle.dev/hello:v1", "args": ["kube-rs"]}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let succeeded = |pod: Option<&Pod>| pod.and_then(phase).as_deref() == Some("Succeeded");
    kube::runtime::wait::await_condition(pods.clone(), "hello", succeeded).await.unwrap();
    let log = pods.logs("hello", &kube::api::LogParams::default()).await.unwrap();
    assert_eq!(log, "Hello, kube-rs!\n");
    let list =
        pods.list(&ListParams::default().labels("!absent").fields("status.phase=Succeeded")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    pods.delete("hello", &DeleteParams::default()).await.unwrap();
}
