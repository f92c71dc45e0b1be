//! NetworkPolicies, enforced where connections are made: the host makes every connection of a guest, so
//! both ends are known, and a connection that is refused was never begun.
//!
//! A pod that a policy of its namespace selects is isolated in the directions that the policy is about;
//! what any rule of such policies lists is permitted, and nothing else. A connection between pods needs
//! the leave of both. Replies belong to the connection, or to the [conversation](super::conversations) of
//! datagrams. What comes from a node (probes, port-forward, the API's proxies) is always permitted, as upstream
//! has it; pods with the node's network are not isolated.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::watch;

use crate::client::{Client, Event, Select};
use crate::kind::network_policy::{EGRESS, INGRESS};
use crate::kind::selector::LabelSelector;
use crate::runtime::network::Protocol;

#[cfg(test)]
mod tests;

type Labels = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// A policy made ready to be asked.
#[derive(Debug)]
struct Policy {
    pods: LabelSelector,
    /// `None` if it is not about that direction.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

/// Everybody, or every port, where a list is `None`.
#[derive(Debug)]
struct Rule {
    ports: Option<Vec<NetworkPolicyPort>>,
    peers: Option<Vec<Peer>>,
}

#[derive(Debug)]
enum Peer {
    Block {
        whole: IpNet,
        except: Vec<IpNet>,
    },
    Pods {
        /// `None` is the policy's own namespace.
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
}

/// One end of a connection.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) ip: IpAddr,
    /// `None` if it is no pod.
    pub(crate) pod: Option<&'a Pod>,
    /// The labels of the pod's namespace.
    pub(crate) namespace: Option<&'a Labels>,
}

impl Policy {
    fn of(policy: &NetworkPolicy) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let is_about = |direction: &str| spec.policy_types.iter().flatten().any(|one| one == direction);
        let ingress = || {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| Rule::of(rule.ports.as_deref(), rule.from.as_deref())).collect()
        };
        let egress = || {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| Rule::of(rule.ports.as_deref(), rule.to.as_deref())).collect()
        };
        Self {
            pods: selector(spec.pod_selector.as_ref()),
            ingress: is_about(INGRESS).then(ingress),
            egress: is_about(EGRESS).then(egress),
        }
    }

    fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Validation has seen it, so what cannot be read selects nothing.
fn selector(selector: Option<&MetaSelector>) -> LabelSelector {
    LabelSelector::from_meta(selector)
        .or_else(|_| LabelSelector::from_meta(None))
        .expect("no selector can be read")
}

impl Rule {
    fn of(ports: Option<&[NetworkPolicyPort]>, peers: Option<&[NetworkPolicyPeer]>) -> Self {
        let given = |peers: &&[NetworkPolicyPeer]| !peers.is_empty();
        Self {
            ports: ports.filter(|ports| !ports.is_empty()).map(<[NetworkPolicyPort]>::to_vec),
            peers: peers.filter(given).map(|peers| peers.iter().filter_map(Peer::of).collect()),
        }
    }

    fn permits(&self, own: &str, peer: End<'_>, protocol: Protocol, port: u16, to: Option<&Pod>) -> bool {
        let port_fits = self
            .ports
            .as_ref()
            .is_none_or(|ports| ports.iter().any(|listed| is_listed(listed, protocol, port, to)));
        port_fits && self.peers.as_ref().is_none_or(|peers| peers.iter().any(|listed| listed.is(own, peer)))
    }
}

impl Peer {
    fn of(peer: &NetworkPolicyPeer) -> Option<Self> {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten().filter_map(|one| one.parse().ok()).collect();
            return Some(Self::Block { whole: block.cidr.parse().ok()?, except });
        }
        let everything = MetaSelector::default();
        Some(Self::Pods {
            namespaces: peer.namespace_selector.as_ref().map(|namespaces| selector(Some(namespaces))),
            pods: selector(Some(peer.pod_selector.as_ref().unwrap_or(&everything))),
        })
    }

    /// Whether `end` is meant, by a policy of the namespace `own`.
    fn is(&self, own: &str, end: End<'_>) -> bool {
        match self {
            Self::Block { whole, except } => {
                whole.contains(&end.ip) && !except.iter().any(|part| part.contains(&end.ip))
            }
            Self::Pods { namespaces, pods } => {
                let Some(pod) = end.pod else { return false };
                let in_namespace = match namespaces {
                    Some(namespaces) => namespaces.matches(end.namespace),
                    None => pod.metadata.namespace.as_deref() == Some(own),
                };
                in_namespace && pods.matches(pod.metadata.labels.as_ref())
            }
        }
    }
}

/// Whether the rule's port is the one of that number at `to`, whose ports have names.
fn is_listed(listed: &NetworkPolicyPort, protocol: Protocol, port: u16, to: Option<&Pod>) -> bool {
    let named = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    let port = i32::from(port);
    if listed.protocol.as_deref().unwrap_or("TCP") != named {
        return false;
    }
    match &listed.port {
        None => true,
        Some(IntOrString::Int(first)) => (*first..=listed.end_port.unwrap_or(*first)).contains(&port),
        Some(IntOrString::String(name)) => {
            let spec = to.and_then(|pod| pod.spec.as_ref());
            let ports =
                spec.into_iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
            ports.into_iter().any(|one| {
                one.name.as_deref() == Some(name)
                    && one.container_port == port
                    && one.protocol.as_deref().unwrap_or("TCP") == named
            })
        }
    }
}

/// Whether the policies of the pod's namespace let `pod` have a connection in that `direction` with
/// `peer`, to `port` of `to`, which is one of both.
fn permits<'a>(
    policies: impl Iterator<Item = &'a Policy>,
    pod: &Pod,
    direction: Direction,
    peer: End<'_>,
    protocol: Protocol,
    port: u16,
    to: Option<&Pod>,
) -> bool {
    let own = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut is_isolated = false;
    for policy in policies.filter(|policy| policy.pods.matches(pod.metadata.labels.as_ref())) {
        let Some(rules) = policy.rules(direction) else { continue };
        if rules.iter().any(|rule| rule.permits(own, peer, protocol, port, to)) {
            return true;
        }
        is_isolated = true;
    }
    !is_isolated
}

/// The policies of the cluster, and of pods and namespaces what they speak of; cheap to clone. Pods and
/// namespaces are followed only while there is a policy.
#[derive(Clone, Default)]
pub(crate) struct Policies(Arc<Inner>);

struct Inner {
    state: RwLock<State>,
    /// Whether all that there is has been seen.
    synced: watch::Sender<bool>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { state: RwLock::default(), synced: watch::Sender::new(false) }
    }
}

#[derive(Default)]
struct State {
    /// By namespace, then by name.
    policies: BTreeMap<String, BTreeMap<String, Policy>>,
    pods: Pods,
    namespaces: BTreeMap<String, Labels>,
}

/// The pods that have an address of their own and are not finished.
#[derive(Default)]
struct Pods {
    by_address: HashMap<Ipv4Addr, Arc<Pod>>,
    by_name: HashMap<(String, String), Ipv4Addr>,
}

impl Policies {
    /// Follows the API until it shuts down.
    pub(crate) async fn follow(&self, client: &Client) {
        let mut policies = client.watch::<NetworkPolicy>(Select::default());
        loop {
            let Some(events) = policies.next_batch().await else { return };
            self.take_policies(events);
            if self.read().policies.is_empty() {
                self.0.synced.send_replace(true);
                continue;
            }
            let mut pods = client.watch::<Pod>(Select::default());
            let mut namespaces = client.watch::<Namespace>(Select::default());
            let (mut has_pods, mut has_namespaces) = (false, false);
            while !self.read().policies.is_empty() {
                tokio::select! {
                    events = policies.next_batch() => match events {
                        Some(events) => self.take_policies(events),
                        None => return,
                    },
                    events = pods.next_batch() => match events {
                        Some(events) => {
                            self.take_pods(events);
                            has_pods = true;
                        }
                        None => return,
                    },
                    events = namespaces.next_batch() => match events {
                        Some(events) => {
                            self.take_namespaces(events);
                            has_namespaces = true;
                        }
                        None => return,
                    },
                }
                if has_pods && has_namespaces {
                    self.0.synced.send_replace(true);
                }
            }
            let mut state = self.write();
            (state.pods, state.namespaces) = (Pods::default(), BTreeMap::new());
        }
    }

    /// Returns once all policies that there are hold.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as `self`.
        if self.0.synced.subscribe().wait_for(|synced| *synced).await.is_err() {
            tracing::debug!("policies are no longer followed");
        }
    }

    /// Whether `pod` at `own` may begin a connection to `port` of `to`: its own policies and those of the
    /// pod there.
    pub(crate) fn permit_egress(
        &self,
        pod: &Pod,
        own: Ipv4Addr,
        protocol: Protocol,
        to: Ipv4Addr,
        port: u16,
    ) -> bool {
        let state = self.read();
        if state.policies.is_empty() || to == own {
            return true;
        }
        let pod = state.pods.by_address.get(&own).map_or(pod, |pod| &**pod);
        let (here, there) = (state.end(own, Some(pod)), state.end(to, None));
        state.ask(pod, Direction::Egress, there, protocol, port, there.pod)
            && there
                .pod
                .is_none_or(|target| state.ask(target, Direction::Ingress, here, protocol, port, there.pod))
    }

    /// Whether somebody at `from`, who is not on a node, may reach `port` of `pod` at `own`.
    pub(crate) fn permit_ingress(
        &self,
        pod: &Pod,
        own: Ipv4Addr,
        protocol: Protocol,
        from: IpAddr,
        port: u16,
    ) -> bool {
        let state = self.read();
        if state.policies.is_empty() || from == IpAddr::V4(own) {
            return true;
        }
        let pod = state.pods.by_address.get(&own).map_or(pod, |pod| &**pod);
        let peer = match from {
            IpAddr::V4(ip) => state.end(ip, None),
            IpAddr::V6(_) => End { ip: from, pod: None, namespace: None },
        };
        state.ask(pod, Direction::Ingress, peer, protocol, port, Some(pod))
    }

    pub(super) fn take_policies(&self, events: Vec<Event<NetworkPolicy>>) {
        let mut state = self.write();
        let name = |policy: &NetworkPolicy| policy.metadata.name.clone().unwrap_or_default();
        let namespace = |policy: &NetworkPolicy| policy.metadata.namespace.clone().unwrap_or_default();
        for event in events {
            match event {
                Event::Restarted(policies) => {
                    state.policies.clear();
                    for policy in policies {
                        let all = state.policies.entry(namespace(&policy)).or_default();
                        all.insert(name(&policy), Policy::of(&policy));
                    }
                }
                Event::Applied(policy) => {
                    let all = state.policies.entry(namespace(&policy)).or_default();
                    all.insert(name(&policy), Policy::of(&policy));
                }
                Event::Deleted(policy) => {
                    let key = namespace(&policy);
                    if let Some(all) = state.policies.get_mut(&key) {
                        all.remove(&name(&policy));
                        if all.is_empty() {
                            state.policies.remove(&key);
                        }
                    }
                }
            }
        }
    }

    fn take_pods(&self, events: Vec<Event<Pod>>) {
        let mut state = self.write();
        for event in events {
            match event {
                Event::Restarted(pods) => {
                    state.pods = Pods::default();
                    pods.into_iter().for_each(|pod| state.pods.put(pod));
                }
                Event::Applied(pod) => state.pods.put(pod),
                Event::Deleted(pod) => state.pods.remove(&pod),
            }
        }
    }

    fn take_namespaces(&self, events: Vec<Event<Namespace>>) {
        let mut state = self.write();
        let labels = |namespace: &Namespace| namespace.metadata.labels.clone().unwrap_or_default();
        let name = |namespace: &Namespace| namespace.metadata.name.clone().unwrap_or_default();
        for event in events {
            match event {
                Event::Restarted(all) => {
                    state.namespaces = all.iter().map(|one| (name(one), labels(one))).collect();
                }
                Event::Applied(one) => {
                    state.namespaces.insert(name(&one), labels(&one));
                }
                Event::Deleted(one) => {
                    state.namespaces.remove(&name(&one));
                }
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end<'a>(&'a self, ip: Ipv4Addr, pod: Option<&'a Pod>) -> End<'a> {
        let pod = pod.or_else(|| self.pods.by_address.get(&ip).map(|pod| &**pod));
        let namespace = pod.and_then(|pod| self.namespaces.get(pod.metadata.namespace.as_deref()?));
        End { ip: ip.into(), pod, namespace }
    }

    fn ask(
        &self,
        pod: &Pod,
        direction: Direction,
        peer: End<'_>,
        protocol: Protocol,
        port: u16,
        to: Option<&Pod>,
    ) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let policies = self.policies.get(namespace).into_iter().flat_map(BTreeMap::values);
        permits(policies, pod, direction, peer, protocol, port, to)
    }
}

impl Pods {
    fn put(&mut self, pod: Arc<Pod>) {
        self.remove(&pod);
        let Some(ip) = address(&pod) else { return };
        self.by_name.insert(key(&pod), ip);
        self.by_address.insert(ip, pod);
    }

    fn remove(&mut self, pod: &Pod) {
        let key = key(pod);
        if let Some(ip) = self.by_name.remove(&key)
            && self.by_address.get(&ip).is_some_and(|other| self::key(other) == key)
        {
            self.by_address.remove(&ip);
        }
    }
}

fn key(pod: &Pod) -> (String, String) {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// The pod's own address, while it may have connections.
fn address(pod: &Pod) -> Option<Ipv4Addr> {
    let is_hosts = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let status = pod.status.as_ref().filter(|_| !is_hosts)?;
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    status.pod_ip.as_deref().filter(|_| !is_over)?.parse().ok()
}
