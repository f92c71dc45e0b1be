use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::clock;

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 96, 0, 10);

fn names() -> Names {
    let start = jiff::Timestamp::UNIX_EPOCH;
    let names = Names::new(SERVER, Clock::starting_at(start), Random::from_seed(1));
    let service = |namespace: &str, name: &str, spec: Value| {
        let json = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        Arc::new(serde_json::from_value::<Service>(json).unwrap())
    };
    names.set(
        vec![
            service("a", "db", json!({"clusterIP": "127.96.0.11"})),
            service("b", "db", json!({"clusterIP": "127.96.0.12"})),
            service("a", "alias", json!({"type": "ExternalName", "externalName": "db.b.svc.cluster.local"})),
            service("a", "far", json!({"type": "ExternalName", "externalName": "example.com"})),
            service("a", "empty", json!({"clusterIP": "None"})),
        ],
        Vec::new(),
    );
    names
}

/// 16.5
#[test]
fn pods_look_around_themselves_first() {
    let names = names();
    let found = |spec: Value, name: &str| {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let namespace = spec["ns"].as_str().unwrap_or("a").to_owned();
        let pod = json!({"metadata": {"name": "pod", "namespace": namespace}, "spec": spec});
        let pod = serde_json::from_value(pod).unwrap();
        let lookup = async {
            let (settings, hosts) = (names.settings(&pod), Hosts::of_pod(&pod));
            names.lookup(&settings, &hosts, Ipv4Addr::new(127, 128, 0, 1), name, &|_| true).await
        };
        match clock::virtual_runtime().unwrap().block_on(lookup) {
            Ok(found) => found.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(LookupError::NoSuchName) => "no such name".to_owned(),
            Err(LookupError::Refused(_)) => "refused".to_owned(),
            Err(LookupError::NobodyAnswers(_)) => "nobody answers".to_owned(),
        }
    };
    for (spec, name, expected) in [
        (json!({}), "db", "127.96.0.11"),
        (json!({"ns": "b"}), "db", "127.96.0.12"),
        (json!({"ns": "c"}), "db", "nobody answers"),
        (json!({}), "db.b", "127.96.0.12"),
        (json!({}), "db.b.svc", "127.96.0.12"),
        (json!({}), "db.b.svc.cluster.local", "127.96.0.12"),
        (json!({}), "DB.b.svc.cluster.local.", "127.96.0.12"),
        (json!({}), "db.", "nobody answers"),
        (json!({}), "alias", "127.96.0.12"),
        (json!({}), "far", "nobody answers"),
        (json!({}), "empty.a.svc.cluster.local.", "no such name"),
        (json!({}), "none.a.svc.cluster.local.", "no such name"),
        (json!({}), "pod", "127.128.0.1"),
        (json!({}), "localhost", "127.0.0.1"),
        (json!({}), "127.96.0.99", "127.96.0.99"),
        (json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}]}), "db", "10.0.0.1"),
        // On names of the machine's only.
        (json!({"dnsPolicy": "Default"}), "db", "nobody answers"),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["127.96.0.10"], "searches": ["b.svc.cluster.local"]
            }}),
            "db",
            "127.96.0.12",
        ),
        (
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            "db.a.svc.cluster.local",
            "127.96.0.11",
        ),
    ] {
        assert_eq!(found(spec.clone(), name), expected, "{name} {spec}");
    }
}

/// Nobody outside answers in virtual time, so whoever is told so was asked.
#[test]
fn only_what_may_be_asked_is_asked() {
    let names = names();
    let pod = json!({
        "metadata": {"name": "pod", "namespace": "a"},
        "spec": {"containers": [], "hostAliases": [
            {"ip": "192.0.2.1", "hostnames": ["alias.test", "other.test"]},
            {"ip": "127.96.0.77", "hostnames": ["near.test"]},
        ]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    let (settings, hosts) = (names.settings(&pod), Hosts::of_pod(&pod));
    let may_ask =
        |name: &str| matches!(name, "listed.test" | "alias.test" | "short" | "db.a.svc.cluster.local");
    let found = |name: &str, may_ask: &(dyn Fn(&str) -> bool + Sync)| {
        let lookup = names.lookup(&settings, &hosts, Ipv4Addr::new(127, 128, 0, 1), name, may_ask);
        match clock::virtual_runtime().unwrap().block_on(lookup) {
            Ok(Found { name, addresses }) => format!("{name} {}", addresses[0]),
            Err(LookupError::NobodyAnswers(_)) => "nobody answers".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    for (name, expected) in [
        ("listed.test", "nobody answers"),
        ("listed.test.", "nobody answers"),
        ("short", "nobody answers"),
        ("evil.test", "evil.test may not be looked up"),
        ("evil.test.", "evil.test may not be looked up"),
        ("evil", "evil may not be looked up"),
        ("alias.test", "alias.test 192.0.2.1"),
        ("alias.test.", "alias.test 192.0.2.1"),
        ("other.test", "other.test may not be looked up"),
        ("near.test", "near.test 127.96.0.77"),
        ("db", "db.a.svc.cluster.local 127.96.0.11"),
        ("alias", "alias.a.svc.cluster.local 127.96.0.12"),
        // A name for a name outside.
        ("far", "example.com may not be looked up"),
        ("none.a.svc.cluster.local.", "there is no such name"),
        ("192.0.2.9", "192.0.2.9 192.0.2.9"),
    ] {
        assert_eq!(found(name, &may_ask), expected, "{name}");
    }
    assert_eq!(found("far", &|name| name == "example.com"), "nobody answers");
}
