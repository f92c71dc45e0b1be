//! A registry that does what tests tell it, over real sockets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::super::manifest::{self, digest_of};
use super::*;

pub(crate) const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) host: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
}

/// What is answered.
#[derive(Clone)]
pub(crate) enum Reply {
    Whole(u16, Vec<(&'static str, String)>, Bytes),
    /// So much is promised, and less is sent.
    Short(usize, Bytes),
    /// Promises, and sends no more.
    Stall,
    /// Sends for ever.
    Endless,
}

type Script = Arc<dyn Fn(&Asked, usize) -> Reply + Send + Sync>;

/// A registry on this machine, as long as it is held.
pub(crate) struct Fake {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// A stalled connection was closed by the other side.
    pub(crate) hung_up: Arc<Notify>,
    /// Something was asked.
    pub(crate) news: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// `script` is given a request and how often its line has been asked before.
    pub(crate) async fn start(script: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, hung_up, news) = (Arc::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let script: Script = Arc::new(script);
        let (seen, closed, told): (Arc<Mutex<Vec<Asked>>>, _, _) =
            (Arc::clone(&asked), hung_up.clone(), news.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), seen.clone(), closed.clone(), told.clone()));
            }
        });
        Self { host, asked, hung_up, news, task }
    }

    /// Serves an image under every tag and under its digest.
    pub(crate) async fn with(image: &Published) -> Self {
        let files = image.files();
        Self::start(move |asked, _| found(&files, asked)).await
    }

    /// `METHOD /path` of every request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Script,
    seen: Arc<Mutex<Vec<Asked>>>,
    hung_up: Arc<Notify>,
    news: Arc<Notify>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let asked = Asked {
        line: line.clone(),
        host: header("host").unwrap_or_default(),
        authorization: header("authorization"),
        body: String::from_utf8(body).unwrap(),
    };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.line == line).count();
        seen.push(asked.clone());
        before
    };
    news.notify_one();
    let is_head = line.starts_with("HEAD");
    let begin = |status: u16, headers: &str, length: usize| {
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n")
    };
    match script(&asked, before) {
        Reply::Whole(status, headers, body) => {
            let headers: String =
                headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            stream.write_all(begin(status, &headers, body.len()).as_bytes()).await.ok();
            if !is_head {
                stream.write_all(&body).await.ok();
            }
            stream.shutdown().await.ok();
        }
        Reply::Short(length, body) => {
            stream.write_all(begin(200, "", length).as_bytes()).await.ok();
            stream.write_all(&body).await.ok();
            stream.shutdown().await.ok();
        }
        Reply::Stall => {
            stream.write_all(begin(200, "", 100).as_bytes()).await.ok();
            // Until the other side gives up.
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
            hung_up.notify_one();
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n").await.ok();
            while stream.write_all(&[b' '; 1 << 16]).await.is_ok() {}
        }
    }
}

/// An image as a registry has it.
pub(crate) struct Published {
    pub(crate) manifest: Bytes,
    pub(crate) config: Bytes,
    pub(crate) layer: Bytes,
}

impl Published {
    /// A WebAssembly artifact.
    pub(crate) fn artifact(program: &[u8]) -> Self {
        let (config, layer) = (Bytes::from_static(b"{}"), Bytes::copy_from_slice(program));
        let descriptor = |media_type: &str, blob: &Bytes| serde_json::json!({"mediaType": media_type, "digest": digest_of(blob), "size": blob.len()});
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": manifest::OCI_MANIFEST,
            "config": descriptor("application/vnd.wasm.config.v0+json", &config),
            "layers": [descriptor("application/wasm", &layer)],
        });
        Self { manifest: manifest.to_string().into(), config, layer }
    }

    pub(crate) fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// By the last part of their path; every tag is this image.
    pub(crate) fn files(&self) -> BTreeMap<String, Bytes> {
        let blobs = [&self.config, &self.layer];
        let mut files: BTreeMap<String, Bytes> =
            blobs.into_iter().map(|blob| (format!("blobs/{}", digest_of(blob)), blob.clone())).collect();
        for reference in ["v1", "latest", &self.digest()] {
            files.insert(format!("manifests/{reference}"), self.manifest.clone());
        }
        files
    }
}

/// What an honest registry answers.
pub(crate) fn found(files: &BTreeMap<String, Bytes>, asked: &Asked) -> Reply {
    let path = asked.line.split(' ').nth(1).unwrap();
    let parts: Vec<&str> = path.rsplitn(3, '/').collect();
    match files.get(&format!("{}/{}", parts[1], parts[0])) {
        Some(body) => {
            let headers = vec![("docker-content-digest", digest_of(body))];
            Reply::Whole(200, headers, body.clone())
        }
        None => {
            let error = r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#;
            Reply::Whole(404, vec![], Bytes::from_static(error.as_bytes()))
        }
    }
}

#[test]
fn what_registries_explain_is_told_shortly() {
    for (body, expected) in [
        (r#"{"errors": [{"code": "A", "message": "b"}, {"code": "C"}]}"#.to_owned(), ": b; C".to_owned()),
        (r#"{"errors": []}"#.to_owned(), String::new()),
        ("<html>secret</html>".to_owned(), String::new()),
        (
            format!(r#"{{"errors": [{{"message": "a\n{}"}}]}}"#, "x".repeat(1000)),
            format!(": a{}", "x".repeat(REASON_CHARS_MAX - 1)),
        ),
    ] {
        assert_eq!(explained(body.as_bytes()), expected);
    }
}

#[test]
fn a_certificate_that_is_not_there_is_named() {
    let text = "configs: {'127.0.0.1:1': {tls: {ca_file: /none/ca.pem}}}";
    let hosts = Hosts::parse(text).unwrap();
    let registries = Registries::new(Options { hosts, ..Options::default() }, Clock::real());
    let endpoint = &registries.endpoints("127.0.0.1:1")[0];
    let error = registries.repository(endpoint, &Parts::of("127.0.0.1:1/a:v1"), None).err().unwrap();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot use the TLS settings of 127.0.0.1:1: cannot read /none/ca.pem"),
        "{text}"
    );
}
