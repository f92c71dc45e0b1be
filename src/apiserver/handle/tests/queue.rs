use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;

async fn world(annotations: Value) -> World {
    let world = World::new().await;
    let job = json!({"metadata": {"name": "j", "annotations": annotations}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    world.create("jobs", job).await.unwrap();
    world
}

async fn ask(world: &World, ask: Value) -> Result<Value, Error> {
    world.send(world.request(Verb::Create, "jobs/queue", Some("j"), ask)).await
}

async fn claim(world: &World, worker: &str) -> Value {
    ask(world, json!({"claim": {"worker": worker, "leaseSeconds": 10}})).await.unwrap()
}

async fn counts(world: &World) -> [Value; 3] {
    let request = world.request(Verb::Get, "jobs/queue", Some("j"), Value::Null);
    let shown = world.send(request).await.unwrap();
    ["waiting", "claimed", "failed"].map(|name| shown[name].clone())
}

#[tokio::test(start_paused = true)]
async fn many_who_claim_at_once_get_different_items() {
    let world = world(json!({})).await;
    let items: Vec<String> = (0..30).map(|i| format!("item {i}")).collect();
    ask(&world, json!({"add": {"items": items}})).await.unwrap();
    let workers: Vec<String> = (0..50).map(|i| format!("w{i}")).collect();
    let claims = join_all(workers.iter().map(|worker| claim(&world, worker))).await;
    let got: BTreeSet<&str> = claims.iter().filter_map(|claim| claim["id"].as_str()).collect();
    assert_eq!(got.len(), 30, "each item once");
    assert_eq!(claims.iter().filter(|claim| claim["state"] == "waiting").count(), 20);
    assert_eq!(counts(&world).await, [json!(0), json!(30), json!(0)]);
    // In the order in which they were added.
    let first = claims.iter().min_by_key(|claim| claim["id"].as_str().unwrap_or("z").to_owned()).unwrap();
    assert_eq!(first["base64"], "aXRlbSAw");
    let completions = claims
        .iter()
        .filter(|claim| claim["state"] == "item")
        .map(|claim| ask(&world, json!({"complete": {"id": claim["id"], "token": claim["token"]}})));
    for completed in join_all(completions).await {
        completed.unwrap();
    }
    assert_eq!(claim(&world, "w").await["state"], "done");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_expires_gives_the_item_to_another_and_fences_the_first() {
    let world = world(json!({"coracle.dev/queue-attempts": "2"})).await;
    ask(&world, json!({"add": {"items": ["x"]}})).await.unwrap();
    let first = claim(&world, "first").await;
    let waiting = claim(&world, "second").await;
    assert_eq!((&waiting["state"], &waiting["until"]), (&json!("waiting"), &json!("2025-01-01T00:00:10.7Z")));
    world.clock.sleep(Duration::from_secs(10)).await;
    let second = claim(&world, "second").await;
    assert_eq!((&second["id"], &second["attempt"]), (&first["id"], &json!(2)));
    for what in ["complete", "fail", "extend"] {
        let mut held = json!({"id": first["id"], "token": first["token"]});
        if what == "extend" {
            held["leaseSeconds"] = json!(10);
        }
        let error = ask(&world, json!({what: held})).await.unwrap_err();
        assert_eq!(error.code(), 409, "{what}: {error}");
    }
    world.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&world).await, [json!(1), json!(0), json!(0)]);
    // Handed out often enough: it is given up.
    assert_eq!(claim(&world, "third").await["state"], "done");
    assert_eq!(counts(&world).await, [json!(0), json!(0), json!(1)]);
    let error = ask(&world, json!({"complete": {"id": second["id"], "token": second["token"]}})).await;
    assert_eq!(error.unwrap_err().code(), 409);
}

#[tokio::test(start_paused = true)]
async fn an_empty_queue_is_not_done_while_more_may_come() {
    let closed = world(json!({})).await;
    assert_eq!(claim(&closed, "w").await["state"], "done");
    let open = world(json!({"coracle.dev/queue-open": "true"})).await;
    assert_eq!(claim(&open, "w").await["state"], "waiting");
    let filling = world(json!({"coracle.dev/queue-from": "configmap/m"})).await;
    ask(&filling, json!({"add": {"items": ["x"]}})).await.unwrap();
    assert_eq!(claim(&filling, "w").await["state"], "waiting", "nothing is handed out before all is there");
    let filled = json!({"coracle.dev/queue-from": "configmap/m", "coracle.dev/queue-filled": "0"});
    assert_eq!(claim(&world(filled).await, "w").await["state"], "done");
}
