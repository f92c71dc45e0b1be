use super::*;
use serde_json::{Value, json};

fn map(revision: &str, data: Value) -> ConfigMap {
    let mut map: ConfigMap = serde_json::from_value(data).unwrap();
    map.metadata.resource_version = Some(revision.to_owned());
    map
}

#[test]
fn a_change_is_the_revision_at_which_the_content_changed() {
    let [old, touched, new] = [("3", "v"), ("4", "v"), ("5", "w")]
        .map(|(revision, value)| version(&map(revision, json!({"data": {"k": value}}))));
    assert_eq!(settle(None, old).revision, 3);
    assert_eq!(settle(Some(&old), touched).revision, 3);
    assert_eq!(settle(Some(&old), new).revision, 5);
}

#[test]
fn what_stays_the_same_is_shared() {
    let before = Content::of(&map("1", json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}})));
    let after = Content::of(&map("2", json!({"data": {"a": "1", "b": "3"}}))).sharing(Some(&before));
    assert_eq!(after.values["a"].as_ptr(), before.values["a"].as_ptr());
    assert_eq!((&after.values["b"][..], after.values.len()), (&b"3"[..], 2));
}
