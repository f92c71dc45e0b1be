use serde_json::{Value, json};

use super::*;

fn budget(change: Value) -> PodDisruptionBudget {
    let mut all = json!({
        "metadata": { "name": "b", "namespace": "n", "generation": 2 },
        "spec": { "minAvailable": 2, "selector": {} },
        "status": {
            "observedGeneration": 2, "currentHealthy": 3, "desiredHealthy": 2, "disruptionsAllowed": 1, "expectedPods": 3,
        },
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

fn pod(phase: &str, ready: bool, meta: Value) -> Pod {
    let mut all = json!({ "metadata": { "name": "p", "namespace": "n" }, "status": {
        "phase": phase, "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
    } });
    json_patch::merge(&mut all["metadata"], &meta);
    serde_json::from_value(all).unwrap()
}

fn decided(pod: &Pod, budgets: &[PodDisruptionBudget]) -> String {
    let now = Timestamp::from_second(60).unwrap();
    match decide(pod, &budgets.iter().collect::<Vec<_>>(), now) {
        Ok(Permit { charged: None, only_as_seen: false }) => "free".to_owned(),
        Ok(Permit { charged: None, only_as_seen: true }) => "free as seen".to_owned(),
        Ok(Permit { charged: Some(charged), .. }) => {
            let status = charged.status.unwrap();
            let told = status.conditions.unwrap_or_default();
            let told: Vec<String> =
                told.iter().map(|one| format!(" {}={} {}", one.type_, one.status, one.reason)).collect();
            let pods: Vec<String> = status
                .disrupted_pods
                .iter()
                .flatten()
                .map(|(name, since)| format!("{name}@{}", since.0.as_second()))
                .collect();
            format!("charged to {} {}{}", status.disruptions_allowed, pods.join(" "), told.concat())
        }
        Err(error) => {
            let status = *error.0;
            let details = status.details.unwrap_or_default();
            let causes = details.causes.unwrap_or_default().into_iter();
            let causes: Vec<String> =
                causes.map(|one| format!(" {}: {}", one.reason.unwrap(), one.message.unwrap())).collect();
            let again = details.retry_after_seconds.map(|after| format!(" again in {after}"));
            format!("{}{}{}", status.code.unwrap(), causes.concat(), again.unwrap_or_default())
        }
    }
}

/// 8.5
#[test]
fn a_budget_is_charged_for_a_pod_that_it_counts() {
    let running = || pod("Running", true, json!({}));
    let check = |pod: Pod, change: Value, expected: &str| {
        assert_eq!(decided(&pod, &[budget(change.clone())]), expected, "{change}");
    };
    assert_eq!(decided(&running(), &[]), "free");
    let last = "charged to 0 p@60 DisruptionAllowed=False InsufficientPods";
    check(running(), json!({}), last);
    let more =
        json!({ "status": { "disruptionsAllowed": 2, "disruptedPods": { "q": "1970-01-01T00:00:10Z" } } });
    check(running(), more, "charged to 1 p@60 q@10");
    let spent = json!({ "status": { "disruptionsAllowed": 0, "currentHealthy": 2 } });
    let why = "429 DisruptionBudget: The disruption budget b needs 2 healthy pods and has 2 currently";
    check(running(), spent.clone(), why);
    let unseen =
        "429 DisruptionBudget: The disruption budget b is still being processed by the server. again in 10";
    check(running(), json!({ "metadata": { "generation": 3 } }), unseen);
    check(running(), json!({ "status": null }), unseen);
    check(running(), json!({ "status": { "disruptionsAllowed": -1 } }), "403");
    let crowd: serde_json::Map<String, Value> =
        (0..=DISRUPTED_PODS_MAX).map(|i| (format!("p{i}"), json!("1970-01-01T00:00:00Z"))).collect();
    check(running(), json!({ "status": { "disruptedPods": crowd } }), "403");
    assert_eq!(decided(&running(), &[budget(json!({})), budget(json!({}))]), "500");
    // Pods that disturb nobody are not asked about.
    for phase in ["Succeeded", "Failed"] {
        check(pod(phase, false, json!({})), spent.clone(), "free");
    }
    check(pod("Pending", false, json!({})), spent.clone(), "free as seen");
    let going = pod("Running", true, json!({ "deletionTimestamp": "1970-01-01T00:00:00Z" }));
    check(going.clone(), spent, "free");
    assert_eq!(decided(&going, &[budget(json!({})), budget(json!({}))]), "free");
}

/// 8.5
#[test]
fn an_unhealthy_pod_goes_if_the_others_are_enough_or_the_budget_says_so() {
    let check = |change: Value, expected: &str| {
        assert_eq!(
            decided(&pod("Running", false, json!({})), &[budget(change.clone())]),
            expected,
            "{change}"
        );
    };
    check(json!({}), "free as seen");
    check(json!({ "status": { "currentHealthy": 2, "disruptionsAllowed": 0 } }), "free as seen");
    let few = || json!({ "status": { "currentHealthy": 1, "disruptionsAllowed": 0 } });
    let why = "429 DisruptionBudget: The disruption budget b needs 2 healthy pods and has 1 currently";
    check(few(), why);
    let with = |policy: &str| {
        let mut change = few();
        change["spec"] = json!({ "unhealthyPodEvictionPolicy": policy });
        change
    };
    check(with("IfHealthyBudget"), why);
    check(with("AlwaysAllow"), "free as seen");
    let none = json!({ "status": { "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0 } });
    check(none, "429 DisruptionBudget: The disruption budget b needs 0 healthy pods and has 0 currently");
}

#[test]
fn the_condition_tells_who_evicts_and_since_when() {
    let mut pod = pod("Running", true, json!({}));
    mark(&mut pod, Timestamp::from_second(10).unwrap());
    let once = pod.clone();
    let told = once.status.as_ref().unwrap().conditions.as_ref().unwrap()[1].clone();
    assert_eq!(
        (told.type_.as_str(), told.status.as_str(), told.reason.as_deref(), told.message.as_deref()),
        ("DisruptionTarget", "True", Some("EvictionByEvictionAPI"), Some("Eviction API: evicting"))
    );
    mark(&mut pod, Timestamp::from_second(20).unwrap());
    assert_eq!(pod, once);
    // One that was taken back begins anew.
    pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[1].status = "False".into();
    mark(&mut pod, Timestamp::from_second(30).unwrap());
    let again = pod.status.unwrap().conditions.unwrap()[1].clone();
    assert_eq!(again.last_transition_time.unwrap().0.as_second(), 30);
}
