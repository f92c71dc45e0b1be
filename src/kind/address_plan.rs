//! The addresses of one cluster (DESIGN section 5): on Linux all of 127.0.0.0/8 is loopback, so that nodes,
//! services and pods have addresses of their own without root or a network to set up.
//!
//! ```text
//! 127.0.0.0   – 127.63.255.255   the machine's own
//! 127.64.0.0/12                  nodes     127.(64+s).x.x
//! 127.96.0.0/12                  services  127.(96+s).0.0/16: .0.1 the API, .0.10 the DNS server
//! 127.128.0.0/9                  pods      of all clusters; each begins anywhere
//! ```
//!
//! `s` is the cluster's slice, one of 16, since clusters of one machine share its loopback.

use std::net::Ipv4Addr;

const NODES: u32 = u32::from_be_bytes([127, 64, 0, 0]);
const NODES_MAX: u32 = 1 << 20;
const SERVICES: u32 = u32::from_be_bytes([127, 96, 0, 0]);
const SERVICES_MAX: u32 = 1 << 20;
/// Addresses of a slice: of nodes (more go on into the next slice) and of services.
const SLICE_SIZE: u32 = 1 << 16;
/// The first of the pods' addresses, which names their network.
pub const PODS: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 0);
/// How many there are.
pub const PODS_MAX: u32 = 1 << 23;

/// One cluster's part of the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPlan {
    slice: u8,
}

impl AddressPlan {
    /// Clusters of one machine that do not share an address.
    pub const SLICES: u8 = 16;

    /// The plan of that slice; those beyond the last begin again.
    #[must_use]
    pub fn of_slice(slice: u8) -> Self {
        Self { slice: slice % Self::SLICES }
    }

    /// The plan that a service's address is of.
    #[must_use]
    pub fn of_service(service: Ipv4Addr) -> Option<Self> {
        let offset = u32::from(service).checked_sub(SERVICES).filter(|offset| *offset < SERVICES_MAX)?;
        Some(Self { slice: u8::try_from(offset / SLICE_SIZE).ok()? })
    }

    #[must_use]
    pub fn slice(self) -> u8 {
        self.slice
    }

    /// The network's address of the services' range, and the bits of its prefix.
    #[must_use]
    pub fn services(self) -> (Ipv4Addr, u32) {
        (self.service(0), 16)
    }

    /// The API's.
    #[must_use]
    pub fn api(self) -> Ipv4Addr {
        self.service(1)
    }

    /// The DNS server's.
    #[must_use]
    pub fn dns(self) -> Ipv4Addr {
        self.service(10)
    }

    /// No service's: whoever listens there has the slice.
    #[must_use]
    pub fn claim(self) -> Ipv4Addr {
        self.service(SLICE_SIZE - 1)
    }

    fn service(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(SERVICES + u32::from(self.slice) * SLICE_SIZE + offset)
    }

    /// The address of the node at `index`; there is room for a million.
    #[must_use]
    pub fn node(self, index: u32) -> Ipv4Addr {
        let first = u32::from(self.slice) * SLICE_SIZE;
        Ipv4Addr::from(NODES + 1 + (first + index % NODES_MAX) % (NODES_MAX - 2))
    }
}

/// Loopback outside the plan: the machine's own services are there.
#[must_use]
pub fn is_machines(ip: Ipv4Addr) -> bool {
    ip.is_loopback() && u32::from(ip) < NODES
}

/// Where the host's own connections to pods come from: an address of nodes, but of none of them.
pub const HOST: Ipv4Addr = Ipv4Addr::from_bits(NODES);

/// A pod's address, of whatever cluster.
#[must_use]
pub fn is_pod(ip: Ipv4Addr) -> bool {
    ip.is_loopback() && ip >= PODS
}

/// A node's address, of whatever cluster.
#[must_use]
pub fn is_node(ip: Ipv4Addr) -> bool {
    u32::from(ip).checked_sub(NODES).is_some_and(|offset| offset < NODES_MAX)
}

/// A service's address, of whatever cluster.
#[must_use]
pub fn is_service(ip: Ipv4Addr) -> bool {
    AddressPlan::of_service(ip).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_addresses_of_their_own() {
        for (slice, api, dns, claim, node, node_300) in [
            (0, "127.96.0.1", "127.96.0.10", "127.96.255.255", "127.64.0.1", "127.64.1.45"),
            (3, "127.99.0.1", "127.99.0.10", "127.99.255.255", "127.67.0.1", "127.67.1.45"),
            (15, "127.111.0.1", "127.111.0.10", "127.111.255.255", "127.79.0.1", "127.79.1.45"),
        ] {
            let plan = AddressPlan::of_slice(slice);
            let texts = [plan.api(), plan.dns(), plan.claim(), plan.node(0), plan.node(300)];
            assert_eq!(texts.map(|ip| ip.to_string()), [api, dns, claim, node, node_300], "{slice}");
            for ip in [plan.api(), plan.dns(), plan.claim()] {
                assert_eq!(AddressPlan::of_service(ip), Some(plan), "{ip}");
            }
            assert_eq!(AddressPlan::of_service(plan.node(0)), None);
        }
        assert_eq!(AddressPlan::of_slice(16), AddressPlan::default());
    }

    #[test]
    fn nodes_beyond_a_slice_go_on_in_the_next() {
        let plan = AddressPlan::of_slice(15);
        assert_eq!(plan.node(70_000).to_string(), "127.64.17.115");
        let last = AddressPlan::default().node(NODES_MAX - 3);
        assert_eq!(last.to_string(), "127.79.255.254");
    }

    #[test]
    fn the_machines_own_is_what_lies_below() {
        for (ip, expected) in
            [("127.0.0.1", true), ("127.63.255.255", true), ("127.64.0.1", false), ("10.0.0.1", false)]
        {
            assert_eq!(is_machines(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
