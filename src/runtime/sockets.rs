//! A guest's sockets: those of its pod's address, and no other's.
//!
//! Those of [`tcp`] are the host's own, so that connections which were accepted elsewhere can be given to them; of
//! [`udp`] and names only those functions are replaced of wasmtime-wasi's in which the pod's address takes the place
//! of what a guest would mean on a machine of its own:
//!
//! - Binding to 0.0.0.0 or to 127.0.0.1 is binding to the pod's address. Any other address is not the
//!   pod's: `access-denied`.
//! - Whom a connection or a datagram reaches is for the pod's [`Network`] to say, which knows services and
//!   what is not the guest's to reach; the guest sees whom it asked for. So are the addresses of names
//!   ([`lookup`]).
//! - Connections and datagrams that the network does not admit are not told to the guest.
//! - Connections to addresses of the cluster leave from the pod's address.
//! - Where nobody is at one endpoint of a service, another is tried before the guest hears of it ([`connect`]).
//! - There is no IPv6, but `::` and `::1` mean the pod as well, and `::ffff:a.b.c.d` is the address of IPv4: a
//!   socket of IPv6 is one of IPv4 that tells addresses so ([`family`]). What is IPv6 proper is
//!   `remote-unreachable`. `[::]` and 0.0.0.0 are one place, so only one of them can have a port.
//! - There are only so many: each takes memory of its container, and a descriptor of this process, which all
//!   guests together may have half of. One more is refused (`new-socket-limit`).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::{SocketError, SocketResult};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

use super::budget::{Budget, Charge};
use super::network::{Network, Protocol, Refusal};
use crate::clock::Clock;

pub(super) mod connect;
mod connection;
mod family;
mod lookup;
pub(super) mod options;
mod tcp;
mod udp;

pub(super) use tcp::TcpView;

#[cfg(test)]
mod tests;

/// The version of the interfaces that wasmtime-wasi links; guests of others are matched to it.
const VERSION: &str = "0.2.12";

/// What the host holds for a socket: its registration, and what it buffers of streams that are in use.
const SOCKET_BYTES: u64 = 16 << 10;
/// Sockets of one run at most; a fourth of what all may have, where that is less.
const SOCKETS_EACH: usize = 1_000;
/// Sockets of all guests where the system does not say how many descriptors there may be.
const SOCKETS_MAX: usize = 10_000;

/// The part of a guest's store that tells its network; `None` is a container without one.
pub(super) trait HasNetwork: WasiView {
    fn network(&self) -> Option<&Arc<dyn Network>>;
    fn held(&mut self) -> &mut Held;
    fn tcp(&mut self) -> TcpView<'_>;
}

/// The descriptors that the sockets of all guests may have.
#[derive(Clone)]
pub(super) struct Descriptors {
    left: Arc<Semaphore>,
    each: usize,
    /// A sixth of all is for the clients of handlers, of which one handler's may have half.
    clients: Arc<Semaphore>,
    clients_each: usize,
}

impl Default for Descriptors {
    fn default() -> Self {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let allowed = allowed.and_then(|files| usize::try_from(files / 2).ok());
        Self::new(allowed.unwrap_or(SOCKETS_MAX).min(Semaphore::MAX_PERMITS))
    }
}

impl Descriptors {
    fn new(all: usize) -> Self {
        let clients = (all / 3).max(1);
        Self {
            left: Arc::new(Semaphore::new(all)),
            each: SOCKETS_EACH.min(all / 4),
            clients: Arc::new(Semaphore::new(clients)),
            clients_each: clients.div_ceil(2),
        }
    }

    /// How many clients of one handler may be connected, if `max` are the most.
    pub(super) fn clients_each(&self, max: usize) -> usize {
        self.clients_each.min(max)
    }

    /// One for the connection of a client, once there is one.
    pub(super) async fn for_client(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.clients).acquire_owned().await.expect("never closed")
    }
}

/// What the sockets of one run take.
pub(super) struct Held {
    descriptors: Descriptors,
    budget: Arc<Budget>,
    clock: Clock,
    /// Held once more by each socket.
    count: Arc<()>,
    /// Those of UDP, by the socket's number in the table.
    sockets: HashMap<u32, Socket>,
    /// By the stream's number in the table; two for a socket.
    streams: HashMap<u32, udp::Stream>,
}

/// What a socket takes, until nothing of it is left.
struct Takes {
    _charge: Charge,
    _descriptor: OwnedSemaphorePermit,
    /// By which a run counts its sockets.
    _counted: Arc<()>,
}

/// What a run knows of one of its sockets of UDP.
struct Socket {
    _takes: Takes,
    /// Of what the guest takes it for a socket.
    family: IpAddressFamily,
}

impl Held {
    pub(super) fn new(descriptors: &Descriptors, budget: &Arc<Budget>, clock: Clock) -> Self {
        Self {
            descriptors: descriptors.clone(),
            budget: Arc::clone(budget),
            clock,
            count: Arc::default(),
            sockets: HashMap::new(),
            streams: HashMap::new(),
        }
    }

    /// What one more takes. Without memory for it the guest ends.
    fn one_more(&self) -> SocketResult<Takes> {
        if Arc::strong_count(&self.count) > self.descriptors.each {
            return Err(ErrorCode::NewSocketLimit.into());
        }
        let descriptor = Arc::clone(&self.descriptors.left).try_acquire_owned();
        let descriptor = descriptor.map_err(|_| ErrorCode::NewSocketLimit)?;
        let charge = self.budget.charge(SOCKET_BYTES).map_err(SocketError::trap)?;
        Ok(Takes { _charge: charge, _descriptor: descriptor, _counted: Arc::clone(&self.count) })
    }

    fn family(&self, rep: u32) -> IpAddressFamily {
        self.sockets.get(&rep).map_or(IpAddressFamily::Ipv4, |socket| socket.family)
    }
}

/// Lets a guest have sockets of UDP if it has a network.
pub(super) fn permit(wasi: &mut WasiCtxBuilder, network: Option<&Arc<dyn Network>>) {
    wasi.allow_tcp(false).allow_udp(network.is_some()).allow_ip_name_lookup(false);
    if let Some(network) = network.cloned() {
        wasi.socket_addr_check(move |socket, reason| {
            let is_permitted = is_permitted(&*network, socket, reason);
            Box::pin(async move { is_permitted })
        });
    }
}

/// Whether a guest may do that, after [`local`] and [`remote`].
fn is_permitted(network: &dyn Network, socket: SocketAddr, reason: SocketAddrUse) -> bool {
    let own = network.address();
    let SocketAddr::V4(socket) = socket else { return false };
    match reason {
        SocketAddrUse::UdpBind => *socket.ip() == own,
        // The network was asked, and this is what it said.
        SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => true,
        // Those are ours.
        SocketAddrUse::TcpBind
        | SocketAddrUse::TcpListen
        | SocketAddrUse::TcpConnect
        | SocketAddrUse::TcpAccept => false,
    }
}

/// Where a guest binds that asks for `socket`.
fn local(own: Ipv4Addr, socket: SocketAddrV4) -> SocketAddrV4 {
    let is_own = socket.ip().is_unspecified() || *socket.ip() == Ipv4Addr::LOCALHOST;
    if is_own { SocketAddrV4::new(own, socket.port()) } else { socket }
}

/// Where a guest's socket of that family is bound if it asks for `asked`.
///
/// # Errors
/// If that is not its pod's.
fn bindable(
    own: Ipv4Addr,
    family: IpAddressFamily,
    asked: IpSocketAddress,
) -> Result<SocketAddrV4, ErrorCode> {
    let meant = local(own, family::meant(family, asked, ErrorCode::AccessDenied)?);
    if *meant.ip() == own {
        Ok(meant)
    } else if is_unicast(*meant.ip()) {
        Err(ErrorCode::AccessDenied)
    } else {
        Err(ErrorCode::InvalidArgument)
    }
}

fn is_unicast(ip: Ipv4Addr) -> bool {
    !ip.is_multicast() && !ip.is_broadcast()
}

/// Whom a guest reaches that asks for `asked` at a socket of that family, bound to `port`.
fn remote(
    network: Option<&Arc<dyn Network>>,
    family: IpAddressFamily,
    protocol: Protocol,
    port: u16,
    asked: IpSocketAddress,
) -> Result<SocketAddrV4, ErrorCode> {
    let meant = family::meant(family, asked, ErrorCode::RemoteUnreachable)?;
    let Some(network) = network else { return Ok(meant) };
    network.route(protocol, port, meant).map_err(|refusal| match refusal {
        Refusal::Denied => ErrorCode::AccessDenied,
        Refusal::NoEndpoint => ErrorCode::ConnectionRefused,
    })
}

/// An interface of the package, as it is linked.
fn name(interface: &str) -> String {
    format!("wasi:sockets/{interface}@{VERSION}")
}

/// Replaces those functions of wasmtime-wasi's sockets in `linker`.
pub(super) fn shadow<T: HasNetwork + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    tcp::shadow(linker)?;
    udp::shadow(linker)?;
    lookup::shadow(linker, &name("ip-name-lookup"))?;
    linker.allow_shadowing(false);
    Ok(())
}
