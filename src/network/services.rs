//! Services: where their addresses lead, and what containers are told of them. Names share the watch of
//! Services and EndpointSlices.
//!
//! A pod's connection to a service goes straight to an endpoint: the host that makes it asks
//! [`Services::route`] first. Whoever else is on the machine is let in by [`listeners`].

mod affinity;
mod env;
pub(crate) mod flows;
pub(crate) mod listeners;
pub(crate) mod table;
mod udp;
pub(crate) mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;

use self::affinity::Affinity;
use self::table::{Caller, Front, Name, Port, Table, pick};
use self::wanted::{HostPorts, Target};
use crate::client::Event;
use crate::clock::Clock;
use crate::kind::Typed;
use crate::kind::address_plan::{AddressPlan, is_node};
use crate::kind::endpoint_slice::SERVICE_NAME;
use crate::random::Random;
use crate::runtime::network::{Protocol, Refusal};

/// The namespace and name of the API's own service.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");

type Variables = Arc<Vec<(String, String)>>;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services(Arc<Inner>);

struct Inner {
    plan: AddressPlan,
    clock: Clock,
    random: Random,
    state: Mutex<State>,
    /// Counts changes of the table; 0 until all is known.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    services: BTreeMap<Name, Arc<Service>>,
    /// By service and name.
    slices: BTreeMap<Name, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Which service a slice was of.
    of_slices: HashMap<Name, Name>,
    /// What pods have of their nodes.
    host_ports: HostPorts,
    /// The nodes that there are, once that is known.
    nodes: Option<BTreeSet<String>>,
    table: Table,
    affinity: Affinity,
    /// Made when asked for, forgotten with the next change.
    made: BTreeMap<Option<String>, Variables>,
    knows_services: bool,
    knows_slices: bool,
}

impl Services {
    pub(crate) fn new(plan: AddressPlan, clock: Clock, random: Random) -> Self {
        let version = watch::Sender::new(0);
        Self(Arc::new(Inner { plan, clock, random, state: Mutex::default(), version }))
    }

    /// Returns once the services that there are have been seen.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as `self`.
        if self.changes().wait_for(|version| *version > 0).await.is_err() {
            tracing::debug!("services are no longer followed");
        }
    }

    /// Tells of every change of what addresses lead to.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    pub(super) fn saw_services(&self, batch: &[Event<Service>]) {
        let mut state = self.lock();
        state.made.clear();
        let mut touched = BTreeSet::new();
        for event in batch {
            match event {
                Event::Restarted(all) => {
                    touched.extend(std::mem::take(&mut state.services).into_keys());
                    touched.extend(all.iter().map(|service| key(&**service)));
                    state.services = all.iter().map(|service| (key(&**service), service.clone())).collect();
                    state.knows_services = true;
                }
                Event::Applied(service) => {
                    touched.insert(key(&**service));
                    state.services.insert(key(&**service), service.clone());
                }
                Event::Deleted(service) => {
                    touched.insert(key(&**service));
                    state.services.remove(&key(&**service));
                }
            }
        }
        self.refresh(&mut state, &touched);
    }

    pub(super) fn saw_slices(&self, batch: &[Event<EndpointSlice>]) {
        let mut state = self.lock();
        let mut touched = BTreeSet::new();
        for event in batch {
            match event {
                Event::Restarted(all) => {
                    state.of_slices.clear();
                    touched.extend(std::mem::take(&mut state.slices).into_keys());
                    for slice in all {
                        touched.extend(state.put(slice.clone()));
                    }
                    state.knows_slices = true;
                }
                Event::Applied(slice) => {
                    // Its label may have changed.
                    touched.extend(state.take(slice));
                    touched.extend(state.put(slice.clone()));
                }
                Event::Deleted(slice) => touched.extend(state.take(slice)),
            }
        }
        self.refresh(&mut state, &touched);
    }

    pub(super) fn saw_nodes(&self, batch: &[Event<Node>]) {
        let mut state = self.lock();
        let known = state.nodes.get_or_insert_default();
        let mut is_changed = false;
        for event in batch {
            match event {
                Event::Restarted(all) => {
                    *known = all.iter().map(|node| key(&**node).1).collect();
                    is_changed = true;
                }
                Event::Applied(node) => is_changed |= known.insert(key(&**node).1),
                Event::Deleted(node) => is_changed |= known.remove(&key(&**node).1),
            }
        }
        // Only what pods have of nodes depends on them.
        if is_changed && !state.host_ports.is_empty() {
            drop(state);
            self.0.version.send_modify(|version| *version += u64::from(*version > 0));
        }
    }

    fn refresh(&self, state: &mut State, touched: &BTreeSet<Name>) {
        let State { services, slices, table, affinity, .. } = state;
        let mut is_changed = false;
        for name in touched {
            let service = services.get(name).map(|service| &**service);
            let of = slices.get(name).into_iter().flat_map(BTreeMap::values).map(|slice| &**slice);
            is_changed |= table.set(name, service, of);
            if service.is_none() {
                affinity.forget(name);
            }
        }
        let is_first = state.knows_services && state.knows_slices && *self.0.version.borrow() == 0;
        if is_first || is_changed && *self.0.version.borrow() > 0 {
            self.0.version.send_modify(|version| *version += 1);
        }
    }

    /// Whom a pod's connection, or datagram, to `to` reaches: `last`, where that was an answer before and is
    /// one still.
    ///
    /// # Errors
    /// If it is a service's address and nobody is there.
    pub(crate) fn route(
        &self,
        from: IpAddr,
        node: Option<&str>,
        protocol: Protocol,
        to: SocketAddrV4,
        last: Option<SocketAddrV4>,
    ) -> Result<SocketAddrV4, Refusal> {
        let caller = Caller { node, is_pod: true };
        let mut state = self.lock();
        if let Some(to) = state.host_port((protocol, to)) {
            return Ok(to);
        }
        let Some((front, port)) = state.table.find(protocol, to, is_node(*to.ip())) else {
            let is_ours = AddressPlan::of_service(*to.ip()) == Some(self.0.plan);
            return if is_ours { Err(Refusal::NoEndpoint) } else { Ok(to) };
        };
        if let Some(last) = last.filter(|last| port.candidates(front, caller).contains(last)) {
            return Ok(last);
        }
        let port = port.clone();
        self.choose(&mut state, &port, front, caller, from, &[]).ok_or(Refusal::NoEndpoint)
    }

    /// Another endpoint for a pod that was not let in by those that it tried.
    pub(crate) fn another(
        &self,
        from: IpAddr,
        node: Option<&str>,
        protocol: Protocol,
        to: SocketAddrV4,
        tried: &[SocketAddrV4],
    ) -> Option<SocketAddrV4> {
        let mut state = self.lock();
        if state.host_port((protocol, to)).is_some() {
            return None;
        }
        let (front, port) = state.table.find(protocol, to, is_node(*to.ip()))?;
        let port = port.clone();
        self.choose(&mut state, &port, front, Caller { node, is_pod: true }, from, tried)
    }

    /// Whether a service leads to a pod at `ip` as to one that is not going.
    pub(crate) fn offers(&self, ip: Ipv4Addr) -> bool {
        self.lock().table.offers(ip)
    }

    /// Returns once no service does.
    pub(crate) async fn withdrawn(&self, ip: Ipv4Addr) {
        let mut changes = self.changes();
        // Not looked at while the version is: who changes the table holds that when it tells of a version.
        while self.offers(ip) {
            // The sender lives as long as `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// An endpoint for somebody on the machine who came to `front`, none of `tried`.
    pub(crate) fn endpoint(
        &self,
        front: Front,
        node: Option<&str>,
        from: IpAddr,
        tried: &[SocketAddrV4],
    ) -> Option<SocketAddrV4> {
        let mut state = self.lock();
        let port = state.table.at(front)?.clone();
        self.choose(&mut state, &port, front, Caller { node, is_pod: false }, from, tried)
    }

    fn choose(
        &self,
        state: &mut State,
        port: &Port,
        front: Front,
        caller: Caller<'_>,
        from: IpAddr,
        tried: &[SocketAddrV4],
    ) -> Option<SocketAddrV4> {
        let candidates = port.candidates(front, caller);
        if port.affinity.is_none() {
            return pick(&candidates, tried, self.dice(candidates.len()));
        }
        let now = self.0.clock.monotonic();
        let known = state.affinity.known(port, from, &candidates, now).filter(|one| !tried.contains(one));
        let chosen = known.or_else(|| pick(&candidates, tried, self.dice(candidates.len())))?;
        state.affinity.note(port, from, chosen, now);
        Some(chosen)
    }

    fn dice(&self, sides: usize) -> u64 {
        // One is no choice, and costs no chance that others would have.
        if sides < 2 { 0 } else { self.0.random.below(1 << 32) }
    }

    /// Whether `endpoint` is one that `front` leads to.
    pub(crate) fn is_endpoint(&self, front: Front, node: Option<&str>, endpoint: SocketAddrV4) -> bool {
        let state = self.lock();
        let caller = Caller { node, is_pod: false };
        state.table.at(front).is_some_and(|port| port.candidates(front, caller).contains(&endpoint))
    }

    /// Looks at the table.
    pub(crate) fn with_table<R>(&self, look: impl FnOnce(&Table) -> R) -> R {
        look(&self.lock().table)
    }

    /// A Service as it was last seen.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.lock().services.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The slices of a Service as they were last seen.
    #[cfg(test)]
    pub(crate) fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let state = self.lock();
        let slices = state.slices.get(&(namespace.to_owned(), service.to_owned()));
        slices.into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The variables of the namespace's services, if `links`, and of the API's.
    pub(crate) fn variables(&self, namespace: &str, links: bool) -> Variables {
        let mut state = self.lock();
        let asked = links.then(|| namespace.to_owned());
        if let Some(made) = state.made.get(&asked) {
            return made.clone();
        }
        let api = (API_SERVICE.0.to_owned(), API_SERVICE.1.to_owned());
        let mut variables = BTreeMap::new();
        if let Some(service) = state.services.get(&api) {
            variables.extend(env::variables(service));
        }
        if links {
            let from = (namespace.to_owned(), String::new());
            let here = state.services.range(from..).take_while(|((ns, _), _)| ns == namespace);
            for (_, service) in here {
                variables.extend(env::variables(service));
            }
        }
        let made: Variables = Arc::new(variables.into_iter().collect());
        state.made.insert(asked, made.clone());
        made
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder panics")
    }

    #[cfg(test)]
    pub(crate) fn set(&self, services: Vec<Service>, slices: Vec<EndpointSlice>) {
        let all = |services: Vec<Service>| services.into_iter().map(Arc::new).collect();
        self.saw_services(&[Event::Restarted(all(services))]);
        self.saw_slices(&[Event::Restarted(slices.into_iter().map(Arc::new).collect())]);
    }
}

impl State {
    /// Whose a port of a node is.
    fn host_port(&self, place: (Protocol, SocketAddrV4)) -> Option<SocketAddrV4> {
        match self.host_ports.get(&place).filter(|target| self.has_node(target))? {
            Target::Pod { to, .. } => Some(*to),
            Target::Service { .. } => None,
        }
    }

    /// Whether the node is there whose port it is: pods go on for a while when theirs is deleted.
    fn has_node(&self, target: &Target) -> bool {
        match (target, &self.nodes) {
            (Target::Pod { node, .. }, Some(nodes)) => nodes.contains(node),
            (Target::Pod { .. } | Target::Service { .. }, _) => true,
        }
    }

    fn put(&mut self, slice: Arc<EndpointSlice>) -> Option<Name> {
        let (of, name) = (service_of(&slice)?, key(&*slice));
        self.of_slices.insert(name.clone(), of.clone());
        self.slices.entry(of.clone()).or_default().insert(name.1, slice);
        Some(of)
    }

    /// Forgets a slice, whatever its label was.
    fn take(&mut self, slice: &EndpointSlice) -> Option<Name> {
        let name = key(slice);
        let of = self.of_slices.remove(&name)?;
        if let Some(slices) = self.slices.get_mut(&of) {
            slices.remove(&name.1);
            if slices.is_empty() {
                self.slices.remove(&of);
            }
        }
        Some(of)
    }
}

/// The `hostPort`s of a pod; closed when dropped.
pub(crate) struct OpenHostPorts {
    services: Services,
    places: Vec<(Protocol, SocketAddrV4)>,
}

impl Drop for OpenHostPorts {
    fn drop(&mut self) {
        let mut state = self.services.lock();
        for place in &self.places {
            state.host_ports.remove(place);
        }
        drop(state);
        self.services.0.version.send_modify(|version| *version += u64::from(*version > 0));
    }
}

impl Services {
    /// Opens the `hostPort`s of a pod with the address `ip` on the node `host`, if it has any.
    pub(crate) fn open_host_ports(&self, pod: &Pod, ip: Ipv4Addr, host: Ipv4Addr) -> Option<OpenHostPorts> {
        let wanted = wanted::host_ports(pod, ip, host);
        if wanted.is_empty() {
            return None;
        }
        let places = wanted.keys().copied().collect();
        self.lock().host_ports.extend(wanted);
        self.0.version.send_modify(|version| *version += u64::from(*version > 0));
        Some(OpenHostPorts { services: self.clone(), places })
    }

    pub(crate) fn host_ports(&self) -> HostPorts {
        let state = self.lock();
        let there = state.host_ports.iter().filter(|(_, target)| state.has_node(target));
        there.map(|(place, target)| (*place, target.clone())).collect()
    }
}

/// The service that a slice is of.
fn service_of(slice: &EndpointSlice) -> Option<Name> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((key(slice).0, service.clone()))
}

/// Namespace and name.
pub(super) fn key<K: Typed>(object: &K) -> Name {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let meta = crate::kind::Object::metadata(object);
    (text(&meta.namespace), text(&meta.name))
}

#[cfg(test)]
mod tests;
