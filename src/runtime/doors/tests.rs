use std::net::Ipv4Addr;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 128, 0, 1), 8080);

fn held() -> Held {
    Box::new(())
}

/// Both ends of a connection, and where the first comes from.
async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    (client, server, peer)
}

#[tokio::test]
async fn connections_arrive_where_somebody_serves() {
    let doors = Doors::default();
    let (mut client, stream, peer) = pair().await;
    let (stream, _) = doors.enter(AT, stream, peer, held()).expect_err("nobody serves yet");
    let mut door = doors.open(AT);
    assert!(doors.enter(AT, stream, peer, held()).is_ok());
    let (mut arrived, from, _) = door.arrival().await.unwrap();
    assert_eq!(from, peer);
    arrived.write_all(b"hello").await.unwrap();
    drop(arrived);
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");

    let (_, stream, peer) = pair().await;
    let elsewhere = SocketAddrV4::new(*AT.ip(), 8081);
    assert!(doors.enter(elsewhere, stream, peer, held()).is_err());
}

#[tokio::test]
async fn who_is_in_when_it_closes_is_not_lost() {
    let doors = Doors::default();
    let door = doors.open(AT);
    let (_client, stream, peer) = pair().await;
    assert!(doors.enter(AT, stream, peer, held()).is_ok());
    assert_eq!(door.close().await.len(), 1);
    let (_, stream, peer) = pair().await;
    assert!(doors.enter(AT, stream, peer, held()).is_err());
}

#[tokio::test]
async fn too_many_go_the_long_way() {
    let doors = Doors::default();
    let mut door = doors.open(AT);
    let mut clients = Vec::new();
    for _ in 0..WAITING_MAX {
        let (client, stream, peer) = pair().await;
        clients.push(client);
        assert!(doors.enter(AT, stream, peer, held()).is_ok());
    }
    let (_client, stream, peer) = pair().await;
    let (stream, _) = doors.enter(AT, stream, peer, held()).expect_err("it is full");
    door.arrival().await.unwrap();
    assert!(doors.enter(AT, stream, peer, held()).is_ok());
}

#[tokio::test]
async fn the_latest_to_open_it_has_it() {
    let doors = Doors::default();
    let mut old = doors.open(AT);
    let mut new = doors.open(AT);
    assert!(old.arrival().now_or_never().is_none());
    drop(old);
    let (_client, stream, peer) = pair().await;
    assert!(doors.enter(AT, stream, peer, held()).is_ok());
    new.arrival().await.unwrap();
    drop(new);
    assert!(doors.all().is_empty());
}

#[tokio::test]
async fn what_counts_it_is_held_until_it_ends() {
    let doors = Doors::default();
    let counted = Arc::new(());
    let mut door = doors.open(AT);
    let (_client, stream, peer) = pair().await;
    assert!(doors.enter(AT, stream, peer, Box::new(Arc::clone(&counted))).is_ok());
    let arrived = door.arrival().await.unwrap();
    assert_eq!(Arc::strong_count(&counted), 2);
    drop(arrived);
    assert_eq!(Arc::strong_count(&counted), 1);
}
