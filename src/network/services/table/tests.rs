use serde_json::{Value, json};

use super::*;

fn service(change: Value) -> Service {
    let mut all = json!({
        "metadata": {"name": "web", "namespace": "n", "creationTimestamp": "2025-01-01T00:00:00Z"},
        "spec": {"type": "ClusterIP", "clusterIP": "127.96.0.9",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}]},
    });
    json_patch::merge(&mut all, &change);
    serde_json::from_value(all).unwrap()
}

/// Endpoints `1 2- 3! 4!-@b`: ready, not ready, going and serving, going and not serving, on node b.
fn slice(ports: Value, text: &str) -> EndpointSlice {
    let endpoints: Vec<Value> = text
        .split_whitespace()
        .map(|word| {
            let (word, node) = word.split_once('@').unwrap_or((word, "a"));
            let number = word.trim_end_matches(['!', '-']);
            let (going, serving) = (word.contains('!'), !word.contains('-'));
            json!({"addresses": [format!("127.128.0.{number}")], "nodeName": node,
                "conditions": {"ready": serving && !going, "serving": serving, "terminating": going}})
        })
        .collect();
    let name = json!({"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}});
    serde_json::from_value(
        json!({"metadata": name, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}),
    )
    .unwrap()
}

fn tcp(number: u16) -> Value {
    json!([{"name": "", "port": number, "protocol": "TCP"}])
}

fn table(service: &Service, slices: &[EndpointSlice]) -> Table {
    let mut table = Table::default();
    assert!(table.set(&("n".into(), "web".into()), Some(service), slices.iter()));
    table
}

fn at(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

const POD_ON_A: Caller<'_> = Caller { node: Some("a"), is_pod: true };
const MACHINE: Caller<'_> = Caller { node: None, is_pod: false };

/// The last numbers of the endpoints that `caller` reaches at `to`.
fn reached(table: &Table, to: &str, caller: Caller<'_>) -> Option<Vec<u8>> {
    let to = at(to);
    let is_node = to.ip().octets()[1] == 64;
    let (front, port) = table.find(Protocol::Tcp, to, is_node)?;
    Some(port.candidates(front, caller).iter().map(|one| one.ip().octets()[3]).collect())
}

/// 16.3
#[test]
fn the_ready_are_reached_or_else_those_that_still_answer() {
    for (endpoints, expected) in [
        ("1 2 3-", vec![1, 2]),
        ("1 2! 3!-", vec![1]),
        ("1- 2! 3!-", vec![2]),
        ("1- 3!-", vec![]),
        ("", vec![]),
    ] {
        let table = table(&service(json!({})), &[slice(tcp(8080), endpoints)]);
        assert_eq!(reached(&table, "127.96.0.9:80", POD_ON_A), Some(expected), "{endpoints}");
        assert_eq!(reached(&table, "127.96.0.9:81", POD_ON_A), None);
    }
}

#[test]
fn endpoints_have_the_ports_of_their_slice() {
    let two = json!({"spec": {"ports": [
        {"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "UDP"}]}});
    let ports = |number: u16| json!([{"name": "a", "port": number, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}]);
    let table =
        table(&service(two), &[slice(ports(8080), "1"), slice(ports(9090), "2"), slice(json!(null), "3")]);
    let all = |protocol, to: &str| {
        let (front, port) = table.find(protocol, at(to), false).unwrap();
        port.candidates(front, POD_ON_A).iter().map(SocketAddrV4::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(all(Protocol::Tcp, "127.96.0.9:80"), "127.128.0.1:8080 127.128.0.2:9090");
    assert_eq!(all(Protocol::Udp, "127.96.0.9:81"), "127.128.0.1:53 127.128.0.2:53");
}

#[test]
fn policies_keep_to_a_node() {
    let spec = |change: Value| {
        let mut spec = json!({"type": "NodePort", "externalIPs": ["192.0.2.1"]});
        json_patch::merge(&mut spec, &change);
        service(json!({ "spec": spec }))
    };
    let of = |node: &'static str| Caller { node: Some(node), is_pod: false };
    let pod = |node: &'static str| Caller { node: Some(node), is_pod: true };
    let local = |which: &str| spec(json!({ which: "Local" }));
    let endpoints = || [slice(tcp(8080), "1@a 2!@b 3@c 4@c")];
    let internal = table(&local("internalTrafficPolicy"), &endpoints());
    for (caller, expected) in [
        (pod("a"), vec![1]),
        (pod("b"), vec![2]),
        (pod("c"), vec![3, 4]),
        (pod("d"), vec![]),
        (Caller { node: None, is_pod: true }, vec![]),
        (MACHINE, vec![1, 3, 4]),
    ] {
        assert_eq!(reached(&internal, "127.96.0.9:80", caller), Some(expected), "{caller:?}");
    }
    assert_eq!(reached(&internal, "127.64.0.1:30080", of("a")), Some(vec![1, 3, 4]));
    let external = table(&local("externalTrafficPolicy"), &endpoints());
    for to in ["127.64.0.1:30080", "192.0.2.1:80"] {
        assert_eq!(reached(&external, to, of("c")), Some(vec![3, 4]), "{to}");
        assert_eq!(reached(&external, to, of("d")), Some(vec![]), "{to}");
        assert_eq!(reached(&external, to, pod("d")), Some(vec![1, 3, 4]), "{to}");
    }
    assert_eq!(reached(&external, "127.96.0.9:80", pod("d")), Some(vec![1, 3, 4]));
}

/// 16.2
#[test]
fn types_decide_where_a_service_is() {
    let fronts = |change: Value| {
        let table = table(&service(change), &[]);
        let mut all: Vec<String> = table
            .fronts()
            .map(|(front, _, _)| match front {
                Front::Cluster(_, at) => format!("cluster {at}"),
                Front::External(_, at) => format!("external {at}"),
                Front::Node(_, port) => format!("node {port}"),
            })
            .collect();
        all.sort();
        all.join(", ")
    };
    assert_eq!(fronts(json!({})), "cluster 127.96.0.9:80");
    assert_eq!(fronts(json!({"spec": {"type": "NodePort"}})), "cluster 127.96.0.9:80, node 30080");
    let ingress = json!({"loadBalancer": {"ingress": [
        {"ip": "127.64.0.1", "ipMode": "VIP"}, {"ip": "127.64.0.2", "ipMode": "Proxy"}, {"hostname": "h"}]}});
    assert_eq!(
        fronts(json!({"spec": {"type": "LoadBalancer"}, "status": ingress})),
        "cluster 127.96.0.9:80, external 127.64.0.1:80, node 30080"
    );
    assert_eq!(
        fronts(json!({"spec": {"externalIPs": ["10.0.0.1"]}})),
        "cluster 127.96.0.9:80, external 10.0.0.1:80"
    );
    let mut none = Table::default();
    for nowhere in [
        json!({"spec": {"type": "ExternalName", "clusterIP": null}}),
        json!({"spec": {"clusterIP": "None"}}),
        json!({"spec": {"ports": [{"port": 1, "protocol": "SCTP"}]}}),
    ] {
        assert!(!none.set(&("n".into(), "web".into()), Some(&service(nowhere)), [].iter()));
    }
}

#[test]
fn the_oldest_has_what_two_ask_for() {
    let mut table = Table::default();
    let external = |time: &str| {
        service(json!({"metadata": {"creationTimestamp": time}, "spec": {"externalIPs": ["10.0.0.1"]}}))
    };
    let name = |name: &str| ("n".to_owned(), name.to_owned());
    let owner = |table: &Table| {
        table.at(Front::External(Protocol::Tcp, at("10.0.0.1:80"))).map(|port| port.service.1.clone())
    };
    assert!(table.set(&name("b"), Some(&external("2025-01-02T00:00:00Z")), [].iter()));
    assert_eq!(owner(&table).as_deref(), Some("b"));
    assert!(table.set(&name("c"), Some(&external("2025-01-01T00:00:00Z")), [].iter()));
    assert_eq!(owner(&table).as_deref(), Some("c"));
    assert!(!table.set(&name("c"), Some(&external("2025-01-01T00:00:00Z")), [].iter()), "nothing changed");
    let lost: Vec<&Name> = table.fronts().flat_map(|(_, _, others)| others).collect();
    assert!(lost.iter().all(|one| one.1 == "b") && !lost.is_empty());
    assert!(table.set(&name("c"), None, [].iter()));
    assert_eq!(owner(&table).as_deref(), Some("b"));
    assert!(table.set(&name("b"), None, [].iter()));
    assert_eq!((owner(&table), table.fronts().count()), (None, 0));
}

#[test]
fn picks_are_even_and_none_is_tried_twice() {
    let all = [at("10.0.0.1:1"), at("10.0.0.2:1"), at("10.0.0.3:1")];
    for dice in 0..6 {
        assert_eq!(pick(&all, &[], dice), Some(all[usize::try_from(dice % 3).unwrap()]));
        assert_eq!(pick(&all, &all[..2], dice), Some(all[2]));
        assert_eq!(pick(&all, &all, dice), None);
    }
    assert_eq!(pick(&[], &[], 0), None);
}

#[test]
fn an_address_is_offered_until_its_last_endpoint_is_going() {
    let name = |name: &str| ("n".to_owned(), name.to_owned());
    let node_port = service(json!({"spec": {"type": "NodePort"}}));
    let mut table = table(&node_port, &[slice(tcp(8080), "1 2- 3! 4!-")]);
    let offered = |table: &Table| -> Vec<u8> {
        (0..9).filter(|last| table.offers(Ipv4Addr::new(127, 128, 0, *last))).collect()
    };
    assert_eq!(offered(&table), [1]);
    // By another service, and by one that has those not ready too, who may be going all the same.
    let mut all = slice(tcp(8080), "2 3 4- 5");
    for going in &mut all.endpoints[1..3] {
        let conditions = going.conditions.as_mut().unwrap();
        (conditions.ready, conditions.terminating) = (Some(true), Some(true));
    }
    assert!(table.set(&name("other"), Some(&service(json!({}))), [&all].into_iter()));
    assert_eq!(offered(&table), [1, 2, 5]);
    assert!(table.set(&name("web"), Some(&node_port), [&slice(tcp(8080), "1! 2!")].into_iter()));
    assert_eq!(offered(&table), [2, 5]);
    assert!(table.set(&name("other"), None, [].into_iter()));
    assert_eq!(offered(&table), [0_u8; 0]);
    assert!(table.offered.is_empty());
    // Of a headless service nobody asks the table.
    let headless = service(json!({"spec": {"clusterIP": "None"}}));
    table.set(&name("web"), Some(&headless), [&slice(tcp(8080), "1")].into_iter());
    assert_eq!(offered(&table), [0_u8; 0]);
}
