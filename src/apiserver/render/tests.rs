use super::*;
use crate::kind::config_map::KIND;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map.metadata.resource_version = Some("7".into());
    map
}

fn view(form: Form) -> View {
    View { form, include: Include::Metadata, clock: Clock::real() }
}

fn text(pieces: &[Bytes]) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

#[tokio::test]
async fn an_object_has_the_form_that_was_asked_for() {
    for (form, expected) in [
        (
            Form::AsIs,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"a"}}"#,
        ),
        (
            Form::Metadata("meta.k8s.io/v1"),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","resourceVersion":"7"}}"#,
        ),
    ] {
        assert_eq!(view(form).object(&KIND, &map("a")).unwrap(), expected);
    }
    let table = view(Form::Table("meta.k8s.io/v1")).object(&KIND, &map("a")).unwrap();
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["metadata"]["resourceVersion"], "7");
    assert_eq!(view(Form::MetadataList("meta.k8s.io/v1")).object(&KIND, &map("a")).unwrap_err().code(), 406);
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let list = || List {
        kind: &KIND,
        revision: 9,
        records: Vec::new(),
        continue_token: Some("t".into()),
        remaining: Some(3),
    };
    let mut writer = view(Form::AsIs).list(list()).unwrap();
    let promised = writer.bytes_left().unwrap();
    let written = text(&writer.next_piece().unwrap());
    assert_eq!(
        written,
        r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"t","remainingItemCount":3},"items":[]}"#
    );
    assert_eq!(promised, u64::try_from(written.len()).unwrap());
    assert_eq!(writer.next_piece(), None);
    let mut writer = view(Form::Table("meta.k8s.io/v1")).list(list()).unwrap();
    assert_eq!(writer.bytes_left(), None);
    let table: Value = serde_json::from_str(&text(&writer.next_piece().unwrap())).unwrap();
    assert_eq!(table["rows"], json!([]));
    assert_eq!(view(Form::Metadata("meta.k8s.io/v1")).list(list()).err().unwrap().code(), 406);
}

#[tokio::test]
async fn events_are_lines() {
    let error = Error::too_old(1, 5);
    for (form, event, expected) in [
        (
            Form::AsIs,
            WatchEvent::Bookmark { revision: 8, initial_end: true },
            r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"8","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
        ),
        (
            Form::Metadata("meta.k8s.io/v1"),
            WatchEvent::Bookmark { revision: 8, initial_end: false },
            r#"{"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"8"}}}"#,
        ),
        (
            Form::Table("meta.k8s.io/v1"),
            WatchEvent::Error(error.0),
            r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (5)","reason":"Expired","code":410}}"#,
        ),
    ] {
        let mut pieces = Vec::new();
        view(form).watch(&KIND).unwrap().write(&event, &mut pieces);
        assert_eq!(text(&pieces), format!("{expected}\n"));
    }
}

#[test]
fn yaml_keeps_strings_strings() {
    let json = br#"{"b":["1","true","null","~","1e3","a: b","","yes","0x1f","2024-01-02"],"a":{"x":1,"y":true,"z":"l1\nl2\n"},"e":{},"f":[]}"#;
    let text = yaml(json).unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    let back: Value = serde_saphyr::from_str(text).unwrap();
    assert_eq!(back, serde_json::from_slice::<Value>(json).unwrap(), "{text}");
}

#[test]
fn pretty_changes_only_white_space() {
    let json = r#"{"a":[],"b":{},"c":[1,{"d":"x, {\"y\": \\\" \\\\"}],"e":"\\"}"#;
    let text = pretty(json.as_bytes()).unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.starts_with("{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {"), "{text}");
    let (left, right): (Value, Value) =
        (serde_json::from_str(text).unwrap(), serde_json::from_str(json).unwrap());
    assert_eq!(left, right);
}
