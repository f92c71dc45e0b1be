use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kind::{Object, Typed};

fn service(spec: Value) -> Service {
    let mut all = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "svc", "labels": {"team": "a"}},
        "spec": {"type": "ClusterIP", "clusterIP": "127.96.0.9", "selector": {"app": "web"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]},
    });
    json_patch::merge(&mut all, &json!({ "spec": spec }));
    serde_json::from_value(all).unwrap()
}

/// A ready pod, `127.128.0.N`.
fn pod(n: usize, change: Value) -> Pod {
    let mut all = json!({
        "metadata": {"name": format!("p{n:03}"), "namespace": "ns", "uid": format!("u{n}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": format!("127.128.{}.{}", n / 256, n % 256),
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn unready() -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
}

fn going() -> Value {
    json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}})
}

/// The controller over what it was told.
struct World {
    seen: Snapshot,
    controller: ServiceEndpoints,
    names: usize,
}

fn node(name: &str, zone: &str) -> Node {
    let node = json!({"metadata": {"name": name, "labels": {ZONE: zone}}});
    serde_json::from_value(node).unwrap()
}

impl World {
    fn new(service: Service, pods: impl IntoIterator<Item = Pod>) -> Self {
        let seen = Snapshot::new([&SLICES]);
        let mut world = Self { seen, controller: ServiceEndpoints::default(), names: 0 };
        world.put(namespace());
        world.put(node("node-1", "z"));
        for pod in pods {
            world.put(pod);
        }
        world.put(service);
        world
    }

    fn put<K: Typed>(&mut self, object: K) -> Vec<String> {
        let (kind, object): (_, Arc<dyn Object>) = (KindRef::of::<K>(), Arc::new(object));
        let old = self.seen.insert(kind, object.clone());
        self.woken(&Change { kind, old: old.as_ref(), new: Some(&object) })
    }

    fn gone<K: Typed>(&mut self, name: &str) -> Vec<String> {
        let kind = KindRef::of::<K>();
        let Some(old) = self.seen.remove(kind, "ns", name) else { return Vec::new() };
        self.woken(&Change { kind, old: Some(&old), new: None })
    }

    fn woken(&self, change: &Change<'_>) -> Vec<String> {
        let mut woken = Vec::new();
        self.controller.wakes(&self.seen, change, &mut |key| woken.push(key.name));
        woken
    }

    /// Decides and does it; what was done, a line an object.
    fn settle(&mut self) -> Vec<String> {
        let key = Key::new(KindRef::of::<Service>(), "ns", "web");
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
        let actions = self.controller.reconcile(&self.seen, &key, moment).actions;
        let mut lines = Vec::new();
        for action in actions {
            self.apply(action, &mut lines);
        }
        lines
    }

    fn apply(&mut self, action: Action, lines: &mut Vec<String>) {
        match action {
            Action::Together(actions) => actions.into_iter().for_each(|action| self.apply(action, lines)),
            Action::Create(kind, object) => lines.push(self.write("create", kind, object)),
            Action::Update(kind, object, None) => lines.push(self.write("update", kind, object)),
            Action::RequireAbsent(key, _) => {
                assert!(self.seen.get_any(key.kind, &key.namespace, &key.name).is_none());
            }
            Action::Delete { key, .. } => {
                lines.push(format!("delete {}", key.name));
                self.seen.remove(key.kind, &key.namespace, &key.name);
            }
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, verb: &str, kind: KindRef, mut object: Box<dyn Object>) -> String {
        let meta = object.metadata_mut();
        if let Some(prefix) = meta.generate_name.take() {
            meta.name = Some(format!("{prefix}{}", self.names));
            meta.uid = meta.name.clone();
            self.names += 1;
        }
        let name = snapshot::name(&*object).to_owned();
        let object: Arc<dyn Object> = Arc::from(object);
        let what = match (object.downcast_ref::<EndpointSlice>(), object.downcast_ref::<Endpoints>()) {
            (Some(slice), _) => slice_text(slice),
            (_, Some(endpoints)) => endpoints_text(endpoints),
            _ => panic!("{name}"),
        };
        self.seen.insert(kind, object);
        format!("{verb} {name}: {what}")
    }

    fn slices(&self) -> Vec<&EndpointSlice> {
        slices_of(&self.seen, "ns", "web", MANAGER)
    }

    fn endpoints(&self) -> &Endpoints {
        self.seen.get("ns", "web").unwrap()
    }
}

fn namespace() -> k8s_openapi::api::core::v1::Namespace {
    serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap()
}

/// `8080: 1 2- 3!-` are a ready endpoint, one that is not, and one that is going and does not serve.
fn slice_text(slice: &EndpointSlice) -> String {
    let ports: Vec<String> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| port.port.map_or("*".to_owned(), |port| port.to_string()))
        .collect();
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let last: std::net::Ipv4Addr = endpoint.addresses[0].parse().unwrap();
        format!(
            "{}{}{}{}",
            u32::from(last) & 0xffff,
            if conditions.terminating == Some(true) { "!" } else { "" },
            if conditions.serving == Some(true) { "" } else { "-" },
            if conditions.ready
                == Some(conditions.serving == Some(true) && conditions.terminating == Some(false))
            {
                ""
            } else {
                "?"
            },
        )
    });
    let mut endpoints: Vec<String> = endpoints.collect();
    if endpoints.len() > 8 {
        endpoints = vec![format!("{} endpoints", endpoints.len())];
    }
    format!("{}: {}", ports.join("+"), endpoints.join(" ")).trim_end().to_owned()
}

fn endpoints_text(endpoints: &Endpoints) -> String {
    let last = |ip: &str| u32::from(ip.parse::<std::net::Ipv4Addr>().unwrap()) & 0xffff;
    let subsets = endpoints.subsets.iter().flatten().map(|subset| {
        let ports: Vec<String> = subset.ports.iter().flatten().map(|port| port.port.to_string()).collect();
        let ready = subset.addresses.iter().flatten().map(|one| last(&one.ip).to_string());
        let unready = subset.not_ready_addresses.iter().flatten().map(|one| format!("{}-", last(&one.ip)));
        let mut all: Vec<String> = ready.chain(unready).collect();
        if all.len() > 8 {
            all = vec![format!("{} addresses", all.len())];
        }
        format!("{}: {}", ports.join("+"), all.join(" "))
    });
    subsets.collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn check(service: Service, pods: Vec<Pod>, expected: &[&str]) {
    let mut world = World::new(service, pods);
    assert_eq!(world.settle(), expected);
    assert_eq!(world.settle(), [""; 0], "nothing is left to do");
}

/// 16.3
#[test]
fn conditions_follow_the_pods() {
    let pods = || {
        let mut going_unready = unready();
        json_patch::merge(&mut going_unready, &going());
        vec![pod(1, json!({})), pod(2, unready()), pod(3, going()), pod(4, going_unready)]
    };
    check(service(json!({})), pods(), &["create web-0: 8080: 1 2- 3! 4!-", "create web: 8080: 1 2-"]);
    // Those that are not ready count as if they were.
    let all = json!({"publishNotReadyAddresses": true});
    check(service(all), pods(), &["create web-0: 8080: 1 2-? 3!? 4!-?", "create web: 8080: 1 2 3 4"]);
}

/// 16.3
#[test]
fn pods_that_are_no_endpoints_are_left_out() {
    let pods = vec![
        pod(1, json!({"status": {"podIP": null}})),
        pod(2, json!({"status": {"phase": "Succeeded"}})),
        pod(3, json!({"status": {"phase": "Failed"}})),
        pod(4, json!({"metadata": {"labels": {"app": "other"}}})),
        pod(5, json!({"metadata": {"namespace": "other"}})),
    ];
    check(service(json!({})), pods, &["create web-0: :", "create web: "]);
    for nobody in [json!({"selector": null}), json!({"type": "ExternalName", "externalName": "a.b"})] {
        check(service(nobody), vec![pod(1, json!({}))], &[]);
    }
}

/// 16.3
#[test]
fn named_ports_are_those_of_each_pod() {
    let other = |number: i32, protocol: &str| {
        json!({"spec": {"containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": number, "protocol": protocol}]}]}})
    };
    let pods =
        || vec![pod(1, json!({})), pod(2, other(9090, "TCP")), pod(3, json!({})), pod(4, other(1, "UDP"))];
    let named = json!({"ports": [{"name": "a", "port": 80, "protocol": "TCP", "targetPort": "http"}]});
    // The pod without the port is in a slice without ports, and in no subset.
    check(
        service(named),
        pods(),
        &[
            "create web-0: 8080: 1 3",
            "create web-1: 9090: 2",
            "create web-2: : 4",
            "create web: 8080: 1 3, 9090: 2",
        ],
    );
    let two = json!({"ports": [
        {"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 7}]});
    check(service(two), vec![pod(1, json!({}))], &["create web-0: 8080+7: 1", "create web: 8080+7: 1"]);
    let sidecar = json!({"spec": {"containers": [{"name": "c"}], "initContainers": [
        {"name": "i", "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 5}]}]}});
    let named = json!({"ports": [{"port": 80, "targetPort": "http"}]});
    check(service(named), vec![pod(1, sidecar)], &["create web-0: 5: 1", "create web: 5: 1"]);
    // A headless service needs no ports.
    let bare = json!({"clusterIP": "None", "ports": null});
    check(service(bare), vec![pod(1, json!({}))], &["create web-0: : 1", "create web: : 1"]);
}

/// 16.3: as upstream, pods of a node that is gone are left out, unless even those that are not ready are wanted.
#[test]
fn pods_of_a_node_that_is_gone_are_left_out() {
    for (spec, left) in [(json!({}), 1), (json!({"publishNotReadyAddresses": true}), 2)] {
        let elsewhere = pod(2, json!({"spec": {"nodeName": "node-2"}}));
        let mut world = World::new(service(spec), [pod(1, json!({})), elsewhere]);
        world.put(node("node-2", "z"));
        world.settle();
        assert_eq!(world.slices()[0].endpoints.len(), 2);
        let kind = KindRef::of::<Node>();
        let old = world.seen.remove(kind, "", "node-2").unwrap();
        assert_eq!(world.woken(&Change { kind, old: Some(&old), new: None }), ["web"]);
        world.settle();
        assert_eq!(world.slices()[0].endpoints.len(), left);
        // It registers again.
        assert_eq!(world.put(node("node-2", "z")), ["web"]);
        world.settle();
        assert_eq!(world.slices()[0].endpoints.len(), 2);
    }
}

/// 16.3
#[test]
fn slices_say_whose_they_are() {
    let of_pod = json!({"spec": {"hostname": "h", "subdomain": "web"}});
    let mut world = World::new(service(json!({"clusterIP": "None"})), [pod(1, of_pod)]);
    world.settle();
    let slice = serde_json::to_value(world.slices()[0]).unwrap();
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", HEADLESS: "", SERVICE_NAME: "web", MANAGED_BY: MANAGER})
    );
    assert_eq!(
        slice["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "svc",
            "controller": true, "blockOwnerDeletion": true}])
    );
    let target = json!({"kind": "Pod", "namespace": "ns", "name": "p001", "uid": "u1"});
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["127.128.0.1"], "hostname": "h", "nodeName": "node-1", "zone": "z",
            "conditions": {"ready": true, "serving": true, "terminating": false}, "targetRef": target}])
    );
    let endpoints = serde_json::to_value(world.endpoints()).unwrap();
    assert_eq!(
        endpoints["metadata"]["labels"],
        json!({"team": "a", HEADLESS: "", ENDPOINTS_MANAGER.0: ENDPOINTS_MANAGER.1})
    );
    assert_eq!(
        endpoints["subsets"][0]["addresses"],
        json!([{"ip": "127.128.0.1", "hostname": "h", "nodeName": "node-1", "targetRef": target}])
    );
    // The zone is the node's.
    assert_eq!(world.put(node("node-1", "y")), ["web"]);
    assert_eq!(world.settle(), ["update web-0: : 1"].map(|_| "update web-0: 8080: 1"));
    // What others change is put back.
    let mut changed = world.slices()[0].clone();
    changed.endpoints.clear();
    changed.metadata.labels.get_or_insert_default().remove("team");
    assert_eq!(world.put(changed), ["web", "web"]);
    assert_eq!(world.settle(), ["update web-0: 8080: 1"]);
    assert_eq!(world.gone::<Endpoints>("web"), ["web"]);
    assert_eq!(world.settle(), ["create web: 8080: 1"]);
    // A service of the same name is another.
    let mut other = service(json!({}));
    other.metadata.uid = Some("other".into());
    world.put(other);
    assert_eq!(world.settle(), ["create web-1: 8080: 1", "delete web-0", "update web: 8080: 1"]);
    // Slices go with their owner; Endpoints have none.
    assert_eq!(world.gone::<Service>("web"), ["web"]);
    assert_eq!(world.settle(), ["delete web"]);
}

/// 16.3
#[test]
fn few_slices_change() {
    let mut world = World::new(service(json!({})), (0..250).map(|n| pod(n, json!({}))));
    assert_eq!(
        world.settle(),
        [
            "create web-0: 8080: 100 endpoints",
            "create web-1: 8080: 100 endpoints",
            "create web-2: 8080: 50 endpoints",
            "create web: 8080: 250 addresses",
        ]
    );
    // A change is written where the endpoint is.
    assert_eq!(world.put(pod(150, unready())), ["web"]);
    assert_eq!(world.settle(), ["update web-1: 8080: 100 endpoints", "update web: 8080: 250 addresses"]);
    // Holes are not filled by others, and new endpoints go where there is room.
    for n in 0..30 {
        assert_eq!(world.gone::<Pod>(&format!("p{n:03}")), ["web"]);
    }
    assert_eq!(world.settle(), ["update web-0: 8080: 70 endpoints", "update web: 8080: 220 addresses"]);
    world.put(pod(300, json!({})));
    assert_eq!(world.settle(), ["update web-0: 8080: 71 endpoints", "update web: 8080: 221 addresses"]);
    for n in 400..440 {
        world.put(pod(n, json!({})));
    }
    assert_eq!(world.settle()[0], "update web-2: 8080: 90 endpoints", "the only one that takes them all");
    // Other ports: the same slices, with other content.
    world.put(service(json!({"ports": [{"port": 80, "targetPort": 81}]})));
    assert_eq!(
        world.settle(),
        [
            "update web-0: 81: 100 endpoints",
            "update web-1: 81: 100 endpoints",
            "update web-2: 81: 61 endpoints",
            "update web: 81: 261 addresses",
        ]
    );
    for n in 0..440 {
        world.gone::<Pod>(&format!("p{n:03}"));
    }
    // One stays to say that there is nobody.
    assert_eq!(world.settle(), ["update web-0: :", "delete web-1", "delete web-2", "update web: "]);
    assert_eq!(world.settle(), [""; 0]);
    world.put(pod(1, json!({})));
    assert_eq!(world.settle(), ["update web-0: 81: 1", "update web: 81: 1"]);
}

#[test]
fn endpoints_are_cut_at_a_thousand() {
    let pods = (0..1100).map(|n| pod(n, if n < 300 { unready() } else { json!({}) }));
    let mut world = World::new(service(json!({})), pods);
    assert_eq!(world.settle().last().unwrap(), "create web: 8080: 1000 addresses");
    assert_eq!(world.slices().len(), 11);
    let subset = &world.endpoints().subsets.as_ref().unwrap()[0];
    let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
    assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), (800, 200));
    let annotated = |world: &World| {
        let annotations = world.endpoints().metadata.annotations.clone().unwrap_or_default();
        annotations.get("endpoints.kubernetes.io/over-capacity").cloned()
    };
    assert_eq!(annotated(&world).as_deref(), Some("truncated"));
    for n in 0..200 {
        world.gone::<Pod>(&format!("p{n:03}"));
    }
    world.settle();
    assert_eq!(annotated(&world), None);
}

#[test]
fn pods_wake_their_services_alone() {
    let mut world = World::new(service(json!({})), []);
    let mut other = service(json!({"selector": {"app": "web", "tier": "b"}}));
    other.metadata.name = Some("both".into());
    assert_eq!(world.put(other), ["both"]);
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    assert_eq!(world.put(pod(1, labels(json!({"app": "x"})))), [""; 0]);
    assert_eq!(world.put(pod(1, json!({}))), ["web"]);
    assert_eq!(world.put(pod(1, labels(json!({"note": "y"})))), [""; 0], "nothing of it is said");
    assert_eq!(world.put(pod(1, labels(json!({"tier": "b"})))), ["both"]);
    assert_eq!(world.put(pod(1, unready())), ["both", "web"], "no tier, and not ready");
    assert_eq!(world.put(pod(1, json!({"status": {"phase": "Failed"}}))), ["web"]);
    assert_eq!(world.put(pod(1, json!({"status": {"phase": "Failed", "reason": "x"}}))), [""; 0]);
    assert_eq!(world.gone::<Pod>("p001"), [""; 0]);
    // Another selector finds those that are there.
    world.put(pod(2, labels(json!({"app": "y"}))));
    world.put(service(json!({"selector": {"app": "y"}})));
    assert_eq!(world.settle()[0], "create web-0: 8080: 2");
    assert_eq!(world.gone::<Service>("both"), ["both"]);
    assert_eq!(world.put(pod(3, json!({}))), [""; 0]);
    // Endpoints that somebody made for no service are left alone.
    let hand: Endpoints =
        serde_json::from_value(json!({"metadata": {"name": "hand", "namespace": "ns"}})).unwrap();
    assert_eq!(world.put(hand), [""; 0]);
}
