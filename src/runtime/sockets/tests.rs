use std::io::{Read, Write};

use super::*;
use crate::runtime::Exit;
use crate::runtime::doors::{Door, Doors};
use crate::runtime::network::fixture::Fixed;
use crate::runtime::network::{ENDPOINTS_MAX, LookupError};
use crate::runtime::wasm::tests::{real, run_with};

const OWN: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 7);

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_machines_own_addresses_mean_the_pods() {
    for (asked, bound) in [
        ("0.0.0.0:80", "127.128.0.7:80"),
        ("127.0.0.1:0", "127.128.0.7:0"),
        ("127.0.0.2:80", "127.0.0.2:80"),
        ("127.128.0.7:80", "127.128.0.7:80"),
        ("192.0.2.1:80", "192.0.2.1:80"),
    ] {
        assert_eq!(local(OWN, asked.parse().unwrap()), bound.parse().unwrap(), "{asked}");
    }
}

#[test]
fn the_network_says_who_is_reached() {
    use ErrorCode::{AccessDenied, ConnectionRefused, InvalidArgument, RemoteUnreachable};
    use IpAddressFamily::{Ipv4, Ipv6};
    let network: Arc<dyn Network> = Arc::new(Fixed(OWN));
    for (family, asked, reached) in [
        (Ipv4, "127.96.0.2:80", Ok("127.128.0.8:8080")),
        (Ipv4, "127.96.0.3:80", Err(ConnectionRefused)),
        (Ipv4, "127.0.0.2:80", Err(AccessDenied)),
        (Ipv4, "192.0.2.1:80", Ok("192.0.2.1:80")),
        (Ipv4, "[::1]:80", Err(InvalidArgument)),
        (Ipv6, "[::1]:80", Ok("127.128.0.7:80")),
        (Ipv6, "[::ffff:127.96.0.2]:80", Ok("127.128.0.8:8080")),
        (Ipv6, "[::ffff:127.0.0.2]:80", Err(AccessDenied)),
        (Ipv6, "[::ffff:192.0.2.1]:80", Ok("192.0.2.1:80")),
        (Ipv6, "[2001:db8::1]:80", Err(RemoteUnreachable)),
        // Once an address of IPv4 too, but no more (RFC 4291).
        (Ipv6, "[::192.0.2.1]:80", Err(RemoteUnreachable)),
        (Ipv6, "192.0.2.1:80", Err(InvalidArgument)),
    ] {
        let answer = remote(Some(&network), family, Protocol::Tcp, 0, socket(asked).into());
        assert_eq!(answer, reached.map(|text| text.parse().unwrap()), "{asked}");
    }
}

#[test]
fn addresses_are_told_as_of_the_sockets_family() {
    use IpAddressFamily::{Ipv4, Ipv6};
    for (family, address, told) in
        [(Ipv4, "127.128.0.7:80", "127.128.0.7:80"), (Ipv6, "127.128.0.7:80", "[::ffff:127.128.0.7]:80")]
    {
        assert_eq!(SocketAddr::from(family::told(family, socket(address))), socket(told), "{address}");
    }
}

#[test]
fn only_the_pods_own_address_is_bound() {
    use SocketAddrUse::{TcpAccept, TcpBind, TcpConnect, TcpListen, UdpBind, UdpReceive, UdpSend};
    for (address, reason, permitted) in [
        ("127.128.0.7:80", TcpBind, true),
        ("127.128.0.7:80", TcpListen, true),
        ("127.128.0.7:80", UdpBind, true),
        ("127.128.0.8:80", TcpBind, false),
        ("127.128.0.8:80", TcpListen, false),
        ("127.0.0.1:80", TcpBind, false),
        ("0.0.0.0:0", TcpBind, true),
        ("0.0.0.0:80", TcpBind, false),
        ("0.0.0.0:0", TcpListen, false),
        ("0.0.0.0:0", UdpBind, false),
        ("[::]:0", TcpBind, false),
        ("127.128.0.8:80", TcpConnect, true),
        ("127.64.0.1:80", TcpConnect, true),
        ("127.96.0.10:53", UdpSend, true),
        ("192.0.2.1:80", TcpConnect, true),
        ("[2001:db8::1]:80", TcpConnect, false),
        ("127.0.0.1:999", TcpAccept, true),
        ("127.0.0.1:999", UdpReceive, true),
    ] {
        assert_eq!(is_permitted(&Fixed(OWN), socket(address), reason), permitted, "{address} {reason:?}");
    }
}

/// A pod that reaches these endpoints, one after the other, at 127.96.0.2.
struct InOrder(Vec<SocketAddrV4>);

#[async_trait::async_trait]
impl Network for InOrder {
    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 255, 0, 21)
    }

    fn route(&self, _: Protocol, _: u16, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal> {
        Ok(if to.ip().octets() == [127, 96, 0, 2] { self.0[0] } else { to })
    }

    fn another(&self, _: SocketAddrV4, tried: &[SocketAddrV4]) -> Option<SocketAddrV4> {
        self.0.iter().find(|one| !tried.contains(one)).copied()
    }

    fn admits(&self, _: Protocol, _: u16, _: SocketAddr) -> bool {
        true
    }

    fn door(&self, port: u16) -> Door {
        Doors::default().open(SocketAddrV4::new(self.address(), port))
    }

    async fn lookup(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        Err(LookupError::Unknown)
    }
}

#[test]
fn where_nobody_is_at_an_endpoint_another_is_tried() {
    let answering = std::net::TcpListener::bind("127.255.0.22:0").unwrap();
    let live: SocketAddrV4 = answering.local_addr().unwrap().to_string().parse().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, from) = answering.accept().unwrap();
            // What was asked is read, or the end of the connection would take the answer along.
            let mut bytes = [0; 256];
            let read = stream.read(&mut bytes).unwrap();
            assert!(read > 0);
            write!(stream, "HTTP/1.1 200 from-{}\r\ncontent-length: 4\r\n\r\nhere", from.ip()).unwrap();
        }
    });
    // Nobody listens at these.
    let gone = |count: u16| (1..=count).map(|port| SocketAddrV4::new([127, 255, 0, 23].into(), port));
    let too_many = u16::try_from(ENDPOINTS_MAX).unwrap();
    for (endpoints, answer) in [
        (vec![live], "HTTP/1.1 200 from-127.255.0.21"),
        (gone(too_many - 1).chain([live]).collect(), "HTTP/1.1 200 from-127.255.0.21"),
        (gone(1).collect(), "refused"),
        (gone(2).collect(), "refused"),
        (gone(too_many).chain([live]).collect(), "refused"),
    ] {
        let told = format!("{endpoints:?}");
        let network: Arc<dyn Network> = Arc::new(InOrder(endpoints));
        let (exit, output) =
            run_with("connect", &["get", "127.96.0.2:80"], |spec| spec.network = Some(network));
        assert_eq!((exit, output), (Exit::Code(0), format!("get 127.96.0.2:80: {answer}\n")), "{told}");
    }
    // So it is for requests that the host makes.
    let network: Arc<dyn Network> = Arc::new(InOrder(gone(3).chain([live]).collect()));
    let reached = real().threads.block_on(crate::runtime::http::outgoing::connect_to_any(
        &*network,
        "127.96.0.2:80".parse().unwrap(),
        network.route(Protocol::Tcp, 0, "127.96.0.2:80".parse().unwrap()).unwrap(),
    ));
    let mut stream = reached.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"x").unwrap();
    thread.join().unwrap();
}

#[test]
fn descriptors_are_shared_out() {
    for (all, each, clients, clients_each) in
        [(0, 0, 1, 1), (300, 75, 100, 50), (10_000, 1_000, 3_333, 1_667), (100_000, 1_000, 33_333, 4_096)]
    {
        let descriptors = Descriptors::new(all);
        let shares =
            (descriptors.each, descriptors.clients.available_permits(), descriptors.clients_each(4_096));
        assert_eq!(shares, (each, clients, clients_each), "{all}");
    }
}
