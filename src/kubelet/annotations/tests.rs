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
