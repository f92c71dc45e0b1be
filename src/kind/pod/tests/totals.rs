//! Resources of whole pods (BEHAVIOURS 9.1, 9.3, 15.1).

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{BASE, KIND, spec};
use crate::kind::testing::{check_update, patched};

/// The pod's own requests after its defaults, and its class; `container` is the app's resources.
#[track_caller]
fn check(own: &str, container: &str, requests: &Value, class: &str) {
    let fields = format!(
        "{{spec: {{resources: {own}, containers: [{{name: app, image: a, resources: {container}}}]}}}}"
    );
    let mut pod = patched(&KIND, BASE, &fields);
    KIND.strategy.set_defaults(&mut *pod);
    KIND.strategy.prepare_create(&mut *pod);
    let pod: &Pod = pod.downcast_ref().unwrap();
    let found = serde_json::to_value(pod.spec.as_ref().unwrap().resources.as_ref().unwrap()).unwrap();
    let found = found.get("requests").cloned().unwrap_or_default();
    let found_class = pod.status.as_ref().unwrap().qos_class.as_deref().unwrap();
    assert_eq!((&found, found_class), (requests, class), "{fields}");
}

#[test]
fn a_limited_pod_asks_for_what_its_containers_ask_for_or_for_its_limits() {
    check("{limits: {cpu: 2, memory: 1024Mi}}", "{}", &json!({"cpu": "2", "memory": "1Gi"}), "Guaranteed");
    check(
        "{limits: {cpu: 2, memory: 1Gi}}",
        "{requests: {cpu: 0.5}, limits: {memory: 1Mi}}",
        &json!({"cpu": "500m", "memory": "1Mi"}),
        "Burstable",
    );
    check(
        "{limits: {cpu: 2}, requests: {cpu: 1}}",
        "{requests: {cpu: 0.5}}",
        &json!({"cpu": "1"}),
        "Burstable",
    );
    // Without a limit of the pod's own nothing is filled in.
    check("{requests: {cpu: 1}}", "{requests: {memory: 1}}", &json!({"cpu": "1"}), "Burstable");
    check("{limits: {memory: 1}}", "{requests: {cpu: 1}}", &json!({"cpu": "1", "memory": "1"}), "Burstable");
    check("{}", "{limits: {cpu: 1, memory: 1}}", &Value::Null, "Guaranteed");
    check("{requests: {}}", "{}", &json!({}), "BestEffort");
}

#[test]
fn init_containers_and_sidecars_count_as_they_run() {
    let fields = "{spec: {resources: {limits: {cpu: 9}}, initContainers: [
        {name: s, image: a, restartPolicy: Always, resources: {requests: {cpu: 100m}}},
        {name: i, image: a, resources: {requests: {cpu: 2}}},
    ], containers: [{name: app, image: a, resources: {requests: {cpu: 1500m}}}]}}";
    let pod = patched(&KIND, BASE, fields);
    let pod: &Pod = pod.downcast_ref().unwrap();
    let requests = pod.spec.as_ref().unwrap().resources.as_ref().unwrap().requests.as_ref().unwrap();
    assert_eq!(requests["cpu"].0, "2100m");
}

#[test]
fn containers_lie_within_their_pod() {
    let with = |own: &str, container: &str| {
        format!("resources: {own}, containers: [{{name: app, image: a, resources: {container}}}]")
    };
    spec(&with("{limits: {cpu: 2}, requests: {cpu: 1}}", "{limits: {cpu: 2}, requests: {cpu: 1000m}}"), &[]);
    spec(
        &with(
            "{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}",
            "{limits: {cpu: 1500m}, requests: {memory: 2Gi}}",
        ),
        &[
            "resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 1500m",
            "resources.requests[memory]: Invalid value: \"1Gi\": must be greater than or equal to aggregate container requests of 2Gi",
            "containers[0].resources.limits[cpu]: Invalid value: \"1500m\": must be less than or equal to pod limits of 1",
        ],
    );
    spec(
        &with("{limits: {cpu: 1}, requests: {cpu: 2}}", "{}"),
        &["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
    spec(
        &with("{requests: {ephemeral-storage: 1, cpu: x}, claims: [{name: a}]}", "{}"),
        &[
            "resources.requests[cpu]: Invalid value: \"x\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            "resources.requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            "resources.claims[0]: Forbidden: claims may not be set for Resources at pod-level",
        ],
    );
}

#[test]
fn what_a_pod_asks_for_does_not_change() {
    let frozen = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nspec.resources: null → {\"requests\":{\"cpu\":\"1\"}}";
    check_update(&KIND, BASE, "{spec: {resources: {requests: {cpu: 1}}}}", &[frozen]);
}
