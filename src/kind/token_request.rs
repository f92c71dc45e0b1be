//! TokenRequest: what `serviceaccounts/token` takes and answers (BEHAVIOURS 8.6). Never stored.

use k8s_openapi::Resource;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, Deserializer, Error};

use super::field::{Errors, Path};
use super::{Kind, Strategy};

/// Not in [`super::ALL`], since it has no collection.
pub static KIND: Kind = Kind::create_only(&Rules, "tokenrequest");

/// How long a token lives if nothing is asked for, and the bounds of what may be.
const LIFE_SECONDS_DEFAULT: i64 = 3600;
const LIFE_SECONDS_MIN: i64 = 600;
const LIFE_SECONDS_MAX: i64 = 1 << 32;

struct Rules;

/// What a client writes. The status, which is not its to write, lacks in Go's words a time that the type
/// wants.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    kind: Option<String>,
    api_version: Option<String>,
    metadata: Option<ObjectMeta>,
    spec: Option<TokenRequestSpec>,
    #[serde(rename = "status")]
    _status: Option<serde_json::Value>,
}

impl Strategy for Rules {
    type Object = TokenRequest;

    fn decode<'de, D: Deserializer<'de>>(&self, decoder: D) -> Result<TokenRequest, D::Error> {
        let Asked { kind, api_version, metadata, spec, .. } = Asked::deserialize(decoder)?;
        for (given, own) in [(kind, TokenRequest::KIND), (api_version, TokenRequest::API_VERSION)] {
            if let Some(given) = given.filter(|given| !given.is_empty() && given != own) {
                return Err(D::Error::custom(format!("{given} is not {own}")));
            }
        }
        Ok(TokenRequest {
            metadata: metadata.unwrap_or_default(),
            spec: spec.unwrap_or_default(),
            status: None,
        })
    }

    fn set_defaults(&self, request: &mut TokenRequest) {
        request.spec.expiration_seconds.get_or_insert(LIFE_SECONDS_DEFAULT);
    }

    fn validate(&self, request: &TokenRequest, errors: &mut Errors) {
        let seconds = request.spec.expiration_seconds.unwrap_or(LIFE_SECONDS_DEFAULT);
        let path = Path::new("spec").child("expirationSeconds");
        if seconds < LIFE_SECONDS_MIN {
            errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > LIFE_SECONDS_MAX {
            errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const REQUEST: Fixture = Fixture { kind: &KIND, base: || json!({"spec": {"audiences": []}}) };

    #[test]
    fn what_clients_write_is_read() {
        let read = |body: &str| KIND.strategy.decode_json(body.as_bytes()).map(|request| request.to_value());
        let spec = r#""spec":{"audiences":null,"expirationSeconds":null,"boundObjectRef":null}"#;
        // As client-go does, and as its protobuf reads.
        for status in [r#"{"token":"","expirationTimestamp":null}"#, "{}", r#"{"token":"mine"}"#, "null"] {
            let body = format!(r#"{{"metadata":{{"creationTimestamp":null}},{spec},"status":{status}}}"#);
            let request = read(&body).unwrap();
            assert_eq!(
                (&request["spec"], request.get("status")),
                (&json!({"audiences": []}), None),
                "{status}"
            );
        }
        let named =
            |kind: &str, version: &str| read(&format!(r#"{{"kind":"{kind}","apiVersion":"{version}"}}"#));
        assert!(named("TokenRequest", "authentication.k8s.io/v1").is_ok());
        assert!(named("TokenReview", "authentication.k8s.io/v1").is_err());
        assert!(named("TokenRequest", "v1").is_err());
    }

    #[test]
    fn a_token_lives_between_ten_minutes_and_136_years() {
        // BEHAVIOURS 8.6.
        let check = |seconds: i64, expected: &[&str]| {
            REQUEST.valid(json!({"spec": {"expirationSeconds": seconds}}), expected);
        };
        check(600, &[]);
        check(1 << 32, &[]);
        check(
            599,
            &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"],
        );
        check(
            (1 << 32) + 1,
            &[
                "spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            ],
        );
        assert_eq!(REQUEST.created(json!({})).to_value()["spec"]["expirationSeconds"], 3600);
    }
}
