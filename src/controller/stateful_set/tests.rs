use k8s_openapi::Resource;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1000;

fn spec(change: Value) -> StatefulSetSpec {
    let mut all = json!({
        "replicas": 3, "podManagementPolicy": "OrderedReady", "selector": {}, "template": {}, "serviceName": "s",
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

/// `0` ready and new, `0-` not ready, `0x` going, `0!` failed, `0.` succeeded; `0~` of the old revision.
fn pod(text: &str) -> (i32, Pod) {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let has = |mark: char| text.contains(mark);
    let phase = if has('!') {
        "Failed"
    } else if has('.') {
        "Succeeded"
    } else {
        "Running"
    };
    let ready = if has('-') || has('!') || has('.') { "False" } else { "True" };
    let mut pod = json!({
        "metadata": { "name": format!("w-{digits}"), "labels": { HASH_LABEL: if has('~') { "w-old" } else { "w-new" } } },
        "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:16:30Z" }] },
    });
    if has('x') {
        pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
    }
    (digits.parse().unwrap(), serde_json::from_value(pod).unwrap())
}

fn steps(spec: &StatefulSetSpec, pods: &str) -> String {
    let pods: BTreeMap<i32, Pod> = pods.split_whitespace().map(pod).collect();
    let view = View {
        spec,
        pods: pods.iter().map(|(ordinal, pod)| (*ordinal, pod)).collect(),
        current: "w-old",
        update: "w-new",
        now: Timestamp::from_second(NOW).unwrap(),
    };
    let name = |pod: &Pod| snapshot::name(pod).trim_start_matches("w-").to_owned();
    let steps: Vec<String> = decide(&view)
        .iter()
        .map(|step| match step {
            Step::Create { ordinal, of_update: true } => format!("+{ordinal}"),
            Step::Create { ordinal, of_update: false } => format!("+{ordinal}~"),
            Step::Delete(pod) => format!("-{}", name(pod)),
            Step::Replace(pod) => format!("!{}", name(pod)),
        })
        .collect();
    steps.join(" ")
}

#[track_caller]
fn check(change: Value, cases: &[(&str, &str)]) {
    let spec = spec(change);
    for (pods, expected) in cases {
        assert_eq!(steps(&spec, pods), *expected, "{pods}");
    }
}

#[test]
fn pods_come_one_after_the_other_and_go_the_other_way_round() {
    check(
        json!({}),
        &[
            ("", "+0"),
            ("0-", ""),
            ("0", "+1"),
            ("0 1x", ""),
            ("0 2", "+1"),
            ("0 1 2", ""),
            ("0! 1 2", "!0"),
            ("0. 1 2", "!0"),
            ("0!x 1 2", ""),
            ("0 1 2 3 4", "-4"),
            ("0 1 2 3 4x", ""),
            ("0 1 2 3-", "-3"),
            ("0- 1 2 3", ""),
        ],
    );
    check(json!({ "ordinals": { "start": 5 } }), &[("", "+5"), ("5 6 7", ""), ("4 5 6 7", "-4")]);
    check(json!({ "replicas": 0 }), &[("0 1", "-1"), ("", "")]);
    // Readiness must have lasted.
    check(json!({ "minReadySeconds": 20 }), &[("0", "")]);
    check(json!({ "minReadySeconds": 10 }), &[("0", "+1")]);
}

#[test]
fn parallel_management_waits_for_nobody() {
    check(
        json!({ "podManagementPolicy": "Parallel" }),
        &[("", "+0 +1 +2"), ("0- 2", "+1"), ("0- 1 2 3 4-", "-4 -3"), ("0! 1", "!0 +2")],
    );
}

#[test]
fn an_update_goes_from_the_highest_down_to_the_partition() {
    check(
        json!({}),
        &[
            ("0~ 1~ 2~", "-2"),
            ("0~ 1~ 2~x", ""),
            ("0~ 1~", "+2"),
            ("0~ 1~ 2-", ""),
            ("0~ 1~ 2", "-1"),
            ("0 1 2", ""),
        ],
    );
    let partition = json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } });
    check(partition, &[("0~ 1~ 2~", "-2"), ("0~ 1~ 2", ""), ("0~ 2", "+1~")]);
    let on_delete = json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } });
    check(on_delete, &[("0~ 1~ 2~", ""), ("0~ 1~", "+2")]);
    check(json!({ "podManagementPolicy": "Parallel" }), &[("0~ 1~ 2~", "-2"), ("0~ 1~ 2-", "")]);
}

#[test]
fn counts_tell_the_revisions_apart() {
    let spec = spec(json!({}));
    let count = |pods: &str| {
        let pods: BTreeMap<i32, Pod> = pods.split_whitespace().map(pod).collect();
        let view = View {
            spec: &spec,
            pods: pods.iter().map(|(ordinal, pod)| (*ordinal, pod)).collect(),
            current: "w-old",
            update: "w-new",
            now: Timestamp::from_second(NOW).unwrap(),
        };
        let status = view.count();
        let number = Option::unwrap_or_default;
        (
            [
                status.replicas,
                number(status.ready_replicas),
                number(status.available_replicas),
                number(status.current_replicas),
                number(status.updated_replicas),
            ],
            status.current_revision.unwrap(),
        )
    };
    assert_eq!(count("0~ 1~ 2-"), ([3, 2, 2, 2, 1], "w-old".to_owned()));
    assert_eq!(count("0~ 1~x 2"), ([3, 3, 2, 1, 1], "w-old".to_owned()));
    // Done: what was new is what is there.
    assert_eq!(count("0 1 2"), ([3, 3, 3, 3, 3], "w-new".to_owned()));
}

#[test]
fn names_tell_the_ordinal() {
    let set = StatefulSet {
        metadata: serde_json::from_value(json!({ "name": "w", "namespace": "n", "uid": "u" })).unwrap(),
        spec: Some(spec(json!({}))),
        status: None,
    };
    for (name, expected) in
        [("w-0", Some(0)), ("w-12", Some(12)), ("w-01", None), ("w--1", None), ("w-x", None), ("v-0", None)]
    {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        assert_eq!(ordinal(&set, &pod), expected, "{name}");
    }
    let seen = Snapshot::new(StatefulSets.indexes());
    let made = create(&seen, &set, 3, &PodTemplateSpec::default(), "w-new");
    let [Action::InOrder(made)] = &made[..] else { panic!("{made:?}") };
    let Action::Create(_, pod) = &made[0] else { panic!("{made:?}") };
    let pod = pod.to_value();
    assert_eq!(pod["metadata"]["labels"], json!({ POD_NAME: "w-3", POD_INDEX: "3", HASH_LABEL: "w-new" }));
    assert_eq!(
        [&pod["metadata"]["name"], &pod["spec"]["hostname"], &pod["spec"]["subdomain"]],
        ["w-3", "w-3", "s"]
    );
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], StatefulSet::KIND);
}
