//! Streams over real sockets: each protocol that clients speak, against a program and a port of the test's own.

use bytes::{BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use k8s_openapi::api::core::v1::ServiceAccount;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::*;
use crate::apiserver::request::StreamOptions;
use crate::apiserver::stream::{Dial, Ended, Input, Opening, Session};

/// No wait may take longer, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node whose programs say back what they are told and end with 3, and whose ports are those of this
/// machine.
struct Echoes {
    /// Told when a program is ended by its client's going.
    dropped: mpsc::UnboundedSender<()>,
}

struct Tell(mpsc::UnboundedSender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

struct Mouth(mpsc::Sender<Bytes>);

#[async_trait]
impl Input for Mouth {
    async fn write(&self, bytes: Bytes) -> bool {
        self.0.send(bytes).await.is_ok()
    }
}

#[async_trait]
impl NodeAccess for Echoes {
    async fn logs(&self, _: &Pod, _: &str, _: &LogOptions) -> Result<LogStream, Error> {
        panic!("nobody asks for logs")
    }

    fn exec(&self, _: &Pod, container: &str, options: &StreamOptions) -> Result<Opening, Error> {
        if options.command == ["absent"] {
            return Err(Error::bad_request(format!("container not found ({container:?})")));
        }
        if options.command == ["breaks"] {
            return Ok(async { Err(Error::internal("it broke")) }.boxed());
        }
        let (mouth, mut ear) = mpsc::channel(1);
        let tell = Tell(self.dropped.clone());
        let echo = futures_util::stream::poll_fn(move |context| ear.poll_recv(context));
        let errors = futures_util::stream::iter([Bytes::from_static(b"err")]);
        let ended = async move {
            let _tell = tell;
            Ended { code: 3, text: None }
        };
        Ok(async move {
            Ok(Session {
                stdin: Some(Box::new(Mouth(mouth)) as Box<dyn Input>),
                stdout: Some(Box::pin(echo) as LogStream),
                stderr: Some(Box::pin(errors) as LogStream),
                ended: ended.boxed(),
            })
        }
        .boxed())
    }

    fn dial(&self, _: &Pod) -> Result<Dial, Error> {
        Ok(Arc::new(|port| -> BoxFuture<'static, io::Result<TcpStream>> {
            TcpStream::connect(("127.0.0.1", port)).boxed()
        }))
    }
}

async fn echoes() -> (Harness, mpsc::UnboundedReceiver<()>) {
    let (dropped, told) = mpsc::unbounded_channel();
    let harness = harness_with(Arc::new(Echoes { dropped })).await;
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("default".into());
    create(&harness.api, Some("n"), Box::new(account)).await;
    let pod = serde_json::from_value::<Pod>(json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i"}]},
    }));
    create(&harness.api, Some("n"), Box::new(pod.unwrap())).await;
    (harness, told)
}

type Socket = WebSocketStream<Stream>;

/// Asks for streams; the answer, and the socket if it became one.
async fn ask(harness: &Harness, path: &str, protocol: &str) -> (Reply, Option<Socket>) {
    let mut stream = harness.admin().await;
    let mut headers = vec![
        "Connection: Upgrade".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
    ];
    if !protocol.is_empty() {
        headers.push(format!("Sec-WebSocket-Protocol: {protocol}"));
    }
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let request = format!("GET /api/v1/namespaces/n/pods/p/{path}");
    send(&mut stream, &request, &headers, b"").await;
    let mut reply = head(&mut stream).await;
    if reply.code == 101 {
        // The example of RFC 6455.
        assert_eq!(reply.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        return (reply, Some(socket));
    }
    let length = reply.header("content-length").parse().unwrap();
    reply.body = vec![0; length];
    stream.read_exact(&mut reply.body).await.unwrap();
    (reply, None)
}

async fn open(harness: &Harness, path: &str, protocol: &str) -> Socket {
    let (reply, socket) = ask(harness, path, protocol).await;
    assert_eq!(reply.header("sec-websocket-protocol"), protocol, "{}", reply.text());
    socket.unwrap()
}

/// What a client hears until the end, by channel.
async fn hear(socket: &mut Socket) -> BTreeMap<u8, Vec<u8>> {
    let mut heard: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => heard.entry(bytes[0]).or_default().extend_from_slice(&bytes[1..]),
            Message::Text(text) => {
                use base64::Engine;
                let engine = base64::engine::general_purpose::STANDARD;
                let channel = text.as_bytes()[0] - b'0';
                heard.entry(channel).or_default().extend(engine.decode(&text[1..]).unwrap());
            }
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    heard
}

const EXEC: &str = "exec?command=x&stdin=true&stdout=true&stderr=true";

/// BEHAVIOURS 8.7.
#[tokio::test]
async fn programs_speak_every_protocol() {
    let (harness, _) = echoes().await;
    let test = async {
        let mut socket = open(&harness, EXEC, "v5.channel.k8s.io").await;
        for message in [&b"\x00one "[..], b"\x04{\"Width\": 80}", b"\x00two", b"\xff\x00"] {
            socket.send(Message::binary(message.to_vec())).await.unwrap();
        }
        let heard = hear(&mut socket).await;
        assert_eq!((&heard[&1][..], &heard[&2][..]), (&b"one two"[..], &b"err"[..]));
        let status: Value = serde_json::from_slice(&heard[&3]).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));

        // In the older ones nothing ends the input but the client's going.
        let mut socket = open(&harness, EXEC, "v4.base64.channel.k8s.io").await;
        socket.send(Message::text("0YWJj")).await.unwrap();
        let mut heard = String::new();
        while !heard.contains("1YWJj") {
            heard += socket.next().await.unwrap().unwrap().to_text().unwrap();
        }
        drop(socket);

        let mut socket = open(&harness, "exec?command=breaks&stdout=true", "v4.channel.k8s.io").await;
        let status: Value = serde_json::from_slice(&hear(&mut socket).await[&3]).unwrap();
        assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
        let mut socket = open(&harness, "exec?command=breaks&stdout=true", "").await;
        let text = String::from_utf8(hear(&mut socket).await[&3].clone()).unwrap();
        assert!(text.contains("it broke"), "{text}");
    };
    harness.server.clock.timeout(DEADLINE, test).await.unwrap();
}

/// BEHAVIOURS 8.7: (local) what cannot be served is answered before anything is opened.
#[tokio::test]
async fn what_cannot_be_served_is_a_status() {
    let (harness, _) = echoes().await;
    let test = async {
        for (path, protocol, code, why) in [
            ("exec?command=absent&stdout=true", "v5.channel.k8s.io", 400, "container not found"),
            ("exec?stdout=true", "v5.channel.k8s.io", 400, "at least one command"),
            ("exec?command=x", "v5.channel.k8s.io", 400, "at least 1 of stdin"),
            ("exec?command=x&stdout=true&container=z", "v5.channel.k8s.io", 400, "container z is not valid"),
            (EXEC, "soap", 400, "unable to negotiate protocol"),
            ("portforward", "v4.channel.k8s.io", 400, "ports"),
            ("portforward?ports=0", "v4.channel.k8s.io", 400, "a port from 1 to 65535"),
        ] {
            let (reply, _) = ask(&harness, path, protocol).await;
            assert_eq!(reply.code, code, "{path}");
            let message = reply.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(why), "{path}: {message}");
        }
        let plain = harness.get(&format!("/api/v1/namespaces/n/pods/p/{EXEC}")).await;
        assert_eq!((plain.code, plain.json()["message"].clone()), (400, json!("Upgrade request required")));
        let mut stranger = harness.connect(None).await;
        let request = format!("GET /api/v1/namespaces/n/pods/p/{EXEC}");
        let headers = ["Connection: Upgrade", "Upgrade: websocket"];
        assert_eq!(exchange(&mut stranger, &request, &headers, b"").await.code, 403);
    };
    harness.server.clock.timeout(DEADLINE, test).await.unwrap();
}

/// BEHAVIOURS 8.7.
#[tokio::test]
async fn a_client_that_goes_ends_its_program() {
    let (harness, mut told) = echoes().await;
    let test = async {
        let mut socket = open(&harness, EXEC, "v5.channel.k8s.io").await;
        socket.send(Message::binary(&b"\x00x"[..])).await.unwrap();
        socket.next().await.unwrap().unwrap();
        drop(socket);
        told.recv().await.unwrap();

        // As does the end of the server.
        let mut socket = open(&harness, EXEC, "v5.channel.k8s.io").await;
        socket.next().await.unwrap().unwrap();
        harness.server.shutdown().await;
        told.recv().await.unwrap();
    };
    harness.server.clock.timeout(DEADLINE, test).await.unwrap();
}

/// A port that says back what it is told, once it has heard all; and one that nobody listens on.
async fn ports() -> (u16, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    (open, closed)
}

/// BEHAVIOURS 8.7.
#[tokio::test]
async fn ports_have_two_channels_each() {
    let (harness, _) = echoes().await;
    let (open_port, closed) = ports().await;
    let test = async {
        let path = format!("portforward?ports={closed},{open_port}");
        let mut socket = open(&harness, &path, "v4.channel.k8s.io").await;
        socket.send(Message::binary(&b"\x02hello"[..])).await.unwrap();
        let mut heard: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        let done = |heard: &BTreeMap<u8, Vec<u8>>| {
            let long = |channel, bytes| heard.get(&channel).is_some_and(|one| one.len() >= bytes);
            long(0, 2) && long(1, 30) && long(2, 7) && long(3, 2)
        };
        while !done(&heard) {
            let message = socket.next().await.unwrap().unwrap().into_data();
            heard.entry(message[0]).or_default().extend_from_slice(&message[1..]);
        }
        assert_eq!(heard[&0], closed.to_le_bytes());
        assert_eq!(heard[&2], [&open_port.to_le_bytes()[..], b"hello"].concat());
        assert_eq!(heard[&3], open_port.to_le_bytes());
        assert_eq!(heard[&1][..2], closed.to_le_bytes());
        let error = String::from_utf8_lossy(&heard[&1][2..]).into_owned();
        assert!(error.contains(&format!("error forwarding port {closed} to pod p")), "{error}");
    };
    harness.server.clock.timeout(DEADLINE, test).await.unwrap();
}

/// A new stream, its headers in a block that is not compressed.
fn syn_stream(stream: u32, first: bool, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    text.put_u32(u32::try_from(headers.len()).unwrap());
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        text.put_u32(u32::try_from(part.len()).unwrap());
        text.extend_from_slice(part.as_bytes());
    }
    let length = u16::try_from(text.len()).unwrap();
    let mut content = Vec::new();
    content.put_u32(stream);
    content.put_u32(0);
    content.put_u16(0);
    if first {
        content.extend_from_slice(&[0x78, 0x01]);
    }
    content.put_u8(0);
    content.put_u16_le(length);
    content.put_u16_le(!length);
    content.extend_from_slice(&text);
    let mut frame = vec![0x80, 3, 0, 1];
    frame.put_u32(u32::try_from(content.len()).unwrap());
    frame.extend_from_slice(&content);
    frame
}

/// BEHAVIOURS 8.7: what `kubectl port-forward` speaks.
#[tokio::test]
async fn ports_are_streams_in_a_tunnel() {
    let (harness, _) = echoes().await;
    let (open_port, closed) = ports().await;
    let test = async {
        let mut socket = open(&harness, "portforward", "SPDY/3.1+portforward.k8s.io").await;
        let mut bytes = Vec::new();
        for (request, port) in [(0, open_port), (1, closed)] {
            let (port, id) = (port.to_string(), request.to_string());
            for (place, kind) in ["error", "data"].into_iter().enumerate() {
                let stream = u32::try_from(1 + 4 * request + 2 * place).unwrap();
                let headers = [("streamtype", kind), ("port", &port), ("requestid", &id)];
                bytes.extend(syn_stream(stream, stream == 1, &headers));
            }
        }
        bytes.extend_from_slice(&[0, 0, 0, 3, 0, 0, 0, 5]);
        bytes.extend_from_slice(b"hello");
        // The end of stream 3, and a ping.
        bytes.extend_from_slice(&[0, 0, 0, 3, 1, 0, 0, 0]);
        bytes.extend_from_slice(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
        // However it is cut into messages.
        for piece in bytes.chunks(50) {
            socket.send(Message::binary(piece.to_vec())).await.unwrap();
        }

        let mut received = Vec::new();
        let (mut replies, mut data, mut ended, mut pings) = (Vec::new(), BTreeMap::new(), Vec::new(), 0);
        while ended.len() < 4 || pings < 1 {
            received.extend(socket.next().await.unwrap().unwrap().into_data());
            while received.len() >= 8 {
                let length =
                    usize::from(received[5]) << 16 | usize::from(received[6]) << 8 | usize::from(received[7]);
                if received.len() < 8 + length {
                    break;
                }
                let frame: Vec<u8> = received.drain(..8 + length).collect();
                let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
                match frame[..4] {
                    [0x80, 3, 0, 2] => replies.push(number(8)),
                    [0x80, 3, 0, 3] => ended.push(number(8)),
                    [0x80, 3, 0, 6] => pings += 1,
                    _ => {
                        let all: &mut Vec<u8> = data.entry(number(0)).or_default();
                        all.extend_from_slice(&frame[8..]);
                        if frame[4] == 1 {
                            ended.push(number(0));
                        }
                    }
                }
            }
        }
        replies.sort_unstable();
        ended.sort_unstable();
        assert_eq!((replies, ended), (vec![1, 3, 5, 7], vec![1, 3, 5, 7]));
        assert_eq!(data[&3], b"hello");
        assert_eq!(data[&1], b"", "nothing went wrong");
        let error = String::from_utf8(data[&5].clone()).unwrap();
        assert!(error.contains(&format!("error forwarding port {closed} to pod p")), "{error}");
    };
    harness.server.clock.timeout(DEADLINE, test).await.unwrap();
}
