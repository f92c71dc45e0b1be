use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}),
    )
    .unwrap()
}

fn container(name: &str, resources: Value) -> Value {
    json!({"name": name, "resources": resources})
}

#[test]
fn a_container_has_its_own_limits_or_else_its_pods_or_the_nodes() {
    let capacity = BTreeMap::from([("memory".to_owned(), Quantity("1Gi".to_owned()))]);
    let own = json!({"limits": {"cpu": "1500m", "memory": "64Mi"}});
    for (own, resources, memory, cpu) in [
        (json!({}), json!({}), 1 << 30, None),
        (own.clone(), json!({}), 64 << 20, Some(1500)),
        (own.clone(), json!({"limits": {"cpu": "1"}}), 64 << 20, Some(1000)),
        (own, json!({"limits": {"memory": "1Mi"}}), 1 << 20, Some(1500)),
    ] {
        let pod = pod(json!({"containers": [container("a", resources)], "resources": own}));
        let limits = of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], &capacity);
        assert_eq!((limits.memory, limits.cpu), (Some(memory), cpu), "{pod:?}");
    }
}

#[test]
fn containers_draw_on_their_pods_budget_together() {
    let clock = Clock::real();
    assert!(of_pod(&pod(json!({"containers": []})), clock).is_none());
    assert!(
        of_pod(&pod(json!({"containers": [], "resources": {"requests": {"cpu": "1"}}})), clock).is_none()
    );
    let own = json!({"limits": {"memory": "100"}});
    let whole = of_pod(&pod(json!({"containers": [], "resources": own})), clock);
    let [one, other] = [(); 2].map(|()| Budget::new(Limits::default(), clock, whole.clone()));
    let _held = one.charge(60).unwrap();
    assert!(other.charge(41).is_err());
    assert!(other.charge(40).is_ok());
}

#[test]
fn what_a_pod_asks_for_is_shared_by_those_that_ask_for_nothing() {
    let requests = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let spec = json!({
        "initContainers": [
            container("setup", json!({})),
            {"name": "sidecar", "restartPolicy": "Always", "resources": requests("200m")},
        ],
        "containers": [container("a", json!({})), container("b", requests("300m")), container("c", json!({}))],
        "resources": requests("1"),
    });
    let shared = pod(spec.clone());
    let of = |pod: &Pod, name: &str| {
        let spec = pod.spec.as_ref().unwrap();
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        cpu_request(pod, all.find(|container| container.name == name).unwrap())
    };
    assert_eq!(["a", "b", "c", "sidecar"].map(|name| of(&shared, name)), [250, 300, 250, 200].map(Some));
    let mut alone = spec;
    alone["resources"] = json!({});
    assert_eq!(of(&pod(alone), "a"), None);
}
