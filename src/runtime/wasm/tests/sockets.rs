//! Sockets that a guest takes for sockets of IPv6, and whom it sees at the other end.

use super::*;

#[test]
fn a_guest_that_speaks_ipv6_has_the_sockets_of_its_address() {
    let own: Ipv4Addr = "127.255.0.11".parse().unwrap();
    let other = std::net::TcpListener::bind("127.255.0.12:0").unwrap();
    let there = format!("[::ffff:127.255.0.12]:{}", other.local_addr().unwrap().port());
    let answering = std::thread::spawn(move || {
        let (mut stream, from) = other.accept().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
        write!(stream, "{} says {line}", from.ip()).unwrap();
    });
    let container = std::net::TcpListener::bind((own, 0)).unwrap();
    let port = container.local_addr().unwrap().port();
    let (near, near_ipv6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    let args = [
        ("bind", "[::]:7021", "[::ffff:127.255.0.11]:7021".to_owned()),
        ("bind", "[::1]:7022", "[::ffff:127.255.0.11]:7022".to_owned()),
        ("bind", "[::ffff:127.0.0.1]:7023", "[::ffff:127.255.0.11]:7023".to_owned()),
        ("bind", "[::ffff:127.255.0.12]:7024", "denied".to_owned()),
        ("bind", "[2001:db8::1]:7025", "denied".to_owned()),
        ("udp-bind", "[::]:7026", "[::ffff:127.255.0.11]:7026".to_owned()),
        ("udp-bind", "[2001:db8::1]:7027", "denied".to_owned()),
        ("tcp-echo", "[::]:7028", "ping from ::ffff:127.255.0.11".to_owned()),
        ("udp-echo", "[::]:7029", "ping from ::ffff:127.255.0.11".to_owned()),
        ("dial", &there, "127.255.0.11 says from ::ffff:127.255.0.11".to_owned()),
        ("dial", "[::1]:7030", "refused".to_owned()),
        ("dial", "[::ffff:127.0.0.2]:7030", "denied".to_owned()),
        ("dial", "[2001:db8::1]:7030", "Host is unreachable (os error 23)".to_owned()),
        // Whom it asked for, wherever that led.
        ("peer", &near, near.clone()),
        ("peer", &near_ipv6, near_ipv6.clone()),
    ];
    let flat: Vec<&str> = args.iter().flat_map(|(what, address, _)| [*what, *address]).collect();
    let (exit, text) = run_with("connect", &flat, |spec| spec.network = Some(Arc::new(Fixed(own))));
    let expected: String =
        args.iter().map(|(what, address, answer)| format!("{what} {address}: {answer}\n")).collect();
    assert_eq!((exit, text), (Exit::Code(0), expected));
    answering.join().unwrap();
}
