use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointPort};

use super::*;

/// `name.namespace`
fn service(name: &str, change: impl FnOnce(&mut ServiceSpec)) -> Arc<Service> {
    let (name, namespace) = name.split_once('.').unwrap();
    let mut service = Service::default();
    service.metadata.name = Some(name.into());
    service.metadata.namespace = Some(namespace.into());
    let mut spec = ServiceSpec {
        type_: Some("ClusterIP".into()),
        cluster_ip: Some("None".into()),
        ports: Some(vec![
            ServicePort { name: Some("http".into()), port: 80, ..ServicePort::default() },
            ServicePort {
                name: Some("dns".into()),
                port: 53,
                protocol: Some("UDP".into()),
                ..ServicePort::default()
            },
        ]),
        ..ServiceSpec::default()
    };
    change(&mut spec);
    service.spec = Some(spec);
    Arc::new(service)
}

/// Endpoints are written `address`, `address=hostname`, with `!` before one that is not ready.
fn slice(name: &str, service: &str, port: i32, endpoints: &[&str]) -> Arc<EndpointSlice> {
    let (service, namespace) = service.split_once('.').unwrap();
    let endpoint = |text: &&str| {
        let bare = text.trim_start_matches('!');
        let (address, hostname) = match bare.split_once('=') {
            Some((address, hostname)) => (address, Some(hostname.to_owned())),
            None => (bare, None),
        };
        Endpoint {
            addresses: vec![address.into()],
            hostname,
            conditions: Some(EndpointConditions {
                ready: Some(!text.starts_with('!')),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }
    };
    let mut slice = EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        ports: Some(vec![EndpointPort {
            name: Some("http".into()),
            port: Some(port),
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        }]),
        ..EndpointSlice::default()
    };
    slice.metadata.name = Some(name.into());
    slice.metadata.namespace = Some(namespace.into());
    slice.metadata.labels = Some([(SERVICE_LABEL.to_owned(), service.to_owned())].into());
    Arc::new(slice)
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    let with_ip = |ip: &'static str| move |spec: &mut ServiceSpec| spec.cluster_ip = Some(ip.into());
    let external = |name: &'static str| {
        move |spec: &mut ServiceSpec| {
            spec.type_ = Some("ExternalName".into());
            spec.cluster_ip = None;
            spec.external_name = Some(name.into());
        }
    };
    for service in [
        service("web.default", with_ip("127.96.0.9")),
        service("kube-dns.kube-system", with_ip("127.96.0.10")),
        service("pods.default", |_| {}),
        service("early.default", |spec| spec.publish_not_ready_addresses = Some(true)),
        service("empty.default", |_| {}),
        service("alias.default", external("Web.Default.svc.cluster.local")),
        service("far.default", external("example.com.")),
        service("lost.default", external("nothing.default.svc.cluster.local")),
        service("ring.default", external("ring.default.svc.cluster.local")),
    ] {
        zone.set_service(service);
    }
    zone.set_slice(slice("web-1", "web.default", 8080, &["127.128.0.3"]));
    zone.set_slice(slice("pods-1", "pods.default", 8080, &["127.128.0.1=db-0", "!127.128.0.2=db-1"]));
    zone.set_slice(slice("pods-2", "pods.default", 8081, &["127.128.0.3"]));
    zone.set_slice(slice("early-1", "early.default", 8080, &["!127.128.0.2"]));
    zone
}

/// The answer as text: records in order, then `+` those on top; `empty`, `no such name`, `elsewhere`.
fn asked(zone: &Zone, name: &str, asked: Type) -> String {
    let Some(answer) = zone.answer(name, asked) else { return "elsewhere".into() };
    let text = |record: &Record| {
        let data = match &record.data {
            Data::A(address) => format!("A {address}"),
            Data::Srv { weight, port, target } => format!("SRV {weight} {port} {target}"),
            Data::Ptr(name) => format!("PTR {name}"),
            Data::Cname(name) => format!("CNAME {name}"),
            Data::Txt(text) => format!("TXT {text}"),
            Data::Ns(name) => format!("NS {name}"),
            Data::Soa { .. } => "SOA".to_owned(),
        };
        if record.name == name { data } else { format!("{} {data}", record.name) }
    };
    let mut words: Vec<String> = answer.records.iter().map(text).collect();
    words.extend(answer.additional.iter().map(|record| format!("+{}", text(record))));
    words.extend(answer.outside.iter().map(|name| format!("then {name}")));
    match (words.is_empty(), answer.exists) {
        (true, true) => "empty".into(),
        (true, false) => "no such name".into(),
        (false, true) => words.join(", "),
        (false, false) => format!("{} but no such name", words.join(", ")),
    }
}

#[track_caller]
fn check(cases: &[(&str, Type, &str)]) {
    let zone = zone();
    for (name, of, expected) in cases {
        assert_eq!(asked(&zone, name, *of), *expected, "{name} {of:?}");
    }
}

/// 16.5
#[test]
fn services_with_an_address() {
    check(&[
        ("web.default.svc.cluster.local", Type::A, "A 127.96.0.9"),
        ("web.default.svc.cluster.local", Type::Aaaa, "empty"),
        ("web.default.svc.cluster.local", Type::Any, "A 127.96.0.9"),
        ("web.default.svc.cluster.local", Type::Other, "empty"),
        ("web.other.svc.cluster.local", Type::A, "no such name"),
        ("web.default.svc.cluster.local.default.svc.cluster.local", Type::A, "no such name"),
        (
            "_http._tcp.web.default.svc.cluster.local",
            Type::Srv,
            "SRV 100 80 web.default.svc.cluster.local, +web.default.svc.cluster.local A 127.96.0.9",
        ),
        (
            "_dns._udp.web.default.svc.cluster.local",
            Type::Srv,
            "SRV 100 53 web.default.svc.cluster.local, +web.default.svc.cluster.local A 127.96.0.9",
        ),
        ("_http._udp.web.default.svc.cluster.local", Type::Srv, "no such name"),
        ("_http._tcp.web.default.svc.cluster.local", Type::A, "empty"),
        ("_tcp.web.default.svc.cluster.local", Type::A, "empty"),
        ("_sctp.web.default.svc.cluster.local", Type::A, "no such name"),
        ("127-128-0-3.web.default.svc.cluster.local", Type::A, "A 127.128.0.3"),
    ]);
}

/// 16.5
#[test]
fn headless_services() {
    check(&[
        ("pods.default.svc.cluster.local", Type::A, "A 127.128.0.1, A 127.128.0.3"),
        ("pods.default.svc.cluster.local", Type::Aaaa, "empty"),
        ("early.default.svc.cluster.local", Type::A, "A 127.128.0.2"),
        ("empty.default.svc.cluster.local", Type::A, "no such name"),
        ("db-0.pods.default.svc.cluster.local", Type::A, "A 127.128.0.1"),
        ("db-1.pods.default.svc.cluster.local", Type::A, "no such name"),
        ("127-128-0-1.pods.default.svc.cluster.local", Type::A, "no such name"),
        ("127-128-0-3.pods.default.svc.cluster.local", Type::A, "A 127.128.0.3"),
        (
            "_http._tcp.pods.default.svc.cluster.local",
            Type::Srv,
            "SRV 50 8081 127-128-0-3.pods.default.svc.cluster.local, \
             SRV 50 8080 db-0.pods.default.svc.cluster.local, \
             +127-128-0-3.pods.default.svc.cluster.local A 127.128.0.3, \
             +db-0.pods.default.svc.cluster.local A 127.128.0.1",
        ),
        ("_tcp.pods.default.svc.cluster.local", Type::Srv, "empty"),
        ("_http._tcp.empty.default.svc.cluster.local", Type::Srv, "no such name"),
    ]);
}

/// 16.5
#[test]
fn names_of_names() {
    check(&[
        (
            "alias.default.svc.cluster.local",
            Type::A,
            "CNAME web.default.svc.cluster.local, web.default.svc.cluster.local A 127.96.0.9",
        ),
        ("alias.default.svc.cluster.local", Type::Cname, "CNAME web.default.svc.cluster.local"),
        ("alias.default.svc.cluster.local", Type::Aaaa, "CNAME web.default.svc.cluster.local"),
        ("far.default.svc.cluster.local", Type::A, "CNAME example.com, then example.com"),
        (
            "lost.default.svc.cluster.local",
            Type::A,
            "CNAME nothing.default.svc.cluster.local but no such name",
        ),
        ("_http._tcp.far.default.svc.cluster.local", Type::Srv, "no such name"),
    ]);
    let ring = zone().answer("ring.default.svc.cluster.local", Type::A).unwrap();
    assert_eq!(ring.records.len(), ALIASES_MAX);
}

/// 16.5
#[test]
fn addresses_tell_whose_they_are() {
    check(&[
        ("9.0.96.127.in-addr.arpa", Type::Ptr, "PTR web.default.svc.cluster.local"),
        ("9.0.96.127.in-addr.arpa", Type::A, "empty"),
        ("1.0.128.127.in-addr.arpa", Type::Ptr, "PTR db-0.pods.default.svc.cluster.local"),
        // Ready only where that does not matter; and of a service with an address of its own, not at all.
        ("2.0.128.127.in-addr.arpa", Type::Ptr, "PTR 127-128-0-2.early.default.svc.cluster.local"),
        ("3.0.128.127.in-addr.arpa", Type::Ptr, "PTR 127-128-0-3.pods.default.svc.cluster.local"),
        ("4.0.128.127.in-addr.arpa", Type::Ptr, "no such name"),
        ("1.0.0.127.in-addr.arpa", Type::Ptr, "elsewhere"),
        ("8.8.8.8.in-addr.arpa", Type::Ptr, "elsewhere"),
        ("8.8.8.in-addr.arpa", Type::Ptr, "elsewhere"),
        ("+8.8.8.8.in-addr.arpa", Type::Ptr, "elsewhere"),
    ]);
}

#[test]
fn the_zone_itself_and_what_is_not_of_it() {
    check(&[
        ("cluster.local", Type::Soa, "SOA"),
        (
            "cluster.local",
            Type::Ns,
            "NS kube-dns.kube-system.svc.cluster.local, \
             +kube-dns.kube-system.svc.cluster.local A 127.96.0.10",
        ),
        ("cluster.local", Type::A, "empty"),
        ("dns-version.cluster.local", Type::Txt, "TXT 1.1.0"),
        ("svc.cluster.local", Type::A, "empty"),
        ("default.svc.cluster.local", Type::A, "empty"),
        ("nowhere.svc.cluster.local", Type::A, "no such name"),
        ("a.cluster.local", Type::A, "no such name"),
        ("10-1-2-3.default.pod.cluster.local", Type::A, "A 10.1.2.3"),
        ("10-1-2-3.default.pod.cluster.local", Type::Aaaa, "empty"),
        ("10-1-2.default.pod.cluster.local", Type::A, "no such name"),
        ("example.com", Type::A, "elsewhere"),
        ("xcluster.local", Type::A, "elsewhere"),
        ("", Type::A, "elsewhere"),
        (".", Type::A, "elsewhere"),
    ]);
}

#[test]
fn names_are_of_any_case_and_may_be_absolute() {
    let answer = zone().answer("WEB.Default.SVC.cluster.LOCAL.", Type::A).unwrap();
    assert_eq!(answer.records[0].name, "web.default.svc.cluster.local");
    let missing = zone().answer("web..svc.cluster.local", Type::A).unwrap();
    assert!(!missing.exists);
}

#[test]
fn the_index_follows_changes() {
    let mut zone = zone();
    zone.set_slice(slice("pods-2", "pods.default", 8081, &["127.128.0.7"]));
    assert_eq!(asked(&zone, "pods.default.svc.cluster.local", Type::A), "A 127.128.0.1, A 127.128.0.7");
    assert_eq!(asked(&zone, "3.0.128.127.in-addr.arpa", Type::Ptr), "no such name");
    // A slice that changes hands.
    zone.set_slice(slice("pods-2", "empty.default", 8081, &["127.128.0.7"]));
    assert_eq!(asked(&zone, "pods.default.svc.cluster.local", Type::A), "A 127.128.0.1");
    assert_eq!(asked(&zone, "empty.default.svc.cluster.local", Type::A), "A 127.128.0.7");
    zone.remove_slice("default", "pods-1");
    assert_eq!(asked(&zone, "pods.default.svc.cluster.local", Type::A), "no such name");
    // An address that another service has by now is not taken from it.
    zone.set_service(service("new.default", |spec| spec.cluster_ip = Some("127.96.0.9".into())));
    zone.remove_service("default", "web");
    assert_eq!(asked(&zone, "web.default.svc.cluster.local", Type::A), "no such name");
    assert_eq!(asked(&zone, "9.0.96.127.in-addr.arpa", Type::Ptr), "PTR new.default.svc.cluster.local");
    let before = zone.authority();
    zone.clear_services();
    zone.clear_slices();
    assert_ne!(zone.authority(), before);
    assert_eq!(asked(&zone, "new.default.svc.cluster.local", Type::A), "no such name");
    assert!(zone.endpoints.is_empty() && zone.owners.is_empty() && zone.slices.is_empty());
}
