use super::*;
use crate::runtime::network::fixture::Fixed;

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
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
    ] {
        assert_eq!(local(OWN, socket(asked)), socket(bound), "{asked}");
    }
}

#[test]
fn the_network_says_who_is_reached() {
    let network: Arc<dyn Network> = Arc::new(Fixed(OWN));
    for (asked, reached) in [
        ("127.96.0.2:80", Ok("127.128.0.8:8080")),
        ("127.96.0.3:80", Err(ErrorCode::ConnectionRefused)),
        ("127.0.0.2:80", Err(ErrorCode::AccessDenied)),
        ("192.0.2.1:80", Ok("192.0.2.1:80")),
        ("[2001:db8::1]:80", Ok("[2001:db8::1]:80")),
    ] {
        let answer = remote(Some(&network), Protocol::Tcp, socket(asked).into());
        let answer = answer.map(SocketAddr::from).map_err(|error| *error.downcast_ref().unwrap());
        assert_eq!(answer, reached.map(socket), "{asked}");
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
