use std::sync::mpsc;

use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 7);

fn pod(uid: &str, list: Option<&str>) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.uid = Some(uid.to_owned());
    pod.metadata.annotations = list.map(|list| [(ANNOTATION.to_owned(), list.to_owned())].into());
    pod
}

fn ignore() -> Tell {
    Box::new(|_| {})
}

/// A pod with a list, and what the user hears.
fn world(list: &str) -> (Arc<Egress>, mpsc::Receiver<String>) {
    let (told, heard) = mpsc::channel();
    let tell = Box::new(move |text| told.send(text).unwrap());
    (Restricted::default().enter(&pod("u", Some(list)), OWN, true, Clock::real(), tell).unwrap(), heard)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_of_listed_names_are_reached() {
    let (egress, heard) =
        world("api.example.com, *.example.org:443, b.example.org:8443, 192.0.2.9, 192.0.2.8:53");
    for (name, addresses) in [
        ("api.example.com", &["192.0.2.1", "192.0.2.2"][..]),
        ("A.example.org.", &["192.0.2.3", "2001:db8::1"]),
        ("b.example.org", &["192.0.2.4"]),
        // Whatever it says it is.
        ("evil.test", &["192.0.2.5"]),
        ("example.org", &["192.0.2.6"]),
        ("b.example.org", &["192.0.2.8"]),
    ] {
        egress.note(name, &addresses.iter().map(|one| ip(one)).collect::<Vec<_>>());
    }
    for (to, expected) in [
        ("192.0.2.1:1", true),
        ("192.0.2.2:443", true),
        ("192.0.2.3:443", true),
        ("192.0.2.3:80", false),
        ("192.0.2.4:443", true),
        ("192.0.2.4:8443", true),
        ("192.0.2.4:80", false),
        ("192.0.2.5:443", false),
        ("192.0.2.6:443", false),
        ("192.0.2.9:7", true),
        ("192.0.2.8:53", true),
        ("192.0.2.8:443", true),
        ("192.0.2.8:54", false),
        ("192.0.2.10:443", false),
    ] {
        assert_eq!(egress.permits(to.parse().unwrap()), expected, "{to}");
    }
    let heard: Vec<String> = heard.try_iter().collect();
    assert_eq!(heard.len(), 6, "{heard:?}");
    assert!(heard[0].starts_with("connection to 192.0.2.3:80 refused: "), "{heard:?}");
    assert!(heard[0].contains("coracle.dev/egress-hosts lists that host for other ports only"), "{heard:?}");
    assert!(heard[2].contains("coracle.dev/egress-hosts does not list the address"), "{heard:?}");
}

#[test]
fn the_user_hears_of_each_once_and_not_of_all() {
    let (egress, heard) = world("");
    for name in ["one.test", "two.test", "one.test"] {
        assert!(!egress.is_listed(name));
        egress.refuse_name(name);
    }
    let said: Vec<String> = heard.try_iter().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("lookup of \"one.test\" refused: "), "{said:?}");
    for last in 0..100 {
        assert!(!egress.permits(SocketAddrV4::new([192, 0, 2, last].into(), 80)));
    }
    assert_eq!(heard.try_iter().count(), TOLD_MAX - 2);

    let at = Duration::from_secs;
    let mut told = Told::default();
    for (what, now, expected) in [
        ("a", 0, true),
        ("a", 1, false),
        ("b", 300, true),
        ("a", 599, false),
        ("a", 600, true),
        ("b", 601, false),
        ("b", 900, true),
        ("a", 1199, false),
    ] {
        assert_eq!(told.admit(what.to_owned(), at(now)), expected, "{what} at {now}");
    }
}

#[test]
fn what_is_long_unused_is_forgotten() {
    let mut known = Known::default();
    let address = |i: u32| Ipv4Addr::from_bits(0xc000_0200 + i);
    let count = u32::try_from(ADDRESSES_MAX).unwrap();
    for i in 0..count {
        known.note(address(i), &Ports::All);
    }
    // Both a use and another lookup count.
    assert!(known.ports(address(0)).contains(1));
    known.note(address(1), &Ports::All);
    known.note(address(count), &Ports::All);
    assert_eq!(known.addresses.len(), ADDRESSES_MAX);
    let is_known = |known: &mut Known, i| !known.ports(address(i)).is_empty();
    let found: Vec<bool> = [0, 1, 2, 3, count].map(|i| is_known(&mut known, i)).to_vec();
    assert_eq!(found, [true, true, false, true, true]);
}

#[test]
fn the_containers_of_a_pod_share_what_is_known() {
    let restricted = Restricted::default();
    let enter = |uid, list, is_own| restricted.enter(&pod(uid, list), OWN, is_own, Clock::real(), ignore());
    assert!(enter("u", None, true).is_none());
    assert!(restricted.of(OWN.into()).is_none());

    let first = enter("u", Some("a.test"), true).unwrap();
    let second = enter("u", Some("a.test"), true).unwrap();
    assert!(Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first, &restricted.of(OWN.into()).unwrap()));
    // A node's address is not one pod's.
    let on_node = enter("v", Some("a.test"), false).unwrap();
    assert!(!Arc::ptr_eq(&first, &on_node));

    // The address goes to another pod while a container of the old one ends.
    let other = enter("w", Some("b.test"), true).unwrap();
    drop((first, second, on_node));
    assert!(Arc::ptr_eq(&other, &restricted.of(OWN.into()).unwrap()));
    drop(other);
    assert!(restricted.of(OWN.into()).is_none() && restricted.all().is_empty());
}
