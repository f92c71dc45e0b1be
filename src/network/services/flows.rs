//! Where a pod's datagrams to services went, so that they keep going there and that what comes back is seen
//! to come from the service.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddrV4;

/// Services that one pod's datagrams are remembered for; beyond, all are forgotten.
const SERVICES_MAX: usize = 256;

/// Programs of the machine that one pod's datagrams may answer; beyond, the oldest is forgotten.
const PEERS_MAX: usize = 1024;

/// Endpoints by the address that was written to.
#[derive(Default)]
pub(crate) struct Flows {
    /// Who wrote to the pod from an address that would else mean the pod itself, or nobody. The oldest first.
    peers: VecDeque<SocketAddrV4>,
    known: HashSet<SocketAddrV4>,
    endpoints: HashMap<SocketAddrV4, SocketAddrV4>,
    services: HashMap<SocketAddrV4, SocketAddrV4>,
}

impl Flows {
    /// The endpoint that datagrams to `service` went to last.
    pub(crate) fn endpoint(&self, service: SocketAddrV4) -> Option<SocketAddrV4> {
        self.endpoints.get(&service).copied()
    }

    /// Notes that a datagram to `asked` goes to `reached`.
    pub(crate) fn note(&mut self, asked: SocketAddrV4, reached: SocketAddrV4) {
        if asked == reached {
            // Whoever is written to as itself answers as itself.
            if let Some(service) = self.services.remove(&reached) {
                self.endpoints.remove(&service);
            }
            return;
        }
        if self.endpoints.get(&asked) == Some(&reached) && self.services.get(&reached) == Some(&asked) {
            return;
        }
        if self.endpoints.len() >= SERVICES_MAX || self.services.len() >= SERVICES_MAX {
            self.endpoints.clear();
            self.services.clear();
        }
        self.endpoints.insert(asked, reached);
        self.services.insert(reached, asked);
    }

    /// Notes that somebody on the machine wrote from there, who may be answered.
    pub(crate) fn heard(&mut self, peer: SocketAddrV4) {
        if !self.known.insert(peer) {
            return;
        }
        self.peers.push_back(peer);
        if self.peers.len() > PEERS_MAX
            && let Some(oldest) = self.peers.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether what goes there is an answer.
    pub(crate) fn is_peer(&self, to: SocketAddrV4) -> bool {
        self.known.contains(&to)
    }

    /// The service that `from` answers for; itself if none.
    pub(crate) fn service(&self, from: SocketAddrV4) -> SocketAddrV4 {
        self.services.get(&from).copied().unwrap_or(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn answers_come_from_whom_was_asked() {
        let (service, endpoint, other) = (at("127.96.0.9:53"), at("127.128.0.5:53"), at("127.128.0.6:53"));
        let mut flows = Flows::default();
        assert_eq!((flows.endpoint(service), flows.service(endpoint)), (None, endpoint));
        flows.note(service, endpoint);
        assert_eq!((flows.endpoint(service), flows.service(endpoint)), (Some(endpoint), service));
        // What the first still says is the service's word too.
        flows.note(service, other);
        assert_eq!((flows.service(endpoint), flows.service(other)), (service, service));
        assert_eq!(flows.endpoint(service), Some(other));
        flows.note(other, other);
        assert_eq!((flows.endpoint(service), flows.service(other)), (None, other));
    }

    #[test]
    fn they_are_bounded() {
        let mut flows = Flows::default();
        for port in 1..2000 {
            flows.note(SocketAddrV4::new([127, 96, 0, 9].into(), port), at("127.128.0.5:53"));
            assert!(flows.endpoints.len() <= SERVICES_MAX);
            flows.heard(SocketAddrV4::new([127, 0, 0, 1].into(), port));
            assert!(flows.peers.len() <= PEERS_MAX && flows.known.len() == flows.peers.len());
        }
        // The oldest are forgotten, and who writes again is no other.
        flows.heard(at("127.0.0.1:1999"));
        for (peer, known) in [("127.0.0.1:975", false), ("127.0.0.1:976", true), ("127.0.0.1:1999", true)] {
            assert_eq!(flows.is_peer(at(peer)), known, "{peer}");
        }
    }
}
