//! What addresses and ports of services lead to, as pure functions (upstream `pkg/proxy`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::kind::service::is_headless;
use crate::runtime::network::Protocol;

/// `(namespace, name)`
pub(crate) type Name = (String, String);

/// One port of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) service: Name,
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// `internalTrafficPolicy: Local`: only endpoints of the caller's node.
    internal_local: bool,
    /// `externalTrafficPolicy: Local`: only endpoints of the node that was asked.
    external_local: bool,
    /// How long a client stays with its endpoint.
    pub(crate) affinity: Option<Duration>,
    backends: Vec<Backend>,
    /// The backends that all may reach while no policy says otherwise.
    usual: Vec<SocketAddrV4>,
}

/// An endpoint, for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddrV4,
    node: Option<String>,
    is_ready: bool,
    /// Its pod is being deleted.
    is_going: bool,
    /// Going, but still answering.
    is_draining: bool,
}

/// An address and port at which a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Front {
    /// `clusterIP`.
    Cluster(Protocol, SocketAddrV4),
    /// An external address, or one of a load balancer.
    External(Protocol, SocketAddrV4),
    /// A port of every node.
    Node(Protocol, u16),
}

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    /// The node from which a pod asks, or that was asked from outside.
    pub(crate) node: Option<&'a str>,
    /// Whether it is a pod: for those an external address is only another name of the service.
    pub(crate) is_pod: bool,
}

/// What a service has at its fronts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    /// Of several services that ask for the same front the oldest has it.
    since: i64,
    fronts: Vec<(Front, Arc<Port>)>,
}

/// All fronts of all services.
#[derive(Default)]
pub(crate) struct Table {
    services: BTreeMap<Name, Listed>,
    fronts: HashMap<Front, Vec<(i64, Name, Arc<Port>)>>,
    /// How often each address is an endpoint that is not going.
    offered: HashMap<Ipv4Addr, usize>,
}

impl Table {
    /// Takes what there is of a service now: the service itself, if it is there, and its slices. Returns
    /// whether anything of it changed.
    pub(crate) fn set<'a>(
        &mut self,
        name: &Name,
        service: Option<&Service>,
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    ) -> bool {
        let listed = service.map(|service| list(name, service, slices)).filter(|one| !one.fronts.is_empty());
        if self.services.get(name) == listed.as_ref() {
            return false;
        }
        if let Some(old) = self.services.remove(name) {
            for (front, port) in old.fronts {
                for ip in port.offered() {
                    if let Some(count) = self.offered.get_mut(&ip) {
                        *count -= 1;
                        if *count == 0 {
                            self.offered.remove(&ip);
                        }
                    }
                }
                if let Some(all) = self.fronts.get_mut(&front) {
                    all.retain(|(_, owner, _)| owner != name);
                    if all.is_empty() {
                        self.fronts.remove(&front);
                    }
                }
            }
        }
        if let Some(listed) = listed {
            for (front, port) in &listed.fronts {
                let all = self.fronts.entry(*front).or_default();
                all.push((listed.since, name.clone(), port.clone()));
                all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                for ip in port.offered() {
                    *self.offered.entry(ip).or_default() += 1;
                }
            }
            self.services.insert(name.clone(), listed);
        }
        true
    }

    /// Whose a front is.
    pub(crate) fn at(&self, front: Front) -> Option<&Arc<Port>> {
        self.fronts.get(&front).and_then(|all| all.first()).map(|(_, _, port)| port)
    }

    /// All fronts with the service that has each, and those that asked for it too.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = (Front, &Arc<Port>, impl Iterator<Item = &Name>)> {
        self.fronts.iter().filter_map(|(front, all)| {
            let (first, others) = all.split_first()?;
            Some((*front, &first.2, others.iter().map(|(_, name, _)| name)))
        })
    }

    /// Whether a service leads to somebody at `ip` who is not going.
    pub(crate) fn offers(&self, ip: Ipv4Addr) -> bool {
        self.offered.contains_key(&ip)
    }

    /// The service's port at an address that a pod asks for, if it is a service's.
    pub(crate) fn find(
        &self,
        protocol: Protocol,
        to: SocketAddrV4,
        is_node: bool,
    ) -> Option<(Front, &Arc<Port>)> {
        let node = is_node.then_some(Front::Node(protocol, to.port()));
        let fronts = [Some(Front::Cluster(protocol, to)), Some(Front::External(protocol, to)), node];
        fronts.into_iter().flatten().find_map(|front| Some((front, self.at(front)?)))
    }
}

impl Port {
    /// The endpoints that `caller` may reach through `front`: those that are ready, or while there is none,
    /// those that are going and still answer.
    pub(crate) fn candidates(&self, front: Front, caller: Caller<'_>) -> Cow<'_, [SocketAddrV4]> {
        let is_local = match front {
            Front::Cluster(..) => self.internal_local,
            Front::External(..) | Front::Node(..) => self.external_local && !caller.is_pod,
        };
        // Whoever is on the machine and asks no node in particular is on all of its nodes.
        let node = if caller.is_pod { Some(caller.node.unwrap_or_default()) } else { caller.node };
        match node.filter(|_| is_local) {
            None => Cow::Borrowed(&self.usual),
            Some(node) => {
                let within = |one: &&Backend| one.node.as_deref() == Some(node);
                Cow::Owned(reachable(self.backends.iter().filter(within)))
            }
        }
    }

    pub(crate) fn has_candidates(&self, front: Front, caller: Caller<'_>) -> bool {
        !self.candidates(front, caller).is_empty()
    }

    /// The addresses of endpoints that are not going.
    fn offered(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.backends.iter().filter(|one| one.is_ready && !one.is_going).map(|one| *one.address.ip())
    }

    /// Whether somebody else listens there already: an endpoint that is its own front.
    pub(crate) fn is_served_by_itself(&self, at: SocketAddrV4) -> bool {
        self.backends.iter().any(|one| one.address == at)
    }
}

/// Those that are ready, or else those that are going and still answer.
fn reachable<'a>(backends: impl Iterator<Item = &'a Backend> + Clone) -> Vec<SocketAddrV4> {
    let some = |rule: fn(&&Backend) -> bool| -> Vec<SocketAddrV4> {
        backends.clone().filter(rule).map(|one| one.address).collect()
    };
    let ready = some(|one| one.is_ready);
    if ready.is_empty() { some(|one| one.is_draining) } else { ready }
}

/// The `dice`th of `candidates` that was not tried yet.
pub(crate) fn pick(candidates: &[SocketAddrV4], tried: &[SocketAddrV4], dice: u64) -> Option<SocketAddrV4> {
    let left = candidates.iter().filter(|one| !tried.contains(one));
    let count = if tried.is_empty() { candidates.len() } else { left.clone().count() };
    let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
    left.copied().nth(usize::try_from(dice % count).ok()?)
}

fn list<'a>(
    name: &Name,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
) -> Listed {
    let since = service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let mut fronts = Vec::new();
    let Some(spec) = &service.spec else { return Listed { since, fronts } };
    for one in spec.ports.iter().flatten() {
        let Some(protocol) = protocol(one.protocol.as_deref()) else { continue };
        let backends = backends(one, protocol, slices.clone());
        let port = Arc::new(Port {
            service: name.clone(),
            name: one.name.clone().unwrap_or_default(),
            protocol,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity: affinity(spec),
            usual: reachable(backends.iter()),
            backends,
        });
        fronts.extend(fronts_of(service, spec, one, protocol).into_iter().map(|front| (front, port.clone())));
    }
    Listed { since, fronts }
}

fn fronts_of(service: &Service, spec: &ServiceSpec, port: &ServicePort, protocol: Protocol) -> Vec<Front> {
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    let Ok(number) = u16::try_from(port.port) else { return Vec::new() };
    let at = |ip: &str| ip.parse::<Ipv4Addr>().ok().map(|ip| SocketAddrV4::new(ip, number));
    let mut fronts = Vec::new();
    if type_ == "ExternalName" || is_headless(spec) {
        return fronts;
    }
    fronts.extend(spec.cluster_ip.as_deref().and_then(at).map(|at| Front::Cluster(protocol, at)));
    let external = spec.external_ips.iter().flatten().map(String::as_str);
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default()
        .iter()
        .filter(|one| type_ == "LoadBalancer" && one.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|one| one.ip.as_deref());
    fronts.extend(external.chain(ingress).filter_map(at).map(|at| Front::External(protocol, at)));
    if matches!(type_, "NodePort" | "LoadBalancer") {
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        fronts.extend(node_port.map(|port| Front::Node(protocol, port)));
    }
    fronts
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    let client = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = client.and_then(|client| client.timeout_seconds).unwrap_or(10_800);
    (spec.session_affinity.as_deref() == Some("ClientIP"))
        .then(|| Duration::from_secs(seconds.max(0).unsigned_abs().into()))
}

pub(super) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// The endpoints of a service's port, in no order but always the same.
fn backends<'a>(
    port: &ServicePort,
    wanted: Protocol,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Vec<Backend> {
    let mut found: BTreeMap<SocketAddrV4, Backend> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let name = port.name.as_deref().unwrap_or_default();
        let numbers = slice
            .ports
            .iter()
            .flatten()
            .filter(|one| one.name.as_deref().unwrap_or_default() == name)
            .filter(|one| protocol(one.protocol.as_deref()) == Some(wanted))
            .filter_map(|one| u16::try_from(one.port?).ok());
        for number in numbers {
            for endpoint in &slice.endpoints {
                let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
                let address = SocketAddrV4::new(ip, number);
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                // What is not said is true, but for `terminating`.
                let is_ready = conditions.ready != Some(false);
                let is_serving = conditions.serving.unwrap_or(is_ready);
                let is_going = conditions.terminating == Some(true);
                let backend = Backend {
                    address,
                    node: endpoint.node_name.clone(),
                    is_ready,
                    is_going,
                    is_draining: is_serving && is_going,
                };
                // While an endpoint moves between slices it is in both.
                match found.get_mut(&address) {
                    Some(known) if known.is_ready || !is_ready => {}
                    Some(known) => *known = backend,
                    None => drop(found.insert(address, backend)),
                }
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests;
