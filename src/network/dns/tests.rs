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
            names.lookup(&settings, &hosts, Ipv4Addr::new(127, 128, 0, 1), name).await
        };
        match clock::virtual_runtime().unwrap().block_on(lookup) {
            Ok(found) => found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(LookupError::NoSuchName) => "no such name".to_owned(),
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
