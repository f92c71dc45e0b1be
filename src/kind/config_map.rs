//! ConfigMap: plain configuration, as text and bytes (BEHAVIOURS 10.10, 10.11).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use super::content::{ContentHash, Hasher};
use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::{data_key, each};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["cm"],
    subresources: &[Subresource::History],
    columns: &[
        table::NAME,
        table::described(
            "Data",
            "string",
            0,
            "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "configmap")
};

/// Bytes of all values of a ConfigMap, or of a Secret.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

/// What an update of a sealed ConfigMap or Secret is told.
pub(super) const SEALED: &str = "field is immutable when `immutable` is set";

/// The hash of `data` and `binaryData`; [`super::content`] says of what exactly.
#[must_use]
pub fn content_hash(map: &ConfigMap) -> ContentHash {
    let text = map.data.iter().flatten().map(|(key, value)| ("data", key, value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| ("binaryData", key, &*value.0));
    text.chain(binary).fold(Hasher::default(), |hash, (field, key, value)| hash.add(field, key, value)).end()
}

struct Rules;

impl Strategy for Rules {
    type Object = ConfigMap;

    fn validate(&self, map: &ConfigMap, errors: &mut Errors) {
        let (text, binary) = (map.data.iter().flatten(), map.binary_data.iter().flatten());
        let bytes: usize = text.clone().map(|(_, value)| value.len()).sum::<usize>()
            + binary.clone().map(|(_, value)| value.0.len()).sum::<usize>();
        for (key, _) in text {
            let path = Path::new("data").key(key);
            each(errors, &path, key, data_key(key));
            if map.binary_data.as_ref().is_some_and(|other| other.contains_key(key)) {
                errors.invalid(&path, key, "duplicate of key present in binaryData");
            }
        }
        for (key, _) in binary {
            let path = Path::new("binaryData").key(key);
            each(errors, &path, key, data_key(key));
            if map.data.as_ref().is_some_and(|other| other.contains_key(key)) {
                errors.invalid(&path, key, "duplicate of key present in data");
            }
        }
        if bytes > DATA_BYTES_MAX {
            // Upstream's path for the whole object.
            errors.too_long(&Path::new("[]"), DATA_BYTES_MAX);
        }
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap, errors: &mut Errors) {
        if old.immutable != Some(true) {
            return;
        }
        if new.immutable != Some(true) {
            errors.forbidden(&Path::new("immutable"), SEALED);
        }
        if !new.data.iter().flatten().eq(old.data.iter().flatten()) {
            errors.forbidden(&Path::new("data"), SEALED);
        }
        if !new.binary_data.iter().flatten().eq(old.binary_data.iter().flatten()) {
            errors.forbidden(&Path::new("binaryData"), SEALED);
        }
    }

    fn content_hash(&self, map: &ConfigMap) -> Option<ContentHash> {
        Some(content_hash(map))
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Cell> {
        let entries = map.data.iter().flatten().count() + map.binary_data.iter().flatten().count();
        vec![table::name(map), table::count(entries), table::age(map, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const MAP: Fixture =
        Fixture { kind: &KIND, base: || json!({"metadata": {"name": "a", "namespace": "n"}}) };

    #[test]
    fn keys_are_file_names() {
        // BEHAVIOURS 10.10.
        let longest = "k".repeat(253);
        MAP.valid(json!({"data": {longest.clone(): ""}}), &[]);
        MAP.valid(
            json!({"data": {format!("{longest}k"): ""}}),
            &[&format!(
                "data[{longest}k]: Invalid value: \"{longest}k\": must be no more than 253 characters"
            )],
        );
        MAP.valid(
            json!({"data": {"a.B_c-1": "", "...": ""}, "binaryData": {".hidden": "AA=="}}),
            &["data[...]: Invalid value: \"...\": must not start with '..'"],
        );
        MAP.valid(
            json!({"data": {"..": "", ".": ""}}),
            &[
                "data[.]: Invalid value: \".\": must not be '.'",
                "data[..]: Invalid value: \"..\": must not be '..'",
            ],
        );
        MAP.valid(json!({"data": {"a b": ""}}), &[
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ]);
    }

    #[test]
    fn text_and_bytes_share_no_key_and_are_bounded() {
        // BEHAVIOURS 10.10: it is the values that count, text and bytes together.
        MAP.valid(
            json!({"data": {"k": "v"}, "binaryData": {"k": "AA=="}}),
            &[
                "data[k]: Invalid value: \"k\": duplicate of key present in binaryData",
                "binaryData[k]: Invalid value: \"k\": duplicate of key present in data",
            ],
        );
        MAP.valid(json!({"data": {"k": "x".repeat(DATA_BYTES_MAX)}}), &[]);
        MAP.valid(
            json!({"data": {"k": "x".repeat(DATA_BYTES_MAX), "l": "x"}}),
            &["[]: Too long: may not be more than 1048576 bytes"],
        );
    }

    #[test]
    fn sealed_content_stays() {
        // BEHAVIOURS 10.11.
        let sealed = json!({"immutable": true, "data": {"k": "v"}});
        MAP.update(sealed.clone(), json!({"metadata": {"labels": {"a": "b"}}}), &[]);
        MAP.update(
            sealed,
            json!({"immutable": null, "data": {"k": "w"}, "binaryData": {"b": "AA=="}}),
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
                "binaryData: Forbidden: field is immutable when `immutable` is set",
            ],
        );
        // Nothing and an empty map are the same content.
        MAP.update(json!({"immutable": true}), json!({"data": {}, "binaryData": {}}), &[]);
        MAP.update(json!({"data": {"k": "v"}}), json!({"immutable": true, "data": {"k": "w"}}), &[]);
        MAP.update(json!({"immutable": false, "data": {"k": "v"}}), json!({"data": {"k": "w"}}), &[]);
    }

    /// Computed by other means, so that nobody's notes of a hash are ever wrong.
    #[test]
    fn the_hash_is_of_the_content_alone() {
        let hash = |map: serde_json::Value| content_hash(&serde_json::from_value(map).unwrap()).to_string();
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for map in [json!({}), json!({"data": {}, "binaryData": {}, "immutable": true})] {
            assert_eq!(hash(map), empty);
        }
        let map = json!({"data": {"b": "two", "a": "1"}, "binaryData": {"c": "AAE="}});
        assert_eq!(
            hash(map.clone()),
            "sha256:c9f6ba4905de9d27c343ad73ac9a3186a84d11525e7c34b431b155b02cebe0db"
        );
        let mut other = map.clone();
        other["metadata"] = json!({"name": "x", "resourceVersion": "7", "labels": {"a": "b"}});
        assert_eq!(hash(other), hash(map.clone()));
        for (pointer, value) in [("/data/a", "2"), ("/binaryData/c", "AAI=")] {
            let mut other = map.clone();
            *other.pointer_mut(pointer).unwrap() = value.into();
            assert_ne!(hash(other), hash(map.clone()), "{pointer}");
        }
        // The same bytes under the other field are no variable for `env`, so they are not the same.
        assert_ne!(hash(json!({"data": {"a": "x"}})), hash(json!({"binaryData": {"a": "eA=="}})));
        // No two contents run together.
        assert_ne!(hash(json!({"data": {"a": "1", "b": ""}})), hash(json!({"data": {"a": "1\u{0}b"}})));
    }

    #[test]
    fn tables_count_entries() {
        MAP.cells(json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}), &["a", "3", "<unknown>"]);
    }
}
