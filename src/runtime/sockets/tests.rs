use std::io::{Read, Write};
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::runtime::doors::{Caller, Door, Doors};
use crate::runtime::network::fixture::Fixed;
use crate::runtime::network::{ENDPOINTS_MAX, LookupError};
use crate::runtime::wasm::tests::{DEADLINE, log_of, real, run_with, spec, wait_for_output};
use crate::runtime::{Exit, Runtime as _};

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
    use ErrorCode::{AccessDenied, InvalidArgument};
    use IpAddressFamily::{Ipv4, Ipv6};
    for (family, asked, bound) in [
        (Ipv4, "127.128.0.7:80", Ok("127.128.0.7:80")),
        (Ipv4, "0.0.0.0:80", Ok("127.128.0.7:80")),
        (Ipv4, "127.0.0.1:0", Ok("127.128.0.7:0")),
        (Ipv4, "127.128.0.8:80", Err(AccessDenied)),
        (Ipv4, "127.0.0.2:80", Err(AccessDenied)),
        (Ipv4, "192.0.2.1:80", Err(AccessDenied)),
        (Ipv4, "224.0.0.1:80", Err(InvalidArgument)),
        (Ipv4, "255.255.255.255:80", Err(InvalidArgument)),
        (Ipv4, "[::]:80", Err(InvalidArgument)),
        (Ipv6, "[::]:80", Ok("127.128.0.7:80")),
        (Ipv6, "[::ffff:127.128.0.8]:80", Err(AccessDenied)),
        (Ipv6, "[2001:db8::1]:80", Err(AccessDenied)),
    ] {
        let answer = bindable(OWN, family, socket(asked).into());
        assert_eq!(answer, bound.map(|text| text.parse().unwrap()), "{asked}");
    }
}

#[test]
fn what_is_left_to_wasmtime_is_datagrams_from_the_pods_address() {
    use SocketAddrUse::{TcpBind, TcpConnect, UdpBind, UdpReceive, UdpSend};
    for (address, reason, permitted) in [
        ("127.128.0.7:80", UdpBind, true),
        ("0.0.0.0:0", UdpBind, false),
        ("127.128.0.8:80", UdpBind, false),
        ("127.96.0.10:53", UdpSend, true),
        ("127.0.0.1:999", UdpReceive, true),
        ("[2001:db8::1]:80", UdpSend, false),
        ("127.128.0.7:80", TcpBind, false),
        ("192.0.2.1:80", TcpConnect, false),
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
    let reached = real().threads.block_on(connect::connect(
        &*network,
        None,
        &options::Options::default(),
        "127.96.0.2:80".parse().unwrap(),
        network.route(Protocol::Tcp, 0, "127.96.0.2:80".parse().unwrap()).unwrap(),
    ));
    let mut stream = reached.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"x").unwrap();
    thread.join().unwrap();
}

/// A pod that connections are handed over to, and which does not admit one of its clients.
struct Open(Fixed, Doors);

const UNWANTED: Ipv4Addr = Ipv4Addr::new(127, 255, 0, 26);

#[async_trait::async_trait]
impl Network for Open {
    fn address(&self) -> Ipv4Addr {
        self.0.address()
    }

    fn route(&self, protocol: Protocol, port: u16, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal> {
        self.0.route(protocol, port, to)
    }

    fn admits(&self, _: Protocol, port: u16, from: SocketAddr) -> bool {
        assert_ne!(port, 0);
        from.ip() != UNWANTED
    }

    fn door(&self, port: u16) -> Door {
        self.1.open(SocketAddrV4::new(self.address(), port))
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        self.0.lookup(name).await
    }
}

#[test]
fn a_guest_that_listens_is_given_what_was_accepted_elsewhere() {
    let real = real();
    real.threads.block_on(async {
        let own = Ipv4Addr::new(127, 255, 0, 24);
        let doors = Doors::default();
        let mut spec = spec(&real.runtime, "connect", &["tcp-serve", "0.0.0.0:0"]).await;
        spec.network = Some(Arc::new(Open(Fixed(own), doors.clone())));
        let output = log_of(&spec);
        let container = real.runtime.start(spec).await;
        wait_for_output(&output, "serving on ").await;
        let said = output.tail(usize::MAX, usize::MAX);
        let at: SocketAddrV4 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(*at.ip(), own);

        let service = TcpListener::bind("127.255.0.25:0").await.unwrap();
        let there = service.local_addr().unwrap();
        // The guest hears one after the other, so each says at once what it has to say.
        let client = async |from: Ipv4Addr, to: SocketAddr, said: &str| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            let mut stream = socket.connect(to).await.unwrap();
            // Those that are turned away may be gone already.
            stream.write_all(said.as_bytes()).await.ok();
            stream
        };
        let answer = async |mut stream: TcpStream| {
            let mut text = String::new();
            let read = real.clock.timeout(DEADLINE, stream.read_to_string(&mut text)).await.unwrap();
            read.map(|_| text).unwrap_or_default()
        };
        let held = Arc::new(());
        let (back, _) = tokio::sync::mpsc::unbounded_channel();
        let hand_over = async || {
            let (stream, peer) = service.accept().await.unwrap();
            let caller = Caller { stream, peer, held: Box::new(Arc::clone(&held)) };
            assert!(doors.enter(at, caller, &back).is_ok(), "it is open");
        };
        for _ in 0..3 {
            // Both kinds see the same: the pod, and the client.
            let direct = client(Ipv4Addr::LOCALHOST, at.into(), "hello\n").await;
            let handed = client(Ipv4Addr::LOCALHOST, there, "hello\n").await;
            hand_over().await;
            for one in [handed, direct] {
                let me = one.local_addr().unwrap();
                assert_eq!(answer(one).await, format!("{at} hears hello from {me}"));
            }
            for to in [SocketAddr::from(at), there] {
                let unwanted = client(UNWANTED, to, "hello\n").await;
                if to == there {
                    hand_over().await;
                }
                assert_eq!(answer(unwanted).await, "");
            }
        }
        let last = client(Ipv4Addr::LOCALHOST, there, "end\n").await;
        hand_over().await;
        assert_eq!(answer(last).await, "");
        assert_eq!(real.clock.timeout(DEADLINE, container.exited()).await.unwrap(), Exit::Code(0));
        assert!(output.tail(usize::MAX, usize::MAX).ends_with("tcp-serve 0.0.0.0:0: 6\n"));
        // Nothing is held any more where they were accepted, and nobody is let in.
        assert_eq!(Arc::strong_count(&held), 1);
        let _late = client(Ipv4Addr::LOCALHOST, there, "").await;
        let (stream, peer) = service.accept().await.unwrap();
        assert!(doors.enter(at, Caller { stream, peer, held: Box::new(()) }, &back).is_err());
    });
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
