use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::client::remote::ObjectHistory;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

fn parse(line: &str) -> Result<Config, String> {
    let words = std::iter::once("config").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.config).map_err(|error| error.to_string())
}

#[track_caller]
fn target(text: &str) -> Target {
    let Ok(Config { command: ConfigCommand::History { of, .. } }) = parse(&format!("history {text}")) else {
        panic!("{text} is a target")
    };
    of.target
}

#[test]
fn kinds_have_their_short_and_long_names() {
    for text in ["configmap/a.b", "configmaps/a.b", "cm/a.b", "ConfigMap/a.b"] {
        assert_eq!(target(text), Target { kind: Kind::ConfigMap, name: "a.b".into() }, "{text}");
    }
    for text in ["secret/x", "secrets/x"] {
        assert_eq!(target(text), Target { kind: Kind::Secret, name: "x".into() }, "{text}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_mend() {
    for (line, error) in [
        (
            "history pod/x",
            "\"pod\" has no history that could be shown; it must be configmap/NAME or secret/NAME",
        ),
        ("history x", "it must be configmap/NAME or secret/NAME"),
        ("undo cm/", "\"\" is not a name; it must be configmap/NAME or secret/NAME"),
        ("diff cm/a/b", "\"a/b\" is not a name"),
        ("undo cm/x --to-revision many", "invalid value 'many' for '--to-revision <REVISION>'"),
        ("history cm/x -o table", "[possible values: json, yaml]"),
        ("history", "<KIND/NAME>"),
        ("diff cm/x --show", "unexpected argument '--show'"),
    ] {
        let refused = parse(line).err().unwrap_or_else(|| panic!("{line} is refused"));
        assert!(refused.contains(error), "{line}: {refused}");
    }
}

#[test]
fn options_are_taken() {
    let line = "diff secret/x -n prod --from 3 --to 9 --show-secrets --context c --kubeconfig k";
    let Ok(Config { command: ConfigCommand::Diff { of, from, to, show_secrets } }) = parse(line) else {
        panic!("a diff")
    };
    assert_eq!((from, to, show_secrets), (Some(3), Some(9), true));
    assert_eq!(of.cluster.namespace.as_deref(), Some("prod"));
    let access = of.cluster.access().unwrap();
    assert_eq!((access.kubeconfigs, access.context.as_deref()), (vec!["k".into()], Some("c")));
}

fn kept<K: Configuration>(items: Value) -> Kept<K> {
    let history = json!({"since": 0, "truncated": true, "items": items});
    let history: ObjectHistory<K> = serde_json::from_value(history).unwrap();
    Kept { target: format!("{}/x", K::WORD), history }
}

/// The hash is the data's text.
fn put(revision: u64, data: Value) -> Value {
    let hash = data.to_string();
    let metadata = json!({
        "name": "x", "namespace": "n", "uid": "u", "resourceVersion": revision.to_string(),
        "labels": {"at": revision.to_string()}, "ownerReferences": [], "finalizers": ["f"],
    });
    json!({
        "revision": revision, "type": "Modified", "hash": hash,
        "object": {"metadata": metadata, "data": data},
    })
}

fn deleted(revision: u64) -> Value {
    json!({"revision": revision, "type": "Deleted"})
}

fn destroyed(revision: u64) -> Value {
    json!({"revision": revision, "type": "Modified", "destroyed": true})
}

/// `replace KEY=VALUE… at N`, `create …`, `nothing`, or the error.
fn undone<K: Configuration>(kept: &Kept<K>, asked: Option<u64>) -> String {
    let decide = || undo::decide(kept, undo::target(kept, asked)?);
    let show = |word: &str, object: &K| {
        let entries = object.entries();
        let values = entries.iter().map(|(key, value)| match value {
            content::Value::Text(text) => format!("{key}={text}"),
            content::Value::Bytes(bytes) | content::Value::Hidden(bytes) => {
                format!("{key}={}", String::from_utf8_lossy(bytes))
            }
        });
        let meta = object.metadata();
        let version = meta.resource_version.as_deref().unwrap_or("-");
        let label = &meta.labels.as_ref().unwrap()["at"];
        let finalizers = meta.finalizers.iter().flatten().count();
        let values = values.collect::<Vec<_>>().join(" ");
        format!("{word} {values} over {version}, label {label}, {finalizers} finalizers")
    };
    match decide() {
        Ok(Undo::Nothing) => "nothing".into(),
        Ok(Undo::Replace(object)) => show("replace", &object),
        Ok(Undo::Create(object)) => show("create", &object),
        Err(error) => error,
    }
}

#[track_caller]
fn undoes(items: Value, asked: Option<u64>, expected: &str) {
    assert_eq!(undone(&kept::<ConfigMap>(items), asked), expected);
}

#[test]
fn undo_goes_back_to_the_content_before() {
    let (a, b) = (json!({"k": "a"}), json!({"k": "b"}));
    let items = json!([put(3, a.clone()), put(5, b.clone()), put(6, b.clone())]);
    undoes(items, None, "replace k=a over 6, label 6, 1 finalizers");
    // Done once more, it takes itself back.
    let items = json!([put(3, a.clone()), put(5, b.clone()), put(7, a.clone())]);
    undoes(items.clone(), None, "replace k=b over 7, label 7, 1 finalizers");
    undoes(items.clone(), Some(3), "nothing");
    undoes(items.clone(), Some(5), "replace k=b over 7, label 7, 1 finalizers");
    undoes(items.clone(), Some(4), "configmap/x has no revision 4; it has 3, 5, 7");
    undoes(
        items,
        Some(2),
        "configmap/x has no revision 2 any more: older history was dropped; it has 3, 5, 7",
    );
    undoes(
        json!([put(3, a.clone()), put(4, a)]),
        None,
        "configmap/x has no kept content before revision 4 that differs from it",
    );
}

#[test]
fn undo_makes_again_what_was_deleted() {
    let (a, b) = (json!({"k": "a"}), json!({"k": "b"}));
    let items = json!([put(3, a.clone()), put(5, b.clone()), deleted(8)]);
    undoes(items.clone(), None, "create k=b over -, label 5, 0 finalizers");
    undoes(items.clone(), Some(3), "create k=a over -, label 3, 0 finalizers");
    undoes(items, Some(8), "at revision 8 configmap/x was deleted; name a revision that has content");
    // Deleted and made again since: the content before is that of the one that went.
    undoes(json!([put(3, a), deleted(4), put(6, b)]), None, "replace k=a over 6, label 6, 1 finalizers");
}

#[test]
fn undo_keeps_the_rules() {
    let mut sealed = put(5, json!({"k": "b"}));
    sealed["object"]["immutable"] = true.into();
    let items = json!([put(3, json!({"k": "a"})), sealed]);
    undoes(
        items.clone(),
        None,
        "configmap/x is immutable, so its content cannot be restored in place; \
         delete it, and undo with --to-revision 3 makes it again",
    );
    undoes(items, Some(5), "nothing");

    let of_type = |revision, name: &str| {
        let mut item = put(revision, json!({"k": "dg=="}));
        item["object"]["type"] = name.into();
        item["hash"] = name.into();
        item
    };
    let kept_types = kept::<Secret>(json!([of_type(3, "Opaque"), of_type(6, "example.com/own")]));
    assert_eq!(
        undone(&kept_types, None),
        "secret/x is of type example.com/own now and was of type Opaque at revision 3, and a type cannot \
         change; delete it, and undo with --to-revision 3 makes it again"
    );
    let gone = kept::<Secret>(json!([destroyed(3), deleted(4)]));
    let why = "the content of secret/x at revision 3 was destroyed when it was deleted; nobody can read it any more";
    assert_eq!(undone(&gone, None), why);
    let anew = kept::<Secret>(json!([destroyed(3), deleted(4), of_type(5, "Opaque")]));
    assert_eq!(undone(&anew, None), why);
}

#[track_caller]
fn differs<K: Configuration>(old: Value, new: Value, show_secrets: bool, expected: &str) {
    let item =
        |revision: u64, object: Value| json!({"revision": revision, "type": "Modified", "object": object});
    let kept = kept::<K>(json!([item(3, old), item(5, new)]));
    let text = differences(&kept, kept.at(3).unwrap(), kept.at(5).unwrap(), show_secrets).unwrap();
    assert_eq!(text, expected);
}

#[test]
fn differences_are_told_by_key() {
    differs::<ConfigMap>(
        json!({"data": {"same": "s", "k": "one\ntwo\nthree\n", "old": "x"}}),
        json!({"data": {"same": "s", "k": "one\n2\nthree\n", "new": "y\n"}}),
        false,
        "--- configmap/x data/k (revision 3)\n+++ configmap/x data/k (revision 5)\n\
         @@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
         --- /dev/null\n+++ configmap/x data/new (revision 5)\n@@ -0,0 +1 @@\n+y\n\
         --- configmap/x data/old (revision 3)\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
         \\ No newline at end of file\n",
    );
    differs::<ConfigMap>(json!({"data": {}, "metadata": {"name": "y"}}), json!({}), false, "");
    differs::<ConfigMap>(
        json!({"binaryData": {"k": "AAE="}}),
        json!({"binaryData": {"k": "AAEC"}}),
        false,
        "--- configmap/x binaryData/k (revision 3)\n+++ configmap/x binaryData/k (revision 5)\n\
         Binary values differ: 2 bytes sha256:b413f47d13ee, 3 bytes sha256:ae4b3280e56e\n",
    );
}

#[test]
fn values_of_secrets_are_masked() {
    // hunter2, hunter3
    let (old, new) = (
        json!({"type": "Opaque", "data": {"gone": "aHVudGVyMg==", "k": "aHVudGVyMg=="}}),
        json!({"type": "example.com/own", "data": {"k": "aHVudGVyMw=="}}),
    );
    differs::<Secret>(
        old.clone(),
        new.clone(),
        false,
        "--- secret/x type (revision 3)\n+++ secret/x type (revision 5)\n-Opaque\n+example.com/own\n\
         --- secret/x data/gone (revision 3)\n+++ /dev/null\n-***\n\
         --- secret/x data/k (revision 3)\n+++ secret/x data/k (revision 5)\n-*** (before)\n+*** (after)\n",
    );
    differs::<Secret>(
        old,
        new,
        true,
        "--- secret/x type (revision 3)\n+++ secret/x type (revision 5)\n-Opaque\n+example.com/own\n\
         --- secret/x data/gone (revision 3)\n+++ /dev/null\n@@ -1 +0,0 @@\n-hunter2\n\
         \\ No newline at end of file\n\
         --- secret/x data/k (revision 3)\n+++ secret/x data/k (revision 5)\n@@ -1 +1 @@\n-hunter2\n\
         \\ No newline at end of file\n+hunter3\n\\ No newline at end of file\n",
    );
}
