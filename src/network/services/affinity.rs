//! Remembers where clients of services with `sessionAffinity: ClientIP` went (BEHAVIOURS 16.4).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use super::table::{Name, Port};

/// Clients remembered of all services together; those beyond find a new endpoint each time.
const CLIENTS_MAX: usize = 65_536;

type Key = (Name, String, IpAddr);

/// Where clients went, and when last.
#[derive(Default)]
pub(super) struct Affinity(HashMap<Key, (SocketAddrV4, Duration)>);

impl Affinity {
    /// The endpoint that `client` is to go to: its own, while that is one of `candidates`.
    pub(super) fn known(
        &self,
        port: &Port,
        client: IpAddr,
        candidates: &[SocketAddrV4],
        now: Duration,
    ) -> Option<SocketAddrV4> {
        let sticks = port.affinity?;
        let (endpoint, last) = self.0.get(&key(port, client))?;
        (candidates.contains(endpoint) && now.saturating_sub(*last) < sticks).then_some(*endpoint)
    }

    /// Notes that `client` went to `endpoint`.
    pub(super) fn note(&mut self, port: &Port, client: IpAddr, endpoint: SocketAddrV4, now: Duration) {
        let Some(sticks) = port.affinity else { return };
        let key = key(port, client);
        if self.0.len() >= CLIENTS_MAX && !self.0.contains_key(&key) {
            // By this service's patience; another's that is longer is asked again, which harms nobody.
            self.0.retain(|_, (_, last)| now.saturating_sub(*last) < sticks);
            if self.0.len() >= CLIENTS_MAX {
                return;
            }
        }
        self.0.insert(key, (endpoint, now));
    }

    /// Forgets the clients of a service that is gone.
    pub(super) fn forget(&mut self, service: &Name) {
        if !self.0.is_empty() {
            self.0.retain(|(name, _, _), _| name != service);
        }
    }
}

fn key(port: &Port, client: IpAddr) -> Key {
    (port.service.clone(), port.name.clone(), client)
}
