//! What changes of ConfigMaps and Secrets do.

use super::*;

fn annotated(mut pod: Pod, key: &str, value: &str) -> Pod {
    pod.metadata.annotations.get_or_insert_default().insert(key.into(), value.into());
    pod
}

/// A container with `k` of the ConfigMap `env` in its environment, and `mounted` at `/m`.
fn configured(arg: &str, policy: &str) -> Pod {
    with(
        pod(arg, policy),
        json!({
            "container": {
                "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/m"}],
            },
            "volumes": [{"name": "v", "configMap": {"name": "mounted"}}],
        }),
    )
}

fn restarts(state: &State) -> i32 {
    let status = state.pod.as_ref().and_then(|pod| pod.status.as_ref());
    status.and_then(|status| status.container_statuses.as_ref()).map_or(0, |all| all[0].restart_count)
}

#[test]
fn a_change_of_configuration_restarts_a_pod_that_asks_for_it() {
    for (policy, source) in [("Never", "env"), ("Always", "env"), ("Never", "mounted")] {
        in_virtual_time(async {
            let mut harness = Harness::new();
            harness.config_map("env", "one");
            harness.config_map("mounted", "one");
            harness.run(annotated(configured("sleep", policy), "coracle.dev/on-config-change", "restart"));
            harness.until_written("Running running").await;
            for round in 1..=3 {
                harness.config_map(source, &format!("change {round}"));
                harness.until(|state| restarts(state) == round).await;
            }
            // Not all of it is new content.
            harness.config_map(source, "change 3");
            harness.until(|state| state.writes.last().unwrap() == "Running running").await;
            harness.node.shared.clock.sleep(Duration::from_secs(60)).await;
            assert_eq!(restarts(&harness.api.state.lock().unwrap()), 3);
            let killing = harness.events().into_iter().filter(|event| event.starts_with("Killing")).count();
            assert_eq!(killing, 3);
            assert!(harness.events().contains(&format!(
                "Killing: Container c uses configmap/{source}, which changed in revision 3, will be restarted"
            )));
            if source == "env" {
                let values: Vec<String> = harness
                    .runtime
                    .started
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|spec| spec.env.iter().find(|(name, _)| name == "K").unwrap().1.clone())
                    .collect();
                assert_eq!(values, ["one", "change 1", "change 2", "change 3"]);
            }
            harness.delete();
            harness.ended().await;
        });
    }
}

#[test]
fn without_being_asked_to_a_change_restarts_nothing() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.config_map("env", "one");
        harness.config_map("mounted", "one");
        harness.run(configured("sleep", "Always"));
        harness.until_written("Running running").await;
        harness.config_map("env", "two");
        harness.config_map("mounted", "two");
        harness.until(|state| reported(state, "configmap/mounted") == Some(4)).await;
        assert_eq!(restarts(&harness.api.state.lock().unwrap()), 0);
        // Once asked, what runs with old content is renewed.
        let pod = (**harness.api.state.lock().unwrap().pod.as_ref().unwrap()).clone();
        harness.inbox.pod_changed(harness.api.put(annotated(pod, "coracle.dev/on-config-change", "restart")));
        harness.until(|state| restarts(state) == 1).await;
        harness.delete();
        harness.ended().await;
    });
}

/// The revision that the pod's annotation tells of a source.
fn reported(state: &State, source: &str) -> Option<u64> {
    let annotations = state.pod.as_ref()?.metadata.annotations.as_ref()?;
    let report: Value = serde_json::from_str(annotations.get("coracle.dev/config-revisions")?).unwrap();
    report["c"][source]["revision"].as_u64()
}

#[test]
fn the_pod_tells_which_revisions_it_runs_with() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.config_map("env", "one");
        harness.config_map("mounted", "one");
        harness.run(configured("sleep", "Always"));
        harness.until_written("Running running").await;
        let both = |state: &State| [reported(state, "configmap/env"), reported(state, "configmap/mounted")];
        // Together with the status, at no cost of its own.
        assert_eq!(both(&harness.api.state.lock().unwrap()), [Some(1), Some(2)]);
        assert_eq!(harness.api.writes(), ["Pending ContainerCreating", "Running running"]);
        // Changes in a row are told once, after they were delivered.
        for round in 3..=5 {
            harness.config_map("mounted", &format!("change {round}"));
            tokio::task::yield_now().await;
        }
        harness.until(|state| both(state) == [Some(1), Some(5)]).await;
        assert_eq!(harness.api.writes().len(), 3);
        // Neither an environment nor the same content again is news.
        harness.config_map("env", "two");
        harness.config_map("mounted", "change 5");
        harness.node.shared.clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(both(&harness.api.state.lock().unwrap()), [Some(1), Some(5)]);
        assert_eq!(harness.api.writes().len(), 3);
        harness.delete();
        harness.ended().await;
    });
}

#[test]
fn a_volume_that_shows_annotations_does_not_answer_itself() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.config_map("mounted", "one");
        let fields = json!({"items": [{"path": "all", "fieldRef": {"fieldPath": "metadata.annotations"}}]});
        let pod = with(
            pod("sleep", "Always"),
            json!({
                "container": {"volumeMounts": [
                    {"name": "v", "mountPath": "/m"}, {"name": "fields", "mountPath": "/fields"},
                ]},
                "volumes": [
                    {"name": "v", "configMap": {"name": "mounted"}}, {"name": "fields", "downwardAPI": fields},
                ],
            }),
        );
        harness.run(pod);
        harness.until_written("Running running").await;
        harness.config_map("mounted", "two");
        harness.until(|state| reported(state, "configmap/mounted") == Some(2)).await;
        harness.node.shared.clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(harness.api.writes().len(), 3);
        harness.delete();
        harness.ended().await;
    });
}

#[test]
fn annotations_without_a_meaning_are_said_once() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        let pod = annotated(pod("sleep", "Always"), "coracle.dev/subpath", "melted");
        harness.run(annotated(pod, "coracle.dev/on-config-change", "Restart"));
        harness.until_written("Running running").await;
        let events = harness.events();
        let about = |part: &str| events.iter().filter(|event| event.contains(part)).count();
        assert_eq!(about("InvalidAnnotation: annotation coracle.dev/subpath: \"melted\" has no meaning"), 1);
        assert_eq!(about("annotation coracle.dev/on-config-change: \"Restart\" has no meaning"), 1);
        let pod = (**harness.api.state.lock().unwrap().pod.as_ref().unwrap()).clone();
        harness.inbox.pod_changed(harness.api.put(annotated(pod, "coracle.dev/on-config-change", "reload")));
        harness
            .until(|state| state.events.iter().any(|event| event.contains("\"reload\" has no meaning")))
            .await;
        harness.delete();
        harness.ended().await;
    });
}

#[test]
fn a_pod_that_cannot_be_told_of_a_change_says_so() {
    in_virtual_time(async {
        let mut harness = Harness::new();
        // Nothing listens there, which is found at once or within the time that the pod has.
        harness.run(annotated(
            configured("sleep", "Always"),
            "coracle.dev/on-config-change",
            "http:/reload:1",
        ));
        harness.config_map("mounted", "one");
        harness.config_map("env", "one");
        harness.until_written("Running running").await;
        harness.config_map("mounted", "two");
        let failed = |event: &String| {
            event.starts_with("FailedConfigChange: annotation coracle.dev/on-config-change: ")
        };
        harness.until(|state| state.events.iter().any(failed)).await;
        let events = harness.events();
        let told = events.iter().find(|event| failed(event)).unwrap();
        assert!(told.contains("/reload\": "), "{told}");
        assert_eq!(harness.runtime.started.lock().unwrap().len(), 1, "it goes on");
        harness.delete();
        harness.ended().await;
    });
}
