//! What a URL asks for: a resource request with its verb, or one of the server's own documents.

mod query;

use super::request::Verb;
use super::status::Error;
use crate::kind::{self, Kind, Subresource};

pub use query::{Query, decode_path as decode, options};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    Resource(Target),
    /// The server's own documents; all are read with GET.
    Document(Document),
}

/// A request for objects, to be completed with options and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub verb: Verb,
    pub kind: &'static Kind,
    pub subresource: Option<Subresource>,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

/// A document that is not an object of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// `/`: the paths there are.
    Index,
    /// `/api`
    Legacy,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1`, `/apis/<group>/<version>`; the group is empty for the former.
    GroupVersion(String, String),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/<path>`, such as `api/v1`
    OpenApi(String),
    Version,
    /// `/healthz`, `/livez`, `/readyz`, with the one check that is asked for.
    Health(&'static str, Option<String>),
    Metrics,
    /// `/.well-known/openid-configuration`: who issues tokens, and where their keys are.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`: the keys by which tokens are known.
    TokenKeys,
}

/// Why a URL leads nowhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// 404 as text: `404 page not found`.
    NoPage,
    /// A `Status`.
    Status(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Status(error)
    }
}

/// Reads `method` and `path` (still percent-encoded, without the query); `watch` is whether the query
/// asks to watch a collection.
pub fn route(method: &str, path: &str, watch: bool) -> Result<Route, Refusal> {
    let segments: Vec<String> = path.trim_matches('/').split('/').map(query::decode_path).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => resource(method, "", version, rest, watch),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            resource(method, group, version, rest, watch)
        }
        segments => match document(segments) {
            Some(document) if matches!(method, "GET" | "HEAD") => Ok(Route::Document(document)),
            Some(_) => Err(Error::new(405, "MethodNotAllowed", "Method not allowed").into()),
            None => Err(Refusal::NoPage),
        },
    }
}

fn document(segments: &[&str]) -> Option<Document> {
    Some(match segments {
        [""] => Document::Index,
        ["api"] => Document::Legacy,
        ["api", version] => Document::GroupVersion(String::new(), (*version).to_owned()),
        ["apis"] => Document::Groups,
        ["apis", group] => Document::Group((*group).to_owned()),
        ["apis", group, version] => Document::GroupVersion((*group).to_owned(), (*version).to_owned()),
        ["openapi", "v2"] => Document::OpenApiV2,
        ["openapi", "v3"] => Document::OpenApiIndex,
        ["openapi", "v3", path @ ..] => Document::OpenApi(path.join("/")),
        ["version"] => Document::Version,
        ["healthz", check @ ..] => Document::Health("healthz", one_check(check)?),
        ["livez", check @ ..] => Document::Health("livez", one_check(check)?),
        ["readyz", check @ ..] => Document::Health("readyz", one_check(check)?),
        ["metrics"] => Document::Metrics,
        [".well-known", "openid-configuration"] => Document::OpenIdConfiguration,
        ["openid", "v1", "jwks"] => Document::TokenKeys,
        _ => return None,
    })
}

fn one_check(segments: &[&str]) -> Option<Option<String>> {
    match segments {
        [] => Some(None),
        [check] => Some(Some((*check).to_owned())),
        _ => None,
    }
}

fn resource(method: &str, group: &str, version: &str, rest: &[&str], watch: bool) -> Result<Route, Refusal> {
    if !kind::ALL.iter().any(|kind| kind.group == group && kind.version == version) {
        return Err(Refusal::NoPage);
    }
    let (namespace, rest) = split_namespace(group, rest);
    if namespace == Some("") {
        return Err(Refusal::NoPage);
    }
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
        // What follows is for whoever is proxied to.
        [plural, name, "proxy", ..] => (*plural, Some(*name), Some("proxy")),
        _ => return Err(Error::unknown_resource().into()),
    };
    let kind = kind::by_path(group, version, plural).ok_or_else(Error::unknown_resource)?;
    if kind.is_namespaced() != namespace.is_some() && (namespace.is_some() || name.is_some()) {
        return Err(Error::unknown_resource().into());
    }
    if name.is_some_and(|name| matches!(name, "" | "." | "..") || name.contains(['/', '%'])) {
        return Err(
            Error::bad_request(format!("invalid resource name {:?}", name.unwrap_or_default())).into()
        );
    }
    let subresource = match subresource {
        None => None,
        Some(asked) => Some(find_subresource(kind, asked)?),
    };
    let target = Target {
        verb: verb(method, kind, name.is_some(), subresource, watch)?,
        kind,
        subresource,
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
    };
    // Only reading goes across namespaces.
    if kind.is_namespaced() && namespace.is_none() && !matches!(target.verb, Verb::List | Verb::Watch) {
        return Err(Error::method_not_allowed(kind).into());
    }
    Ok(Route::Resource(target))
}

/// `namespaces/<ns>/<plural>…` is inside a namespace, `namespaces/<name>` and its subresources are not.
fn split_namespace<'a>(group: &str, rest: &'a [&'a str]) -> (Option<&'a str>, &'a [&'a str]) {
    match rest {
        ["namespaces", _, "status" | "finalize"] if group.is_empty() => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(namespace), rest),
        _ => (None, rest),
    }
}

fn find_subresource(kind: &Kind, asked: &str) -> Result<Subresource, Error> {
    if let Some(found) = kind.subresources.iter().copied().find(|one| one.name() == asked) {
        return Ok(found);
    }
    Err(Error::unknown_resource())
}

fn verb(
    method: &str,
    kind: &Kind,
    named: bool,
    subresource: Option<Subresource>,
    watch: bool,
) -> Result<Verb, Error> {
    let verb = match (method, named) {
        // Authorized by what the method would be here; those that change nothing are reads.
        ("HEAD" | "OPTIONS", true) if subresource == Some(Subresource::Proxy) => Verb::Get,
        ("POST", true) if subresource == Some(Subresource::Proxy) => Verb::Create,
        ("GET", true) => Verb::Get,
        ("GET", false) if watch => Verb::Watch,
        ("GET", false) => Verb::List,
        ("POST", named) if named == subresource.is_some() => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => return Err(Error::method_not_allowed(kind)),
    };
    let allowed = subresource.map_or(kind.verbs, subresource_verbs);
    if allowed.contains(&verb.name()) { Ok(verb) } else { Err(Error::method_not_allowed(kind)) }
}

/// The verbs of a subresource, sorted as discovery lists them.
#[must_use]
pub fn subresource_verbs(subresource: Subresource) -> &'static [&'static str] {
    match subresource {
        Subresource::Status | Subresource::Scale | Subresource::EphemeralContainers => {
            &["get", "patch", "update"]
        }
        Subresource::Binding | Subresource::Eviction | Subresource::Token | Subresource::Trigger => {
            &["create"]
        }
        Subresource::Log | Subresource::History => &["get"],
        Subresource::Finalize => &["update"],
        Subresource::Proxy => &["create", "delete", "get", "patch", "update"],
        Subresource::Queue | Subresource::Exec | Subresource::Attach | Subresource::PortForward => {
            &["create", "get"]
        }
    }
}

#[cfg(test)]
mod tests;
