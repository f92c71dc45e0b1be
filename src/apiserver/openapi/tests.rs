use super::*;
use crate::kind::ALL;

fn documents() -> Vec<(String, Value)> {
    let openapi = OpenApi::new(ALL);
    let read = |path: String| {
        let json = openapi.document(&path).unwrap().json();
        (path, serde_json::from_slice(&json).unwrap())
    };
    openapi.paths().into_iter().map(read).collect()
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                assert_eq!(object.len(), 1, "nothing stands beside {reference}");
                found.push(reference.clone());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for (path, document) in documents() {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{path}: {reference}");
        }
    }
}

/// What kubectl's `query_param_verifier_v3`, `patcher` and `explain` look for.
#[test]
fn kubectl_finds_what_it_looks_for() {
    for (path, document) in documents() {
        for kind in ALL.iter().filter(|kind| super::path(kind.group, kind.version) == path) {
            let named = json!({ "group": kind.group, "kind": kind.kind, "version": kind.version });
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let has_name = |schema: &&Value| {
                let names = schema["x-kubernetes-group-version-kind"].as_array();
                names.is_some_and(|names| names.contains(&named))
            };
            assert_eq!(schemas.values().filter(has_name).count(), 1, "{kind:?} has one schema");
            let operations = document["paths"].as_object().unwrap();
            if kind.verbs.contains(&"patch") {
                let patch = operations
                    .values()
                    .map(|path| &path["patch"])
                    .find(|patch| patch["x-kubernetes-group-version-kind"] == named)
                    .unwrap_or_else(|| panic!("{kind:?} has a PATCH"));
                let parameters = patch["parameters"].as_array().unwrap();
                for wanted in ["fieldValidation", "dryRun"] {
                    assert!(
                        parameters.iter().any(|parameter| parameter["name"] == wanted),
                        "{kind:?} {wanted}"
                    );
                }
                let content = &patch["requestBody"]["content"];
                assert!(content["application/strategic-merge-patch+json"].is_object());
            }
            let namespace = if kind.is_namespaced() { "namespaces/{namespace}/" } else { "" };
            let collection = format!("/{path}/{namespace}{}", kind.plural);
            let methods = operations[&collection].as_object().unwrap();
            assert!(
                methods.values().any(|method| method["x-kubernetes-group-version-kind"] == named),
                "{collection}"
            );
        }
    }
}

#[test]
fn the_index_names_each_document_by_its_content() {
    let openapi = OpenApi::new(ALL);
    let index: Value = serde_json::from_str(&openapi.index()).unwrap();
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let hash = openapi.document("api/v1").unwrap().hash;
    assert_eq!(url, format!("/openapi/v3/api/v1?hash={hash}"));
    assert_eq!(OpenApi::new(ALL).document("api/v1").unwrap().hash, hash);
    assert!(openapi.document("api/v7").is_none());
}

#[test]
fn fields_have_descriptions_and_types() {
    let (_, document) = documents().remove(0);
    let schemas = &document["components"]["schemas"];
    let map = &schemas["io.k8s.api.core.v1.ConfigMap"];
    assert!(map["description"].as_str().unwrap().starts_with("ConfigMap holds configuration data"));
    let data = &map["properties"]["data"];
    assert_eq!((&data["type"], &data["additionalProperties"]["type"]), (&json!("object"), &json!("string")));
    let metadata = &map["properties"]["metadata"];
    assert!(metadata["description"].is_string());
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert_eq!(metadata["allOf"], json!([{ "$ref": format!("#/components/schemas/{meta}") }]));
    let owners = &schemas[meta]["properties"]["ownerReferences"];
    assert_eq!(owners["x-kubernetes-patch-merge-key"], "uid");
    assert_eq!(owners["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(owners["x-kubernetes-list-type"], "map");
}

#[test]
fn version_2_has_definitions_as_json_and_none_as_protobuf() {
    let document: Value = serde_json::from_str(&OpenApi::new(ALL).v2()).unwrap();
    assert_eq!(document["swagger"], "2.0");
    let metadata = &document["definitions"]["io.k8s.api.core.v1.ConfigMap"]["properties"]["metadata"];
    let reference = metadata["allOf"][0]["$ref"].as_str().unwrap();
    assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some());
    let protobuf = OpenApi::v2_protobuf();
    assert!(protobuf.starts_with(b"\x0a\x032.0\x12") && protobuf.ends_with(b"\x42\x00\x4a\x00"));
}
