use k8s_openapi::api::core::v1::ContainerPort;

use super::*;

fn read(pairs: &[(&str, &str)]) -> Wishes {
    let mut pod = Pod::default();
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    pod.metadata.annotations = Some(pairs.collect());
    wishes(&pod)
}

#[test]
fn parts_of_volumes() {
    assert_eq!(wishes(&Pod::default()), Wishes::default());
    assert_eq!(read(&[("coracle.dev/sub", "frozen")]), Wishes::default());
    assert!(read(&[(SUB_PATH, "frozen")]).sub_path_frozen);
    for wrong in ["", "Frozen", "live", "frozen "] {
        let wishes = read(&[(SUB_PATH, wrong)]);
        assert!(!wishes.sub_path_frozen, "{wrong:?}");
        let [complaint] = &wishes.complaints[..] else { panic!("{wishes:?}") };
        assert!(complaint.contains(&format!("{SUB_PATH}: {wrong:?} ")), "{complaint}");
        assert!(complaint.contains("\"frozen\""), "{complaint}");
    }
}

#[test]
fn changes_of_configuration() {
    let http = |path: &str, port| OnConfigChange::Http { path: path.to_owned(), port };
    for (value, expected) in [
        ("ignore", OnConfigChange::Ignore),
        ("restart", OnConfigChange::Restart),
        ("http:/reload:8080", http("/reload", 8080)),
        ("http:/a:b/c:1", http("/a:b/c", 1)),
        ("http:/:65535", http("/", 65_535)),
    ] {
        let wishes = read(&[(ON_CONFIG_CHANGE, value)]);
        assert_eq!((wishes.on_config_change, wishes.complaints.len()), (expected, 0), "{value}");
    }
    for wrong in [
        "",
        "Restart",
        "reload",
        "http",
        "http:",
        "http:/reload",
        "http:reload:80",
        "http::80",
        "http:/reload:0",
        "http:/reload:65536",
        "http:/reload:+80",
        "http:/reload:",
        "http:/a b:80",
    ] {
        let wishes = read(&[(ON_CONFIG_CHANGE, wrong)]);
        assert_eq!(wishes.on_config_change, OnConfigChange::Ignore, "{wrong:?}");
        let [complaint] = &wishes.complaints[..] else { panic!("{wrong:?}: {wishes:?}") };
        for part in [&format!("{ON_CONFIG_CHANGE}: {wrong:?} ") as &str, "\"restart\"", "\"http:PATH:PORT\""]
        {
            assert!(complaint.contains(part), "{part} in {complaint}");
        }
    }
}

#[test]
fn handlers() {
    for (value, expected) in [
        ("fresh", Some(Instances::Fresh)),
        ("reused", Some(Instances::Kept(1))),
        ("pooled", Some(Instances::Kept(POOLED_DEFAULT))),
        ("pooled:1", Some(Instances::Kept(1))),
        ("pooled:256", Some(Instances::Kept(256))),
        ("pooled:257", None),
        ("pooled:0", None),
        ("pooled:", None),
        ("pooled:+1", None),
        ("reused:2", None),
        ("Fresh", None),
        ("", None),
    ] {
        let wishes = read(&[(HTTP_INSTANCES, value)]);
        assert_eq!(wishes.http.instances, expected.unwrap_or_default(), "{value:?}");
        assert_eq!(wishes.complaints.len(), usize::from(expected.is_none()), "{value:?}: {wishes:?}");
    }
    for (value, expected) in [
        ("10Mi", Some(10 << 20)),
        ("0", Some(0)),
        ("1k", Some(1_000)),
        ("-1", None),
        ("much", None),
        ("", None),
    ] {
        let wishes = read(&[(HTTP_BODY_MAX, value)]);
        assert_eq!(wishes.http.body_bytes_max, expected, "{value:?}");
        assert_eq!(wishes.complaints.len(), usize::from(expected.is_none()), "{value:?}: {wishes:?}");
    }
    let seconds = |count| Some(Duration::from_secs(count));
    for (value, expected) in [
        ("30s", seconds(30)),
        ("1m30s", seconds(90)),
        ("2 minutes", seconds(120)),
        ("250ms", Some(Duration::from_millis(250))),
        ("0s", None),
        ("-1s", None),
        ("30", None),
        ("soon", None),
        ("", None),
    ] {
        let wishes = read(&[(HTTP_TIMEOUT, value)]);
        assert_eq!(wishes.http.time_max, expected, "{value:?}");
        assert_eq!(wishes.complaints.len(), usize::from(expected.is_none()), "{value:?}: {wishes:?}");
    }
    for (value, access_log, complaints) in [("true", true, 0), ("false", false, 0), ("yes", false, 1)] {
        let wishes = read(&[(HTTP_ACCESS_LOG, value)]);
        assert_eq!((wishes.http.access_log, wishes.complaints.len()), (access_log, complaints), "{value:?}");
    }
}

#[test]
fn the_port_of_a_handler() {
    let port = |number: i32, protocol: Option<&str>| ContainerPort {
        container_port: number,
        protocol: protocol.map(str::to_owned),
        ..ContainerPort::default()
    };
    for (ports, expected) in [
        (vec![], 8080),
        (vec![port(80, None), port(81, None)], 80),
        (vec![port(53, Some("UDP")), port(8443, Some("TCP"))], 8443),
        (vec![port(53, Some("UDP"))], 8080),
    ] {
        let container = Container { ports: Some(ports), ..Container::default() };
        assert_eq!(http(&Pod::default(), &container).port, expected, "{:?}", container.ports);
    }
}

#[test]
fn fuel_is_counted_or_limited_by_container() {
    let annotations = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    for (pairs, expected) in [
        (&[][..], Fuel::Off),
        (&[(FUEL, "count")], Fuel::Count),
        (&[(FUEL, "1000")], Fuel::Limit(1000)),
        (&[("coracle.dev/fuel.other", "count")], Fuel::Off),
        (&[(FUEL, "1000"), ("coracle.dev/fuel.main", "count")], Fuel::Count),
        (&[("coracle.dev/fuel-used.main", "7")], Fuel::Off),
    ] {
        assert_eq!(fuel(&annotations(pairs), "main"), expected, "{pairs:?}");
        assert!(read(pairs).complaints.is_empty(), "{pairs:?}");
    }
    for wrong in ["", "0", "-1", "+1", "1e9", "Count", "18446744073709551616"] {
        for key in [FUEL, "coracle.dev/fuel.main"] {
            assert_eq!(fuel(&annotations(&[(key, wrong)]), "main"), Fuel::Off, "{wrong:?}");
            let wishes = read(&[(key, wrong)]);
            let [complaint] = &wishes.complaints[..] else { panic!("{wrong:?}: {wishes:?}") };
            assert!(complaint.contains(&format!("{key}: {wrong:?} ")), "{complaint}");
        }
    }
}
