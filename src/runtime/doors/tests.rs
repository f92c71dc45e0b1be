use std::net::Ipv4Addr;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 128, 0, 1), 8080);

/// A client, and its connection as somebody has accepted it.
async fn pair() -> (TcpStream, Caller) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    (client, Caller { stream, peer, held: Box::new(()) })
}

fn back() -> Back {
    mpsc::unbounded_channel().0
}

#[tokio::test]
async fn connections_arrive_where_somebody_serves() {
    let doors = Doors::default();
    let (mut client, caller) = pair().await;
    let caller = doors.enter(AT, caller, &back()).expect_err("nobody serves yet");
    let peer = caller.peer;
    let mut door = doors.open(AT);
    assert!(doors.enter(AT, caller, &back()).is_ok());
    let mut arrived = door.arrival().await.unwrap();
    assert_eq!(arrived.peer, peer);
    arrived.stream.write_all(b"hello").await.unwrap();
    drop(arrived);
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");

    let (_, caller) = pair().await;
    let elsewhere = SocketAddrV4::new(*AT.ip(), 8081);
    assert!(doors.enter(elsewhere, caller, &back()).is_err());
}

#[tokio::test]
async fn who_is_in_when_it_closes_is_served_or_comes_back() {
    let doors = Doors::default();
    let (back, mut returned) = mpsc::unbounded_channel();
    let door = doors.open(AT);
    let (_client, caller) = pair().await;
    assert!(doors.enter(AT, caller, &back).is_ok());
    assert_eq!(door.close().len(), 1);
    assert!(returned.try_recv().is_err());

    let door = doors.open(AT);
    let (mut client, caller) = pair().await;
    let peer = caller.peer;
    assert!(doors.enter(AT, caller, &back).is_ok());
    drop(door);
    let (at, waiting) = returned.try_recv().unwrap();
    let mut caller = waiting.into_caller().unwrap();
    assert_eq!((at, caller.peer), (AT, peer));
    caller.stream.write_all(b"somebody else").await.unwrap();
    drop(caller);
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "somebody else");

    let (_, caller) = pair().await;
    assert!(doors.enter(AT, caller, &back).is_err());
}

#[tokio::test]
async fn too_many_go_the_long_way() {
    let doors = Doors::default();
    let mut door = doors.open(AT);
    let mut clients = Vec::new();
    for _ in 0..WAITING_MAX {
        let (client, caller) = pair().await;
        clients.push(client);
        assert!(doors.enter(AT, caller, &back()).is_ok());
    }
    let (_client, caller) = pair().await;
    let caller = doors.enter(AT, caller, &back()).expect_err("it is full");
    door.arrival().await.unwrap();
    assert!(doors.enter(AT, caller, &back()).is_ok());
}

#[tokio::test]
async fn the_latest_to_open_it_has_it() {
    let doors = Doors::default();
    let mut old = doors.open(AT);
    let mut new = doors.open(AT);
    assert!(old.arrival().now_or_never().is_none());
    drop(old);
    let (_client, caller) = pair().await;
    assert!(doors.enter(AT, caller, &back()).is_ok());
    new.arrival().await.unwrap();
    drop(new);
    assert!(doors.all().is_empty());
}

#[tokio::test]
async fn what_counts_it_is_held_until_it_ends() {
    let doors = Doors::default();
    let counted = Arc::new(());
    let mut door = doors.open(AT);
    let (_client, caller) = pair().await;
    let caller = Caller { held: Box::new(Arc::clone(&counted)), ..caller };
    assert!(doors.enter(AT, caller, &back()).is_ok());
    let arrived = door.arrival().await.unwrap();
    assert_eq!(Arc::strong_count(&counted), 2);
    drop(arrived);
    assert_eq!(Arc::strong_count(&counted), 1);
}
