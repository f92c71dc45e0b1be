//! Registries over HTTP: the pulling half of the OCI distribution specification.
//!
//! A registry that a pod names may be anybody's, so nothing it says is taken for granted: every answer
//! has a longest size, every blob is hashed as it comes, an answer that stalls ends, and credentials go to
//! the registry they are for and to the token service that it names, over TLS unless the registry itself
//! is asked in plain text. (`oci-client` pushes, for the command line; it reads manifests, tokens and error
//! texts whole, whatever their size, and so is not what faces strangers from inside the cluster.)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::keyring::{Credential, Keyring};
use super::manifest::{self, Descriptor, FormatError};
use super::name::Parts;
use crate::clock::Clock;

mod challenge;
mod hosts;
pub mod push;
#[cfg(test)]
pub(crate) mod tests;

use challenge::Challenge;
pub(crate) use hosts::Endpoint;
pub use hosts::{Hosts, HostsError};

/// How long an answer may make no progress, unless told otherwise: a minute, as the kubelet's
/// `--image-pull-progress-deadline` had it.
pub const STALL: Duration = Duration::from_secs(60);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// The longest answer of a token service, and the most that is read of an error.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// What is told of an error that a registry explains.
const REASON_CHARS_MAX: usize = 300;
/// Waits before a request is made again after an answer that may be different next time.
const RETRIES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
const REDIRECTS_MAX: usize = 5;
/// Clients kept, one a kind of trust; the rest are made when needed.
const CLIENTS_MAX: usize = 32;

const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// What a cluster knows of registries.
#[derive(Clone, Debug)]
pub struct Options {
    pub hosts: Hosts,
    /// Credentials of the cluster itself.
    pub keyring: Keyring,
    /// Reach only what is on this machine, or named in `hosts`.
    pub offline: bool,
    /// How long an answer may make no progress.
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { hosts: Hosts::default(), keyring: Keyring::default(), offline: false, stall: STALL }
    }
}

/// Why something could not be had from a registry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another credential may be welcome.
    #[error("{url}: {status}{reason}{}", if *.anonymous { "; no credentials for it were found" } else { "" })]
    Denied { url: String, status: StatusCode, reason: String, anonymous: bool },
    #[error("{url}: not found{reason}")]
    NotFound { url: String, reason: String },
    #[error("{url}: {status}{reason}")]
    Refused { url: String, status: StatusCode, reason: String },
    #[error("{url}: {why}")]
    Broken { url: String, why: String },
    #[error("{url}: no answer for {seconds} s")]
    Stalled { url: String, seconds: u64 },
    #[error("{url}: the answer is larger than {max} bytes")]
    TooLarge { url: String, max: u64 },
    #[error("{url}: the content's digest is {found}, not {expected}")]
    Digest { url: String, expected: String, found: String },
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error("cannot use the TLS settings of {host}: {why}")]
    Tls { host: String, why: String },
}

impl RegistryError {
    /// Whether another credential may do better.
    pub(crate) fn is_denied(&self) -> bool {
        // Registries hide what one may not see.
        matches!(self, Self::Denied { .. } | Self::NotFound { .. })
    }

    fn is_passing(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                *status == StatusCode::TOO_MANY_REQUESTS
                    || status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
            }
            Self::Broken { .. } => true,
            Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::Stalled { .. }
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::Format(_)
            | Self::Tls { .. } => false,
        }
    }
}

type Result<T> = std::result::Result<T, RegistryError>;

/// All registries.
pub struct Registries {
    options: Options,
    keyring: Keyring,
    clock: Clock,
    clients: Mutex<BTreeMap<Trust, reqwest::Client>>,
}

/// What tells one client from another.
type Trust = (hosts::Tls, bool);

/// A manifest as it was found.
pub(crate) struct Found {
    /// Of what the name means: an index, if there is one.
    pub(crate) top: String,
    /// The manifest for WebAssembly.
    pub(crate) bytes: Bytes,
    pub(crate) media_type: String,
    pub(crate) manifest: manifest::Manifest,
}

/// One repository at one endpoint, asked with one credential.
pub(crate) struct Repository<'a> {
    registries: &'a Registries,
    client: reqwest::Client,
    base: String,
    is_plain: bool,
    name: String,
    credential: Option<Credential>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registries {
    #[must_use]
    pub fn new(options: Options, clock: Clock) -> Self {
        let mut keyring = options.keyring.clone();
        keyring.append(options.hosts.keyring());
        Self { options, keyring, clock, clients: Mutex::default() }
    }

    /// The cluster's own credentials.
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Where a host's images may be had, in order.
    pub(crate) fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        self.options.hosts.endpoints(host, self.options.offline)
    }

    pub(crate) fn repository(
        &self,
        endpoint: &Endpoint,
        parts: &Parts,
        credential: Option<Credential>,
    ) -> Result<Repository<'_>> {
        Ok(Repository {
            registries: self,
            client: self.client(endpoint)?,
            base: format!("{}://{}/v2/{}", endpoint.scheme, endpoint.host, parts.repository),
            is_plain: endpoint.scheme == "http",
            name: parts.repository.clone(),
            credential,
            authorization: Mutex::default(),
        })
    }

    fn client(&self, endpoint: &Endpoint) -> Result<reqwest::Client> {
        let is_plain = endpoint.scheme == "http";
        let trust = (endpoint.tls.clone(), is_plain);
        let mut clients = self.clients.lock().expect("no holder panics");
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let made = client(&endpoint.tls, is_plain, self.options.stall);
        let made = made.map_err(|why| RegistryError::Tls { host: endpoint.host.clone(), why })?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(trust, made.clone());
        Ok(made)
    }
}

/// Lets TLS know what it encrypts with. Whoever comes second finds it done.
pub(crate) fn install_provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn client(tls: &hosts::Tls, is_plain: bool, stall: Duration) -> std::result::Result<reqwest::Client, String> {
    install_provider();
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let redirects = || {
        reqwest::redirect::Policy::custom(|attempt| {
            let was_encrypted = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if was_encrypted && attempt.url().scheme() != "https" {
                attempt.error("a redirect from https to http is not followed")
            } else if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else {
                attempt.follow()
            }
        })
    };
    let build = |with_roots: bool| {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .redirect(redirects())
            .read_timeout(stall)
            .connect_timeout(CONNECT.min(stall))
            .pool_max_idle_per_host(2);
        if is_plain {
            // Plain text is for what is near; a proxy is not on the way there.
            builder = builder.no_proxy();
        }
        if tls.insecure_skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else if !with_roots {
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = &tls.ca_file {
            let roots = reqwest::Certificate::from_pem_bundle(&read(path)?);
            let roots = roots.map_err(|error| format!("{}: {}", path.display(), causes(&error)))?;
            builder = builder.tls_certs_only(roots);
        }
        if let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) {
            let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            let identity = reqwest::Identity::from_pem(&pem);
            builder = builder.identity(identity.map_err(|error| causes(&error))?);
        }
        builder.build().map_err(|error| causes(&error))
    };
    // A machine without certificates of authorities can still ask a registry in plain text.
    build(true).or_else(|error| if is_plain { build(false) } else { Err(error) })
}

/// In rustls' words: the certificate that a server shows may only sign others.
const AUTHORITY_SERVES: &str = "CaUsedAsEndEntity";
const AUTHORITY_MEND: &str = " (the registry shows the certificate of an authority, CA:TRUE, as its own: make it one \
     that this authority has signed, and name the authority in tls.ca_file)";

/// An error and what caused it, on one line; and its mend, if few know it.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let why = inner.to_string();
        if !text.contains(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = inner.source();
    }
    if text.contains(AUTHORITY_SERVES) {
        text.push_str(AUTHORITY_MEND);
    }
    text
}

impl Repository<'_> {
    /// The digest that a tag or digest means now, if the registry says so without sending the whole.
    pub(crate) async fn digest(&self, reference: &str) -> Result<Option<String>> {
        let url = format!("{}/manifests/{reference}", self.base);
        let response = self.send(Method::HEAD, &url).await?;
        Ok(content_digest(response.headers()).filter(|digest| manifest::is_digest(digest)))
    }

    /// The manifest for WebAssembly that a tag or digest leads to.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Found> {
        let (top, bytes) = self.document(reference).await?;
        let (bytes, manifest) = match manifest::parse(&bytes)? {
            manifest::Document::Manifest(manifest) => (bytes, manifest),
            manifest::Document::Index(entries) => {
                let (_, bytes) = self.document(&manifest::choose(&entries)?.digest).await?;
                match manifest::parse(&bytes)? {
                    manifest::Document::Manifest(manifest) => (bytes, manifest),
                    manifest::Document::Index(_) => {
                        return Err(
                            FormatError::Invalid("index", "it leads to another index".to_owned()).into()
                        );
                    }
                }
            }
        };
        Ok(Found { top, media_type: manifest::media_type(&bytes), bytes, manifest })
    }

    /// A manifest or index and its digest.
    async fn document(&self, reference: &str) -> Result<(String, Bytes)> {
        let mut waits = RETRIES.iter();
        loop {
            match self.document_once(reference).await {
                Ok(found) => return Ok(found),
                Err(error) => self.pause(error, waits.next()).await?,
            }
        }
    }

    async fn document_once(&self, reference: &str) -> Result<(String, Bytes)> {
        let url = format!("{}/manifests/{reference}", self.base);
        let response = self.send(Method::GET, &url).await?;
        let told = content_digest(response.headers());
        let bytes = self.body(&url, response, manifest::MANIFEST_BYTES_MAX).await?;
        let found = manifest::digest_of(&bytes);
        let by_digest = Some(reference.to_owned()).filter(|reference| reference.contains(':'));
        let told = told.filter(|told| told.starts_with("sha256:"));
        match by_digest.or(told) {
            Some(expected) if expected != found => Err(RegistryError::Digest { url, expected, found }),
            Some(_) | None => Ok((found, bytes)),
        }
    }

    /// A blob, whole and as its descriptor says. `told` hears how much of it has come.
    pub(crate) async fn blob(&self, blob: &Descriptor, told: Option<&(dyn Fn(u64) + Sync)>) -> Result<Bytes> {
        let mut waits = RETRIES.iter();
        loop {
            match self.blob_once(blob, told).await {
                Ok(found) => return Ok(found),
                Err(error) => self.pause(error, waits.next()).await?,
            }
        }
    }

    async fn blob_once(&self, blob: &Descriptor, told: Option<&(dyn Fn(u64) + Sync)>) -> Result<Bytes> {
        let url = format!("{}/blobs/{}", self.base, blob.digest);
        let response = self.send(Method::GET, &url).await?;
        let mut stream = response.bytes_stream();
        let (mut hash, mut bytes) = (Sha256::new(), BytesMut::new());
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.broken(&url, &error))?;
            if bytes.len() as u64 + piece.len() as u64 > blob.size {
                return Err(RegistryError::TooLarge { url, max: blob.size });
            }
            hash.update(&piece);
            bytes.extend_from_slice(&piece);
            if let Some(told) = told {
                told(bytes.len() as u64);
            }
        }
        let found = manifest::hex_digest(&hash.finalize());
        if found == blob.digest {
            return Ok(bytes.freeze());
        }
        if (bytes.len() as u64) < blob.size {
            let why = format!("the answer ends after {} of {} bytes", bytes.len(), blob.size);
            return Err(RegistryError::Broken { url, why });
        }
        Err(RegistryError::Digest { url, expected: blob.digest.clone(), found })
    }

    /// Waits, if what failed may go well the next time and there is to be one.
    async fn pause(&self, error: RegistryError, wait: Option<&Duration>) -> Result<()> {
        match wait {
            Some(wait) if error.is_passing() => {
                tracing::debug!(%error, "asking a registry again");
                self.registries.clock.sleep(*wait).await;
                Ok(())
            }
            Some(_) | None => Err(error),
        }
    }

    /// Sends a request, with the authorization that the registry asks for; a success.
    async fn send(&self, method: Method, url: &str) -> Result<reqwest::Response> {
        let known = self.authorization.lock().expect("no holder panics").clone();
        let response = self.try_send(method.clone(), url, known.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || known.is_some() {
            return self.succeeded(url, response).await;
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?)).next();
        let Some(challenge) = challenge else { return self.succeeded(url, response).await };
        let Some(authorization) = self.authorize(&challenge).await? else {
            return self.succeeded(url, response).await;
        };
        *self.authorization.lock().expect("no holder panics") = Some(authorization.clone());
        let response = self.try_send(method, url, Some(authorization)).await?;
        self.succeeded(url, response).await
    }

    async fn try_send(
        &self,
        method: Method,
        url: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response> {
        let mut request = self.client.request(method, url).header(ACCEPT, ACCEPTED);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.broken(url, &error))
    }

    /// What to send as authorization; `None` if there is nothing to prove it with.
    async fn authorize(&self, challenge: &Challenge) -> Result<Option<HeaderValue>> {
        match (challenge, &self.credential) {
            (_, Some(Credential::Bearer(token))) => Ok(secret_header(&format!("Bearer {token}"))),
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                Ok(secret_header(&basic(username, password)))
            }
            (Challenge::Basic, Some(Credential::Identity(_)) | None) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.name));
                let token = self.token(realm, service.as_deref(), &scope, credential.as_ref()).await?;
                Ok(secret_header(&format!("Bearer {token}")))
            }
        }
    }

    /// A token of the service that the registry trusts (distribution's token authentication).
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
    ) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let broken = |why: &str| RegistryError::Broken { url: realm.to_owned(), why: why.to_owned() };
        let at =
            reqwest::Url::parse(realm).map_err(|_| broken("the token service's address is not valid"))?;
        if at.scheme() != "https" && !(at.scheme() == "http" && self.is_plain) {
            return Err(broken("a token service is asked over https only"));
        }
        let mut query = vec![("scope", scope)];
        query.extend(service.map(|service| ("service", service)));
        let request = match credential {
            Some(Credential::Identity(token)) => {
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "coracle"),
                ]);
                let form = reqwest::Url::parse_with_params("http://form", &query);
                let form = form.map_err(|_| broken("the request for a token is not valid"))?;
                self.client
                    .post(at)
                    .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            Some(Credential::Basic { username, password }) => {
                self.client.get(at).query(&query).header(AUTHORIZATION, basic(username, password))
            }
            Some(Credential::Bearer(_)) | None => self.client.get(at).query(&query),
        };
        let response = request.send().await.map_err(|error| self.broken(realm, &error))?;
        let response = self.succeeded(realm, response).await?;
        let body = self.body(realm, response, SMALL_BYTES_MAX).await?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| broken("the answer is not a token"))?;
        answer.token.or(answer.access_token).ok_or_else(|| broken("the answer has no token"))
    }

    /// A response that is a success, or why it is none.
    async fn succeeded(&self, url: &str, response: reqwest::Response) -> Result<reqwest::Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = url.to_owned();
        let reason = self.body(&url, response, SMALL_BYTES_MAX).await.map(|body| explained(&body));
        let reason = reason.unwrap_or_default();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Denied { url, status, reason, anonymous: self.credential.is_none() }
            }
            StatusCode::NOT_FOUND => RegistryError::NotFound { url, reason },
            _ => RegistryError::Refused { url, status, reason },
        })
    }

    async fn body(&self, url: &str, response: reqwest::Response, max: u64) -> Result<Bytes> {
        let mut body = BytesMut::new();
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.broken(url, &error))?;
            if body.len() as u64 + piece.len() as u64 > max {
                return Err(RegistryError::TooLarge { url: url.to_owned(), max });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn broken(&self, url: &str, error: &reqwest::Error) -> RegistryError {
        let url = url.to_owned();
        if error.is_timeout() && !error.is_connect() {
            let seconds = self.registries.options.stall.as_secs();
            return RegistryError::Stalled { url, seconds };
        }
        // The address stands before this already.
        let source = std::error::Error::source(error);
        RegistryError::Broken { url, why: source.map_or_else(|| error.to_string(), causes) }
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// Not to be shown by whoever shows requests. What cannot be a header is none.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn content_digest(headers: &HeaderMap) -> Option<String> {
    headers.get("docker-content-digest")?.to_str().ok().map(str::to_owned)
}

/// What a registry says is wrong, in the form that the specification has for it; anything else is not told.
fn explained(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else { return String::new() };
    let told: Vec<String> = envelope
        .errors
        .iter()
        .map(|one| if one.message.is_empty() { &one.code } else { &one.message }.clone())
        .collect();
    let text: String = told.join("; ").chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Shared by all who pull.
pub type Shared = Arc<Registries>;
