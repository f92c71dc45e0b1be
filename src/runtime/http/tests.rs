use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Uri;
use wasmtime_wasi_http::RequestOptions;

use super::complaints::Complaints;
use super::gate::{Busy, Entered, Gate, Next, Ticket};
use super::outgoing::{Target, Times};
use super::stream::is_http2;

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

type Entry = Result<Entered<u8, &'static str>, Busy>;

fn now(entry: Entry) -> Next<u8, &'static str> {
    match entry {
        Ok(Entered::Now(next)) => next,
        Ok(Entered::Later(_)) => panic!("it waits"),
        Err(busy) => panic!("{busy:?}"),
    }
}

fn later(entry: Entry) -> Ticket<u8, &'static str> {
    match entry {
        Ok(Entered::Later(ticket)) => ticket,
        Ok(Entered::Now(_)) => panic!("it is in"),
        Err(busy) => panic!("{busy:?}"),
    }
}

#[test]
fn only_so_many_are_let_in_and_wait_in_line() {
    let gate = Gate::new(2, 2);
    let (first, none, job) = now(gate.enter(1));
    assert_eq!((none, job), (None, 1));
    let (second, _, _) = now(gate.enter(2));
    assert!(!gate.is_wanted());
    let (third, fourth) = (later(gate.enter(3)), later(gate.enter(4)));
    assert_eq!(gate.enter(5).err(), Some(Busy::Full));
    assert!(gate.is_wanted());
    // The next in line has the place, and the instance.
    let (first, instance, job) = first.next(Some("kept")).unwrap();
    assert_eq!((instance, job), (Some("kept"), 3));
    // Whoever has waited in vain leaves, and whoever is being answered has left already.
    assert!(!third.leave());
    assert!(fourth.leave());
    assert!(!fourth.leave());
    drop(later(gate.enter(6)));
    assert!(!gate.is_wanted());
    // Nobody waits: the instance has nothing to do, until somebody comes.
    assert!(first.next(Some("kept")).is_none());
    let (first, instance, _) = now(gate.enter(7));
    assert_eq!(instance, Some("kept"));
    assert!(first.next(None).is_none());
    assert_eq!(now(gate.enter(8)).1, None);
    assert!(second.next(Some("kept")).is_none());
    assert_eq!(gate.take_idle(), ["kept"]);
}

#[test]
fn it_is_known_when_nobody_is_in() {
    let gate = Gate::<u8, ()>::new(2, 2);
    assert!(gate.empty().now_or_never().is_some());
    let (first, ..) = now_of(&gate);
    let (second, ..) = now_of(&gate);
    let mut empty = Box::pin(gate.empty());
    assert!((&mut empty).now_or_never().is_none());
    // However it ends.
    drop(first);
    assert!((&mut empty).now_or_never().is_none());
    assert!(second.next(None).is_none());
    assert!(empty.now_or_never().is_some());
}

fn now_of(gate: &Arc<Gate<u8, ()>>) -> Next<u8, ()> {
    let Ok(Entered::Now(next)) = gate.enter(0) else { panic!("there is no place") };
    next
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
