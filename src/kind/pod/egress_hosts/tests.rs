use super::*;

fn hosts(text: &str) -> EgressHosts {
    EgressHosts::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
}

#[test]
fn names_and_addresses_are_listed() {
    let list = hosts(
        "api.example.com, *.Example.ORG.,example.net:443 , example.net:8443,\n 192.0.2.7, 192.0.2.8:53, \
         *.deep.example.net:80, all.example.net, all.example.net:1,",
    );
    for (name, expected) in [
        ("api.example.com", "all"),
        ("API.Example.com.", "all"),
        ("v1.api.example.com", ""),
        ("example.com", ""),
        ("apiXexample.com", ""),
        ("a.example.org", "all"),
        ("a.b.C.example.org", "all"),
        ("example.org", ""),
        (".example.org", ""),
        ("notexample.org", ""),
        ("a.example.org.evil.test", ""),
        ("example.net", "443 8443"),
        ("x.deep.example.net", "80"),
        ("all.example.net", "all"),
        // An address is no name.
        ("192.0.2.7", ""),
        ("", ""),
    ] {
        assert_eq!(shown(&list.of_name(name)), expected, "{name}");
    }
    for (address, expected) in [("192.0.2.7", "all"), ("192.0.2.8", "53"), ("192.0.2.9", "")] {
        assert_eq!(shown(&list.of_address(address.parse().unwrap())), expected, "{address}");
    }
    for nothing in ["", " ", ",", " , "] {
        assert_eq!(hosts(nothing), EgressHosts::default(), "{nothing:?}");
    }
}

fn shown(ports: &Ports) -> String {
    assert_eq!(ports.is_empty(), !(1..=u16::MAX).any(|port| ports.contains(port)), "{ports:?}");
    match ports {
        Ports::All => "all".to_owned(),
        Ports::These(ports) => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn what_is_no_host_is_named() {
    for (entry, part) in [
        ("*", "without the annotation"),
        ("*.", "without the annotation"),
        ("*..", "RFC 1123"),
        ("*example.com", "whole first part"),
        ("a.*.example.com", "whole first part"),
        ("*.*.example.com", "whole first part"),
        ("https://example.com", "without scheme"),
        ("example.com/path", "without scheme"),
        ("10.0.0.0/8", "ipBlock"),
        ("[::1]:80", "no IPv6"),
        ("2001:db8::1", "no IPv6"),
        ("example.com:", "a port from 1 to 65535"),
        ("example.com:0", "a port from 1 to 65535"),
        ("example.com:65536", "a port from 1 to 65535"),
        ("example.com:+80", "a port from 1 to 65535"),
        ("example.com:https", "a port from 1 to 65535"),
        (":443", "RFC 1123"),
        ("exa mple.com", "RFC 1123"),
        ("-example.com", "RFC 1123"),
        ("example..com", "RFC 1123"),
        ("exämple.com", "RFC 1123"),
    ] {
        let wrong = EgressHosts::parse(&format!("good.example.com, {entry}, 192.0.2.1")).unwrap_err();
        let [(named, why)] = &wrong[..] else { panic!("{entry}: {wrong:?}") };
        assert_eq!(named, entry);
        assert!(why.contains(part), "{entry}: {why}");
    }
    let wrong = EgressHosts::parse("a b, c:d, *").unwrap_err();
    assert_eq!(wrong.iter().map(|(entry, _)| entry.as_str()).collect::<Vec<_>>(), ["a b", "c:d", "*"]);
}

#[test]
fn lists_are_bounded() {
    let list = |count: usize| (0..count).map(|i| format!("h{i}.test")).collect::<Vec<_>>().join(",");
    assert_eq!(hosts(&list(256)).0.len(), 256);
    let wrong = EgressHosts::parse(&list(300)).unwrap_err();
    assert_eq!(wrong, [("h256.test".to_owned(), "must not be more than 256 entries".to_owned())]);
}

#[test]
fn a_list_that_cannot_be_read_lists_nothing() {
    let mut pod = Pod::default();
    assert_eq!(EgressHosts::of(&pod), None);
    pod.metadata.annotations = Some([(ANNOTATION.to_owned(), "good.test, *".to_owned())].into());
    assert_eq!(EgressHosts::of(&pod), Some(EgressHosts::default()));
}
