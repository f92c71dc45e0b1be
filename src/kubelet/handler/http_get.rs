//! `httpGet` of probes and hooks (upstream `pkg/probe/http`).

use std::future::pending;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, HTTPGetAction};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::super::probe::Answer;
use super::{authority, connect, go_error, port};
use crate::apiserver::http::trusting;

/// Redirects followed in one probe, as Go's client does.
const REDIRECTS_MAX: usize = 10;
/// Of a response's body, what is told (upstream `maxRespBodyLength`).
const BODY_BYTES_MAX: usize = 10 << 10;
/// The version that the API speaks for, in `User-Agent`.
const VERSION: &str = "1.32";

/// A request.
pub(super) struct Get {
    place: Place,
    headers: HeaderMap,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

/// What came back.
pub(super) struct Got {
    status: StatusCode,
    body: String,
}

impl Get {
    /// `ip` is asked unless another host is named; `purpose` is part of the user agent.
    pub(super) fn new(
        get: &HTTPGetAction,
        container: &ContainerSpec,
        ip: Ipv4Addr,
        purpose: &str,
    ) -> Result<Self, String> {
        let place = Place {
            tls: get.scheme.as_deref() == Some("HTTPS"),
            host: get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_string()),
            port: port(&get.port, container)?,
            path: path(get.path.as_deref().unwrap_or("/")),
        };
        let mut headers = HeaderMap::new();
        for header in get.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&header.name);
            let name = name.map_err(|error| format!("header name {:?}: {error}", header.name))?;
            let value = HeaderValue::try_from(&header.value);
            let value = value.map_err(|_| format!("header {name} has a value that HTTP cannot carry"))?;
            headers.append(name, value);
        }
        if !headers.contains_key(USER_AGENT) {
            let agent = HeaderValue::try_from(format!("kube-{purpose}/{VERSION}"));
            headers.insert(USER_AGENT, agent.expect("words and numbers"));
        }
        match headers.get(ACCEPT) {
            None => {
                headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
            }
            // Overridden to be left out.
            Some(value) if value.is_empty() => {
                headers.remove(ACCEPT);
            }
            Some(_) => {}
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(Self { place, headers })
    }

    /// What a failure is told as when the time is over.
    pub(super) fn timed_out(&self) -> String {
        let url = self.place.url();
        format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
    }

    /// The answer, after redirects on the same host.
    pub(super) async fn follow(&self) -> Result<Got, String> {
        let mut place = self.place.clone();
        for _ in 0..REDIRECTS_MAX {
            let told = |why: String| format!("Get {:?}: {why}", place.url());
            let (response, body) = self.ask(&place).await.map_err(told)?;
            let got = Got { status: response.status(), body };
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.filter(|_| is_redirect(got.status)).map(|location| place.join(location));
            match next {
                None => return Ok(got),
                Some(None) => {
                    return Err(told(format!(
                        "failed to parse Location header {:?}",
                        location.unwrap_or("")
                    )));
                }
                // Upstream leaves other hosts alone, which the pod's owner need not own.
                Some(Some(next)) if next.host != self.place.host => return Ok(got),
                Some(Some(next)) => place = next,
            }
        }
        Err(format!("Get {:?}: stopped after {REDIRECTS_MAX} redirects", place.url()))
    }

    async fn ask(&self, place: &Place) -> Result<(Response<()>, String), String> {
        let stream = connect(&place.host, place.port).await?;
        if !place.tls {
            return self.exchange(place, stream).await;
        }
        let host = ServerName::try_from(place.host.clone()).map_err(|error| error.to_string())?;
        // A probe asks whether somebody answers, not who.
        let stream = TlsConnector::from(trusting()).connect(host, stream).await;
        self.exchange(place, stream.map_err(|error| go_error(&error))?).await
    }

    async fn exchange(
        &self,
        place: &Place,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(Response<()>, String), String> {
        let mut request = Request::get(&*place.path);
        if !self.headers.contains_key(HOST) {
            request = request.header(HOST, authority(&place.host, place.port));
        }
        let mut request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
        let talk = async {
            let response = sender.send_request(request).await.map_err(|error| words(&error))?;
            let (parts, body) = response.into_parts();
            Ok((Response::from_parts(parts, ()), read(body).await?))
        };
        let connection = async {
            // Its errors reach the request as well.
            drop(connection.await);
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            answer = talk => answer,
            () = connection => unreachable!("it is pending for ever"),
        }
    }
}

/// The beginning of a body.
async fn read(mut body: Incoming) -> Result<String, String> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_BYTES_MAX
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| words(&error))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    bytes.truncate(BODY_BYTES_MAX);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a probe comes to.
pub(super) fn answer(got: Result<Got, String>) -> Answer {
    match got {
        Err(why) => Answer::Failed(why),
        Ok(got) if is_redirect(got.status) || got.status == StatusCode::NOT_MODIFIED => {
            Answer::Warned(format!("Probe terminated redirects, Response body: {}", got.body))
        }
        Ok(got) if got.status.is_success() || got.status.is_redirection() => Answer::Passed,
        Ok(got) => Answer::Failed(format!("HTTP probe failed with statuscode: {}", got.status.as_u16())),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(one) = cause {
        if let Some(io) = one.downcast_ref::<std::io::Error>() {
            return go_error(io);
        }
        cause = one.source();
    }
    error.to_string()
}

/// A path that HTTP can carry: absolute, with what it may not hold as percent codes.
fn path(given: &str) -> String {
    let mut path = String::with_capacity(given.len() + 1);
    if !given.starts_with('/') {
        path.push('/');
    }
    for byte in given.split('#').next().unwrap_or_default().bytes() {
        if byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        {
            path.push(char::from(byte));
        } else {
            use std::fmt::Write;
            write!(path, "%{byte:02X}").expect("a string takes everything");
        }
    }
    path
}

impl Place {
    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.path)
    }

    /// Where a `Location` on this place leads.
    fn join(&self, location: &str) -> Option<Self> {
        let absolute = match location {
            _ if location.starts_with("//") => {
                format!("{}:{location}", if self.tls { "https" } else { "http" })
            }
            _ if location.contains("://") => location.to_owned(),
            _ if location.starts_with('/') => return Some(Self { path: path(location), ..self.clone() }),
            _ => {
                let folder = self.path.split('?').next().unwrap_or_default();
                let folder = &folder[..folder.rfind('/').map_or(0, |at| at + 1)];
                return Some(Self { path: path(&format!("{folder}{location}")), ..self.clone() });
            }
        };
        let uri: Uri = absolute.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = path(uri.path_and_query().map_or("/", |path| path.as_str()));
        Some(Self { tls, host, port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_what_http_can_carry() {
        for (given, expected) in [
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/a?b=c&d=%20", "/a?b=c&d=%20"),
            ("/a b/ä", "/a%20b/%C3%A4"),
            ("/a#part", "/a"),
            ("", "/"),
        ] {
            assert_eq!(path(given), expected, "{given}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let here = Place { tls: false, host: "127.128.0.1".into(), port: 8080, path: "/a/b?c".into() };
        for (location, expected) in [
            ("/x", Some("http://127.128.0.1:8080/x")),
            ("x?y=1", Some("http://127.128.0.1:8080/a/x?y=1")),
            ("https://127.128.0.1/x", Some("https://127.128.0.1:443/x")),
            ("http://other:81", Some("http://other:81/")),
            ("//other/x", Some("http://other:80/x")),
            ("http://[::1]:81/", Some("http://[::1]:81/")),
            ("ftp://other/x", None),
            ("http://", None),
        ] {
            assert_eq!(here.join(location).map(|place| place.url()).as_deref(), expected, "{location}");
        }
    }
}
