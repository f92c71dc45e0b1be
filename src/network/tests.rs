use super::*;

#[test]
fn a_pod_reaches_itself_and_nothing_of_the_machine() {
    let networks = Networks::new(AddressPlan::default(), Clock::real(), &Random::from_seed(1));
    let own = Ipv4Addr::new(127, 128, 0, 7);
    let network = networks.of_pod(&Arc::default(), own, networks.plan().node(0));
    for (asked, reached) in [
        ("127.0.0.1:80", Ok("127.128.0.7:80")),
        ("127.0.0.2:80", Err(Refusal::Denied)),
        ("127.0.0.53:53", Err(Refusal::Denied)),
        ("127.63.255.255:80", Err(Refusal::Denied)),
        ("127.64.0.1:80", Ok("127.64.0.1:80")),
        ("127.128.0.8:80", Ok("127.128.0.8:80")),
        ("192.0.2.1:80", Ok("192.0.2.1:80")),
    ] {
        let route = network.route(Protocol::Tcp, asked.parse().unwrap());
        assert_eq!(route, reached.map(|text| text.parse().unwrap()), "{asked}");
    }
}

#[test]
fn a_pod_answers_datagrams_of_the_machine() {
    let networks = Networks::new(AddressPlan::default(), Clock::real(), &Random::from_seed(1));
    let network = networks.of_pod(&Arc::default(), Ipv4Addr::new(127, 128, 0, 7), networks.plan().node(0));
    let route = |protocol, to: &str| network.route(protocol, to.parse().unwrap()).map(|to| to.to_string());
    for peer in ["127.0.0.1:5353", "127.0.0.2:5353"] {
        let itself = peer.parse().unwrap();
        assert_ne!(route(Protocol::Udp, peer), Ok(peer.to_owned()), "{peer}");
        assert_eq!(network.origin(itself), itself);
        assert_eq!(route(Protocol::Udp, peer), Ok(peer.to_owned()));
    }
    // That goes for nothing else there.
    assert_eq!(route(Protocol::Udp, "127.0.0.1:5354"), Ok("127.128.0.7:5354".to_owned()));
    assert_eq!(route(Protocol::Tcp, "127.0.0.1:5353"), Ok("127.128.0.7:5353".to_owned()));
    assert_eq!(route(Protocol::Tcp, "127.0.0.2:5353"), Err(Refusal::Denied));
    // Whom it reaches in other ways is not remembered.
    network.origin("127.128.0.9:5353".parse().unwrap());
    assert_eq!(route(Protocol::Udp, "127.128.0.9:5353"), Ok("127.128.0.9:5353".to_owned()));
}
