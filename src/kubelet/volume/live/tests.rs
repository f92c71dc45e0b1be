use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};

use super::super::super::config::Beginning;
use super::super::super::content::Content;
use super::super::super::fields::Facts;
use super::super::super::inbox::{Inbox, SourceNews};
use super::super::super::sources::{SourceKind, Sources};
use super::super::{Part, Volumes};
use super::*;

fn map(revision: u64, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": "m", "namespace": "n", "resourceVersion": revision.to_string()}, "data": {"k": value},
    }))
    .unwrap()
}

fn contents(revision: u64, value: &str) -> Contents {
    BTreeMap::from([(Source::config_map("m"), Arc::new(Content::of(&map(revision, value))))])
}

fn volume(source: Value) -> Volume {
    let mut volume = json!({"name": "v"});
    volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    serde_json::from_value(volume).unwrap()
}

fn make(volume: &Volume, contents: &Contents, sources: &Sources) -> Arc<Volumes> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "containers": [{"name": "c", "volumeMounts": [{"name": volume.name, "mountPath": "/v"}]}],
            "volumes": [volume],
        },
    }))
    .unwrap();
    let (ip, none) = (Ipv4Addr::LOCALHOST, BTreeMap::new());
    let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &none };
    Arc::new(Volumes::make(&facts, contents, None, sources).unwrap())
}

fn shown(volumes: &Volumes) -> Option<String> {
    let file = volumes.0["v"].volume.read("k")?;
    Some(String::from_utf8(file.to_vec()).unwrap())
}

#[test]
fn what_comes_from_sources_alone_can_be_shared() {
    let fields = json!({"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]});
    for (source, expected) in [
        (json!({"configMap": {"name": "m"}}), true),
        (json!({"secret": {"secretName": "s"}}), true),
        (json!({"projected": {"sources": [{"configMap": {"name": "m"}}, {"secret": {"name": "s"}}]}}), true),
        (json!({"projected": {"sources": [{"configMap": {"name": "m"}}, {"downwardAPI": fields}]}}), false),
        (
            json!({"projected": {"sources": [{"secret": {"name": "s"}}, {"serviceAccountToken": {"path": "t"}}]}}),
            false,
        ),
        (json!({"projected": {"sources": []}}), false),
        (json!({"downwardAPI": fields}), false),
        (json!({"emptyDir": {}}), false),
    ] {
        assert_eq!(shareable(&volume(source.clone())).is_some(), expected, "{source}");
    }
}

#[test]
fn pods_that_define_a_volume_alike_share_it() {
    let sources = Sources::none();
    let _heard = sources.subscribe("n", [Source::config_map("m")], &Arc::default());
    let plain = json!({"configMap": {"name": "m", "optional": true}});
    let of = |volume: &Volume| make(volume, &contents(1, "one"), &sources).0[&volume.name].clone();
    let first = of(&volume(plain.clone()));
    let renamed = Volume { name: "other".into(), ..volume(plain) };
    assert!(Arc::ptr_eq(&first, &of(&renamed)));
    for other in [
        json!({"configMap": {"name": "m"}}),
        json!({"configMap": {"name": "m", "optional": true, "defaultMode": 0o400}}),
        json!({"configMap": {"name": "m", "optional": true, "items": [{"key": "k", "path": "k"}]}}),
    ] {
        assert!(!Arc::ptr_eq(&first, &of(&volume(other.clone()))), "{other}");
    }
}

enum Step {
    /// The watch: a revision and a value, or none for a deletion.
    Told(u64, Option<&'static str>),
    /// A pod's reading of everything.
    Whole(Option<(u64, &'static str)>),
    /// A new pod's reading.
    New(u64, &'static str),
}

#[test]
fn the_newest_that_is_known_is_shown() {
    use Step::{New, Told, Whole};
    for (required, steps, expected) in [
        (true, vec![Told(2, Some("two"))], Some("two")),
        (true, vec![New(2, "two")], Some("two")),
        (true, vec![Whole(Some((2, "two")))], Some("two")),
        // What comes late is passed over.
        (true, vec![Told(3, Some("three")), New(2, "two")], Some("three")),
        (true, vec![New(3, "three"), Told(2, Some("two"))], Some("three")),
        // Gone.
        (false, vec![Told(2, None)], None),
        (false, vec![Told(3, None), New(2, "two")], None),
        (false, vec![Told(3, None), Told(4, Some("four"))], Some("four")),
        (false, vec![Whole(None)], None),
        // Read before it was made anew, which the watch has told or is about to tell.
        (false, vec![New(2, "two"), Whole(None), Told(2, Some("two"))], Some("two")),
        // What cannot be shown any more stays.
        (true, vec![Told(2, None)], Some("one")),
        (true, vec![Told(2, None), Told(3, Some("three"))], Some("three")),
        (true, vec![Whole(None)], Some("one")),
    ] {
        let sources = Sources::none();
        let _heard = sources.subscribe("n", [Source::config_map("m")], &Arc::default());
        let volume = volume(json!({"configMap": {"name": "m", "optional": !required}}));
        let volumes = make(&volume, &contents(1, "one"), &sources);
        let names: Vec<String> = steps
            .into_iter()
            .map(|step| {
                let live = &volumes.0["v"];
                match step {
                    Told(revision, value) => {
                        let content = value.map(|value| Arc::new(Content::of(&map(revision, value))));
                        live.told(&Source::config_map("m"), &Latest { revision, content });
                        format!("told {revision} {value:?}")
                    }
                    Whole(read) => {
                        let read_now = read.map(|(revision, value)| contents(revision, value));
                        let cause = live.read(&read_now.unwrap_or_default(), true);
                        assert_eq!(cause.is_some(), read.is_none() && required);
                        format!("whole {read:?}")
                    }
                    New(revision, value) => {
                        make(&volume, &contents(revision, value), &sources);
                        format!("new {revision} {value}")
                    }
                }
            })
            .collect();
        assert_eq!(shown(&volumes).as_deref(), expected, "{names:?}");
    }
}

#[test]
fn runs_are_told_before_their_pod() {
    let (sources, inbox) = (Sources::none(), Arc::new(Inbox::default()));
    let _heard = sources.subscribe("n", [Source::config_map("m")], &inbox);
    let volumes = make(&volume(json!({"configMap": {"name": "m"}})), &contents(1, "one"), &sources);
    let tracker = Arc::new(Tracker::default());
    tracker.begin(Beginning {
        env_sources: Vec::new(),
        env: Versions::new(),
        settings: Values::new(),
        volumes: volumes.clone(),
        parts: vec![Part { volume: "v".into(), path: None, frozen: false }],
        has_sources: true,
    });
    assert_eq!(tracker.feed().shown().revision, 1);
    let map = map(2, "two");
    assert!(sources.told(SourceKind::ConfigMap, &map.metadata, || Some(Content::of(&map))));
    assert_eq!(shown(&volumes).as_deref(), Some("two"));
    assert_eq!(tracker.feed().shown().revision, 2);
    assert!(tracker.take_news());
    assert_eq!(inbox.take().sources, Some(SourceNews::Told));
}
