use serde_json::json;

use super::*;
use crate::kind::config_map::KIND;

fn apply(media_type: &str, patch: Value, current: Value) -> Result<Value, Error> {
    Patch::from_value(Some(media_type), patch)?.apply(&KIND, current)
}

#[test]
fn merge_patches_delete_by_null_and_replace_lists() {
    for (current, patch, expected) in [
        (
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"a": null, "c": "3"}}),
            json!({"data": {"b": "2", "c": "3"}}),
        ),
        (json!({"l": [1, 2]}), json!({"l": [3]}), json!({"l": [3]})),
    ] {
        assert_eq!(apply(MERGE, patch, current).unwrap(), expected);
    }
    assert_eq!(apply(MERGE, json!([]), json!({})).unwrap_err().code(), 400);
}

#[test]
fn json_patches_apply_in_order() {
    let patch = json!([
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "copy", "from": "/data/a", "path": "/data/b"},
        {"op": "move", "from": "/data/a", "path": "/data/c"},
        {"op": "add", "path": "/data/x~1y", "value": "3"},
        {"op": "remove", "path": "/data/c"},
    ]);
    let patched = apply(&format!("{JSON}; charset=utf-8"), patch, json!({"data": {"a": "1"}})).unwrap();
    assert_eq!(patched, json!({"data": {"b": "2", "x/y": "3"}}));
}

#[test]
fn json_patches_that_fail_are_422() {
    for operation in [
        json!({"op": "test", "path": "/data/a", "value": "2"}),
        json!({"op": "remove", "path": "/data/b"}),
        json!({"op": "replace", "path": "/data/b", "value": ""}),
        json!({"op": "add", "path": "/x/y", "value": ""}),
    ] {
        let error = apply(JSON, json!([operation]), json!({"data": {"a": "1"}})).unwrap_err();
        assert_eq!((error.code(), error.reason()), (422, "Invalid"), "{operation}");
    }
    assert_eq!(apply(JSON, json!({"op": "x"}), json!({})).unwrap_err().code(), 400);
}

#[test]
fn json_patches_are_bounded() {
    let many: Value = (0..=OPERATIONS_MAX).map(|_| json!({"op": "test", "path": "", "value": {}})).collect();
    assert_eq!(apply(JSON, many, json!({})).unwrap_err().code(), 413);
    let doubling: Value =
        (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/{i}")})).collect();
    assert_eq!(apply(JSON, doubling, json!({"a": "b"})).unwrap_err().code(), 413);
    let deep: Value =
        (1..300).map(|depth| json!({"op": "add", "path": "/a".repeat(depth), "value": {}})).collect();
    assert_eq!(apply(JSON, deep, json!({})).unwrap_err().code(), 422);
}

#[test]
fn other_media_types_are_415() {
    for media_type in ["application/json", "application/apply-patch+yaml", ""] {
        let error = apply(media_type, json!({}), json!({})).unwrap_err();
        assert_eq!(error.code(), 415, "{media_type}");
        assert!(error.to_string().starts_with(
            "the body of the request was in an unknown format - accepted media types include: "
        ));
    }
}
