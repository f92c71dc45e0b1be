//! What a container's network is to its guest: the runtime makes every connection a guest asks for, and
//! asks the container's [`Network`] where it goes. Nothing here knows of services, names or policies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use async_trait::async_trait;

use super::doors::Door;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Endpoints of a service that one connection tries at most: more that are all gone at once are the service's
/// misfortune.
pub const ENDPOINTS_MAX: usize = 16;

/// Why a connection is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not the guest's to make: `access-denied`.
    Denied,
    /// Nobody is there: `connection-refused`.
    NoEndpoint,
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// There is no such name, or it has no address.
    Unknown,
    /// Whoever knows could not be asked: worth another attempt.
    Temporary,
    /// It could not be found out, and will not be.
    Permanent,
    /// It is not the guest's to know: `access-denied`.
    Refused,
}

/// The IPv4 address that a guest means by `address`: pods have no IPv6, but programs that speak it speak of
/// themselves by `::` and `::1`, and of others by addresses that are IPv4's.
#[must_use]
pub fn as_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

/// The network of one pod.
#[async_trait]
pub trait Network: Send + Sync {
    /// Where the pod's sockets are, an address of this machine.
    fn address(&self) -> Ipv4Addr;

    /// Whom a connection, or a datagram from the pod's `port`, to `to` really reaches: an endpoint where `to` is
    /// a service's. What it answers is connected to without further questions. For connections, which may
    /// have none yet, the port does not matter.
    ///
    /// # Errors
    /// If it may not be, or nobody is there.
    fn route(&self, protocol: Protocol, port: u16, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal>;

    /// Hears of each further datagram to `to`, which [`Network::route`] has answered.
    fn sends(&self, _port: u16, _to: SocketAddrV4) {}

    /// Whom else a connection to `to` may reach, where nobody was at those that it `tried`.
    fn another(&self, to: SocketAddrV4, tried: &[SocketAddrV4]) -> Option<SocketAddrV4> {
        let (_, _) = (to, tried);
        None
    }

    /// As whom the guest knows the sender of a datagram: a service, where it wrote to one.
    fn origin(&self, from: SocketAddrV4) -> SocketAddrV4 {
        from
    }

    /// Whether somebody at `from` may reach the pod's `port`; asked for each datagram.
    fn admits(&self, protocol: Protocol, port: u16, from: SocketAddr) -> bool;

    /// Where connections to the pod's `port` arrive that were accepted elsewhere in this process, beside those
    /// that come through its socket.
    fn door(&self, port: u16) -> Door;

    /// The addresses of a name, as the pod's resolver finds them; the best first.
    ///
    /// # Errors
    /// If there are none.
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError>;
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::super::doors::Doors;
    use super::*;

    /// A pod of this address. Everybody is where they say they are, but for a service that has an endpoint,
    /// 127.96.0.2, and one that has none, 127.96.0.3; 127.0.0.1 is the pod, the machine's others are denied.
    /// The only names are `web`, which it takes a moment to find, and `late`, about which nobody can say.
    pub(crate) struct Fixed(pub(crate) Ipv4Addr);

    #[async_trait]
    impl Network for Fixed {
        fn address(&self) -> Ipv4Addr {
            self.0
        }

        fn route(&self, _: Protocol, _: u16, to: SocketAddrV4) -> Result<SocketAddrV4, Refusal> {
            match to.ip().octets() {
                [127, 0, 0, 1] => Ok(SocketAddrV4::new(self.0, to.port())),
                [127, 0, 0, _] => Err(Refusal::Denied),
                [127, 96, 0, 2] => Ok(SocketAddrV4::new(Ipv4Addr::new(127, 128, 0, 8), 8080)),
                [127, 96, 0, 3] => Err(Refusal::NoEndpoint),
                _ => Ok(to),
            }
        }

        fn origin(&self, from: SocketAddrV4) -> SocketAddrV4 {
            let is_endpoint = *from.ip() == Ipv4Addr::new(127, 128, 0, 8);
            if is_endpoint { SocketAddrV4::new(Ipv4Addr::new(127, 96, 0, 2), 80) } else { from }
        }

        fn admits(&self, _: Protocol, _: u16, _: SocketAddr) -> bool {
            true
        }

        fn door(&self, port: u16) -> Door {
            Doors::default().open(SocketAddrV4::new(self.0, port))
        }

        async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
            match name {
                "web" => {
                    tokio::task::yield_now().await;
                    Ok([[127, 96, 0, 2], [127, 96, 0, 4]].map(IpAddr::from).to_vec())
                }
                "late" => Err(LookupError::Temporary),
                _ => Err(LookupError::Unknown),
            }
        }
    }
}
