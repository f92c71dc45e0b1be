//! The same verbs over HTTPS, to a cluster that a kubeconfig names: what commands use that look at or
//! change a running cluster.
//!
//! Built on `kube`, which reads kubeconfigs with all their ways to say who one is.

use std::path::{Path, PathBuf};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde::Deserialize;

use crate::kind::{self, Kind, Subresource, Typed};

/// What a change is said to be by, where nothing else says it.
const FIELD_MANAGER: &str = "coracle";

/// A door to a cluster elsewhere, for the user that the kubeconfig names.
pub struct Remote {
    client: kube::Client,
    url: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot use the kubeconfig {}: {source}", .path.display())]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error("cannot prepare the connection to {url}: {source}")]
    Prepare { url: String, source: kube::Error },
    /// As the server words it.
    #[error("{}", .0.message)]
    Refused(Box<kube::core::Status>),
    #[error("cannot reach the cluster at {url}; is it running?")]
    Unreachable { url: String, source: kube::Error },
    /// Without the answer, which may hold a Secret.
    #[error("the answer of {url} makes no sense (line {}, column {})", .at.0, .at.1)]
    Unreadable { url: String, at: (usize, usize) },
}

impl RemoteError {
    /// The HTTP code of an answer; `None` if there was none.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        if let Self::Refused(status) = self { Some(status.code) } else { None }
    }
}

/// A kubeconfig of which one context is to be used, the file's current one unless named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Several are taken together, as `KUBECONFIG` can list them; at least one.
    pub kubeconfigs: Vec<PathBuf>,
    pub context: Option<String>,
}

/// The answer of the `history` subresource.
#[derive(Deserialize)]
pub struct ObjectHistory<K> {
    /// Nothing that happened after this revision is missing.
    pub since: u64,
    /// The first item has a predecessor that is no longer kept.
    pub truncated: bool,
    /// Oldest first; at least one.
    pub items: Vec<Version<K>>,
}

#[derive(Deserialize)]
pub struct Version<K> {
    pub revision: u64,
    #[serde(default)]
    pub time: Option<MicroTime>,
    #[serde(rename = "type")]
    pub change: Change,
    #[serde(default)]
    pub destroyed: bool,
    /// Of the content; none of a version without an object.
    #[serde(default)]
    pub hash: Option<String>,
    /// None if deleted or destroyed.
    #[serde(default = "none")]
    pub object: Option<K>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

fn none<K>() -> Option<K> {
    None
}

impl Remote {
    /// Reads the kubeconfig; nothing is sent yet. To be called inside a tokio runtime.
    pub async fn connect(access: &Access) -> Result<Self, RemoteError> {
        let fallback = Path::new("");
        let first = access.kubeconfigs.first().map_or(fallback, PathBuf::as_path);
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| RemoteError::Kubeconfig { path, source }
        };
        let mut merged = Kubeconfig::default();
        for path in &access.kubeconfigs {
            let next = Kubeconfig::read_from(path).map_err(unusable(path))?;
            merged = merged.merge(next).map_err(unusable(path))?;
        }
        let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
        let config = kube::Config::from_custom_kubeconfig(merged, &options).await.map_err(unusable(first))?;
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        match kube::Client::try_from(config) {
            Ok(client) => Ok(Self { client, url }),
            Err(source) => Err(RemoteError::Prepare { url, source }),
        }
    }

    /// The API's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The namespace that the kubeconfig's context names, else `default`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The kept versions of one object, as the server writes them in JSON.
    pub async fn history_json<K: Typed>(&self, namespace: &str, name: &str) -> Result<String, RemoteError> {
        self.get::<K>(namespace, name, Subresource::History).await
    }

    /// What a subresource of one object says, as the server writes it.
    pub async fn get<K: Typed>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Subresource,
    ) -> Result<String, RemoteError> {
        let path = path_of(kind::of::<K>(), namespace, name, subresource);
        let request = http::Request::get(path).body(Vec::new()).expect("an escaped path is a URL's");
        self.client.request_text(request).await.map_err(|error| self.failed(error))
    }

    /// POST of a body to a subresource of one object, and the JSON that is the answer.
    pub async fn post<K: Typed>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Subresource,
        dry_run: bool,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, RemoteError> {
        let mut path = path_of(kind::of::<K>(), namespace, name, subresource);
        if dry_run {
            path.push_str("?dryRun=All");
        }
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(body.to_string().into_bytes()).expect("an escaped path is a URL's");
        self.client.request(request).await.map_err(|error| self.failed(error))
    }

    /// [`Remote::history_json`], read.
    pub fn history<K: Typed>(&self, json: &str) -> Result<ObjectHistory<K>, RemoteError> {
        serde_json::from_str(json).map_err(|error| self.unreadable(&error))
    }

    /// Stores a new object.
    pub async fn create<K>(&self, object: &K, dry_run: bool) -> Result<K, RemoteError>
    where
        K: Typed + k8s_openapi::Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api(object);
        api.create(&params(dry_run), object).await.map_err(|error| self.failed(error))
    }

    /// Replaces an object, whose `resourceVersion` is a precondition.
    pub async fn replace<K>(&self, object: &K, dry_run: bool) -> Result<K, RemoteError>
    where
        K: Typed + k8s_openapi::Resource<Scope = NamespaceResourceScope>,
    {
        let name = object.metadata().name.clone().unwrap_or_default();
        let api = self.api(object);
        api.replace(&name, &params(dry_run), object).await.map_err(|error| self.failed(error))
    }

    fn api<K>(&self, object: &K) -> kube::Api<K>
    where
        K: Typed + k8s_openapi::Resource<Scope = NamespaceResourceScope>,
    {
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        kube::Api::namespaced(self.client.clone(), namespace)
    }

    fn failed(&self, error: kube::Error) -> RemoteError {
        match error {
            kube::Error::Api(status) => RemoteError::Refused(status),
            kube::Error::SerdeError(error) => self.unreadable(&error),
            source => RemoteError::Unreachable { url: self.url.clone(), source },
        }
    }

    fn unreadable(&self, error: &serde_json::Error) -> RemoteError {
        RemoteError::Unreadable { url: self.url.clone(), at: (error.line(), error.column()) }
    }
}

fn path_of(kind: &Kind, namespace: &str, name: &str, subresource: Subresource) -> String {
    let root = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let (namespace, name, subresource) = (escaped(namespace), escaped(name), subresource.name());
    format!("{root}/{}/namespaces/{namespace}/{}/{name}/{subresource}", kind.version, kind.plural)
}

/// As one segment of a path.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn params(dry_run: bool) -> PostParams {
    PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) }
}
