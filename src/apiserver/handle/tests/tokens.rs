use super::*;

async fn token(world: &World, user: User, spec: Value) -> Result<Value, Error> {
    let request =
        world.request(Verb::Create, "serviceaccounts/token", Some("default"), json!({"spec": spec}));
    world.send(Request { user, ..request }).await
}

/// A pod of node-1, with its uid.
async fn pod(world: &World, name: &str) -> String {
    let spec = json!({"containers": [{"name": "c", "image": "i:v1"}], "nodeName": "node-1"});
    let pod = world.create("pods", json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn review(world: &World, spec: Value) -> Value {
    world.create("tokenreviews", json!({"spec": spec})).await.unwrap()["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_made_for_what_is_asked() {
    // BEHAVIOURS 8.6.
    let world = World::new().await;
    let made = token(&world, User::admin(), json!({})).await.unwrap();
    assert_eq!(
        made["metadata"],
        json!({"name": "default", "namespace": "n", "creationTimestamp": "2025-01-01T00:00:00Z"})
    );
    assert_eq!(
        made["spec"],
        json!({"audiences": ["https://kubernetes.default.svc.cluster.local"], "expirationSeconds": 3600})
    );
    assert_eq!(made["status"]["expirationTimestamp"], "2025-01-01T01:00:00Z");
    let status = review(&world, json!({"token": made["status"]["token"]})).await;
    assert_eq!(status["user"]["username"], "system:serviceaccount:n:default");
    world.clock.sleep(Duration::from_secs(3600)).await;
    let status = review(&world, json!({"token": made["status"]["token"]})).await;
    assert_eq!(status, json!({"error": "[invalid bearer token, service account token has expired]"}));

    let uid = pod(&world, "a").await;
    let bound = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    let made = token(&world, User::admin(), bound("Pod", "a", "")).await.unwrap();
    let status = review(&world, json!({"token": made["status"]["token"]})).await;
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([uid]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["node-1"]));
    for (spec, code, message) in [
        (bound("Pod", "b", ""), 404, r#"pods "b" not found"#),
        (bound("Secret", "b", ""), 404, r#"secrets "b" not found"#),
        (bound("Node", "b", ""), 404, r#"nodes "b" not found"#),
        (
            bound("Pod", "a", "other"),
            409,
            r#"Operation cannot be fulfilled on Pod "a": the UID in the bound object reference (other) does not match the UID in record. The object might have been deleted and then recreated"#,
        ),
        (
            bound("ConfigMap", "a", ""),
            400,
            "cannot bind token to object of type v1, Kind=ConfigMap; Pod, Secret and Node of v1 can be bound to",
        ),
        (
            json!({"expirationSeconds": 60}),
            422,
            r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"#,
        ),
    ] {
        refused(token(&world, User::admin(), spec).await, code, message);
    }
    world.create("serviceaccounts", map("other")).await.unwrap();
    let request = world.request(
        Verb::Create,
        "serviceaccounts/token",
        Some("other"),
        json!({"spec": bound("Pod", "a", "")}),
    );
    let message =
        r#"cannot bind token for serviceaccount "other" to pod running with different serviceaccount name."#;
    refused(world.send(request).await, 400, message);
    let request = world.request(
        Verb::Create,
        "serviceaccounts/token",
        Some("other"),
        json!({"metadata": {"name": "default"}, "spec": {}}),
    );
    let message = r#"TokenRequest.authentication.k8s.io "other" is invalid: metadata.name: Invalid value: "default": must match the service account name if specified"#;
    refused(world.send(request).await, 422, message);
}

#[tokio::test(start_paused = true)]
async fn a_node_makes_tokens_for_its_pods_only() {
    // BEHAVIOURS 18.3.
    let world = World::new().await;
    let uid = pod(&world, "a").await;
    let bound =
        |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": uid}});
    assert!(token(&world, User::node("node-1"), bound(&uid)).await.is_ok());
    let forbidden = |why: &str| format!(r#"serviceaccounts "default" is forbidden: {why}"#);
    for (node, spec, why) in [
        ("node-1", json!({}), "node requested token not bound to a pod"),
        ("node-1", bound(""), "node requested token with a pod binding without a uid"),
        ("node-2", bound(&uid), "node requested token bound to a pod scheduled on a different node"),
    ] {
        refused(token(&world, User::node(node), spec).await, 403, &forbidden(why));
    }
}

#[tokio::test(start_paused = true)]
async fn reviews_answer_without_being_stored() {
    // BEHAVIOURS 18.2.
    let world = World::new().await;
    let before = world.revision();
    let mut request = world.request(Verb::Create, "selfsubjectreviews", None, json!({}));
    request.user.uid = "u".into();
    request.user.extra = [("k".to_owned(), vec!["v".to_owned()])].into();
    let answer = world.send(request).await.unwrap();
    assert_eq!(
        answer["status"]["userInfo"],
        json!({
            "username": "kubernetes-admin", "uid": "u", "groups": ["system:masters", "system:authenticated"],
            "extra": {"k": ["v"]},
        })
    );
    let request = Request {
        user: User::anonymous(),
        ..world.request(Verb::Create, "selfsubjectreviews", None, json!({}))
    };
    assert_eq!(world.send(request).await.unwrap_err().code(), 403);
    assert_eq!(review(&world, json!({"token": "x"})).await, json!({"error": "invalid bearer token"}));
    let nothing = world.create("tokenreviews", json!({"spec": {}})).await;
    refused(nothing, 400, "token is required for TokenReview in authentication");
    assert_eq!(world.revision(), before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_access_to_the_api_unless_it_declines() {
    // BEHAVIOURS 10.15.
    let world = World::new().await;
    let spec = |more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i:v1"}]});
        json_patch::merge(&mut spec, &more);
        spec
    };
    let created =
        world.create("pods", json!({"metadata": {"name": "a"}, "spec": spec(json!({}))})).await.unwrap();
    let volume = created["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(created["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
    let declines = spec(json!({"automountServiceAccountToken": false}));
    let created = world.create("pods", json!({"metadata": {"name": "b"}, "spec": declines})).await.unwrap();
    assert_eq!(created["spec"].get("volumes"), None);
    let quiet = json!({"metadata": {"name": "quiet"}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "s"}]});
    world.create("serviceaccounts", quiet).await.unwrap();
    let quiet = spec(json!({"serviceAccountName": "quiet"}));
    let created = world.create("pods", json!({"metadata": {"name": "c"}, "spec": quiet})).await.unwrap();
    assert_eq!(created["spec"].get("volumes"), None);
    assert_eq!(created["spec"]["imagePullSecrets"], json!([{"name": "s"}]), "BEHAVIOURS 10.16");
}
