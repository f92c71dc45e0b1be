use super::*;

fn config(port: u16) -> Config {
    let tokens = std::sync::Arc::new(crate::apiserver::token::SigningKey::generate().unwrap());
    Config {
        ca_pem: String::new(),
        api_address: SocketAddr::from(([127, 0, 0, 1], port)),
        plan: AddressPlan::default(),
        tokens,
        time_zone: jiff::tz::TimeZone::UTC,
        fault: None,
    }
}

fn wanted(port: u16, name: &str) -> Vec<Wanted> {
    others(&config(port)).into_iter().filter(|wanted| wanted.key.name == name).collect()
}

#[test]
fn only_a_moved_api_is_written_again() {
    let (old, new) = (wanted(6443, "kubernetes"), wanted(7443, "kubernetes"));
    let plurals: Vec<&str> = old.iter().map(|wanted| wanted.key.kind.0.plural).collect();
    assert_eq!(plurals, ["services", "endpoints", "endpointslices"]);
    for (old, new) in old.iter().zip(&new) {
        assert!(old.correction(&*old.object).is_none());
        let corrected = new.correction(&*old.object);
        assert_eq!(corrected.is_some(), new.key.kind.0.plural != "services", "{:?}", new.key);
    }
}

#[test]
fn labels_added_by_others_are_left() {
    let wanted = &wanted(6443, "kubernetes")[1];
    let mut known = wanted.object.clone_object();
    known.metadata_mut().labels = Some(BTreeMap::from([("a".into(), "b".into())]));
    assert!(wanted.correction(&*known).is_none());
}

#[test]
fn a_deleted_object_of_ours_is_made_again() {
    let service = ApiService::new(&config(6443));
    let mut seen = Snapshot::default();
    let key = service.start().pop().unwrap();
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
    assert!(service.reconcile(&seen, &key, moment).actions.is_empty(), "its namespace is not there yet");
    for wanted in namespaces() {
        seen.insert(wanted.key.kind, std::sync::Arc::from(wanted.object));
    }
    let actions = service.reconcile(&seen, &key, moment).actions;
    assert!(matches!(&actions[..], [Action::Create(kind, _)] if *kind == key.kind), "{actions:?}");
}
