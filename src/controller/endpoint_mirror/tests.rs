use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn seen(service: Value, endpoints: Value) -> Snapshot {
    let mut seen = Snapshot::new([&SLICES]);
    let mut all =
        json!({"metadata": {"name": "db", "namespace": "ns", "uid": "s"}, "spec": {"ports": [{"port": 80}]}});
    json_patch::merge(&mut all, &service);
    let namespace: k8s_openapi::api::core::v1::Namespace =
        serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap();
    seen.insert(KindRef::of::<k8s_openapi::api::core::v1::Namespace>(), Arc::new(namespace));
    seen.insert(KindRef::of::<Service>(), Arc::new(serde_json::from_value::<Service>(all).unwrap()));
    let mut all = json!({
        "metadata": {"name": "db", "namespace": "ns", "uid": "e", "labels": {"a": "b"},
            "annotations": {"note": "x", OWN[0]: "{}"}},
        "subsets": [
            {"addresses": [{"ip": "10.0.0.1", "hostname": "h"}, {"ip": "::1"}],
             "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 5432, "protocol": "TCP"}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "b", "port": 1}]},
        ],
    });
    json_patch::merge(&mut all, &endpoints);
    seen.insert(KindRef::of::<Endpoints>(), Arc::new(serde_json::from_value::<Endpoints>(all).unwrap()));
    seen
}

fn decide(seen: &Snapshot) -> Vec<Action> {
    let key = Key::new(KindRef::of::<Endpoints>(), "ns", "db");
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
    let actions = EndpointMirror.reconcile(seen, &key, moment).actions.into_iter();
    let each = |action| match action {
        Action::Together(all) => all,
        one => vec![one],
    };
    actions.flat_map(each).collect()
}

fn made(actions: Vec<Action>) -> Vec<EndpointSlice> {
    let slice = |action| match action {
        Action::Create(_, object) => *object.into_any().downcast::<EndpointSlice>().unwrap(),
        other => panic!("{other:?}"),
    };
    actions.into_iter().map(slice).collect()
}

/// 16.3
#[test]
fn hand_made_endpoints_are_mirrored() {
    let mut seen = seen(json!({}), json!({}));
    let slices = made(decide(&seen));
    let texts: Vec<String> = slices
        .iter()
        .map(|slice| {
            let port = slice.ports.as_ref().unwrap()[0].port.unwrap();
            let all = slice.endpoints.iter().map(|endpoint| {
                let ready = endpoint.conditions.as_ref().unwrap().ready == Some(true);
                format!("{}{}", endpoint.addresses[0], if ready { "" } else { "-" })
            });
            format!("{} {port}: {}", slice.address_type, all.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(texts, ["IPv4 5432: 10.0.0.1 10.0.0.2-", "IPv6 5432: ::1", "IPv4 1: 10.0.0.3"]);
    let meta = serde_json::to_value(&slices[0].metadata).unwrap();
    assert_eq!(meta["labels"], json!({"a": "b", SERVICE_NAME: "db", MANAGED_BY: MANAGER}));
    assert_eq!(meta["annotations"], json!({"note": "x"}));
    assert_eq!((&meta["generateName"], &meta["ownerReferences"][0]["uid"]), (&json!("db-"), &json!("e")));
    assert_eq!(slices[0].endpoints[0].hostname.as_deref(), Some("h"));
    // What is there stays.
    for (n, mut slice) in slices.into_iter().enumerate() {
        slice.metadata.name = Some(format!("db-{n}"));
        seen.insert(KindRef::of::<EndpointSlice>(), Arc::new(slice));
    }
    assert!(decide(&seen).is_empty());
    // It goes when somebody else says where the service is.
    let selecting = json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"selector": {"a": "b"}}});
    seen.insert(KindRef::of::<Service>(), Arc::new(serde_json::from_value::<Service>(selecting).unwrap()));
    let deleted = decide(&seen);
    assert_eq!(deleted.len(), 3);
    assert!(deleted.iter().all(|action| matches!(action, Action::Delete { .. })), "{deleted:?}");
}

#[test]
fn some_are_not_mirrored() {
    let selecting = json!({"spec": {"selector": {"a": "b"}}});
    let external = json!({"spec": {"type": "ExternalName"}});
    let skipped = json!({"metadata": {"labels": {SKIP: "true"}}});
    let lock = json!({"metadata": {"annotations": {LEADER: "{}"}}});
    for (service, endpoints) in
        [(selecting, json!({})), (external, json!({})), (json!({}), skipped), (json!({}), lock)]
    {
        assert!(decide(&seen(service, endpoints)).is_empty());
    }
    assert!(decide(&seen(json!({}), json!({"subsets": null}))).is_empty());
}
