use super::*;

fn config(port: u16) -> Config {
    let tokens = std::sync::Arc::new(crate::apiserver::token::SigningKey::generate().unwrap());
    Config {
        ca_pem: String::new(),
        api_address: SocketAddr::from(([127, 0, 0, 1], port)),
        plan: AddressPlan::default(),
        dns: Some(Dns { address: AddressPlan::default().dns(), port: 53, is_served: true }),
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

/// 16.1
#[test]
fn the_name_server_is_a_service_with_itself_as_endpoint_if_it_could_listen() {
    let of = |is_served: bool| {
        let mut config = config(6443);
        config.dns = config.dns.map(|dns| Dns { is_served, ..dns });
        others(&config).into_iter().filter(|wanted| wanted.key.name == "kube-dns").collect::<Vec<_>>()
    };
    let (served, not) = (of(true), of(false));
    let service: &Service = served[0].object.downcast_ref().unwrap();
    let spec = service.spec.as_ref().unwrap();
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| format!("{}/{}", port.port, port.protocol.as_deref().unwrap()))
        .collect();
    assert_eq!((spec.cluster_ip.as_deref(), ports.join(" ")), (Some("127.96.0.10"), "53/UDP 53/TCP".into()));
    let slice: &EndpointSlice = served[2].object.downcast_ref().unwrap();
    assert_eq!(slice.endpoints[0].addresses, ["127.96.0.10"]);
    // A later start that cannot listen takes the endpoints away.
    assert!(not[0].correction(&*served[0].object).is_none());
    assert!(not[1].correction(&*served[1].object).is_some());
    let corrected = not[2].correction(&*served[2].object).unwrap();
    assert_eq!(corrected.downcast_ref::<EndpointSlice>().unwrap().endpoints, []);
    // Where there is no server, there is no service.
    let without = Config { dns: None, ..config(6443) };
    assert!(others(&without).iter().all(|wanted| wanted.key.name != "kube-dns"));
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
