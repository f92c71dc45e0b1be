//! Pods that Jobs with a selector of their own adopt and release (BEHAVIOURS 4.7).

use super::*;

/// A Job that chooses pods by label `app=a`.
fn choosy(change: Value) -> Job {
    let spec = json!({"manualSelector": true, "selector": {"matchLabels": {"app": "a"}}, "completions": 3});
    let mut job = job(spec, with(started(), json!({"active": 1})));
    job.metadata.resource_version = Some("1".into());
    let mut meta = serde_json::to_value(&job.metadata).unwrap();
    json_patch::merge(&mut meta, &change);
    job.metadata = serde_json::from_value(meta).unwrap();
    job
}

fn labelled(name: &str, phase: &str, app: &str, meta: Value) -> Pod {
    let pod = pod(name, phase, json!({"metadata": {"labels": {"app": app}, "resourceVersion": "7"}}));
    let mut value = serde_json::to_value(pod).unwrap();
    json_patch::merge(&mut value["metadata"], &meta);
    serde_json::from_value(value).unwrap()
}

fn ownerless() -> Value {
    json!({"ownerReferences": null, "finalizers": null})
}

fn ownerless_going() -> Value {
    json!({"ownerReferences": null, "finalizers": null, "deletionTimestamp": "1970-01-01T00:01:00Z"})
}

fn render(action: &Action) -> String {
    match action {
        Action::RequirePresent(key, uid) => format!("require {} {uid}", key.name),
        Action::Patch(key, patch) => {
            let meta = &patch["metadata"];
            assert_eq!(meta["resourceVersion"], "7", "only the version that was seen is changed");
            let owner = meta["ownerReferences"][0]["uid"].as_str().unwrap_or("nobody");
            format!("{} to {owner}, held by {}", key.name, meta["finalizers"])
        }
        other => format!("{other:?}"),
    }
}

fn claims(job: &Job, pods: &[Pod]) -> Vec<String> {
    let mut seen = Snapshot::new(Jobs.indexes());
    let key = Key::to(KindRef::of::<Job>(), job);
    seen.insert(key.kind, Arc::new(job.clone()));
    for pod in pods {
        seen.insert(KindRef::of::<Pod>(), Arc::new(pod.clone()));
    }
    let moment = Moment { now: Timestamp::from_second(NOW).unwrap(), waited: Duration::ZERO };
    Jobs.reconcile(&seen, &key, moment).actions.iter().map(render).collect()
}

#[test]
fn pods_are_adopted_when_the_api_still_has_the_job_and_released_with_their_finalizer() {
    let held = format!("[{TRACKING_FINALIZER:?}]");
    let pods = [
        labelled("finished", "Succeeded", "a", ownerless()),
        labelled(
            "foreign",
            "Running",
            "a",
            json!({"ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true,
            }]}),
        ),
        labelled("going", "Running", "a", ownerless_going()),
        labelled("orphan", "Running", "a", ownerless()),
        labelled("other", "Running", "b", ownerless()),
        labelled("strayed", "Running", "b", json!({})),
        labelled("strayed-going", "Running", "b", going()["metadata"].clone()),
    ];
    let expected = [
        "strayed to nobody, held by null".to_owned(),
        "strayed-going to nobody, held by null".to_owned(),
        "require a u".to_owned(),
        format!("finished to u, held by {held}"),
        format!("orphan to u, held by {held}"),
    ];
    assert_eq!(claims(&choosy(json!({})), &pods), expected);
    // A Job that goes claims nothing, and one that has ended is done with its pods.
    let going = choosy(going()["metadata"].clone());
    assert!(claims(&going, &pods).iter().all(|line| !line.contains(" to ")), "{:?}", claims(&going, &pods));
    let mut ended = choosy(json!({}));
    ended.status =
        serde_json::from_value(json!({"conditions": [{"type": "Complete", "status": "True"}]})).unwrap();
    assert_eq!(claims(&ended, &pods), [""; 0]);
}

#[test]
fn a_generated_selector_matches_nothing_that_others_made() {
    let mut job = choosy(json!({}));
    job.spec.as_mut().unwrap().manual_selector = None;
    let pods = [labelled("orphan", "Running", "a", ownerless()), labelled("mine", "Running", "b", json!({}))];
    let lines = claims(&job, &pods);
    assert!(lines.iter().all(|line| !line.contains(" to ")), "{lines:?}");
}

#[test]
fn an_orphan_wakes_the_jobs_that_may_want_it() {
    let mut seen = Snapshot::new(Jobs.indexes());
    let kind = KindRef::of::<Pod>();
    seen.insert(KindRef::of::<Job>(), Arc::new(choosy(json!({}))));
    let woken = |pod: Pod| {
        let pod: Arc<dyn Object> = Arc::new(pod);
        let mut woken = Vec::new();
        let change = Change { kind, old: None, new: Some(&pod) };
        Jobs.wakes(&seen, &change, &mut |key| woken.push(key.name));
        woken
    };
    assert_eq!(woken(labelled("orphan", "Running", "a", ownerless())), ["a"]);
    assert_eq!(woken(labelled("other", "Running", "b", ownerless())), [""; 0]);
    assert_eq!(woken(labelled("going", "Running", "a", ownerless_going())), [""; 0]);
}
