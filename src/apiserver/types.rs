//! The shapes of the API types: which field holds which type.
//!
//! Taken from the kinds' schemas once, when first needed: by strategic merge patches, which find
//! their merge keys by type, and to explain why a body could not be decoded.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use crate::kind::{self, Kind};

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object of a named type, such as `io.k8s.api.core.v1.PodSpec`.
    Struct(String),
    List(Box<Shape>),
    Map(Box<Shape>),
    Text,
    /// Base64.
    Bytes,
    Integer {
        bits: u8,
    },
    Number,
    Boolean,
    Time,
    Quantity,
    IntOrString,
    Any,
}

/// Fields by name, of each type by its full name.
struct Types {
    structs: BTreeMap<String, BTreeMap<String, Shape>>,
    /// The full name of each kind's type, by its place in [`served`].
    roots: Vec<Shape>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let mut generator = SchemaGenerator::default();
    let roots = served()
        .map(|kind| shape(Value::from((kind.schema)(&mut generator)).as_object().unwrap_or(&Map::new())))
        .collect();
    let structs = generator
        .take_definitions(false)
        .into_iter()
        .filter_map(|(name, schema)| {
            let fields = schema.get("properties")?.as_object()?;
            let fields = fields
                .iter()
                .filter_map(|(field, schema)| Some((field.clone(), shape(schema.as_object()?))))
                .collect();
            Some((name, fields))
        })
        .collect();
    Types { structs, roots }
});

/// Every kind that a body may be of.
fn served() -> impl Iterator<Item = &'static Kind> {
    kind::ALL.iter().chain(kind::OF_SUBRESOURCES).copied()
}

impl Shape {
    /// The type of a kind's objects.
    pub(super) fn of_kind(kind: &Kind) -> &'static Self {
        let at = served().position(|one| one == kind);
        at.and_then(|at| TYPES.roots.get(at)).unwrap_or(&Self::Any)
    }

    /// The shape of a field of this type, or of an entry of this map.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(of) => TYPES.structs.get(of)?.get(name),
            Self::Map(values) => Some(values),
            Self::List(_)
            | Self::Text
            | Self::Bytes
            | Self::Integer { .. }
            | Self::Number
            | Self::Boolean
            | Self::Time
            | Self::Quantity
            | Self::IntOrString
            | Self::Any => None,
        }
    }

    /// The shape of an element of this list.
    pub(super) fn element(&self) -> &Self {
        if let Self::List(element) = self { element } else { &Self::Any }
    }

    /// `PodSpec` of `io.k8s.api.core.v1.PodSpec`; empty for what has no name.
    pub(super) fn short_name(&self) -> &str {
        if let Self::Struct(name) = self { name.rsplit('.').next().unwrap_or(name) } else { "" }
    }

    /// As Go would write the type, for messages.
    fn go_name(&self) -> String {
        match self {
            Self::Struct(name) => {
                let mut parts = name.rsplit('.');
                let short = parts.next().unwrap_or_default();
                parts.next().map_or_else(|| short.to_owned(), |version| format!("{version}.{short}"))
            }
            Self::List(element) => format!("[]{}", element.go_name()),
            Self::Map(values) => format!("map[string]{}", values.go_name()),
            Self::Text => "string".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Integer { bits } => format!("int{bits}"),
            Self::Number => "float64".into(),
            Self::Boolean => "bool".into(),
            Self::Time => "v1.Time".into(),
            Self::Quantity => "resource.Quantity".into(),
            Self::IntOrString => "intstr.IntOrString".into(),
            Self::Any => "interface {}".into(),
        }
    }
}

fn shape(schema: &Map<String, Value>) -> Shape {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().unwrap_or(name);
        return match name.rsplit('.').next() {
            Some("Quantity") => Shape::Quantity,
            Some("IntOrString") => Shape::IntOrString,
            Some("Time" | "MicroTime") => Shape::Time,
            Some("RawExtension" | "JSON" | "FieldsV1") => Shape::Any,
            _ => Shape::Struct(name.to_owned()),
        };
    }
    if let Some(only) = schema.get("allOf").and_then(|all| all.get(0)).and_then(Value::as_object) {
        return shape(only);
    }
    let inner = |name: &str| {
        let inner = schema.get(name).and_then(Value::as_object);
        Box::new(inner.map_or(Shape::Any, shape))
    };
    let format = schema.get("format").and_then(Value::as_str);
    match (schema.get("type").and_then(Value::as_str), format) {
        (Some("array"), _) => Shape::List(inner("items")),
        (Some("object"), _) if schema.contains_key("additionalProperties") => {
            Shape::Map(inner("additionalProperties"))
        }
        (Some("string"), Some("byte")) => Shape::Bytes,
        (Some("string"), Some("date-time")) => Shape::Time,
        (Some("string"), _) => Shape::Text,
        (Some("integer"), Some("int32")) => Shape::Integer { bits: 32 },
        (Some("integer"), _) => Shape::Integer { bits: 64 },
        (Some("number"), _) => Shape::Number,
        (Some("boolean"), _) => Shape::Boolean,
        _ => Shape::Any,
    }
}

/// Brings what Go's decoder accepts to what the types here accept: numbers as quantities, `null` as
/// an empty text in a map.
pub(super) fn normalise(value: &mut Value, shape: &Shape) {
    match (value, shape) {
        (Value::Object(fields), Shape::Struct(_)) => {
            for (name, value) in fields {
                if let Some(shape) = shape.field(name) {
                    normalise(value, shape);
                }
            }
        }
        (Value::Object(fields), Shape::Map(values)) => {
            for value in fields.values_mut() {
                if value.is_null() && **values == Shape::Text {
                    *value = Value::String(String::new());
                }
                normalise(value, values);
            }
        }
        (Value::Array(elements), Shape::List(element)) => {
            for value in elements {
                normalise(value, element);
            }
        }
        (value @ Value::Number(_), Shape::Quantity) => *value = Value::String(value.to_string()),
        _ => {}
    }
}

/// The first place where `value` is not of `shape`, in the words of Go's decoder.
pub(super) fn mismatch(value: &Value, shape: &Shape) -> Option<String> {
    find_mismatch(value, shape, "", &mut Vec::new())
}

fn find_mismatch<'a>(
    value: &'a Value,
    shape: &'a Shape,
    inside: &'a str,
    path: &mut Vec<&'a str>,
) -> Option<String> {
    let wrong = |what: &str| {
        Some(format!(
            "json: cannot unmarshal {what} into Go struct field {inside}.{} of type {}",
            path.join("."),
            shape.go_name()
        ))
    };
    match (shape, value) {
        (_, Value::Null) | (Shape::Any, _) => None,
        (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
            let inside = if matches!(shape, Shape::Struct(_)) { shape.short_name() } else { inside };
            for (name, value) in fields {
                if let Some(of) = shape.field(name) {
                    let named = matches!(shape, Shape::Struct(_));
                    if named {
                        path.push(name);
                    }
                    let found = find_mismatch(value, of, inside, path);
                    if found.is_some() {
                        return found;
                    }
                    if named {
                        path.pop();
                    }
                }
            }
            None
        }
        (Shape::List(element), Value::Array(elements)) => {
            elements.iter().find_map(|value| find_mismatch(value, element, inside, path))
        }
        (Shape::Text | Shape::IntOrString, Value::String(_))
        | (Shape::Boolean, Value::Bool(_))
        | (Shape::Number | Shape::Quantity, Value::Number(_))
        | (Shape::Quantity, Value::String(_)) => None,
        (Shape::Bytes, Value::String(text)) => {
            bad_base64(text).map(|at| format!("illegal base64 data at input byte {at}"))
        }
        (Shape::Time, Value::String(text)) => text.parse::<jiff::Timestamp>().err().map(|_| {
            format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            )
        }),
        (Shape::Integer { bits }, Value::Number(number)) => {
            let fits = number.as_i64().is_some_and(|number| *bits == 64 || i32::try_from(number).is_ok());
            if fits { None } else { wrong(&format!("number {number}")) }
        }
        (Shape::IntOrString, Value::Number(number)) => {
            let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            if fits { None } else { wrong(&format!("number {number}")) }
        }
        (_, Value::Bool(_)) => wrong("bool"),
        (_, Value::Number(_)) => wrong("number"),
        (_, Value::String(_)) => wrong("string"),
        (_, Value::Array(_)) => wrong("array"),
        (_, Value::Object(_)) => wrong("object"),
    }
}

/// Where `text` stops being standard base64, as Go counts it.
fn bad_base64(text: &str) -> Option<usize> {
    use base64::Engine;
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(_) => None,
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Some(at)
        }
        Err(base64::DecodeError::InvalidLength(length)) => Some(length / 4 * 4),
        Err(base64::DecodeError::InvalidPadding) => Some(text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mismatches_read_as_gos_decoder_writes_them() {
        let shape = Shape::of_kind(&kind::config_map::KIND);
        for (value, message) in [
            (json!({"data": {"a": "b"}, "immutable": true, "other": 1}), None),
            (
                json!({"data": {"a": 1}}),
                Some("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
            ),
            (
                json!({"data": ["a"]}),
                Some(
                    "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
                ),
            ),
            (
                json!({"metadata": {"generation": "x"}}),
                Some(
                    "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.generation of type int64",
                ),
            ),
            (json!({"binaryData": {"a": "AAAA*"}}), Some("illegal base64 data at input byte 4")),
            (
                json!({"metadata": {"ownerReferences": [{"uid": {}}]}}),
                Some(
                    "json: cannot unmarshal object into Go struct field OwnerReference.metadata.ownerReferences.uid of type string",
                ),
            ),
        ] {
            assert_eq!(mismatch(&value, shape).as_deref(), message, "{value}");
        }
    }

    #[test]
    fn nulls_in_maps_of_texts_are_empty() {
        let mut value = json!({"metadata": {"labels": {"a": null}}, "data": null});
        normalise(&mut value, Shape::of_kind(&kind::config_map::KIND));
        assert_eq!(value, json!({"metadata": {"labels": {"a": ""}}, "data": null}));
    }
}
