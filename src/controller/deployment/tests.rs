use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1000;

fn deployment(change: Value) -> Deployment {
    let mut all = json!({
        "metadata": {
            "name": "d", "namespace": "ns", "uid": "d", "generation": 1, "resourceVersion": "7",
            "annotations": { REVISION: "1" },
        },
        "spec": {
            "replicas": 4, "selector": { "matchLabels": { "app": "a" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 1 } },
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "template": template("v1", None),
        },
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn template(image: &str, hash: Option<&str>) -> Value {
    let mut labels = json!({ "app": "a" });
    if let Some(hash) = hash {
        labels[HASH_LABEL] = hash.into();
    }
    json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

/// A set of a template, with so many replicas, all of them available, made at `revision` seconds.
fn set(image: &str, revision: i64, size: i32, change: Value) -> ReplicaSet {
    let name = format!("d-{image}");
    let created = Timestamp::from_second(revision).unwrap().to_string();
    let mut all = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "generation": 1, "resourceVersion": "7",
            "creationTimestamp": created, "labels": { "app": "a", HASH_LABEL: image },
            "annotations": { REVISION: revision.to_string(), DESIRED: "4", MAX: "5" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": true }],
        },
        "spec": {
            "replicas": size, "selector": { "matchLabels": { "app": "a", HASH_LABEL: image } },
            "template": template(image, Some(image)),
        },
        "status": { "replicas": size, "readyReplicas": size, "availableReplicas": size, "observedGeneration": 1 },
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn render(action: &Action) -> Option<String> {
    Some(match action {
        Action::Create(_, object) => {
            let set = object.downcast_ref::<ReplicaSet>().unwrap();
            let hash = &set.metadata.labels.as_ref().unwrap()[HASH_LABEL];
            assert_eq!(snapshot::name(set), format!("d-{hash}"));
            let spec = set.spec.as_ref().unwrap();
            assert_eq!(&spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
            let labels = spec.template.clone().unwrap().metadata.unwrap().labels.unwrap();
            assert_eq!(&labels[HASH_LABEL], hash);
            format!("create {} revision {}", replicas(set), annotation(&set.metadata, REVISION).unwrap())
        }
        Action::Patch(key, patch) => {
            let mut text = format!("patch {}", key.name);
            if let Some(size) = patch["spec"].get("replicas") {
                text += &format!(" to {size}");
            }
            for name in [REVISION, REVISION_HISTORY, DESIRED, "note"] {
                if let Some(value) = patch["metadata"]["annotations"].get(name) {
                    text += &format!(" {}={}", name.rsplit('/').next().unwrap(), value.as_str().unwrap());
                }
            }
            text
        }
        Action::Delete { key, .. } => format!("delete {}", key.name),
        Action::Update(_, object, Some(Subresource::Status)) => {
            let deployment = object.downcast_ref::<Deployment>().unwrap();
            let status = deployment.status.clone().unwrap();
            let mut text = String::from("status");
            for condition in status.conditions.into_iter().flatten() {
                text += &format!(" {}={}/{}", condition.type_, condition.status, condition.reason.unwrap());
            }
            if let Some(count) = status.collision_count {
                text += &format!(" collisions {count}");
            }
            text
        }
        Action::RequireAbsent(..) => return None,
        Action::Event { message, .. } => {
            assert!(message.starts_with("Scaled "), "{message}");
            return None;
        }
        other => format!("{other:?}"),
    })
}

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    pods: Vec<Pod>,
}

impl World {
    fn decide(&self) -> Decision {
        let mut seen = Snapshot::new(Deployments.indexes());
        let key = Key::to(KindRef::of::<Deployment>(), &self.deployment);
        seen.insert(key.kind, Arc::new(self.deployment.clone()));
        for set in &self.sets {
            seen.insert(KindRef::of::<ReplicaSet>(), Arc::new(set.clone()));
        }
        for pod in &self.pods {
            seen.insert(KindRef::of::<Pod>(), Arc::new(pod.clone()));
        }
        let moment = Moment { now: Timestamp::from_second(NOW).unwrap(), waited: Duration::ZERO };
        Deployments.reconcile(&seen, &key, moment)
    }

    /// The decision in lines, without the status unless it is asked for.
    fn lines(&self, with_status: bool) -> Vec<String> {
        let all = self.decide().actions;
        all.iter().filter_map(render).filter(|line| with_status || !line.starts_with("status")).collect()
    }
}

#[track_caller]
fn check(change: Value, sets: Vec<ReplicaSet>, expected: &[&str]) {
    let world = World { deployment: deployment(change), sets, pods: vec![] };
    assert_eq!(world.lines(false), expected);
}

fn none() -> Value {
    json!({})
}

fn to(image: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } })
}

#[test]
fn a_rollout_goes_step_by_step() {
    check(none(), vec![], &["create 4 revision 1"]);
    check(none(), vec![set("v1", 1, 4, none())], &[]);
    check(to("v2"), vec![set("v1", 1, 4, none())], &["create 1 revision 2"]);
    let waiting = json!({ "status": { "readyReplicas": 0, "availableReplicas": 0 } });
    check(
        to("v2"),
        vec![set("v1", 1, 4, none()), set("v2", 2, 1, waiting)],
        &["patch d-v1 to 3 desired-replicas=4"],
    );
    check(
        to("v2"),
        vec![set("v1", 1, 3, none()), set("v2", 2, 1, none())],
        &["patch d-v2 to 2 desired-replicas=4"],
    );
    check(to("v2"), vec![set("v1", 1, 0, none()), set("v2", 2, 4, none())], &[]);
}

#[test]
fn going_back_raises_the_old_revision() {
    let sets = || vec![set("v1", 1, 0, none()), set("v2", 2, 4, none())];
    let back = World { deployment: deployment(none()), sets: sets(), pods: vec![] };
    let lines = back.lines(false);
    assert_eq!(lines[0], "patch d-v1 revision=3 revision-history=1");
    assert_eq!(lines[1], "patch d-v1 to 1 desired-replicas=4");
}

#[test]
fn annotations_are_handed_down() {
    let noted = json!({ "metadata": { "annotations": {
        "note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}",
    } } });
    check(noted, vec![set("v1", 1, 4, none())], &["patch d-v1 note=x"]);
}

#[test]
fn recreation_waits_for_the_old_pods() {
    let mut recreate = to("v2");
    recreate["spec"]["strategy"] = json!({ "type": "Recreate", "rollingUpdate": null });
    check(recreate.clone(), vec![set("v1", 1, 4, none())], &["patch d-v1 to 0 desired-replicas=4"]);
    let mut world =
        World { deployment: deployment(recreate), sets: vec![set("v1", 1, 0, none())], pods: vec![] };
    let pod = |phase: &str| -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "p", "deletionTimestamp": "1970-01-01T00:00:00Z",
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "d-v1", "uid": "d-v1", "controller": true }] },
            "status": { "phase": phase },
        }))
        .unwrap()
    };
    world.pods = vec![pod("Running")];
    assert_eq!(world.lines(false), [""; 0]);
    world.pods = vec![pod("Failed")];
    assert_eq!(world.lines(false), ["create 4 revision 2"]);
    world.pods = vec![];
    assert_eq!(world.lines(false), ["create 4 revision 2"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut paused = to("v2");
    paused["spec"]["paused"] = true.into();
    let world =
        World { deployment: deployment(paused.clone()), sets: vec![set("v1", 1, 4, none())], pods: vec![] };
    assert_eq!(
        world.lines(true),
        ["status Progressing=Unknown/DeploymentPaused Available=True/MinimumReplicasAvailable"]
    );
    paused["spec"]["replicas"] = 6.into();
    check(paused, vec![set("v1", 1, 4, none())], &["patch d-v1 to 6 desired-replicas=6"]);
    // Half way through, both sets grow.
    let mut scaled = to("v2");
    scaled["spec"]["replicas"] = 8.into();
    check(
        scaled,
        vec![set("v1", 1, 3, none()), set("v2", 2, 2, none())],
        &["patch d-v1 to 5 desired-replicas=8", "patch d-v2 to 4 desired-replicas=8"],
    );
}

#[test]
fn a_taken_name_leads_to_another() {
    let hash = template_hash(&deployment(to("v2")).spec.unwrap().template, None);
    let taken = |uid: &str| {
        let mut all = json!({ "metadata": { "name": format!("d-{hash}"), "uid": uid } });
        all["metadata"]["ownerReferences"] = Value::Null;
        all["metadata"]["labels"] = json!({ "app": "other" });
        set("v9", 1, 0, all)
    };
    let world = World { deployment: deployment(to("v2")), sets: vec![taken("x")], pods: vec![] };
    let lines = world.lines(true);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with("collisions 1"), "{lines:?}");
    let mut next = to("v2");
    next["status"] = json!({ "collisionCount": 1 });
    check(next, vec![taken("x")], &["create 4 revision 1"]);
}

#[test]
fn old_revisions_are_trimmed_when_all_is_done() {
    let done = json!({
        "spec": { "revisionHistoryLimit": 1 },
        "status": { "observedGeneration": 1, "replicas": 4, "updatedReplicas": 4, "availableReplicas": 4 },
    });
    let sets = || {
        let mut sets: Vec<ReplicaSet> = (2..=4).map(|i| set(&format!("v{i}"), i, 0, none())).collect();
        sets.push(set("v1", 9, 4, none()));
        sets
    };
    check(done.clone(), sets(), &["delete d-v2", "delete d-v3"]);
    let mut with_pods = sets();
    with_pods[0].status.as_mut().unwrap().replicas = 1;
    check(done.clone(), with_pods, &["delete d-v3"]);
    let mut unfinished = done;
    unfinished["status"]["availableReplicas"] = 3.into();
    check(unfinished, sets(), &[]);
}

fn with_conditions(progressing: (&str, &str), updated_at: i64) -> Value {
    let at = Timestamp::from_second(updated_at).unwrap().to_string();
    json!({ "status": {
        "observedGeneration": 1, "replicas": 4, "updatedReplicas": 4, "readyReplicas": 3,
        "availableReplicas": 3, "unavailableReplicas": 1,
        "conditions": [
            { "type": "Progressing", "status": progressing.0, "reason": progressing.1, "lastUpdateTime": at, "lastTransitionTime": at },
            { "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "lastUpdateTime": at, "lastTransitionTime": at },
        ],
    } })
}

/// One set with four pods, of which so many are available.
fn partly(available: i32) -> Vec<ReplicaSet> {
    let status = json!({ "status": { "readyReplicas": available, "availableReplicas": available } });
    vec![set("v1", 1, 4, status)]
}

#[test]
fn progress_is_told_and_its_lack_noticed() {
    let decide = |progressing, updated_at, available| {
        let deployment = deployment(with_conditions(progressing, updated_at));
        let world = World { deployment, sets: partly(available), pods: vec![] };
        (world.lines(true).join(" "), world.decide().requeue_after.map(|after| after.as_secs()))
    };
    let running = ("True", "ReplicaSetUpdated");
    // Nothing new: the deadline is waited for, and a second longer.
    assert_eq!(decide(running, NOW - 100, 3), (String::new(), Some(501)));
    assert_eq!(decide(running, NOW - 600, 3), (String::new(), Some(1)));
    let status = |progressing: &str| {
        format!("status Available=True/MinimumReplicasAvailable Progressing={progressing}")
    };
    assert_eq!(decide(running, NOW - 601, 3), (status("False/ProgressDeadlineExceeded"), None));
    assert_eq!(decide(running, NOW - 601, 4), (status("True/NewReplicaSetAvailable"), None));
    // Too late is late until there is progress.
    assert_eq!(decide(("False", "ProgressDeadlineExceeded"), 0, 3), (String::new(), None));
    assert_eq!(
        decide(("False", "ProgressDeadlineExceeded"), 0, 4),
        (status("True/NewReplicaSetAvailable"), None)
    );
    // Done is done, though pods fail later.
    let (lines, after) = decide(("True", "NewReplicaSetAvailable"), 0, 2);
    assert_eq!(
        lines,
        "status Progressing=True/NewReplicaSetAvailable Available=False/MinimumReplicasUnavailable"
    );
    assert_eq!(after, None);
}

#[test]
fn more_available_pods_are_progress() {
    let mut before = with_conditions(("True", "ReplicaSetUpdated"), NOW - 500);
    before["status"]["availableReplicas"] = 2.into();
    before["status"]["readyReplicas"] = 2.into();
    let world = World { deployment: deployment(before), sets: partly(3), pods: vec![] };
    assert_eq!(world.decide().requeue_after, Some(Duration::from_secs(601)), "the deadline starts again");
}

#[test]
fn without_a_deadline_there_is_no_progress() {
    let world = World {
        deployment: deployment(json!({ "spec": { "progressDeadlineSeconds": null } })),
        sets: partly(3),
        pods: vec![],
    };
    assert_eq!(world.lines(true), ["status Available=True/MinimumReplicasAvailable"]);
    assert_eq!(world.decide().requeue_after, None);
}

#[test]
fn a_set_that_cannot_be_made_is_told_of() {
    let error = Error::bad_request("no");
    let tell = |deployment: Deployment, sets: Vec<ReplicaSet>, error: &Error| -> Vec<String> {
        let mut seen = Snapshot::new(Deployments.indexes());
        let key = Key::to(KindRef::of::<Deployment>(), &deployment);
        seen.insert(key.kind, Arc::new(deployment));
        for set in sets {
            seen.insert(KindRef::of::<ReplicaSet>(), Arc::new(set));
        }
        let now = Timestamp::from_second(NOW).unwrap();
        let told = Deployments.failed(&seen, &key, error, now);
        let line = |action: &Action| match action {
            Action::Warn { reason, message, .. } => format!("{reason}: {message}"),
            other => render(other).unwrap(),
        };
        told.iter().map(line).collect()
    };
    let hash = template_hash(&deployment(none()).spec.unwrap().template, None);
    let warning = format!("ReplicaSetCreateError: Failed to create new replica set \"d-{hash}\": no");
    let status = "status Progressing=False/ReplicaSetCreateError";
    assert_eq!(tell(deployment(none()), vec![], &error), [warning.as_str(), status]);
    // The condition stays, the Event counts.
    let known = json!({ "status": { "conditions": [
        { "type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "first" },
    ] } });
    assert_eq!(tell(deployment(known.clone()), vec![], &error), [warning.as_str()]);
    let endless = json!({ "spec": { "progressDeadlineSeconds": null } });
    assert_eq!(tell(deployment(endless), vec![], &error), [warning.as_str()]);
    // What failed then was another thing.
    assert_eq!(tell(deployment(none()), vec![set("v1", 1, 4, none())], &error), [""; 0]);
    assert_eq!(tell(deployment(json!({ "spec": { "paused": true } })), vec![], &error), [""; 0]);
    let going = Error::forbidden(KindRef::of::<ReplicaSet>().0, "", "it goes");
    let going = going.with_cause("NamespaceTerminating", "", "");
    assert_eq!(tell(deployment(none()), vec![], &going), [""; 0]);
    // It is over when the set is made.
    let world = World { deployment: deployment(known), sets: vec![], pods: vec![] };
    let lines = world.lines(true);
    assert!(lines[1].contains("Progressing=True/NewReplicaSetCreated"), "{lines:?}");
}
