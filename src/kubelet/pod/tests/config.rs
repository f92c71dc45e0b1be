//! What pods are given, and only they: volumes, variables, and what is told of what is missing.

use super::*;

/// `container: name=path …` of each start, sorted.
fn mounted(harness: &Harness) -> Vec<String> {
    let started = harness.runtime.started.lock().unwrap();
    let mut lines: Vec<String> = started
        .iter()
        .map(|spec| {
            let paths = spec.mounts.iter().map(|mount| mount.path.as_str());
            // Where the termination message goes is everybody's own.
            let paths: Vec<&str> = paths.filter(|path| *path != "/dev").collect();
            format!("{}: {}", spec.label.rsplit('/').next().unwrap(), paths.join(" "))
        })
        .collect();
    lines.sort();
    lines
}

fn secret(harness: &Harness, name: &str, value: &str) {
    let mut secret = Secret::default();
    let value = k8s_openapi::ByteString(value.as_bytes().to_vec());
    secret.data = Some(BTreeMap::from([("k".to_owned(), value)]));
    harness.api.change(|state| state.secrets.insert(name.into(), Arc::new(secret)));
    harness.node.shared.sources.changed(SourceKind::Secret, "n".into(), name.into());
}

/// Lets everything happen that can without a further change.
async fn settle(harness: &Harness) {
    harness.node.shared.clock.sleep(Duration::from_millis(5)).await;
}

#[test]
fn a_container_has_what_it_asks_for_and_only_while_it_is_there() {
    // BEHAVIOURS 10.14.
    in_virtual_time(async {
        let mut harness = Harness::new();
        secret(&harness, "s", "hunter2");
        let mut pod = with(
            pod("sleep", "Always"),
            json!({
                "container": {
                    "volumeMounts": [{"name": "s", "mountPath": "/s"}],
                    "env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                },
                "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}],
            }),
        );
        let other = json!({
            "name": "other", "image": "hello", "args": ["sleep"],
            "volumeMounts": [{"name": "e", "mountPath": "/e"}],
        });
        pod.spec.as_mut().unwrap().containers.push(serde_json::from_value(other).unwrap());
        harness.run(pod);
        harness.until(|state| state.events.iter().filter(|e| e.starts_with("Started")).count() == 2).await;
        assert_eq!(mounted(&harness), ["c: /s", "other: /e"]);
        let started = std::mem::take(&mut *harness.runtime.started.lock().unwrap());
        let has_secret: Vec<bool> =
            started.iter().map(|spec| spec.env.iter().any(|(_, value)| value == "hunter2")).collect();
        assert_eq!(has_secret.iter().filter(|has| **has).count(), 1);
        let volumes = started.iter().flat_map(|spec| spec.mounts.iter());
        let volumes: Vec<_> = volumes.map(|mount| Arc::downgrade(&mount.volume)).collect();
        drop(started);
        settle(&harness).await;
        harness.delete();
        harness.ended().await;
        assert!(volumes.iter().all(|volume| volume.upgrade().is_none()), "gone with the pod");
        let told = format!("{:?}", harness.events());
        assert!(!told.contains("hunter2"), "{told}");
    });
}

#[test]
fn an_empty_directory_outlives_its_containers() {
    // BEHAVIOURS 10.17.
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(with(
            pod("1", "Always"),
            json!({
                "container": {"volumeMounts": [{"name": "e", "mountPath": "/e"}]},
                "volumes": [{"name": "e", "emptyDir": {}}],
            }),
        ));
        harness.until(|state| state.events.iter().filter(|e| e.starts_with("Started")).count() == 2).await;
        {
            let started = harness.runtime.started.lock().unwrap();
            assert!(Arc::ptr_eq(&started[0].mounts[0].volume, &started[1].mounts[0].volume));
        }
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn each_volume_that_cannot_be_made_is_told_once() {
    // BEHAVIOURS 10.7.
    let failed = |volume: &str, cause: &str| {
        format!("FailedMount: MountVolume.SetUp failed for volume {volume:?} : {cause}")
    };
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.run(with(
            pod("sleep", "Always"),
            json!({
                "container": {"volumeMounts": [
                    {"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"},
                ]},
                "volumes": [
                    {"name": "a", "configMap": {"name": "m"}},
                    {"name": "b", "secret": {"secretName": "s", "items": [{"key": "none", "path": "x"}]}},
                    {"name": "not-mounted", "secret": {"secretName": "nobody-waits"}},
                ],
            }),
        ));
        harness.until_written("Pending ContainerCreating").await;
        let mut expected =
            vec![failed("a", "configmap \"m\" not found"), failed("b", "secret \"s\" not found")];
        assert_eq!(harness.events(), expected);
        // The first is mended, the second fails otherwise; a change that mends nothing says nothing.
        secret(&harness, "s", "v");
        settle(&harness).await;
        expected.push(failed("b", "references non-existent secret key: none"));
        assert_eq!(harness.events(), expected);
        for _ in 0..3 {
            harness.config_map("m", "v");
            settle(&harness).await;
        }
        assert_eq!(harness.events(), expected);
        assert!(harness.runtime.started.lock().unwrap().is_empty());
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn a_source_that_goes_is_told_and_its_files_stay_unless_optional() {
    // BEHAVIOURS 10.7.
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.config_map("m", "kept");
        harness.run(with(
            pod("sleep", "Always"),
            json!({
                "container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                "volumes": [{"name": "v", "configMap": {"name": "m"}}],
            }),
        ));
        harness.until_written("Running running").await;
        let volume = harness.runtime.started.lock().unwrap()[0].mounts[0].volume.clone();
        let before = harness.events().len();
        harness.api.change(|state| state.config_maps.clear());
        harness.node.shared.sources.changed(SourceKind::ConfigMap, "n".into(), "m".into());
        settle(&harness).await;
        assert_eq!(volume.read("k").unwrap(), "kept");
        let why = "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found";
        assert_eq!(harness.events()[before..], [why]);
        harness.config_map("m", "new");
        settle(&harness).await;
        assert_eq!(volume.read("k").unwrap(), "new");
        harness.inbox.shutdown();
        harness.ended().await;
    });
}

#[test]
fn a_part_of_a_volume_named_by_an_annotation_waits_for_it() {
    // BEHAVIOURS 10.9: an annotation that is not there is empty, which would mount everything.
    in_virtual_time(async {
        let mut harness = Harness::new();
        harness.config_map("m", "v");
        let path = json!({"fieldRef": {"fieldPath": "metadata.annotations['part']"}});
        let pod = with(
            pod("sleep", "Always"),
            json!({
                "container": {
                    "env": [{"name": "PART", "valueFrom": path}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "$(PART)"}],
                },
                "volumes": [{"name": "v", "configMap": {"name": "m"}}],
            }),
        );
        harness.run(pod.clone());
        harness.until_written("Pending CreateContainerConfigError").await;
        let why = "Failed: Error: failed to expand subPathExpr \"$(PART)\": missing value for PART";
        assert_eq!(harness.events(), [why]);
        let mut annotated = (**harness.api.state.lock().unwrap().pod.as_ref().unwrap()).clone();
        annotated.metadata.annotations = Some(BTreeMap::from([("part".into(), "k".into())]));
        harness.inbox.pod_changed(harness.api.put(annotated));
        harness.until_written("Running running").await;
        let sub_path = harness.runtime.started.lock().unwrap()[0].mounts[0].sub_path.clone();
        assert_eq!(sub_path.unwrap().path, "k");
        harness.inbox.shutdown();
        harness.ended().await;
    });
}
