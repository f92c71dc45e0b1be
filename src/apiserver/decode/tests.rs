use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;

use super::*;
use crate::kind::{config_map, pod};

fn body(text: &str) -> Body {
    Body::Bytes { media_type: None, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

#[track_caller]
fn refused(kind: &'static Kind, text: &str, validation: FieldValidation, message: &str) {
    let error = decode(kind, body(text), validation).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (400, message));
}

#[test]
fn unknown_and_duplicate_fields_are_found_in_order() {
    let text = r#"{"metadata":{"name":"a","foo":{"x":1,"x":2},"name":"b"},"spec":{"containers":[
        {"name":"c","bar":1},{"name":"d","env":[{"name":"E","baz":1}],"image":"i","image":"j"}]},"foo":1,"foo":2}"#;
    let problems = [
        r#"unknown field "metadata.foo""#,
        r#"duplicate field "metadata.name""#,
        r#"unknown field "spec.containers[0].bar""#,
        r#"unknown field "spec.containers[1].env[0].baz""#,
        r#"duplicate field "spec.containers[1].image""#,
        r#"unknown field "foo""#,
    ];
    let decoded = decode(&pod::KIND, body(text), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, problems);
    assert_eq!(decoded.object.metadata().name.as_deref(), Some("b"));
    assert!(decode(&pod::KIND, body(text), FieldValidation::Ignore).unwrap().warnings.is_empty());
    let message = format!(
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}",
        problems.join(", ")
    );
    refused(&pod::KIND, text, FieldValidation::Strict, &message);
}

#[test]
fn duplicate_keys_of_maps_count_and_wrong_types_fail_in_every_mode() {
    let text = r#"{"data":{"a":"1","a":"2"}}"#;
    let decoded = decode(&config_map::KIND, body(text), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, [r#"duplicate field "data.a""#]);
    for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
        refused(
            &pod::KIND,
            r#"{"spec":{"containers":[{"name":"c","image":1}]}}"#,
            validation,
            r#"Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string"#,
        );
    }
    refused(
        &config_map::KIND,
        r#"{"binaryData":{"a":"?"}}"#,
        FieldValidation::Warn,
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: illegal base64 data at input byte 0"#,
    );
}

#[test]
fn other_kinds_and_other_texts_are_told_apart() {
    refused(
        &pod::KIND,
        r#"{"kind":"ConfigMap","apiVersion":"v1"}"#,
        FieldValidation::Warn,
        r#"ConfigMap in version "v1" cannot be handled as a Pod: converting (v1.ConfigMap) to (core.Pod): unknown conversion"#,
    );
    refused(
        &pod::KIND,
        r#"{"kind":"Pod","apiVersion":"apps/v1"}"#,
        FieldValidation::Warn,
        r#"Pod in version "v1" cannot be handled as a Pod: no kind "Pod" is registered for version "apps/v1""#,
    );
    for text in ["", "x", "[]", r#"{"kind":1}"#, "{"] {
        let error = decode(&pod::KIND, body(text), FieldValidation::Warn).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.code(), 400);
        assert!(
            message.starts_with("the object provided is unrecognized (must be of type Pod): "),
            "{message}"
        );
    }
    assert!(decode(&pod::KIND, Body::Empty, FieldValidation::Warn).is_err());
}

#[test]
fn numbers_are_quantities() {
    let text =
        r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":1,"memory":0.5}}}],"foo":1}}"#;
    let decoded = decode(&pod::KIND, body(text), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, [r#"unknown field "spec.foo""#]);
    let pod: &Pod = decoded.object.downcast_ref().unwrap();
    let resources = pod.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap();
    let limits = resources.limits.as_ref().unwrap();
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("1", "0.5"));
}

#[test]
fn yaml_is_read_by_its_media_type() {
    let yaml = |text: &str| Body::Bytes {
        media_type: Some("application/yaml; charset=utf-8".into()),
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    };
    let decoded = decode(
        &config_map::KIND,
        yaml("kind: ConfigMap\ndata:\n  a: |\n    text\n"),
        FieldValidation::Strict,
    );
    let map: ConfigMap = *decoded.unwrap().object.into_any().downcast().unwrap();
    assert_eq!(map.data.unwrap()["a"], "text\n");
    assert_eq!(decode(&config_map::KIND, yaml("a: ["), FieldValidation::Warn).unwrap_err().code(), 400);
    let other =
        Body::Bytes { media_type: Some("application/vnd.kubernetes.protobuf".into()), bytes: Bytes::new() };
    assert_eq!(decode(&config_map::KIND, other, FieldValidation::Warn).unwrap_err().code(), 415);
    let huge = Body::Bytes { media_type: None, bytes: vec![b' '; BODY_BYTES_MAX + 1].into() };
    assert_eq!(decode(&config_map::KIND, huge, FieldValidation::Warn).unwrap_err().code(), 413);
}

#[test]
fn patched_documents_are_told_as_patches() {
    let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": 1}});
    let error = patched(&config_map::KIND, &value, FieldValidation::Warn).unwrap_err();
    assert_eq!(error.code(), 422);
    let message = error.to_string();
    assert!(message.starts_with(r#" "" is invalid: patch: Invalid value: "#), "{message}");
    assert!(
        message.ends_with("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        "{message}"
    );
    let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "foo": 1});
    let error = patched(&config_map::KIND, &value, FieldValidation::Strict).unwrap_err();
    assert!(error.to_string().ends_with(r#"strict decoding error: unknown field "foo""#), "{error}");
    let warned = patched(&config_map::KIND, &value, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, [r#"unknown field "foo""#]);
}
