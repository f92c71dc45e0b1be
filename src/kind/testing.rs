//! How tests of kinds check: objects as YAML, findings as lines of text.

use jiff::Timestamp;
use serde_json::Value;

use super::field::Errors;
use super::table::Cell;
use super::{Kind, Object};

/// The moment at which tables are drawn.
pub(crate) const NOW: &str = "2025-01-02T00:00:00Z";

#[track_caller]
pub(crate) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The object in `text`, as a client sent it.
#[track_caller]
pub(crate) fn object(kind: &Kind, text: &str) -> Box<dyn Object> {
    decode(kind, yaml(text))
}

#[track_caller]
fn decode(kind: &Kind, mut value: Value) -> Box<dyn Object> {
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.into();
    kind.strategy.decode_value(value).unwrap_or_else(|error| panic!("{error}"))
}

/// `base` changed by the JSON merge patch `patch`, with defaults.
#[track_caller]
pub(crate) fn patched(kind: &Kind, base: &str, patch: &str) -> Box<dyn Object> {
    let mut value = yaml(base);
    json_patch::merge(&mut value, &yaml(patch));
    let mut object = decode(kind, value);
    kind.strategy.set_defaults(&mut *object);
    object
}

/// `field: message` of each error.
pub(crate) fn lines(errors: &Errors) -> Vec<String> {
    errors.0.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

/// Defaulting gives `expected`, as JSON, and again the same.
#[track_caller]
pub(crate) fn check_defaults(kind: &Kind, given: &str, expected: &str) {
    let mut object = object(kind, given);
    let mut expected: Value = serde_json::from_str(expected).expect("JSON");
    expected["apiVersion"] = kind.api_version().into();
    expected["kind"] = kind.kind.into();
    expected.as_object_mut().expect("an object").entry("metadata").or_insert_with(|| yaml("{}"));
    for time in ["once", "twice"] {
        kind.strategy.set_defaults(&mut *object);
        let found = object.to_value();
        assert_eq!(found, expected, "{time}: {}", serde_json::to_string_pretty(&found).expect("JSON"));
    }
}

/// Creating `base` changed by `patch` is refused with just these lines.
#[track_caller]
pub(crate) fn check_validation(kind: &Kind, base: &str, patch: &str, expected: &[&str]) {
    let mut object = patched(kind, base, patch);
    kind.strategy.prepare_create(&mut *object);
    assert_eq!(lines(&kind.strategy.validate(&*object)), expected, "{patch}");
}

/// Updating `base` by `patch` is refused with just these lines.
#[track_caller]
pub(crate) fn check_update(kind: &Kind, base: &str, patch: &str, expected: &[&str]) {
    let mut old = patched(kind, base, "{}");
    kind.strategy.prepare_create(&mut *old);
    let mut new = patched(kind, base, patch);
    kind.strategy.prepare_update(&mut *new, &*old);
    let mut errors = kind.strategy.validate(&*new);
    errors.extend(kind.strategy.validate_update(&*new, &*old));
    assert_eq!(lines(&errors), expected, "{patch}");
}

/// The cells of the object in `text`, at [`NOW`].
#[track_caller]
pub(crate) fn cells(kind: &Kind, text: &str) -> Vec<String> {
    let now: Timestamp = NOW.parse().expect("a time");
    let cells = kind.strategy.cells(&*object(kind, text), now);
    assert_eq!(cells.len(), kind.columns.len(), "a cell for each column");
    let texts = cells.into_iter().map(|cell| match cell {
        Cell::Text(text) => text,
        Cell::Number(number) => number.to_string(),
    });
    texts.collect()
}

#[track_caller]
pub(crate) fn check_cells(kind: &Kind, text: &str, expected: &[&str]) {
    assert_eq!(cells(kind, text), expected, "{text}");
}
