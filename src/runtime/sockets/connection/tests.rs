use std::net::Ipv4Addr;
use std::sync::Weak;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::clock::virtual_runtime;
use crate::runtime::budget::{Budget, Limits};
use crate::runtime::sockets::{Descriptors, Held};

/// More than the system keeps for a connection on loopback that nobody reads.
const MUCH: usize = 64 << 20;

struct Ends {
    client: TcpStream,
    reader: Reader,
    writer: Writer,
    end: WriterEnd,
    connection: Weak<Connection>,
}

async fn ends(clock: Clock) -> Ends {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let budget = Budget::new(Limits::default(), clock, None);
    let takes = Held::new(&Descriptors::new(100), &budget, clock).one_more();
    let connection = Connection::new(stream, takes.unwrap(), None);
    let reader = Reader::new(&connection);
    let (writer, end) = Writer::new(&connection, clock);
    Ends { client, reader, writer, end, connection: Arc::downgrade(&connection) }
}

/// Writes until nothing more is taken; how many bytes.
async fn fill(writer: &mut Writer) -> usize {
    let mut written = 0;
    while written < MUCH {
        writer.ready().await;
        writer.write(Bytes::from_static(&[7; PIECE])).unwrap();
        written += PIECE;
        if writer.check_write().unwrap() == 0 {
            return written;
        }
    }
    panic!("the system takes everything");
}

#[tokio::test]
async fn what_one_side_writes_the_other_reads_up_to_the_end() {
    let Ends { mut client, mut reader, mut writer, .. } = ends(Clock::real()).await;
    assert_eq!(reader.read(100).unwrap(), "");
    client.write_all(b"question").await.unwrap();
    assert_eq!(reader.blocking_read(4).await.unwrap(), "ques");
    assert_eq!(reader.blocking_read(100).await.unwrap(), "tion");
    assert_eq!(reader.read(0).unwrap(), "");
    client.shutdown().await.unwrap();
    assert!(matches!(reader.blocking_read(100).await, Err(StreamError::Closed)));
    assert!(matches!(reader.read(100), Err(StreamError::Closed)));

    writer.blocking_write_and_flush("answer".into()).await.unwrap();
    drop(writer);
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn no_more_is_written_than_is_read() {
    let Ends { mut client, mut writer, end, .. } = ends(Clock::real()).await;
    let written = fill(&mut writer).await;
    assert_eq!(writer.check_write().unwrap(), 0);
    assert!(matches!(writer.write(Bytes::from_static(b"x")), Err(StreamError::Trap(_))));
    // What was taken comes all the same, and the end after it.
    end.close();
    assert!(matches!(writer.check_write(), Err(StreamError::Closed)));
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len(), written);
}

#[tokio::test]
async fn who_waits_to_write_is_woken_when_there_is_room() {
    let Ends { mut client, mut writer, .. } = ends(Clock::real()).await;
    let mut written = fill(&mut writer).await;
    let reading = tokio::spawn(async move {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes.len()
    });
    for _ in 0..100 {
        let room = writer.write_ready().await.unwrap();
        writer.write(Bytes::from(vec![7; room])).unwrap();
        written += room;
    }
    drop(writer);
    assert_eq!(reading.await.unwrap(), written);
}

#[tokio::test]
async fn a_connection_that_breaks_says_so_once() {
    let Ends { client, mut reader, mut writer, .. } = ends(Clock::real()).await;
    fill(&mut writer).await;
    // What was not read resets it.
    client.set_zero_linger().unwrap();
    drop(client);
    writer.ready().await;
    let Err(StreamError::LastOperationFailed(error)) = writer.check_write() else { panic!("no error") };
    let kind = error.downcast_ref::<io::Error>().unwrap().kind();
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    assert!(matches!(writer.check_write(), Err(StreamError::Closed)));
    assert!(matches!(reader.blocking_read(1).await, Err(StreamError::Closed)));
}

#[tokio::test]
async fn who_reads_no_more_ends_the_stream() {
    let Ends { client, mut reader, mut writer, .. } = ends(Clock::real()).await;
    drop(client);
    assert!(matches!(reader.blocking_read(1).await, Err(StreamError::Closed)));
    // The first finds nobody there, and the next are told.
    let mut told = writer.blocking_write_and_flush("x".into()).await;
    for _ in 0..100 {
        if told.is_err() {
            break;
        }
        told = writer.blocking_write_and_flush("x".into()).await;
    }
    assert!(matches!(told, Err(StreamError::Closed | StreamError::LastOperationFailed(_))), "{told:?}");
}

#[test]
fn what_nobody_reads_is_not_kept_for_a_guest_that_is_gone() {
    virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let Ends { client, reader, mut writer, end, connection } = ends(clock).await;
        fill(&mut writer).await;
        reader.close();
        drop((reader, writer, end));
        clock.sleep(LINGER / 2).await;
        assert!(connection.upgrade().is_some(), "it is sent while there is hope");
        clock.sleep(LINGER).await;
        assert!(connection.upgrade().is_none());
        drop(client);
    });
}
