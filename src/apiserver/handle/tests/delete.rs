use super::*;

/// BEHAVIOURS 4.1.
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

/// BEHAVIOURS 4.1: the object, and 202 to those who speak as old clients do.
#[tokio::test(start_paused = true)]
async fn what_waits_answers_with_the_object() {
    let world = World::new().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["a.b/c"]}});
    world.create("configmaps", body).await.unwrap();
    let held = world.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(held["metadata"]["deletionTimestamp"], "2025-01-01T00:00:00Z");
    let cascade = json!({"orphanDependents": false});
    let again = world.delete("configmaps", "a", cascade.clone()).await.unwrap();
    assert_eq!(again, json!({"accepted": held}));
    world.create("configmaps", map("b")).await.unwrap();
    assert_eq!(world.delete("configmaps", "b", cascade).await.unwrap()["status"], "Success");
}

/// BEHAVIOURS 4.3.
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

/// BEHAVIOURS 4.2, 4.4.
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

/// BEHAVIOURS 4.5.
#[tokio::test(start_paused = true)]
async fn some_kinds_keep_their_dependents_unless_told_otherwise() {
    let world = World::new().await;
    let template = |policy: &str| {
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "restartPolicy": policy, "containers": [{"name": "c", "image": "i"}],
        }})
    };
    let job = json!({"metadata": {"name": "a"}, "spec": {"template": template("Never")}});
    let controller = json!({"metadata": {"name": "a"}, "spec": {"template": template("Always")}});
    let warning = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
    for (plural, object, warnings) in
        [("jobs", job, json!([warning])), ("replicationcontrollers", controller, Value::Null)]
    {
        world.create(plural, object.clone()).await.unwrap();
        let gone = world.delete(plural, "a", json!({"propagationPolicy": "Background"})).await.unwrap();
        assert_eq!((&gone["status"], &gone["warnings"]), (&json!("Success"), &Value::Null), "{plural}");
        world.create(plural, object).await.unwrap();
        let held = world.delete(plural, "a", Value::Null).await.unwrap();
        assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]), "{plural}");
        assert_eq!(held["warnings"], warnings, "{plural}");
    }
    world.create("configmaps", map("a")).await.unwrap();
    assert_eq!(world.delete("configmaps", "a", Value::Null).await.unwrap()["status"], "Success");
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

/// BEHAVIOURS 4.8.
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
    // Options hold for each.
    let foreground = json!({"propagationPolicy": "Foreground"});
    world.send(world.request(Verb::DeleteCollection, "configmaps", None, foreground)).await.unwrap();
    let held = world.get("configmaps", "b").await.unwrap();
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}
