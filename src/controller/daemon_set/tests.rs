use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::kind::Object;

const NOW: i64 = 1000;

fn set(change: Value) -> DaemonSet {
    let mut all = json!({
        "metadata": {
            "name": "d", "namespace": "ns", "uid": "d", "generation": 1, "resourceVersion": "7",
            "annotations": { "deprecated.daemonset.template.generation": "1" },
        },
        "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
            "template": {
                "metadata": { "labels": { "app": "a" } },
                "spec": { "containers": [{ "name": "c", "image": "v1" }] },
            },
        },
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn node(name: &str, change: Value) -> Node {
    let mut all = json!({ "metadata": { "name": name, "labels": {} } });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn revision(name: &str, number: i64, of: &DaemonSet) -> ControllerRevision {
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true }]);
    let mut revision: ControllerRevision = serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "7",
            "labels": { "app": "a", HASH_LABEL: name }, "ownerReferences": owner,
        },
        "revision": number,
    }))
    .unwrap();
    revision.data = Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(revisions::patch(
        &of.spec.as_ref().unwrap().template,
    )));
    revision
}

/// A ready pod of the revision `hash`.
fn pod(name: &str, on: &str, hash: &str, change: Value) -> Pod {
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true }]);
    let mut all = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "7",
            "creationTimestamp": "1970-01-01T00:00:00Z",
            "labels": { "app": "a", HASH_LABEL: hash }, "ownerReferences": owner,
        },
        "spec": { "nodeName": on, "containers": [] },
        "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z" },
        ] },
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn unready() -> Value {
    json!({ "status": { "conditions": null } })
}

fn going() -> Value {
    json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:00:00Z" } })
}

struct World {
    set: DaemonSet,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    revisions: Vec<ControllerRevision>,
}

impl World {
    /// Nodes `n1` to `n<count>`, and the revision `r1` of the set's template.
    fn of(change: Value, count: usize, pods: Vec<Pod>) -> Self {
        let set = set(change);
        Self {
            nodes: (1..=count).map(|i| node(&format!("n{i}"), json!({}))).collect(),
            revisions: vec![revision("r1", 1, &set)],
            set,
            pods,
        }
    }

    fn decide_with(&self, controller: &DaemonSets, now: i64) -> Decision {
        let mut seen = Snapshot::new(controller.indexes());
        let key = Key::to(KindRef::of::<DaemonSet>(), &self.set);
        seen.insert(key.kind, Arc::new(self.set.clone()));
        for node in &self.nodes {
            seen.insert(KindRef::of::<Node>(), Arc::new(node.clone()));
        }
        for pod in &self.pods {
            seen.insert(KindRef::of::<Pod>(), Arc::new(pod.clone()));
        }
        for revision in &self.revisions {
            seen.insert(KindRef::of::<ControllerRevision>(), Arc::new(revision.clone()));
        }
        let moment = Moment { now: Timestamp::from_second(now).unwrap(), waited: Duration::ZERO };
        controller.reconcile(&seen, &key, moment)
    }

    fn decide(&self) -> Decision {
        self.decide_with(&DaemonSets::default(), NOW)
    }

    fn lines(&self) -> Vec<String> {
        lines(&self.decide())
    }

    /// The status that is to be written.
    fn status(&self) -> Option<Value> {
        fn find(actions: &[Action]) -> Option<Value> {
            actions.iter().find_map(|action| match action {
                Action::Together(actions) | Action::InOrder(actions) => find(actions),
                Action::Update(_, object, Some(Subresource::Status)) => {
                    Some(object.to_value()["status"].clone())
                }
                _ => None,
            })
        }
        find(&self.decide().actions)
    }
}

/// What is done, without the status.
fn lines(decision: &Decision) -> Vec<String> {
    fn render(action: &Action, lines: &mut Vec<String>) {
        lines.push(match action {
            Action::Together(actions) | Action::InOrder(actions) => {
                return actions.iter().for_each(|action| render(action, lines));
            }
            Action::CreateFor(_, object, _, _) => {
                let pod = object.downcast_ref::<Pod>().unwrap();
                format!("create on {}", eligibility::target(pod).unwrap())
            }
            Action::DeleteFor { key, .. } | Action::Delete { key, .. } => format!("delete {}", key.name),
            Action::Create(_, object) => {
                let made = object.downcast_ref::<ControllerRevision>().unwrap();
                format!("revision {}", made.revision)
            }
            Action::Patch(key, patch) if patch.get("revision").is_some() => {
                format!("revise {} to {}", key.name, patch["revision"])
            }
            Action::Patch(key, _) => format!("adopt {}", key.name),
            Action::Warn { reason, message, .. } => format!("{reason}: {message}"),
            Action::Event { reason, message, .. } => format!("{reason}: {message}"),
            Action::RequireAbsent(..) | Action::RequirePresent(..) | Action::Update(..) => return,
            other => format!("{other:?}"),
        });
    }
    let mut all = Vec::new();
    decision.actions.iter().for_each(|action| render(action, &mut all));
    all
}

#[track_caller]
fn check(change: Value, count: usize, pods: Vec<Pod>, expected: &[&str]) {
    assert_eq!(World::of(change, count, pods).lines(), expected);
}

/// 12.2
#[test]
fn every_node_gets_a_pod_pinned_to_it() {
    let mut world = World::of(json!({}), 2, vec![]);
    assert_eq!(world.lines(), ["create on n1", "create on n2"]);
    let Decision { actions, .. } = world.decide();
    let Action::Together(side_by_side) = &actions[0] else { panic!("{actions:?}") };
    let Action::InOrder(batches) = &side_by_side[0] else { panic!("{side_by_side:?}") };
    let Action::Together(first) = &batches[0] else { panic!("{batches:?}") };
    let Action::CreateFor(_, pod, owner, _) = &first[0] else { panic!("{first:?}") };
    let meta = pod.metadata();
    assert_eq!(meta.generate_name.as_deref(), Some("d-"));
    let labels = json!({ "app": "a", HASH_LABEL: "r1", GENERATION_LABEL: "1" });
    assert_eq!(json!(meta.labels), labels);
    assert_eq!(owned::controller_of(meta).unwrap().uid, "d");
    assert_eq!(owner.uid.as_deref(), Some("d"));
    let tolerations = pod.to_value()["spec"]["tolerations"].as_array().map(Vec::len);
    assert_eq!(tolerations, Some(6), "12.3");
    // Cordoned and unready nodes count, others only if they fit.
    world.nodes[0] = node(
        "n1",
        json!({ "spec": { "unschedulable": true, "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }] } }),
    );
    assert_eq!(world.lines(), ["create on n1", "create on n2"]);
    let fast = json!({ "spec": { "template": { "spec": { "nodeSelector": { "disk": "ssd" } } } } });
    let mut world = World::of(fast, 2, vec![]);
    assert_eq!(world.lines(), [""; 0]);
    world.nodes[1] = node("n2", json!({ "metadata": { "labels": { "disk": "ssd" } } }));
    assert_eq!(world.lines(), ["create on n2"]);
}

/// 12.4
#[test]
fn a_node_that_stops_matching_loses_its_pod() {
    let tainted = |effect: &str| {
        let mut world = World::of(json!({}), 1, vec![pod("p", "n1", "r1", json!({}))]);
        world.nodes[0] = node("n1", json!({ "spec": { "taints": [{ "key": "k", "effect": effect }] } }));
        world
    };
    assert_eq!(tainted("NoSchedule").lines(), [""; 0]);
    assert_eq!(tainted("NoExecute").lines(), ["delete p"]);
    let mut empty = tainted("NoSchedule");
    empty.pods.clear();
    assert_eq!(empty.lines(), [""; 0]);
    let fast = json!({ "spec": { "template": { "spec": { "nodeSelector": { "disk": "ssd" } } } } });
    check(fast.clone(), 1, vec![pod("p", "n1", "r1", json!({}))], &["delete p"]);
    check(fast, 1, vec![pod("p", "n1", "r1", going())], &[]);
    // A pod that waits for a node that is gone; a bound one is collected with the node.
    let mut waiting = pod("p", "", "r1", unready());
    eligibility::pin(waiting.spec.as_mut().unwrap(), "gone");
    check(json!({}), 0, vec![waiting], &["delete p"]);
    check(json!({}), 0, vec![pod("p", "gone", "r1", json!({}))], &[]);
}

/// 12.5, 12.10
#[test]
fn pods_that_end_are_replaced() {
    let ended = |phase: &str| pod("p", "n1", "r1", json!({ "status": { "phase": phase } }));
    check(
        json!({}),
        1,
        vec![ended("Failed")],
        &["FailedDaemonPod: Found failed daemon pod ns/p on node n1, will try to kill it", "delete p"],
    );
    check(
        json!({}),
        1,
        vec![ended("Succeeded")],
        &[
            "SucceededDaemonPod: Found succeeded daemon pod ns/p on node n1, will try to delete it",
            "delete p",
        ],
    );
    // While one goes its node waits; once it is gone there is another.
    check(json!({}), 1, vec![pod("p", "n1", "r1", going())], &[]);
    check(json!({}), 1, vec![], &["create on n1"]);
    // A finished one that is going holds nothing up.
    let mut over = ended("Failed");
    over.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    check(json!({}), 1, vec![over], &["create on n1"]);
}

/// 12.5
#[test]
fn a_node_where_pods_fail_is_left_alone_for_longer_and_longer() {
    let failed = pod("p", "n1", "r1", json!({ "status": { "phase": "Failed" } }));
    let world = World::of(json!({}), 1, vec![failed]);
    let controller = DaemonSets::default();
    let mut now = NOW;
    for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
        let decision = world.decide_with(&controller, now);
        assert!(lines(&decision).contains(&"delete p".to_owned()), "at {now}");
        let decision = world.decide_with(&controller, now);
        assert_eq!(lines(&decision), [""; 0], "at {now}");
        assert_eq!(decision.requeue_after, Some(Duration::from_secs(wait)), "at {now}");
        now += i64::try_from(wait).unwrap();
    }
    // Half an hour without failure is forgiven.
    now += 1801;
    world.decide_with(&controller, now);
    assert_eq!(world.decide_with(&controller, now).requeue_after, Some(Duration::from_secs(1)));
}

/// 12.5
#[test]
fn the_oldest_of_several_stays() {
    let made = |seconds| {
        let at: Timestamp = Timestamp::from_second(seconds).unwrap();
        json!({ "metadata": { "creationTimestamp": at.to_string() } })
    };
    let pods = vec![pod("a", "n1", "r1", made(20)), pod("b", "n1", "r1", made(10))];
    check(json!({}), 1, pods, &["delete a"]);
}

/// 12.6
#[test]
fn nodes_are_counted() {
    let mut world = World::of(
        json!({ "spec": { "minReadySeconds": 100 } }),
        4,
        vec![
            pod("a", "n1", "r1", json!({})),
            pod(
                "b",
                "n2",
                "r0",
                json!({ "status": { "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:16:00Z" },
            ] } }),
            ),
            pod("c", "n3", "r1", unready()),
            pod("d", "n5", "r1", json!({})),
        ],
    );
    world.nodes.push(node("n5", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } })));
    assert_eq!(
        world.status().unwrap(),
        json!({
            "desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberMisscheduled": 1, "numberReady": 2,
            "numberAvailable": 1, "numberUnavailable": 3, "updatedNumberScheduled": 2, "observedGeneration": 1,
        })
    );
    // 60 seconds after 960 the second one is available too.
    assert_eq!(world.decide().requeue_after, Some(Duration::from_secs(60)));
    world.set.status = Some(serde_json::from_value(world.status().unwrap()).unwrap());
    assert_eq!(world.status(), None, "nothing to say");
}

/// 12.6
#[test]
fn creation_starts_slowly_and_is_bounded() {
    let world = World::of(json!({}), 600, vec![]);
    let Decision { actions, .. } = world.decide();
    let Action::Together(side_by_side) = &actions[0] else { panic!("{actions:?}") };
    let Action::InOrder(batches) = &side_by_side[0] else { panic!("{side_by_side:?}") };
    let sizes: Vec<usize> = batches
        .iter()
        .map(|batch| match batch {
            Action::Together(actions) => actions.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 123]);
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({ "spec": { "updateStrategy": { "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } } } })
}

/// 12.7
#[test]
fn an_update_interrupts_as_many_as_it_may() {
    let old = |i: usize| pod(&format!("p{i}"), &format!("n{i}"), "r0", json!({}));
    let all = || (1..=4).map(old).collect::<Vec<_>>();
    check(json!({}), 4, all(), &["delete p1"]);
    check(rolling(json!(2), json!(0)), 4, all(), &["delete p1", "delete p2"]);
    // A share of the desired, rounded up.
    check(rolling(json!("30%"), json!(0)), 4, all(), &["delete p1", "delete p2"]);
    // What is not available goes at once, and counts.
    let mut sick = all();
    sick[2] = pod("p3", "n3", "r0", unready());
    check(rolling(json!(2), json!(0)), 4, sick.clone(), &["delete p3", "delete p1"]);
    sick[3] = pod("p4", "n4", "r0", unready());
    check(rolling(json!(1), json!(0)), 4, sick, &["delete p3", "delete p4"]);
    // New ones that are not there yet count too.
    let mut half = all();
    half[0] = pod("p1", "n1", "r1", unready());
    check(json!({}), 4, half.clone(), &[]);
    half[0] = pod("p1", "n1", "r1", json!({}));
    check(json!({}), 4, half.clone(), &["delete p2"]);
    half[1] = pod("p2", "n2", "r0", going());
    check(json!({}), 4, half, &[]);
    let on_delete = json!({ "spec": { "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } } });
    check(on_delete, 4, all(), &[]);
}

/// 12.7
#[test]
fn a_surge_brings_the_new_before_the_old_goes() {
    let surge = || rolling(json!(0), json!(1));
    let old = |i: usize| pod(&format!("p{i}"), &format!("n{i}"), "r0", json!({}));
    let all = || (1..=3).map(old).collect::<Vec<_>>();
    check(surge(), 3, all(), &["create on n1"]);
    let mut surging = all();
    surging.push(pod("q1", "n1", "r1", unready()));
    check(surge(), 3, surging.clone(), &[]);
    surging[3] = pod("q1", "n1", "r1", json!({}));
    check(surge(), 3, surging.clone(), &["delete p1"]);
    surging[0] = pod("p1", "n1", "r0", going());
    check(surge(), 3, surging, &["create on n2"]);
    // Where the old one is not available nothing is lost.
    let mut sick = all();
    sick[2] = pod("p3", "n3", "r0", unready());
    check(surge(), 3, sick, &["create on n3", "create on n1"]);
}

/// 12.8
#[test]
fn revisions_are_made_reused_and_trimmed() {
    let mut world = World::of(json!({}), 0, vec![]);
    assert_eq!(world.lines(), [""; 0]);
    let present = world.revisions.pop().unwrap();
    assert_eq!(world.lines(), ["revision 1"]);
    let other = |name: &str, number| {
        let changed = set(
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": name }] } } } }),
        );
        revision(name, number, &changed)
    };
    world.revisions = vec![other("r5", 5), other("r3", 3)];
    assert_eq!(world.lines(), ["revision 6"]);
    world.revisions.push(present);
    assert_eq!(world.lines(), ["revise r1 to 6"]);
    world.revisions[2].revision = 6;
    assert_eq!(world.lines(), [""; 0]);
    world.set.spec.as_mut().unwrap().revision_history_limit = Some(1);
    assert_eq!(world.lines(), ["delete r3"]);
    // Never one of which there is a pod.
    world.nodes.push(node("n1", json!({})));
    world.pods = vec![pod("p", "n1", "r3", json!({}))];
    world.set.spec.as_mut().unwrap().update_strategy.as_mut().unwrap().type_ = Some("OnDelete".into());
    assert_eq!(world.lines(), ["delete r5"]);
}

/// 12.8
#[test]
fn a_taken_name_leads_to_another() {
    let mut world = World::of(json!({}), 1, vec![]);
    let hash = template_hash_of(&world.set, None);
    let mut foreign = world.revisions.pop().unwrap();
    foreign.metadata.name = Some(format!("d-{hash}"));
    foreign.metadata.owner_references = None;
    foreign.metadata.labels = None;
    world.revisions.push(foreign);
    assert_eq!(world.lines(), [""; 0], "no pod without a revision");
    assert_eq!(world.status().unwrap()["collisionCount"], 1);
    world.set.status = Some(serde_json::from_value(world.status().unwrap()).unwrap());
    assert_eq!(world.lines(), ["revision 1", "create on n1"]);
}

fn template_hash_of(set: &DaemonSet, collisions: Option<i32>) -> String {
    super::super::template_hash::template_hash(&set.spec.as_ref().unwrap().template, collisions)
}

/// 12.9
#[test]
fn orphans_are_adopted_and_those_of_the_template_stay() {
    let orphan = |name: &str, on: &str, hash: &str| {
        pod(name, on, hash, json!({ "metadata": { "ownerReferences": null } }))
    };
    let mut other = orphan("p2", "n2", "r0");
    // That the set's template is as many changes old as that of its predecessor was says nothing.
    let labels = other.metadata.labels.as_mut().unwrap();
    labels.insert(GENERATION_LABEL.to_owned(), template_generation(&set(json!({}))).to_string());
    let mut world = World::of(json!({}), 2, vec![orphan("p1", "n1", "r1"), other]);
    world.revisions[0].metadata.owner_references = None;
    assert_eq!(world.lines(), ["adopt r1", "adopt p1", "adopt p2", "delete p2"]);
    world.set.spec.as_mut().unwrap().update_strategy.as_mut().unwrap().type_ = Some("OnDelete".into());
    assert_eq!(world.lines(), ["adopt r1", "adopt p1", "adopt p2"]);
}

#[test]
fn nodes_wake_the_sets_they_matter_to() {
    let mut seen = Snapshot::new(DaemonSets::default().indexes());
    let picky = json!({ "metadata": { "name": "picky" }, "spec": { "template": { "spec": { "nodeSelector": { "disk": "ssd" } } } } });
    for one in [set(json!({})), set(picky)] {
        seen.insert(KindRef::of::<DaemonSet>(), Arc::new(one));
    }
    let wakes = |old: Option<Node>, new: Option<Node>| {
        let [old, new] = [old, new].map(|side| side.map(|node| Arc::new(node) as Arc<dyn Object>));
        let change = Change { kind: KindRef::of::<Node>(), old: old.as_ref(), new: new.as_ref() };
        let mut woken = Vec::new();
        DaemonSets::default().wakes(&seen, &change, &mut |key| woken.push(key.name));
        woken
    };
    let plain = || Some(node("n", json!({})));
    let fast = || Some(node("n", json!({ "metadata": { "labels": { "disk": "ssd" } } })));
    assert_eq!(wakes(None, plain()), ["d"]);
    assert_eq!(wakes(None, fast()), ["d", "picky"]);
    assert_eq!(wakes(plain(), fast()), ["picky"]);
    assert_eq!(wakes(fast(), None), ["d", "picky"]);
    let busy = json!({ "status": { "phase": "x" }, "spec": { "unschedulable": true } });
    assert_eq!(wakes(plain(), Some(node("n", busy))), [""; 0]);
}
