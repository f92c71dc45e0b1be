use serde_json::json;

use super::super::table::Front;
use super::super::tests::services;
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

#[test]
fn whom_a_pod_has_not_taken_when_it_ends_goes_to_another() {
    virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let doors = Doors::default();
        let [first, second] = ["127.128.0.5:8080", "127.128.0.6:8080"].map(|at| at.parse().unwrap());
        let way = Way {
            services: services(json!({}), &["127.128.0.5", "127.128.0.6"]),
            doors: doors.clone(),
            clock,
            target: Target::Service {
                front: Front::Cluster(Protocol::Tcp, "127.96.0.9:80".parse().unwrap()),
                node: None,
                of: ("n".to_owned(), "web".to_owned()),
                port: String::new(),
            },
        };
        let (ends, goes_on) = (doors.open(first), doors.open(second));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let slots = Slots { own: Arc::new(Semaphore::new(20)), all: Arc::new(Semaphore::new(20)) };
        let (own, all) = (slots.own.clone(), slots.all.clone());
        let closed = CancellationToken::new();
        let accepting = tokio::spawn(accept(listener, way, slots, closed.clone(), CancellationToken::new()));
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(TcpStream::connect(at).await.unwrap());
        }
        // Each is on its way to one of the two, and nobody is carried.
        while own.available_permits() > 9 {
            tokio::task::yield_now().await;
        }
        assert!(all.available_permits() >= 19, "one at most waits to be accepted");
        drop(ends);
        let mut goes_on = goes_on;
        for _ in 0..10 {
            let Caller { mut stream, held, .. } = goes_on.arrival().await.unwrap();
            stream.write_all(b"here").await.unwrap();
            drop((stream, held));
        }
        for client in &mut clients {
            assert_eq!(read(client).await, "here");
        }
        // Where there is nobody any more, a connection ends.
        let mut late = TcpStream::connect(at).await.unwrap();
        while own.available_permits() > 18 {
            tokio::task::yield_now().await;
        }
        drop(goes_on);
        assert_eq!(read(&mut late).await, "");
        closed.cancel();
        accepting.await.unwrap();
        assert_eq!((own.available_permits(), all.available_permits()), (20, 20));
    });
}
