//! Who may do what (BEHAVIOURS 5.4, 18).
//!
//! Today's rules are few and fixed: masters, nodes and the control plane's own parts; everybody else,
//! service accounts among them, may discover what there is and ask who they are. Roles and bindings are to be read here, behind the same two functions.

use super::authn::User;
use super::request::Verb;
use super::status::Error;
use crate::kind::{Kind, Subresource, self_subject_review};

const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const AUTHENTICATED: &str = "system:authenticated";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const NODE_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What nodes may get, list and watch.
const NODE_READS: &[&str] = &[
    "configmaps",
    "endpoints",
    "endpointslices",
    "events",
    "jobs",
    "leases",
    "namespaces",
    "nodes",
    "pods",
    "queueitems",
    "runtimeclasses",
    "secrets",
    "serviceaccounts",
    "services",
];

/// What the scheduler may get, list and watch.
const SCHEDULER_READS: &[&str] = &[
    "events",
    "leases",
    "limitranges",
    "namespaces",
    "nodes",
    "pods",
    "podtemplates",
    "priorityclasses",
    "resourcequotas",
    "runtimeclasses",
    "services",
];

/// The name of the node whose kubelet speaks, if one does.
#[must_use]
pub fn node_of(user: &User) -> Option<&str> {
    let is_node = user.groups.iter().any(|group| group == NODES);
    user.name.strip_prefix(NODE_PREFIX).filter(|_| is_node)
}

/// Whether `user` may do this to objects of `kind`; 403 if not. `name` is the URL's, so it is not
/// known on create.
pub fn authorize(
    user: &User,
    verb: Verb,
    kind: &Kind,
    subresource: Option<Subresource>,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<(), Error> {
    let allowed = user.groups.iter().any(|group| group == MASTERS)
        || asks_about_itself(user, verb, kind)
        || node_of(user).is_some_and(|node| node_may(node, verb, kind, subresource, namespace, name))
        || match user.name.as_str() {
            // Garbage and namespaces are collected whatever their kind.
            "system:kube-controller-manager" => true,
            "system:kube-scheduler" => scheduler_may(verb, kind, subresource),
            _ => false,
        };
    if allowed { Ok(()) } else { Err(denied(user, verb, kind, subresource, namespace, name)) }
}

/// Whether `user` may do this to a path that is no object; 403 if not.
pub fn authorize_path(user: &User, verb: &str, path: &str) -> Result<(), Error> {
    let below =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    let public = ["/healthz", "/livez", "/readyz", "/version"];
    let discovery = ["/api", "/apis", "/openapi"];
    // Whoever is given a token may check others' (upstream's `system:service-account-issuer-discovery`).
    let issuer = ["/.well-known/openid-configuration", "/openid/v1/jwks"];
    let member = |group: &str| user.groups.iter().any(|one| one == group);
    let reads = matches!(verb, "get" | "head");
    let allowed = member(MASTERS)
        || reads && public.iter().any(|root| below(root))
        || reads && member(AUTHENTICATED) && discovery.iter().any(|root| below(root))
        || reads && member(SERVICE_ACCOUNTS) && issuer.contains(&path.trim_end_matches('/'));
    if allowed { Ok(()) } else { Err(Error::forbidden_path(&user.name, verb, path)) }
}

/// Whether somebody who is known asks what that is (upstream's `system:basic-user`).
fn asks_about_itself(user: &User, verb: Verb, kind: &Kind) -> bool {
    verb == Verb::Create && *kind == self_subject_review::KIND && user.is_in(AUTHENTICATED)
}

fn is_read(verb: Verb) -> bool {
    matches!(verb, Verb::Get | Verb::List | Verb::Watch)
}

fn is_write(verb: Verb) -> bool {
    matches!(verb, Verb::Create | Verb::Update | Verb::Patch)
}

fn node_may(
    node: &str,
    verb: Verb,
    kind: &Kind,
    subresource: Option<Subresource>,
    namespace: Option<&str>,
    name: Option<&str>,
) -> bool {
    let own = name.is_none_or(|name| name == node);
    match (kind.plural, subresource) {
        (_, None) if is_read(verb) => NODE_READS.contains(&kind.plural),
        ("nodes", None | Some(Subresource::Status)) => own && is_write(verb),
        ("leases", None) => own && is_write(verb) && namespace == Some(LEASE_NAMESPACE),
        ("pods", Some(Subresource::Status)) => matches!(verb, Verb::Get | Verb::Update | Verb::Patch),
        ("pods", None) => verb == Verb::Delete,
        ("events", None) => is_write(verb),
        // For the guests of its pods.
        ("jobs", Some(Subresource::Queue)) => matches!(verb, Verb::Get | Verb::Create),
        ("serviceaccounts", Some(Subresource::Token)) | ("tokenreviews", None) => verb == Verb::Create,
        _ => false,
    }
}

fn scheduler_may(verb: Verb, kind: &Kind, subresource: Option<Subresource>) -> bool {
    match (kind.plural, subresource) {
        (_, None) if is_read(verb) => SCHEDULER_READS.contains(&kind.plural),
        ("bindings", None) | ("pods", Some(Subresource::Binding)) => verb == Verb::Create,
        ("pods", Some(Subresource::Status)) => matches!(verb, Verb::Get | Verb::Update | Verb::Patch),
        // Preemption.
        ("pods", None) => verb == Verb::Delete,
        ("events" | "leases", None) => is_write(verb),
        _ => false,
    }
}

fn denied(
    user: &User,
    verb: Verb,
    kind: &Kind,
    subresource: Option<Subresource>,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Error {
    let resource = match subresource {
        None => kind.plural.to_owned(),
        Some(subresource) => format!("{}/{}", kind.plural, subresource.name()),
    };
    let place = match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        user.name,
        verb.name(),
        kind.group
    );
    Error::forbidden(kind, name.unwrap_or_default(), &why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::config_map::KIND;

    #[test]
    fn strangers_are_denied_in_kubernetes_words() {
        let user = User::named("u", vec![AUTHENTICATED.into()]);
        for (verb, namespace, name, message) in [
            (
                Verb::List,
                Some("n"),
                None,
                r#"configmaps is forbidden: User "u" cannot list resource "configmaps" in API group "" in the namespace "n""#,
            ),
            (
                Verb::Get,
                None,
                Some("a"),
                r#"configmaps "a" is forbidden: User "u" cannot get resource "configmaps" in API group "" at the cluster scope"#,
            ),
        ] {
            let error = authorize(&user, verb, &KIND, None, namespace, name).unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (403, message));
        }
    }

    #[test]
    fn own_parts_have_what_they_need() {
        let node = User::node("a");
        assert_eq!(node_of(&node), Some("a"));
        assert_eq!(node_of(&User { groups: Vec::new(), ..node.clone() }), None);
        let may = |user: &User, verb| authorize(user, verb, &KIND, None, Some("n"), Some("x")).is_ok();
        assert!(may(&node, Verb::Get) && !may(&node, Verb::Update));
        assert!(may(&User::admin(), Verb::Update) && !may(&User::anonymous(), Verb::Get));
        assert!(may(&User::component("kube-controller-manager"), Verb::Delete));
        assert!(!may(&User::component("kube-scheduler"), Verb::Get));
    }

    #[test]
    fn who_is_known_may_ask_who_that_is() {
        use crate::kind::{service_account, token_review};
        let account = User::named("a", vec![SERVICE_ACCOUNTS.into(), AUTHENTICATED.into()]);
        let token = Some(Subresource::Token);
        for (user, kind, subresource, expected) in [
            (&account, &self_subject_review::KIND, None, true),
            (&User::anonymous(), &self_subject_review::KIND, None, false),
            (&account, &token_review::KIND, None, false),
            (&account, &service_account::KIND, token, false),
            (&User::admin(), &token_review::KIND, None, true),
            (&User::node("a"), &token_review::KIND, None, true),
            (&User::node("a"), &service_account::KIND, token, true),
            (&User::node("a"), &service_account::KIND, None, false),
        ] {
            let allowed = authorize(user, Verb::Create, kind, subresource, Some("n"), Some("x")).is_ok();
            assert_eq!(allowed, expected, "{} {kind:?} {subresource:?}", user.name);
        }
    }

    #[test]
    fn paths_are_public_discovery_or_for_masters() {
        let known = User::named("u", vec![AUTHENTICATED.into()]);
        let account = User::named("a", vec![SERVICE_ACCOUNTS.into(), AUTHENTICATED.into()]);
        for path in ["/openid/v1/jwks", "/.well-known/openid-configuration", "/apis"] {
            assert!(authorize_path(&account, "get", path).is_ok(), "{path}");
        }
        for (path, anonymous, authenticated) in [
            ("/version", true, true),
            ("/healthz", true, true),
            ("/livez/ping", true, true),
            ("/api", false, true),
            ("/apis/batch/v1", false, true),
            ("/openapi/v3", false, true),
            ("/metrics", false, false),
            ("/apisx", false, false),
            ("/openid/v1/jwks", false, false),
        ] {
            assert_eq!(authorize_path(&User::anonymous(), "get", path).is_ok(), anonymous, "{path}");
            assert_eq!(authorize_path(&known, "get", path).is_ok(), authenticated, "{path}");
            assert!(authorize_path(&User::admin(), "get", path).is_ok(), "{path}");
        }
    }
}
