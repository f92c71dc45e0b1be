use super::*;

/// The events that are ready, as short lines.
async fn events(world: &World, stream: &mut WatchStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(batch)) = world.clock.timeout(Duration::from_secs(1), stream.next()).await {
        lines.extend(batch.iter().map(line));
    }
    lines
}

fn line(event: &WatchEvent) -> String {
    let shown = |record: &Record| {
        let value: Value = serde_json::from_slice(&record.json).unwrap();
        assert_eq!(value["metadata"]["resourceVersion"], record.revision.to_string());
        let label = value["metadata"]["labels"]["l"].as_str().unwrap_or("-").to_owned();
        format!("{} {label}", record.key.name)
    };
    match event {
        WatchEvent::Added(record) => format!("added {}", shown(record)),
        WatchEvent::Modified(record) => format!("modified {}", shown(record)),
        WatchEvent::Deleted(record) => format!("deleted {}", shown(record)),
        WatchEvent::Bookmark { initial_end, .. } => format!("bookmark {initial_end}"),
        WatchEvent::Error(status) => format!("error {}", status.message.clone().unwrap()),
    }
}

fn labelled(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_what_is_or_after_a_version() {
    let world = World::new().await;
    world.create("configmaps", labelled("a", "1")).await.unwrap();
    let from = world.revision();
    let mut all = world.watch("configmaps", Options::default()).await.unwrap();
    let version = Some(from.to_string());
    let after = Options { resource_version: version, ..Options::default() };
    let mut after = world.watch("configmaps", after).await.unwrap();
    world.update("configmaps", labelled("a", "2")).await.unwrap();
    world.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(events(&world, &mut all).await, ["added a 1", "modified a 2", "deleted a 2"]);
    assert_eq!(events(&world, &mut after).await, ["modified a 2", "deleted a 2"]);
}

#[tokio::test(start_paused = true)]
async fn objects_enter_and_leave_a_selection() {
    let world = World::new().await;
    let selected = Options { label_selector: Some("l=x".into()), ..Options::default() };
    let mut stream = world.watch("configmaps", selected).await.unwrap();
    world.create("configmaps", labelled("a", "y")).await.unwrap();
    world.update("configmaps", labelled("a", "x")).await.unwrap();
    world
        .patch("configmaps", "a", "application/merge-patch+json", json!({"data": {"k": "v"}}))
        .await
        .unwrap();
    world.update("configmaps", labelled("a", "y")).await.unwrap();
    world.update("configmaps", labelled("a", "x")).await.unwrap();
    world.delete("configmaps", "a", Value::Null).await.unwrap();
    assert_eq!(
        events(&world, &mut stream).await,
        ["added a x", "modified a x", "deleted a x", "added a x", "deleted a x"]
    );
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_bookmark() {
    let world = World::new().await;
    world.create("configmaps", labelled("a", "1")).await.unwrap();
    let options = Options {
        send_initial_events: Some(true),
        resource_version_match: Some("NotOlderThan".into()),
        allow_watch_bookmarks: true,
        ..Options::default()
    };
    let mut stream = world.watch("configmaps", options).await.unwrap();
    world.create("configmaps", labelled("b", "2")).await.unwrap();
    assert_eq!(events(&world, &mut stream).await, ["added a 1", "bookmark true", "added b 2"]);
    let without = Options { send_initial_events: Some(true), ..Options::default() };
    assert_eq!(world.watch("configmaps", without).await.err().unwrap().code(), 422);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_each_minute_and_before_the_end() {
    let world = World::new().await;
    let options = Options { allow_watch_bookmarks: true, timeout_seconds: Some(150), ..Options::default() };
    let mut stream = world.watch("configmaps", options).await.unwrap();
    world.create("serviceaccounts", map("other")).await.unwrap();
    let start = world.clock.monotonic();
    let mut times = Vec::new();
    while let Some(batch) = stream.next().await {
        let [WatchEvent::Bookmark { revision, initial_end: false }] = batch[..] else {
            panic!("only bookmarks: {batch:?}")
        };
        assert_eq!(revision, world.revision());
        times.push((world.clock.monotonic() - start).as_secs());
    }
    times.push((world.clock.monotonic() - start).as_secs());
    assert_eq!(times, [60, 120, 148, 150]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_lasts_half_an_hour_to_an_hour() {
    let world = World::new().await;
    let mut stream = world.watch("configmaps", Options::default()).await.unwrap();
    let start = world.clock.monotonic();
    assert!(stream.next().await.is_none());
    let minutes = (world.clock.monotonic() - start).as_secs() / 60;
    assert!((30..=60).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_the_future_is_refused() {
    let world = World::new().await;
    let options = Options { resource_version: Some("999".into()), ..Options::default() };
    assert_eq!(world.watch("configmaps", options).await.err().unwrap().code(), 504);
}
