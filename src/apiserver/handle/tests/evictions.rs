//! `pods/eviction` against a store (BEHAVIOURS 8.5).

use super::*;

/// A world with the pod `p`, running and ready, and a budget that allows so many disruptions.
async fn world(allowed: i32) -> World {
    let world = World::new().await;
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "a"}}, "spec": {
        "nodeName": "node-1", "containers": [{"name": "c", "image": "i"}],
    }});
    let mut pod = world.create("pods", pod).await.unwrap();
    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    world.update("pods/status", pod).await.unwrap();
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let mut budget = world.create("poddisruptionbudgets", budget).await.unwrap();
    budget["status"] = json!({
        "observedGeneration": 1, "currentHealthy": 1 + allowed, "desiredHealthy": 1, "disruptionsAllowed": allowed,
        "expectedPods": 2,
    });
    world.update("poddisruptionbudgets/status", budget).await.unwrap();
    world
}

async fn evict(world: &World, options: Value) -> Result<Value, Error> {
    let mut body = json!({"metadata": {"name": "p"}});
    if !options.is_null() {
        body["deleteOptions"] = options;
    }
    world.send(world.request(Verb::Create, "pods/eviction", Some("p"), body)).await
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_with_its_reason_and_the_budget_pays() {
    let world = world(1).await;
    let answer = evict(&world, Value::Null).await.unwrap();
    assert_eq!((&answer["status"], &answer["code"]), (&json!("Success"), &json!(201)));
    let pod = world.get("pods", "p").await.unwrap();
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2025-01-01T00:00:30Z", "with its grace");
    let told = &pod["status"]["conditions"][1];
    assert_eq!([&told["type"], &told["reason"]], ["DisruptionTarget", "EvictionByEvictionAPI"]);
    let status = world.get("poddisruptionbudgets", "b").await.unwrap()["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["disruptedPods"], json!({"p": "2025-01-01T00:00:00Z"}));
    // Again, as clients do: it is on its way and costs nothing more.
    evict(&world, Value::Null).await.unwrap();
    assert_eq!(world.get("poddisruptionbudgets", "b").await.unwrap()["status"], status);
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_when_the_budget_is_spent() {
    let world = world(0).await;
    let before = world.revision();
    refused(
        evict(&world, Value::Null).await,
        429,
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    assert_eq!(world.revision(), before);
    // A deletion is not an eviction.
    world.delete("pods", "p", Value::Null).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_eviction_asks_for_is_checked() {
    let world = world(1).await;
    let before = world.revision();
    let other = json!({"metadata": {"name": "q"}});
    refused(
        world.send(world.request(Verb::Create, "pods/eviction", Some("p"), other)).await,
        400,
        "name in URL does not match name in Eviction object",
    );
    let missing = json!({"metadata": {"name": "q"}});
    refused(
        world.send(world.request(Verb::Create, "pods/eviction", Some("q"), missing)).await,
        404,
        r#"pods "q" not found"#,
    );
    let wrong = json!({"preconditions": {"uid": "x"}});
    assert_eq!(evict(&world, wrong).await.unwrap_err().code(), 409);
    let wrong = json!({"preconditions": {"resourceVersion": "1"}});
    assert_eq!(evict(&world, wrong).await.unwrap_err().code(), 409);
    evict(&world, json!({"dryRun": ["All"]})).await.unwrap();
    assert_eq!(world.revision(), before, "nothing of it is stored");
    let version = world.get("pods", "p").await.unwrap()["metadata"]["resourceVersion"].clone();
    let exact = json!({"preconditions": {"resourceVersion": version}, "gracePeriodSeconds": 5});
    evict(&world, exact).await.unwrap();
    let pod = world.get("pods", "p").await.unwrap();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 5);
}

#[tokio::test(start_paused = true)]
async fn of_many_evictions_at_once_no_more_succeed_than_are_allowed() {
    let world = world(3).await;
    for i in 0..8 {
        let pod = json!({"metadata": {"name": format!("p{i}"), "labels": {"app": "a"}}, "spec": {
            "nodeName": "node-1", "containers": [{"name": "c", "image": "i"}],
        }});
        let mut pod = world.create("pods", pod).await.unwrap();
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        world.update("pods/status", pod).await.unwrap();
    }
    let all = (0..8).map(|i| {
        let name = format!("p{i}");
        let body = json!({"metadata": {"name": name}});
        world.send(world.request(Verb::Create, "pods/eviction", Some(&name), body))
    });
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|error| error.code() == 429));
    let status = world.get("poddisruptionbudgets", "b").await.unwrap()["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["disruptedPods"].as_object().unwrap().len(), 3);
}
