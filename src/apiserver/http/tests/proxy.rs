//! Requests that are carried on, to a backend of the test's own.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::ServiceAccount;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

/// No wait may take longer, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node on which every address is that of the backend, but for port 9.
struct Backend(SocketAddr);

#[async_trait]
impl NodeAccess for Backend {
    async fn logs(&self, _: &Pod, _: &str, _: &LogOptions) -> Result<LogStream, Error> {
        panic!("nobody asks for logs")
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        let backend = self.0;
        async move {
            if to.port() == 9 {
                return Err(io::Error::other(format!("dial tcp {to}: connect: connection refused")));
            }
            TcpStream::connect(backend).await
        }
        .boxed()
    }
}

/// Answers one request a connection, with what it says, and tells the head of each.
async fn backend(answer: &'static [u8]) -> (Harness, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let harness = harness_with(Arc::new(Backend(listener.local_addr().unwrap()))).await;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).await.unwrap();
            }
            let length = head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).await.unwrap();
            tell.send(format!("{head}{}", String::from_utf8(body).unwrap())).unwrap();
            stream.write_all(answer).await.unwrap();
            if answer.starts_with(b"HTTP/1.1 101") {
                let mut byte = [0];
                while stream.read(&mut byte).await.unwrap() > 0 {
                    stream.write_all(&[byte[0].to_ascii_uppercase()]).await.unwrap();
                }
            }
        }
    });
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("default".into());
    create(&harness.api, Some("n"), Box::new(account)).await;
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i"}]},
    });
    create(&harness.api, Some("n"), Box::new(serde_json::from_value::<Pod>(pod).unwrap())).await;
    let patch = Request {
        user: User::admin(),
        verb: Verb::Patch,
        kind: crate::kind::of::<Pod>(),
        subresource: Some(crate::kind::Subresource::Status),
        namespace: Some("n".into()),
        name: Some("p".into()),
        options: Options::default(),
        body: Body::Value {
            media_type: "application/merge-patch+json",
            value: json!({"status": {"podIP": "127.128.0.1", "podIPs": [{"ip": "127.128.0.1"}]}}),
        },
    };
    harness.api.handle(patch).await.unwrap_or_else(|error| panic!("{error}"));
    (harness, told)
}

const PROXY: &str = "/api/v1/namespaces/n/pods/p:8080/proxy";

/// 8.8
#[tokio::test]
async fn requests_are_carried_as_they_are() {
    let test = async {
        let (harness, mut told) =
            backend(b"HTTP/1.1 418 Short\r\nX-Mine: a\r\nContent-Length: 4\r\nLocation: /else\r\n\r\nteas")
                .await;
        let mut stream = harness.admin().await;
        let request = format!("PUT {PROXY}/a%2Fb//c?x=1&y=%20");
        let headers = ["Impersonate-User: system:admin", "Impersonate-Group: system:masters", "X-Theirs: b"];
        let reply = exchange(&mut stream, &request, &headers, b"body").await;
        assert_eq!((reply.code, reply.text().as_str(), reply.header("x-mine")), (418, "teas", "a"));
        assert_eq!(reply.header("location"), format!("{PROXY}/else"));
        let asked = told.recv().await.unwrap();
        assert!(asked.starts_with("PUT /a%2Fb//c?x=1&y=%20 HTTP/1.1\r\n"), "{asked}");
        let asked = asked.to_lowercase();
        assert!(asked.contains("\r\nx-theirs: b\r\n") && asked.ends_with("\r\n\r\nbody"), "{asked}");
        assert!(!asked.contains("impersonate"), "{asked}");
        // Without a last slash relative links would lead astray.
        let moved = exchange(&mut stream, &format!("GET {PROXY}?a=b"), &[], b"").await;
        assert_eq!((moved.code, moved.header("location")), (301, format!("{PROXY}/?a=b").as_str()));
        for method in ["DELETE", "PATCH", "POST", "OPTIONS"] {
            assert_eq!(harness.ask(&format!("{method} {PROXY}/x"), &[], b"").await.code, 418, "{method}");
            assert!(told.recv().await.unwrap().starts_with(&format!("{method} /x ")), "{method}");
        }
    };
    Clock::real().timeout(DEADLINE, test).await.unwrap();
}

/// 8.8
#[tokio::test]
async fn what_cannot_be_reached_is_a_status() {
    let (harness, _told) = backend(b"").await;
    let test = async {
        for (path, code, why) in [
            (
                "pods/p:9/proxy/",
                503,
                "error trying to reach service: dial tcp 127.128.0.1:9: connect: connection refused",
            ),
            ("pods/p:8080/proxy/", 503, "error trying to reach service: "),
            ("pods/a:b:c/proxy/", 400, "invalid pod request \"a:b:c\""),
            ("pods/none/proxy/", 404, "pods \"none\" not found"),
            ("services/none/proxy/", 404, "services \"none\" not found"),
        ] {
            let reply = harness.get(&format!("/api/v1/namespaces/n/{path}")).await;
            let message = reply.json()["message"].as_str().unwrap().to_owned();
            assert!(reply.code == code && message.starts_with(why), "{path}: {} {message}", reply.code);
        }
        // Whoever may not is told so before anybody is asked.
        let mut stream = harness.connect(None).await;
        let refused = exchange(&mut stream, &format!("GET {PROXY}/"), &[], b"").await;
        assert_eq!(refused.code, 403);
        assert!(refused.text().contains("cannot get resource \\\"pods/proxy\\\""), "{}", refused.text());
    };
    Clock::real().timeout(DEADLINE, test).await.unwrap();
}

/// 8.8
#[tokio::test]
async fn an_upgrade_is_carried_on_too() {
    let (harness, mut told) =
        backend(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n").await;
    let test = async {
        let mut stream = harness.admin().await;
        send(&mut stream, &format!("GET {PROXY}/ws"), &["Connection: Upgrade", "Upgrade: shout"], b"").await;
        let reply = head(&mut stream).await;
        assert_eq!((reply.code, reply.header("upgrade")), (101, "shout"));
        let asked = told.recv().await.unwrap().to_lowercase();
        assert!(asked.contains("\r\nupgrade: shout\r\n"), "{asked}");
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HELLO");
        harness.server.shutdown().await;
        assert_eq!(stream.read(&mut heard).await.unwrap_or(0), 0);
    };
    Clock::real().timeout(DEADLINE, test).await.unwrap();
}
