//! Whom a pod reaches outside the cluster, if it has a list of hosts ([`egress_hosts`](crate::kind::pod::egress_hosts)).
//!
//! A name that is not listed is not looked up: to ask others for it could already carry something out. What a
//! listed name turned out to be is remembered, and such addresses alone are connected to; so an address that
//! the pod knows from elsewhere is refused, even if a listed name of another pod has it. Listed addresses need
//! no name. Where a Service leads out of the cluster, the host that it leads to must be listed; what is in the
//! cluster is the matter of NetworkPolicies.
//!
//! The user hears of refusals by Events, each name and address once in a while.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::clock::Clock;
use crate::kind::pod::egress_hosts::{ANNOTATION, EgressHosts, Ports};

#[cfg(test)]
mod tests;

/// Addresses that are remembered for one pod; the longest unused is forgotten, until it is looked up again.
const ADDRESSES_MAX: usize = 1024;
/// Refusals that are told of, each, in [`TOLD_AGAIN`]: no more than Events of one reason may be at once.
const TOLD_MAX: usize = 20;
/// After this time a refusal is news again.
const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// Tells the user.
pub(crate) type Tell = Box<dyn Fn(String) + Send + Sync>;

/// What one pod may reach.
pub(crate) struct Egress {
    pod_uid: String,
    hosts: EgressHosts,
    clock: Clock,
    tell: Tell,
    state: Mutex<State>,
    /// Where others find it, and by which address.
    entered: Option<(Restricted, Ipv4Addr)>,
}

#[derive(Default)]
struct State {
    known: Known,
    told: Told,
}

impl Egress {
    fn new(pod: &Pod, hosts: EgressHosts, clock: Clock, tell: Tell) -> Self {
        let pod_uid = pod.metadata.uid.clone().unwrap_or_default();
        Self { pod_uid, hosts, clock, tell, state: Mutex::default(), entered: None }
    }

    /// Whether others may be asked for `name`.
    pub(crate) fn is_listed(&self, name: &str) -> bool {
        !self.hosts.of_name(name).is_empty()
    }

    /// Remembers what `name` turned out to be, if it is listed.
    pub(crate) fn note(&self, name: &str, addresses: &[IpAddr]) {
        let ports = self.hosts.of_name(name);
        if ports.is_empty() {
            return;
        }
        let mut state = self.state();
        for address in addresses {
            if let IpAddr::V4(address) = address {
                state.known.note(*address, &ports);
            }
        }
    }

    /// Whether the pod may reach `to`, which is not in the cluster. If not, the user hears of it.
    pub(crate) fn permits(&self, to: SocketAddrV4) -> bool {
        let mut ports = self.hosts.of_address(*to.ip());
        let known = self.state().known.ports(*to.ip());
        ports.extend(known);
        if ports.contains(to.port()) {
            return true;
        }
        self.refused(&to, || {
            if ports.is_empty() {
                format!(
                    "connection to {to} refused: the annotation {ANNOTATION} does not list the address, and it is not \
                     what a name that it lists was found to be; list the host and make the pod anew, or look its \
                     name up before"
                )
            } else {
                format!(
                    "connection to {to} refused: the annotation {ANNOTATION} lists that host for other ports only; add \
                     the port, and make the pod anew"
                )
            }
        });
        false
    }

    /// Tells the user that `name` was not looked up.
    pub(crate) fn refuse_name(&self, name: &str) {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.refused(&name, || {
            format!(
                "lookup of {name:?} refused: it is no name of the cluster, and the annotation {ANNOTATION} does not \
                 list it; if the pod is to reach it, add it to the list and make the pod anew"
            )
        });
    }

    fn refused(&self, what: &dyn Display, message: impl FnOnce() -> String) {
        if self.state().told.admit(what.to_string(), self.clock.monotonic()) {
            (self.tell)(message());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        if let Some((restricted, address)) = &self.entered {
            restricted.forget(*address);
        }
    }
}

/// What listed names were found to be.
#[derive(Default)]
struct Known {
    addresses: HashMap<Ipv4Addr, (Ports, u64)>,
    /// Counts uses.
    uses: u64,
}

impl Known {
    fn note(&mut self, address: Ipv4Addr, ports: &Ports) {
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            let oldest =
                self.addresses.iter().min_by_key(|(_, (_, used))| *used).map(|(address, _)| *address);
            oldest.map(|oldest| self.addresses.remove(&oldest));
        }
        self.uses += 1;
        let (known, used) = self.addresses.entry(address).or_default();
        known.extend(ports.clone());
        *used = self.uses;
    }

    fn ports(&mut self, address: Ipv4Addr) -> Ports {
        self.uses += 1;
        let Some((ports, used)) = self.addresses.get_mut(&address) else { return Ports::default() };
        *used = self.uses;
        ports.clone()
    }
}

/// When the user was told of what.
#[derive(Default)]
struct Told(HashMap<String, Duration>);

impl Told {
    /// Whether to tell of `what` at `now`.
    fn admit(&mut self, what: String, now: Duration) -> bool {
        if !self.0.contains_key(&what) && self.0.len() < TOLD_MAX {
            self.0.insert(what, now);
            return true;
        }
        self.0.retain(|_, told| now.saturating_sub(*told) < TOLD_AGAIN);
        let is_news = !self.0.contains_key(&what) && self.0.len() < TOLD_MAX;
        if is_news {
            self.0.insert(what, now);
        }
        is_news
    }
}

/// The pods that have a list, by the addresses that are theirs alone; cheap to clone. An entry goes with the
/// last who uses it.
#[derive(Clone, Default)]
pub(crate) struct Restricted(Arc<Mutex<HashMap<Ipv4Addr, Weak<Egress>>>>);

impl Restricted {
    /// The list of the pod with that address, if it has one.
    pub(crate) fn of(&self, address: IpAddr) -> Option<Arc<Egress>> {
        let IpAddr::V4(address) = address else { return None };
        self.all().get(&address).and_then(Weak::upgrade)
    }

    /// What `pod` may reach, if it has a list: for all of its containers the same, if the address is its own.
    pub(crate) fn enter(
        &self,
        pod: &Pod,
        address: Ipv4Addr,
        is_own: bool,
        clock: Clock,
        tell: Tell,
    ) -> Option<Arc<Egress>> {
        let hosts = EgressHosts::of(pod)?;
        let mut egress = Egress::new(pod, hosts, clock, tell);
        if !is_own {
            return Some(Arc::new(egress));
        }
        let mut all = self.all();
        let there = all.get(&address).and_then(Weak::upgrade);
        if let Some(there) = there.as_ref().filter(|there| there.pod_uid == egress.pod_uid) {
            return Some(there.clone());
        }
        egress.entered = Some((self.clone(), address));
        let egress = Arc::new(egress);
        all.insert(address, Arc::downgrade(&egress));
        drop(all);
        // Whoever had the address before; its end takes the lock.
        drop(there);
        Some(egress)
    }

    /// The last user of an entry has gone.
    fn forget(&self, address: Ipv4Addr) {
        let mut all = self.all();
        if all.get(&address).is_some_and(|there| there.strong_count() == 0) {
            all.remove(&address);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Weak<Egress>>> {
        self.0.lock().expect("no holder panics")
    }
}
