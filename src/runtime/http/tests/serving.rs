//! Handlers behind real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::runtime::http::{Http, Instances};
use crate::runtime::log::Log;
use crate::runtime::network::fixture::Fixed;
use crate::runtime::wasm::tests::{DEADLINE, log_of, real, spec, wait_for_output};
use crate::runtime::{Container, ContainerSpec, Exit, Runtime};

/// A handler that is served.
struct Served {
    container: Container,
    log: Arc<Log>,
    address: SocketAddrV4,
}

/// A port that no other test here uses.
pub(super) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(18_100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn serve(instances: Instances) -> Served {
    serve_with(|spec| spec.http = Some(Http { instances, ..spec.http.unwrap() }))
}

fn serve_with(change: impl FnOnce(&mut ContainerSpec)) -> Served {
    let own = Ipv4Addr::new(127, 129, 77, 1);
    let real = real();
    real.threads.block_on(async {
        let mut spec = spec(&real.runtime, "handler", &[]).await;
        spec.network = Some(Arc::new(Fixed(own)));
        spec.http = Some(Http { port: port(), ..Http::default() });
        change(&mut spec);
        let (log, port) = (log_of(&spec), spec.http.unwrap().port);
        Served { container: real.runtime.start(spec).await, log, address: SocketAddrV4::new(own, port) }
    })
}

/// Status and body of one answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// It has come to its end.
    whole: bool,
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
    }

    fn text(&self, path: &str) -> (u16, String) {
        let answer = self.get(path);
        assert!(answer.whole, "{answer:?}");
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read(&mut BufReader::new(stream))
    }

    fn waits_for(&self, text: &str) {
        real().threads.block_on(wait_for_output(&self.log, text));
    }

    fn exited(&self) -> Exit {
        let real = real();
        real.threads.block_on(real.clock.timeout(DEADLINE, self.container.exited())).unwrap()
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    let lower = head.to_lowercase();
    let mut body = Vec::new();
    let mut whole = false;
    if let Some(length) = lower.split("content-length: ").nth(1) {
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        body.resize(length, 0);
        whole = stream.read_exact(&mut body).is_ok();
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            let Ok(1..) = stream.read_line(&mut line) else { break };
            let Ok(size) = usize::from_str_radix(line.trim(), 16) else { break };
            let mut chunk = vec![0; size + 2];
            if stream.read_exact(&mut chunk).is_err() {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                whole = true;
                break;
            }
        }
    }
    Answer { status, body, whole }
}

#[test]
fn each_request_has_an_instance_of_its_own_unless_instances_are_kept() {
    let fresh = serve(Instances::Fresh);
    for _ in 0..3 {
        assert_eq!(fresh.text("/"), (200, "request 1 of this instance\n".to_owned()));
    }
    let kept = serve(Instances::Kept(1));
    for count in 1..4 {
        assert_eq!(kept.text("/"), (200, format!("request {count} of this instance\n")));
    }
    assert_eq!(kept.get("/trap").status, 500);
    assert_eq!(kept.text("/"), (200, "request 1 of this instance\n".to_owned()));
}

#[test]
fn a_failure_is_its_own_requests() {
    for instances in [Instances::Fresh, Instances::Kept(2)] {
        let served = serve(instances);
        let failed = (500, "the handler failed; the container's log says why\n".to_owned());
        assert_eq!(served.text("/trap"), failed);
        served.waits_for("GET /trap failed: ");
        assert_eq!(served.text("/silent"), failed);
        served.waits_for("GET /silent failed: it did not answer\n");
        assert_eq!(served.text("/exit"), failed);
        served.waits_for("GET /exit failed: it ended with exit code 1\n");
        assert_eq!(served.text("/memory/100"), failed);
        served.waits_for("GET /memory/100 failed: it took more memory than the container's limit\n");
        let half = served.get("/half");
        // Whether its beginning still reaches the client is a matter of time; that it is not all is not.
        assert!(!half.whole && [0, 200].contains(&half.status), "{half:?}");
        // An answer that nobody ends any more has no end, unless its instance has one.
        let leak = served.get("/leak");
        assert_eq!(leak.whole, instances == Instances::Fresh, "{leak:?}");
        assert_eq!(served.text("/status/404"), (404, "as asked\n".to_owned()));
        assert_eq!(served.container.exit(), None);
    }
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let served = serve(Instances::Fresh);
    let mut stream = BufReader::new(served.connect());
    for length in [0, 5, 200_000] {
        let body = vec![b'y'; length];
        let head = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        stream.get_mut().write_all(&[head.as_bytes(), &body].concat()).unwrap();
        let answer = read(&mut stream);
        assert_eq!((answer.status, answer.whole, answer.body.len()), (200, true, length));
    }
    let big = served.get("/big/3000000");
    assert_eq!((big.status, big.whole, big.body.len()), (200, true, 3_000_000));
    // HTTP/1.0, which names no host.
    let old = served.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.status, 200, "{old:?}");
    let proxy = served.ask("CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n");
    assert_eq!(proxy.status, 405, "{proxy:?}");
    let head = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(served.ask(&head).status, 431);
}

#[test]
fn an_answer_comes_as_it_is_written() {
    let served = serve(Instances::Fresh);
    let mut stream = BufReader::new(served.connect());
    stream
        .get_mut()
        .write_all(b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).unwrap();
    }
    for word in ["one", "two"] {
        // Each comes back before the next is sent.
        stream.get_mut().write_all(format!("3\r\n{word}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, format!("3\r\n{word}\r\n"));
    }
    stream.get_mut().write_all(b"0\r\n\r\n").unwrap();
    let mut end = String::new();
    stream.read_line(&mut end).unwrap();
    assert_eq!(end, "0\r\n");
}

#[test]
fn http2_has_trailers_both_ways() {
    let served = serve(Instances::Fresh);
    real().threads.block_on(async {
        let stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().unwrap());
        let frames = [
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"ping"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let uri = format!("http://{}/echo", served.address);
        let response = sender.send_request(Request::post(uri).body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().get("x-sum").unwrap(), "42");
        assert_eq!(body.to_bytes(), "ping");
    });
}

#[test]
fn bodies_have_the_bound_that_was_asked_for() {
    let served = serve_with(|spec| {
        spec.http = Some(Http { body_bytes_max: Some(10), access_log: true, ..spec.http.unwrap() });
    });
    let post = |headers: &str, body: &str| {
        served.ask(&format!("POST /echo HTTP/1.1\r\nHost: test\r\n{headers}\r\n\r\n{body}"))
    };
    assert_eq!(post("Content-Length: 10", "0123456789").body, b"0123456789");
    assert_eq!(post("Content-Length: 11", "01234567890").status, 413);
    let cut = post("Transfer-Encoding: chunked", "6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n");
    assert!(!cut.whole, "{cut:?}");
    served.waits_for("\"POST /echo HTTP/1.1\" 413 ");
    served.waits_for("\"POST /echo HTTP/1.1\" 200 10 ");
}

#[test]
fn a_request_has_the_time_that_was_asked_for() {
    for instances in [Instances::Fresh, Instances::Kept(1)] {
        let served = serve_with(|spec| {
            let time_max = Some(Duration::from_millis(200));
            spec.http = Some(Http { time_max, instances, ..spec.http.unwrap() });
        });
        let late = (504, "the handler took longer than it may\n".to_owned());
        // An hour of either.
        assert_eq!(served.text("/wait/3600000"), late);
        served.waits_for("GET /wait/3600000 failed: it took longer than 200ms\n");
        assert_eq!(served.text("/spin/3600000"), late);
        let begun = served.get("/count/2/3600000");
        assert!(begun.status == 200 && !begun.whole, "{begun:?}");
        assert_eq!(served.text("/status/404"), (404, "as asked\n".to_owned()));
        assert_eq!(served.container.exit(), None);
    }
}

#[test]
fn a_stop_lets_what_is_under_way_end() {
    let served = serve(Instances::Fresh);
    let mut late = served.connect();
    late.write_all(b"GET /count/5/100 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut late = BufReader::new(late);
    let mut line = String::new();
    late.read_line(&mut line).unwrap();
    assert!(line.contains("200"), "{line}");
    let mut idle = BufReader::new(served.connect());
    idle.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(read(&mut idle).status, 200);
    assert!(served.container.ask_to_stop(Duration::from_secs(600)));
    let mut rest = String::new();
    late.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("line 4\n") && rest.ends_with("0\r\n\r\n"), "{rest}");
    let mut nothing = Vec::new();
    assert_eq!(idle.read_to_end(&mut nothing).unwrap_or(0), 0);
    assert_eq!(served.exited(), Exit::Code(0));
    assert!(TcpStream::connect(served.address).is_err());
}

#[test]
fn a_kill_ends_all_at_once() {
    let served = serve(Instances::Kept(2));
    let mut stream = served.connect();
    stream.write_all(b"GET /wait/3600000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(served.get("/").status, 200);
    served.container.kill();
    assert_eq!(served.exited(), Exit::Killed);
    let mut nothing = Vec::new();
    assert_eq!(stream.read_to_end(&mut nothing).unwrap_or(0), 0);
    assert!(TcpStream::connect(served.address).is_err());
}

#[test]
fn a_port_that_is_taken_is_told() {
    let port = port();
    let taken = TcpListener::bind((Ipv4Addr::new(127, 129, 77, 1), port)).unwrap();
    let served = serve_with(|spec| spec.http = Some(Http { port, ..Http::default() }));
    let Exit::Trap(text) = served.exited() else { panic!("it runs") };
    assert!(text.starts_with(&format!("cannot serve HTTP on 127.129.77.1:{port}: ")), "{text}");
    assert!(text.contains("give each a containerPort"), "{text}");
    drop(taken);
}

#[test]
fn handlers_ask_others() {
    let other = serve(Instances::Fresh);
    let asking = serve(Instances::Fresh);
    let to = other.address;
    assert_eq!(
        asking.text(&format!("/fetch/http/{to}/")),
        (200, "200 request 1 of this instance\n".to_owned())
    );
    assert_eq!(asking.text(&format!("/fetch/http/{to}/status/418")).1, "418 as asked\n");
    let big = asking.text(&format!("/fetch/http/{to}/big/1000000")).1;
    assert_eq!(big.len(), 1_000_004);
    let half = asking.text(&format!("/fetch/http/{to}/half"));
    assert_eq!(half.0, 502, "{half:?}");
    for (url, expected) in [
        ("http/127.129.77.1:1/", "ConnectionRefused"),
        ("http/127.0.0.2:80/", "DestinationIpProhibited"),
        ("http/127.96.0.3:80/", "ConnectionRefused"),
        ("http/nobody.example/", "NXDOMAIN"),
        // The pod itself, an address of IPv4, and one of IPv6.
        ("http/[::1]:1/", "ConnectionRefused"),
        ("http/[::ffff:127.0.0.2]:80/", "DestinationIpProhibited"),
        ("http/[2001:db8::1]:80/", "DestinationIpUnroutable"),
    ] {
        let (status, why) = asking.text(&format!("/fetch/{url}"));
        assert!(status == 502 && why.contains(expected), "{url}: {why}");
    }
    let (status, why) = asking.text(&format!("/fetch/http/{to}/wait/60000"));
    assert!(status == 502 && why.contains("ConnectionReadTimeout"), "{why}");
    let (status, why) = asking.text(&format!("/fetch/https/{to}/"));
    assert!(status == 502 && why.contains("Tls"), "{why}");
}
