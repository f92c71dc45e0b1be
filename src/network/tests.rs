use std::future::Future;
use std::sync::mpsc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::*;
use crate::client::Event;
use crate::clock;

const OWN: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 7);

fn networks(clock: Clock) -> Networks {
    Networks::new(AddressPlan::default(), clock, &Random::from_seed(1))
}

/// A pod of the namespace `a` with the label `app: x`, and this list of hosts if any.
fn pod(list: Option<&str>) -> Arc<Pod> {
    let annotations = list.map(|list| json!({"coracle.dev/egress-hosts": list}));
    let aliases = json!([
        {"ip": "192.0.2.1", "hostnames": ["api.test", "other.test"]},
        {"ip": "127.96.0.9", "hostnames": ["near.test"]},
    ]);
    let pod = json!({
        "metadata": {"name": "p", "namespace": "a", "uid": "u", "labels": {"app": "x"}, "annotations": annotations},
        "spec": {"containers": [], "hostAliases": aliases},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Runs in virtual time, in which nobody outside is asked for a name.
fn run<T>(test: impl Future<Output = T>) -> T {
    clock::virtual_runtime().unwrap().block_on(test)
}

fn virtual_clock() -> Clock {
    Clock::starting_at(jiff::Timestamp::UNIX_EPOCH)
}

fn at(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

#[test]
fn a_pod_reaches_itself_and_nothing_of_the_machine() {
    let networks = networks(Clock::real());
    let network = networks.of_pod(&Arc::default(), OWN, networks.plan().node(0), |_| {});
    for (asked, reached) in [
        ("127.0.0.1:80", Ok("127.128.0.7:80")),
        ("127.0.0.2:80", Err(Refusal::Denied)),
        ("127.0.0.53:53", Err(Refusal::Denied)),
        ("127.63.255.255:80", Err(Refusal::Denied)),
        ("127.64.0.1:80", Ok("127.64.0.1:80")),
        ("127.128.0.8:80", Ok("127.128.0.8:80")),
        ("192.0.2.1:80", Ok("192.0.2.1:80")),
    ] {
        let route = network.route(Protocol::Tcp, 0, asked.parse().unwrap());
        assert_eq!(route, reached.map(|text| text.parse().unwrap()), "{asked}");
    }
}

#[test]
fn a_list_of_hosts_is_about_what_is_outside() {
    run(async {
        let networks = networks(virtual_clock());
        networks.names().set(Vec::new(), Vec::new());
        let (told, heard) = mpsc::channel();
        let tell = move |text| told.send(text).unwrap();
        let list = "api.test:443, known.test, 192.0.2.9";
        let network = networks.of_pod(&pod(Some(list)), OWN, networks.plan().node(0), tell);
        let route = |to: &str| network.route(Protocol::Tcp, 0, at(to)).is_ok();
        let unknown = "192.0.2.1:443";
        assert!(!route(unknown), "before it was looked up");
        for (name, expected) in [
            ("api.test", Ok(1)),
            ("API.test.", Ok(1)),
            // Another name of the same address, and one that only others could know.
            ("other.test", Err(LookupError::Refused)),
            ("evil.test", Err(LookupError::Refused)),
            // Others would have been asked for this one.
            ("known.test", Err(LookupError::Temporary)),
            ("p", Ok(1)),
            ("localhost", Ok(1)),
            ("near.test", Ok(1)),
            ("192.0.2.44", Ok(1)),
            ("none.a.svc.cluster.local.", Err(LookupError::Unknown)),
        ] {
            let found = network.lookup(name).await.map(|found| found.len());
            assert_eq!(found, expected, "{name}");
        }
        for (to, expected) in [
            ("192.0.2.1:443", true),
            ("192.0.2.1:80", false),
            ("192.0.2.9:1", true),
            ("192.0.2.44:443", false),
            ("127.0.0.1:80", true),
            ("127.64.0.1:80", true),
            ("127.128.0.8:80", true),
        ] {
            assert_eq!(route(to), expected, "{to}");
        }
        // Services of nobody are refused for another reason than the list.
        let api = SocketAddrV4::new(networks.plan().api(), 443);
        assert_eq!(network.route(Protocol::Tcp, 0, api), Err(Refusal::NoEndpoint));
        let heard: Vec<String> = heard.try_iter().collect();
        let beginnings = [
            "connection to 192.0.2.1:443 refused: ",
            "lookup of \"other.test\" refused: ",
            "lookup of \"evil.test\" refused: ",
            "connection to 192.0.2.1:80 refused: ",
            "connection to 192.0.2.44:443 refused: ",
        ];
        assert_eq!(heard.len(), beginnings.len(), "{heard:?}");
        for (said, beginning) in heard.iter().zip(beginnings) {
            assert!(said.starts_with(beginning), "{said}");
        }
    });
}

#[test]
fn without_a_list_everything_outside_is_reached() {
    run(async {
        let networks = networks(virtual_clock());
        networks.names().set(Vec::new(), Vec::new());
        let network = networks.of_pod(&pod(None), OWN, networks.plan().node(0), |text| panic!("{text}"));
        assert!(network.route(Protocol::Tcp, 0, at("192.0.2.1:443")).is_ok());
        assert_eq!(network.lookup("other.test").await, Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
        assert_eq!(network.lookup("evil.test").await, Err(LookupError::Temporary));
    });
}

/// A service at an address, and the one endpoint that it has.
fn service(name: &str, ip: Ipv4Addr, protocol: &str, port: u16, endpoint: &str) -> (Service, EndpointSlice) {
    let service = json!({
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"clusterIP": ip, "ports": [{"name": "p", "port": port, "protocol": protocol}]},
    });
    let labels = json!({"kubernetes.io/service-name": name});
    let slice = json!({
        "metadata": {"name": format!("{name}-1"), "namespace": "n", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "p", "port": port, "protocol": protocol}],
        "endpoints": [{"addresses": [endpoint]}],
    });
    (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap())
}

#[test]
fn a_service_that_leads_out_of_the_cluster_is_outside() {
    let networks = networks(Clock::real());
    let (api, far) = (networks.plan().api(), Ipv4Addr::new(127, 96, 0, 50));
    // The API may be served at whatever address somebody chose for it.
    let (services, slices) = [
        service("api", api, "TCP", 443, "192.0.2.60"),
        service("far", far, "TCP", 443, "192.0.2.50"),
        service("near", Ipv4Addr::new(127, 96, 0, 51), "TCP", 443, "127.128.0.9"),
    ]
    .into_iter()
    .unzip();
    networks.services().set(services, slices);
    for (list, asked, expected) in [
        (None, SocketAddrV4::new(far, 443), Ok("192.0.2.50:443")),
        (Some(""), SocketAddrV4::new(far, 443), Err(Refusal::Denied)),
        (Some("192.0.2.50:443"), SocketAddrV4::new(far, 443), Ok("192.0.2.50:443")),
        (Some("192.0.2.50:80"), SocketAddrV4::new(far, 443), Err(Refusal::Denied)),
        (Some(""), SocketAddrV4::new(api, 443), Ok("192.0.2.60:443")),
        (Some(""), at("192.0.2.60:443"), Err(Refusal::Denied)),
        (Some(""), at("127.96.0.51:443"), Ok("127.128.0.9:443")),
    ] {
        let network = networks.of_pod(&pod(list), OWN, networks.plan().node(0), |_| {});
        assert_eq!(network.route(Protocol::Tcp, 0, asked), expected.map(at), "{asked} {list:?}");
    }
}

#[test]
fn the_name_server_may_not_be_asked_from_a_nodes_address() {
    let networks = networks(Clock::real());
    let dns = networks.plan().dns();
    let (service, slice) = service("dns", dns, "UDP", 53, &dns.to_string());
    networks.services().set(vec![service], vec![slice]);
    let (host, server) = (networks.plan().node(0), SocketAddrV4::new(networks.plan().dns(), 53));
    for (address, list, expected) in [
        (OWN, Some("a.test"), Ok(server)),
        (host, None, Ok(server)),
        (host, Some("a.test"), Err(Refusal::Denied)),
    ] {
        let network = networks.of_pod(&pod(list), address, host, |_| {});
        assert_eq!(network.route(Protocol::Udp, 1, server), expected, "{address} {list:?}");
    }
}

/// Isolated pods: what was let through goes on, in both directions, and nothing else is let in.
#[test]
fn datagrams_are_held_to_policies_but_for_answers() {
    run(async {
        let clock = virtual_clock();
        let networks = networks(clock);
        let network = networks.of_pod(&pod(None), OWN, networks.plan().node(0), |_| {});
        let (asked, stranger, listed) = (at("192.0.2.1:53"), at("192.0.2.2:53"), at("198.51.100.1:9"));
        let admits = |port, from: SocketAddrV4| network.admits(Protocol::Udp, port, from.into());
        assert!(admits(7, stranger), "without a policy");
        let policy = json!({
            "metadata": {"name": "n", "namespace": "a"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "x"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "198.51.100.0/24"}}]}],
                "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}],
            },
        });
        let policy: Arc<NetworkPolicy> = Arc::new(serde_json::from_value(policy).unwrap());
        networks.0.policies.take_policies(vec![Event::Applied(policy)]);

        assert!(admits(7, stranger), "a conversation that is under way");
        assert!(!admits(8, stranger), "another port");
        assert!(!admits(8, asked), "before it is asked");
        assert_eq!(network.route(Protocol::Udp, 8, asked), Ok(asked));
        assert!(admits(8, asked) && !admits(9, asked) && !admits(8, at("192.0.2.1:54")));
        // A connection is not a conversation of datagrams.
        assert!(!network.admits(Protocol::Tcp, 8, asked.into()));

        assert_eq!(network.route(Protocol::Udp, 9, listed), Err(Refusal::Denied));
        assert!(admits(9, listed), "the policy's");
        assert_eq!(network.route(Protocol::Udp, 9, listed), Ok(listed), "its answer");
        assert_eq!(network.route(Protocol::Udp, 8, listed), Err(Refusal::Denied));
        assert_eq!(network.route(Protocol::Udp, 9, stranger), Err(Refusal::Denied));

        clock.sleep(std::time::Duration::from_secs(119)).await;
        network.sends(8, asked);
        clock.sleep(std::time::Duration::from_secs(119)).await;
        assert!(admits(8, asked), "it has gone on");
        assert!(!admits(7, stranger), "it is long over");
        assert_eq!(network.route(Protocol::Udp, 9, listed), Err(Refusal::Denied), "it is long over");
    });
}

#[test]
fn a_list_of_hosts_lets_answers_out() {
    let networks = networks(Clock::real());
    let network = networks.of_pod(&pod(Some("")), OWN, networks.plan().node(0), |_| {});
    let client = at("192.0.2.1:4000");
    assert_eq!(network.route(Protocol::Udp, 53, client), Err(Refusal::Denied));
    assert!(network.admits(Protocol::Udp, 53, client.into()));
    assert_eq!(network.route(Protocol::Udp, 53, client), Ok(client));
    assert_eq!(network.route(Protocol::Tcp, 53, client), Err(Refusal::Denied));
}

#[test]
fn who_asks_by_datagrams_from_the_machine_is_answered() {
    let networks = networks(Clock::real());
    let network = networks.of_pod(&pod(None), OWN, networks.plan().node(0), |_| {});
    let (client, other) = (at("127.0.0.1:4000"), at("127.0.0.1:4001"));
    let own = SocketAddrV4::new(OWN, 4000);
    assert_eq!(network.route(Protocol::Udp, 53, client), Ok(own));
    assert!(network.admits(Protocol::Udp, 53, client.into()));
    assert_eq!(network.route(Protocol::Udp, 53, client), Ok(client));
    // From another port, to another client, or over TCP it is the pod that is meant.
    assert_eq!(network.route(Protocol::Udp, 54, client), Ok(own));
    assert_eq!(network.route(Protocol::Udp, 53, other), Ok(SocketAddrV4::new(OWN, 4001)));
    assert_eq!(network.route(Protocol::Tcp, 53, client), Ok(own));
    assert_eq!(network.route(Protocol::Udp, 53, at("127.0.0.2:4000")), Err(Refusal::Denied));
}
