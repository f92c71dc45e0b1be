//! Names: what those of services and pods stand for (BEHAVIOURS 16.5).
//!
//! [`zone`] knows, [`names`] says what a pod means by a name; guests look up in process, without a packet,
//! and everybody else asks the [`server`], which speaks [`wire`]. Names that are not the cluster's are
//! the [`upstream`] servers' to know.

pub mod names;
pub mod server;
pub mod upstream;
pub mod wire;
pub mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::RwLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;

use crate::client::Event;
use crate::clock::Clock;
use crate::network::egress::Restricted;
use crate::network::services::key;
use crate::random::Random;
use names::{Hosts, Settings};
use upstream::Upstream;
use wire::{Question, Transport};
use zone::{Data, Type, Zone};

/// Where the machine says how names are looked up.
const MACHINE_SETTINGS: &str = "/etc/resolv.conf";
/// The longest that a lookup waits for the cluster's services to be known at all.
const SYNC_MAX: Duration = Duration::from_secs(10);

/// Why a name is not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("there is no such name")]
    NoSuchName,
    /// Only others could know it, and they may not be asked.
    #[error("{0} may not be looked up")]
    Refused(String),
    /// It may be found later.
    #[error("nobody could be asked: {0}")]
    NobodyAnswers(#[source] io::Error),
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// In full, and the last one where names stand for names outside the cluster.
    pub name: String,
    pub addresses: Vec<IpAddr>,
}

/// The names of one cluster.
pub struct Names {
    zone: RwLock<Zone>,
    /// Services and slices have each been listed.
    synced: watch::Sender<(bool, bool)>,
    /// Where the cluster's server is said to be.
    server: Ipv4Addr,
    /// As it was when somebody outside was last asked.
    machine: RwLock<Settings>,
    upstream: Upstream,
    clock: Clock,
    /// Whom others are not asked for all names.
    restricted: Restricted,
}

impl Names {
    /// `server` is the address by which pods know the cluster's names.
    #[must_use]
    pub fn new(server: Ipv4Addr, clock: Clock, random: Random) -> Self {
        let names = Self {
            zone: RwLock::default(),
            synced: watch::Sender::default(),
            server,
            machine: RwLock::default(),
            upstream: Upstream::new(clock, random),
            clock,
            restricted: Restricted::default(),
        };
        names.others();
        names
    }

    /// The machine's own name servers: read anew, since a laptop has others wherever it is carried.
    fn others(&self) -> Vec<IpAddr> {
        // In virtual time the machine must not make a difference.
        if !self.clock.is_virtual()
            && let Ok(text) = std::fs::read_to_string(MACHINE_SETTINGS)
        {
            let mut machine = Settings::parse(&text);
            // Nobody is to ask us what we ask them.
            machine.nameservers.retain(|one| *one != IpAddr::V4(self.server));
            *self.machine.write().expect("no holder panics") = machine;
        }
        self.machine.read().expect("no holder panics").nameservers.clone()
    }

    /// How `pod` looks names up.
    #[must_use]
    pub fn settings(&self, pod: &k8s_openapi::api::core::v1::Pod) -> Settings {
        Settings::of_pod(pod, self.server, &self.machine.read().expect("no holder panics"))
    }

    pub(crate) fn saw_services(&self, batch: &[Event<Service>]) {
        let mut zone = self.zone.write().expect("no holder panics");
        for event in batch {
            match event {
                Event::Restarted(services) => {
                    zone.clear_services();
                    services.iter().for_each(|service| zone.set_service(service.clone()));
                }
                Event::Applied(service) => zone.set_service(service.clone()),
                Event::Deleted(service) => {
                    let (namespace, name) = key(&**service);
                    zone.remove_service(&namespace, &name);
                }
            }
        }
        drop(zone);
        self.synced.send_modify(|(services, _)| *services = true);
    }

    pub(crate) fn saw_slices(&self, batch: &[Event<EndpointSlice>]) {
        let mut zone = self.zone.write().expect("no holder panics");
        for event in batch {
            match event {
                Event::Restarted(slices) => {
                    zone.clear_slices();
                    slices.iter().for_each(|slice| zone.set_slice(slice.clone()));
                }
                Event::Applied(slice) => zone.set_slice(slice.clone()),
                Event::Deleted(slice) => {
                    let (namespace, name) = key(&**slice);
                    zone.remove_slice(&namespace, &name);
                }
            }
        }
        drop(zone);
        self.synced.send_modify(|(_, slices)| *slices = true);
    }

    /// What the zone says.
    pub(crate) fn with_zone<T>(&self, ask: impl FnOnce(&Zone) -> T) -> T {
        ask(&self.zone.read().expect("no holder panics"))
    }

    /// The pods that have a list of hosts.
    pub(crate) fn restricted(&self) -> &Restricted {
        &self.restricted
    }

    /// The answer of other servers, as bytes for whoever asked us from the address `from`.
    pub(crate) async fn ask_others(&self, question: Question, transport: Transport, from: IpAddr) -> Vec<u8> {
        let egress = self.restricted.of(from);
        if let Some(egress) = egress.as_ref().filter(|egress| !egress.is_listed(&question.name())) {
            egress.refuse_name(&question.name());
            return question.refuse();
        }
        let others = match question.forward(self.upstream.id()) {
            Some(query) => self.upstream.ask(&self.others(), &query, transport).await.ok(),
            None => None,
        };
        if let (Some(egress), Some(answer)) = (egress, &others) {
            egress.note(&question.name(), &wire::addresses(answer).unwrap_or_default());
        }
        question.reply(others)
    }

    /// What a pod means by `name`, whose own address is `own`. Names that only others know are looked up if
    /// `may_ask` says so; an alias of the pod's for an address outside the cluster is such a name too.
    ///
    /// # Errors
    /// If it has no address.
    pub async fn lookup(
        &self,
        settings: &Settings,
        hosts: &Hosts,
        own: Ipv4Addr,
        name: &str,
        may_ask: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Found, LookupError> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        let known = |addresses| Found { name: bare.to_owned(), addresses };
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(known(vec![address]));
        }
        if let Some(found) = hosts.find(name, own) {
            if found.iter().all(IpAddr::is_loopback) || may_ask(bare) {
                return Ok(known(found));
            }
            return Err(LookupError::Refused(bare.to_owned()));
        }
        let asks_us = settings.nameservers.first().is_some_and(|one| *one == IpAddr::V4(self.server));
        let others: Vec<IpAddr> =
            settings.nameservers.iter().filter(|one| **one != IpAddr::V4(self.server)).copied().collect();
        if asks_us {
            let synced = async { self.synced.subscribe().wait_for(|(a, b)| *a && *b).await.is_ok() };
            // Late answers beat wrong ones; whoever starts a pod has waited for the services already.
            self.clock.timeout(SYNC_MAX, synced).await.ok();
        }
        let mut refused: Option<String> = None;
        for candidate in settings.candidates(name) {
            let found = if asks_us {
                self.candidate(&candidate, may_ask).await
            } else {
                self.outside(&others, candidate.clone(), may_ask).await
            };
            match found {
                Ok(found) if !found.addresses.is_empty() => return Ok(found),
                Ok(_) => {}
                // What was asked for says more than what was made of it; but of what is another name for
                // it, it is known that it exists.
                Err(LookupError::Refused(name)) if name != candidate => {
                    return Err(LookupError::Refused(name));
                }
                Err(LookupError::Refused(name)) if refused.is_none() || name == bare => refused = Some(name),
                Err(LookupError::NoSuchName | LookupError::Refused(_)) => {}
                // As resolvers do: what cannot be known of one name ends the search.
                Err(error @ LookupError::NobodyAnswers(_)) => return Err(error),
            }
        }
        Err(refused.map_or(LookupError::NoSuchName, LookupError::Refused))
    }

    /// One name as `servers` know it.
    async fn outside(
        &self,
        servers: &[IpAddr],
        name: String,
        may_ask: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Found, LookupError> {
        if !may_ask(&name) {
            return Err(LookupError::Refused(name));
        }
        let addresses = self.upstream.addresses(servers, &name).await.map_err(LookupError::NobodyAnswers)?;
        Ok(Found { name, addresses: addresses.unwrap_or_default() })
    }

    /// One name as the cluster's server would tell it.
    async fn candidate(
        &self,
        name: &str,
        may_ask: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Found, LookupError> {
        let outside = match self.with_zone(|zone| zone.answer(name, Type::A)) {
            Some(answer) => match answer.outside {
                Some(outside) => outside,
                None => {
                    let address = |record: zone::Record| match record.data {
                        Data::A(address) => Some(IpAddr::V4(address)),
                        Data::Srv { .. }
                        | Data::Ptr(_)
                        | Data::Cname(_)
                        | Data::Txt(_)
                        | Data::Ns(_)
                        | Data::Soa { .. } => None,
                    };
                    let addresses = answer.records.into_iter().filter_map(address).collect();
                    return Ok(Found { name: name.to_owned(), addresses });
                }
            },
            None => name.to_owned(),
        };
        self.outside(&self.others(), outside, may_ask).await
    }

    #[cfg(test)]
    pub(crate) fn set(
        &self,
        services: Vec<std::sync::Arc<Service>>,
        slices: Vec<std::sync::Arc<EndpointSlice>>,
    ) {
        self.saw_services(&[Event::Restarted(services)]);
        self.saw_slices(&[Event::Restarted(slices)]);
    }
}

#[cfg(test)]
mod tests;
