//! Tables of cases on the pure core: no runtime, no clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::cache::{Cache, NodeId};
use super::filter::Blocker;
use super::place::{CANDIDATES_MAX, Work, place};
use super::queue::{Queue, pod_key};
use super::resources::{Requests, Resources};
use crate::random::Random;

/// A node with 4 cores, 8 GiB and room for 110 pods; `over` is merged into it.
fn node(name: &str, over: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" } },
    });
    json_patch::merge(&mut node, &over);
    Arc::new(serde_json::from_value(node).unwrap())
}

/// A pod of one container; `over` is merged into its spec.
fn pod(name: &str, over: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name },
        "spec": { "containers": [{ "name": "c" }] },
    });
    json_patch::merge(&mut pod["spec"], &over);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn labelled(name: &str, labels: Value, over: Value) -> Arc<Pod> {
    let mut pod = Pod::clone(&pod(name, over));
    pod.metadata.labels = serde_json::from_value(labels).unwrap();
    Arc::new(pod)
}

fn asking(cpu: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] })
}

struct Bench {
    cache: Cache,
    random: Random,
    work: Work,
}

impl Bench {
    fn of(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let mut cache = Cache::default();
        for node in nodes {
            cache.set_node(node);
        }
        Self { cache, random: Random::from_seed(1), work: Work::default() }
    }

    fn with(mut self, pod: Arc<Pod>, node: &str) -> Self {
        let pending = self.cache.pending(pod);
        self.cache.add_pod(&pending, node);
        self
    }

    fn try_place(&mut self, pod: Arc<Pod>) -> Result<String, String> {
        let pending = self.cache.pending(pod);
        place(&mut self.cache, &pending, &self.random, &mut self.work)
            .map(|id| self.cache.node(id).name.to_string())
            .map_err(|diagnosis| diagnosis.message.clone())
    }

    /// Places the pod and counts it.
    fn run(&mut self, pod: Arc<Pod>) -> String {
        let name = self.try_place(pod.clone()).unwrap();
        let pending = self.cache.pending(pod);
        self.cache.add_pod(&pending, &name);
        name
    }
}

#[track_caller]
fn check_requests(spec: Value, milli_cpu: i64, memory: i64) {
    let pod = pod("p", spec);
    let exact = Requests::of(pod.spec.as_ref().unwrap()).exact;
    assert_eq!(exact, Resources { milli_cpu, memory, ..Resources::default() });
}

/// 15.1
#[test]
fn requests_are_the_larger_of_init_and_app_plus_sidecars_and_overhead() {
    let c = |cpu: &str| json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": "1" } } });
    let sidecar = |cpu: &str| {
        let mut container = c(cpu);
        container["restartPolicy"] = json!("Always");
        container
    };
    check_requests(json!({ "containers": [c("100m"), c("200m")] }), 300, 2);
    check_requests(json!({ "containers": [c("100m")], "initContainers": [c("1"), c("500m")] }), 1000, 1);
    check_requests(json!({ "containers": [c("100m")], "initContainers": [sidecar("1"), c("50m")] }), 1100, 2);
    // An init container runs beside the sidecars before it, not beside those after it.
    check_requests(
        json!({ "containers": [c("100m")], "initContainers": [sidecar("1"), c("500m")] }),
        1500,
        2,
    );
    check_requests(
        json!({ "containers": [c("100m")], "initContainers": [c("1"), sidecar("500m")] }),
        1000,
        2,
    );
    check_requests(json!({ "containers": [c("100m")], "overhead": { "cpu": "0.5m" } }), 101, 1);
    // What the pod asks for itself takes the place of its containers' sum, for what it names.
    let own = json!({ "requests": { "cpu": "2", "ephemeral-storage": "1" } });
    check_requests(
        json!({ "containers": [c("100m"), c("1")], "resources": own, "overhead": { "cpu": "1m" } }),
        2001,
        2,
    );
}

/// What a pod is told of one node.
#[track_caller]
fn check_node(node_over: Value, pod_over: Value, expected: Result<(), &str>) {
    let mut bench = Bench::of([node("n", node_over)]);
    let answer = bench.try_place(pod("p", pod_over)).map(|_| ());
    let expected = expected.map_err(|reasons| {
        let (reasons, resolvable) = match reasons.strip_prefix('~') {
            Some(reasons) => (reasons, true),
            None => (reasons, false),
        };
        let preemption = if resolvable {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        };
        format!("0/1 nodes are available: {reasons}. preemption: 0/1 nodes are available: 1 {preemption}.")
    });
    assert_eq!(answer, expected);
}

/// 15.1, 15.2, 15.4. `~` marks reasons that removing pods could change.
#[test]
fn filters_say_what_kubernetes_says() {
    let none = || json!({});
    check_node(none(), none(), Ok(()));
    // Unschedulable.
    let cordoned = || json!({ "spec": { "unschedulable": true } });
    check_node(cordoned(), none(), Err("1 node(s) were unschedulable"));
    let tolerates =
        json!({ "tolerations": [{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" }] });
    check_node(cordoned(), tolerates, Ok(()));
    // Taints.
    let tainted =
        |effect: &str| json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": effect }] } });
    check_node(tainted("NoSchedule"), none(), Err("1 node(s) had untolerated taint {k: v}"));
    check_node(tainted("NoExecute"), none(), Err("1 node(s) had untolerated taint {k: v}"));
    check_node(tainted("PreferNoSchedule"), none(), Ok(()));
    let tolerates =
        |value: &str| json!({ "tolerations": [{ "key": "k", "value": value, "effect": "NoSchedule" }] });
    check_node(tainted("NoSchedule"), tolerates("v"), Ok(()));
    check_node(tainted("NoSchedule"), tolerates("w"), Err("1 node(s) had untolerated taint {k: v}"));
    let bare = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    check_node(bare, none(), Err("1 node(s) had untolerated taint {k: }"));
    // Selectors.
    let affinity = "1 node(s) didn't match Pod's node affinity/selector";
    let ssd = || json!({ "metadata": { "labels": { "disk": "ssd", "n": "5" } } });
    check_node(ssd(), json!({ "nodeSelector": { "disk": "ssd" } }), Ok(()));
    check_node(ssd(), json!({ "nodeSelector": { "disk": "ssd", "n": "6" } }), Err(affinity));
    check_node(none(), json!({ "nodeSelector": { "kubernetes.io/hostname": "n" } }), Ok(()));
    check_node(none(), json!({ "nodeSelector": { "kubernetes.io/hostname": "m" } }), Err(affinity));
    let required = |terms: Value| {
        json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
    };
    let expression = |key: &str, op: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": op, "values": values }] });
    check_node(ssd(), required(json!([expression("disk", "In", json!(["hdd", "ssd"]))])), Ok(()));
    check_node(ssd(), required(json!([expression("n", "Gt", json!(["5"]))])), Err(affinity));
    check_node(
        ssd(),
        required(json!([expression("n", "Gt", json!(["5"])), expression("disk", "Exists", json!([]))])),
        Ok(()),
    );
    check_node(
        none(),
        required(json!([expression("kubernetes.io/hostname", "NotIn", json!(["n"]))])),
        Err(affinity),
    );
    let field = |name: &str| {
        required(json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] }]))
    };
    check_node(none(), field("n"), Ok(()));
    check_node(none(), field("m"), Err("1 node(s) didn't satisfy plugin(s) [NodeAffinity]"));
    // Resources: more than the node has cannot be helped, more than is left could.
    check_node(none(), asking("4"), Ok(()));
    check_node(none(), asking("4001m"), Err("1 Insufficient cpu"));
    let gpu = json!({ "containers": [{ "name": "c", "resources": { "requests": {
        "example.com/gpu": "1", "memory": "9Gi", "ephemeral-storage": "1Gi" } } }] });
    check_node(
        json!({ "status": { "allocatable": { "example.com/gpu": "2" } } }),
        gpu.clone(),
        Err("1 Insufficient ephemeral-storage, 1 Insufficient memory"),
    );
    check_node(
        none(),
        gpu,
        Err("1 Insufficient ephemeral-storage, 1 Insufficient example.com/gpu, 1 Insufficient memory"),
    );
    check_node(json!({ "status": { "allocatable": { "pods": "0" } } }), none(), Err("~1 Too many pods"));
    // The first filter that refuses speaks: taints before selectors before resources.
    let mut bad = tainted("NoSchedule");
    json_patch::merge(&mut bad, &json!({ "status": { "allocatable": { "cpu": "0" } } }));
    let mut picky = asking("1");
    picky["nodeSelector"] = json!({ "disk": "ssd" });
    check_node(bad.clone(), picky.clone(), Err("1 node(s) had untolerated taint {k: v}"));
    picky["tolerations"] = json!([{ "operator": "Exists" }]);
    check_node(bad, picky, Err(affinity));
}

/// 15.4
#[test]
fn reasons_are_counted_and_sorted_over_the_nodes() {
    let mut bench = Bench::of([
        node("a", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } })),
        node("b", json!({})),
        node("c", json!({ "metadata": { "labels": { "disk": "ssd" } } })),
    ])
    .with(pod("x", asking("3")), "c");
    let mut wants = asking("2");
    wants["nodeSelector"] = json!({ "disk": "ssd" });
    assert_eq!(
        bench.try_place(pod("p", wants.clone())).unwrap_err(),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, \
         1 node(s) had untolerated taint {k: v}. preemption: 0/3 nodes are available: \
         1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    );
    wants["preemptionPolicy"] = json!("Never");
    assert_eq!(
        bench.try_place(pod("p", wants)).unwrap_err(),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector, \
         1 node(s) had untolerated taint {k: v}. preemption: not eligible due to preemptionPolicy=Never."
    );
    assert_eq!(
        Bench::of([]).try_place(pod("p", json!({}))).unwrap_err(),
        "no nodes available to schedule pods"
    );
}

/// 15.3
#[test]
fn host_ports_conflict_on_equal_protocol_port_and_overlapping_address() {
    let wants = |port: i32, protocol: &str, ip: &str| {
        json!({ "containers": [{ "name": "c", "ports": [
            { "containerPort": 80, "hostPort": port, "protocol": protocol, "hostIP": ip }] }] })
    };
    for (port, protocol, ip, fits) in [
        (80, "TCP", "127.0.0.1", false),
        (80, "TCP", "", false),
        (80, "TCP", "0.0.0.0", false),
        (80, "TCP", "127.0.0.2", true),
        (80, "UDP", "127.0.0.1", true),
        (81, "TCP", "127.0.0.1", true),
    ] {
        let mut bench = Bench::of([node("n", json!({}))]).with(pod("x", wants(80, "TCP", "127.0.0.1")), "n");
        let answer = bench.try_place(pod("p", wants(port, protocol, ip)));
        assert_eq!(answer.is_ok(), fits, "{port} {protocol} {ip}: {answer:?}");
        if let Err(message) = answer {
            assert!(
                message.contains("1 node(s) didn't have free ports for the requested pod ports."),
                "{message}"
            );
        }
    }
}

#[test]
fn a_pod_takes_room_until_it_is_removed_and_only_once() {
    let mut bench = Bench::of([node("n", json!({}))]);
    let first = pod("first", asking("3"));
    bench.run(first.clone());
    let pending = bench.cache.pending(first);
    bench.cache.add_pod(&pending, "n");
    assert!(bench.try_place(pod("p", asking("2"))).is_err());
    assert!(bench.try_place(pod("p", asking("1"))).is_ok());
    assert!(bench.cache.remove_pod("first"));
    assert!(!bench.cache.remove_pod("first"));
    assert!(bench.try_place(pod("p", asking("4"))).is_ok());
}

#[test]
fn pods_of_a_node_not_yet_known_count_once_it_is() {
    let mut bench = Bench::of([]).with(pod("x", asking("3")), "n");
    assert_eq!(bench.try_place(pod("p", json!({}))).unwrap_err(), "no nodes available to schedule pods");
    bench.cache.set_node(node("n", json!({})));
    assert!(bench.try_place(pod("p", asking("2"))).unwrap_err().contains("1 Insufficient cpu"));
    // The node goes and comes back; its pods are still there.
    bench.cache.remove_node("n");
    bench.cache.set_node(node("n", json!({})));
    assert!(bench.try_place(pod("p", asking("2"))).is_err());
    bench.cache.remove_pod("x");
    assert!(bench.try_place(pod("p", asking("2"))).is_ok());
}

#[test]
fn a_relabelled_node_is_judged_anew() {
    let mut bench = Bench::of([node("a", json!({})), node("b", json!({}))]);
    let wants = || pod("p", json!({ "nodeSelector": { "disk": "ssd" } }));
    assert!(bench.try_place(wants()).is_err());
    assert!(bench.cache.set_node(node("b", json!({ "metadata": { "labels": { "disk": "ssd" } } }))));
    assert_eq!(bench.try_place(wants()).unwrap(), "b");
    let heartbeat = json!({ "metadata": { "labels": { "disk": "ssd" }, "resourceVersion": "9" } });
    assert!(!bench.cache.set_node(node("b", heartbeat)), "nothing the scheduler looks at changed");
}

/// 15.6
#[test]
fn scores_prefer_empty_liked_and_uncrowded_nodes() {
    // The emptier node.
    let mut bench = Bench::of([node("a", json!({})), node("b", json!({}))]).with(pod("x", asking("2")), "a");
    assert_eq!(bench.try_place(pod("p", asking("1"))).unwrap(), "b");
    // Preferred affinity outweighs room.
    let prefers = json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 1, "preference": { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] } }
    ] } } });
    let mut bench =
        Bench::of([node("a", json!({ "metadata": { "labels": { "disk": "ssd" } } })), node("b", json!({}))])
            .with(pod("x", asking("2")), "a");
    assert_eq!(bench.try_place(pod("p", prefers)).unwrap(), "a");
    // PreferNoSchedule is avoided while another node will do.
    let soft = json!({ "spec": { "taints": [{ "key": "k", "effect": "PreferNoSchedule" }] } });
    let mut bench = Bench::of([node("a", soft), node("b", json!({}))]).with(pod("x", asking("3")), "b");
    assert_eq!(bench.try_place(pod("p", json!({}))).unwrap(), "b");
    assert_eq!(bench.try_place(pod("p", asking("2"))).unwrap(), "a");
}

#[test]
fn pods_of_one_owner_or_one_set_of_labels_spread() {
    let mut bench = Bench::of((0..5).map(|i| node(&format!("n{i}"), json!({}))));
    let mut used = BTreeSet::new();
    for i in 0..5 {
        used.insert(bench.run(labelled(&format!("p{i}"), json!({ "app": "web" }), asking("10m"))));
    }
    assert_eq!(used.len(), 5);
}

#[test]
fn equal_nodes_take_turns_by_chance_and_the_same_seed_repeats_it() {
    let place_all = |seed| {
        let mut bench = Bench::of((0..7).map(|i| node(&format!("n{i}"), json!({}))));
        bench.random = Random::from_seed(seed);
        (0..50).map(|i| bench.run(pod(&format!("p{i}"), json!({})))).collect::<Vec<_>>()
    };
    assert_eq!(place_all(3), place_all(3));
    assert_ne!(place_all(3), place_all(4));
}

#[test]
fn inter_pod_terms_hold() {
    let zoned = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let bench = || Bench::of([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")]);
    let term =
        |app: &str| json!([{ "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": "zone" }]);
    let required = |which: &str, app: &str| json!({ "affinity": { which: { "requiredDuringSchedulingIgnoredDuringExecution": term(app) } } });
    let web = |name: &str| labelled(name, json!({ "app": "web" }), json!({}));

    let mut apart = bench().with(web("w"), "a1");
    let anti = || labelled("p", json!({ "app": "db" }), required("podAntiAffinity", "web"));
    assert_eq!(apart.try_place(anti()).unwrap(), "b1");
    apart = apart.with(web("v"), "b1");
    assert!(apart.try_place(anti()).unwrap_err().contains("3 node(s) didn't match pod anti-affinity rules."));
    apart.cache.remove_pod("w");
    assert!(apart.try_place(anti()).unwrap().starts_with('a'));
    // And the other way: those that are there keep web away.
    let mut guarded = bench().with(anti(), "a2");
    assert_eq!(guarded.try_place(web("w")).unwrap(), "b1");
    guarded = guarded.with(labelled("q", json!({}), required("podAntiAffinity", "web")), "b1");
    let message = guarded.try_place(web("w")).unwrap_err();
    assert!(message.contains("3 node(s) didn't satisfy existing pods anti-affinity rules."), "{message}");

    let mut together = bench();
    let friend = || labelled("f", json!({ "app": "db" }), required("podAffinity", "web"));
    assert!(together.try_place(friend()).unwrap_err().contains("3 node(s) didn't match pod affinity rules."));
    together = together.with(web("w"), "b1");
    assert_eq!(together.try_place(friend()).unwrap(), "b1");
    // The first of pods that want each other goes anywhere.
    assert!(
        bench().try_place(labelled("f", json!({ "app": "web" }), required("podAffinity", "web"))).is_ok()
    );
}

#[test]
fn hard_spread_constraints_bound_the_skew() {
    let zoned = |name: &str, zone: &str| node(name, json!({ "metadata": { "labels": { "zone": zone } } }));
    let mut bench =
        Bench::of([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), node("none", json!({}))]);
    let web = |name: &str| {
        labelled(
            name,
            json!({ "app": "web" }),
            json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] }),
        )
    };
    let zones: Vec<String> = (0..6).map(|i| bench.run(web(&format!("w{i}")))[..1].to_owned()).collect();
    assert_eq!(zones.iter().filter(|zone| *zone == "a").count(), 3, "{zones:?}");
    bench.cache.set_node(node(
        "b1",
        json!({ "metadata": { "labels": { "zone": "b" } }, "spec": { "unschedulable": true } }),
    ));
    bench.run(web("w6"));
    let message = bench.try_place(web("w7")).unwrap_err();
    assert!(
        message.starts_with(
            "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), \
             1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints."
        ),
        "{message}"
    );
}

/// The measure: placements do not scan every node times every pod.
#[test]
fn ten_thousand_pods_on_a_thousand_nodes_look_at_few_nodes_each() {
    let mut bench = Bench::of((0..1000).map(|i| node(&format!("n{i:03}"), json!({}))));
    let mut taken = vec![0_u32; 1000];
    for i in 0..10_000 {
        let name = bench.run(pod(&format!("p{i}"), asking("300m")));
        taken[name[1..].parse::<usize>().unwrap()] += 1;
    }
    let candidates = u64::try_from(CANDIDATES_MAX).unwrap();
    assert!(bench.work.nodes <= 10_000 * candidates, "{:?}", bench.work);
    assert!(bench.work.steps <= 10_000 * candidates * 12, "{:?}", bench.work);
    assert!(taken.iter().all(|pods| (8..=12).contains(pods)), "{taken:?}");
    // 13 such pods fill a node; filling the rest still does not look at full ones one by one.
    for i in 10_000..13_000 {
        bench.run(pod(&format!("p{i}"), asking("300m")));
    }
    let full = bench.work;
    assert!(full.nodes <= 13_000 * candidates, "{full:?}");
    for i in 0..1000 {
        assert!(bench.try_place(pod(&format!("q{i}"), asking("300m"))).is_err());
    }
    assert_eq!(bench.work.nodes, full.nodes, "a full cluster is seen without looking at nodes");
    // Pods that name their node look at that one alone.
    let named = json!({ "nodeSelector": { "kubernetes.io/hostname": "n500" } });
    assert_eq!(bench.try_place(pod("named", named)).unwrap(), "n500");
    assert_eq!(bench.work.nodes, full.nodes + 1);
}

#[test]
fn a_label_that_few_nodes_have_leads_to_them() {
    let of =
        |i: usize| node(&format!("n{i}"), json!({ "metadata": { "labels": { "disk": format!("d{i}") } } }));
    let mut bench = Bench::of((0..1000).map(of));
    for i in 0..1000 {
        let wants = json!({ "nodeSelector": { "disk": format!("d{i}") } });
        assert_eq!(bench.run(pod(&format!("p{i}"), wants)), format!("n{i}"));
    }
    assert_eq!(bench.work.nodes, 1000);
}

#[test]
fn every_class_of_a_large_cluster_gives_candidates() {
    let big = |i: usize| node(&format!("big{i}"), json!({ "status": { "allocatable": { "cpu": "8" } } }));
    let mut bench = Bench::of((0..300).map(|i| node(&format!("n{i}"), json!({}))).chain((0..100).map(big)));
    let on_big =
        (0..400).filter(|i| bench.run(pod(&format!("p{i}"), asking("2"))).starts_with("big")).count();
    assert!((90..=200).contains(&on_big), "{on_big}");
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn waiting(cache: &mut Cache, name: &str, priority: i32) -> super::cache::Pending {
    cache.pending(pod(name, json!({ "priority": priority })))
}

fn next(queue: &mut Queue, at: u64) -> Option<String> {
    queue.pop(seconds(at)).map(|pending| pod_key(&pending).1)
}

/// 15.6
#[test]
fn the_queue_goes_by_priority_then_age() {
    let (mut queue, mut cache) = (Queue::default(), Cache::default());
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)] {
        let pending = waiting(&mut cache, name, priority);
        queue.add(pending, seconds(0));
    }
    let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, 0)).collect();
    assert_eq!(order, ["b", "d", "a", "c", "e"]);
}

/// 15.5
#[test]
fn unschedulable_pods_come_back_on_relevant_change_after_back_off_or_after_five_minutes() {
    let (mut queue, mut cache) = (Queue::default(), Cache::default());
    let pending = waiting(&mut cache, "a", 0);
    let key = pod_key(&pending);
    let room = BTreeSet::from([Blocker::Room]);
    queue.add(pending.clone(), seconds(0));
    let mut now = 0;
    for wait in [1, 2, 4, 8, 10, 10] {
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        queue.unschedulable(&key, &room, seconds(now));
        queue.wake(&[Blocker::Pods], seconds(now));
        assert_eq!(queue.due(), Some(seconds(now + 300)), "another blocker does not help");
        queue.wake(&[Blocker::Room], seconds(now));
        assert_eq!(queue.due(), Some(seconds(now + wait)));
        assert_eq!(next(&mut queue, now), None);
        now += wait;
    }
    assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
    queue.unschedulable(&key, &room, seconds(now));
    assert_eq!(next(&mut queue, now + 299), None);
    assert_eq!(next(&mut queue, now + 300).as_deref(), Some("a"));
    // A change of the pod itself, once it has rested.
    queue.unschedulable(&key, &room, seconds(now + 300));
    queue.add(pending, seconds(now + 400));
    assert_eq!(next(&mut queue, now + 400).as_deref(), Some("a"));
    // A binding that failed waits too; a removed pod does not come back.
    queue.failed(&key, seconds(now + 400));
    assert_eq!(queue.due(), Some(seconds(now + 410)));
    queue.remove(&key);
    assert_eq!((queue.due(), queue.has_active()), (None, false));
}

#[test]
fn node_ids_are_reused() {
    let mut cache = Cache::default();
    let mut ids: BTreeSet<NodeId> = BTreeSet::new();
    for i in 0..10 {
        let name = format!("n{i}");
        cache.set_node(node(&name, json!({})));
        ids.insert(cache.node_id(&name).unwrap());
        cache.remove_node(&name);
    }
    assert_eq!((ids.len(), cache.node_count), (1, 0));
}
