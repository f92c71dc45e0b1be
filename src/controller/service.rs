//! Tells where the pods of a Service are: its EndpointSlices and its Endpoints (BEHAVIOURS 16.3; upstream
//! `pkg/controller/endpointslice` and `pkg/controller/endpoint`).
//!
//! Which pods a service has is kept up to date as pods change, so that a change costs as much as the
//! services of that pod, however many pods and services there are beside.

mod endpoints;
mod members;
pub(crate) mod slices;

use std::collections::BTreeMap;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::{Endpoints, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use self::members::Members;
use self::slices::{Group, SLICE_ENDPOINTS_MAX, Template};
use super::service_account::is_active;
use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, owned, snapshot};
use crate::kind::endpoint_slice::{MANAGED_BY, SERVICE_NAME};
use crate::kind::service::is_headless;

/// Who makes the slices, as their label says.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Who makes Endpoints, as their label says since Kubernetes 1.33.
const ENDPOINTS_MANAGER: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Finds slices by `namespace/service`.
pub(super) static SLICES: Index = Index {
    name: "slices by service",
    of: |object, give| {
        if let Some(service) = object.downcast_ref::<EndpointSlice>().and_then(service_of) {
            give(&format!("{}/{service}", snapshot::namespace(object)), 0);
        }
    },
};

/// The service that a slice is of.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// The service's slices that `manager` makes, by name.
pub(super) fn slices_of<'a>(
    seen: &'a Snapshot,
    namespace: &str,
    service: &str,
    manager: &str,
) -> Vec<&'a EndpointSlice> {
    seen.indexed(SLICES.name, &format!("{namespace}/{service}"))
        .filter_map(|(_, slice)| slice.downcast_ref::<EndpointSlice>())
        .filter(|slice| manager_of(slice) == Some(manager))
        .collect()
}

pub(super) fn manager_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(MANAGED_BY).map(String::as_str)
}

/// What pods the service is for; `None` if somebody else says where it is.
pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let is_ours = spec.type_.as_deref() != Some("ExternalName");
    spec.selector.as_ref().filter(|selector| is_ours && !selector.is_empty())
}

#[derive(Default)]
pub struct ServiceEndpoints {
    /// Follows from what was seen.
    members: Mutex<Members>,
}

impl Controller for ServiceEndpoints {
    fn name(&self) -> &'static str {
        "service_endpoints"
    }

    fn indexes(&self) -> &'static [Index] {
        std::slice::from_ref(&SLICES)
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let services = KindRef::of::<Service>();
        let object = change.object();
        let namespace = snapshot::namespace(object);
        if object.downcast_ref::<Pod>().is_some() {
            let old = change.old.and_then(|old| old.downcast_ref::<Pod>());
            let new = change.new.and_then(|new| new.downcast_ref::<Pod>());
            let mut members = self.members.lock().expect("no holder panics");
            members.pod(namespace, old, new, &mut |service| wake(Key::new(services, namespace, service)));
        } else if let Some(service) = object.downcast_ref::<Service>() {
            let selector = change.new.and_then(|_| selector(service));
            let mut members = self.members.lock().expect("no holder panics");
            members.service(seen, namespace, snapshot::name(service), selector);
            wake(Key::to(services, service));
        } else if let Some(slice) = object.downcast_ref::<EndpointSlice>() {
            let before = change.old.and_then(|old| old.downcast_ref::<EndpointSlice>());
            for slice in [Some(slice), before].into_iter().flatten() {
                if let Some(service) = service_of(slice).filter(|_| manager_of(slice) == Some(MANAGER)) {
                    wake(Key::new(services, namespace, service));
                }
            }
        } else if object.downcast_ref::<Endpoints>().is_some() {
            let key = Key::new(services, namespace, snapshot::name(object));
            let has_selector = |service: &Service| selector(service).is_some();
            let is_orphan = object.downcast_ref::<Endpoints>().is_some_and(endpoints::is_ours);
            match seen.get::<Service>(namespace, &key.name) {
                Some(service) if has_selector(service) => wake(key),
                None if is_orphan => wake(key),
                Some(_) | None => {}
            }
        } else if let Some(node) = object.downcast_ref::<Node>()
            && (change.new.is_none()
                || change.old.and_then(|old| old.downcast_ref::<Node>()).map(zone) != Some(zone(node)))
        {
            // Nodes do not come, move or go often.
            self.members.lock().expect("no holder panics").all(&mut |namespace, service| {
                wake(Key::new(services, namespace, service));
            });
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
        let known = seen.get::<Endpoints>(namespace, name);
        let Some(service) = seen.get::<Service>(namespace, name) else {
            // Slices have an owner with which they go.
            return Decision::act(known.map(|known| endpoints::delete(key, known)).unwrap_or_default());
        };
        if selector(service).is_none()
            || service.metadata.deletion_timestamp.is_some()
            || !is_active(seen, namespace)
        {
            return Decision::default();
        }
        let names = self.members.lock().expect("no holder panics").pods(namespace, name);
        let pods = names.iter().filter_map(|name| seen.get::<Pod>(namespace, name));
        // Nobody is left to say what became of the pods of a node that is gone (as upstream's reconciler of slices).
        let has_node = |pod: &&Pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            publishes_not_ready(service) || node.is_none_or(|node| seen.get::<Node>("", node).is_some())
        };
        let pods: Vec<&Pod> = pods.filter(has_node).collect();
        let zone_of = |node: &str| seen.get::<Node>("", node).and_then(zone).map(str::to_owned);
        let existing = slices_of(seen, namespace, name, MANAGER);
        let mut actions = slices::plan(&template(service), groups(service, &pods, &zone_of), &existing);
        actions.extend(endpoints::correction(service, &pods, known));
        Decision::act(if actions.len() > 1 { vec![Action::Together(actions)] } else { actions })
    }
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str)
}

fn template(service: &Service) -> Template<'_> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    // A service does not say whose its slices are.
    labels.retain(|key, _| key != HEADLESS && key != SERVICE_NAME && key != MANAGED_BY);
    if service.spec.as_ref().is_some_and(is_headless) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    Template {
        namespace: snapshot::namespace(service),
        service: snapshot::name(service),
        manager: MANAGER,
        owner: owned::controller_reference(service),
        labels,
        annotations: BTreeMap::new(),
        endpoints_max: SLICE_ENDPOINTS_MAX,
        has_placeholder: true,
    }
}

/// The service's endpoints by the ports that they have.
fn groups(service: &Service, pods: &[&Pod], zone_of: &dyn Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in pods {
        let ports: Vec<EndpointPort> = ports_of(service, pod)
            .into_iter()
            .map(|(port, number)| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(number),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let endpoint = endpoint(service, pod, zone_of);
        match groups.iter_mut().find(|group| group.ports == ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Group { address_type: "IPv4", ports, endpoints: vec![endpoint] }),
        }
    }
    groups
}

/// Where a pod takes what comes to a service: the ports that it has of the service's, by number.
fn ports_of<'a>(service: &'a Service, pod: &Pod) -> Vec<(&'a ServicePort, i32)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| Some((port, target(port, pod)?))).collect()
}

/// The number of a service's port in a pod: `targetPort`, which may be a name of one of the pod's.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let protocol = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP").to_owned();
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|one| {
                    one.name.as_ref() == Some(name) && protocol(&one.protocol) == protocol(&port.protocol)
                })
                .map(|one| one.container_port)
        }
    }
}

fn endpoint(service: &Service, pod: &Pod, zone_of: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let serving = owned::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
    Endpoint {
        addresses: vec![ip(pod).unwrap_or_default().to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod).map(str::to_owned),
        zone: node.as_deref().and_then(zone_of),
        node_name: node,
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    }
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The name of a pod within its headless service, whose name is the pod's subdomain.
fn hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let is_within = spec.subdomain.as_deref() == Some(snapshot::name(service));
    spec.hostname.as_deref().filter(|name| is_within && !name.is_empty())
}

fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The address of a pod that has one.
fn ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// Whether a pod can be an endpoint: it has an address and has not finished.
fn has_address(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    ip(pod).is_some() && !matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests;
