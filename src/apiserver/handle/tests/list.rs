use super::*;

async fn with_maps(names: &[&str]) -> World {
    let world = World::new().await;
    for name in names {
        world.create("configmaps", json!({"metadata": {"name": name, "labels": {"l": name}}})).await.unwrap();
    }
    world
}

async fn list(world: &World, options: Options) -> Result<Value, Error> {
    let mut request = world.request(Verb::List, "configmaps", None, Value::Null);
    request.options = options;
    world.send(request).await
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect()
}

fn limited(limit: u64, token: Option<&Value>) -> Options {
    let continue_token = token.map(|token| token.as_str().unwrap().to_owned());
    Options { limit: Some(limit), continue_token, ..Options::default() }
}

#[tokio::test(start_paused = true)]
async fn pages_show_one_state() {
    let world = with_maps(&["a", "b", "c", "d", "e"]).await;
    let first = list(&world, limited(2, None)).await.unwrap();
    assert_eq!((names(&first), &first["remaining"]), (vec!["a", "b"], &json!(3)));
    world.delete("configmaps", "c", Value::Null).await.unwrap();
    world.create("configmaps", map("bb")).await.unwrap();
    let second = list(&world, limited(2, Some(&first["continue"]))).await.unwrap();
    assert_eq!((names(&second), &second["remaining"]), (vec!["c", "d"], &json!(1)));
    assert_eq!(second["revision"], first["revision"]);
    let last = list(&world, limited(2, Some(&second["continue"]))).await.unwrap();
    assert_eq!(
        (names(&last), &last["continue"], &last["remaining"]),
        (vec!["e"], &Value::Null, &Value::Null)
    );
}

#[tokio::test(start_paused = true)]
async fn filters_come_before_limits() {
    let world = with_maps(&["a", "b", "c", "d"]).await;
    let selected = |limit| Options { label_selector: Some("l in (b,d)".into()), ..limited(limit, None) };
    let page = list(&world, selected(1)).await.unwrap();
    assert_eq!((names(&page), &page["remaining"]), (vec!["b"], &Value::Null));
    assert!(page["continue"].is_string());
    let page = list(&world, selected(2)).await.unwrap();
    assert_eq!((names(&page), &page["continue"]), (vec!["b", "d"], &Value::Null));
    let by_name = Options { field_selector: Some("metadata.name!=b".into()), ..Options::default() };
    assert_eq!(names(&list(&world, by_name).await.unwrap()), ["a", "c", "d"]);
    for (label, field, message) in [
        (Some("a b"), None, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (None, Some("spec.x=1"), "field label not supported: spec.x"),
        (None, Some("x"), "invalid selector: 'x'; can't understand 'x'"),
    ] {
        let options = Options {
            label_selector: label.map(str::to_owned),
            field_selector: field.map(str::to_owned),
            ..Options::default()
        };
        refused(list(&world, options).await, 400, message);
    }
}

#[tokio::test(start_paused = true)]
async fn past_states_can_be_read_and_future_ones_are_waited_for() {
    let world = with_maps(&["a"]).await;
    let revision = world.revision();
    world.create("configmaps", map("b")).await.unwrap();
    let at = |version: u64, how: Option<&str>| Options {
        resource_version: Some(version.to_string()),
        resource_version_match: how.map(str::to_owned),
        ..Options::default()
    };
    assert_eq!(names(&list(&world, at(revision, Some("Exact"))).await.unwrap()), ["a"]);
    assert_eq!(names(&list(&world, at(revision, Some("NotOlderThan"))).await.unwrap()), ["a", "b"]);
    assert_eq!(names(&list(&world, at(revision, None)).await.unwrap()), ["a", "b"]);
    assert_eq!(names(&list(&world, at(0, None)).await.unwrap()), ["a", "b"]);
    let limit = Options { limit: Some(5), ..at(revision, None) };
    assert_eq!(names(&list(&world, limit).await.unwrap()), ["a"]);
    let before = world.clock.monotonic();
    let current = world.revision();
    let error = list(&world, at(999, None)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("Too large resource version: 999, current: {current}"));
    assert_eq!((error.code(), error.reason()), (504, "Timeout"));
    assert_eq!((world.clock.monotonic() - before).as_secs(), 3);
    let mut request = world.request(Verb::Get, "configmaps", Some("a"), Value::Null);
    request.options.resource_version = Some((current + 1).to_string());
    let (read, written) = tokio::join!(world.send(request), world.create("configmaps", map("c")));
    assert!(read.is_ok() && written.is_ok());
}

#[tokio::test(start_paused = true)]
async fn senseless_options_are_422() {
    let world = with_maps(&[]).await;
    let text = |value: &str| Some(value.to_owned());
    for (options, path) in [
        (Options { resource_version_match: text("Exact"), ..Options::default() }, "resourceVersionMatch"),
        (
            Options {
                resource_version_match: text("Exact"),
                resource_version: text("0"),
                ..Options::default()
            },
            "resourceVersionMatch",
        ),
        (
            Options { resource_version_match: text("x"), resource_version: text("1"), ..Options::default() },
            "resourceVersionMatch",
        ),
        (
            Options {
                resource_version_match: text("Exact"),
                resource_version: text("1"),
                continue_token: text("x"),
                ..Options::default()
            },
            "resourceVersionMatch",
        ),
        (Options { send_initial_events: Some(true), ..Options::default() }, "sendInitialEvents"),
    ] {
        let error = list(&world, options).await.unwrap_err();
        assert_eq!(error.code(), 422);
        let cause = &error.0.details.unwrap().causes.unwrap()[0];
        assert_eq!(cause.field.as_deref(), Some(path));
    }
    let garbage = Options { continue_token: text("x"), ..Options::default() };
    assert_eq!(list(&world, garbage).await.unwrap_err().code(), 400);
    let both = Options { resource_version: text("x"), ..Options::default() };
    assert_eq!(list(&world, both).await.unwrap_err().code(), 400);
}
