//! Credentials for registries, and which of them are for an image.
//!
//! As upstream's keyring (`pkg/credentialprovider`): an entry is for a host, whose labels may be globs
//! (`*.example.com`), and for what lies below a path; the most particular entry comes first, and all that
//! match are tried. The format is Docker's `config.json`, or the older `.dockercfg`, which is its `auths`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[cfg(test)]
pub(crate) mod tests;

/// Proof of who asks. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Basic {
        username: String,
        password: String,
    },
    /// Exchanged for a token where the registry says.
    Identity(String),
    /// Sent as it is.
    Bearer(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// A credential and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub credential: Credential,
    /// The uid of the Secret it is from; `None` for the cluster's own.
    pub secret: Option<String>,
}

/// Why a text has no credentials. Says nothing of its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("it is not Docker's config.json: line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("the `auth` of {0} is not base64 of user:password")]
    Auth(String),
}

/// Credentials by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    /// The most particular first within one source.
    entries: Vec<(Place, Key)>,
}

/// `*.example.com:5000/team`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    path: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

impl Keyring {
    /// From Docker's `config.json`.
    pub fn from_config(json: &[u8]) -> Result<Self, KeyringError> {
        let config: Config = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
        Self::from_auths(config.auths)
    }

    /// From the older `.dockercfg`.
    pub fn from_dockercfg(json: &[u8]) -> Result<Self, KeyringError> {
        Self::from_auths(serde_json::from_slice(json).map_err(|error| unreadable(&error))?)
    }

    fn from_auths(auths: BTreeMap<String, Auth>) -> Result<Self, KeyringError> {
        let mut entries = Vec::new();
        // Upstream's order: by name, backwards, so that longer paths come before their beginnings.
        for (name, auth) in auths.into_iter().rev() {
            if let Some(credential) = credential(&name, auth)? {
                entries.push((place(&name), Key { credential, secret: None }));
            }
        }
        Ok(Self { entries })
    }

    /// From a Secret of one of the two types; one of another type has none.
    pub(crate) fn from_secret(secret: &Secret) -> Result<Self, KeyringError> {
        let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| &value.0);
        let mut keyring = match (data(".dockerconfigjson"), data(".dockercfg"), secret.type_.as_deref()) {
            (Some(json), _, Some("kubernetes.io/dockerconfigjson")) => Self::from_config(json)?,
            (_, Some(json), Some("kubernetes.io/dockercfg")) => Self::from_dockercfg(json)?,
            _ => Self::default(),
        };
        for (_, key) in &mut keyring.entries {
            key.secret.clone_from(&secret.metadata.uid);
        }
        Ok(keyring)
    }

    /// For one host and all below it.
    #[must_use]
    pub(crate) fn for_host(host: &str, credential: Credential) -> Self {
        Self { entries: vec![(place(host), Key { credential, secret: None })] }
    }

    /// Those of `other` are tried after these.
    pub fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// All that are for a repository of a host, in the order in which they are to be tried.
    #[must_use]
    pub fn lookup(&self, host: &str, repository: &str) -> Vec<Key> {
        let path = format!("/{repository}");
        let mut found: Vec<Key> = Vec::new();
        for (place, key) in &self.entries {
            let is_for = hosts_match(&place.host, host) && path.starts_with(&place.path)
                // Docker Hub has several names.
                || host == "docker.io" && matches!(&*place.host, "index.docker.io" | "registry-1.docker.io");
            if is_for && !found.iter().any(|known| known.credential == key.credential) {
                found.push(key.clone());
            }
        }
        found
    }
}

fn unreadable(error: &serde_json::Error) -> KeyringError {
    KeyringError::Json { line: error.line(), column: error.column() }
}

fn credential(name: &str, auth: Auth) -> Result<Option<Credential>, KeyringError> {
    if !auth.registrytoken.is_empty() {
        return Ok(Some(Credential::Bearer(auth.registrytoken)));
    }
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Credential::Identity(auth.identitytoken)));
    }
    if !auth.username.is_empty() || !auth.password.is_empty() {
        return Ok(Some(Credential::Basic { username: auth.username, password: auth.password }));
    }
    if auth.auth.is_empty() {
        // Kept elsewhere, by a helper that only Docker asks.
        return Ok(None);
    }
    let invalid = || KeyringError::Auth(name.to_owned());
    let decoded = STANDARD.decode(auth.auth.trim()).map_err(|_| invalid())?;
    let text = String::from_utf8(decoded).map_err(|_| invalid())?;
    let (username, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(Some(Credential::Basic {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    }))
}

fn place(name: &str) -> Place {
    let name = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name);
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    // The version of the API is no part of images' names.
    let path = match path.strip_prefix("v1").or(path.strip_prefix("v2")) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        Some(_) | None => path,
    };
    let path = path.trim_end_matches('/');
    Place { host: host.to_owned(), path: if path.is_empty() { String::new() } else { format!("/{path}") } }
}

/// Label by label, and the port as it is.
fn hosts_match(pattern: &str, host: &str) -> bool {
    let split = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) => (name.to_owned(), Some(port.to_owned())),
        None => (text.to_owned(), None),
    };
    let ((pattern, pattern_port), (host, port)) = (split(pattern), split(host));
    if pattern_port != port {
        return false;
    }
    let (patterns, labels): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), host.split('.').collect());
    patterns.len() == labels.len()
        && patterns
            .iter()
            .zip(labels)
            .all(|(pattern, label)| label_matches(pattern.as_bytes(), label.as_bytes()))
}

/// `*` and `?` within one label; in time of the product of both lengths at worst, since anybody may write
/// a pattern.
fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the latest star is, and what of the label it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while read < label.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(one) if *one == b'?' || *one == label[read] => {
                at += 1;
                read += 1;
            }
            Some(_) | None => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}
