use serde_json::{Value, json};

use super::*;

/// A world of pods, each as `namespace/app` at an address; namespaces carry the label `team`.
fn world(policies: &[Value]) -> Policies {
    let world = Policies::default();
    let policies = policies.iter().enumerate().map(|(i, policy)| {
        let mut policy: NetworkPolicy = serde_json::from_value(policy.clone()).unwrap();
        policy.metadata.name = Some(format!("p{i}"));
        policy.metadata.namespace.get_or_insert_with(|| "a".to_owned());
        Arc::new(policy)
    });
    world.take_policies(vec![Event::Restarted(policies.collect())]);
    let namespace = |name: &str, team: &str| {
        let object = json!({"metadata": {"name": name, "labels": {"team": team}}});
        Arc::new(serde_json::from_value::<Namespace>(object).unwrap())
    };
    world.take_namespaces(vec![Event::Restarted(vec![namespace("a", "red"), namespace("b", "blue")])]);
    world.take_pods(vec![Event::Restarted(PODS.iter().map(|(ip, name)| pod(ip, name)).collect())]);
    world
}

const PODS: &[(&str, &str)] =
    &[("127.128.0.1", "a/web"), ("127.128.0.2", "a/db"), ("127.128.0.3", "b/web"), ("127.128.0.4", "b/db")];

fn pod(ip: &str, name: &str) -> Arc<Pod> {
    let (namespace, app) = name.split_once('/').unwrap();
    let object = json!({
        "metadata": {"namespace": namespace, "name": app, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "ports": [
            {"name": "sql", "containerPort": 5432}, {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]}]},
        "status": {"podIP": ip, "phase": "Running"},
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn ip(name: &str) -> Ipv4Addr {
    let found = PODS.iter().find(|(_, pod)| *pod == name);
    found.map_or(name, |(ip, _)| ip).parse().unwrap()
}

/// Who may reach whom, as `a/web -> a/db:5432` or, from what is no pod, `192.0.2.1 -> a/db:5432`.
#[track_caller]
fn check(world: &Policies, expected: &[(&str, bool)]) {
    for (connection, permitted) in expected {
        let (from, to) = connection.split_once(" -> ").unwrap();
        let (to, port) = to.split_once(':').unwrap();
        let (protocol, port) = match port.strip_suffix("/udp") {
            Some(port) => (Protocol::Udp, port),
            None => (Protocol::Tcp, port),
        };
        let port = port.parse().unwrap();
        let known = |name: &str| PODS.iter().find(|(_, pod)| *pod == name).map(|(ip, name)| pod(ip, name));
        let is = match (known(from), known(to)) {
            (Some(source), _) => world.permit_egress(&source, ip(from), protocol, ip(to), port),
            (None, Some(target)) => world.permit_ingress(&target, ip(to), protocol, ip(from).into(), port),
            (None, None) => panic!("neither is a pod: {connection}"),
        };
        assert_eq!(is, *permitted, "{connection}");
    }
}

#[test]
fn without_a_policy_everybody_reaches_everybody() {
    check(
        &world(&[]),
        &[("a/web -> b/db:1", true), ("192.0.2.1 -> a/db:5432", true), ("a/web -> 192.0.2.1:1", true)],
    );
}

#[test]
fn a_selected_pod_is_isolated_in_that_direction_only() {
    let world = world(&[
        json!({"spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}}),
    ]);
    check(
        &world,
        &[
            ("a/web -> a/db:5432", false),
            ("b/web -> a/db:5432", false),
            ("192.0.2.1 -> a/db:5432", false),
            ("a/db -> a/web:80", true),
            ("a/db -> a/db:5432", true),
            // The policy is not about another namespace.
            ("a/web -> b/db:5432", true),
        ],
    );
}

#[test]
fn any_rule_of_any_policy_permits() {
    let db = json!({"matchLabels": {"app": "db"}});
    let world = world(&[
        json!({"spec": {"podSelector": db, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]}]}}),
        json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"port": 9000, "endPort": 9010}]}]}}),
    ]);
    check(
        &world,
        &[
            // Pods of the policy's own namespace.
            ("a/web -> a/db:5432", true),
            ("b/web -> a/db:5432", false),
            ("a/web -> a/db:5433", false),
            ("b/web -> a/db:9000", true),
            ("b/db -> a/web:9010", true),
            ("b/db -> a/web:9011", false),
            ("b/db -> a/web:9010/udp", false),
            ("a/db -> a/web:9010", false),
        ],
    );
}

#[test]
fn selectors_of_one_peer_are_both_needed() {
    let peer = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "web"}}});
    let world = world(&[
        json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [peer]}]}}),
    ]);
    check(
        &world,
        &[
            ("b/web -> a/db:1", true),
            ("b/db -> a/db:1", false),
            ("a/web -> a/db:1", false),
            ("192.0.2.1 -> a/db:1", false),
        ],
    );
}

#[test]
fn egress_is_by_block_by_pod_and_by_the_targets_named_port() {
    let block = json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}});
    let world = world(&[json!({"spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Egress"],
        "egress": [
            {"to": [block], "ports": [{"port": 443}]},
            {"to": [{"podSelector": {}}], "ports": [{"port": "dns", "protocol": "UDP"}]},
        ],
    }})]);
    check(
        &world,
        &[
            ("a/web -> 192.0.2.1:443", true),
            ("a/web -> 192.0.2.1:80", false),
            ("a/web -> 192.0.2.200:443", false),
            ("a/web -> a/db:53/udp", true),
            ("a/web -> a/db:53", false),
            ("a/web -> b/db:53/udp", false),
            ("a/db -> b/db:80", true),
            ("192.0.2.9 -> a/web:80", true),
        ],
    );
}

#[test]
fn both_ends_are_asked() {
    let world = world(&[
        json!({"spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}}),
        json!({"metadata": {"namespace": "b"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
    ]);
    check(&world, &[("a/web -> a/db:1", true), ("a/web -> b/db:1", false)]);
}

#[test]
fn pods_and_policies_come_and_go() {
    let deny = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}});
    let world = world(&[deny]);
    check(&world, &[("a/web -> a/db:1", true), ("b/web -> a/db:1", false)]);
    // An address goes to another pod; the old one's deletion is told late.
    let (old, mut moved) = (pod("127.128.0.3", "b/web"), pod("127.128.0.3", "a/late"));
    world.take_pods(vec![Event::Applied(moved.clone()), Event::Deleted(old)]);
    assert!(world.permit_egress(&moved, ip("127.128.0.3"), Protocol::Tcp, ip("a/db"), 1));
    // A finished pod has no connections.
    Arc::make_mut(&mut moved).status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    world.take_pods(vec![Event::Applied(moved)]);
    check(&world, &[("127.128.0.3 -> a/db:1", false)]);
    let gone = json!({"metadata": {"namespace": "a", "name": "p0"}});
    world.take_policies(vec![Event::Deleted(Arc::new(serde_json::from_value(gone).unwrap()))]);
    check(&world, &[("127.128.0.3 -> a/db:1", true)]);
}
