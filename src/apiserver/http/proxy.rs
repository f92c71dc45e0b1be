//! Requests that are carried on to pods, services and nodes (BEHAVIOURS 8.8): as they come, both ways,
//! an upgrade such as a WebSocket included.
//!
//! What upstream's proxy does beyond and this does not: it rewrites links in HTML pages, so that a page's
//! absolute links stay below the proxy's path. `Location` is rewritten here too.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio_rustls::TlsConnector;
use tracing::{Instrument, debug};

use super::answer::{Answer, headed, set};
use super::body::{Body, Failure};
use super::serve::Context;
use super::trusting::trusting;
use crate::apiserver::Error;
use crate::apiserver::metrics::Guard;
use crate::apiserver::request::Backend;

/// Headers about a connection and not about what is carried (RFC 9110 7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where in the URL what is carried on begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The proxy's own path, without a last slash.
    prefix: &'a str,
    /// What is asked of the backend: empty, or with its first slash.
    pub(super) rest: &'a str,
}

impl<'a> Place<'a> {
    /// `path` is one that the router has taken: of a namespaced kind or not.
    pub(super) fn of(path: &'a str, is_namespaced: bool) -> Self {
        // api/v1/namespaces/NS/pods/NAME/proxy, api/v1/nodes/NAME/proxy
        let segments = if is_namespaced { 7 } else { 5 };
        let slashes = path.match_indices('/').map(|(at, _)| at);
        // The router does not mind more slashes before the first segment.
        let leading = path.len() - path.trim_start_matches('/').len();
        let end = slashes.filter(|at| *at >= leading).nth(segments - 1).unwrap_or(path.len());
        Self { prefix: &path[..end], rest: &path[end..] }
    }
}

/// Carries a request to `backend` and answers what that answers.
pub(super) async fn forward<B>(
    context: &Arc<Context>,
    parts: &Parts,
    body: B,
    place: Place<'_>,
    backend: Backend,
    guard: Guard,
) -> Result<Answer, Error>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let upgrade = upgrade_of(&parts.headers);
    if place.rest.is_empty() && upgrade.is_none() && matches!(parts.method, Method::GET | Method::HEAD) {
        // Relative links of a page lead below the proxy's path only if that ends so.
        let mut answer = headed(301, "text/plain", Body::empty());
        set(&mut answer, header::LOCATION, &format!("{}/{query}", place.prefix));
        return Ok(answer);
    }
    let permit = Arc::clone(&context.sessions).try_acquire_owned().map_err(|_| {
        Error::new(429, "TooManyRequests", "too many streams are open already; try again later")
            .with_retry_after(1)
    })?;
    let Backend { is_https, address, connection } = backend;
    let stream = connection.await.map_err(|error| unreachable(&error))?;
    let stream: Box<dyn Stream> = if is_https {
        let name = ServerName::IpAddress(address.ip().into());
        // Those of pods are signed by nobody that we know; upstream's proxy takes any too.
        let connector = TlsConnector::from(trusting());
        Box::new(connector.connect(name, stream).await.map_err(|error| unreachable(&error))?)
    } else {
        Box::new(stream)
    };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(
        async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "a proxied connection ended");
            }
        }
        .in_current_span(),
    );

    let rest = if place.rest.is_empty() { "/" } else { place.rest };
    let uri: Uri = format!("{rest}{query}")
        .parse()
        .map_err(|error| Error::bad_request(format!("cannot ask for {rest:?}: {error}")))?;
    let mut request = Request::new(body.map_err(Into::into).boxed_unsync());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = request_headers(parts, place.prefix, rest, upgrade.as_ref());
    let mut response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;

    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let theirs = is_upgraded.then(|| hyper::upgrade::on(&mut response));
    let (head, incoming) = response.into_parts();
    let mut headers = carried(&head.headers);
    if let Some(location) = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) {
        let ours = relocated(location, place.prefix, address, host(parts));
        if let Some(value) = ours.and_then(|ours| HeaderValue::from_str(&ours).ok()) {
            headers.insert(header::LOCATION, value);
        }
    }
    let Some(theirs) = theirs else {
        let mut answer = Answer::new(Body::Carried { body: incoming, _held: (permit, guard) });
        *answer.status_mut() = head.status;
        *answer.headers_mut() = headers;
        return Ok(answer);
    };
    let ours = parts.extensions.get::<OnUpgrade>().cloned();
    let ours = ours.ok_or_else(|| Error::bad_request("this connection cannot be upgraded"))?;
    let protocol = head.headers.get(header::UPGRADE).cloned();
    let stop = context.stop.clone();
    let carry = async move {
        let _held = (permit, guard);
        let both = async {
            let (ours, theirs) = (ours.await?, theirs.await?);
            copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await?;
            Ok::<_, Failure>(())
        };
        tokio::select! {
            () = stop.cancelled() => {}
            ended = both => if let Err(error) = ended {
                debug!(%error, "an upgraded connection ended");
            }
        }
    };
    tokio::spawn(carry.in_current_span());
    let mut answer = Answer::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
    *answer.headers_mut() = headers;
    Ok(answer)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// In upstream's words.
fn unreachable(error: &(dyn StdError + 'static)) -> Error {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    Error::new(503, "ServiceUnavailable", format!("error trying to reach service: {text}"))
}

/// The protocol that the client wants to change to, if it does.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut words = values.flat_map(|value| value.split(',')).map(str::trim);
    let wants = words.any(|word| word.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wants).cloned()
}

/// The name by which the client reached us.
fn host(parts: &Parts) -> &str {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    authority.or(host).unwrap_or_default()
}

/// What goes on of the headers: all that is not about the connection.
fn carried(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let mut carried = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let text = name.as_str();
        if !HOP_BY_HOP.contains(&text) && !named.iter().any(|one| one == text) {
            carried.append(name.clone(), value.clone());
        }
    }
    carried
}

/// The headers of the request to the backend. Who asks, and by what secret, is not the backend's to know.
fn request_headers(parts: &Parts, prefix: &str, rest: &str, upgrade: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = carried(&parts.headers);
    headers.remove(header::AUTHORIZATION);
    let secret: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in secret {
        headers.remove(name);
    }
    let host = host(parts).to_owned();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::HOST, &host);
    set(HeaderName::from_static("x-forwarded-host"), &host);
    set(HeaderName::from_static("x-forwarded-proto"), "https");
    set(HeaderName::from_static("x-forwarded-uri"), &format!("{prefix}{rest}"));
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade.clone());
    }
    headers
}

/// A `Location` on the backend, as one below the proxy's path; None if it leads elsewhere.
fn relocated(location: &str, prefix: &str, backend: SocketAddr, host: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        // One that knows where it is has said so already.
        let is_below =
            location.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        return (!is_below).then(|| format!("{prefix}{location}"));
    }
    let uri: Uri = location.parse().ok()?;
    let authority = uri.authority()?.as_str();
    if authority != backend.to_string() && authority != host {
        return None;
    }
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')) {
        return None;
    }
    Some(format!("{prefix}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8.8
    #[test]
    fn what_is_carried_on_begins_after_the_proxys_path() {
        for (path, is_namespaced, prefix, rest) in [
            ("/api/v1/namespaces/n/pods/a:80/proxy", true, "/api/v1/namespaces/n/pods/a:80/proxy", ""),
            ("/api/v1/namespaces/n/pods/a/proxy/", true, "/api/v1/namespaces/n/pods/a/proxy", "/"),
            (
                "/api/v1/namespaces/n/pods/a/proxy/x%2Fy//z",
                true,
                "/api/v1/namespaces/n/pods/a/proxy",
                "/x%2Fy//z",
            ),
            ("/api/v1/nodes/n/proxy/healthz", false, "/api/v1/nodes/n/proxy", "/healthz"),
            ("//api/v1/nodes/n/proxy/healthz", false, "//api/v1/nodes/n/proxy", "/healthz"),
        ] {
            assert_eq!(Place::of(path, is_namespaced), Place { prefix, rest }, "{path}");
        }
    }

    #[test]
    fn redirections_stay_below_the_proxys_path() {
        let backend = "127.128.0.1:8080".parse().unwrap();
        for (location, expected) in [
            ("/x?y", Some("/p/proxy/x?y")),
            ("/p/proxy/x", None),
            ("/p/proxyx", Some("/p/proxy/p/proxyx")),
            ("x", None),
            ("http://127.128.0.1:8080/x", Some("/p/proxy/x")),
            ("https://api:6443/x", Some("/p/proxy/x")),
            ("https://api:6443/p/proxy/x", None),
            ("https://example.com/x", None),
            ("//example.com/x", None),
        ] {
            let found = relocated(location, "/p/proxy", backend, "api:6443");
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn secrets_and_what_is_about_the_connection_stay_here() {
        let request = Request::builder()
            .uri("/api/v1/nodes/n/proxy/x")
            .header("Host", "api:6443")
            .header("Authorization", "Bearer secret")
            .header("Impersonate-User", "somebody")
            .header("Connection", "close, X-Mine")
            .header("X-Mine", "1")
            .header("Te", "trailers")
            .header("Accept", "text/html")
            .header("Cookie", "a=b");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let headers = request_headers(&parts, "/api/v1/nodes/n/proxy", "/x", None);
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "accept: text/html",
                "cookie: a=b",
                "host: api:6443",
                "x-forwarded-host: api:6443",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /api/v1/nodes/n/proxy/x",
            ]
        );
    }
}
