use super::*;
use crate::clock::virtual_runtime;

/// A connection: the client's end and ours.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (client, ours) = tokio::join!(TcpStream::connect(at), listener.accept());
    (client.unwrap(), ours.unwrap().0)
}

/// Runs `test` with a client, an endpoint and what is between them.
fn between(test: impl AsyncFnOnce(TcpStream, TcpStream, Clock, JoinHandle<io::Result<()>>)) {
    virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let ((client, front), (endpoint, back)) = (pair().await, pair().await);
        let carried = tokio::spawn(carry(front, back, clock));
        test(client, endpoint, clock, carried).await;
    });
}

async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn each_side_may_end_before_the_other() {
    between(async |mut client, mut endpoint, clock, carried| {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut endpoint).await, "question");
        // An answer may take its time.
        clock.sleep(Duration::from_secs(600)).await;
        endpoint.write_all(b"answer").await.unwrap();
        drop(endpoint);
        assert_eq!(read(&mut client).await, "answer");
        carried.await.unwrap().unwrap();
    });
    between(async |mut client, mut endpoint, clock, carried| {
        endpoint.write_all(b"answer").await.unwrap();
        endpoint.shutdown().await.unwrap();
        assert_eq!(read(&mut client).await, "answer");
        // And so may a client that goes on.
        for _ in 0..10 {
            clock.sleep(Duration::from_secs(20)).await;
            client.write_all(b"x").await.unwrap();
        }
        client.shutdown().await.unwrap();
        assert_eq!(read(&mut endpoint).await, "xxxxxxxxxx");
        carried.await.unwrap().unwrap();
    });
}

#[test]
fn nobody_is_waited_for_without_end() {
    // The endpoint has gone, and the client does not notice.
    between(async |client, endpoint, clock, carried| {
        drop(endpoint);
        let ended = carried.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(clock.monotonic() >= ENDED_MAX && clock.monotonic() < 2 * ENDED_MAX);
        drop(client);
    });
    // The client has said all, and the endpoint never answers.
    between(async |mut client, endpoint, clock, carried| {
        client.shutdown().await.unwrap();
        let ended = carried.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(clock.monotonic() >= STALLED_MAX && clock.monotonic() < 2 * STALLED_MAX);
        drop((client, endpoint));
    });
    // The client never reads.
    between(async |client, mut endpoint, clock, carried| {
        let answers = tokio::spawn(async move {
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..100 {
                endpoint.write_all(&piece).await?;
            }
            io::Result::Ok(())
        });
        let ended = carried.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(clock.monotonic() >= STALLED_MAX && clock.monotonic() < 2 * STALLED_MAX);
        assert!(answers.await.unwrap().is_err());
        drop(client);
    });
}

#[test]
fn one_socket_never_has_all_the_connections() {
    virtual_runtime().unwrap().block_on(async {
        let all = Arc::new(Semaphore::new(8));
        let slots = || Slots { own: Arc::new(Semaphore::new(2)), all: all.clone() };
        let (greedy, other) = (slots(), slots());
        let held = [greedy.take().await, greedy.take().await];
        let clock = Clock::real();
        assert!(clock.timeout(Duration::from_secs(1), greedy.take()).await.is_err());
        assert_eq!(all.available_permits(), 6, "who waits for its own holds none of all");
        drop(other.take().await);
        drop(held);
        drop(greedy.take().await);
        assert!(connections_max() >= 1 && connections_max() <= CONNECTIONS_MAX);
    });
}
