//! What every kind in the list must have, whoever writes it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;

#[test]
fn kinds_are_found_by_their_paths() {
    let mut paths = BTreeSet::new();
    for kind in ALL {
        assert!(paths.insert((kind.group, kind.version, kind.plural)), "{kind:?} is listed once");
        assert_eq!(by_path(kind.group, kind.version, kind.plural), Some(*kind));
    }
    assert_eq!(of::<k8s_openapi::api::core::v1::Event>(), &event::KIND);
    assert_eq!(by_path("", "v1", "nothings"), None);
}

#[test]
fn kinds_are_in_discovery_order() {
    let core_first = |kind: &&Kind| (!kind.group.is_empty(), kind.group, kind.version, kind.plural);
    assert!(ALL.is_sorted_by_key(core_first), "core first, then by group, version and plural: {ALL:?}");
    for kind in ALL {
        assert!(kind.verbs.is_sorted(), "{kind:?}");
    }
}

#[test]
fn tables_have_a_described_column_for_each_cell() {
    for kind in ALL {
        let mut object = kind.strategy.decode_value(serde_json::json!({"metadata": {}})).unwrap();
        kind.strategy.set_defaults(&mut *object);
        let cells = kind.strategy.cells(&*object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells.len(), kind.columns.len(), "{kind:?}");
        assert!(kind.columns.iter().any(|column| column.format == "name"), "{kind:?}");
        for column in kind.columns {
            assert!(!column.description.is_empty(), "{kind:?} says what {} is", column.name);
        }
    }
}

#[test]
fn an_empty_object_is_judged_and_encoded() {
    for kind in ALL {
        let json = format!(r#"{{"kind":"{}","apiVersion":"{}"}}"#, kind.kind, kind.api_version());
        let mut object = kind.strategy.decode_json(json.as_bytes()).unwrap();
        kind.strategy.set_defaults(&mut *object);
        let defaulted = object.clone_object();
        kind.strategy.set_defaults(&mut *object);
        assert!(object.equals(&*defaulted), "defaults of {kind:?} are idempotent");
        kind.strategy.prepare_create(&mut *object);
        kind.strategy.validate(&*object);
        let bytes = object.encode().with_revision(1);
        let stored = strategy::decode_stored(kind.stored_kind().strategy, &bytes).unwrap();
        assert_eq!(stored.metadata().resource_version.as_deref(), Some("1"));
        let served = kind.served(&*stored).unwrap_or_else(|| stored.clone_object());
        assert_eq!((served.kind_name(), served.api_version()), (kind.kind, kind.api_version().as_str()));
    }
}
