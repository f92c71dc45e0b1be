//! Who is speaking.

use x509_parser::prelude::{FromDer, X509Certificate};

/// An authenticated user. A client certificate's CN is the name, its O the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// One of the control plane's own parts, such as `system:kube-scheduler`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self { name: format!("system:{name}"), groups: vec!["system:authenticated".into()] }
    }

    /// The kubelet of `node`.
    #[must_use]
    pub fn node(node: &str) -> Self {
        Self {
            name: format!("system:node:{node}"),
            groups: vec!["system:nodes".into(), "system:authenticated".into()],
        }
    }

    /// Whoever holds the cluster's kubeconfig.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            name: "kubernetes-admin".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
        }
    }

    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
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
        Some(Self { name, groups })
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

/// The speaker of one request: by certificate, else nobody in particular. `None` is for credentials
/// that are not valid (BEHAVIOURS 18.1): there are no tokens yet, so every token is one.
#[must_use]
pub fn authenticate(identity: &Identity, authorization: Option<&str>) -> Option<User> {
    let has_token = authorization.is_some_and(|value| {
        let scheme = value.trim_start().split(' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("bearer")
    });
    match identity {
        Identity::User(user) => Some(user.clone()),
        Identity::Bad => None,
        Identity::None if has_token => None,
        Identity::None => Some(User::anonymous()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_not_valid_are_not_the_same_as_none() {
        let admin = User::admin();
        for (identity, authorization, expected) in [
            (Identity::None, None, Some(User::anonymous())),
            (Identity::None, Some("Bearer x"), None),
            (Identity::None, Some("Basic x"), Some(User::anonymous())),
            (Identity::Bad, None, None),
            (Identity::User(admin.clone()), Some("Bearer x"), Some(admin)),
        ] {
            assert_eq!(authenticate(&identity, authorization), expected, "{identity:?} {authorization:?}");
        }
    }
}
