use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use super::super::content::Content;
use super::super::fields::Facts;
use super::super::sources::Sources;
use super::*;
use crate::kind::config_map::content_hash;

fn version(revision: u64, content: u8) -> Version {
    let data = BTreeMap::from([("k".to_owned(), content.to_string())]);
    let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    Version { revision, hash: content_hash(&map) }
}

/// `name revision content` of each source; a name that begins with `s` is a Secret's.
fn versions(text: &str) -> Versions {
    let entry = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let source = if words[0].starts_with('s') { Source::secret } else { Source::config_map }(words[0]);
        (source, version(words[1].parse().unwrap(), words[2].parse().unwrap()))
    };
    text.split(", ").filter(|entry| !entry.is_empty()).map(entry).collect()
}

#[test]
fn the_revision_moves_with_every_change_of_content() {
    for (old, before, after, expected) in [
        (0, "", "", 0),
        (0, "", "a 7 1", 7),
        (7, "a 7 1", "a 7 1", 7),
        (7, "a 7 1", "a 9 2", 9),
        // Only metadata: the content is the same.
        (7, "a 7 1", "a 9 1", 7),
        (9, "a 7 1, b 9 1", "a 8 2, b 9 1", 10),
        (9, "a 7 1, b 9 1", "a 12 2, b 9 1", 12),
        // One goes away: never lower, never the same.
        (9, "a 7 1, b 9 1", "a 7 1", 10),
        (9, "a 7 1, b 9 1", "b 9 1", 10),
        (9, "a 9 1", "", 10),
        // And comes back: what took it away had a revision of its own.
        (10, "", "a 11 1", 11),
    ] {
        assert_eq!(next_revision(old, &versions(before), &versions(after)), expected, "{before} to {after}");
    }
}

#[test]
fn a_run_is_outdated_by_newer_content_only() {
    for (began, now, expected) in [
        ("", "", None),
        ("a 7 1", "a 7 1", None),
        ("a 7 1", "a 9 1", None),
        ("a 7 1", "a 9 2", Some("configmap/a 9")),
        // What the run read may be ahead of what the watch has told.
        ("a 9 2", "a 7 1", None),
        // Gone is no new content; come is.
        ("a 7 1", "", None),
        ("a 7 1", "a 7 1, s 8 1", Some("secret/s 8")),
    ] {
        let now = versions(now);
        let now = now.iter().map(|(source, version)| (source, *version));
        let found = newer(&versions(began), now).map(|(source, revision)| format!("{source} {revision}"));
        assert_eq!(found.as_deref(), expected, "{began}");
    }
}

#[test]
fn reports_tell_no_hash_of_a_secret() {
    let report = |env, mounted| report(&versions(env), &versions(mounted)).to_string();
    let hash = version(3, 1).hash;
    assert_eq!(report("", ""), "{}");
    assert_eq!(
        report("a 3 1, s 4 2", ""),
        format!(r#"{{"configmap/a":{{"hash":"{hash}","revision":3}},"secret/s":{{"revision":4}}}}"#)
    );
    assert_eq!(report("s 4 2", "s 9 3"), r#"{"secret/s":{"envRevision":4,"revision":9}}"#);
    assert_eq!(report("s 4 2", "s 9 2"), r#"{"secret/s":{"revision":9}}"#);
}

/// A pod that mounts the ConfigMap `m` whole, its key `a` alone, and that frozen.
fn pod() -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "configMap": {"name": "m", "optional": true}}],
        },
    }))
    .unwrap()
}

fn contents(revision: u64, value: &str) -> Contents {
    let map: ConfigMap = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "resourceVersion": revision.to_string()}, "data": {"a": value, "b": "b"},
    }))
    .unwrap();
    BTreeMap::from([(Source::config_map("m"), Arc::new(Content::of(&map)))])
}

#[test]
fn a_tracker_shows_what_the_volumes_show() {
    let (pod, none, ip) = (pod(), BTreeMap::new(), std::net::Ipv4Addr::LOCALHOST);
    let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &none };
    let volumes = Arc::new(Volumes::make(&facts, &contents(5, "1"), None, &Sources::none()).unwrap());
    let tracker = Arc::new(Tracker::default());
    assert_eq!(tracker.report(), None);
    let part = |path: Option<&str>, frozen| Part { volume: "v".into(), path: path.map(Arc::from), frozen };
    let beginning = |parts| Beginning {
        env_sources: vec![Source::secret("s")],
        env: versions("s 6 1"),
        settings: Values::from([("FROM_ENV".to_owned(), "yes".into())]),
        volumes: volumes.clone(),
        parts,
        has_sources: true,
    };
    let frozen = Arc::new(Tracker::default());
    tracker.begin(beginning(vec![part(None, false)]));
    frozen.begin(beginning(vec![part(Some("a"), true)]));
    let shown = |tracker: &Tracker| {
        let shown = tracker.feed().shown();
        let sources = shown.sources.iter().map(|source| format!("{} {}", source.name, source.revision));
        format!("{} [{}]", shown.revision, sources.collect::<Vec<_>>().join(", "))
    };
    assert_eq!(shown(&tracker), "6 [m 5, s 6]");
    assert_eq!(tracker.outdated(&Contents::new()), None);

    // The volume is one that others may show: it tells the runs by itself.
    volumes.refresh(&facts, &contents(9, "2"), None, false, |_| false);
    assert_eq!((tracker.take_news(), frozen.take_news()), (true, false));
    tracker.refresh();
    assert!(!tracker.take_news(), "nothing new");
    assert_eq!((shown(&tracker), shown(&frozen)), ("9 [m 9, s 6]".to_owned(), "6 [m 5, s 6]".to_owned()));
    // Frozen or not, a run that begins now would see more.
    for tracker in [&tracker, &frozen] {
        assert_eq!(tracker.outdated(&Contents::new()), Some((Source::config_map("m"), 9)));
    }
    assert_eq!(tracker.report().unwrap()["configmap/m"]["revision"], 9);
    assert_eq!(frozen.report().unwrap()["configmap/m"]["revision"], 5);
    assert_eq!(tracker.feed().shown().settings.len(), 2);

    volumes.refresh(&facts, &Contents::new(), None, true, |_| true);
    assert!(tracker.take_news());
    assert_eq!(shown(&tracker), "10 [s 6]");
    assert_eq!(tracker.feed().shown().settings.len(), 1);
}
