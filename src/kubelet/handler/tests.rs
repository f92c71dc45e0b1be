//! Against servers on loopback, in real time.

use std::convert::Infallible;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const IP: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn container(port: u16) -> ContainerSpec {
    serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]})).unwrap()
}

async fn ask(port: u16, spec: Value) -> Answer {
    let container = container(port);
    let target = Target { container: &container, ip: IP, clock: Clock::real(), setup: None };
    probe(&serde_json::from_value(spec).unwrap(), target).await
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn failed(text: &str) -> Answer {
    Answer::Failed(text.to_owned())
}

/// A port that nobody listens on.
async fn closed() -> u16 {
    TcpListener::bind((IP, 0)).await.unwrap().local_addr().unwrap().port()
}

type Reply = Response<Full<Bytes>>;

/// Answers by the path: `/<status>`, `/to?<location>`, and some by name.
fn reply(request: &Request<Incoming>, port: u16) -> Reply {
    let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap());
    let (status, location, body) = match request.uri().path() {
        "/to" => (302, request.uri().query(), String::new()),
        "/again" => (302, Some("/again"), String::new()),
        "/headers" => {
            let seen = format!(
                "{} {} {} {}",
                header("host"),
                header("user-agent"),
                header("accept"),
                header("x-custom")
            );
            // Told in an event only if it is a redirect.
            (302, Some("http://elsewhere.invalid/"), seen.replace(&port.to_string(), "PORT"))
        }
        path => (path[1..].parse().unwrap(), None, "text".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(location) = location {
        response.headers_mut().insert("location", HeaderValue::from_str(location).unwrap());
    }
    response
}

/// A server over HTTP/1, which never answers `/slow`; with TLS if asked.
async fn web(tls: bool) -> u16 {
    let listener = TcpListener::bind((IP, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.then(|| {
        let made = rcgen::generate_simple_self_signed(["nobody".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| async move {
                if request.uri().path() == "/slow" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(reply(&request, port))
            });
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // What a client gives up has failed here too.
                match acceptor {
                    None => drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await),
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let stream = TokioIo::new(stream);
                            drop(http1::Builder::new().serve_connection(stream, service).await);
                        }
                    }
                }
            });
        }
    });
    port
}

// BEHAVIOURS 9.9.
#[test]
fn http_passes_on_200_to_399_on_its_own_host() {
    run(async {
        let port = web(false).await;
        let url = |path: &str| format!("Get \"http://127.0.0.1:{port}{path}\": ");
        let moved = |body: &str| Answer::Warned(format!("Probe terminated redirects, Response body: {body}"));
        for (path, expected) in [
            ("/200", Answer::Passed),
            ("204", Answer::Passed),
            ("/399", Answer::Passed),
            ("/400", failed("HTTP probe failed with statuscode: 400")),
            ("/500", failed("HTTP probe failed with statuscode: 500")),
            ("/to?/200", Answer::Passed),
            ("/to?200", Answer::Passed),
            ("/to?/500", failed("HTTP probe failed with statuscode: 500")),
            // Not followed, and taken as it is.
            ("/to?http://elsewhere.invalid/", moved("")),
            ("/304", moved("")),
            ("/again", failed(&format!("{}stopped after 10 redirects", url("/again")))),
            (
                "/to?ftp://127.0.0.1/",
                failed(&format!(
                    "{}failed to parse Location header \"ftp://127.0.0.1/\"",
                    url("/to?ftp://127.0.0.1/")
                )),
            ),
            ("/headers", moved("127.0.0.1:PORT kube-probe/1.32 */* -")),
        ] {
            assert_eq!(
                ask(port, json!({"httpGet": {"port": "web", "path": path}})).await,
                expected,
                "{path}"
            );
        }
        let given = json!([
            {"name": "Host", "value": "example.com"}, {"name": "X-Custom", "value": "yes"},
            {"name": "User-Agent", "value": "me"}, {"name": "Accept", "value": ""},
        ]);
        let spec = json!({"httpGet": {"port": port, "path": "/headers", "httpHeaders": given}});
        assert_eq!(ask(port, spec).await, moved("example.com me - yes"));
        let slow = json!({"httpGet": {"port": port, "path": "/slow"}, "timeoutSeconds": 1});
        let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        assert_eq!(ask(port, slow).await, failed(&format!("{}{late}", url("/slow"))));
        let nobody = closed().await;
        let refused = format!(
            "Get \"http://127.0.0.1:{nobody}/\": dial tcp 127.0.0.1:{nobody}: connect: connection refused"
        );
        assert_eq!(ask(port, json!({"httpGet": {"port": nobody, "path": "/"}})).await, failed(&refused));
        let lost = ask(port, json!({"httpGet": {"port": "nothing", "path": "/"}})).await;
        assert_eq!(lost, Answer::Unclear("container c has no port named \"nothing\"".into()));
        let host = ask(port, json!({"httpGet": {"port": port, "path": "/200", "host": "localhost"}})).await;
        assert_eq!(host, Answer::Passed);
    });
}

#[test]
fn https_takes_any_certificate() {
    run(async {
        let port = web(true).await;
        let get = |port: u16, scheme: &str, path: &str| json!({"httpGet": {"port": port, "scheme": scheme, "path": path}, "timeoutSeconds": 20});
        assert_eq!(ask(port, get(port, "HTTPS", "/200")).await, Answer::Passed);
        let status = failed("HTTP probe failed with statuscode: 503");
        assert_eq!(ask(port, get(port, "HTTPS", "/503")).await, status);
        assert!(matches!(ask(port, get(port, "HTTP", "/200")).await, Answer::Failed(_)));
        let plain = web(false).await;
        assert!(matches!(ask(port, get(plain, "HTTPS", "/200")).await, Answer::Failed(_)));
    });
}

#[test]
fn a_socket_passes_when_somebody_listens() {
    run(async {
        let port = web(false).await;
        assert_eq!(ask(port, json!({"tcpSocket": {"port": port}})).await, Answer::Passed);
        assert_eq!(
            ask(port, json!({"tcpSocket": {"port": "web", "host": "localhost"}})).await,
            Answer::Passed
        );
        let nobody = closed().await;
        let refused = format!("dial tcp 127.0.0.1:{nobody}: connect: connection refused");
        assert_eq!(ask(port, json!({"tcpSocket": {"port": nobody}})).await, failed(&refused));
        assert_eq!(
            ask(port, json!({"tcpSocket": {"port": 0}})).await,
            Answer::Unclear("invalid port number: 0".into())
        );
    });
}

type GrpcBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A health service: what it answers is up to the name of the service that is asked for.
async fn health() -> u16 {
    let listener = TcpListener::bind((IP, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = async |request: Request<Incoming>| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let service = String::from_utf8(asked.get(7..).unwrap_or_default().to_vec()).unwrap();
        let (status, message, frame): (_, _, &[u8]) = match service.as_str() {
            "" => ("0", "", &[0, 0, 0, 0, 2, 8, 1]),
            "sick" => ("0", "", &[0, 0, 0, 0, 2, 8, 2]),
            "slow" => std::future::pending().await,
            "none" => ("12", "unknown service", &[]),
            _ => ("5", "no such service", &[]),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        let data = Frame::data(Bytes::from_static(frame));
        let frames = [Ok::<_, Infallible>(data), Ok(Frame::trailers(trailers))];
        let body: GrpcBody = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        assert!(!body.is_end_stream());
        Ok::<_, Infallible>(Response::new(body))
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    port
}

#[test]
fn grpc_passes_when_the_service_says_so() {
    run(async {
        let port = health().await;
        for (service, expected) in [
            ("", Answer::Passed),
            ("sick", failed("service unhealthy (responded with \"NOT_SERVING\")")),
            ("slow", failed("timeout: health rpc did not complete within 1s")),
            (
                "none",
                failed(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
                ),
            ),
            (
                "other",
                failed("error: health rpc probe failed: rpc error: code = NotFound desc = no such service"),
            ),
        ] {
            let seconds = if service == "slow" { 1 } else { 20 };
            let spec = json!({"grpc": {"port": port, "service": service}, "timeoutSeconds": seconds});
            assert_eq!(ask(port, spec).await, expected, "{service}");
        }
        let nobody = closed().await;
        let refused = format!(
            "error: failed to connect service at \"127.0.0.1:{nobody}\": dial tcp 127.0.0.1:{nobody}: connect: connection refused"
        );
        assert_eq!(ask(port, json!({"grpc": {"port": nobody}})).await, failed(&refused));
        // Something else listens there.
        let web = web(false).await;
        assert!(matches!(ask(port, json!({"grpc": {"port": web}})).await, Answer::Failed(_)));
    });
}

// BEHAVIOURS 9.12.
#[test]
fn hooks_ask_or_sleep() {
    run(async {
        let port = web(false).await;
        let container = container(port);
        let clock = Clock::real();
        let run = async |spec: Value| {
            let target = Target { container: &container, ip: IP, clock, setup: None };
            hook(&serde_json::from_value(spec).unwrap(), target).await
        };
        assert_eq!(run(json!({"httpGet": {"port": "web", "path": "/200"}})).await, None);
        assert_eq!(run(json!({"httpGet": {"port": "web", "path": "/500"}})).await, None, "it has heard");
        let nobody = closed().await;
        assert!(run(json!({"httpGet": {"port": nobody, "path": "/"}})).await.unwrap().contains("refused"));
        let before = clock.monotonic();
        assert_eq!(run(json!({"sleep": {"seconds": 1}})).await, None);
        assert!(clock.monotonic() - before >= Duration::from_secs(1));
        assert!(run(json!({"tcpSocket": {"port": port}})).await.unwrap().contains("invalid handler"));
        let ended = run(json!({"exec": {"command": ["ls", "/"]}})).await.unwrap();
        assert_eq!(ended, "command \"ls /\" was not run: the container has ended");
    });
}
