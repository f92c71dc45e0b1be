//! A guest's sockets: those of its pod's address, and no other's.
//!
//! wasmtime-wasi's `wasi:sockets` does the work; here are the functions in which the pod's address
//! takes the place of what a guest would mean on a machine of its own:
//!
//! - Binding to 0.0.0.0 or to 127.0.0.1 is binding to the pod's address. Any other address is not the
//!   pod's: `access-denied`.
//! - Whom a connection or a datagram reaches is for the pod's [`Network`] to say, which knows services and
//!   what is not the guest's to reach; the guest sees whom it asked for. So are the addresses of names
//!   ([`lookup`]).
//! - Connections and datagrams that the network does not admit are not told to the guest.
//! - Connections to addresses of the cluster leave from the pod's address.
//! - Where nobody is at one endpoint of a service, another is tried before the guest hears of it ([`retry`]).
//! - There is no IPv6, but `::` and `::1` mean the pod as well, and `::ffff:a.b.c.d` is the address of IPv4: a
//!   socket of IPv6 is one of IPv4 that tells addresses so ([`family`]). What is IPv6 proper is
//!   `remote-unreachable`. `[::]` and 0.0.0.0 are one place, so only one of them can have a port.
//! - There are only so many: each takes memory of its container, and a descriptor of this process, which all
//!   guests together may have half of. One more is refused (`new-socket-limit`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, Host as _, IpAddressFamily, IpSocketAddress, Network as WasiNetwork,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, SocketError, SocketResult, TcpSocket};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

use super::budget::{Budget, Charge};
use super::network::{Network, Protocol, Refusal};

mod family;
mod lookup;
mod retry;
mod udp;

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
    /// By the socket's number in the table.
    sockets: HashMap<u32, Socket>,
    /// By the stream's number in the table; two for a socket.
    streams: HashMap<u32, udp::Stream>,
    /// What connections that are under way have tried, by the socket's number.
    attempts: HashMap<u32, retry::Attempt>,
}

/// What one more socket takes.
type Takes = (Charge, OwnedSemaphorePermit);

/// What a run knows of one of its sockets.
struct Socket {
    _takes: Takes,
    /// Of what the guest takes it for a socket.
    family: IpAddressFamily,
    /// Whom the guest asked for a connection with.
    asked: Option<IpSocketAddress>,
}

impl Held {
    pub(super) fn new(descriptors: &Descriptors, budget: &Arc<Budget>) -> Self {
        Self {
            descriptors: descriptors.clone(),
            budget: Arc::clone(budget),
            sockets: HashMap::new(),
            attempts: HashMap::new(),
            streams: HashMap::new(),
        }
    }

    /// What one more takes. Without memory for it the guest ends.
    fn one_more(&self) -> SocketResult<Takes> {
        if self.sockets.len() >= self.descriptors.each {
            return Err(ErrorCode::NewSocketLimit.into());
        }
        let descriptor = Arc::clone(&self.descriptors.left).try_acquire_owned();
        let descriptor = descriptor.map_err(|_| ErrorCode::NewSocketLimit)?;
        let charge = self.budget.charge(SOCKET_BYTES).map_err(SocketError::trap)?;
        Ok((charge, descriptor))
    }

    fn family(&self, rep: u32) -> IpAddressFamily {
        self.sockets.get(&rep).map_or(IpAddressFamily::Ipv4, |socket| socket.family)
    }
}

/// Lets a guest have sockets if it has a network.
pub(super) fn permit(wasi: &mut WasiCtxBuilder, network: Option<&Arc<dyn Network>>) {
    wasi.allow_tcp(network.is_some()).allow_udp(network.is_some()).allow_ip_name_lookup(false);
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
        // Where a connection leaves the machine the system chooses the address it leaves from.
        SocketAddrUse::TcpBind => {
            *socket.ip() == own || socket == SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)
        }
        SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => *socket.ip() == own,
        // The network was asked, and this is what it said.
        SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => true,
        SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
    }
}

/// Where a guest binds that asks for `socket`.
fn local(own: Ipv4Addr, socket: SocketAddrV4) -> SocketAddrV4 {
    let is_own = socket.ip().is_unspecified() || *socket.ip() == Ipv4Addr::LOCALHOST;
    if is_own { SocketAddrV4::new(own, socket.port()) } else { socket }
}

/// Where the guest's socket of that number is bound if it asks for `asked`.
fn bindable<T: HasNetwork>(
    store: &mut StoreContextMut<'_, T>,
    rep: u32,
    asked: IpSocketAddress,
) -> SocketResult<IpSocketAddress> {
    let family = store.data_mut().held().family(rep);
    let meant = family::meant(family, asked, ErrorCode::AccessDenied)?;
    let own = store.data().network().map(|network| network.address());
    Ok(SocketAddr::V4(own.map_or(meant, |own| local(own, meant))).into())
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

/// Replaces those functions of wasmtime-wasi's sockets in `linker`.
pub(super) fn shadow<T: HasNetwork + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let name = |interface: &str| format!("wasi:sockets/{interface}@{VERSION}");

    linker.instance(&name("tcp-create-socket"))?.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, T>, (family,): (IpAddressFamily,)| {
            let more = store.data_mut().held().one_more();
            let mut sockets = store.data_mut().sockets();
            let made = more.and_then(|more| Ok((sockets.create_tcp_socket(IpAddressFamily::Ipv4)?, more)));
            let made = answer(&mut sockets, made)?;
            Ok((made.map(|(socket, more)| hold(&mut store, socket, family, more)),))
        },
    )?;
    linker.instance(&name("udp-create-socket"))?.func_wrap_async(
        "create-udp-socket",
        |mut store: StoreContextMut<'_, T>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                let more = store.data_mut().held().one_more();
                let mut sockets = store.data_mut().sockets();
                let made = match more {
                    Ok(more) => {
                        let made = sockets.create_udp_socket(IpAddressFamily::Ipv4).await;
                        made.map(|socket| (socket, more))
                    }
                    Err(error) => Err(error),
                };
                let made = answer(&mut sockets, made)?;
                Ok((made.map(|(socket, more)| hold(&mut store, socket, family, more)),))
            })
        },
    )?;

    let mut tcp = linker.instance(&name("tcp"))?;
    tcp.resource("tcp-socket", ResourceType::host::<TcpSocket>(), |mut store, rep| {
        HostTcpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(rep))?;
        let held = store.data_mut().held();
        held.sockets.remove(&rep);
        held.attempts.remove(&rep);
        Ok(())
    })?;
    tcp.func_wrap(
        "[method]tcp-socket.accept",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<TcpSocket>,)| {
            let network = store.data().network().cloned();
            let family = store.data_mut().held().family(this.rep());
            let more = store.data_mut().held().one_more();
            let mut sockets = store.data_mut().sockets();
            let accepted = match more {
                Ok(more) => accept(&mut sockets, network.as_deref(), &this).map(|accepted| (accepted, more)),
                Err(error) => Err(error),
            };
            let accepted = answer(&mut sockets, accepted)?;
            let held =
                |((socket, input, output), more)| (hold(&mut store, socket, family, more), input, output);
            Ok((accepted.map(held),))
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store, (this, network, socket): Binding<TcpSocket>| {
            Box::new(async move {
                let socket = bindable(&mut store, this.rep(), socket);
                let mut sockets = store.data_mut().sockets();
                let bound = match socket {
                    Ok(socket) => HostTcpSocket::start_bind(&mut sockets, this, network, socket).await,
                    Err(error) => Err(error),
                };
                Ok((answer(&mut sockets, bound)?,))
            })
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-connect",
        |mut store, (this, network, asked): Binding<TcpSocket>| {
            Box::new(async move {
                let (rep, from) = (this.rep(), store.data().network().map(|network| network.address()));
                let family = store.data_mut().held().family(rep);
                let reached = remote(store.data().network(), family, Protocol::Tcp, 0, asked);
                let mut sockets = store.data_mut().sockets();
                let attempt = reached.as_ref().ok().and_then(|reached| {
                    retry::Attempt::begun(&mut sockets, &this, asked.into(), (*reached).into())
                });
                let started = match reached {
                    Ok(reached) => connect(&mut sockets, from, this, network, reached.into()).await,
                    Err(error) => Err(error.into()),
                };
                let started = answer(&mut sockets, started)?;
                if started.is_ok()
                    && let Some(socket) = store.data_mut().held().sockets.get_mut(&rep)
                {
                    socket.asked = Some(asked);
                }
                if let (Ok(()), Some(attempt)) = (&started, attempt) {
                    store.data_mut().held().attempts.insert(rep, attempt);
                }
                Ok((started,))
            })
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.finish-connect",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<TcpSocket>,)| {
            Box::new(async move {
                let again = || Resource::<TcpSocket>::new_borrow(this.rep());
                let mut sockets = store.data_mut().sockets();
                let finished = HostTcpSocket::finish_connect(&mut sockets, again());
                let finished = answer(&mut sockets, finished)?;
                if finished.as_ref().err() == Some(&ErrorCode::WouldBlock) {
                    return Ok((finished,));
                }
                let attempt = store.data_mut().held().attempts.remove(&this.rep());
                let (Err(ErrorCode::ConnectionRefused), Some(attempt), Some(network)) =
                    (&finished, attempt, store.data().network().cloned())
                else {
                    return Ok((finished,));
                };
                let Some(attempt) = attempt.next(&*network) else { return Ok((finished,)) };
                let mut sockets = store.data_mut().sockets();
                if retry::again(&mut sockets, network.address(), &this, &attempt).await {
                    store.data_mut().held().attempts.insert(this.rep(), attempt);
                    return Ok((Err(ErrorCode::WouldBlock),));
                }
                Ok((finished,))
            })
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.local-address",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<TcpSocket>,)| {
            let family = store.data_mut().held().family(this.rep());
            let mut sockets = store.data_mut().sockets();
            let own = HostTcpSocket::local_address(&mut sockets, this);
            let own = own.map(|own| family::told(family, own));
            Ok((answer(&mut sockets, own)?,))
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.remote-address",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<TcpSocket>,)| {
            let held = store.data_mut().held();
            let asked = held.sockets.get(&this.rep()).and_then(|socket| socket.asked);
            let family = held.family(this.rep());
            let mut sockets = store.data_mut().sockets();
            let peer = HostTcpSocket::remote_address(&mut sockets, this);
            let peer = peer.map(|peer| asked.unwrap_or_else(|| family::told(family, peer)));
            Ok((answer(&mut sockets, peer)?,))
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.address-family",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<TcpSocket>,)| {
            Ok((store.data_mut().held().family(this.rep()),))
        },
    )?;
    udp::shadow(linker, &name("udp"))?;
    lookup::shadow(linker, &name("ip-name-lookup"))?;
    linker.allow_shadowing(false);
    Ok(())
}

type Binding<S> = (Resource<S>, Resource<WasiNetwork>, IpSocketAddress);

/// Remembers what a new socket takes until it is dropped.
fn hold<T: HasNetwork, S>(
    store: &mut StoreContextMut<'_, T>,
    socket: Resource<S>,
    family: IpAddressFamily,
    takes: Takes,
) -> Resource<S> {
    let held = Socket { _takes: takes, family, asked: None };
    store.data_mut().held().sockets.insert(socket.rep(), held);
    socket
}

/// What the guest is told: an error code, unless the error ends it.
fn answer<R>(
    sockets: &mut WasiSocketsCtxView<'_>,
    result: SocketResult<R>,
) -> wasmtime::Result<Result<R, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => sockets.convert_error_code(error).map(Err),
    }
}

type Accepted = (Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>);

/// The next connection that the network admits; the others are closed, and the guest never hears of them.
fn accept(
    sockets: &mut WasiSocketsCtxView<'_>,
    network: Option<&dyn Network>,
    this: &Resource<TcpSocket>,
) -> SocketResult<Accepted> {
    let again = |socket: &Resource<TcpSocket>| Resource::new_borrow(socket.rep());
    loop {
        let (socket, input, output) = HostTcpSocket::accept(sockets, again(this))?;
        let here: SocketAddr = HostTcpSocket::local_address(sockets, again(&socket))?.into();
        // Whoever has gone already is told to the guest by what it reads.
        let from = HostTcpSocket::remote_address(sockets, again(&socket)).map(SocketAddr::from);
        let is_admitted = match (network, from) {
            (Some(network), Ok(from)) => network.admits(Protocol::Tcp, here.port(), from),
            (None, _) | (_, Err(_)) => true,
        };
        if is_admitted {
            return Ok((socket, input, output));
        }
        sockets.table.delete(input)?;
        sockets.table.delete(output)?;
        sockets.table.delete(socket)?;
    }
}

async fn connect(
    sockets: &mut WasiSocketsCtxView<'_>,
    own: Option<Ipv4Addr>,
    this: Resource<TcpSocket>,
    network: Resource<WasiNetwork>,
    socket: SocketAddr,
) -> SocketResult<()> {
    let Some(own) = own else { return sockets.start_connect(this, network, socket.into()) };
    let is_bound = HostTcpSocket::local_address(sockets, Resource::new_borrow(this.rep())).is_ok();
    let is_cluster = matches!(socket.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if is_cluster && !is_bound {
        let from = SocketAddr::from((own, 0));
        let again = || Resource::new_borrow(this.rep());
        HostTcpSocket::start_bind(sockets, again(), Resource::new_borrow(network.rep()), from.into()).await?;
        HostTcpSocket::finish_bind(sockets, again())?;
    }
    sockets.start_connect(this, network, socket.into())
}
