//! Secret: bytes that only those who mount or reference them may see (BEHAVIOURS 10.12).
//!
//! `Secret`'s derived `Debug` shows the bytes: never format one, and never put a value into an error.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::config_map::{DATA_BYTES_MAX, SEALED};
use super::content::{ContentHash, Hasher};
use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::{data_key, each, immutable};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    subresources: &[Subresource::History],
    columns: &[
        table::NAME,
        table::described(
            "Type",
            "string",
            0,
            "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
        ),
        table::described(
            "Data",
            "string",
            0,
            "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
        ),
        table::AGE,
    ],
    encrypted_at_rest: true,
    ..Kind::namespaced(&Rules, "secret")
};

/// Names the ServiceAccount that a `kubernetes.io/service-account-token` Secret is for.
pub const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// The type of such a Secret.
pub const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// The hash of the type and `data`; [`super::content`] says of what exactly, and who must not see it.
#[must_use]
pub fn content_hash(secret: &Secret) -> ContentHash {
    let of_type = secret.type_.as_deref().unwrap_or_default();
    let hash = Hasher::default().add("type", "", of_type.as_bytes());
    secret.data.iter().flatten().fold(hash, |hash, (key, value)| hash.add("data", key, &value.0)).end()
}

struct Rules;

impl Strategy for Rules {
    type Object = Secret;

    fn set_defaults(&self, secret: &mut Secret) {
        if secret.type_.as_deref().unwrap_or_default().is_empty() {
            secret.type_ = Some("Opaque".to_owned());
        }
        if let Some(text) = secret.string_data.take().filter(|text| !text.is_empty()) {
            let data = secret.data.get_or_insert_default();
            data.extend(text.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))));
        }
    }

    fn validate(&self, secret: &Secret, errors: &mut Errors) {
        let path = Path::new("data");
        let mut bytes = 0;
        for (key, value) in secret.data.iter().flatten() {
            each(errors, &path.key(key), key, data_key(key));
            bytes += value.0.len();
        }
        if bytes > DATA_BYTES_MAX {
            errors.too_long(&path, DATA_BYTES_MAX);
        }
        validate_type(secret, &path, errors);
    }

    fn validate_update(&self, new: &Secret, old: &Secret, errors: &mut Errors) {
        immutable(errors, &Path::new("type"), &new.type_, &old.type_);
        if old.immutable != Some(true) {
            return;
        }
        if new.immutable != Some(true) {
            errors.forbidden(&Path::new("immutable"), SEALED);
        }
        if !new.data.iter().flatten().eq(old.data.iter().flatten()) {
            errors.forbidden(&Path::new("data"), SEALED);
        }
    }

    fn fields(&self, secret: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", secret.type_.clone().unwrap_or_default())]
    }

    fn content_hash(&self, secret: &Secret) -> Option<ContentHash> {
        Some(content_hash(secret))
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Cell> {
        vec![
            table::name(secret),
            Cell::Text(secret.type_.clone().unwrap_or_default()),
            table::count(secret.data.iter().flatten().count()),
            table::age(secret, now),
        ]
    }
}

/// Types that Kubernetes knows need keys; others are free.
fn validate_type(secret: &Secret, path: &Path, errors: &mut Errors) {
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| &value.0);
    match secret.type_.as_deref().unwrap_or_default() {
        SERVICE_ACCOUNT_TOKEN => {
            let name = secret.metadata.annotations.as_ref().and_then(|map| map.get(SERVICE_ACCOUNT_NAME));
            if name.is_none_or(String::is_empty) {
                errors.required(&Path::new("metadata.annotations").key(SERVICE_ACCOUNT_NAME), "");
            }
        }
        "kubernetes.io/dockercfg" => validate_json(value(".dockercfg"), &path.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            validate_json(value(".dockerconfigjson"), &path.key(".dockerconfigjson"), errors);
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(Vec::is_empty) => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    errors.required(&path.key(key), "");
                }
            }
        }
        _ => {}
    }
}

/// The decoder's own error may quote the value, so it is not shown.
fn validate_json(value: Option<&Vec<u8>>, path: &Path, errors: &mut Errors) {
    type Map = serde_json::Map<String, serde_json::Value>;
    match value {
        None => errors.required(path, ""),
        Some(value) if serde_json::from_slice::<Option<Map>>(value).is_err() => {
            errors.invalid(path, "<secret contents redacted>", "must be a JSON object");
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::{Value, json};

    const SECRET: Fixture =
        Fixture { kind: &KIND, base: || json!({"metadata": {"name": "a", "namespace": "n"}}) };

    #[test]
    fn string_data_wins_over_data_and_is_not_returned() {
        // BEHAVIOURS 10.12.
        let secret = SECRET.created(json!({"data": {"a": "AA==", "b": "Yg=="}, "stringData": {"a": "x"}}));
        let secret: &Secret = secret.downcast_ref().unwrap();
        assert_eq!(
            serde_json::to_value(secret).unwrap()["data"],
            json!({"a": "eA==", "b": "Yg=="}),
            "test data, no secret"
        );
        assert!(secret.string_data.is_none());
        assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    }

    #[test]
    fn bad_base64_does_not_decode() {
        assert!(KIND.strategy.decode_json(br#"{"metadata":{"name":"a"},"data":{"k":"?"}}"#).is_err());
    }

    #[test]
    fn known_types_need_their_keys() {
        // BEHAVIOURS 10.12.
        let check = |of: &str, text: Value, expected: &[&str]| {
            SECRET.valid(json!({"type": format!("kubernetes.io/{of}"), "stringData": text}), expected);
        };
        check("tls", json!({"tls.crt": "", "tls.key": ""}), &[]);
        check("tls", json!({"tls.crt": ""}), &["data[tls.key]: Required value"]);
        check("basic-auth", json!({"username": ""}), &[]);
        check("basic-auth", json!({"password": ""}), &[]);
        check("basic-auth", json!({}), &["data[username]: Required value", "data[password]: Required value"]);
        check("ssh-auth", json!({"ssh-privatekey": "k"}), &[]);
        check("ssh-auth", json!({"ssh-privatekey": ""}), &["data[ssh-privatekey]: Required value"]);
        check("dockercfg", json!({}), &["data[.dockercfg]: Required value"]);
        check("dockerconfigjson", json!({".dockerconfigjson": "{\"auths\":{}}"}), &[]);
        check(
            "dockerconfigjson",
            json!({".dockerconfigjson": "\"hunter2\""}),
            &[
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": must be a JSON object",
            ],
        );
        check(
            "service-account-token",
            json!({}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        SECRET.valid(json!({"type": "example.com/own"}), &[]);
    }

    #[test]
    fn the_type_and_sealed_content_stay() {
        // BEHAVIOURS 10.11, 10.12. A type that is left out is Opaque, as everywhere.
        SECRET.update(
            json!({"type": "example.com/own"}),
            json!({"type": null}),
            &["type: Invalid value: \"Opaque\": field is immutable"],
        );
        SECRET.update(json!({"immutable": true}), json!({"metadata": {"labels": {"a": "b"}}}), &[]);
        SECRET.update(
            json!({}),
            json!({"type": "example.com/own"}),
            &["type: Invalid value: \"example.com/own\": field is immutable"],
        );
        SECRET.update(
            json!({"immutable": true}),
            json!({"stringData": {"k": "v"}}),
            &["data: Forbidden: field is immutable when `immutable` is set"],
        );
        SECRET.update(
            json!({"immutable": true}),
            json!({"immutable": false}),
            &["immutable: Forbidden: field is immutable when `immutable` is set"],
        );
    }

    #[test]
    fn content_is_bounded() {
        SECRET.valid(
            json!({"stringData": {"k": "x".repeat(DATA_BYTES_MAX + 1)}}),
            &["data: Too long: may not be more than 1048576 bytes"],
        );
    }

    #[test]
    fn the_hash_is_of_type_and_content() {
        let hash = |secret: Value| content_hash(&serde_json::from_value(secret).unwrap()).to_string();
        let secret = json!({"type": "Opaque", "data": {"k": "dg=="}, "metadata": {"name": "a"}});
        assert_eq!(hash(secret), "sha256:05ddedb4d8215bc63648672ec94eca454f304dec11f8b2f70df9f5c0aa4dc6b6");
        assert_ne!(hash(json!({"type": "Opaque"})), hash(json!({"type": "example.com/own"})));
    }

    #[test]
    fn tables_show_no_content() {
        SECRET.cells(json!({"stringData": {"k": "v"}}), &["a", "Opaque", "1", "<unknown>"]);
    }
}
