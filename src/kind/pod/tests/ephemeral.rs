use k8s_openapi::api::core::v1::Pod;

use super::{BASE, KIND};
use crate::kind::testing::{lines, patched};

/// Puts `new` in the place of `old`, each the list of a pod's ephemeral containers with `more` of its spec,
/// through the subresource; the lines are relative to `spec.ephemeralContainers`.
#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let with = |list: &str| patched(&KIND, BASE, &format!("{{spec: {{ephemeralContainers: [{list}]}}}}"));
    let old = with(old);
    let mut changed = with(new);
    KIND.strategy.prepare_ephemeral_update(&mut *changed, &*old);
    let found = lines(&KIND.strategy.validate_ephemeral_update(&*changed, &*old));
    let expected: Vec<String> =
        expected.iter().map(|line| format!("spec.ephemeralContainers{line}")).collect();
    assert_eq!(found, expected, "{new}");
}

const GOOD: &str = "{name: debug, image: tools}";

/// 8.6
#[test]
fn containers_are_only_added() {
    check("", GOOD, &[]);
    check(GOOD, GOOD, &[]);
    check(
        GOOD,
        &format!("{{name: other, image: tools, targetContainerName: app, stdin: true, tty: true}}, {GOOD}"),
        &[],
    );
    check(GOOD, "", &[": Forbidden: existing ephemeral containers \"debug\" may not be removed\n"]);
    check(
        GOOD,
        "{name: debug, image: 'tools:v2'}",
        &[": Forbidden: existing ephemeral containers \"debug\" may not be changed\n\
           debug.image: \"tools\" → \"tools:v2\"\ndebug.imagePullPolicy: \"Always\" → \"IfNotPresent\""],
    );
}

#[test]
fn what_serves_a_pod_s_work_is_refused() {
    let unset = "cannot be set for an Ephemeral Container";
    for (fields, expected) in [
        ("name: ''", vec!["[0].name: Required value".to_owned()]),
        ("name: app", vec!["[0].name: Duplicate value: \"app\"".to_owned()]),
        ("image: ''", vec!["[0].image: Required value".to_owned()]),
        ("targetContainerName: b", vec!["[0].targetContainerName: Not found: \"b\"".to_owned()]),
        ("ports: [{containerPort: 1}]", vec![format!("[0].ports: Forbidden: {unset}")]),
        ("resources: {limits: {cpu: 1}}", vec![format!("[0].resources: Forbidden: {unset}")]),
        ("restartPolicy: Always", vec![format!("[0].restartPolicy: Forbidden: {unset}")]),
        ("livenessProbe: {exec: {command: [a]}}", vec![format!("[0].livenessProbe: Forbidden: {unset}")]),
        ("readinessProbe: {exec: {command: [a]}}", vec![format!("[0].readinessProbe: Forbidden: {unset}")]),
        ("startupProbe: {exec: {command: [a]}}", vec![format!("[0].startupProbe: Forbidden: {unset}")]),
        ("lifecycle: {preStop: {sleep: {seconds: 1}}}", vec![format!("[0].lifecycle: Forbidden: {unset}")]),
        ("resources: {}, ports: []", vec![]),
        ("securityContext: {capabilities: {add: [SYS_PTRACE]}}", vec![]),
        (
            "volumeMounts: [{name: v, mountPath: /v, subPath: a}]",
            vec![
                "[0].volumeMounts[0].name: Not found: \"v\"".to_owned(),
                format!("[0].volumeMounts[0].subPath: Forbidden: {unset}"),
            ],
        ),
    ] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        let name = if fields.starts_with("name") { "" } else { "name: debug, " };
        let image = if fields.starts_with("image") { "" } else { "image: a, " };
        check("", &format!("{{{name}{image}{fields}}}"), &expected);
    }
    check("", &format!("{GOOD}, {GOOD}"), &["[1].name: Duplicate value: \"debug\""]);
}

#[test]
fn nothing_but_the_list_changes_and_only_there() {
    let added =
        format!("{{metadata: {{labels: {{a: b}}}}, spec: {{hostname: h, ephemeralContainers: [{GOOD}]}}}}");
    let old = patched(&KIND, BASE, "{}");
    let mut new = patched(&KIND, BASE, &added);
    KIND.strategy.prepare_ephemeral_update(&mut *new, &*old);
    let pod: &Pod = new.downcast_ref().unwrap();
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((&pod.metadata.labels, &spec.hostname), (&None, &None));
    let one = &spec.ephemeral_containers.as_ref().unwrap()[0];
    assert_eq!(one.termination_message_path.as_deref(), Some("/dev/termination-log"));
    assert_eq!(one.image_pull_policy.as_deref(), Some("Always"));

    let created = lines(&KIND.strategy.validate_create(&*new));
    assert_eq!(created, ["spec.ephemeralContainers: Forbidden: cannot be set on create"]);
    let refused = lines(&KIND.strategy.validate_update(&*new, &*old));
    assert!(refused[0].starts_with("spec: Forbidden: pod updates may not change"), "{refused:?}");
    // A pod that has some can still be changed otherwise.
    assert_eq!(lines(&KIND.strategy.validate(&*new)), [""; 0]);
}
