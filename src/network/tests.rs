use std::future::Future;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::*;
use crate::client::Event;
use crate::clock;

const OWN: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 7);

fn networks(clock: Clock) -> Networks {
    Networks::new(AddressPlan::default(), clock, &Random::from_seed(1))
}

/// A pod of the namespace `a` with the label `app: x`.
fn pod() -> Arc<Pod> {
    let metadata = json!({"name": "p", "namespace": "a", "labels": {"app": "x"}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).unwrap())
}

/// Runs in virtual time.
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
    let network = networks.of_pod(&Arc::default(), OWN, networks.plan().node(0));
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

/// Isolated pods: what was let through goes on, in both directions, and nothing else is let in.
#[test]
fn datagrams_are_held_to_policies_but_for_answers() {
    run(async {
        let clock = virtual_clock();
        let networks = networks(clock);
        let network = networks.of_pod(&pod(), OWN, networks.plan().node(0));
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
fn who_asks_by_datagrams_from_the_machine_is_answered() {
    let networks = networks(Clock::real());
    let network = networks.of_pod(&pod(), OWN, networks.plan().node(0));
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
