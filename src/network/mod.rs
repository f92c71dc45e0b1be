//! Addresses and names: what a pod's connections reach.
//!
//! The host makes every connection that a guest asks for, so nothing has to be installed between them:
//! [`PodNetwork`] says where each goes. [`pod_addresses`] hands out the pods' addresses; [`claim`] finds
//! the part of loopback that is this cluster's; [`dns`] knows what names stand for; [`policy`] and [`egress`]
//! say what may not be reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::runtime::Handle;

use self::conversations::{Conversations, Speaker};
use self::egress::{Egress, Tell};
use self::services::Services;
use self::services::flows::Flows;
use crate::client::{Client, Recorder, Select};
use crate::clock::Clock;
use crate::kind::address_plan::{AddressPlan, is_machines, is_node, is_pod};
use crate::random::Random;
use crate::runtime::doors::{Door, Doors};
use crate::runtime::network::{LookupError, Network, Protocol, Refusal};

use dns::Names;
use dns::names::{Hosts, Settings};

pub mod claim;
mod conversations;
mod dial;
pub mod dns;
mod egress;
pub(crate) mod pod_addresses;
mod policy;
pub(crate) mod services;

use policy::Policies;

pub use dial::dial;

pub(crate) use pod_addresses::{PodAddress, PodAddresses};
pub use services::listeners::Listeners;
pub use services::wanted::NodeAddress;

#[cfg(test)]
mod tests;

/// What the networks of all pods of the process share; cheap to clone.
#[derive(Clone)]
pub struct Networks(Arc<Shared>);

struct Shared {
    plan: AddressPlan,
    clock: Clock,
    addresses: PodAddresses,
    names: Arc<Names>,
    policies: Policies,
    services: Services,
    doors: Doors,
}

impl Networks {
    #[must_use]
    pub fn new(plan: AddressPlan, clock: Clock, random: &Random) -> Self {
        let addresses = PodAddresses::beginning_anywhere(random);
        let names = Arc::new(Names::new(plan.dns(), clock, random.clone()));
        let services = Services::new(plan, clock, random.clone());
        let (policies, doors) = (Policies::default(), Doors::default());
        Self(Arc::new(Shared { plan, clock, addresses, names, policies, services, doors }))
    }

    /// Follows the API, so that names, services and policies are known, until it shuts down.
    pub(crate) async fn follow(&self, client: &Client) {
        tokio::join!(self.0.policies.follow(client), self.follow_services(client));
    }

    async fn follow_services(&self, client: &Client) {
        let Shared { names, services: table, .. } = &*self.0;
        let mut services = client.watch::<Service>(Select::default());
        let mut slices = client.watch::<EndpointSlice>(Select::default());
        let mut nodes = client.watch::<Node>(Select::default());
        loop {
            tokio::select! {
                batch = nodes.next_batch() => {
                    let Some(batch) = batch else { return };
                    table.saw_nodes(&batch);
                }
                batch = services.next_batch() => {
                    let Some(batch) = batch else { return };
                    // Whoever has found a name reaches what it stands for.
                    table.saw_services(&batch);
                    names.saw_services(&batch);
                }
                batch = slices.next_batch() => {
                    let Some(batch) = batch else { return };
                    table.saw_slices(&batch);
                    names.saw_slices(&batch);
                }
            }
        }
    }

    /// The cluster's names.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.0.names)
    }

    /// Where services' addresses lead.
    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    /// Opens services, and `hostPort`s of pods, to everybody on the machine; `nodes` are those of this
    /// process whose ports are open. It runs on `threads`, best those of the guests: what comes is theirs.
    #[must_use]
    pub fn listen(
        &self,
        threads: &Handle,
        nodes: Vec<NodeAddress>,
        recorder: Recorder,
        clock: Clock,
    ) -> Listeners {
        let Shared { services, doors, .. } = &*self.0;
        Listeners::start(threads, services.clone(), doors.clone(), nodes, recorder, clock)
    }

    #[must_use]
    pub fn plan(&self) -> AddressPlan {
        self.0.plan
    }

    /// Returns once what there is has been seen.
    pub(crate) async fn synced(&self) {
        self.0.policies.synced().await;
    }

    /// An address for a pod; `None` when eight million have one.
    pub(crate) fn take_address(&self) -> Option<PodAddress> {
        self.0.addresses.take()
    }

    /// The network of `pod` on a node with the address `host`; `tell` is how the user hears of what a list of
    /// hosts refuses.
    pub(crate) fn of_pod(
        &self,
        pod: &Arc<Pod>,
        address: Ipv4Addr,
        host: Ipv4Addr,
        tell: impl Fn(String) + Send + Sync + 'static,
    ) -> PodNetwork {
        let (shared, tell): (_, Tell) = (self.0.clone(), Box::new(tell));
        let egress = shared.names.restricted().enter(pod, address, address != host, shared.clock, tell);
        let (flows, conversations) = (Mutex::default(), Mutex::default());
        PodNetwork { shared, pod: pod.clone(), address, host, flows, conversations, egress }
    }
}

/// What one pod's connections reach.
pub(crate) struct PodNetwork {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    /// The services that it sends datagrams to.
    flows: Mutex<Flows>,
    conversations: Mutex<Conversations>,
    /// If it has a list of hosts.
    egress: Option<Arc<Egress>>,
    address: Ipv4Addr,
    /// Its node's.
    host: Ipv4Addr,
}

impl PodNetwork {
    /// What the pod's resolver is told: resolv.conf(5).
    pub(crate) fn resolver(&self) -> Settings {
        self.shared.names.settings(&self.pod)
    }

    /// The names it knows by itself: hosts(5).
    pub(crate) fn hosts(&self) -> Hosts {
        Hosts::of_pod(&self.pod)
    }

    /// Whom it reaches at `to`, which may be a service's.
    fn endpoint(&self, protocol: Protocol, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal> {
        let node = self.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let services = &self.shared.services;
        match protocol {
            Protocol::Tcp => services.route(self.address.into(), node, protocol, to, None),
            Protocol::Udp => {
                let mut flows = self.flows.lock().expect("no holder panics");
                let reached = services.route(self.address.into(), node, protocol, to, flows.endpoint(to))?;
                flows.note(to, reached);
                Ok(reached)
            }
        }
    }

    /// Whether policies, and the pod's list of hosts, let it connect to `reached`, which it calls `asked`.
    fn permits(&self, protocol: Protocol, asked: SocketAddrV4, reached: SocketAddrV4) -> bool {
        let (policies, ip, port) = (&self.shared.policies, *reached.ip(), reached.port());
        (self.is_hosts() || policies.permit_egress(&self.pod, self.address, protocol, ip, port))
            && self.is_listed(asked, reached)
    }

    fn is_listed(&self, asked: SocketAddrV4, reached: SocketAddrV4) -> bool {
        let (Some(egress), plan) = (&self.egress, self.shared.plan) else { return true };
        if *asked.ip() == plan.dns() {
            // The server knows by their addresses whom it must not ask others for.
            return !self.is_hosts();
        }
        // The API may be said to be anywhere.
        let is_cluster = reached.ip().is_loopback() || *asked.ip() == plan.api();
        is_cluster || egress.permits(reached)
    }

    /// Whether a datagram belongs to what was let through before.
    fn goes_on(&self, port: u16, peer: SocketAddrV4, speaker: Speaker) -> bool {
        let now = self.shared.clock.monotonic();
        self.conversations.lock().expect("no holder panics").goes_on(port, peer, speaker, now)
    }

    /// Notes that a datagram is let through.
    fn note(&self, port: u16, peer: SocketAddrV4, speaker: Speaker) {
        let now = self.shared.clock.monotonic();
        self.conversations.lock().expect("no holder panics").note(port, peer, speaker, now);
    }

    /// Whether it has its node's network.
    fn is_hosts(&self) -> bool {
        self.address == self.host
    }
}

#[async_trait]
impl Network for PodNetwork {
    fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn route(&self, protocol: Protocol, port: u16, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal> {
        let is_datagram = protocol == Protocol::Udp;
        // Whoever asked from the machine's own address is answered there.
        if is_datagram && is_machines(*to.ip()) && self.goes_on(port, to, Speaker::Pod) {
            return Ok(to);
        }
        // The containers of a pod share one machine.
        if *to.ip() == Ipv4Addr::LOCALHOST {
            return Ok(SocketAddrV4::new(self.address, to.port()));
        }
        if is_machines(*to.ip()) {
            return Err(Refusal::Denied);
        }
        let reached = self.endpoint(protocol, to)?;
        if is_datagram && self.goes_on(port, reached, Speaker::Pod) {
            return Ok(reached);
        }
        if !self.permits(protocol, to, reached) {
            return Err(Refusal::Denied);
        }
        if is_datagram {
            self.note(port, reached, Speaker::Pod);
        }
        Ok(reached)
    }

    fn sends(&self, port: u16, to: SocketAddrV4) {
        self.note(port, to, Speaker::Pod);
    }

    fn another(&self, to: SocketAddrV4, tried: &[SocketAddrV4]) -> Option<SocketAddrV4> {
        let node = self.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let services = &self.shared.services;
        let found = services.another(self.address.into(), node, Protocol::Tcp, to, tried);
        found.filter(|reached| self.permits(Protocol::Tcp, to, *reached))
    }

    fn origin(&self, from: SocketAddrV4) -> SocketAddrV4 {
        self.flows.lock().expect("no holder panics").service(from)
    }

    fn admits(&self, protocol: Protocol, port: u16, from: SocketAddr) -> bool {
        let datagram = match from {
            SocketAddr::V4(from) if protocol == Protocol::Udp => Some(from),
            SocketAddr::V4(_) | SocketAddr::V6(_) => None,
        };
        if datagram.is_some_and(|from| self.goes_on(port, from, Speaker::Peer)) {
            return true;
        }
        // A pod's own network has asked for both ends, and may be that of a pod too new to be known.
        let is_asked = matches!(from.ip(), IpAddr::V4(ip) if is_node(ip) || is_pod(ip));
        let policies = &self.shared.policies;
        let is_admitted = self.is_hosts()
            || is_asked
            || policies.permit_ingress(&self.pod, self.address, protocol, from.ip(), port);
        if let Some(from) = datagram.filter(|_| is_admitted) {
            self.note(port, from, Speaker::Peer);
        }
        is_admitted
    }

    fn door(&self, port: u16) -> Door {
        self.shared.doors.open(SocketAddrV4::new(self.address, port))
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let (settings, hosts) = (self.resolver(), self.hosts());
        let egress = self.egress.as_deref();
        let may_ask = |name: &str| egress.is_none_or(|egress| egress.is_listed(name));
        let found = self.shared.names.lookup(&settings, &hosts, self.address, name, &may_ask).await;
        match found {
            Ok(found) => {
                if let Some(egress) = egress {
                    egress.note(&found.name, &found.addresses);
                }
                Ok(found.addresses)
            }
            Err(dns::LookupError::NoSuchName) => Err(LookupError::Unknown),
            Err(dns::LookupError::Refused(name)) => {
                if let Some(egress) = egress {
                    egress.refuse_name(&name);
                }
                Err(LookupError::Refused)
            }
            Err(dns::LookupError::NobodyAnswers(why)) => {
                tracing::debug!(name, %why, "a name could not be looked up");
                Err(LookupError::Temporary)
            }
        }
    }
}
