//! Where registries are: `registries.yaml`, as k3s has it.
//!
//! ```yaml
//! mirrors:
//!   docker.io:
//!     endpoint: [https://mirror.example, http://10.0.0.7:5000]
//!   "*":
//!     endpoint: [https://cache.example]
//! configs:
//!   mirror.example:
//!     auth: {username: me, password: secret}
//!     tls: {ca_file: /etc/ca.pem}
//! ```
//!
//! The endpoints of a registry are tried in order, and at last the registry itself. What of k3s' file has
//! no meaning here (`rewrite`, `override_path`) is refused rather than ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::super::keyring::{Credential, Keyring};

#[cfg(test)]
mod tests;

/// The host that Docker Hub's registry really has.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    #[error("it is not registries.yaml: {0}")]
    Yaml(String),
    #[error("the endpoint {0:?} of {1} is not http://HOST[:PORT] or https://HOST[:PORT]")]
    Endpoint(String, String),
    #[error("tls of {0}: cert_file and key_file are given both or not at all")]
    Identity(String),
}

/// The content of `registries.yaml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hosts {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostConfig {
    auth: Option<HostAuth>,
    tls: Option<Tls>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostAuth {
    username: String,
    password: String,
    auth: String,
    identity_token: String,
}

impl std::fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostAuth(…)")
    }
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) insecure_skip_verify: bool,
}

/// One place to ask for a registry's images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// With its port, if that is not the scheme's.
    pub(crate) host: String,
    pub(crate) tls: Tls,
    /// Not the registry itself: what is secret to that must not reach it.
    pub(crate) is_mirror: bool,
}

impl Hosts {
    /// Reads the file's content.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let hosts: Self =
            serde_saphyr::from_str(text).map_err(|error| HostsError::Yaml(error.to_string()))?;
        for (host, mirror) in &hosts.mirrors {
            if let Some(bad) = mirror.endpoint.iter().find(|endpoint| taken_apart(endpoint).is_none()) {
                return Err(HostsError::Endpoint(bad.clone(), host.clone()));
            }
        }
        for (host, config) in &hosts.configs {
            let tls = config.tls.clone().unwrap_or_default();
            if tls.cert_file.is_some() != tls.key_file.is_some() {
                return Err(HostsError::Identity(host.clone()));
            }
        }
        Ok(hosts)
    }

    /// Where to ask for images of a host, in order. `offline` leaves only what is on this machine or named
    /// in the file.
    pub(crate) fn endpoints(&self, host: &str, offline: bool) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(host).or_else(|| self.mirrors.get("*"));
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (scheme, at) in
            mirror.iter().flat_map(|mirror| &mirror.endpoint).filter_map(|text| taken_apart(text))
        {
            endpoints.push(self.endpoint(scheme, at, !is_same(host, at)));
        }
        // The registry itself, unless the file says how it is to be asked.
        if endpoints.iter().all(|endpoint| endpoint.is_mirror) && (!offline || is_loopback(host)) {
            let has_tls = self.configs.get(host).is_some_and(|config| config.tls.is_some());
            let scheme = if is_loopback(host) && !has_tls { "http" } else { "https" };
            let at = if host == "docker.io" { DOCKER_HUB } else { host };
            endpoints.push(self.endpoint(scheme, at, false));
        }
        endpoints
    }

    fn endpoint(&self, scheme: &'static str, host: &str, is_mirror: bool) -> Endpoint {
        let config = self
            .configs
            .get(host)
            .or_else(|| if host == DOCKER_HUB { self.configs.get("docker.io") } else { None });
        let tls = config.and_then(|config| config.tls.clone()).unwrap_or_default();
        Endpoint { scheme, host: host.to_owned(), tls, is_mirror }
    }

    /// The credentials in the file.
    pub(crate) fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        for (host, config) in &self.configs {
            let Some(auth) = &config.auth else { continue };
            if !auth.identity_token.is_empty() {
                keyring.append(Keyring::for_host(host, Credential::Identity(auth.identity_token.clone())));
            } else if !auth.username.is_empty() {
                let (username, password) = (auth.username.clone(), auth.password.clone());
                keyring.append(Keyring::for_host(host, Credential::Basic { username, password }));
            } else if !auth.auth.is_empty() {
                let json = serde_json::json!({ "auths": { host: { "auth": auth.auth } } }).to_string();
                match Keyring::from_config(json.as_bytes()) {
                    Ok(other) => keyring.append(other),
                    Err(error) => tracing::warn!(host, %error, "credentials of registries.yaml are left out"),
                }
            }
        }
        keyring
    }
}

fn is_same(registry: &str, host: &str) -> bool {
    registry == host || registry == "docker.io" && host == DOCKER_HUB
}

fn taken_apart(endpoint: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = match endpoint.split_once("://")? {
        ("http", rest) => ("http", rest),
        ("https", rest) => ("https", rest),
        _ => return None,
    };
    // Some write the version of the API, which is always the same.
    let host = rest.trim_end_matches('/').trim_end_matches("/v2");
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    (!host.is_empty() && host.chars().all(is_host)).then_some((scheme, host))
}

/// Whether a registry is on this machine: then it may speak plain HTTP, as Docker has it.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}
