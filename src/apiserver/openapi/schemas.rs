//! The schemas of a group-version: the API types', in the dialect that Kubernetes' clients read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Patch, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::apiserver::merge_keys::{self, MergeKey};
use crate::kind::{Kind, Subresource, eviction, scale, token_request};

const REF: &str = "#/components/schemas/";

/// Schemas, and what the kinds' own are called.
pub(super) struct Built {
    pub(super) components: Map<String, Value>,
    /// The schema name of each kind, in the order of the kinds.
    pub(super) names: Vec<String>,
}

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";
pub(super) const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
pub(super) const TOKEN_REQUEST: &str = "io.k8s.api.authentication.v1.TokenRequest";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// `{"$ref": …}`
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{REF}{name}") })
}

pub(super) fn build(kinds: &[&'static Kind]) -> Built {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings.transforms.clear();
        })
        .into_generator();
    let names: Vec<String> = kinds.iter().map(|kind| name_of(kind, &mut generator)).collect();
    for schema in [
        generator.subschema_for::<DeleteOptions>(),
        generator.subschema_for::<ListMeta>(),
        generator.subschema_for::<Patch>(),
        generator.subschema_for::<Status>(),
    ] {
        debug_assert!(schema.get("$ref").is_some(), "API types have names");
    }
    let of_subresources = [
        (Subresource::Token, &token_request::KIND, TOKEN_REQUEST),
        (Subresource::Scale, &scale::KIND, SCALE),
        (Subresource::Eviction, &eviction::KIND, EVICTION),
    ];
    let of_subresources = of_subresources.iter().filter(|one| kinds.iter().any(|kind| kind.has(one.0)));
    for (_, kind, _) in of_subresources.clone() {
        name_of(kind, &mut generator);
    }
    let mut components = generator.take_definitions(false);
    for (name, schema) in &mut components {
        let type_name = name.rsplit('.').next().unwrap_or(name);
        adapt(schema);
        mark_fields(type_name, schema);
    }
    for (name, kind) in kinds.iter().zip(&names).map(|(kind, name)| (name, kind)) {
        mark_kind(&mut components, name, &[(kind.group, kind.version, kind.kind)]);
        if kind.verbs.contains(&"list") {
            components.insert(format!("{name}List"), list_schema(name, kind));
        }
    }
    for (_, kind, name) in of_subresources {
        mark_kind(&mut components, name, &[(kind.group, kind.version, kind.kind)]);
    }
    for (name, kind) in [(DELETE_OPTIONS, "DeleteOptions"), (STATUS, "Status")] {
        mark_kind(&mut components, name, &[("", "v1", kind)]);
    }
    Built { components, names }
}

fn name_of(kind: &Kind, generator: &mut SchemaGenerator) -> String {
    let schema = (kind.schema)(generator);
    let reference = schema.get("$ref").and_then(Value::as_str).unwrap_or_default();
    reference.strip_prefix(REF).unwrap_or(kind.kind).to_owned()
}

fn mark_kind(components: &mut Map<String, Value>, name: &str, kinds: &[(&str, &str, &str)]) {
    let list: Vec<Value> = kinds
        .iter()
        .map(|(group, version, kind)| json!({ "group": group, "kind": kind, "version": version }))
        .collect();
    if let Some(Value::Object(schema)) = components.get_mut(name) {
        schema.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(list));
    }
}

fn list_schema(item: &str, kind: &Kind) -> Value {
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": "The versioned schema of this representation of an object.",
            },
            "items": { "type": "array", "description": "The objects.", "items": reference(item) },
            "kind": {
                "type": "string",
                "description": "The REST resource this object represents, in CamelCase.",
            },
            "metadata": {
                "description": "Standard list metadata.",
                "allOf": [reference(LIST_META)],
            },
        },
        "x-kubernetes-group-version-kind": [
            { "group": kind.group, "kind": kind.list_kind, "version": kind.version },
        ],
    })
}

/// Rewrites what OpenAPI 3.0 says otherwise than JSON Schema: nothing may stand beside a `$ref`, and a
/// value of two types lists them.
fn adapt(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for value in object.values_mut() {
                adapt(value);
            }
            if object.len() > 1
                && let Some(reference @ Value::String(_)) = object.remove("$ref")
            {
                object.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
            }
            if object.remove("x-kubernetes-int-or-string").is_some() {
                object.insert("oneOf".to_owned(), json!([{ "type": "integer" }, { "type": "string" }]));
                object.insert("format".to_owned(), json!("int-or-string"));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(adapt),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds how the fields of a type merge.
fn mark_fields(type_name: &str, schema: &mut Value) {
    if type_name == "Quantity" {
        // A quantity may be any number, not only a whole one.
        schema["oneOf"] = json!([{ "type": "string" }, { "type": "number" }]);
        if let Value::Object(schema) = schema {
            schema.remove("format");
        }
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (field, property) in properties {
        if let (Some(facts), Value::Object(property)) = (merge_keys::lookup(type_name, field), property) {
            mark(facts, property);
        }
    }
}

fn mark(facts: &MergeKey, property: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| property.insert(format!("x-kubernetes-{name}"), value);
    if let Some(list_type) = facts.list_type {
        set("list-type", json!(list_type));
    }
    if !facts.map_keys.is_empty() {
        set("list-map-keys", json!(facts.map_keys));
    }
    if let Some(strategy) = facts.patch_strategy {
        set("patch-strategy", json!(strategy));
    }
    if let Some(key) = facts.patch_merge_key {
        set("patch-merge-key", json!(key));
    }
    if let Some(map_type) = facts.map_type {
        set("map-type", json!(map_type));
    }
}
