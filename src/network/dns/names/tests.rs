use serde_json::{Value, json};

use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(127, 96, 0, 10);
const OWN: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 1);

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    spec["containers"] = json!([]);
    serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec})).unwrap()
}

fn machine() -> Settings {
    Settings::parse("# the machine's\nnameserver 10.0.0.2\nsearch corp.example\noptions timeout:1 rotate\n")
}

/// 16.5
#[test]
fn policies() {
    let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
                   nameserver 127.96.0.10\noptions ndots:5\n";
    let machines = "search corp.example\nnameserver 10.0.0.2\noptions timeout:1 rotate\n";
    for (spec, expected) in [
        (json!({}), cluster),
        (json!({"dnsPolicy": "ClusterFirst"}), cluster),
        (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), machines),
        (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
        (json!({"dnsPolicy": "Default"}), machines),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"], "searches": ["a.b"]}}),
            "search a.b\nnameserver 1.1.1.1\n",
        ),
        (
            json!({"dnsConfig": {
                "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"],
                "searches": ["svc.cluster.local", "a.b"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            }}),
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example a.b\n\
             nameserver 127.96.0.10\nnameserver 1.1.1.1\nnameserver 2.2.2.2\noptions ndots:2 edns0\n",
        ),
    ] {
        let settings = Settings::of_pod(&pod(spec.clone()), SERVER, &machine());
        assert_eq!(settings.render(), expected, "{spec}");
        assert_eq!(Settings::parse(&settings.render()), settings, "{spec}");
    }
    let searches: Vec<String> = (0..40).map(|i| format!("s{i}.example")).collect();
    let many =
        pod(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": searches}}));
    assert_eq!(Settings::of_pod(&many, SERVER, &machine()).searches.len(), SEARCHES_MAX);
}

/// 16.5
#[test]
fn which_names_are_tried() {
    let settings = Settings::of_pod(&pod(json!({})), SERVER, &Settings::default());
    for (name, expected) in [
        ("db", &["db.shop.svc.cluster.local", "db.svc.cluster.local", "db.cluster.local", "db"] as &[&str]),
        ("db.", &["db"]),
        (
            "db.other",
            &[
                "db.other.shop.svc.cluster.local",
                "db.other.svc.cluster.local",
                "db.other.cluster.local",
                "db.other",
            ],
        ),
        (
            "a.b.c.d.e.f",
            &[
                "a.b.c.d.e.f",
                "a.b.c.d.e.f.shop.svc.cluster.local",
                "a.b.c.d.e.f.svc.cluster.local",
                "a.b.c.d.e.f.cluster.local",
            ],
        ),
    ] {
        assert_eq!(settings.candidates(name), expected, "{name}");
    }
    assert_eq!(Settings::default().candidates("a"), ["a"]);
    assert_eq!(machine().candidates("a.b"), ["a.b", "a.b.corp.example"]);
    assert_eq!(machine().candidates(&"a".repeat(250)), ["a".repeat(250)]);
    assert_eq!(machine().candidates(&"a".repeat(260)), [""; 0]);
}

#[test]
fn lines_that_are_not_understood_are_passed_over() {
    let text = "nameserver fe80::1%eth0\nnameserver\nnameserver x\nsearch a b ; c\n\u{1}\noptions ndots:x\nnameserver ::1";
    let settings = Settings::parse(text);
    assert_eq!(settings.nameservers, ["::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(settings.searches, ["a", "b"]);
    assert_eq!(settings.ndots(), NDOTS_DEFAULT);
}

#[test]
fn names_known_beforehand() {
    let plain = Hosts::of_pod(&pod(json!({})));
    assert_eq!(
        plain.render(OWN),
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n127.128.0.1\tweb-0\n"
    );
    let hosts = Hosts::of_pod(&pod(json!({
        "hostname": "db", "subdomain": "dbs",
        "hostAliases": [
            {"ip": "10.0.0.1", "hostnames": ["Old.example", "older"]},
            {"ip": "10.0.0.2", "hostnames": ["older"]},
            {"ip": "10.0.0.3"},
        ],
    })));
    assert_eq!(
        hosts.render(OWN),
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
         127.128.0.1\tdb.dbs.shop.svc.cluster.local\tdb\n\
         \n# Entries added by HostAliases.\n10.0.0.1\tOld.example\tolder\n10.0.0.2\tolder\n"
    );
    for (name, expected) in [
        ("localhost", "127.0.0.1"),
        ("LOCALHOST.", "127.0.0.1"),
        ("a.localhost", "127.0.0.1"),
        ("DB", "127.128.0.1"),
        ("db.dbs.shop.svc.cluster.local", "127.128.0.1"),
        ("web-0", ""),
        ("old.example", "10.0.0.1"),
        ("older", "10.0.0.1 10.0.0.2"),
        ("notlocalhost", ""),
        ("", ""),
    ] {
        let found = hosts.find(name, OWN).unwrap_or_default();
        let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(found.join(" "), expected, "{name}");
    }
    let mut long = pod(json!({}));
    long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(20)));
    assert_eq!(Hosts::of_pod(&long).own, ["a".repeat(62)]);
}
