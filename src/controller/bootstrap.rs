//! What every cluster has: system namespaces and priority classes, and the Services by which pods
//! find the API and whoever knows names (BEHAVIOURS 11.1, 16.1). Made at start where missing, made again
//! when deleted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointConditions, EndpointSlice};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service_account::is_active;
use super::{Action, Change, Config, Controller, Decision, Dns, Key, KindRef, Moment, Snapshot};
use crate::client::{Client, Result};
use crate::kind::address_plan::AddressPlan;
use crate::kind::{Object, Typed};

const API_SERVICE_PORT: i32 = 443;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const PRIORITIES: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// An object that must exist.
struct Wanted {
    key: Key,
    object: Box<dyn Object>,
}

impl Wanted {
    fn of<K: Typed>(object: K) -> Self {
        let kind = KindRef::of::<K>();
        Self { key: Key::to(kind, &object), object: Box::new(object) }
    }

    /// The content to write if `known` is not as wanted.
    fn correction(&self, known: &dyn Object) -> Option<Box<dyn Object>> {
        let mut corrected = known.clone_object();
        let any = corrected.as_any_mut();
        if let Some(known) = any.downcast_mut::<Endpoints>() {
            let wanted: &Endpoints = self.object.downcast_ref()?;
            known.subsets.clone_from(&wanted.subsets);
        } else if let Some(known) = any.downcast_mut::<EndpointSlice>() {
            let wanted: &EndpointSlice = self.object.downcast_ref()?;
            known.endpoints.clone_from(&wanted.endpoints);
            known.ports.clone_from(&wanted.ports);
        }
        (!corrected.equals(known)).then_some(corrected)
    }
}

/// Makes what a cluster needs before anything else can start; writes nothing that is there already.
pub async fn bootstrap(client: &Client, config: &Config) -> Result<()> {
    try_join_all(namespaces().iter().map(|wanted| ensure(client, wanted))).await?;
    let made = others(config).into_iter().map(async |wanted| match ensure(client, &wanted).await {
        // A cluster that is older than its name server may have given its address away.
        Err(error) if wanted.key.namespace == "kube-system" => {
            tracing::warn!(name = wanted.key.name, %error, "the name server's service cannot be made");
            Ok(())
        }
        made => made,
    });
    try_join_all(made).await?;
    Ok(())
}

async fn ensure(client: &Client, wanted: &Wanted) -> Result<()> {
    let Key { kind, namespace, name } = &wanted.key;
    let known = match client.get_any(kind.0, namespace, name).await {
        Ok(known) => known,
        Err(error) if error.is_not_found() => {
            return match client.create_any(kind.0, wanted.object.clone_object()).await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            };
        }
        Err(error) => return Err(error),
    };
    match wanted.correction(&*known) {
        Some(corrected) => client.update_any(kind.0, corrected, None).await.map(drop),
        None => Ok(()),
    }
}

fn namespaces() -> Vec<Wanted> {
    let namespace = |name: &str| Namespace { metadata: named("", name), ..Namespace::default() };
    NAMESPACES.into_iter().map(|name| Wanted::of(namespace(name))).collect()
}

fn others(config: &Config) -> Vec<Wanted> {
    let api = config.api_address;
    let mut wanted: Vec<Wanted> = PRIORITIES
        .into_iter()
        .map(|(name, value, description)| {
            Wanted::of(PriorityClass {
                metadata: named("", name),
                value,
                description: Some(description.into()),
                ..PriorityClass::default()
            })
        })
        .collect();
    wanted.extend([
        Wanted::of(service(api, config.plan)),
        Wanted::of(endpoints(api)),
        Wanted::of(slice(api)),
    ]);
    wanted.extend(config.dns.iter().flat_map(|dns| {
        [Wanted::of(dns_service(*dns)), Wanted::of(dns_endpoints(*dns)), Wanted::of(dns_slice(*dns))]
    }));
    wanted
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    ObjectMeta { namespace, name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn labelled(labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta { labels: Some(owned(labels)), ..named("default", "kubernetes") }
}

fn owned(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn service(api: SocketAddr, plan: AddressPlan) -> Service {
    let ip = plan.api().to_string();
    Service {
        metadata: labelled(&[("component", "apiserver"), ("provider", "kubernetes")]),
        spec: Some(ServiceSpec {
            cluster_ip: Some(ip.clone()),
            cluster_ips: Some(vec![ip]),
            ip_families: Some(vec!["IPv4".into()]),
            ip_family_policy: Some("SingleStack".into()),
            internal_traffic_policy: Some("Cluster".into()),
            session_affinity: Some("None".into()),
            type_: Some("ClusterIP".into()),
            ports: Some(vec![ServicePort {
                name: Some("https".into()),
                port: API_SERVICE_PORT,
                protocol: Some("TCP".into()),
                target_port: Some(IntOrString::Int(api.port().into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn endpoints(api: SocketAddr) -> Endpoints {
    Endpoints {
        // The slice is made beside it, not mirrored from it.
        metadata: labelled(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![EndpointAddress { ip: api.ip().to_string(), ..EndpointAddress::default() }]),
            ports: Some(vec![EndpointPort {
                name: Some("https".into()),
                port: api.port().into(),
                protocol: Some("TCP".into()),
                ..EndpointPort::default()
            }]),
            ..EndpointSubset::default()
        }]),
    }
}

fn slice(api: SocketAddr) -> EndpointSlice {
    EndpointSlice {
        metadata: labelled(&[("kubernetes.io/service-name", "kubernetes")]),
        address_type: if api.is_ipv4() { "IPv4" } else { "IPv6" }.into(),
        endpoints: vec![discovery::Endpoint {
            addresses: vec![api.ip().to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            ..discovery::Endpoint::default()
        }],
        ports: Some(vec![discovery::EndpointPort {
            name: Some("https".into()),
            port: Some(api.port().into()),
            protocol: Some("TCP".into()),
            ..discovery::EndpointPort::default()
        }]),
    }
}

/// The names and protocols of the ports of `kube-dns`, as everybody's.
const DNS_PORTS: [(&str, &str); 2] = [("dns", "UDP"), ("dns-tcp", "TCP")];

fn dns_meta(labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta { labels: Some(owned(labels)), ..named("kube-system", "kube-dns") }
}

/// The service's address is that of its only endpoint: whoever asks it asks the server.
fn dns_service(dns: Dns) -> Service {
    let ip = dns.address.to_string();
    let port = |(name, protocol): (&str, &str)| ServicePort {
        name: Some(name.into()),
        port: dns.port.into(),
        protocol: Some(protocol.into()),
        target_port: Some(IntOrString::Int(dns.port.into())),
        ..ServicePort::default()
    };
    Service {
        metadata: dns_meta(&[("k8s-app", "kube-dns"), ("kubernetes.io/name", "CoreDNS")]),
        spec: Some(ServiceSpec {
            cluster_ip: Some(ip.clone()),
            cluster_ips: Some(vec![ip]),
            ip_families: Some(vec!["IPv4".into()]),
            ip_family_policy: Some("SingleStack".into()),
            internal_traffic_policy: Some("Cluster".into()),
            session_affinity: Some("None".into()),
            type_: Some("ClusterIP".into()),
            ports: Some(DNS_PORTS.into_iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn dns_endpoints(dns: Dns) -> Endpoints {
    let port = |(name, protocol): (&str, &str)| EndpointPort {
        name: Some(name.into()),
        port: dns.port.into(),
        protocol: Some(protocol.into()),
        ..EndpointPort::default()
    };
    let subset = EndpointSubset {
        addresses: Some(vec![EndpointAddress { ip: dns.address.to_string(), ..EndpointAddress::default() }]),
        ports: Some(DNS_PORTS.into_iter().map(port).collect()),
        ..EndpointSubset::default()
    };
    Endpoints {
        metadata: dns_meta(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: dns.is_served.then(|| vec![subset]),
    }
}

fn dns_slice(dns: Dns) -> EndpointSlice {
    let port = |(name, protocol): (&str, &str)| discovery::EndpointPort {
        name: Some(name.into()),
        port: Some(dns.port.into()),
        protocol: Some(protocol.into()),
        ..discovery::EndpointPort::default()
    };
    let endpoint = discovery::Endpoint {
        addresses: vec![dns.address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..discovery::Endpoint::default()
    };
    EndpointSlice {
        metadata: dns_meta(&[("kubernetes.io/service-name", "kube-dns")]),
        address_type: "IPv4".into(),
        endpoints: if dns.is_served { vec![endpoint] } else { Vec::new() },
        ports: Some(DNS_PORTS.into_iter().map(port).collect()),
    }
}

/// Makes what [`bootstrap`] made again when it is deleted, and puts the API's address right.
pub struct ApiService {
    wanted: Vec<Wanted>,
}

impl ApiService {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut wanted = namespaces();
        wanted.append(&mut others(config));
        Self { wanted }
    }
}

impl Controller for ApiService {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn start(&self) -> Vec<Key> {
        self.wanted.iter().map(|wanted| wanted.key.clone()).collect()
    }

    fn wakes(&self, _seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let key = |wanted: &&Wanted| {
            wanted.key.kind == change.kind && wanted.key == Key::to(change.kind, change.object())
        };
        if let Some(wanted) = self.wanted.iter().find(key) {
            wake(wanted.key.clone());
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let Some(wanted) = self.wanted.iter().find(|wanted| wanted.key == *key) else {
            return Decision::default();
        };
        if key.kind.0.is_namespaced() && !is_active(seen, &key.namespace) {
            return Decision::default();
        }
        match seen.get_any(key.kind, &key.namespace, &key.name) {
            None => Decision::act(vec![Action::Create(key.kind, wanted.object.clone_object())]),
            Some(known) => match wanted.correction(&**known) {
                Some(corrected) => Decision::act(vec![Action::Update(key.kind, corrected, None)]),
                None => Decision::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
