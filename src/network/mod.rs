//! Addresses and names: what a pod's connections reach.
//!
//! The host makes every connection that a guest asks for, so nothing has to be installed between them:
//! [`PodNetwork`] says where each goes. [`pod_addresses`] hands out the pods' addresses; [`claim`] finds
//! the part of loopback that is this cluster's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use crate::kind::address_plan::{AddressPlan, is_machines};
use crate::random::Random;
use crate::runtime::network::{LookupError, Network, Protocol, Refusal};

pub mod claim;
pub(crate) mod pod_addresses;

pub(crate) use pod_addresses::{PodAddress, PodAddresses};

#[cfg(test)]
mod tests;

/// What the networks of all pods of the process share; cheap to clone.
#[derive(Clone)]
pub struct Networks(Arc<Shared>);

struct Shared {
    plan: AddressPlan,
    addresses: PodAddresses,
}

impl Networks {
    #[must_use]
    pub fn new(plan: AddressPlan, random: &Random) -> Self {
        let addresses = PodAddresses::beginning_anywhere(random);
        Self(Arc::new(Shared { plan, addresses }))
    }

    #[must_use]
    pub fn plan(&self) -> AddressPlan {
        self.0.plan
    }

    /// An address for a pod; `None` when eight million have one.
    pub(crate) fn take_address(&self) -> Option<PodAddress> {
        self.0.addresses.take()
    }

    /// The network of `pod` on a node with the address `host`.
    pub(crate) fn of_pod(&self, pod: &Arc<Pod>, address: Ipv4Addr, host: Ipv4Addr) -> PodNetwork {
        PodNetwork { shared: self.0.clone(), pod: pod.clone(), address, host }
    }
}

/// What one pod's connections reach.
pub(crate) struct PodNetwork {
    #[expect(dead_code, reason = "for services, names and policies")]
    shared: Arc<Shared>,
    #[expect(dead_code, reason = "for services, names and policies")]
    pod: Arc<Pod>,
    address: Ipv4Addr,
    /// Its node's.
    #[expect(dead_code, reason = "for services, names and policies")]
    host: Ipv4Addr,
}

#[async_trait]
impl Network for PodNetwork {
    fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn route(&self, _protocol: Protocol, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal> {
        // The containers of a pod share one machine.
        if *to.ip() == Ipv4Addr::LOCALHOST {
            return Ok(SocketAddrV4::new(self.address, to.port()));
        }
        if is_machines(*to.ip()) { Err(Refusal::Denied) } else { Ok(to) }
    }

    fn admits(&self, _protocol: Protocol, _port: u16, _from: SocketAddr) -> bool {
        true
    }

    async fn lookup(&self, _name: &str) -> Result<Vec<IpAddr>, LookupError> {
        Err(LookupError::Permanent)
    }
}
