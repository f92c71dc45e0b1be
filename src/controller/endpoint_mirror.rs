//! Says in EndpointSlices what hand-made Endpoints of services without a selector say (BEHAVIOURS 16.3;
//! upstream `pkg/controller/endpointslicemirroring`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::service::slices::{self, Group, Template};
use super::service::{SLICES, manager_of, selector, service_of, slices_of};
use super::service_account::is_active;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, owned, snapshot};
use crate::kind::endpoint_slice::{MANAGED_BY, SERVICE_NAME};

/// Who makes the slices, as their label says.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The annotation of Endpoints that once were locks.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints alone.
const OWN: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];
/// Endpoints of one slice, and those mirrored of one subset, as upstream.
const ENDPOINTS_MAX: usize = 1000;

pub struct EndpointMirror;

impl Controller for EndpointMirror {
    fn name(&self) -> &'static str {
        "endpoint_mirror"
    }

    fn indexes(&self) -> &'static [Index] {
        std::slice::from_ref(&SLICES)
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        let namespace = snapshot::namespace(object);
        let all = KindRef::of::<Endpoints>();
        if object.downcast_ref::<Endpoints>().is_some() {
            wake(Key::to(all, object));
        } else if object.downcast_ref::<Service>().is_some() {
            let key = Key::to(all, object);
            if seen.get::<Endpoints>(namespace, &key.name).is_some() {
                wake(key);
            }
        } else if let Some(slice) = object.downcast_ref::<EndpointSlice>() {
            let before = change.old.and_then(|old| old.downcast_ref::<EndpointSlice>());
            for slice in [Some(slice), before].into_iter().flatten() {
                if let Some(service) = service_of(slice).filter(|_| manager_of(slice) == Some(MANAGER)) {
                    wake(Key::new(all, namespace, service));
                }
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
        let existing = slices_of(seen, namespace, name, MANAGER);
        let endpoints = seen.get::<Endpoints>(namespace, name).filter(|endpoints| is_mirrored(endpoints));
        let service = seen.get::<Service>(namespace, name).filter(|service| is_hand_made(service));
        let Some((endpoints, _)) = endpoints.zip(service) else {
            return Decision::act(existing.into_iter().map(slices::delete).collect());
        };
        if endpoints.metadata.deletion_timestamp.is_some() || !is_active(seen, namespace) {
            return Decision::default();
        }
        let actions = slices::plan(&template(endpoints), groups(endpoints), &existing);
        Decision::act(if actions.len() > 1 { vec![Action::Together(actions)] } else { actions })
    }
}

fn is_hand_made(service: &Service) -> bool {
    let is_external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    !is_external && selector(service).is_none()
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skips = meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|skip| skip == "true");
    let is_lock = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    !skips && !is_lock
}

fn template(endpoints: &Endpoints) -> Template<'_> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != SERVICE_NAME && key != MANAGED_BY);
    let mut annotations: BTreeMap<String, String> =
        endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    Template {
        namespace: snapshot::namespace(endpoints),
        service: snapshot::name(endpoints),
        manager: MANAGER,
        owner: owned::controller_reference(endpoints),
        labels,
        annotations,
        endpoints_max: ENDPOINTS_MAX,
        has_placeholder: false,
    }
}

/// The endpoints by address type and ports; a subset may have both families.
fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(unready).take(ENDPOINTS_MAX) {
            let address_type = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            let same = |group: &&mut Group| {
                group.address_type == address_type && slices::same_ports(&group.ports, &ports)
            };
            let endpoint = endpoint(address, is_ready);
            match groups.iter_mut().find(same) {
                Some(group) => group.endpoints.push(endpoint),
                None => {
                    groups.push(Group { address_type, ports: ports.clone(), endpoints: vec![endpoint] });
                }
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests;
