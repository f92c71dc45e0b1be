//! Tokens of service accounts: signed claims that name an account, and what they are bound to
//! (BEHAVIOURS 10.13, 10.15, 18.1).
//!
//! A token is a JSON Web Token (RFC 7519) of the claims that Kubernetes writes. [`key`] signs it and
//! knows its own signature, [`claims`] says what is in it, [`check`] decides whether what it names still
//! is. A token is as secret as what it opens: no error or `Debug` here shows one.

pub mod check;
pub mod claims;
pub mod key;

pub use check::{Account, check};
pub use claims::{Bound, Claims, Legacy, Ref};
pub use key::SigningKey;

/// Who issues the cluster's tokens, and the audience that its API is.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why a token proves nothing. The text is for the administrator; the bearer is told 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token of this cluster.
    #[error("invalid bearer token")]
    Foreign,
    /// It was one, or is for somebody else.
    #[error("[invalid bearer token, {0}]")]
    Void(String),
}

/// The name by which an account is known as a user.
#[must_use]
pub fn username(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// The groups of every account of a namespace, `system:authenticated` aside.
#[must_use]
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name of the account that a user is.
#[must_use]
pub fn account_of(username: &str) -> Option<(&str, &str)> {
    username.strip_prefix("system:serviceaccount:")?.split_once(':')
}
