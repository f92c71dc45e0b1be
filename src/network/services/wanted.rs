//! Which sockets are to be open on this machine, as a pure function of the table.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use k8s_openapi::api::core::v1::Pod;

use super::table::{Caller, Front, Name, Table, protocol};
use crate::runtime::network::Protocol;

/// Sockets open at one time: each is a file, of which a process has so many.
pub(super) const LISTENERS_MAX: usize = 4096;

/// A node of this process whose ports are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    pub name: String,
    pub ip: Ipv4Addr,
}

/// Whom a socket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A service's front, on this node if it is one of a node's.
    Service { front: Front, node: Option<String>, of: Name, port: String },
    /// A pod's own.
    Pod { to: SocketAddrV4, of: Name, uid: String, node: String },
}

/// What is to be open, and who wanted a socket in vain because another service has it.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) open: BTreeMap<(Protocol, SocketAddrV4), Target>,
    pub(super) lost: Vec<((Protocol, SocketAddrV4), Name, Name)>,
    /// Sockets that would be too many.
    pub(super) left_out: usize,
}

/// A pod's `hostPort`s by socket.
pub(super) type HostPorts = BTreeMap<(Protocol, SocketAddrV4), Target>;

/// All sockets that lead to somebody: where nobody is, connections are refused by the system.
pub(super) fn wanted(table: &Table, nodes: &[NodeAddress], host_ports: &HostPorts) -> Wanted {
    let mut wanted = Wanted { open: host_ports.clone(), ..Wanted::default() };
    for (front, port, others) in table.fronts() {
        let places: Vec<(Protocol, SocketAddrV4, Option<String>)> = match front {
            Front::Cluster(protocol, at) => vec![(protocol, at, None)],
            Front::External(protocol, at) => {
                let node = nodes.iter().find(|node| node.ip == *at.ip());
                vec![(protocol, at, node.map(|node| node.name.clone()))]
            }
            Front::Node(protocol, number) => nodes
                .iter()
                .map(|node| (protocol, SocketAddrV4::new(node.ip, number), Some(node.name.clone())))
                .collect(),
        };
        let others: Vec<&Name> = others.collect();
        for (protocol, at, node) in places {
            let caller = Caller { node: node.as_deref(), is_pod: false };
            if !others.is_empty() && !matches!(front, Front::Node(..)) {
                let lost =
                    others.iter().map(|other| ((protocol, at), (*other).clone(), port.service.clone()));
                wanted.lost.extend(lost);
            }
            if port.is_served_by_itself(at) || !port.has_candidates(front, caller) {
                continue;
            }
            let (of, name) = (port.service.clone(), port.name.clone());
            // A pod's own goes first, as in the tables of a kernel.
            let target = Target::Service { front, node, of, port: name };
            wanted.open.entry((protocol, at)).or_insert(target);
        }
    }
    while wanted.open.len() > LISTENERS_MAX {
        wanted.open.pop_last();
        wanted.left_out += 1;
    }
    wanted.lost.sort();
    wanted
}

/// The `hostPort`s of a pod, at the node's address where it names no other.
pub(super) fn host_ports(pod: &Pod, ip: Ipv4Addr, host: Ipv4Addr) -> HostPorts {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let of = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    let spec = pod.spec.as_ref();
    // With the node's network the pod is there itself.
    if ip == host {
        return HostPorts::new();
    }
    let ports = spec.iter().flat_map(|spec| {
        let first = spec.init_containers.iter().flatten();
        first.chain(&spec.containers).flat_map(|container| container.ports.iter().flatten())
    });
    ports
        .filter_map(|port| {
            let protocol = protocol(port.protocol.as_deref())?;
            let number = u16::try_from(port.host_port?).ok().filter(|number| *number != 0)?;
            let to = SocketAddrV4::new(ip, u16::try_from(port.container_port).ok()?);
            let asked = port.host_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
            let at = asked.filter(|ip| !ip.is_unspecified()).unwrap_or(host);
            let node = spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            let target = Target::Pod { to, of: of.clone(), uid: text(&pod.metadata.uid), node };
            Some(((protocol, SocketAddrV4::new(at, number)), target))
        })
        .collect()
}
