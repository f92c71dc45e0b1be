use hickory_proto::op::OpCode;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::net::TcpListener;

use super::*;

/// What a server answers a question, over UDP and over TCP; nothing is silence.
type Script = fn(&Message, Transport) -> Vec<Vec<u8>>;

fn answered(question: &Message, addresses: &[[u8; 4]]) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_queries(question.queries.clone());
    for address in addresses {
        let name = question.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::from(*address)))));
    }
    answer
}

/// Answers on an address by script, for as long as the test runs; its port.
async fn serve(ip: Ipv4Addr, port: u16, script: Script) -> u16 {
    let tcp = TcpListener::bind((ip, port)).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut bytes).await {
            let question = Message::from_vec(&bytes[..length]).unwrap();
            for answer in script(&question, Transport::Udp) {
                udp.send_to(&answer, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = tcp.accept().await {
            let mut bytes = vec![0; usize::from(connection.read_u16().await.unwrap())];
            connection.read_exact(&mut bytes).await.unwrap();
            for answer in script(&Message::from_vec(&bytes).unwrap(), Transport::Tcp) {
                let length = u16::try_from(answer.len()).unwrap();
                connection.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await.unwrap();
            }
        }
    });
    address.port()
}

/// Asks two servers, of which the second one is asked if the first one does not answer.
async fn asked(first: Script, second: Script) -> Result<String, io::ErrorKind> {
    let ips = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let port = serve(ips[0], 0, first).await;
    // The same port on another address is as free as any.
    serve(ips[1], port, second).await;
    let mut upstream = Upstream::new(Clock::real(), Random::from_seed(1));
    upstream.port = port;
    let found = upstream.addresses(&ips.map(IpAddr::from), "example.com").await;
    match found.map_err(|error| error.kind())? {
        Some(found) => Ok(found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")),
        None => Ok("no such name".to_owned()),
    }
}

const GOOD: Script =
    |question, _| vec![answered(question, &[[10, 0, 0, 1], [10, 0, 0, 2]]).to_vec().unwrap()];
const SILENT: Script = |_, _| Vec::new();

#[tokio::test]
async fn the_first_that_answers_is_believed() {
    assert_eq!(asked(GOOD, SILENT).await.as_deref(), Ok("10.0.0.1 10.0.0.2"));
    // The second is asked only once the first one has had its time.
    assert_eq!(asked(SILENT, GOOD).await.as_deref(), Ok("10.0.0.1 10.0.0.2"));
}

#[tokio::test]
async fn a_name_that_is_not_there_is_an_answer() {
    let none: Script = |question, _| {
        let mut answer = answered(question, &[]);
        answer.metadata.response_code = hickory_proto::op::ResponseCode::NXDomain;
        vec![answer.to_vec().unwrap()]
    };
    assert_eq!(asked(none, GOOD).await.as_deref(), Ok("no such name"));
}

#[tokio::test]
async fn answers_to_others_are_passed_over() {
    let strays: Script = |question, _| {
        let good = answered(question, &[[10, 0, 0, 3]]);
        let mut forged = answered(question, &[[6, 6, 6, 6]]);
        forged.metadata.id = forged.metadata.id.wrapping_add(1);
        vec![b"garbage".to_vec(), forged.to_vec().unwrap(), good.to_vec().unwrap()]
    };
    assert_eq!(asked(strays, SILENT).await.as_deref(), Ok("10.0.0.3"));
}

#[tokio::test]
async fn what_a_datagram_does_not_hold_comes_over_tcp() {
    let large: Script = |question, transport| {
        let addresses: &[[u8; 4]] = if transport == Transport::Tcp { &[[10, 0, 0, 4]] } else { &[] };
        let mut answer = answered(question, addresses);
        answer.metadata.truncation = transport == Transport::Udp;
        vec![answer.to_vec().unwrap()]
    };
    assert_eq!(asked(large, SILENT).await.as_deref(), Ok("10.0.0.4"));
}

#[tokio::test]
async fn nobody_is_asked_where_nobody_is() {
    let upstream = Upstream::new(Clock::real(), Random::from_seed(1));
    let error = upstream.addresses(&[], "example.com").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no other name server to ask");
    let error = upstream.addresses(&[], &"a".repeat(300)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
