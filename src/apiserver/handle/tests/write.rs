use super::*;

const MERGE: &str = "application/merge-patch+json";

#[tokio::test(start_paused = true)]
async fn the_server_sets_what_only_it_may_set() {
    let world = World::new().await;
    let body = json!({"metadata": {
        "name": "a", "uid": "mine", "generation": 9, "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z", "managedFields": [{}], "selfLink": "x",
    }});
    let created = world.create("configmaps", body).await.unwrap();
    let meta = created["metadata"].as_object().unwrap();
    assert_eq!(meta["creationTimestamp"], "2025-01-01T00:00:00Z");
    assert_eq!(meta["namespace"], "n");
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    let keys: Vec<&str> = meta.keys().map(String::as_str).collect();
    assert_eq!(keys, ["creationTimestamp", "name", "namespace", "resourceVersion", "uid"]);
    assert_eq!(world.get("configmaps", "a").await.unwrap(), created);
    refused(world.create("configmaps", map("a")).await, 409, r#"configmaps "a" already exists"#);
    refused(world.get("configmaps", "b").await, 404, r#"configmaps "b" not found"#);
}

#[tokio::test(start_paused = true)]
async fn names_come_from_the_body_or_are_generated() {
    let world = World::new().await;
    let base = "a".repeat(60);
    let created = world.create("configmaps", json!({"metadata": {"generateName": base}})).await.unwrap();
    let name = created["metadata"]["name"].as_str().unwrap();
    assert_eq!((name.len(), &name[..58]), (63, &base[..58]));
    refused(
        world.create("configmaps", json!({})).await,
        422,
        r#"ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#,
    );
    refused(
        world.create("configmaps", json!({"metadata": {"name": "a", "namespace": "other"}})).await,
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    let request = world.request(Verb::Update, "configmaps", Some("b"), map("a"));
    refused(
        world.send(request).await,
        400,
        "the name of the object (a) does not match the name on the URL (b)",
    );
    assert_eq!(world.create("configmaps", map("A")).await.unwrap_err().code(), 422);
}

#[tokio::test(start_paused = true)]
async fn namespaces_must_exist_and_stay() {
    let world = World::new().await;
    let mut request = world.request(Verb::Create, "configmaps", None, map("a"));
    request.namespace = Some("x".into());
    refused(world.send(request).await, 404, r#"namespaces "x" not found"#);
    let going = world.delete("namespaces", "n", Value::Null).await.unwrap();
    assert_eq!(going["status"]["phase"], "Terminating");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0);
    let error = world.create("configmaps", map("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"configmaps "a" is forbidden: unable to create new content in namespace n because it is being terminated"#
    );
    let cause = &error.0.details.unwrap().causes.unwrap()[0];
    assert_eq!(cause.reason.as_deref(), Some("NamespaceTerminating"));
    // `finalize` is the only way to let go of it.
    let mut body = going.clone();
    body["spec"] = json!({"finalizers": []});
    let kept = world.update("namespaces", body.clone()).await.unwrap();
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
    world.update("namespaces/finalize", body).await.unwrap();
    assert_eq!(world.get("namespaces", "n").await.unwrap_err().code(), 404);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let world = World::new().await;
    let created =
        world.create("configmaps", json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await.unwrap();
    let before = world.revision();
    assert_eq!(world.update("configmaps", created.clone()).await.unwrap(), created);
    let patched = world.patch("configmaps", "a", MERGE, json!({"data": {"x": "1"}})).await.unwrap();
    assert_eq!((patched, world.revision()), (created, before));
}

#[tokio::test(start_paused = true)]
async fn stale_writes_conflict_and_blind_ones_win() {
    let world = World::new().await;
    let first = world.create("configmaps", map("a")).await.unwrap();
    let mut second = first.clone();
    second["data"] = json!({"x": "1"});
    let second = world.update("configmaps", second).await.unwrap();
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    refused(
        world.update("configmaps", first.clone()).await,
        409,
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#,
    );
    let blind =
        world.update("configmaps", json!({"metadata": {"name": "a"}, "data": {"x": "2"}})).await.unwrap();
    assert_eq!(blind["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(blind["data"]["x"], "2");
    let other = json!({"metadata": {"name": "a", "uid": "other"}});
    assert_eq!(world.update("configmaps", other).await.unwrap_err().code(), 409);
    refused(world.update("configmaps", map("b")).await, 404, r#"configmaps "b" not found"#);
    let stale = first["metadata"]["resourceVersion"].clone();
    let patch = json!({"metadata": {"resourceVersion": stale}, "data": {"x": "3"}});
    assert_eq!(world.patch("configmaps", "a", MERGE, patch).await.unwrap_err().code(), 409);
}

#[tokio::test(start_paused = true)]
async fn some_kinds_are_created_by_put_and_need_a_version() {
    let world = World::new().await;
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "x"}});
    world.update("leases", lease.clone()).await.unwrap();
    refused(
        world.update("leases", lease).await,
        422,
        r#"Lease.coordination.k8s.io "a" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"#,
    );
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_stores_nothing() {
    let world = World::new().await;
    let before = world.revision();
    let dry = |mut request: Request| {
        request.options.dry_run = vec!["All".into()];
        request
    };
    let generated = json!({"metadata": {"generateName": "a-"}});
    let created = world.send(dry(world.request(Verb::Create, "configmaps", None, generated))).await.unwrap();
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["name"].is_string());
    assert_eq!(created["metadata"]["resourceVersion"], Value::Null);
    world
        .send(dry(world.request(Verb::Delete, "serviceaccounts", Some("default"), Value::Null)))
        .await
        .unwrap();
    assert_eq!(world.revision(), before);
    let mut request = world.request(Verb::Create, "configmaps", None, map("a"));
    request.options.dry_run = vec!["x".into()];
    refused(
        world.send(request).await,
        422,
        r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "x": supported values: "All""#,
    );
}

#[tokio::test(start_paused = true)]
async fn generation_counts_changes_of_the_spec_and_status_is_apart() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let mut service = world.create("services", service).await.unwrap();
    assert_eq!(service["spec"]["clusterIP"], "127.96.0.2");
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}});
    let main = world.update("services", service.clone()).await.unwrap();
    assert_eq!(main["status"], json!({"loadBalancer": {}}));
    service["spec"]["ports"][0]["port"] = json!(81);
    service["metadata"]["labels"] = json!({"l": "1"});
    let status = world.update("services/status", service).await.unwrap();
    assert_eq!(status["spec"]["ports"][0]["port"], 80);
    assert_eq!(status["metadata"]["labels"]["l"], "1");
    assert_eq!(status["status"]["loadBalancer"]["ingress"][0]["ip"], "1.2.3.4");
}

#[tokio::test(start_paused = true)]
async fn patches_of_every_type_work_and_fail() {
    let world = World::new().await;
    world
        .create("configmaps", json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}}))
        .await
        .unwrap();
    let patched = world.patch("configmaps", "a", MERGE, json!({"data": {"x": null}})).await.unwrap();
    assert_eq!(patched["data"], json!({"y": "2"}));
    let json_patch = json!([{"op": "add", "path": "/data/z", "value": "3"}]);
    let patched = world.patch("configmaps", "a", "application/json-patch+json", json_patch).await.unwrap();
    assert_eq!(patched["data"], json!({"y": "2", "z": "3"}));
    let strategic = json!({"metadata": {"finalizers": ["a.b/c"]}});
    let patched =
        world.patch("configmaps", "a", "application/strategic-merge-patch+json", strategic).await.unwrap();
    assert_eq!(patched["metadata"]["finalizers"], json!(["a.b/c"]));
    let renamed = world.patch("configmaps", "a", MERGE, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(renamed.unwrap_err().code(), 422);
    assert_eq!(world.patch("configmaps", "b", MERGE, json!({})).await.unwrap_err().code(), 404);
    assert_eq!(
        world.patch("configmaps", "a", "application/apply-patch+yaml", json!({})).await.unwrap_err().code(),
        415
    );
    let unknown = world.patch("configmaps", "a", MERGE, json!({"foo": 1})).await.unwrap();
    assert_eq!(unknown["warnings"], json!([r#"unknown field "foo""#]));
}

#[tokio::test(start_paused = true)]
async fn immutable_objects_refuse_changes() {
    let world = World::new().await;
    world.create("configmaps", json!({"metadata": {"name": "a"}, "immutable": true})).await.unwrap();
    let error = world.patch("configmaps", "a", MERGE, json!({"data": {"x": "1"}})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ConfigMap \"a\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
}

#[tokio::test(start_paused = true)]
async fn strangers_are_refused_before_anything_is_read() {
    let world = World::new().await;
    let mut request = world.request(Verb::Get, "configmaps", Some("a"), Value::Null);
    request.user = User::named("u", Vec::new());
    refused(
        world.send(request).await,
        403,
        r#"configmaps "a" is forbidden: User "u" cannot get resource "configmaps" in API group "" in the namespace "n""#,
    );
}

#[tokio::test(start_paused = true)]
async fn newer_events_are_stored_as_core_events() {
    let world = World::new().await;
    let request = Request {
        kind: &kind::event_v1::KIND,
        ..world.request(
            Verb::Create,
            "events",
            None,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"},
                "eventTime": "2025-01-01T00:00:00.000000Z", "reportingController": "c.d/e",
                "reportingInstance": "i", "action": "Act", "reason": "Why", "type": "Normal",
                "regarding": {"kind": "Pod", "namespace": "n", "name": "p"}, "note": "text",
            }),
        )
    };
    world.send(request).await.unwrap();
    let core = world.get("events", "a").await.unwrap();
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("text"), &json!("p")));
    let mut request = world.request(Verb::Patch, "events", Some("a"), Value::Null);
    request.kind = &kind::event_v1::KIND;
    let patch = json!({"metadata": {"labels": {"l": "1"}}}).to_string();
    request.body = Body::Bytes { media_type: Some(MERGE.into()), bytes: patch.into() };
    let patched = world.send(request).await.unwrap();
    assert_eq!((&patched["metadata"]["labels"]["l"], &patched["message"]), (&json!("1"), &json!("text")));
}
