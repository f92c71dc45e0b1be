use serde_json::json;

use super::*;
use crate::kind::pod::KIND;

#[track_caller]
fn check(original: Value, patch: Value, expected: Value) {
    let Value::Object(original) = original else { panic!("{original} is an object") };
    assert_eq!(merge(original, patch, Shape::of_kind(&KIND)).unwrap(), expected);
}

#[track_caller]
fn refused(original: Value, patch: Value, why: &str) {
    let Value::Object(original) = original else { panic!("{original} is an object") };
    let error = merge(original, patch, Shape::of_kind(&KIND)).unwrap_err();
    assert!(error.contains(why), "{error}");
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn lists_merge_by_key_and_others_are_replaced() {
    check(
        containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])),
        containers(json!([{"name": "b", "image": "z"}])),
        containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "z"}])),
    );
    check(
        containers(json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}])),
        containers(json!([{"name": "a", "env": [{"name": "Y", "value": "3"}, {"name": "Z", "value": "4"}]}])),
        containers(json!([{"name": "a", "env": [
            {"name": "X", "value": "1"}, {"name": "Y", "value": "3"}, {"name": "Z", "value": "4"}]}])),
    );
    check(
        containers(json!([{"name": "a", "args": ["1", "2"], "ports": [{"containerPort": 80, "name": "p"}]}])),
        containers(
            json!([{"name": "a", "args": ["3"], "ports": [{"containerPort": 80, "protocol": "UDP"}]}]),
        ),
        containers(json!([{"name": "a", "args": ["3"],
            "ports": [{"containerPort": 80, "name": "p", "protocol": "UDP"}]}])),
    );
    check(
        json!({"spec": {"tolerations": [{"key": "a"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
    );
}

#[test]
fn nulls_delete_and_are_dropped_from_what_is_new() {
    check(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}}}),
        json!({"metadata": {"labels": {"a": null, "x": null}, "annotations": null}, "spec": {"nodeName": null}}),
        json!({"metadata": {"labels": {"b": "2"}}, "spec": {}}),
    );
}

#[test]
fn primitive_lists_are_sets() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    check(
        finalizers(json!(["a/a", "b/b"])),
        finalizers(json!(["c/c", "a/a"])),
        finalizers(json!(["c/c", "a/a", "b/b"])),
    );
    check(
        finalizers(json!(["a/a", "b/b"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}}),
        finalizers(json!(["b/b"])),
    );
    check(
        finalizers(json!(["a/a", "b/b"])),
        json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b/b"],
            "$setElementOrder/finalizers": ["c/c", "a/a"],
            "finalizers": ["c/c"]}}),
        finalizers(json!(["c/c", "a/a"])),
    );
}

#[test]
fn elements_are_deleted_and_replaced_by_directive() {
    let two = || containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    check(
        two(),
        containers(json!([{"name": "a", "$patch": "delete"}])),
        containers(json!([{"name": "b", "image": "y"}])),
    );
    check(
        two(),
        containers(json!([{"name": "c"}, {"$patch": "replace"}])),
        containers(json!([{"name": "c"}])),
    );
    check(
        two(),
        containers(json!([{"name": "a", "$patch": "merge", "image": "z"}])),
        containers(json!([{"name": "a", "image": "z"}, {"name": "b", "image": "y"}])),
    );
    check(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
        json!({"metadata": {"labels": {"b": "2"}}}),
    );
    check(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
        json!({"metadata": {"labels": {}}}),
    );
}

#[test]
fn the_order_is_the_patches_with_others_between() {
    let named = |names: &[&str]| containers(names.iter().map(|name| json!({"name": name})).collect());
    let order = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
    check(
        named(&["a", "b", "c"]),
        json!({"spec": {"$setElementOrder/containers": order(&["c", "a"])}}),
        named(&["b", "c", "a"]),
    );
    check(
        named(&["a", "b"]),
        json!({"spec": {"$setElementOrder/containers": order(&["new", "a", "b"]), "containers": [{"name": "new"}]}}),
        named(&["new", "a", "b"]),
    );
    refused(
        named(&["a"]),
        json!({"spec": {"$setElementOrder/containers": order(&["a"]), "containers": [{"name": "b"}]}}),
        "doesn't match $setElementOrder/containers list",
    );
}

#[test]
fn retain_keys_clears_the_rest() {
    let volumes = |list: Value| json!({"spec": {"volumes": list}});
    check(
        volumes(json!([{"name": "v", "emptyDir": {}}])),
        volumes(json!([{"name": "v", "configMap": {"name": "m"}, "$retainKeys": ["name", "configMap"]}])),
        volumes(json!([{"name": "v", "configMap": {"name": "m"}}])),
    );
    refused(
        volumes(json!([{"name": "v", "emptyDir": {}}])),
        volumes(json!([{"name": "v", "configMap": {}, "$retainKeys": ["name"]}])),
        "$retainKeys",
    );
}

#[test]
fn nonsense_is_refused() {
    refused(json!({}), json!({"$patch": "x"}), "unknown patch type");
    refused(
        containers(json!([{"name": "a"}])),
        containers(json!([{"image": "x"}])),
        "does not contain declared merge key: name",
    );
    refused(containers(json!([{"name": "a"}])), containers(json!(["x"])), "list of objects");
    refused(json!({}), json!(["x"]), "an object");
}
