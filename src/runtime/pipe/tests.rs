use futures_util::FutureExt;

use super::*;

#[tokio::test]
async fn a_writer_waits_for_room_and_a_reader_for_bytes() {
    let pipe = Pipe::new(4);
    let mut reader = Receiver::of(Arc::clone(&pipe));
    assert!(reader.read().now_or_never().is_none());
    let written = pipe.write(Bytes::from_static(b"abcdefgh"));
    let mut written = pin!(written);
    assert!(written.as_mut().now_or_never().is_none(), "it holds four bytes");
    assert_eq!(pipe.room(), Some(0));
    assert_eq!(reader.read().await.unwrap(), "abcd");
    assert!(written.await);
    assert_eq!(reader.read().await.unwrap(), "efgh");
    assert_eq!(pipe.take(usize::MAX), Some(Bytes::new()));
}

#[tokio::test]
async fn either_end_may_go() {
    let (sender, pipe) = to_guest();
    assert!(sender.write(Bytes::from_static(b"ab")).await);
    drop(sender);
    assert_eq!(pipe.take(1).unwrap(), "a");
    pipe.readable().await;
    assert_eq!(pipe.take(9).unwrap(), "b");
    assert_eq!(pipe.take(9), None);

    let (pipe, receiver) = from_guest();
    pipe.put(b"lost");
    drop(receiver);
    pipe.writable().await;
    assert_eq!(pipe.room(), None);
    assert!(!pipe.write(Bytes::from_static(b"x")).await);
}

#[tokio::test]
async fn a_writer_that_waits_hears_that_the_reader_has_gone() {
    let (pipe, receiver) = from_guest();
    assert!(pipe.write(vec![0; PIPE_BYTES].into()).await);
    let more = pipe.write(Bytes::from_static(b"x"));
    let (wrote, ()) = tokio::join!(more, async { drop(receiver) });
    assert!(!wrote);
}
