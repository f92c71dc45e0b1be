use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use serde_json::Value;

use super::*;

fn pod(change: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "app": "a" }, "resourceVersion": "7" },
        "spec": { "nodeName": "n", "containers": [] },
        "status": { "phase": "Running" },
    });
    json_patch::merge(&mut pod, &change);
    serde_json::from_value(pod).unwrap()
}

fn ready_since(seconds: i64) -> Value {
    let at = Timestamp::from_second(seconds).unwrap();
    json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": at.to_string() }] } })
}

fn owned(name: &str, app: &str, owner: &str, meta: Value) -> Pod {
    let mut change = json!({ "metadata": { "name": name, "uid": name, "labels": { "app": app } } });
    if !owner.is_empty() {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true,
        });
        change["metadata"]["ownerReferences"] = json!([owner]);
    }
    json_patch::merge(&mut change["metadata"], &meta);
    pod(change)
}

fn set(name: &str, going: bool) -> ReplicaSet {
    let going = going.then_some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some(name.into()),
            deletion_timestamp: going,
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            selector: serde_json::from_value(json!({ "matchLabels": { "app": "a" } })).unwrap(),
            ..ReplicaSetSpec::default()
        }),
        status: None,
    }
}

fn selector(set: &ReplicaSet) -> Option<LabelSelector> {
    LabelSelector::from_meta(set.spec.as_ref().map(|spec| &spec.selector)).ok()
}

fn seen(pods: &[Pod]) -> Snapshot {
    let mut seen = Snapshot::new(&INDEXES);
    for pod in pods {
        seen.insert(KindRef::of::<Pod>(), Arc::new(pod.clone()));
    }
    seen
}

fn render(action: &Action) -> String {
    match action {
        Action::RequirePresent(key, uid) => format!("require {} {uid}", key.name),
        Action::Patch(key, patch) => {
            let meta = &patch["metadata"];
            assert_eq!(meta["resourceVersion"], "7", "only the version that was seen is changed");
            assert_eq!(meta["uid"], key.name);
            let owners = meta["ownerReferences"].as_array();
            let owners: Vec<&str> =
                owners.into_iter().flatten().map(|owner| owner["uid"].as_str().unwrap()).collect();
            let held = meta.get("finalizers").map(|all| format!(", held by {all}")).unwrap_or_default();
            format!("{} owned by {owners:?}{held}", key.name)
        }
        other => format!("{other:?}"),
    }
}

/// What the replica set `o` claims of these pods, and how, if its pods have `finalizer`.
#[track_caller]
fn check(going: bool, finalizer: Option<&str>, pods: &[Pod], mine: &[&str], actions: &[&str]) {
    let (seen, owner) = (seen(pods), set("o", going));
    let selector = selector(&owner).unwrap();
    let claimed = claim::<Pod>(&seen, &owner, KindRef::of::<ReplicaSet>(), &selector, finalizer, is_active);
    assert_eq!(claimed.mine.iter().map(|pod| snapshot::name(*pod)).collect::<Vec<_>>(), mine);
    assert_eq!(claimed.actions.iter().map(render).collect::<Vec<_>>(), actions);
}

/// 4.7
#[test]
fn what_matches_is_adopted_and_what_no_longer_does_is_released() {
    let none = json!({});
    let going = json!({ "deletionTimestamp": "1970-01-01T00:00:00Z" });
    let pods = [
        owned("adopted-1", "a", "", none.clone()),
        owned("adopted-2", "a", "", none.clone()),
        owned("foreign", "a", "other", none.clone()),
        owned("going", "a", "", going.clone()),
        owned("mine", "a", "o", none.clone()),
        owned("mine-going", "a", "o", going.clone()),
        owned("released", "b", "o", none.clone()),
        owned("released-going", "b", "o", going),
        owned("unlike", "b", "", none),
    ];
    check(
        false,
        None,
        &pods,
        &["mine", "mine-going", "adopted-1", "adopted-2"],
        &[
            "released owned by []",
            "released-going owned by []",
            "require o o",
            "adopted-1 owned by [\"o\"]",
            "adopted-2 owned by [\"o\"]",
        ],
    );
    check(true, None, &pods, &["mine", "mine-going"], &[]);
    let mut finished = owned("finished", "a", "", json!({}));
    finished.status.as_mut().unwrap().phase = Some("Succeeded".into());
    check(false, None, &[finished], &[], &[]);
    // Owners that do not control stay.
    let owners = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c" }]);
    let shared = owned("shared", "a", "", json!({ "ownerReferences": owners }));
    check(false, None, &[shared], &["shared"], &["require o o", "shared owned by [\"c\", \"o\"]"]);
}

/// 4.7
#[test]
fn a_finalizer_comes_and_goes_with_the_owner() {
    let held = |by: &[&str]| json!({ "finalizers": by });
    let pods = [
        owned("adopted-1", "a", "", json!({})),
        owned("adopted-2", "a", "", held(&["e.com/x", "e.com/f"])),
        owned("released-1", "b", "o", held(&["e.com/x", "e.com/f"])),
        owned("released-2", "b", "o", held(&["e.com/f"])),
        owned("released-3", "b", "o", json!({})),
    ];
    let actions = [
        "released-1 owned by [], held by [\"e.com/x\"]",
        "released-2 owned by [], held by null",
        "released-3 owned by []",
        "require o o",
        "adopted-1 owned by [\"o\"], held by [\"e.com/f\"]",
        "adopted-2 owned by [\"o\"]",
    ];
    check(false, Some("e.com/f"), &pods, &["adopted-1", "adopted-2"], &actions);
    check(true, Some("e.com/f"), &pods, &[], &[]);
}

#[test]
fn a_pod_wakes_its_controllers_and_those_that_may_want_it() {
    let mut seen = seen(&[]);
    for name in ["o", "other"] {
        seen.insert(KindRef::of::<ReplicaSet>(), Arc::new(set(name, false)));
    }
    let wakes = |old: Option<Pod>, new: Option<Pod>| {
        let [old, new] = [old, new].map(|side| side.map(|pod| Arc::new(pod) as Arc<dyn Object>));
        let change = Change { kind: KindRef::of::<Pod>(), old: old.as_ref(), new: new.as_ref() };
        let mut woken = Vec::new();
        wake_owners::<ReplicaSet, Pod>(&seen, &change, selector, &mut |key| woken.push(key.name));
        woken
    };
    let none = json!({});
    let mine = || Some(owned("p", "a", "o", none.clone()));
    let theirs = || Some(owned("p", "a", "other", none.clone()));
    let orphan = |app| Some(owned("p", app, "", none.clone()));
    assert_eq!(wakes(None, mine()), ["o"]);
    assert_eq!(wakes(mine(), mine()), ["o"]);
    assert_eq!(wakes(mine(), None), ["o"]);
    assert_eq!(wakes(mine(), theirs()), ["o", "other"]);
    assert_eq!(wakes(None, orphan("a")), ["o", "other"]);
    assert_eq!(wakes(orphan("b"), orphan("a")), ["o", "other"]);
    assert_eq!(wakes(mine(), orphan("b")), ["o"]);
    for nobody in [(orphan("a"), orphan("a")), (None, orphan("b")), (orphan("a"), None)] {
        assert_eq!(wakes(nobody.0, nobody.1), [""; 0]);
    }
}

#[test]
fn pods_are_made_from_the_template() {
    let template = serde_json::from_value(json!({
        "metadata": { "labels": { "app": "a" }, "annotations": { "x": "y" }, "finalizers": ["e.com/f"], "name": "no" },
        "spec": { "containers": [{ "name": "c" }] },
    }))
    .unwrap();
    let made = serde_json::to_value(pod_of(&template, &set("o", false))).unwrap();
    assert_eq!(
        made["metadata"],
        json!({
            "namespace": "ns", "generateName": "o-", "labels": { "app": "a" }, "annotations": { "x": "y" },
            "finalizers": ["e.com/f"],
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": true,
                "blockOwnerDeletion": true,
            }],
        })
    );
    assert_eq!(made["spec"]["containers"][0]["name"], "c");
    assert_eq!(name_prefix(&"x".repeat(253)), "x".repeat(253));
}

#[test]
fn availability_is_readiness_for_a_while() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let ready = pod(ready_since(100));
    assert!(is_ready(&ready) && is_available(&ready, 0, at(0)));
    assert!(!is_available(&ready, 10, at(109)) && is_available(&ready, 10, at(110)));
    assert_eq!(next_available([&ready], 10, at(104)), Some(Duration::from_secs(6)));
    assert_eq!(next_available([&ready], 10, at(110)), None);
    let never = pod(json!({}));
    assert!(!is_ready(&never) && !is_available(&never, 0, at(0)));
    let silent = pod(json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
    assert!(is_available(&silent, 0, at(0)) && !is_available(&silent, 1, at(1000)));
    for phase in ["Succeeded", "Failed"] {
        assert!(!is_active(&pod(json!({ "status": { "phase": phase } }))));
    }
    assert!(is_active(&never));
    assert!(!is_active(&pod(json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:00:00Z" } }))));
}

/// Upstream's order, one step of it after the other: `a` goes before `b`.
#[test]
fn those_that_are_missed_least_go_first() {
    let named = |name: &str, changes: &[Value]| {
        let mut all =
            json!({ "metadata": { "name": name, "uid": name, "creationTimestamp": "1970-01-01T00:00:00Z" } });
        for change in changes {
            json_patch::merge(&mut all, change);
        }
        pod(all)
    };
    let ready = || ready_since(1000);
    let created = |seconds| {
        let at: Timestamp = Timestamp::from_second(seconds).unwrap();
        json!({ "metadata": { "creationTimestamp": at.to_string() } })
    };
    let phase = |phase: &str| json!({ "status": { "phase": phase } });
    let cost = |cost: &str| json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
    let restarts = |count: i32| {
        json!({ "status": { "containerStatuses": [{
        "name": "c", "restartCount": count, "image": "", "imageID": "", "ready": true,
    }] } })
    };
    let nowhere = json!({ "spec": { "nodeName": "" } });
    let uid = |uid: &str| json!({ "metadata": { "uid": uid } });
    let cases: Vec<(&str, Vec<Value>, Vec<Value>)> = vec![
        ("without a node", vec![nowhere.clone()], vec![phase("Pending")]),
        ("pending", vec![phase("Pending")], vec![phase("Unknown")]),
        ("unknown", vec![phase("Unknown")], vec![phase("Running")]),
        ("not ready", vec![cost("9")], vec![ready(), cost("-9")]),
        ("cheap", vec![ready(), cost("-1")], vec![ready()]),
        ("bad cost is none", vec![ready(), cost("x"), created(900)], vec![ready(), cost("1")]),
        ("ready for less", vec![ready_since(1900)], vec![ready_since(1000)]),
        ("about as long: by uid", vec![ready_since(1000), uid("1")], vec![ready_since(1001), uid("2")]),
        ("more restarts", vec![ready(), restarts(2)], vec![ready(), restarts(1), created(1900)]),
        ("younger", vec![created(1900)], vec![created(10)]),
    ];
    let now = Timestamp::from_second(2000).unwrap();
    for (what, a, b) in cases {
        let (a, b) = (named("a", &a), named("b", &b));
        for mut pods in [[&a, &b], [&b, &a]] {
            sort_for_deletion(&mut pods, &[], now);
            assert_eq!(pods.map(|pod| snapshot::name(pod)), ["a", "b"], "{what}");
        }
    }
    // On the node with more of them.
    let on = |name: &str, node: &str| named(name, &[ready(), json!({ "spec": { "nodeName": node } })]);
    let (a, b, c) = (on("a", "crowded"), on("b", "lonely"), on("c", "crowded"));
    let mut pods = [&b, &a];
    sort_for_deletion(&mut pods, &[&a, &b, &c], now);
    assert_eq!(pods.map(|pod| snapshot::name(pod)), ["a", "b"]);
}
