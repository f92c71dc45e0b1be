use super::*;
use crate::kind::config_map;
use crate::kind::field::dns_subdomain;
use crate::kind::testing::lines;
use serde_json::{Value, json};

/// Checks that the metadata, named `a` in namespace `n` unless it says otherwise, is refused with
/// exactly these errors as `field: message`.
#[track_caller]
fn check(meta: Value, expected: &[&str]) {
    let mut whole = json!({"name": "a", "namespace": "n"});
    merge(&mut whole, meta);
    let mut errors = Errors::default();
    validate(&serde_json::from_value(whole).unwrap(), &config_map::KIND, &mut errors);
    assert_eq!(lines(&errors), expected);
}

#[track_caller]
fn check_update(old: Value, change: Value, expected: &[&str]) {
    let mut before =
        json!({"name": "a", "namespace": "n", "uid": "1", "creationTimestamp": "2024-01-01T00:00:00Z"});
    merge(&mut before, old);
    let mut after = before.clone();
    merge(&mut after, change);
    let mut errors = Errors::default();
    validate_update(
        &serde_json::from_value(after).unwrap(),
        &serde_json::from_value(before).unwrap(),
        &mut errors,
    );
    assert_eq!(lines(&errors), expected);
}

fn merge(into: &mut Value, from: Value) {
    json_patch::merge(into, &from);
}

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

#[test]
fn names_and_namespaces_are_checked_on_create() {
    check(json!({}), &[]);
    check(json!({"name": null}), &["metadata.name: Required value: name or generateName is required"]);
    check(json!({"namespace": null}), &["metadata.namespace: Required value"]);
    check(json!({"generateName": "web-"}), &[]);
    let rule = field_rule();
    check(json!({"name": "A"}), &[&format!("metadata.name: Invalid value: \"A\": {rule}")]);
    check(json!({"generateName": "-"}), &[&format!("metadata.generateName: Invalid value: \"-\": {rule}")]);
}

fn field_rule() -> String {
    dns_subdomain("A").remove(0)
}

#[test]
fn labels_have_qualified_keys_and_short_values() {
    let long = "x".repeat(64);
    check(json!({"labels": {"app": "", "example.com/App_1": "a.B-c"}}), &[]);
    check(
        json!({"labels": {"a b": "c"}}),
        &[&format!("metadata.labels: Invalid value: \"a b\": name part {NAME_RULE}")],
    );
    check(
        json!({"labels": {"/a": "b"}}),
        &["metadata.labels: Invalid value: \"/a\": prefix part must be non-empty"],
    );
    check(
        json!({"labels": {"a/b/c": "d"}}),
        &[&format!(
            "metadata.labels: Invalid value: \"a/b/c\": a qualified name {NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )],
    );
    check(
        json!({"labels": {"a": long}}),
        &[&format!("metadata.labels: Invalid value: \"{long}\": must be no more than 63 characters")],
    );
    check(
        json!({"labels": {"a": "-"}}),
        &[
            "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
}

#[test]
fn annotations_are_bounded_in_total() {
    check(json!({"annotations": {"Example.COM/Note": "anything at all\n"}}), &[]);
    check(json!({"annotations": {"a": "x".repeat(ANNOTATIONS_BYTES_MAX - 1)}}), &[]);
    check(
        json!({"annotations": {"a": "x".repeat(ANNOTATIONS_BYTES_MAX / 2), "b": "x".repeat(ANNOTATIONS_BYTES_MAX / 2)}}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
}

#[test]
fn owners_are_complete_and_at_most_one_controls() {
    let owner = json!({"apiVersion": "apps/v1", "kind": "A", "name": "a", "uid": "1", "controller": true});
    check(json!({"ownerReferences": [owner]}), &[]);
    check(
        json!({"ownerReferences": [{"apiVersion": "", "kind": "", "name": "", "uid": ""}]}),
        &[
            "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
            "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
            "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
        ],
    );
    let mut errors = Errors::default();
    let owner: OwnerReference = serde_json::from_value(owner).unwrap();
    owners(&[owner.clone(), owner], &Path::new("o"), &mut errors);
    assert!(
        errors.0[0].message.ends_with(
            "Only one reference can have Controller set to true. Found \"true\" in references for A/a and A/a"
        ),
        "{errors:?}"
    );
}

#[test]
fn finalizers_need_a_domain() {
    check(json!({"finalizers": ["kubernetes", "orphan", "example.com/hold"]}), &[]);
    check(
        json!({"finalizers": ["hold"]}),
        &[
            "metadata.finalizers[0]: Invalid value: \"hold\": name is neither a standard finalizer name nor is it fully qualified",
        ],
    );
    check(
        json!({"finalizers": ["orphan", "foregroundDeletion"]}),
        &[
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
        ],
    );
}

#[test]
fn identity_does_not_change() {
    check_update(json!({}), json!({"labels": {"a": "b"}}), &[]);
    check_update(json!({}), json!({"uid": "2"}), &["metadata.uid: Invalid value: \"2\": field is immutable"]);
    check_update(
        json!({}),
        json!({"creationTimestamp": "2025-01-01T00:00:00Z"}),
        &["metadata.creationTimestamp: Invalid value: \"2025-01-01T00:00:00Z\": field is immutable"],
    );
    check_update(
        json!({}),
        json!({"name": "b", "namespace": "m"}),
        &[
            "metadata.name: Invalid value: \"b\": field is immutable",
            "metadata.namespace: Invalid value: \"m\": field is immutable",
        ],
    );
    check_update(
        json!({"generation": 3}),
        json!({"generation": 2}),
        &["metadata.generation: Invalid value: 2: must not be decremented"],
    );
}

#[test]
fn a_deleted_object_takes_no_new_finalizers() {
    let deleted = json!({"deletionTimestamp": "2024-01-02T00:00:00Z", "finalizers": ["example.com/a", "example.com/b"]});
    check_update(deleted.clone(), json!({"finalizers": ["example.com/b"]}), &[]);
    check_update(deleted.clone(), json!({"finalizers": null}), &[]);
    check_update(
        deleted,
        json!({"finalizers": ["example.com/c"]}),
        &["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"],
    );
}
