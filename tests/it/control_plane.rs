//! Controllers and scheduler against a real API in memory, in virtual time.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle::apiserver::authn::User;
use coracle::apiserver::request::{LogOptions, LogStream};
use coracle::apiserver::token::SigningKey;
use coracle::apiserver::{Api, Error, NodeAccess, Parts};
use coracle::client::{Client, DeleteOptions, Event, Recorder, Select};
use coracle::clock::{self, Clock};
use coracle::controller::{self, Config, Controllers, bootstrap};
use coracle::kind::address_plan::AddressPlan;
use coracle::kind::{Subresource, Typed};
use coracle::random::Random;
use coracle::scheduler::{self, Scheduler};
use coracle::store::Store;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event as CoreEvent, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

struct NoNodes;

#[async_trait]
impl NodeAccess for NoNodes {
    async fn logs(&self, _pod: &Pod, _container: &str, _options: &LogOptions) -> Result<LogStream, Error> {
        unreachable!("no test here reads logs")
    }
}

/// A control plane without nodes of its own.
struct Plane {
    admin: Client,
    manager: Client,
    clock: Clock,
    config: Config,
    controllers: controller::Handle,
    scheduler: scheduler::Handle,
}

impl Plane {
    async fn start(seed: u64) -> Self {
        let clock = Clock::starting_at("2025-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let random = Random::from_seed(seed);
        let tokens = Arc::new(SigningKey::generate().unwrap());
        let api = Api::new(Parts {
            store: Store::ephemeral(clock),
            clock,
            random: random.clone(),
            nodes: Arc::new(NoNodes),
            tokens: Arc::clone(&tokens),
            plan: AddressPlan::default(),
        });
        let manager = Client::new(api.clone(), User::component("kube-controller-manager"));
        let placer = Client::new(api.clone(), User::component("kube-scheduler"));
        let api_address = SocketAddr::from(([127, 0, 0, 1], 6443));
        let time_zone = jiff::tz::TimeZone::UTC;
        let config = Config {
            ca_pem: "the authority".into(),
            api_address,
            plan: AddressPlan::default(),
            dns: None,
            tokens,
            time_zone,
            fault: None,
        };
        bootstrap(&manager, &config).await.unwrap();
        let recorder = Recorder::start(manager.clone(), clock, "controllermanager", None);
        let controllers = Controllers::start(manager.clone(), recorder, clock, &config);
        let recorder = Recorder::start(placer.clone(), clock, scheduler::NAME, None);
        let scheduler = Scheduler::start(placer, recorder, clock, random);
        Self { admin: Client::new(api, User::admin()), manager, clock, config, controllers, scheduler }
    }

    async fn stop(self) {
        self.scheduler.shutdown().await;
        self.controllers.shutdown().await;
    }

    async fn create<K: Typed>(&self, object: Value) -> Arc<K> {
        self.admin.create(serde_json::from_value::<K>(object).unwrap()).await.unwrap()
    }

    async fn namespace(&self, name: &str) {
        self.create::<Namespace>(json!({ "metadata": { "name": name } })).await;
        self.until::<ServiceAccount>(name, "default", |account| account.is_some()).await;
    }

    async fn node(&self, name: &str, over: Value) {
        let mut node = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "allocatable": { "cpu": "2", "memory": "2Gi", "pods": "10" },
                        "capacity": { "cpu": "2", "memory": "2Gi", "pods": "10" } },
        });
        json_patch::merge(&mut node, &over);
        self.create::<Node>(node).await;
    }

    async fn pod(&self, namespace: &str, name: &str, spec: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "namespace": namespace, "name": name },
            "spec": { "containers": [{ "name": "c", "image": "hello" }] },
        });
        json_patch::merge(&mut pod["spec"], &spec);
        self.create(pod).await
    }

    async fn map(&self, name: &str, meta: Value) -> Arc<ConfigMap> {
        let mut map = json!({ "metadata": { "namespace": "default", "name": name } });
        json_patch::merge(&mut map["metadata"], &meta);
        self.create(map).await
    }

    async fn get<K: Typed>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.admin.get(namespace, name).await.ok()
    }

    async fn delete<K: Typed>(&self, namespace: &str, name: &str, policy: Option<&'static str>) {
        let options = DeleteOptions { propagation_policy: policy, ..DeleteOptions::default() };
        self.admin.delete::<K>(namespace, name, options).await.unwrap();
    }

    /// What a kubelet does in the end.
    async fn finish_deletion(&self, namespace: &str, pod: &str) {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.admin.delete::<Pod>(namespace, pod, options).await.unwrap();
    }

    /// Returns once the object is as asked; `None` is that it is not there.
    #[track_caller]
    fn until<'a, K: Typed>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        is: impl Fn(Option<&K>) -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        let wait = async move {
            let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
            let mut watcher = self.admin.watch::<K>(Select { namespace, ..Select::default() });
            let named = |object: &Arc<K>| object.metadata().name.as_deref() == Some(name);
            loop {
                let so = match watcher.next().await.expect("the API is there") {
                    Event::Restarted(all) => is(all.iter().find(|o| named(o)).map(|object| &**object)),
                    Event::Applied(object) => named(&object) && is(Some(&object)),
                    Event::Deleted(object) => named(&object) && is(None),
                };
                if so {
                    return;
                }
            }
        };
        async move {
            let hour = Duration::from_secs(3 * 3600);
            self.clock
                .timeout(hour, wait)
                .await
                .unwrap_or_else(|_| panic!("{name} never came so, at {place}"));
        }
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Plane) -> F) {
    clock::virtual_runtime().unwrap().block_on(async { test(Plane::start(7).await).await });
}

/// 11.1
#[test]
fn every_namespace_has_its_service_account_and_root_ca() {
    run(async |plane: Plane| {
        const CA: &str = "kube-root-ca.crt";
        let right = |map: Option<&ConfigMap>| {
            map.and_then(|map| map.data.as_ref()).is_some_and(|data| data["ca.crt"] == "the authority")
        };
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            plane.until::<ServiceAccount>(namespace, "default", |account| account.is_some()).await;
        }
        plane.namespace("n").await;
        plane.until("n", CA, right).await;
        plane.delete::<ServiceAccount>("n", "default", None).await;
        plane.until::<ServiceAccount>("n", "default", |account| account.is_some()).await;
        plane.delete::<ConfigMap>("n", CA, None).await;
        plane.until("n", CA, right).await;
        let edit = json!({ "data": { "ca.crt": "another", "more": "x" } });
        plane.admin.merge_patch::<ConfigMap>("n", CA, None, edit).await.unwrap();
        plane.until("n", CA, |map| right(map) && map.unwrap().data.as_ref().unwrap().len() == 1).await;
        plane.stop().await;
    });
}

/// 16.1, and nothing is written when nothing changed.
#[test]
fn what_every_cluster_has_is_there_and_comes_back() {
    run(async |plane: Plane| {
        let service = plane.get::<Service>("default", "kubernetes").await.unwrap();
        assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("127.96.0.1"));
        assert_eq!(
            plane.get::<PriorityClass>("", "system-node-critical").await.map(|class| class.value),
            Some(2_000_001_000)
        );
        plane.delete::<Service>("default", "kubernetes", None).await;
        plane.until::<Service>("default", "kubernetes", |service| service.is_some()).await;
        plane.delete::<Endpoints>("default", "kubernetes", None).await;
        plane.until::<Endpoints>("default", "kubernetes", |endpoints| endpoints.is_some()).await;
        plane.until::<ServiceAccount>("kube-node-lease", "default", |account| account.is_some()).await;
        plane.clock.sleep(Duration::from_secs(60)).await;
        let revision = plane.admin.list::<Node>(&Select::default()).await.unwrap().revision;
        bootstrap(&plane.manager, &plane.config).await.unwrap();
        plane.clock.sleep(Duration::from_secs(600)).await;
        let after = plane.admin.list::<Node>(&Select::default()).await.unwrap().revision;
        assert_eq!(after, revision, "an idle control plane writes nothing");
        plane.stop().await;
    });
}

/// 11.3, 11.4
#[test]
fn a_deleted_namespace_goes_with_everything_in_it_pods_first() {
    run(async |plane: Plane| {
        plane.namespace("n").await;
        plane.node("node", json!({})).await;
        plane.create::<Secret>(json!({ "metadata": { "namespace": "n", "name": "s" } })).await;
        plane
            .create::<ConfigMap>(
                json!({ "metadata": { "namespace": "n", "name": "held", "finalizers": ["a.b/c"] } }),
            )
            .await;
        plane.pod("n", "p", json!({})).await;
        plane.until::<Pod>("n", "p", |pod| pod.unwrap().spec.as_ref().unwrap().node_name.is_some()).await;
        plane.delete::<Namespace>("", "n", None).await;

        let says = |namespace: Option<&Namespace>, r#type: &str, message: &str| {
            let status = namespace.and_then(|namespace| namespace.status.as_ref());
            status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|c| c.type_ == r#type && c.status == "True" && c.message.as_deref() == Some(message))
            })
        };
        plane
            .until("", "n", |namespace| {
                says(
                    namespace,
                    "NamespaceContentRemaining",
                    "Some resources are remaining: pods. has 1 resource instances",
                )
            })
            .await;
        assert!(plane.get::<Secret>("n", "s").await.is_some(), "what pods use outlives them");
        plane.finish_deletion("n", "p").await;
        plane
            .until("", "n", |namespace| {
                says(
                    namespace,
                    "NamespaceFinalizersRemaining",
                    "Some finalizers are remaining: a.b/c in 1 resource instances",
                )
            })
            .await;
        assert!(plane.get::<Secret>("n", "s").await.is_none());
        let free = json!({ "metadata": { "finalizers": null } });
        plane.admin.merge_patch::<ConfigMap>("n", "held", None, free).await.unwrap();
        plane.until::<Namespace>("", "n", |namespace| namespace.is_none()).await;
        plane.stop().await;
    });
}

fn owned_by(owner: &ConfigMap, blocks: bool) -> Value {
    json!({ "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner.metadata.name, "uid": owner.metadata.uid,
        "blockOwnerDeletion": blocks,
    }] })
}

/// 4.4, 4.6
#[test]
fn owners_take_their_dependents_along_as_the_policy_says() {
    run(async |plane: Plane| {
        let gone = |map: Option<&ConfigMap>| map.is_none();
        // Background: the owner at once, dependents and theirs after it.
        let owner = plane.map("owner", json!({})).await;
        let dependent = plane.map("dependent", owned_by(&owner, true)).await;
        plane.map("second", owned_by(&dependent, true)).await;
        plane.delete::<ConfigMap>("default", "owner", Some("Background")).await;
        assert!(plane.get::<ConfigMap>("default", "owner").await.is_none());
        plane.until("default", "second", gone).await;

        // Foreground: the owner last, even over two levels.
        let owner = plane.map("owner", json!({})).await;
        let dependent = plane.map("dependent", owned_by(&owner, true)).await;
        let mut held = owned_by(&dependent, true);
        held["finalizers"] = json!(["a.b/c"]);
        plane.map("second", held).await;
        plane.delete::<ConfigMap>("default", "owner", Some("Foreground")).await;
        plane
            .until::<ConfigMap>("default", "second", |m| m.unwrap().metadata.deletion_timestamp.is_some())
            .await;
        assert!(plane.get::<ConfigMap>("default", "dependent").await.is_some());
        assert!(plane.get::<ConfigMap>("default", "owner").await.is_some());
        let free = json!({ "metadata": { "finalizers": null } });
        plane.admin.merge_patch::<ConfigMap>("default", "second", None, free).await.unwrap();
        plane.until("default", "owner", gone).await;
        assert!(plane.get::<ConfigMap>("default", "dependent").await.is_none());

        // Foreground without dependents.
        plane.map("owner", json!({})).await;
        plane.delete::<ConfigMap>("default", "owner", Some("Foreground")).await;
        plane.until("default", "owner", gone).await;

        // Orphan: the dependent stays, without the reference.
        let owner = plane.map("owner", json!({})).await;
        plane.map("dependent", owned_by(&owner, true)).await;
        plane.delete::<ConfigMap>("default", "owner", Some("Orphan")).await;
        plane.until("default", "owner", gone).await;
        let dependent = plane.get::<ConfigMap>("default", "dependent").await.unwrap();
        assert_eq!(dependent.metadata.owner_references, None);

        // An owner by an old uid is no owner.
        plane.map("owner", json!({})).await;
        plane.map("late", owned_by(&owner, false)).await;
        plane.until("default", "late", gone).await;
        plane.stop().await;
    });
}

fn bound(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| pod.spec.as_ref().unwrap().node_name.is_some())
}

fn unscheduled(pod: Option<&Pod>) -> Option<String> {
    let conditions = pod?.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    (condition.reason.as_deref() == Some("Unschedulable")).then(|| condition.message.clone())?
}

/// 15.4, 15.5
#[test]
fn pods_are_bound_or_told_why_not_and_tried_again() {
    run(async |plane: Plane| {
        plane.until::<ServiceAccount>("default", "default", |account| account.is_some()).await;
        plane.pod("default", "early", json!({})).await;
        plane
            .until("default", "early", |pod| {
                unscheduled(pod).as_deref() == Some("no nodes available to schedule pods")
            })
            .await;
        plane.node("a", json!({})).await;
        plane.until("default", "early", bound).await;
        plane.pod("default", "picky", json!({ "nodeSelector": { "disk": "ssd" } })).await;
        plane
            .until("default", "picky", |pod| {
                unscheduled(pod).as_deref()
                    == Some(
                        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: \
                         0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
                    )
            })
            .await;
        // Nobody writes the same again, though the node changes in ways that do not matter.
        let version = plane.get::<Pod>("default", "picky").await.unwrap().metadata.resource_version.clone();
        for i in 0..5 {
            let note = json!({ "metadata": { "annotations": { "i": i.to_string() } } });
            plane.admin.merge_patch::<Node>("", "a", None, note).await.unwrap();
            plane.clock.sleep(Duration::from_secs(100)).await;
        }
        assert_eq!(plane.get::<Pod>("default", "picky").await.unwrap().metadata.resource_version, version);
        let label = json!({ "metadata": { "labels": { "disk": "ssd" } } });
        plane.admin.merge_patch::<Node>("", "a", None, label).await.unwrap();
        plane.until("default", "picky", bound).await;
        plane.clock.sleep(Duration::from_secs(1)).await;
        let events = plane.admin.list::<CoreEvent>(&Select::default()).await.unwrap().items;
        let said: Vec<String> = events
            .iter()
            .filter(|event| event.involved_object.name.as_deref() == Some("picky"))
            .map(|event| {
                format!(
                    "{} {} {}",
                    event.type_.as_ref().unwrap(),
                    event.reason.as_ref().unwrap(),
                    event.message.as_ref().unwrap()
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                "Warning FailedScheduling 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. \
                 preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
                "Normal Scheduled Successfully assigned default/picky to a",
            ]
        );
        plane.stop().await;
    });
}

#[test]
fn room_is_never_given_twice_and_is_given_again() {
    run(async |plane: Plane| {
        plane.until::<ServiceAccount>("default", "default", |account| account.is_some()).await;
        for name in ["a", "b", "c"] {
            plane.node(name, json!({})).await;
        }
        let half = json!({ "containers": [{ "name": "c", "image": "hello", "resources": { "requests": { "cpu": "1" } } }] });
        for i in 0..8 {
            plane.pod("default", &format!("p{i}"), half.clone()).await;
        }
        plane.clock.sleep(Duration::from_secs(30)).await;
        let pods = plane.admin.list::<Pod>(&Select::default()).await.unwrap().items;
        let on = |node: &str| {
            pods.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node)).count()
        };
        assert_eq!([on("a"), on("b"), on("c")], [2, 2, 2]);
        let waiting: Vec<_> = pods.iter().filter(|pod| !bound(Some(pod))).collect();
        assert_eq!(waiting.len(), 2);
        for pod in &waiting {
            assert_eq!(
                unscheduled(Some(pod)).as_deref(),
                Some(
                    "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: \
                     3 No preemption victims found for incoming pod."
                )
            );
        }
        let freed = pods.iter().find(|pod| bound(Some(pod))).unwrap();
        plane.finish_deletion("default", freed.metadata.name.as_ref().unwrap()).await;
        plane.until("default", waiting[0].metadata.name.as_ref().unwrap(), bound).await;
        plane.stop().await;
    });
}

#[test]
fn the_same_seed_places_the_same() {
    let place = |seed| {
        clock::virtual_runtime().unwrap().block_on(async {
            let plane = Plane::start(seed).await;
            plane.until::<ServiceAccount>("default", "default", |account| account.is_some()).await;
            for i in 0..5 {
                plane.node(&format!("n{i}"), json!({})).await;
            }
            for i in 0..20 {
                plane.pod("default", &format!("p{i}"), json!({})).await;
            }
            plane.until("default", "p19", bound).await;
            plane.clock.sleep(Duration::from_secs(5)).await;
            let pods = plane.admin.list::<Pod>(&Select::default()).await.unwrap().items;
            let nodes: Vec<_> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone()).collect();
            plane.stop().await;
            nodes
        })
    };
    assert_eq!(place(1), place(1));
    assert_ne!(place(1), place(2));
}

/// 17.4
#[test]
fn pods_of_a_deleted_node_are_deleted_after_a_while() {
    run(async |plane: Plane| {
        plane.until::<ServiceAccount>("default", "default", |account| account.is_some()).await;
        plane.node("a", json!({})).await;
        plane.pod("default", "p", json!({})).await;
        plane.until("default", "p", bound).await;
        plane.delete::<Node>("", "a", None).await;
        plane.clock.sleep(Duration::from_secs(30)).await;
        assert!(plane.get::<Pod>("default", "p").await.is_some(), "the node may come back");
        plane.clock.sleep(Duration::from_secs(11)).await;
        assert!(plane.get::<Pod>("default", "p").await.is_none());
        plane.stop().await;
    });
}

/// 9.14
#[test]
fn events_go_an_hour_after_their_last_write() {
    run(async |plane: Plane| {
        let event = plane
            .create::<CoreEvent>(json!({
                "metadata": { "namespace": "default", "name": "e" },
                "involvedObject": { "kind": "Pod", "namespace": "default", "name": "p" },
                "reason": "R", "type": "Normal",
            }))
            .await;
        let raise = json!({ "count": 2, "lastTimestamp": "2025-01-01T00:30:00Z" });
        plane.clock.sleep(Duration::from_secs(1800)).await;
        plane.admin.merge_patch::<CoreEvent>("default", "e", None::<Subresource>, raise).await.unwrap();
        plane.clock.sleep(Duration::from_secs(3590)).await;
        let known = plane.get::<CoreEvent>("default", "e").await.unwrap();
        assert_eq!(known.metadata.uid, event.metadata.uid);
        plane.clock.sleep(Duration::from_secs(15)).await;
        assert!(plane.get::<CoreEvent>("default", "e").await.is_none());
        plane.stop().await;
    });
}
