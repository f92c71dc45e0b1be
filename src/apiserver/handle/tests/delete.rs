use super::*;

#[tokio::test(start_paused = true)]
async fn what_goes_at_once_answers_with_a_status() {
    let world = World::new().await;
    let created = world.create("configmaps", map("a")).await.unwrap();
    let status = world.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(status["status"], "Success");
    assert_eq!(
        status["details"],
        json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]})
    );
    refused(world.delete("configmaps", "a", Value::Null).await, 404, r#"configmaps "a" not found"#);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_until_an_update_empties_them() {
    let world = World::new().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["a.b/c"]}});
    world.create("configmaps", body).await.unwrap();
    let mut held = world.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(held["metadata"]["deletionTimestamp"], "2025-01-01T00:00:00Z");
    let again = world.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(again, held);
    held["metadata"]["finalizers"] = json!(["a.b/c", "d.e/f"]);
    refused(
        world.update("configmaps", held.clone()).await,
        422,
        r#"ConfigMap "a" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"#,
    );
    held["metadata"]["finalizers"] = Value::Null;
    held["metadata"]["labels"] = json!({"l": "1"});
    let gone = world.update("configmaps", held).await.unwrap();
    assert_eq!(gone["metadata"]["labels"]["l"], "1");
    assert_eq!(gone["metadata"]["resourceVersion"], world.revision().to_string());
    assert_eq!(world.get("configmaps", "a").await.unwrap_err().code(), 404);
}

#[tokio::test(start_paused = true)]
async fn preconditions_and_policies_come_from_the_body() {
    let world = World::new().await;
    world.create("configmaps", map("a")).await.unwrap();
    let wrong = json!({"preconditions": {"uid": "x"}});
    assert_eq!(world.delete("configmaps", "a", wrong).await.unwrap_err().code(), 409);
    let wrong = json!({"preconditions": {"resourceVersion": "1"}});
    assert_eq!(world.delete("configmaps", "a", wrong).await.unwrap_err().code(), 409);
    refused(
        world.delete("configmaps", "a", json!({"propagationPolicy": "x"})).await,
        422,
        r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "x": supported values: "Foreground", "Background", "Orphan", "nil""#,
    );
    let held = world.delete("configmaps", "a", json!({"propagationPolicy": "Foreground"})).await.unwrap();
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test(start_paused = true)]
async fn some_namespaces_stay() {
    let world = World::new().await;
    world.create("namespaces", map("default")).await.unwrap();
    refused(
        world.delete("namespaces", "default", Value::Null).await,
        403,
        r#"namespaces "default" is forbidden: this namespace may not be deleted"#,
    );
}

#[tokio::test(start_paused = true)]
async fn collections_are_deleted_by_selector() {
    let world = World::new().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        world
            .create("configmaps", json!({"metadata": {"name": name, "labels": {"l": label}}}))
            .await
            .unwrap();
    }
    let mut request = world.request(Verb::DeleteCollection, "configmaps", None, Value::Null);
    request.options.label_selector = Some("l=x".into());
    let deleted = world.send(request).await.unwrap();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = world.send(world.request(Verb::List, "configmaps", None, Value::Null)).await.unwrap();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}
