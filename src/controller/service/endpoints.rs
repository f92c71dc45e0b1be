//! The Endpoints of a service: what its slices say, in one object.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{ENDPOINTS_MANAGER, HEADLESS, hostname, ip, ports_of, publishes_not_ready, target_ref};
use crate::controller::{Action, Key, KindRef, owned, snapshot};
use crate::kind::service::is_headless;

/// Addresses of one object, as upstream; slices have the rest.
const ADDRESSES_MAX: usize = 1000;
/// Says that there are more.
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");

/// Whether this controller made it.
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(ENDPOINTS_MANAGER.0)).map(String::as_str) == Some(ENDPOINTS_MANAGER.1)
}

/// Deletes what a service leaves behind.
pub(super) fn delete(service: &Key, endpoints: &Endpoints) -> Vec<Action> {
    vec![
        Action::RequireAbsent(service.clone(), None),
        Action::Delete {
            key: Key::to(KindRef::of::<Endpoints>(), endpoints),
            uid: snapshot::uid(endpoints).to_owned(),
            grace_period_seconds: None,
            propagation_policy: None,
        },
    ]
}

/// What to write, if anything.
pub(super) fn correction(service: &Service, pods: &[&Pod], known: Option<&Endpoints>) -> Option<Action> {
    let kind = KindRef::of::<Endpoints>();
    let (subsets, is_truncated) = subsets(service, pods);
    let mut new = known.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            namespace: service.metadata.namespace.clone(),
            name: service.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().is_some_and(is_headless) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(ENDPOINTS_MANAGER.0.to_owned(), ENDPOINTS_MANAGER.1.to_owned());
    new.metadata.labels = Some(labels);
    if is_truncated {
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.0.to_owned(), OVER_CAPACITY.1.to_owned());
    } else if let Some(annotations) = &mut new.metadata.annotations {
        annotations.remove(OVER_CAPACITY.0);
    }
    new.subsets = (!subsets.is_empty()).then_some(subsets);
    match known {
        None => Some(Action::Create(kind, Box::new(new))),
        Some(known) => {
            let is_same = known.metadata == new.metadata
                && known.subsets.as_deref().unwrap_or_default() == new.subsets.as_deref().unwrap_or_default();
            (!is_same).then(|| Action::Update(kind, Box::new(new), None))
        }
    }
}

/// Name, number and protocol of each port.
type PortKey = Vec<(String, i32, String)>;
/// Pods that have the same ports, and whether each is ready.
type Alike<'a> = (Vec<EndpointPort>, Vec<(&'a Pod, bool)>);

/// Pods that have the same ports are one subset.
fn subsets(service: &Service, pods: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let needs_ports = service.spec.iter().any(|spec| spec.ports.iter().flatten().next().is_some());
    let all = publishes_not_ready(service);
    let is_ready = |pod: &Pod| all || owned::is_ready(pod);
    let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let mut pods: Vec<(&Pod, bool)> =
        pods.iter().filter(|pod| all || !going(pod)).map(|pod| (*pod, is_ready(pod))).collect();
    let is_truncated = pods.len() > ADDRESSES_MAX;
    if is_truncated {
        // Those that are ready first.
        pods.sort_by_key(|(_, is_ready)| !is_ready);
        pods.truncate(ADDRESSES_MAX);
    }
    let mut by_ports: BTreeMap<PortKey, Alike<'_>> = BTreeMap::new();
    for (pod, is_ready) in pods {
        let ports: Vec<EndpointPort> = ports_of(service, pod)
            .into_iter()
            .map(|(port, number)| EndpointPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: number,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        if ports.is_empty() && needs_ports {
            continue;
        }
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let key = ports.iter().map(|port| (text(&port.name), port.port, text(&port.protocol))).collect();
        by_ports.entry(key).or_insert_with(|| (ports, Vec::new())).1.push((pod, is_ready));
    }
    let subsets = by_ports.into_values().map(|(ports, mut pods)| {
        let number = |pod: &Pod| ip(pod).and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
        pods.sort_by_key(|(pod, _)| number(pod));
        let some = |ready: bool| -> Option<Vec<EndpointAddress>> {
            let some: Vec<_> = pods
                .iter()
                .filter(|(_, is_ready)| *is_ready == ready)
                .map(|(pod, _)| address(service, pod))
                .collect();
            (!some.is_empty()).then_some(some)
        };
        EndpointSubset {
            addresses: some(true),
            not_ready_addresses: some(false),
            ports: (!ports.is_empty()).then_some(ports),
        }
    });
    (subsets.collect(), is_truncated)
}

fn address(service: &Service, pod: &Pod) -> EndpointAddress {
    EndpointAddress {
        ip: ip(pod).unwrap_or_default().to_owned(),
        hostname: hostname(service, pod).map(str::to_owned),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target_ref(pod)),
    }
}
