//! The server over real sockets, spoken to in plain HTTP/1.1, and its parts that need none.

use std::collections::BTreeMap;
use std::io::Read;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::apiserver::authn::User;
use crate::apiserver::request::{LogOptions, LogStream};
use crate::apiserver::token::SigningKey;
use crate::apiserver::{Body, Error, NodeAccess, Options, Parts, Request, Verb};
use crate::random::Random;
use crate::store::Store;

mod proxy;
mod streams;

struct NoNodes;

#[async_trait]
impl NodeAccess for NoNodes {
    async fn logs(&self, _: &Pod, _: &str, _: &LogOptions) -> Result<LogStream, Error> {
        panic!("nobody asks for logs")
    }
}

/// A server with the namespace `n`, and what is needed to speak to it.
struct Harness {
    server: Server,
    api: Api,
    pki: Pki,
}

type Stream = BufReader<TlsStream<TcpStream>>;

/// An answer, its body decompressed and without chunks.
struct Reply {
    code: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

async fn harness() -> Harness {
    harness_with(Arc::new(NoNodes)).await
}

async fn harness_with(nodes: Arc<dyn NodeAccess>) -> Harness {
    let clock = Clock::real();
    let api = Api::new(Parts {
        store: Store::ephemeral(clock),
        clock,
        random: Random::from_seed(1),
        nodes,
        tokens: Arc::new(SigningKey::generate().unwrap()),
        plan: crate::kind::address_plan::AddressPlan::default(),
    });
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("n".into());
    create(&api, None, Box::new(namespace)).await;
    let pki = Pki::load_or_create(None, clock).unwrap();
    let server = Server::start(api.clone(), &pki, "127.0.0.1:0".parse().unwrap(), clock).await.unwrap();
    Harness { server, api, pki }
}

async fn create(api: &Api, namespace: Option<&str>, object: Box<dyn crate::kind::Object>) {
    let kind = crate::kind::ALL.iter().find(|kind| kind.kind == object.kind_name()).unwrap();
    let request = Request {
        user: User::admin(),
        verb: Verb::Create,
        kind,
        subresource: None,
        namespace: namespace.map(str::to_owned),
        name: None,
        options: Options::default(),
        body: Body::Object(object),
    };
    api.handle(request).await.unwrap_or_else(|error| panic!("{error}"));
}

fn config_map(name: &str, bytes: usize) -> Box<ConfigMap> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map.data = Some([("k".to_owned(), "x".repeat(bytes))].into());
    Box::new(map)
}

impl Harness {
    async fn connect(&self, identity: Option<(String, String)>) -> Stream {
        self.connect_with(identity, &[]).await
    }

    async fn connect_with(&self, identity: Option<(String, String)>, protocols: &[&[u8]]) -> Stream {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.server.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        BufReader::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap())
    }

    async fn admin(&self) -> Stream {
        self.connect(Some(self.pki.client(&User::admin()))).await
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: &str, headers: &[&str], body: &[u8]) -> Reply {
        exchange(&mut self.admin().await, request, headers, body).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[], b"").await
    }
}

async fn send(stream: &mut Stream, request: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("{request} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream.flush().await.unwrap();
}

async fn head(stream: &mut Stream) -> Reply {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let code = line.split(' ').nth(1).unwrap_or_else(|| panic!("a status line: {line:?}")).parse().unwrap();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Reply { code, headers, body: Vec::new() }
}

/// The next chunk of a chunked body; empty at its end.
async fn chunk(stream: &mut Stream) -> Vec<u8> {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let length = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("a length: {line:?}"));
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk).await.unwrap();
    chunk.truncate(length);
    chunk
}

async fn exchange(stream: &mut Stream, request: &str, headers: &[&str], body: &[u8]) -> Reply {
    send(stream, request, headers, body).await;
    let mut reply = head(stream).await;
    if reply.header("transfer-encoding") == "chunked" {
        loop {
            let chunk = chunk(stream).await;
            if chunk.is_empty() {
                break;
            }
            reply.body.extend(chunk);
        }
    } else {
        let length = reply.header("content-length").parse().unwrap_or(0);
        let length = if request.starts_with("HEAD") { 0 } else { length };
        reply.body = vec![0; length];
        stream.read_exact(&mut reply.body).await.unwrap();
    }
    if reply.header("content-encoding") == "gzip" {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut plain).unwrap();
        reply.body = plain;
    }
    reply
}

const MAPS: &str = "/api/v1/namespaces/n/configmaps";

#[tokio::test]
async fn objects_go_in_and_out() {
    let harness = harness().await;
    let mut stream = harness.admin().await;
    let map = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#;
    let json = "Content-Type: application/json";
    let created = exchange(&mut stream, &format!("POST {MAPS}"), &[json], map.as_bytes()).await;
    assert_eq!((created.code, created.header("content-type")), (201, "application/json"));
    assert_eq!(created.header("cache-control"), "no-cache, private");
    assert!(created.text().starts_with(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#));
    // The connection is kept.
    let got = exchange(&mut stream, &format!("GET {MAPS}/a"), &[], b"").await;
    assert_eq!((got.code, got.body), (200, created.body.clone()));
    let list = harness.get(MAPS).await.json();
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["items"][0], created.json());
    assert_eq!(list["metadata"]["resourceVersion"], created.json()["metadata"]["resourceVersion"]);
    let again = exchange(&mut stream, &format!("POST {MAPS}"), &[json], map.as_bytes()).await;
    assert_eq!((again.code, &again.json()["reason"]), (409, &json!("AlreadyExists")));
    let yaml = harness.ask(&format!("GET {MAPS}/a"), &["Accept: application/yaml"], b"").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(yaml.text().contains("\ndata:\n  k: v\n"), "{}", yaml.text());
    let deleted = exchange(&mut stream, &format!("DELETE {MAPS}/a"), &[], b"").await;
    assert_eq!((deleted.code, &deleted.json()["status"]), (200, &json!("Success")));
    let gone = exchange(&mut stream, &format!("GET {MAPS}/a"), &[], b"").await;
    assert_eq!((gone.code, &gone.json()["message"]), (404, &json!(r#"configmaps "a" not found"#)));
}

#[tokio::test]
async fn a_body_may_be_protobuf() {
    let harness = harness().await;
    let sent = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x0d\n\x03\n\x01p\x12\x06\n\x01k\x12\x01v";
    let headers = [
        "Content-Type: application/vnd.kubernetes.protobuf",
        "Accept: application/vnd.kubernetes.protobuf,application/json",
    ];
    let created = harness.ask(&format!("POST {MAPS}"), &headers, sent).await;
    assert_eq!(created.code, 201, "{}", created.text());
    assert_eq!(created.json()["data"], json!({"k": "v"}));
    let only =
        harness.ask(&format!("GET {MAPS}"), &["Accept: application/vnd.kubernetes.protobuf"], b"").await;
    assert_eq!(only.code, 406);
}

#[tokio::test]
async fn events_have_two_forms() {
    let harness = harness().await;
    let event = br#"{"kind":"Event","apiVersion":"v1","metadata":{"name":"e","namespace":"n"},
        "involvedObject":{"kind":"Pod","namespace":"n","name":"p"},"reason":"R","message":"M","type":"Normal"}"#;
    let events = "/api/v1/namespaces/n/events";
    let created = harness.ask(&format!("POST {events}"), &["Content-Type: application/json"], event).await;
    assert_eq!(created.code, 201, "{}", created.text());
    let newer = "/apis/events.k8s.io/v1/namespaces/n/events";
    let list = harness.get(newer).await.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("events.k8s.io/v1")));
    let one = harness.get(&format!("{newer}/e")).await.json();
    assert_eq!(one, list["items"][0]);
    assert_eq!((&one["apiVersion"], &one["regarding"]["name"]), (&json!("events.k8s.io/v1"), &json!("p")));
    assert_eq!(one["metadata"], created.json()["metadata"]);
    let dry = br#"{"metadata":{"labels":{"a":"b"}}}"#;
    let merge = "Content-Type: application/merge-patch+json";
    let would = harness.ask(&format!("PATCH {newer}/e?dryRun=All"), &[merge], dry).await;
    assert_eq!((would.code, &would.json()["regarding"]["name"]), (200, &json!("p")));
    let mut stream = harness.admin().await;
    send(&mut stream, &format!("GET {newer}?watch=1"), &[], b"").await;
    head(&mut stream).await;
    let event: Value = serde_json::from_slice(&chunk(&mut stream).await).unwrap();
    assert_eq!(event["object"], one);
}

#[tokio::test]
async fn unknown_fields_are_warned_of() {
    let harness = harness().await;
    let map = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"foo":1}"#;
    let reply = harness.ask(&format!("POST {MAPS}"), &["Content-Type: application/json"], map).await;
    assert_eq!((reply.code, reply.header("warning")), (201, r#"299 - "unknown field \"foo\"""#));
}

#[tokio::test]
async fn a_history_is_json_or_yaml_and_nothing_else() {
    let harness = harness().await;
    create(&harness.api, Some("n"), config_map("a", 1)).await;
    let path = format!("{MAPS}/a/history");
    let table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for accept in [table, "Accept: application/json;pretty=1", "Accept: */*"] {
        let reply = harness.ask(&format!("GET {path}"), &[accept], b"").await;
        assert_eq!((reply.code, reply.header("content-type")), (200, "application/json"), "{accept}");
        let history = reply.json();
        assert_eq!(history["kind"], "ObjectHistory");
        assert_eq!(history["items"].as_array().unwrap().len(), 1);
        assert_eq!(history["items"][0]["object"], harness.get(&format!("{MAPS}/a")).await.json());
    }
    let yaml = harness.ask(&format!("GET {path}"), &["Accept: application/yaml"], b"").await;
    assert!(yaml.text().contains("kind: ObjectHistory\n"), "{}", yaml.text());
    for method in ["PUT", "DELETE", "PATCH"] {
        assert_eq!(harness.ask(&format!("{method} {path}"), &[], b"").await.code, 405, "{method}");
    }
    assert_eq!(harness.get("/api/v1/namespaces/n/services/a/history").await.code, 404);
}

#[tokio::test]
async fn a_table_has_columns_and_rows() {
    let harness = harness().await;
    create(&harness.api, Some("n"), config_map("a", 1)).await;
    let accept = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for path in [MAPS.to_owned(), format!("{MAPS}/a")] {
        let table = harness.ask(&format!("GET {path}"), &[accept], b"").await.json();
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["columnDefinitions"][1]["name"], "Data");
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..2], [json!("a"), json!(1)]);
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
    let bad = harness.ask(&format!("GET {MAPS}?includeObject=All"), &[accept], b"").await;
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn a_watch_is_sent_at_once_and_ends_with_the_server() {
    let harness = harness().await;
    let mut stream = harness.admin().await;
    send(&mut stream, &format!("GET {MAPS}?watch=1&resourceVersion=1"), &[], b"").await;
    assert_eq!(head(&mut stream).await.code, 200);
    create(&harness.api, Some("n"), config_map("a", 1)).await;
    let event = chunk(&mut stream).await;
    assert_eq!(event.last(), Some(&b'\n'));
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    let before = harness.server.clock.monotonic();
    harness.server.shutdown().await;
    assert!(chunk(&mut stream).await.is_empty());
    assert!(harness.server.clock.monotonic() - before < SHUTDOWN_MAX);
    assert!(TcpStream::connect(harness.server.address()).await.is_err());
}

#[tokio::test]
async fn large_lists_are_whole_and_compressed_on_request() {
    let harness = harness().await;
    for i in 0..300 {
        create(&harness.api, Some("n"), config_map(&format!("m{i}"), 1000)).await;
    }
    let plain = harness.get(MAPS).await;
    assert_eq!(
        (plain.header("transfer-encoding"), plain.json()["items"].as_array().unwrap().len()),
        ("", 300)
    );
    for accept in ["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"] {
        let headers = ["Accept-Encoding: gzip", &format!("Accept: {accept}")];
        let packed = harness.ask(&format!("GET {MAPS}"), &headers, b"").await;
        assert_eq!(packed.header("content-encoding"), "gzip", "{accept}");
        let count = |field: &str| packed.json()[field].as_array().map_or(0, Vec::len);
        assert_eq!(count("items") + count("rows"), 300, "{accept}");
    }
    let small = harness.ask(&format!("GET {MAPS}?limit=1"), &["Accept-Encoding: gzip"], b"").await;
    assert_eq!(small.header("content-encoding"), "");
    assert_eq!(small.json()["metadata"]["remainingItemCount"], 299);
}

#[tokio::test]
async fn bodies_have_a_bound() {
    let harness = harness().await;
    let large = vec![b' '; BODY_MAX_TESTED + 1];
    let json = "Content-Type: application/json";
    let refused = harness.ask(&format!("POST {MAPS}"), &[json], &large).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (413, &json!("RequestEntityTooLarge")));
    let taken = harness.ask(&format!("POST {MAPS}"), &[json], &large[1..]).await;
    assert_eq!(taken.code, 400, "white space is no object");
    let huge = format!("Content-Length: {}", 1u64 << 40);
    let mut stream = harness.admin().await;
    send(&mut stream, &format!("POST {MAPS}"), &[json, &huge], b"").await;
    assert_eq!(head(&mut stream).await.code, 413);
}

const BODY_MAX_TESTED: usize = 3 << 20;

#[tokio::test]
async fn certificates_decide_who_speaks() {
    let harness = harness().await;
    let stranger = Pki::load_or_create(None, Clock::real()).unwrap().client(&User::admin());
    let (certificate, key) = harness.pki.client(&User::admin());
    let node = harness.pki.client(&User::node("a"));
    for (identity, header, path, expected) in [
        (None, "", "/version", 200),
        (None, "", "/livez", 200),
        (None, "", "/api", 403),
        (None, "", MAPS, 403),
        (None, "Authorization: Bearer x", "/version", 401),
        (Some(stranger.clone()), "", "/version", 401),
        (Some(node.clone()), "", "/api", 200),
        (Some(node.clone()), "", "/metrics", 403),
        (Some(node), "Impersonate-User: kubernetes-admin", "/api", 403),
        (Some((certificate.clone(), key.clone())), "", MAPS, 200),
        (Some((certificate.clone(), key.clone())), "Impersonate-User: me", MAPS, 403),
        (Some((certificate, key)), "Impersonate-Group: g", MAPS, 400),
    ] {
        let mut stream = harness.connect(identity).await;
        let headers: &[&str] = if header.is_empty() { &[] } else { &[header] };
        let reply = exchange(&mut stream, &format!("GET {path}"), headers, b"").await;
        assert_eq!(reply.code, expected, "{path} {header}: {}", reply.text());
    }
    let denied = exchange(&mut harness.connect(None).await, &format!("GET {MAPS}"), &[], b"").await;
    assert_eq!(
        denied.json()["message"],
        r#"configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" in the namespace "n""#
    );
}

#[tokio::test]
async fn documents_are_known_by_their_tags() {
    let harness = harness().await;
    let aggregated = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, headers) in [
        ("/api", vec![]),
        ("/apis", vec![aggregated]),
        ("/api/v1", vec![]),
        ("/openapi/v3/api/v1", vec!["Accept-Encoding: gzip"]),
    ] {
        let first = harness.ask(&format!("GET {path}"), &headers, b"").await;
        assert_eq!(first.code, 200, "{path}");
        assert!(first.json().is_object());
        let known = format!("If-None-Match: {}", first.header("etag"));
        let mut headers = headers.clone();
        headers.push(&known);
        let second = harness.ask(&format!("GET {path}"), &headers, b"").await;
        assert_eq!((second.code, second.body.len()), (304, 0), "{path}");
    }
    let apis = harness.ask("GET /apis", &[aggregated], b"").await;
    assert_eq!(
        apis.header("content-type"),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let index = harness.get("/openapi/v3").await.json();
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(harness.get(url).await.header("cache-control").contains("immutable"));
}

#[tokio::test]
async fn other_paths_answer_as_kubernetes_does() {
    let harness = harness().await;
    for (request, code, text) in [
        ("GET /healthz", 200, "ok"),
        ("GET /readyz?verbose", 200, "[+]ping ok\n[+]shutdown ok\nreadyz check passed\n"),
        ("HEAD /livez", 200, ""),
        ("GET /teapot", 404, "404 page not found\n"),
        ("GET /apis/teapots.example/v1/teapots", 404, "404 page not found\n"),
    ] {
        let reply = harness.ask(request, &[], b"").await;
        assert_eq!((reply.code, reply.text().as_str()), (code, text), "{request}");
    }
    let metrics = harness.get("/metrics").await.text();
    let counted =
        r#"apiserver_request_total{verb="GET",group="",version="",resource="",subresource="",code="404"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
    let unknown = harness.get("/api/v1/teapots").await;
    assert_eq!(unknown.json()["message"], "the server could not find the requested resource");
    let exec = harness.ask("POST /api/v1/namespaces/n/pods/p/exec?command=ls", &[], b"").await;
    assert_eq!((exec.code, &exec.json()["reason"]), (404, &json!("NotFound")));
    let index = harness.get("/").await.json();
    assert!(index["paths"].as_array().unwrap().contains(&json!("/openapi/v3/api/v1")));
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let harness = harness().await;
    let mut stream = harness.connect_with(None, &[b"h2"]).await;
    assert_eq!(stream.get_ref().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // The preface with empty settings; the server begins with its own.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame");
}

#[tokio::test]
async fn a_client_library_works_with_the_kubeconfig() {
    let harness = harness().await;
    let (certificate, key) = harness.pki.client(&User::admin());
    let text = crate::apiserver::kubeconfig::render(
        &format!("https://{}", harness.server.address()),
        harness.pki.ca_pem(),
        &certificate,
        &key,
    );
    let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "32"));
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(client, "n");
    let created = maps.create(&kube::api::PostParams::default(), &config_map("a", 1)).await.unwrap();
    assert!(created.metadata.uid.is_some());
    assert_eq!(maps.list(&kube::api::ListParams::default()).await.unwrap().items, [created]);
}
