//! Who is speaking.

use std::collections::BTreeMap;

use x509_parser::prelude::{FromDer, X509Certificate};

/// An authenticated user. A client certificate's CN is the name, its O the groups; a token's are those
/// of its service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Empty if the name is all there is.
    pub uid: String,
    pub groups: Vec<String>,
    /// What else the credentials say, by name.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user who is known by name and groups.
    #[must_use]
    pub fn named(name: impl Into<String>, groups: Vec<String>) -> Self {
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// One of the control plane's own parts, such as `system:kube-scheduler`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self::named(format!("system:{name}"), vec!["system:authenticated".into()])
    }

    /// The kubelet of `node`.
    #[must_use]
    pub fn node(node: &str) -> Self {
        let groups = vec!["system:nodes".into(), "system:authenticated".into()];
        Self::named(format!("system:node:{node}"), groups)
    }

    /// Whoever holds the cluster's kubeconfig.
    #[must_use]
    pub fn admin() -> Self {
        Self::named("kubernetes-admin", vec!["system:masters".into(), "system:authenticated".into()])
    }

    #[must_use]
    pub fn anonymous() -> Self {
        Self::named("system:anonymous", vec!["system:unauthenticated".into()])
    }

    /// The user that a certificate (DER), already verified, names; `None` if it names nobody.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        if name.is_empty() {
            return None;
        }
        let organizations = subject.iter_organization();
        let mut groups: Vec<String> =
            organizations.filter_map(|group| Some(group.as_str().ok()?.to_owned())).collect();
        groups.push("system:authenticated".to_owned());
        Some(Self::named(name, groups))
    }

    /// Whether the user is of `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What a connection's certificate proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The client sent no certificate.
    None,
    User(User),
    /// The client sent one that is expired, of another authority, or names nobody.
    Bad,
}

/// The speaker of one request: by certificate, else by token, else nobody in particular. `None` is for
/// credentials that are not valid (BEHAVIOURS 18.1). `bearer` says whose a token is.
#[must_use]
pub fn authenticate(
    identity: &Identity,
    authorization: Option<&str>,
    bearer: impl FnOnce(&str) -> Option<User>,
) -> Option<User> {
    match (identity, authorization.and_then(token)) {
        (Identity::User(user), _) => Some(user.clone()),
        (Identity::None | Identity::Bad, Some(token)) => bearer(token),
        (Identity::Bad, None) => None,
        (Identity::None, None) => Some(User::anonymous()),
    }
}

/// The token in an `Authorization` header; a scheme without one is as good as no header.
fn token(authorization: &str) -> Option<&str> {
    let mut words = authorization.trim().split(' ');
    let scheme = words.next()?;
    words.next().filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_not_valid_are_not_the_same_as_none() {
        // BEHAVIOURS 18.1.
        let (admin, account) = (User::admin(), User::named("a", Vec::new()));
        let known = |token: &str| (token == "known").then(|| User::named("a", Vec::new()));
        for (identity, authorization, expected) in [
            (Identity::None, None, Some(User::anonymous())),
            (Identity::None, Some("Bearer x"), None),
            (Identity::None, Some(" bearer known more"), Some(account.clone())),
            (Identity::None, Some("Bearer"), Some(User::anonymous())),
            (Identity::None, Some("Basic known"), Some(User::anonymous())),
            (Identity::Bad, None, None),
            (Identity::Bad, Some("Bearer x"), None),
            (Identity::Bad, Some("Bearer known"), Some(account)),
            (Identity::User(admin.clone()), Some("Bearer x"), Some(admin)),
        ] {
            assert_eq!(
                authenticate(&identity, authorization, known),
                expected,
                "{identity:?} {authorization:?}"
            );
        }
    }
}
