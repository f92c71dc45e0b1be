use super::*;

/// `revision type a=value`, the time in seconds since the world began.
fn lines(history: &Value) -> Vec<String> {
    let line = |item: &Value| {
        let time: Timestamp = item["time"].as_str().unwrap().parse().unwrap();
        let seconds = time.as_second() - "2025-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let value = &item["object"]["data"]["a"];
        format!("{} {seconds}s {} {value}", item["revision"], item["type"].as_str().unwrap())
    };
    history["items"].as_array().unwrap().iter().map(line).collect()
}

async fn history(world: &World, plural: &str, name: &str) -> Result<Value, Error> {
    world.send(world.request(Verb::Get, plural, Some(name), Value::Null)).await
}

async fn patch(world: &World, patch: Value) {
    let mut request = world.request(Verb::Patch, "configmaps", Some("m"), Value::Null);
    request.body = Body::Value { media_type: "application/merge-patch+json", value: patch };
    world.send(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_version_is_told_also_of_what_is_gone() {
    let world = World::new().await;
    let start = world.revision();
    world.create("configmaps", json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await.unwrap();
    world.clock.sleep(Duration::from_secs(60)).await;
    patch(&world, json!({"metadata": {"labels": {"l": "x"}}})).await;
    patch(&world, json!({"data": {"a": "2"}})).await;
    world.clock.sleep(Duration::from_secs(60)).await;
    world.delete("configmaps", "m", Value::Null).await.unwrap();

    let answer = history(&world, "configmaps/history", "m").await.unwrap();
    let at = |nth: u64| start + nth;
    assert_eq!(
        lines(&answer),
        [
            format!("{} 0s Added \"1\"", at(1)),
            format!("{} 60s Modified \"1\"", at(2)),
            format!("{} 60s Modified \"2\"", at(3)),
            format!("{} 120s Deleted null", at(4)),
        ]
    );
    assert_eq!(answer["metadata"]["resourceVersion"], at(4).to_string());
    assert_eq!((&answer["since"], &answer["truncated"]), (&json!(0), &json!(false)));
    // Only content counts, and of what is deleted there is none.
    let hash = |nth: usize| answer["items"][nth]["hash"].as_str().map(str::to_owned);
    assert!(hash(0).unwrap().starts_with("sha256:"));
    assert_eq!((hash(0) == hash(1), hash(1) == hash(2), hash(3)), (true, false, None));
    assert_eq!(answer["items"][2]["object"]["metadata"]["resourceVersion"], at(3).to_string());

    world.create("configmaps", json!({"metadata": {"name": "m"}, "data": {"a": "3"}})).await.unwrap();
    let answer = history(&world, "configmaps/history", "m").await.unwrap();
    assert_eq!(lines(&answer).last().unwrap(), &format!("{} 120s Added \"3\"", at(5)));
}

/// In memory as on disk, where its key is gone.
#[tokio::test(start_paused = true)]
async fn a_deleted_secret_is_not_told_of() {
    let world = World::new().await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "aHVudGVyMg=="}});
    world.create("secrets", secret.clone()).await.unwrap();
    let before = history(&world, "secrets/history", "s").await.unwrap();
    assert_eq!(before["items"][0]["object"]["data"], secret["data"]);
    world.delete("secrets", "s", Value::Null).await.unwrap();
    let answer = history(&world, "secrets/history", "s").await.unwrap();
    assert!(!answer.to_string().contains("aHVudGVy"), "{answer}");
    let shown = |item: &Value| (item["type"].clone(), item["destroyed"].clone(), item["hash"].clone());
    let items: Vec<_> = answer["items"].as_array().unwrap().iter().map(shown).collect();
    let deleted = (json!("Deleted"), Value::Null, Value::Null);
    assert_eq!(items[1..], [deleted]);
    assert_eq!((&items[0].1, &items[0].2), (&json!(true), &Value::Null));
    world.create("secrets", secret.clone()).await.unwrap();
    let answer = history(&world, "secrets/history", "s").await.unwrap();
    assert_eq!(answer["items"][2]["object"]["data"], secret["data"]);
    assert_eq!(answer["items"][0]["object"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn only_what_has_a_history_has_one() {
    let world = World::new().await;
    refused(history(&world, "configmaps/history", "m").await, 404, r#"configmaps "m" not found"#);
    refused(history(&world, "secrets/history", "m").await, 404, r#"secrets "m" not found"#);
    let none = history(&world, "serviceaccounts/history", "default").await;
    refused(none, 404, "the server could not find the requested resource");
}

/// As powerful as reading the object, and a right of its own.
#[tokio::test(start_paused = true)]
async fn those_who_may_not_are_told_so() {
    let world = World::new().await;
    let mut request = world.request(Verb::Get, "secrets/history", Some("m"), Value::Null);
    request.user = User::node("a");
    refused(
        world.send(request).await,
        403,
        r#"secrets "m" is forbidden: User "system:node:a" cannot get resource "secrets/history" in API group "" in the namespace "n""#,
    );
}
