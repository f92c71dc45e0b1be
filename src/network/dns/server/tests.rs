use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;

use super::*;
use crate::random::Random;

async fn server() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let (address, stop, task, _) = server_of().await;
    (address, stop, task)
}

async fn server_of() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>, Arc<Names>) {
    let clock = Clock::real();
    let names = Names::new(Ipv4Addr::new(127, 96, 0, 10), clock, Random::from_seed(1));
    let slice = json!({
        "metadata": {"name": "pods-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "pods"}},
        "addressType": "IPv4",
        "endpoints": (0..200).map(|i| json!({"addresses": [format!("127.128.1.{i}")]})).collect::<Vec<_>>(),
    });
    let service = json!({"metadata": {"name": "pods", "namespace": "n"}, "spec": {"clusterIP": "None"}});
    names.set(
        vec![Arc::new(serde_json::from_value(service).unwrap())],
        vec![Arc::new(serde_json::from_value(slice).unwrap())],
    );
    let names = Arc::new(names);
    let server = Server::bind_at("127.0.0.1:0".parse().unwrap(), names.clone(), clock).await.unwrap();
    let (address, stop) = (server.address().unwrap(), CancellationToken::new());
    let task = tokio::spawn(server.run(stop.clone()));
    (address, stop, task, names)
}

fn asked(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

async fn ask_udp(address: SocketAddr, question: &[u8]) -> Message {
    ask_from("127.0.0.1:0", address, question).await
}

async fn ask_from(from: &str, address: SocketAddr, question: &[u8]) -> Message {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.send_to(question, address).await.unwrap();
    let mut bytes = [0; 4096];
    let received = Clock::real().timeout(Duration::from_secs(10), socket.recv(&mut bytes)).await;
    Message::from_vec(&bytes[..received.unwrap().unwrap()]).unwrap()
}

#[tokio::test]
async fn questions_are_answered_over_udp_and_tcp() {
    let (address, stop, task) = server().await;
    // What is no message is passed over, and those after it are answered.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for garbage in [&b""[..], b"x", &[0xff; 600]] {
        socket.send_to(garbage, address).await.unwrap();
    }
    let answer = ask_udp(address, &asked("none.n.svc.cluster.local.", 9)).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::NXDomain));
    let question = asked("pods.n.svc.cluster.local.", 10);
    assert!(ask_udp(address, &question).await.metadata.truncation);

    // Two questions on one connection.
    let mut connection = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        let framed = [&u16::try_from(question.len()).unwrap().to_be_bytes()[..], &question].concat();
        connection.write_all(&framed).await.unwrap();
        let mut bytes = vec![0; usize::from(connection.read_u16().await.unwrap())];
        connection.read_exact(&mut bytes).await.unwrap();
        assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 200);
    }
    // Garbage ends a connection, and no other.
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 0);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn nobody_else_is_asked_unless_wished() {
    let (address, stop, task) = server().await;
    let answer = ask_udp(address, &asked("example.com.", 11)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_pod_with_a_list_of_hosts_has_nobody_else_asked_for_others() {
    let (address, stop, task, names) = server_of().await;
    let (told, heard) = std::sync::mpsc::channel();
    let mut pod = k8s_openapi::api::core::v1::Pod::default();
    pod.metadata.annotations = Some([("coracle.dev/egress-hosts".to_owned(), String::new())].into());
    let tell = Box::new(move |text| told.send(text).unwrap());
    let own = Ipv4Addr::new(127, 255, 0, 21);
    let egress = names.restricted().enter(&pod, own, true, Clock::real(), tell).unwrap();
    let mut question = Message::from_vec(&asked("carried.out.test.", 12)).unwrap();
    question.metadata.recursion_desired = true;
    let question = question.to_vec().unwrap();
    let answer = ask_from("127.255.0.21:0", address, &question).await;
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (12, ResponseCode::Refused));
    let heard = heard.try_recv().unwrap();
    assert!(heard.starts_with("lookup of \"carried.out.test\" refused: "), "{heard}");
    // The cluster's own are told to everybody.
    let answer = ask_from("127.255.0.21:0", address, &asked("pods.n.svc.cluster.local.", 13)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    drop(egress);
    stop.cancel();
    task.await.unwrap();
}
