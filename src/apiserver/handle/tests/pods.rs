use super::*;

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:v1"}]}})
}

fn binding(name: &str) -> Value {
    json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "node-1"}})
}

async fn bind(world: &World, name: &str) -> Result<Value, Error> {
    world.send(world.request(Verb::Create, "pods/binding", Some(name), binding(name))).await
}

#[tokio::test(start_paused = true)]
async fn admission_completes_a_pod() {
    let world = World::new().await;
    let created = world.create("pods", pod("a")).await.unwrap();
    let spec = &created["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let keys: Vec<&str> =
        spec["tolerations"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(created["metadata"].get("generation"), None);
}

#[tokio::test(start_paused = true)]
async fn accounts_and_classes_must_exist() {
    let world = World::new().await;
    let mut with_account = pod("a");
    with_account["spec"]["serviceAccountName"] = json!("x");
    refused(
        world.create("pods", with_account).await,
        403,
        r#"pods "a" is forbidden: error looking up service account n/x: serviceaccount "x" not found"#,
    );
    let mut with_class = pod("a");
    with_class["spec"]["priorityClassName"] = json!("x");
    refused(
        world.create("pods", with_class.clone()).await,
        403,
        r#"pods "a" is forbidden: no PriorityClass with name x was found"#,
    );
    world.create("priorityclasses", json!({"metadata": {"name": "x"}, "value": 7})).await.unwrap();
    assert_eq!(world.create("pods", with_class).await.unwrap()["spec"]["priority"], 7);
    let mut system = pod("b");
    system["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(world.create("pods", system).await.unwrap()["spec"]["priority"], 2_000_001_000);
}

#[tokio::test(start_paused = true)]
async fn secrets_for_images_are_the_pods_or_else_its_accounts() {
    // BEHAVIOURS 10.16, as far as images come from elsewhere.
    let world = World::new().await;
    let account = json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "a"}, {"name": "b"}]});
    world.create("serviceaccounts", account).await.unwrap();
    for (name, own, expected) in [
        ("none", json!([]), json!([{"name": "a"}, {"name": "b"}])),
        ("own", json!([{"name": "c"}]), json!([{"name": "c"}])),
    ] {
        let mut pod = pod(name);
        pod["spec"]["serviceAccountName"] = json!("robot");
        pod["spec"]["imagePullSecrets"] = own;
        let created = world.create("pods", pod).await.unwrap();
        assert_eq!(created["spec"]["imagePullSecrets"], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let world = World::new().await;
    world.create("namespaces", map("new")).await.unwrap();
    let in_new = |verb, plural: &str, body| Request {
        namespace: Some("new".into()),
        ..world.request(verb, plural, None, body)
    };
    let account = async {
        world.clock.sleep(Duration::from_millis(300)).await;
        world.send(in_new(Verb::Create, "serviceaccounts", map("default"))).await
    };
    let (pod_made, account_made) = tokio::join!(world.send(in_new(Verb::Create, "pods", pod("a"))), account);
    assert!(account_made.is_ok(), "{account_made:?}");
    assert_eq!(pod_made.unwrap()["spec"]["serviceAccountName"], "default");
    world.create("namespaces", map("bare")).await.unwrap();
    let before = world.clock.monotonic();
    let request = Request { namespace: Some("bare".into()), ..in_new(Verb::Create, "pods", pod("a")) };
    assert_eq!(world.send(request).await.unwrap_err().code(), 403);
    assert_eq!((world.clock.monotonic() - before).as_secs(), 1);
}

/// 8.3
#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_once() {
    let world = World::new().await;
    world.create("pods", pod("a")).await.unwrap();
    let status = bind(&world, "a").await.unwrap();
    assert_eq!((&status["status"], &status["code"]), (&json!("Success"), &json!(201)));
    let bound = world.get("pods", "a").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "node-1");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "True"));
    refused(
        bind(&world, "a").await,
        409,
        r#"Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "node-1""#,
    );
    world.create("pods", pod("b")).await.unwrap();
    let mut other = binding("b");
    other["metadata"]["uid"] = json!("x");
    let request = world.request(Verb::Create, "bindings", None, other);
    assert_eq!(world.send(request).await.unwrap_err().code(), 409);
    world.create("bindings", binding("b")).await.unwrap();
    refused(bind(&world, "c").await, 404, r#"pods "c" not found"#);
}

#[tokio::test(start_paused = true)]
async fn deletion_waits_for_the_node_unless_there_is_none() {
    let world = World::new().await;
    world.create("pods", pod("a")).await.unwrap();
    assert_eq!(world.delete("pods", "a", Value::Null).await.unwrap()["status"], "Success");
    world.create("pods", pod("b")).await.unwrap();
    bind(&world, "b").await.unwrap();
    let going = world.delete("pods", "b", Value::Null).await.unwrap();
    assert_eq!(going["metadata"]["deletionTimestamp"], "2025-01-01T00:00:30Z");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = world.delete("pods", "b", json!({"gracePeriodSeconds": 60})).await.unwrap();
    assert_eq!(longer, going);
    let shorter = world.delete("pods", "b", json!({"gracePeriodSeconds": 5})).await.unwrap();
    assert_eq!(shorter["metadata"]["deletionTimestamp"], "2025-01-01T00:00:05Z");
    let mut request = world.request(Verb::Delete, "pods", Some("b"), json!({"gracePeriodSeconds": 0}));
    request.user = User::node("node-2");
    assert_eq!(world.send(request).await.unwrap_err().code(), 403);
    let mut request = world.request(Verb::Delete, "pods", Some("b"), json!({"gracePeriodSeconds": 0}));
    request.user = User::node("node-1");
    assert_eq!(world.send(request).await.unwrap()["status"], "Success");
}

/// 8.4
#[tokio::test(start_paused = true)]
async fn logs_come_from_the_node() {
    let world = World::new().await;
    world.create("pods", pod("a")).await.unwrap();
    let log = || world.request(Verb::Get, "pods/log", Some("a"), Value::Null);
    assert_eq!(world.send(log()).await.unwrap(), "text");
    bind(&world, "a").await.unwrap();
    refused(
        world.send(log()).await,
        400,
        r#"container "c" in pod "a" is waiting to start: ContainerCreating"#,
    );
}

#[tokio::test(start_paused = true)]
async fn services_get_addresses_and_ports_of_their_own() {
    let world = World::new().await;
    let service = |name: &str, spec: Value| {
        let mut body = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        for (key, value) in spec.as_object().unwrap() {
            body["spec"][key] = value.clone();
        }
        body
    };
    let make = async |name: &str, spec: Value| world.create("services", service(name, spec)).await;
    let first = make("a", json!({})).await.unwrap();
    assert_eq!(first["spec"]["clusterIPs"], json!(["127.96.0.2"]));
    let second = make("b", json!({"type": "NodePort"})).await.unwrap();
    assert_eq!(second["spec"]["clusterIP"], "127.96.0.3");
    assert_eq!(second["spec"]["ports"][0]["nodePort"], 30_000);
    let headless = make("c", json!({"clusterIP": "None"})).await.unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let chosen = make("d", json!({"clusterIP": "127.96.0.4"})).await.unwrap();
    assert_eq!(chosen["spec"]["clusterIPs"], json!(["127.96.0.4"]));
    refused(
        make("e", json!({"clusterIP": "127.96.0.2"})).await,
        422,
        r#"Service "e" is invalid: spec.clusterIPs: Invalid value: []string{"127.96.0.2"}: failed to allocate IP 127.96.0.2: provided IP is already allocated"#,
    );
    for ip in ["127.96.0.1", "10.0.0.1"] {
        assert_eq!(make("e", json!({"clusterIP": ip})).await.unwrap_err().code(), 422, "{ip}");
    }
    refused(
        make("e", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 10}]})).await,
        422,
        r#"Service "e" is invalid: spec.ports[0].nodePort: Invalid value: 10: provided port is not in the valid range. The range of valid ports is 30000-32767"#,
    );
    refused(
        make("e", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000}]})).await,
        422,
        r#"Service "e" is invalid: spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated"#,
    );
    // A manifest without the address keeps it; a deleted service frees it.
    let again = world.update("services", service("a", json!({}))).await.unwrap();
    assert_eq!(again["spec"]["clusterIP"], "127.96.0.2");
    world.delete("services", "a", Value::Null).await.unwrap();
    assert_eq!(make("f", json!({})).await.unwrap()["spec"]["clusterIP"], "127.96.0.2");
    // Node ports run out, and what is deleted is free at once.
    let many = |first: u32, count: u32| -> Value {
        let port = |port: u32| json!({"name": format!("p{port}"), "port": port, "nodePort": port});
        json!({"type": "NodePort", "ports": (first..first + count).map(port).collect::<Vec<_>>()})
    };
    make("all", many(30_001, 2_767)).await.unwrap();
    refused(
        make("one-more", json!({"type": "NodePort"})).await,
        500,
        "Internal error occurred: failed to allocate a nodePort: range is full",
    );
    world.delete("services", "all", Value::Null).await.unwrap();
    let made = make("one-more", json!({"type": "NodePort"})).await.unwrap();
    assert_eq!(made["spec"]["ports"][0]["nodePort"], 30_001);
    let both = tokio::join!(make("g", json!({})), make("h", json!({})));
    assert_ne!(both.0.unwrap()["spec"]["clusterIP"], both.1.unwrap()["spec"]["clusterIP"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_changes_meanwhile_is_looked_at_again() {
    let world = World::new().await;
    for (namespace, delete, code) in [("stays", false, 201), ("goes", true, 403)] {
        world.create("namespaces", map(namespace)).await.unwrap();
        let inside = |plural: &str, body| Request {
            namespace: Some(namespace.into()),
            ..world.request(Verb::Create, plural, None, body)
        };
        let meanwhile = async {
            world.clock.sleep(Duration::from_millis(100)).await;
            world.send(inside("serviceaccounts", map("default"))).await.unwrap();
            // The pod saw the namespace before this, and is committed after it.
            if delete {
                world.delete("namespaces", namespace, Value::Null).await.unwrap();
            } else {
                let labelled = json!({"metadata": {"labels": {"l": "1"}}});
                world.patch("namespaces", namespace, "application/merge-patch+json", labelled).await.unwrap();
            }
        };
        let (made, ()) = tokio::join!(world.send(inside("pods", pod("a"))), meanwhile);
        assert_eq!(made.map_or_else(|error| error.code(), |_| 201), code, "{namespace}");
    }
}

/// 8.6
#[tokio::test(start_paused = true)]
async fn ephemeral_containers_come_by_their_own_door() {
    let world = World::new().await;
    world.create("pods", pod("a")).await.unwrap();
    let door = "pods/ephemeralcontainers";
    let patch = json!({"metadata": {"labels": {"l": "v"}}, "spec": {"ephemeralContainers": [{"name": "d", "image": "i:v1"}]}});
    let strategic = "application/strategic-merge-patch+json";
    let patched = world.patch(door, "a", strategic, patch).await.unwrap();
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(patched["metadata"].get("labels"), None);
    let mut read = world.send(world.request(Verb::Get, door, Some("a"), Value::Null)).await.unwrap();
    assert_eq!(read["spec"], patched["spec"]);

    read["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(json!({"name": "e", "image": "i"}));
    let updated = world.send(world.request(Verb::Update, door, Some("a"), read.clone())).await.unwrap();
    assert_eq!(updated["spec"]["ephemeralContainers"][1]["name"], "e");
    // What was added meanwhile would be lost.
    refused(
        world.send(world.request(Verb::Update, door, Some("a"), read)).await,
        409,
        "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the latest version and try again",
    );
    let mut without = updated.clone();
    without["spec"]["ephemeralContainers"].as_array_mut().unwrap().remove(0);
    refused(
        world.send(world.request(Verb::Update, door, Some("a"), without)).await,
        422,
        "Pod \"a\" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n",
    );
    refused(
        world.send(world.request(Verb::Get, "nodes/ephemeralcontainers", Some("n1"), Value::Null)).await,
        404,
        "the server could not find the requested resource",
    );
}
