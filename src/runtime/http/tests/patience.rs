//! Clients that are slow, silent or gone, in virtual time: real sockets, and waits that take none. What a socket
//! brings may be seen only at the next timer, so nothing here is exact.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::serving::port;
use crate::clock::{Clock, virtual_runtime};
use crate::runtime::http::{Http, Instances};
use crate::runtime::network::fixture::Fixed;
use crate::runtime::wasm::tests::{runtime, spec};
use crate::runtime::{Container, Runtime};

const OWN: Ipv4Addr = Ipv4Addr::new(127, 129, 77, 2);

struct Served {
    clock: Clock,
    at: SocketAddrV4,
    container: Container,
}

/// Runs `test` against the fixture `handler`.
fn serve(instances: Instances, test: impl AsyncFnOnce(&Served)) {
    virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let runtime = runtime(clock, Handle::current(), None);
        let mut spec = spec(&runtime, "handler", &[]).await;
        spec.network = Some(Arc::new(Fixed(OWN)));
        spec.http = Some(Http { port: port(), instances, ..Http::default() });
        let at = SocketAddrV4::new(OWN, spec.http.unwrap().port);
        let served = Served { clock, at, container: runtime.start(spec).await };
        test(&served).await;
        assert_eq!(served.container.exit(), None);
        served.container.kill();
        served.container.exited().await;
    });
}

impl Served {
    /// A connection on which this was sent.
    async fn client(&self, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the connection ends, and after how long that is.
    async fn rest(&self, stream: &mut TcpStream) -> (String, Duration) {
        let mut bytes = Vec::new();
        // Whatever ends it.
        stream.read_to_end(&mut bytes).await.ok();
        (String::from_utf8_lossy(&bytes).into_owned(), self.clock.monotonic())
    }

    /// Asks as those do who mean well.
    async fn get(&self, path: &str) -> String {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut client = self.client(&asked).await;
        self.rest(&mut client).await.0
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn who_does_not_go_on_asking_is_left() {
    serve(Instances::Fresh, async |served| {
        for (what, sent, said) in [
            ("nothing", "", ""),
            ("the beginning of a line", "GE", ""),
            ("half of a head", "GET / HTTP/1.1\r\nHost: te", ""),
            ("half of HTTP/2's beginning", "PRI * HTTP/2.0\r\n", ""),
            ("a request, and no other", "GET / HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
            (
                "half of a body that nobody reads",
                "POST /status/200 HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\nhalf",
                "HTTP/1.1 200 OK\r\n",
            ),
            (
                "half of a body",
                "POST /print HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\nhalf",
                "HTTP/1.1 200 OK\r\n",
            ),
        ] {
            let began = served.clock.monotonic();
            let mut client = served.client(sent).await;
            // Others are answered meanwhile.
            assert!(served.get("/").await.starts_with("HTTP/1.1 200 OK\r\n"), "{what}");
            let (answer, ended) = served.rest(&mut client).await;
            assert!(answer.starts_with(said) && answer.is_empty() == said.is_empty(), "{what}: {answer}");
            assert!(ended - began <= 2 * MINUTE + Duration::from_secs(1), "{what}: {:?}", ended - began);
        }
    });
}

#[test]
fn who_goes_on_slowly_is_waited_for_only_in_a_body() {
    serve(Instances::Fresh, async |served| {
        // A byte of a head now and then is no head in time.
        let began = served.clock.monotonic();
        let mut client = served.client("GET / HTTP/1.1\r\nX: ").await;
        let (mut reading, mut writing) = client.split();
        let clock = served.clock;
        let drips = async {
            loop {
                clock.sleep(Duration::from_secs(10)).await;
                if writing.write_all(b"x").await.is_err() {
                    break;
                }
            }
        };
        let mut bytes = Vec::new();
        tokio::select! {
            () = drips => {}
            read = reading.read_to_end(&mut bytes) => drop(read),
        }
        assert!(clock.monotonic() - began <= 2 * MINUTE, "{:?}", clock.monotonic() - began);

        // A body may take its time.
        let mut client =
            served.client("POST /print HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n").await;
        for _ in 0..10 {
            clock.sleep(Duration::from_secs(50)).await;
            client.write_all(b"x").await.unwrap();
        }
        let (answer, _) = served.rest(&mut client).await;
        assert!(answer.ends_with("printed\n"), "{answer}");
    });
}

#[test]
fn who_closes_the_writing_side_is_answered() {
    serve(Instances::Fresh, async |served| {
        let mut client = served.client("GET /count/3/1000 HTTP/1.1\r\nHost: test\r\n\r\n").await;
        client.shutdown().await.unwrap();
        let (answer, _) = served.rest(&mut client).await;
        assert!(answer.contains("line 2\n"), "{answer}");
        // A head or a body that ends early is no request.
        for half in
            ["GET / HTTP/1.1\r\nHo", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"]
        {
            let began = served.clock.monotonic();
            let mut client = served.client(half).await;
            client.shutdown().await.unwrap();
            let (answer, ended) = served.rest(&mut client).await;
            assert!(!answer.contains("200 OK\r\n") || !answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
            assert!(ended - began < MINUTE, "{half}");
        }
    });
}

#[test]
fn who_does_not_read_holds_an_instance_only_for_so_long() {
    serve(Instances::Kept(1), async |served| {
        let began = served.clock.monotonic();
        let mut client = served.client("GET /big/100000000 HTTP/1.1\r\nHost: test\r\n\r\n").await;
        // The beginning of an answer is here, of which nothing is read any more.
        client.read_exact(&mut [0; 64]).await.unwrap();
        // The only instance is taken, until somebody else has waited for it for some seconds.
        served.clock.sleep(Duration::from_secs(23)).await;
        assert!(served.get("/").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let took = (served.clock.monotonic() - began).as_secs();
        assert!((25..35).contains(&took), "{took}");
        let (answer, _) = served.rest(&mut client).await;
        assert!(answer.len() < 100_000_000);
        // Whom nobody else waits for has a minute.
        let began = served.clock.monotonic();
        let mut client = served.client("GET /big/100000000 HTTP/1.1\r\nHost: test\r\n\r\n").await;
        served.clock.sleep(Duration::from_secs(55)).await;
        let mut rest = vec![0; 10_000_000];
        client.read_exact(&mut rest).await.unwrap();
        served.clock.sleep(MINUTE + Duration::from_secs(6)).await;
        let (answer, ended) = served.rest(&mut client).await;
        assert!(answer.len() < 90_000_000 && ended - began < 3 * MINUTE, "{:?}", ended - began);
    });
}

#[test]
fn who_takes_no_more_of_http2_holds_an_instance_only_for_so_long() {
    use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
    for window in [0, 1_000] {
        serve(Instances::Kept(1), async |served| {
            let stream = TcpStream::connect(served.at).await.unwrap();
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).initial_stream_window_size(window);
            let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
            // It goes on answering pings.
            tokio::spawn(connection);
            let began = served.clock.monotonic();
            let ask = |path: &str| {
                let uri = format!("http://{}{path}", served.at);
                http::Request::get(uri).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()
            };
            let unread = sender.send_request(ask("/big/100000000")).await.unwrap();
            assert_eq!(unread.status(), 200);
            assert!(served.get("/").await.starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(served.clock.monotonic() - began < MINUTE);
            drop(unread);
        });
    }
}
