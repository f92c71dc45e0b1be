//! What tokens say, in the words of Kubernetes (`pkg/serviceaccount/claims.go` and `legacy.go`).

use serde::{Deserialize, Serialize};

use super::{ISSUER, username};

/// What signs the tokens that lie in Secrets, as they name it.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// An object, by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Ref {
    pub name: String,
    pub uid: String,
}

/// What a token is of and bound to: it dies with any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Bound {
    pub namespace: String,
    /// The object itself, or where the pod it is bound to runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    pub serviceaccount: Ref,
}

/// The claims of a token that expires. Times are whole seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    /// Tells one token from another.
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    pub nbf: i64,
    pub sub: String,
}

/// The claims of a token in a Secret, which lives as long as that.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Legacy {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    pub sub: String,
}

impl Claims {
    /// What a token of an account says that is made at `now` for `audiences`.
    #[must_use]
    pub fn new(bound: Bound, audiences: Vec<String>, id: String, now: i64, life_seconds: i64) -> Self {
        Self {
            aud: audiences,
            exp: now.saturating_add(life_seconds),
            iat: now,
            iss: ISSUER.to_owned(),
            jti: id,
            nbf: now,
            sub: username(&bound.namespace, &bound.serviceaccount.name),
            bound,
        }
    }

    /// Reads claims of this issuer.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(json).ok().filter(|claims| claims.iss == ISSUER)
    }
}

impl Legacy {
    /// What the token in a Secret says.
    #[must_use]
    pub fn new(namespace: &str, secret: &str, account: &str, uid: &str) -> Self {
        Self {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            uid: uid.to_owned(),
            sub: username(namespace, account),
        }
    }

    /// Reads claims of this issuer.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(json).ok().filter(|claims| claims.iss == LEGACY_ISSUER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_written_as_kubernetes_does() {
        let reference = |name: &str| Ref { name: name.to_owned(), uid: format!("{name}-uid") };
        let bound = Bound {
            namespace: "n".into(),
            node: Some(reference("node-0")),
            pod: Some(reference("p")),
            secret: None,
            serviceaccount: reference("a"),
        };
        let claims = Claims::new(bound, vec![ISSUER.to_owned()], "id".into(), 1_000, 600);
        let json = serde_json::to_string(&claims).unwrap();
        assert_eq!(
            json,
            r#"{"aud":["https://kubernetes.default.svc.cluster.local"],"exp":1600,"iat":1000,"iss":"https://kubernetes.default.svc.cluster.local","jti":"id","kubernetes.io":{"namespace":"n","node":{"name":"node-0","uid":"node-0-uid"},"pod":{"name":"p","uid":"p-uid"},"serviceaccount":{"name":"a","uid":"a-uid"}},"nbf":1000,"sub":"system:serviceaccount:n:a"}"#
        );
        assert_eq!(Claims::read(json.as_bytes()), Some(claims));
        let legacy = Legacy::new("n", "s", "a", "u");
        let json = serde_json::to_string(&legacy).unwrap();
        assert_eq!(
            json,
            r#"{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"n","kubernetes.io/serviceaccount/secret.name":"s","kubernetes.io/serviceaccount/service-account.name":"a","kubernetes.io/serviceaccount/service-account.uid":"u","sub":"system:serviceaccount:n:a"}"#
        );
        assert_eq!((Legacy::read(json.as_bytes()), Claims::read(json.as_bytes())), (Some(legacy), None));
    }
}
