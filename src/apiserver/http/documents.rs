//! Answers that are no objects: discovery, OpenAPI, version, health, metrics.

use http::header::{self, HeaderMap};

use super::answer::{Answer, headed, set, text, text_of};
use super::body::Body;
use super::serve::Context;
use crate::apiserver::discovery::{self, Discovery};
use crate::apiserver::negotiate::{self, Encoding};
use crate::apiserver::openapi::OpenApi;
use crate::apiserver::path::{Document, Query, Refusal};
use crate::apiserver::{health, metrics, render, token, version};
use crate::kind::Kind;

/// The documents of one server.
pub(super) struct Documents {
    discovery: Discovery,
    openapi: OpenApi,
}

impl Documents {
    pub(super) fn new(kinds: &'static [&'static Kind]) -> Self {
        Self { discovery: Discovery::new(kinds), openapi: OpenApi::new(kinds) }
    }

    pub(super) fn answer(
        &self,
        context: &Context,
        document: &Document,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let accept = text_of(headers, header::ACCEPT);
        match document {
            Document::Index => Ok(json(self.index())),
            Document::Version => Ok(json(version::document())),
            Document::Metrics => {
                let text = context.metrics.text(context.revision());
                Ok(headed(200, metrics::MEDIA_TYPE, Body::whole(text)))
            }
            Document::OpenIdConfiguration => {
                let configuration = serde_json::json!({
                    "issuer": token::ISSUER,
                    "jwks_uri": format!("https://{}/openid/v1/jwks", context.address),
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                });
                Ok(published("application/json", configuration.to_string()))
            }
            Document::TokenKeys => Ok(published("application/jwk-set+json", context.token_keys())),
            Document::Health(endpoint, check) => self.health(context, endpoint, check.as_deref(), query),
            Document::Legacy => {
                self.root(headers, true, || self.discovery.legacy(&context.address.to_string()))
            }
            Document::Groups => self.root(headers, false, || self.discovery.groups()),
            Document::Group(name) => {
                let found = self.discovery.group(name).ok_or(Refusal::NoPage)?;
                Ok(encoded(found, negotiate::document(accept)?, headers)?)
            }
            Document::GroupVersion(group, version) => {
                let found = self.discovery.group_version(group, version).ok_or(Refusal::NoPage)?;
                Ok(encoded(found, negotiate::document(accept)?, headers)?)
            }
            Document::OpenApiV2 => match negotiate::openapi(accept, true)? {
                negotiate::OpenApi::Json => Ok(json(self.openapi.v2())),
                negotiate::OpenApi::ProtobufV2 => Ok(headed(
                    200,
                    negotiate::OPENAPI_V2_PROTOBUF_ANSWERED,
                    Body::whole(OpenApi::v2_protobuf()),
                )),
            },
            Document::OpenApiIndex => {
                negotiate::openapi(accept, false)?;
                Ok(json(self.openapi.index()))
            }
            Document::OpenApi(path) => self.group_version_openapi(path, accept, query, headers),
        }
    }

    /// `/api` or `/apis`, aggregated if the client wants that.
    fn root(
        &self,
        headers: &HeaderMap,
        core: bool,
        legacy: impl FnOnce() -> discovery::Document,
    ) -> Result<Answer, Refusal> {
        let mut answer = match negotiate::discovery(text_of(headers, header::ACCEPT))? {
            negotiate::Discovery::Legacy(encoding) => encoded(legacy(), encoding, headers)?,
            negotiate::Discovery::Aggregated(version) => {
                let mut answer = encoded(self.discovery.aggregated(core, version), Encoding::Json, headers)?;
                let media_type =
                    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                set(&mut answer, header::CONTENT_TYPE, &media_type);
                answer
            }
        };
        set(&mut answer, header::VARY, "Accept");
        Ok(answer)
    }

    fn group_version_openapi(
        &self,
        path: &str,
        accept: Option<&str>,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        negotiate::openapi(accept, false)?;
        let document = self.openapi.document(path).ok_or(Refusal::NoPage)?;
        let etag = format!("\"{}\"", document.hash);
        let named = query.get("hash").is_some_and(|hash| hash == document.hash);
        let mut answer = if is_known(headers, &etag) {
            unchanged()
        } else if negotiate::accepts_gzip(text_of(headers, header::ACCEPT_ENCODING)) {
            let mut answer = headed(200, "application/json", Body::whole(document.gzip));
            set(&mut answer, header::CONTENT_ENCODING, "gzip");
            answer
        } else {
            json(document.json())
        };
        set(&mut answer, header::ETAG, &etag);
        set(&mut answer, header::VARY, "Accept, Accept-Encoding");
        if named {
            // The URL names the content, so it never changes.
            set(&mut answer, header::CACHE_CONTROL, "public, max-age=31536000, immutable");
        }
        Ok(answer)
    }

    fn health(
        &self,
        context: &Context,
        endpoint: &'static str,
        check: Option<&str>,
        query: &Query,
    ) -> Result<Answer, Refusal> {
        let ping = health::Check { name: "ping", healthy: true };
        let shutdown = health::Check { name: "shutdown", healthy: !context.stop.is_cancelled() };
        let checks = if endpoint == "readyz" { vec![ping, shutdown] } else { vec![ping] };
        let excluded: Vec<&str> = query.all("exclude").collect();
        let verbose = query.get("verbose").is_some();
        let health = health::answer(endpoint, &checks, check, &excluded, verbose).ok_or(Refusal::NoPage)?;
        Ok(text(health.code, health.text))
    }

    /// `/`: what there is.
    fn index(&self) -> String {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
        for (group, version) in self.discovery.group_versions() {
            if group.is_empty() {
                paths.push(format!("/api/{version}"));
            } else {
                paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
            }
        }
        for path in ["/healthz", "/livez", "/readyz"] {
            paths.extend([path.to_owned(), format!("{path}/ping")]);
        }
        paths.extend(
            [
                "/.well-known/openid-configuration",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/openid/v1/jwks",
                "/readyz/shutdown",
                "/version",
            ]
            .map(str::to_owned),
        );
        paths.extend(self.openapi.paths().into_iter().map(|path| format!("/openapi/v3/{path}")));
        paths.sort();
        paths.dedup();
        serde_json::json!({ "paths": paths }).to_string()
    }
}

/// What the issuer of tokens says of itself; may be an hour old.
fn published(media_type: &'static str, text: String) -> Answer {
    let mut answer = headed(200, media_type, Body::whole(text));
    set(&mut answer, header::CACHE_CONTROL, "public, max-age=3600");
    answer
}

fn json(text: impl Into<bytes::Bytes>) -> Answer {
    headed(200, "application/json", Body::whole(text))
}

fn encoded(
    document: discovery::Document,
    encoding: Encoding,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let mut answer = if is_known(headers, &document.etag) {
        unchanged()
    } else {
        match encoding {
            Encoding::Json => json(document.json),
            Encoding::Yaml => headed(200, "application/yaml", Body::whole(render::yaml(&document.json)?)),
        }
    };
    set(&mut answer, header::ETAG, &document.etag);
    Ok(answer)
}

/// Whether the client has the content with this tag (BEHAVIOURS 7.1).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    text_of(headers, header::IF_NONE_MATCH).is_some_and(|known| {
        known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
    })
}

fn unchanged() -> Answer {
    let mut answer = headed(304, "application/json", Body::empty());
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer
}
