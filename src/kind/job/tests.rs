use serde_json::{Value, json};

use super::*;
use crate::kind::fixture::Fixture;

const JOB: Fixture = Fixture {
    kind: &KIND,
    base: || {
        json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}],
            }}},
        })
    },
};

fn spec_of(change: Value) -> Value {
    JOB.created(change).to_value()["spec"].clone()
}

#[test]
fn what_is_left_out_is_filled_in() {
    // BEHAVIOURS 13.1.
    let spec = spec_of(json!({}));
    for (field, value) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("manualSelector", json!(false)),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    let spec = spec_of(json!({"spec": {"parallelism": 3}}));
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&Value::Null, &json!(3)), "a work queue");
    let spec = spec_of(json!({"spec": {"completions": 3}}));
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(3), &json!(1)));
    let indexed = json!({"spec": {"completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}});
    assert_eq!(spec_of(indexed)["backoffLimit"], json!(i32::MAX));
    let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
    let spec = spec_of(json!({"spec": {"podFailurePolicy": {"rules": rules}}}));
    assert_eq!(spec["podReplacementPolicy"], json!("Failed"));
    assert_eq!(spec["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], json!("True"));
    let spec = spec_of(json!({"spec": {"completionMode": "PerNode"}}));
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&Value::Null, &Value::Null));
}

#[test]
fn pods_must_be_able_to_end() {
    // BEHAVIOURS 13.1.
    let wrong = "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"";
    JOB.valid(json!({}), &[]);
    JOB.valid(json!({"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}), &[wrong]);
    JOB.valid(json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}), &[wrong]);
}

#[test]
fn a_selector_is_generated_unless_it_is_manual() {
    // BEHAVIOURS 13.2.
    let job = JOB.created(json!({})).to_value();
    let labels = json!({
        "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "a",
        "controller-uid": "u", "job-name": "a",
    });
    assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["labels"], labels, "a Job without labels shows its template's");
    let template = |labels: Value| json!({"metadata": {"labels": labels}});
    JOB.valid(
        json!({"spec": {"template": template(json!({"job-name": "other"}))}}),
        &["spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"a\",\"controller-uid\":\"u\",\"job-name\":\"other\"}: must be 'a'"],
    );
    let own = json!({"matchLabels": {"app": "x"}});
    let manual =
        json!({"spec": {"manualSelector": true, "selector": own, "template": template(json!({"app": "x"}))}});
    JOB.valid(manual.clone(), &[]);
    assert_eq!(JOB.created(manual).to_value()["spec"]["template"]["metadata"]["labels"], json!({"app": "x"}));
    JOB.valid(
        json!({"spec": {"manualSelector": true}}),
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
        ],
    );
    JOB.valid(
        json!({"spec": {"selector": own}}),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\",\"batch.kubernetes.io/controller-uid\":\"u\"}}: `selector` not auto-generated", "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"a\",\"controller-uid\":\"u\",\"job-name\":\"a\"}: `selector` does not match template `labels`"],
    );
}

#[test]
fn numbers_and_modes_are_checked() {
    // BEHAVIOURS 13.2, 13.8, 13.9, 13.11.
    JOB.valid(
        json!({"spec": {"parallelism": -1, "completions": -1, "backoffLimit": -1, "activeDeadlineSeconds": -1, "ttlSecondsAfterFinished": -1}}),
        &[
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            "spec.completions: Invalid value: -1: must be greater than or equal to 0",
            "spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            "spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    JOB.valid(
        json!({"spec": {"completionMode": "Sometimes"}}),
        &["spec.completionMode: Unsupported value: \"Sometimes\": supported values: \"NonIndexed\", \"Indexed\", \"PerNode\""],
    );
    JOB.valid(
        json!({"spec": {"completionMode": "PerNode", "completions": 2}}),
        &["spec.completions: Forbidden: may not be set when completion mode is PerNode: each eligible node is one completion"],
    );
    JOB.valid(
        json!({"spec": {"completionMode": "Indexed", "parallelism": 100_001}}),
        &[
            "spec.completions: Required value: when completion mode is Indexed",
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
        ],
    );
    JOB.valid(
        json!({"spec": {"backoffLimitPerIndex": 1, "maxFailedIndexes": 1}}),
        &[
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ],
    );
    JOB.valid(
        json!({"spec": {"completionMode": "Indexed", "completions": 3, "maxFailedIndexes": 4}}),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
        ],
    );
    JOB.valid(
        json!({"metadata": {"name": "a".repeat(62)}, "spec": {"completionMode": "Indexed", "completions": 11}}),
        &[&format!("metadata.name: Invalid value: \"{0}\": will not able to create pod with invalid DNS label: {0}-10", "a".repeat(62))],
    );
    JOB.valid(
        json!({"spec": {"managedBy": "me"}}),
        &["spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    let success = |rule: Value| json!({"spec": {"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [rule]}}});
    JOB.valid(success(json!({"succeededIndexes": "0,2-3", "succeededCount": 2})), &[]);
    JOB.valid(
        success(json!({})),
        &["spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"],
    );
    JOB.valid(
        success(json!({"succeededIndexes": "0,2", "succeededCount": 3})),
        &["spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"],
    );
    JOB.valid(
        success(json!({"succeededIndexes": "4-5"})),
        &["spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"4-5\": error parsing succeededIndexes: too large index: \"5\""],
    );
}

#[test]
fn failure_policies_are_checked() {
    // BEHAVIOURS 13.10.
    let policy = |rule: Value| json!({"spec": {"podFailurePolicy": {"rules": [rule]}}});
    let codes = |operator: &str, values: Value| json!({"operator": operator, "values": values});
    JOB.valid(policy(json!({"action": "FailJob", "onExitCodes": codes("In", json!([1, 42]))})), &[]);
    JOB.valid(
        policy(json!({"action": "FailIndex", "onExitCodes": codes("In", json!([42, 0, 42]))})),
        &[
            "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 42",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [42,0,42]: must be ordered",
        ],
    );
    JOB.valid(
        policy(json!({"action": "Stop", "onExitCodes": {"operator": "Is", "values": [], "containerName": "d"}})),
        &[
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Stop\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            "spec.podFailurePolicy.rules[0].onExitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"d\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: []: at least one value is required",
        ],
    );
    JOB.valid(
        policy(json!({"action": "Ignore"})),
        &["spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"],
    );
    let mut on_failure = policy(json!({"action": "Ignore", "onExitCodes": codes("In", json!([1]))}));
    on_failure["spec"]["template"] = json!({"spec": {"restartPolicy": "OnFailure"}});
    on_failure["spec"]["podReplacementPolicy"] = json!("TerminatingOrFailed");
    JOB.valid(
        on_failure,
        &[
            "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
            "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
        ],
    );
}

#[test]
fn rules_about_traps_are_checked() {
    let with = |text: &str| json!({"metadata": {"annotations": {"coracle.dev/pod-failure-traps": text}}});
    let at = "metadata.annotations[coracle.dev/pod-failure-traps]";
    JOB.valid(with(r#"[{"action": "FailJob", "traps": ["unreachable", "out-of-memory"]}]"#), &[]);
    JOB.valid(
        with(r#"[{"action": "Stop", "traps": []}, {"action": "FailIndex", "traps": ["tiredness"]}]"#),
        &[
            &format!("{at}[0].action: Unsupported value: \"Stop\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\""),
            &format!("{at}[0].traps: Required value: at least one trap must be named"),
            &format!("{at}[1].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
            &format!("{at}[1].traps[0]: Unsupported value: \"tiredness\": supported values: \"deadline\", \"divide-by-zero\", \"indirect-call\", \"integer-overflow\", \"invalid-conversion\", \"null-reference\", \"other\", \"out-of-bounds\", \"out-of-memory\", \"stack-overflow\", \"unreachable\""),
        ],
    );
    JOB.valid(
        with("unreachable"),
        &[&format!("{at}: Invalid value: \"unreachable\": must be a JSON list of rules such as [{{\"action\": \"FailJob\", \"traps\": [\"unreachable\"]}}]: expected value at line 1 column 1")],
    );
}

#[test]
fn little_may_change_afterwards() {
    // BEHAVIOURS 13.2.
    let free = json!({"spec": {"parallelism": 0, "suspend": true, "activeDeadlineSeconds": 5, "backoffLimit": 1, "ttlSecondsAfterFinished": 9}});
    JOB.update(json!({}), free, &[]);
    JOB.update(
        json!({}),
        json!({"spec": {"completions": 2, "completionMode": "Indexed"}}),
        &[
            "spec.completions: Invalid value: 2: can only be modified in tandem with spec.parallelism",
            "spec.completionMode: Invalid value: \"Indexed\": field is immutable",
        ],
    );
    JOB.update(
        json!({}),
        json!({"spec": {"completions": 2}}),
        &["spec.completions: Invalid value: 2: field is immutable"],
    );
    let elastic = json!({"spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2}});
    JOB.update(elastic.clone(), json!({"spec": {"completions": 5, "parallelism": 5}}), &[]);
    JOB.update(
        elastic,
        json!({"spec": {"completions": 5}}),
        &["spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"],
    );
    let directives = json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}}}});
    JOB.update(json!({"spec": {"suspend": true}}), directives.clone(), &[]);
    let (new, old) = JOB.updated(json!({}), directives);
    let mut errors = Errors::default();
    Rules.validate_update(new.downcast_ref().unwrap(), old.downcast_ref().unwrap(), &mut errors);
    assert_eq!(errors.0.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["spec.template"]);
}

#[test]
fn a_status_keeps_its_promises() {
    // BEHAVIOURS 13.3, 13.5.
    let wrong = |before: Value, after: Value| {
        let job = |status: Value| {
            let mut job = JOB.created(json!({})).to_value();
            job["status"] = status;
            serde_json::from_value::<Job>(job).unwrap()
        };
        let mut errors = Errors::default();
        Rules.validate_status_update(&job(after), &job(before), &mut errors);
        crate::kind::testing::lines(&errors)
    };
    let condition = |of: &str| json!({"type": of, "status": "True"});
    let start = "2026-01-01T00:00:00Z";
    assert_eq!(wrong(json!({"failed": 1}), json!({"failed": 2, "active": 1, "ready": 1})), [""; 0]);
    assert_eq!(
        wrong(
            json!({"failed": 2, "succeeded": 1}),
            json!({"failed": 1, "uncountedTerminatedPods": {"succeeded": ["x", "x"], "failed": [""]}})
        ),
        [
            "status.uncountedTerminatedPods.succeeded[1]: Duplicate value: \"x\"",
            "status.uncountedTerminatedPods.failed[0]: Invalid value: \"\": must not be empty",
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.succeeded: Invalid value: null: cannot decrease the succeeded counter",
        ]
    );
    assert_eq!(
        wrong(json!({}), json!({"conditions": [condition("Complete")], "startTime": start, "active": 1})),
        [
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
        ]
    );
    assert_eq!(
        wrong(json!({"conditions": [condition("FailureTarget")]}), json!({})),
        ["status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition"]
    );
}

#[test]
fn tables_show_state_and_progress() {
    JOB.cells(
        json!({"spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": "1970-01-01T00:59:00Z"}}),
        &["a", "Running", "1/3", "60s", "<unknown>", "c", "i", "<none>"],
    );
    JOB.cells(
        json!({"spec": {"parallelism": 4}}),
        &["a", "Running", "0/1 of 4", "", "<unknown>", "c", "i", "<none>"],
    );
    let done = json!({
        "startTime": "1970-01-01T00:00:00Z", "completionTime": "1970-01-01T00:00:05Z", "succeeded": 1,
        "conditions": [{"type": "Complete", "status": "True"}],
    });
    JOB.cells(json!({"status": done}), &["a", "Complete", "1/1", "5s", "<unknown>", "c", "i", "<none>"]);
}
