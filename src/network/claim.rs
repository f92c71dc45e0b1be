//! The slice of loopback that is this cluster's, among the clusters of one machine.

use std::net::{Ipv4Addr, TcpListener};

use crate::kind::address_plan::AddressPlan;

/// Where whoever has a slice listens, on an address that is no service's. Nothing answers there.
const PORT: u16 = 7_443;

/// A cluster's slice, until it is dropped.
pub struct Claim {
    plan: AddressPlan,
    /// None if another has it too.
    _held: Option<TcpListener>,
}

impl Claim {
    /// For a cluster that nobody reaches but in this process: it disturbs nobody.
    #[must_use]
    pub fn none(known: Option<AddressPlan>) -> Self {
        Self { plan: known.unwrap_or_default(), _held: None }
    }

    /// Takes the slice that the cluster is known to have, or else the first that nobody has.
    #[must_use]
    pub fn take(known: Option<AddressPlan>) -> Self {
        let hold = |plan: AddressPlan| TcpListener::bind((plan.claim(), PORT)).ok();
        if let Some(plan) = known {
            let held = hold(plan);
            if held.is_none() {
                tracing::warn!(
                    "another cluster of this machine uses the addresses {} too: services of both may not be \
                     reached from outside; stop one of them",
                    text(plan)
                );
            }
            return Self { plan, _held: held };
        }
        let free =
            (0..AddressPlan::SLICES).map(AddressPlan::of_slice).find_map(|plan| Some((plan, hold(plan)?)));
        match free {
            Some((plan, held)) => Self { plan, _held: Some(held) },
            None => {
                tracing::warn!(
                    "no addresses of loopback are free on this machine: services may not be reached from outside \
                     the cluster; stop other clusters, or none can listen on {}",
                    AddressPlan::default().claim()
                );
                Self::none(None)
            }
        }
    }

    #[must_use]
    pub fn plan(&self) -> AddressPlan {
        self.plan
    }
}

fn text(plan: AddressPlan) -> String {
    let (first, bits): (Ipv4Addr, u32) = plan.services();
    format!("{first}/{bits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_slice_of_its_own() {
        let claims: Vec<Claim> = (0..3).map(|_| Claim::take(None)).collect();
        let held: Vec<u8> = claims.iter().filter(|c| c._held.is_some()).map(|c| c.plan.slice()).collect();
        let mut distinct = held.clone();
        distinct.dedup();
        assert_eq!(held, distinct);
        let again = Claim::take(Some(claims[0].plan()));
        assert_eq!(again.plan(), claims[0].plan());
        assert!(again._held.is_none() || claims[0]._held.is_none());
    }
}
