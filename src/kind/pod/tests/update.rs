use k8s_openapi::api::core::v1::Pod;

use super::{BASE, KIND};
use crate::kind::testing::{check_update, lines, patched};

const FROZEN: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

#[track_caller]
fn check(patch: &str, expected: &[&str]) {
    check_update(&KIND, BASE, patch, expected);
}

/// Updates a pod that is BASE changed by `first`.
#[track_caller]
fn check_from(first: &str, patch: &str, expected: &[&str]) {
    let mut old = patched(&KIND, BASE, first);
    KIND.strategy.prepare_create(&mut *old);
    let mut new = patched(&KIND, &serde_json::to_string(&old.to_value()).unwrap(), patch);
    KIND.strategy.prepare_update(&mut *new, &*old);
    let mut errors = KIND.strategy.validate(&*new);
    errors.extend(KIND.strategy.validate_update(&*new, &*old));
    assert_eq!(lines(&errors), expected, "{first} then {patch}");
}

#[test]
fn some_fields_may_change() {
    check("{}", &[]);
    check("{metadata: {labels: {a: b}, annotations: {c: d}}}", &[]);
    check("{spec: {containers: [{name: app, image: 'web:v2', imagePullPolicy: IfNotPresent}]}}", &[]);
    check("{spec: {activeDeadlineSeconds: 10}}", &[]);
    check("{spec: {tolerations: [{key: a, operator: Exists}]}}", &[]);
    check("{spec: {volumes: [], nodeSelector: {}, hostNetwork: false, hostname: ''}}", &[]);
    check_from(
        "{spec: {terminationGracePeriodSeconds: -1}}",
        "{spec: {terminationGracePeriodSeconds: 1}}",
        &[],
    );
    check_from(
        "{spec: {containers: [{name: app, image: a, resources: {limits: {cpu: 1}}}]}}",
        "{spec: {containers: [{name: app, image: a, resources: {limits: {cpu: 1000m}}}]}}",
        &[],
    );
}

#[test]
fn the_hosts_that_it_may_reach_stay() {
    let refused = [
        "metadata.annotations[coracle.dev/egress-hosts]: Forbidden: may not be added, changed or removed: containers are started with it; make the pod anew",
    ];
    let listed = "{metadata: {annotations: {coracle.dev/egress-hosts: a.test}}}";
    check(listed, &refused);
    check_from(listed, "{metadata: {annotations: {coracle.dev/egress-hosts: null}}}", &refused);
    check_from(listed, "{metadata: {annotations: {coracle.dev/egress-hosts: 'a.test, b.test'}}}", &refused);
    check_from(listed, "{metadata: {annotations: {other: x}}}", &[]);
}

/// The exact beginning of BEHAVIOURS 9.2, then where the specs differ.
#[test]
fn the_rest_is_frozen() {
    let frozen = |difference: &str| format!("{FROZEN}{difference}");
    check("{spec: {hostname: a}}", &[&frozen("spec.hostname: null → \"a\"")]);
    check("{spec: {nodeName: n1}}", &[&frozen("spec.nodeName: null → \"n1\"")]);
    check("{spec: {restartPolicy: Never}}", &[&frozen("spec.restartPolicy: \"Always\" → \"Never\"")]);
    check("{spec: {nodeSelector: {a: ''}}}", &[&frozen("spec.nodeSelector: null → {\"a\":\"\"}")]);
    check(
        "{spec: {terminationGracePeriodSeconds: 1}}",
        &[&frozen("spec.terminationGracePeriodSeconds: 30 → 1")],
    );
    check(
        "{spec: {containers: [{name: app, image: 'web:v1', args: [x], resources: {requests: {cpu: 1}}}]}}",
        &[&frozen(
            "spec.containers[0].args: null → [\"x\"]\nspec.containers[0].resources.requests: null → {\"cpu\":\"1\"}",
        )],
    );
    let added = ["spec.containers: Forbidden: pod updates may not add or remove containers"];
    check("{spec: {containers: [{name: app, image: a}, {name: b, image: b}]}}", &added);
    let added = ["spec.initContainers: Forbidden: pod updates may not add or remove containers"];
    check("{spec: {initContainers: [{name: b, image: b}]}}", &added);
    check("{spec: {containers: [{name: app}]}}", &["spec.containers[0].image: Required value"]);
}

#[test]
fn empty_texts_count_among_labels() {
    check_from(
        "{spec: {nodeSelector: {a: b}}}",
        "{spec: {nodeSelector: {c: ''}}}",
        &[&format!("{FROZEN}spec.nodeSelector: {{\"a\":\"b\"}} → {{\"a\":\"b\",\"c\":\"\"}}")],
    );
}

#[test]
fn deadlines_only_shrink() {
    let from = "{spec: {activeDeadlineSeconds: 10}}";
    check_from(from, "{spec: {activeDeadlineSeconds: 5}}", &[]);
    check_from(
        from,
        "{spec: {activeDeadlineSeconds: 11}}",
        &["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"],
    );
    check_from(
        from,
        "{spec: {activeDeadlineSeconds: null}}",
        &[
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
        ],
    );
}

#[test]
fn tolerations_only_grow_and_gates_only_go() {
    let from = "{spec: {tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}}";
    check_from(
        from,
        "{spec: {tolerations: [{key: b, operator: Exists}, {key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 9}]}}",
        &[],
    );
    let kept =
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"];
    check_from(from, "{spec: {tolerations: null}}", &kept);
    check_from(from, "{spec: {tolerations: [{key: a, operator: Exists}]}}", &kept);

    let gated = "{spec: {schedulingGates: [{name: a}, {name: b}], nodeSelector: {x: '1'}}}";
    check_from(gated, "{spec: {schedulingGates: [{name: b}]}}", &[]);
    check_from(gated, "{spec: {schedulingGates: null}}", &[]);
    check_from(
        gated,
        "{spec: {schedulingGates: [{name: a}, {name: c}]}}",
        &[
            "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'c'",
        ],
    );
    check_from(gated, "{spec: {nodeSelector: {x: '1', y: '2'}}}", &[]);
    check_from(
        gated,
        "{spec: {nodeSelector: {x: '2'}}}",
        &[
            "spec.nodeSelector: Invalid value: {\"x\":\"2\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ],
    );
    let affinity = |more: &str| {
        format!(
            "{{spec: {{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{{matchExpressions: [{{key: a, operator: Exists}}{more}]}}]}}}}}}}}}}"
        )
    };
    check_from(gated, &affinity(""), &[]);
}

#[test]
fn the_status_and_the_priority_are_kept() {
    let mut old = patched(&KIND, BASE, "{}");
    KIND.strategy.prepare_create(&mut *old);
    let mut new = patched(&KIND, BASE, "{status: {phase: Failed}}");
    KIND.strategy.prepare_update(&mut *new, &*old);
    let (new, old) = (new.downcast_ref::<Pod>().unwrap(), old.downcast_ref::<Pod>().unwrap());
    assert_eq!((&new.status, &new.spec), (&old.status, &old.spec));
    assert_eq!(new.spec.as_ref().unwrap().priority, Some(0));
}
