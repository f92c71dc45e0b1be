//! Where a pod's datagrams to services went, so that they keep going there and that what comes back is seen
//! to come from the service.

use std::collections::HashMap;
use std::net::SocketAddrV4;

/// Services that one pod's datagrams are remembered for; beyond, all are forgotten.
const SERVICES_MAX: usize = 256;

/// Endpoints by the address that was written to.
#[derive(Default)]
pub(crate) struct Flows {
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
        }
    }
}
