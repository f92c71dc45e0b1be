use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn set(change: Value) -> ReplicaSet {
    let mut set = json!({
        "metadata": { "name": "s", "namespace": "ns", "uid": "s", "generation": 1, "resourceVersion": "7" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a", "x": "y" } }, "spec": { "containers": [] } },
        },
        "status": { "replicas": 0, "observedGeneration": 1 },
    });
    json_patch::merge(&mut set, &change);
    serde_json::from_value(set).unwrap()
}

fn pod(name: &str, owner: &str, change: Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "labels": { "app": "a", "x": "y" }, "resourceVersion": "7",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true }],
        },
        "spec": { "nodeName": "n", "containers": [] },
        "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z" },
        ] },
    });
    json_patch::merge(&mut pod, &change);
    serde_json::from_value(pod).unwrap()
}

fn render(action: &Action) -> String {
    match action {
        Action::Together(actions) | Action::InOrder(actions) => {
            actions.iter().map(render).collect::<Vec<_>>().join(", ")
        }
        Action::CreateFor(_, object, owner, _) => {
            assert_eq!(owner.uid.as_deref(), Some("s"));
            format!("create {}", object.metadata().generate_name.as_deref().unwrap())
        }
        Action::DeleteFor { key, .. } => format!("delete {}", key.name),
        Action::Update(_, object, Some(Subresource::Status)) => {
            let status = object.to_value()["status"].clone();
            let number = |name: &str| status.get(name).and_then(Value::as_i64).unwrap_or(0);
            format!(
                "status {} labelled {} ready {} available {} of {}",
                number("replicas"),
                number("fullyLabeledReplicas"),
                number("readyReplicas"),
                number("availableReplicas"),
                number("observedGeneration")
            )
        }
        Action::Patch(key, _) => format!("adopt {}", key.name),
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(set: ReplicaSet, pods: Vec<Pod>, expected: &[&str]) -> Option<Duration> {
    let controller = Replicas::<ReplicaSet>::default();
    let mut seen = Snapshot::new(controller.indexes());
    let key = Key::to(KindRef::of::<ReplicaSet>(), &set);
    seen.insert(key.kind, Arc::new(set));
    for pod in pods {
        seen.insert(KindRef::of::<Pod>(), Arc::new(pod));
    }
    let moment = Moment { now: Timestamp::from_second(10).unwrap(), waited: Duration::ZERO };
    let decision = controller.reconcile(&seen, &key, moment);
    assert_eq!(decision.actions.iter().map(render).collect::<Vec<_>>(), expected);
    decision.requeue_after
}

#[test]
fn missing_pods_are_made_and_counted() {
    check(set(json!({})), vec![], &["create s-, create s-"]);
    let one = || vec![pod("p", "s", json!({}))];
    check(set(json!({})), one(), &["create s-, status 1 labelled 1 ready 1 available 1 of 1"]);
    let pods =
        vec![pod("p", "s", json!({})), pod("q", "s", json!({ "metadata": { "labels": { "x": "z" } } }))];
    let counted = json!({ "status": {
        "replicas": 2, "fullyLabeledReplicas": 1, "readyReplicas": 2, "availableReplicas": 2,
    } });
    check(set(counted), pods, &[]);
    // One that is finished or going does not count.
    for change in [
        json!({ "status": { "phase": "Failed" } }),
        json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:00:00Z" } }),
    ] {
        check(set(json!({ "spec": { "replicas": 1 } })), vec![pod("p", "s", change)], &["create s-"]);
    }
}

#[test]
fn no_more_than_a_burst_is_made_at_once() {
    let creates = vec!["create s-"; BURST].join(", ");
    check(set(json!({ "spec": { "replicas": BURST + 7 } })), vec![], &[&creates]);
}

#[test]
fn pods_too_many_go_in_order() {
    let pods = || vec![pod("a", "s", json!({})), pod("b", "s", json!({ "spec": { "nodeName": "" } }))];
    let counted = |replicas: i32| {
        set(json!({ "spec": { "replicas": replicas }, "status": {
            "replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        } }))
    };
    check(counted(1), pods(), &["delete b"]);
    check(counted(0), pods(), &["delete a, delete b"]);
    let mut going = counted(0);
    going.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    check(going, pods(), &[]);
}

/// 4.7
#[test]
fn orphans_are_adopted_before_others_are_made() {
    let orphan = pod("o", "s", json!({ "metadata": { "ownerReferences": null } }));
    let require =
        "RequirePresent(Key { kind: KindRef(Kind(apps/v1, ReplicaSet)), namespace: \"ns\", name: \"s\" }, s)";
    check(
        set(json!({})),
        vec![orphan],
        &[require, "adopt o", "create s-, status 1 labelled 1 ready 1 available 1 of 1"],
    );
}

#[test]
fn availability_is_waited_for() {
    let slow =
        set(json!({ "metadata": { "generation": 2 }, "spec": { "replicas": 1, "minReadySeconds": 30 } }));
    let wait = check(slow, vec![pod("p", "s", json!({}))], &["status 1 labelled 1 ready 1 available 0 of 2"]);
    assert_eq!(wait, Some(Duration::from_secs(20)));
}

#[test]
fn what_hinders_is_told_and_over_when_all_are_there() {
    let controller = Replicas::<ReplicaSet>::default();
    let error = Error::bad_request("no");
    let told_of = |set: ReplicaSet, pods: &[Pod], error: &Error| {
        let mut seen = Snapshot::new(controller.indexes());
        let key = Key::to(KindRef::of::<ReplicaSet>(), &set);
        seen.insert(key.kind, Arc::new(set));
        for pod in pods {
            seen.insert(KindRef::of::<Pod>(), Arc::new(pod.clone()));
        }
        let mut told = controller.failed(&seen, &key, error, Timestamp::UNIX_EPOCH);
        match (told.pop(), told.is_empty()) {
            (Some(Action::Update(_, object, Some(Subresource::Status))), true) => {
                Some(object.to_value()["status"].clone())
            }
            (None, true) => None,
            other => panic!("{other:?}"),
        }
    };
    let tell = |set: ReplicaSet| told_of(set, &[], &error);
    let status = tell(set(json!({}))).unwrap();
    let condition = &status["conditions"][0];
    assert_eq!(
        [&condition["type"], &condition["status"], &condition["reason"], &condition["message"]],
        ["ReplicaFailure", "True", "FailedCreate", "no"]
    );
    let failing = || set(json!({ "status": status }));
    assert_eq!(tell(failing()), None, "told once");
    assert_eq!(told_of(failing(), &[], &Error::bad_request("other")), None, "the first is what hinders");
    // By the pods that there are, whatever the status says.
    let pods = ["p", "q", "r"].map(|name| pod(name, "s", json!({})));
    let reason = |pods: &[Pod]| {
        let status = told_of(set(json!({})), pods, &error)?;
        Some(status["conditions"][0]["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(reason(&pods[..1]).as_deref(), Some("FailedCreate"));
    assert_eq!(reason(&pods[..2]), None);
    assert_eq!(reason(&pods).as_deref(), Some("FailedDelete"));
    // A namespace that goes takes the set along.
    let going =
        Error::forbidden(KindRef::of::<Pod>().0, "p", "it goes").with_cause("NamespaceTerminating", "", "");
    assert_eq!(told_of(set(json!({})), &[], &going), None);
    // Still one is missing; then none is.
    let mut failing = failing();
    check(failing.clone(), vec![], &["create s-, create s-"]);
    failing.spec.as_mut().unwrap().replicas = Some(0);
    check(failing, vec![], &["status 0 labelled 0 ready 0 available 0 of 1"]);
}
