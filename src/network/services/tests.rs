use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::clock::virtual_runtime;

pub(super) fn services(change: Value, endpoints: &[&str]) -> Services {
    let services = Services::new(
        AddressPlan::default(),
        Clock::starting_at(Timestamp::UNIX_EPOCH),
        Random::from_seed(1),
    );
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {"type": "NodePort", "clusterIP": "127.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]},
    });
    json_patch::merge(&mut service, &change);
    services.set(vec![serde_json::from_value(service).unwrap()], vec![slice("s", endpoints)]);
    services
}

fn slice(name: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Value> = endpoints.iter().map(|ip| json!({"addresses": [ip]})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
    }))
    .unwrap()
}

fn route(services: &Services, from: &str, to: &str) -> Result<String, Refusal> {
    let routed = services.route(from.parse().unwrap(), Some("a"), Protocol::Tcp, to.parse().unwrap(), None);
    routed.map(|at| at.to_string())
}

const FROM: &str = "127.128.0.1";

#[test]
fn pods_reach_endpoints_of_services_and_everybody_else_as_they_are() {
    virtual_runtime().unwrap().block_on(async {
        let some = services(json!({}), &["127.128.0.5"]);
        let none = services(json!({}), &[]);
        for (to, reached) in [("127.96.0.9:80", "127.128.0.5:8080"), ("127.64.0.3:30080", "127.128.0.5:8080")]
        {
            assert_eq!(route(&some, FROM, to), Ok(reached.to_owned()), "{to}");
            assert_eq!(route(&none, FROM, to), Err(Refusal::NoEndpoint), "{to}");
        }
        // Nobody has that port, or that address.
        for to in ["127.96.0.9:81", "127.96.3.4:80"] {
            assert_eq!(route(&some, FROM, to), Err(Refusal::NoEndpoint), "{to}");
        }
        for to in ["127.128.0.7:80", "127.64.0.3:80", "192.0.2.1:80", "127.97.0.9:80"] {
            assert_eq!(route(&some, FROM, to), Ok(to.to_owned()), "{to}");
        }
    });
}

#[test]
fn datagrams_stay_with_an_endpoint_that_is_one() {
    virtual_runtime().unwrap().block_on(async {
        let udp = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
        let services = services(udp, &[]);
        let mut two = slice("s", &["127.128.0.5", "127.128.0.6"]);
        two.ports.as_mut().unwrap()[0].protocol = Some("UDP".into());
        services.saw_slices(&[Event::Applied(Arc::new(two))]);
        let ask = |last: Option<&str>| {
            let (from, last) = (FROM.parse().unwrap(), last.map(|last| last.parse().unwrap()));
            let to = "127.96.0.9:53".parse().unwrap();
            services.route(from, Some("a"), Protocol::Udp, to, last).unwrap().to_string()
        };
        assert!((0..30).all(|_| ask(Some("127.128.0.5:8080")) == "127.128.0.5:8080"));
        assert_ne!(ask(Some("127.128.0.7:8080")), "127.128.0.7:8080", "it is gone");
    });
}

#[test]
fn endpoints_are_taken_about_equally() {
    virtual_runtime().unwrap().block_on(async {
        let services = services(json!({}), &["127.128.0.5", "127.128.0.6"]);
        let count =
            (0..1000).filter(|_| route(&services, FROM, "127.96.0.9:80").unwrap().contains(".5:")).count();
        assert!((400..600).contains(&count), "{count}");
    });
}

/// 16.4
#[test]
fn clients_stay_with_their_endpoint() {
    virtual_runtime().unwrap().block_on(async {
        let sticky = json!({"spec": {"sessionAffinity": "ClientIP"}});
        let all: Vec<String> = (1..=20).map(|n| format!("127.128.1.{n}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let services = services(sticky, &all);
        let clock = services.0.clock;
        let ask = |from: &str| route(&services, from, "127.96.0.9:80").unwrap();
        let first = ask(FROM);
        assert!((0..50).all(|_| ask(FROM) == first));
        let others: std::collections::BTreeSet<String> =
            (1..50).map(|n| ask(&format!("127.128.9.{n}"))).collect();
        assert!(others.len() > 5, "{others:?}");
        // Each use counts anew.
        for _ in 0..3 {
            clock.sleep(Duration::from_secs(10_799)).await;
            assert_eq!(ask(FROM), first);
        }
        let mut forgot = false;
        for _ in 0..8 {
            clock.sleep(Duration::from_secs(10_801)).await;
            forgot |= ask(FROM) != first;
        }
        assert!(forgot);
        // An endpoint that is gone is nobody's.
        let last = ask(FROM);
        let left: Vec<&str> = all.iter().copied().filter(|ip| !last.starts_with(&format!("{ip}:"))).collect();
        services.saw_slices(&[Event::Applied(Arc::new(slice("s", &left)))]);
        assert_ne!(ask(FROM), last);
    });
}

#[test]
fn the_table_follows_and_tells() {
    virtual_runtime().unwrap().block_on(async {
        let services = services(json!({}), &["127.128.0.5"]);
        services.synced().await;
        let mut changes = services.changes();
        changes.mark_unchanged();
        services.saw_slices(&[Event::Applied(Arc::new(slice("s", &["127.128.0.5"])))]);
        assert!(!changes.has_changed().unwrap(), "nothing changed");
        services.saw_slices(&[Event::Applied(Arc::new(slice("s", &["127.128.0.6"])))]);
        assert!(changes.has_changed().unwrap());
        assert_eq!(route(&services, FROM, "127.96.0.9:80"), Ok("127.128.0.6:8080".into()));
        // A slice that becomes another service's.
        let mut other = slice("s", &["127.128.0.6"]);
        other.metadata.labels.as_mut().unwrap().insert(SERVICE_NAME.into(), "other".into());
        services.saw_slices(&[Event::Applied(Arc::new(other.clone()))]);
        assert_eq!(route(&services, FROM, "127.96.0.9:80"), Err(Refusal::NoEndpoint));
        assert_eq!(services.slices("n", "other").len(), 1);
        services.saw_slices(&[Event::Deleted(Arc::new(other))]);
        assert_eq!(services.slices("n", "other").len(), 0);
        let service = services.service("n", "web").unwrap();
        services.saw_services(&[Event::Deleted(service)]);
        assert!(services.service("n", "web").is_none());
        assert_eq!(route(&services, FROM, "127.96.0.9:80"), Err(Refusal::NoEndpoint));
        assert_eq!(route(&services, FROM, "127.64.0.1:30080"), Ok("127.64.0.1:30080".into()));
    });
}

#[test]
fn whoever_waits_for_it_hears_when_nobody_is_led_to_a_pod() {
    virtual_runtime().unwrap().block_on(async {
        let services = services(json!({}), &["127.128.0.5", "127.128.0.6"]);
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        assert!(services.offers(ip("127.128.0.5")) && !services.offers(ip("127.128.0.7")));
        services.withdrawn(ip("127.128.0.7")).await;
        let waits = tokio::spawn({
            let services = services.clone();
            async move { services.withdrawn(ip("127.128.0.5")).await }
        });
        services.saw_slices(&[Event::Applied(Arc::new(slice("s", &["127.128.0.5"])))]);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        let mut going = slice("s", &["127.128.0.5", "127.128.0.8"]);
        let conditions = json!({"ready": false, "serving": true, "terminating": true});
        going.endpoints[0].conditions = Some(serde_json::from_value(conditions).unwrap());
        services.saw_slices(&[Event::Applied(Arc::new(going))]);
        waits.await.unwrap();
    });
}

#[test]
fn another_endpoint_is_none_that_was_tried() {
    virtual_runtime().unwrap().block_on(async {
        let services = services(json!({}), &["127.128.0.5", "127.128.0.6"]);
        let another = |to: &str, tried: &[&str]| {
            let tried: Vec<SocketAddrV4> = tried.iter().map(|one| one.parse().unwrap()).collect();
            let (from, to) = (FROM.parse().unwrap(), to.parse().unwrap());
            services.another(from, Some("a"), Protocol::Tcp, to, &tried).map(|one| one.to_string())
        };
        let (five, six) = ("127.128.0.5:8080", "127.128.0.6:8080");
        for front in ["127.96.0.9:80", "127.64.0.1:30080"] {
            assert_eq!(another(front, &[five]).as_deref(), Some(six), "{front}");
            assert_eq!(another(front, &[six, five]), None, "{front}");
        }
        for other in ["127.96.0.9:81", "127.128.0.5:8080", "127.64.0.1:80", "192.0.2.1:80"] {
            assert_eq!(another(other, &[five]), None, "{other}");
        }
    });
}

#[test]
fn host_ports_are_the_pods_while_it_lives() {
    virtual_runtime().unwrap().block_on(async {
        let services = services(json!({}), &["127.128.0.5"]);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "a", "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "hostIP": "127.0.0.1", "protocol": "UDP"}]}]},
        }))
        .unwrap();
        let (ip, host) = ("127.128.0.7".parse().unwrap(), "127.64.0.1".parse().unwrap());
        assert!(services.open_host_ports(&pod, host, host).is_none(), "it is on the node's network itself");
        let open = services.open_host_ports(&pod, ip, host).unwrap();
        let listed: Vec<String> =
            services.host_ports().keys().map(|(protocol, at)| format!("{protocol:?} {at}")).collect();
        assert_eq!(listed, ["Tcp 127.64.0.1:8080", "Udp 127.0.0.1:53"]);
        assert_eq!(route(&services, FROM, "127.64.0.1:8080"), Ok("127.128.0.7:80".into()));
        // They go with the node, before the pod does, and are back when that is.
        let node = |name: &str| {
            let node = json!({"metadata": {"name": name}});
            Arc::new(serde_json::from_value::<Node>(node).unwrap())
        };
        services.saw_nodes(&[Event::Restarted(vec![node("a"), node("b")])]);
        assert_eq!(services.host_ports().len(), 2);
        let mut changes = services.changes();
        changes.mark_unchanged();
        services.saw_nodes(&[Event::Applied(node("a"))]);
        assert!(!changes.has_changed().unwrap(), "it was there");
        services.saw_nodes(&[Event::Deleted(node("a"))]);
        assert!(changes.has_changed().unwrap() && services.host_ports().is_empty());
        assert_eq!(route(&services, FROM, "127.64.0.1:8080"), Ok("127.64.0.1:8080".into()));
        services.saw_nodes(&[Event::Applied(node("a"))]);
        assert_eq!(services.host_ports().len(), 2);
        drop(open);
        assert_eq!(route(&services, FROM, "127.64.0.1:8080"), Ok("127.64.0.1:8080".into()));
        assert!(services.open_host_ports(&Pod::default(), ip, host).is_none());
    });
}

#[test]
fn sockets_are_open_where_somebody_is() {
    use super::wanted::{NodeAddress, wanted};
    virtual_runtime().unwrap().block_on(async {
        let nodes: Vec<NodeAddress> = [("a", "127.64.0.1"), ("b", "127.64.0.2")]
            .map(|(name, ip)| NodeAddress { name: name.into(), ip: ip.parse().unwrap() })
            .into();
        let places = |services: &Services| {
            let host_ports = services.host_ports();
            let wanted = services.with_table(|table| wanted(table, &nodes, &host_ports));
            wanted.open.keys().map(|(_, at)| at.to_string()).collect::<Vec<_>>().join(" ")
        };
        let all = "127.64.0.1:30080 127.64.0.2:30080 127.96.0.9:80";
        assert_eq!(places(&services(json!({}), &["127.128.0.5"])), all);
        assert_eq!(places(&services(json!({}), &[])), "");
        // Whoever is there already answers by itself.
        let own = services(json!({"spec": {"ports": [{"port": 8080, "nodePort": 30080}]}}), &["127.96.0.9"]);
        assert_eq!(places(&own), "127.64.0.1:30080 127.64.0.2:30080");
        let local = services(json!({"spec": {"externalTrafficPolicy": "Local"}}), &["127.128.0.5"]);
        assert_eq!(places(&local), "127.96.0.9:80", "its node is not one of ours");
    });
}
