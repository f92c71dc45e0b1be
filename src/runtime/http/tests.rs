use std::time::Duration;

use http::Uri;
use wasmtime_wasi_http::RequestOptions;

use super::complaints::Complaints;
use super::gate::{Busy, Gate};
use super::outgoing::{Target, Times};
use super::stream::is_http2;
use crate::clock::{Clock, virtual_runtime};

mod patience;
mod serving;

#[test]
fn the_first_bytes_tell_the_protocol() {
    for (head, expected) in [
        ("", None),
        ("P", None),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(true)),
        ("PO", Some(false)),
        ("PRI * HTTP/1.1\r\n", Some(false)),
        ("GET / HTTP/1.1\r\n", Some(false)),
        ("\u{16}\u{3}\u{1}", Some(false)),
    ] {
        assert_eq!(is_http2(head.as_bytes()), expected, "{head:?}");
    }
}

#[test]
fn only_so_many_are_let_in_and_wait() {
    virtual_runtime().unwrap().block_on(async {
        let (clock, gate) = (Clock::real(), std::sync::Arc::new(Gate::new(2, 1)));
        let first = gate.enter(clock).await.unwrap();
        let _second = gate.enter(clock).await.unwrap();
        let waits = tokio::spawn({
            let gate = std::sync::Arc::clone(&gate);
            async move { gate.enter(clock).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.enter(clock).await.err(), Some(Busy::Full));
        drop(first);
        let third = waits.await.unwrap().unwrap();
        // Nobody goes, so whoever waits now waits in vain; and then the next may.
        assert_eq!(gate.enter(clock).await.err(), Some(Busy::Late));
        assert_eq!(gate.enter(clock).await.err(), Some(Busy::Late));
        drop(third);
        drop(gate.enter(clock).await.unwrap());
    });
}

#[test]
fn complaints_are_few() {
    let complaints = Complaints::default();
    let at = Duration::from_millis;
    for (now, expected) in [
        (10_000, Some(0)),
        (10_001, Some(0)),
        (10_002, Some(0)),
        (10_003, Some(0)),
        (10_004, Some(0)),
        (10_005, None),
        (10_999, None),
        (11_000, Some(2)),
        (11_001, Some(0)),
    ] {
        assert_eq!(complaints.admit(at(now)), expected, "{now}");
    }
}

#[test]
fn where_requests_go() {
    let target = |tls, host: &str, port| Some(Target { tls, host: host.to_owned(), port });
    for (uri, expected) in [
        ("http://web", target(false, "web", 80)),
        ("https://web/path?x=http://other:1", target(true, "web", 443)),
        ("http://web.default.svc:8080/", target(false, "web.default.svc", 8080)),
        ("http://127.128.0.4:81/", target(false, "127.128.0.4", 81)),
        ("http://[::1]/", target(false, "::1", 80)),
        ("https://[::1]:8443/", target(true, "::1", 8443)),
        ("http://user@web:81/", target(false, "web", 81)),
        ("http://web:0/", None),
        ("http://web:99999/", None),
        ("/path", None),
    ] {
        assert_eq!(Target::of(&uri.parse::<Uri>().unwrap()).ok(), expected, "{uri}");
    }
}

#[test]
fn what_the_guest_gives_no_time_for_has_one() {
    let seconds = Duration::from_secs;
    let default = Times { connect: seconds(30), first_byte: seconds(600), between_bytes: seconds(600) };
    assert_eq!(Times::of(None), default);
    let options = RequestOptions { first_byte_timeout: Some(seconds(1)), ..RequestOptions::default() };
    assert_eq!(Times::of(Some(&options)), Times { first_byte: seconds(1), ..default });
}
