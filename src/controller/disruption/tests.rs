use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kind::{self, Object};

const NOW: i64 = 1000;

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let mut all = json!({
        "metadata": { "name": "b", "namespace": "n", "uid": "b", "generation": 3 },
        "spec": { "selector": { "matchLabels": { "app": "a" } } },
        "status": { "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 },
    });
    json_patch::merge(&mut all["spec"], &spec);
    json_patch::merge(&mut all["status"], &status);
    serde_json::from_value(all).unwrap()
}

/// A ready pod of the replica set `r`.
fn pod(name: &str, change: Value) -> Arc<dyn Object> {
    let mut all = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name, "labels": { "app": "a" }, "ownerReferences": [owner("apps/v1", "ReplicaSet", "r")] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    json_patch::merge(&mut all, &change);
    Arc::new(serde_json::from_value::<Pod>(all).unwrap())
}

fn owner(api_version: &str, kind: &str, name: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": name, "controller": true })
}

fn unready() -> Value {
    json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } })
}

fn going() -> Value {
    json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:00:00Z" } })
}

/// The replica set `r` of five, which the deployment `d` of six controls if there is one.
fn owners(with_deployment: bool) -> Vec<(KindRef, Arc<dyn Object>)> {
    let of = |plural: &str, value: Value| {
        let kind = kind::ALL.iter().copied().find(|kind| kind.plural == plural).unwrap();
        (KindRef(kind), Arc::from(kind.strategy.decode_value(value).unwrap()))
    };
    let meta = |name: &str| json!({ "name": name, "namespace": "n", "uid": name });
    let spec = |replicas: i32| json!({ "replicas": replicas, "selector": {}, "template": {} });
    let mut set = json!({ "metadata": meta("r"), "spec": spec(5) });
    let mut all = vec![of("jobs", json!({ "metadata": meta("j"), "spec": { "template": {} } }))];
    if with_deployment {
        set["metadata"]["ownerReferences"] = json!([owner("apps/v1", "Deployment", "d")]);
        all.push(of("deployments", json!({ "metadata": meta("d"), "spec": spec(6) })));
    }
    all.push(of("replicasets", set));
    all
}

fn seen(
    budget: &PodDisruptionBudget,
    pods: &[Arc<dyn Object>],
    owners: Vec<(KindRef, Arc<dyn Object>)>,
) -> Snapshot {
    let mut seen = Snapshot::new(Disruptions.indexes());
    seen.insert(KindRef::of::<PodDisruptionBudget>(), Arc::new(budget.clone()));
    for pod in pods {
        seen.insert(KindRef::of::<Pod>(), pod.clone());
    }
    for (kind, owner) in owners {
        seen.insert(kind, owner);
    }
    seen
}

fn render(action: &Action) -> String {
    match action {
        Action::Update(_, object, Some(Subresource::Status)) => {
            match object.downcast_ref::<PodDisruptionBudget>() {
                Some(budget) => {
                    let status = budget.status.clone().unwrap();
                    assert!(status.observed_generation.is_none_or(|seen| seen == 3));
                    let told = &status.conditions.unwrap()[0];
                    let names: Vec<String> =
                        status.disrupted_pods.into_iter().flatten().map(|(name, _)| name).collect();
                    format!(
                        "healthy {}/{} of {} allows {} {} [{}]",
                        status.current_healthy,
                        status.desired_healthy,
                        status.expected_pods,
                        status.disruptions_allowed,
                        told.reason,
                        names.join(" ")
                    )
                }
                None => {
                    let told = object.to_value()["status"]["conditions"][0].clone();
                    format!("{}={} {}", told["type"], told["status"], told["reason"])
                }
            }
        }
        Action::Event { reason, .. } | Action::Warn { reason, .. } => (*reason).to_owned(),
        other => format!("{other:?}"),
    }
}

fn decide(seen: &Snapshot, key: &Key) -> Decision {
    let moment = Moment { now: Timestamp::from_second(NOW).unwrap(), waited: Duration::ZERO };
    Disruptions.reconcile(seen, key, moment)
}

#[track_caller]
fn check(budget: &PodDisruptionBudget, pods: &[Arc<dyn Object>], deployment: bool, expected: &[&str]) {
    let seen = seen(budget, pods, owners(deployment));
    let decision = decide(&seen, &Key::to(KindRef::of::<PodDisruptionBudget>(), budget));
    assert_eq!(decision.actions.iter().map(render).collect::<Vec<_>>(), expected);
}

/// 8.5
#[test]
fn what_is_allowed_is_what_is_healthy_beyond_what_must_be() {
    let ready = |n: usize| (0..n).map(|i| pod(&format!("p{i}"), json!({}))).collect::<Vec<_>>();
    let of = |spec: Value| budget(spec, json!({}));
    check(
        &of(json!({ "minAvailable": 2 })),
        &ready(3),
        false,
        &["healthy 3/2 of 3 allows 1 SufficientPods []"],
    );
    check(
        &of(json!({ "minAvailable": 3 })),
        &ready(3),
        false,
        &["healthy 3/3 of 3 allows 0 InsufficientPods []"],
    );
    check(
        &of(json!({ "minAvailable": 4 })),
        &ready(3),
        false,
        &["healthy 3/4 of 3 allows 0 InsufficientPods []"],
    );
    // Shares, and what may be missing, are of what the owner of the pods wants.
    check(
        &of(json!({ "minAvailable": "50%" })),
        &ready(4),
        false,
        &["healthy 4/3 of 5 allows 1 SufficientPods []"],
    );
    check(
        &of(json!({ "maxUnavailable": 2 })),
        &ready(4),
        false,
        &["healthy 4/3 of 5 allows 1 SufficientPods []"],
    );
    check(
        &of(json!({ "maxUnavailable": "50%" })),
        &ready(4),
        true,
        &["healthy 4/3 of 6 allows 1 SufficientPods []"],
    );
    check(
        &of(json!({ "maxUnavailable": 9 })),
        &ready(1),
        false,
        &["healthy 1/0 of 5 allows 1 SufficientPods []"],
    );
    // Pods that go, or are not ready, or are no matter of the budget's, are not healthy ones.
    let mut pods = ready(2);
    pods.extend([
        pod("x", unready()),
        pod("y", going()),
        pod("z", json!({ "metadata": { "labels": { "app": "b" } } })),
    ]);
    check(&of(json!({ "minAvailable": 1 })), &pods, false, &["healthy 2/1 of 4 allows 1 SufficientPods []"]);
    // Without pods nothing is allowed, so that the first ones are safe.
    check(
        &of(json!({ "minAvailable": 0 })),
        &[],
        false,
        &["NoPods", "healthy 0/0 of 0 allows 0 InsufficientPods []"],
    );
}

/// 8.5
#[test]
fn what_cannot_be_known_allows_nothing() {
    let lone = pod("lone", json!({ "metadata": { "ownerReferences": null } }));
    let with_lone = [pod("p", json!({})), lone];
    check(
        &budget(json!({ "maxUnavailable": 1 }), json!({})),
        &with_lone,
        false,
        &["UnmanagedPods", "healthy 2/4 of 5 allows 0 InsufficientPods []"],
    );
    check(
        &budget(json!({ "minAvailable": 1 }), json!({})),
        &with_lone,
        false,
        &["healthy 2/1 of 2 allows 1 SufficientPods []"],
    );
    // A Job has no scale; and an owner that is gone has none either.
    let before =
        json!({ "currentHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 1, "observedGeneration": 3 });
    for references in
        [owner("batch/v1", "Job", "j"), owner("apps/v1", "ReplicaSet", "gone"), owner("e.com/v1", "X", "x")]
    {
        let pod = pod("p", json!({ "metadata": { "ownerReferences": [references] } }));
        check(
            &budget(json!({ "maxUnavailable": 1 }), before.clone()),
            &[pod],
            false,
            &["CalculateExpectedPodCountFailed", "healthy 1/0 of 1 allows 0 SyncFailed []"],
        );
    }
}

/// 8.5
#[test]
fn an_evicted_pod_does_not_count_until_it_should_long_be_gone() {
    let at = |second: i64| json!(Timestamp::from_second(second).unwrap().to_string());
    let told = json!({ "disruptedPods": {
        "fresh": at(NOW - 30), "going": at(NOW - 30), "gone": at(NOW - 30), "late": at(NOW - 120),
    } });
    let budget = budget(json!({ "minAvailable": 1 }), told);
    let pods =
        [pod("fresh", json!({})), pod("going", going()), pod("late", json!({})), pod("other", json!({}))];
    let seen = seen(&budget, &pods, owners(false));
    let decision = decide(&seen, &Key::to(KindRef::of::<PodDisruptionBudget>(), &budget));
    let lines: Vec<String> = decision.actions.iter().map(render).collect();
    assert_eq!(lines, ["NotDeleted", "healthy 2/1 of 4 allows 1 SufficientPods [fresh]"]);
    assert_eq!(decision.requeue_after, Some(Duration::from_secs(90)));
}

#[test]
fn a_status_that_holds_is_not_written_again() {
    let pods = [pod("p", json!({})), pod("q", json!({}))];
    let mut known = budget(json!({ "minAvailable": 1 }), json!({}));
    let first = decide(&seen(&known, &pods, vec![]), &Key::to(KindRef::of::<PodDisruptionBudget>(), &known));
    let Some(Action::Update(_, written, _)) = first.actions.first() else { panic!("{first:?}") };
    known = written.downcast_ref::<PodDisruptionBudget>().unwrap().clone();
    check(&known, &pods, false, &[]);
}

/// 8.5
#[test]
fn a_pod_that_stays_is_not_a_target_for_ever() {
    let target = |ago: i64, reason: &str, change: Value| {
        let since = Timestamp::from_second(NOW - ago).unwrap().to_string();
        let mut all = json!({ "status": { "conditions": [
            { "type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": since },
        ] } });
        json_patch::merge(&mut all, &change);
        let budget = budget(json!({}), json!({}));
        let decision =
            decide(&seen(&budget, &[pod("p", all)], vec![]), &Key::new(KindRef::of::<Pod>(), "n", "p"));
        let lines: Vec<String> = decision.actions.iter().map(render).collect();
        (lines.join(" "), decision.requeue_after.map(|after| after.as_secs()))
    };
    let none = || (String::new(), None);
    assert_eq!(target(60, "EvictionByEvictionAPI", json!({})), (String::new(), Some(60)));
    assert_eq!(
        target(120, "EvictionByEvictionAPI", json!({})),
        ("\"DisruptionTarget\"=\"False\" null".to_owned(), None)
    );
    assert_eq!(target(120, "TerminationByKubelet", json!({})), none());
    assert_eq!(target(120, "DeletionByPodGC", going()), none());
    assert_eq!(target(120, "DeletionByPodGC", json!({ "status": { "phase": "Failed" } })), none());
}

#[test]
fn pods_wake_the_budgets_that_cover_them_or_did() {
    let known = budget(json!({}), json!({}));
    let seen = seen(&known, &[], vec![]);
    let woken = |old: Option<Arc<dyn Object>>, new: Option<Arc<dyn Object>>| {
        let change = Change { kind: KindRef::of::<Pod>(), old: old.as_ref(), new: new.as_ref() };
        let mut woken = Vec::new();
        Disruptions.wakes(&seen, &change, &mut |key| woken.push(key.name));
        woken
    };
    let ours = || Some(pod("p", json!({})));
    let other = || Some(pod("p", json!({ "metadata": { "labels": { "app": "b" } } })));
    assert_eq!(woken(None, ours()), ["b"]);
    assert_eq!(woken(ours(), other()), ["b"]);
    assert_eq!(woken(ours(), None), ["b"]);
    assert_eq!(woken(None, other()), [""; 0]);
    let target = json!({ "status": { "conditions": [{ "type": "DisruptionTarget", "status": "True" }] } });
    assert_eq!(woken(None, Some(pod("p", target))), ["b", "p"]);
}
