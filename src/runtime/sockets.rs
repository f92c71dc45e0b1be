//! A guest's sockets: those of its pod's address, and no other's.
//!
//! wasmtime-wasi's `wasi:sockets` does the work; here are the functions in which the pod's address
//! takes the place of what a guest would mean on a machine of its own:
//!
//! - Binding to 0.0.0.0 or to 127.0.0.1 is binding to the pod's address. Any other address is not the
//!   pod's: `access-denied`.
//! - Whom a connection or a datagram reaches is for the pod's [`Network`] to say, which knows services and
//!   what is not the guest's to reach.
//! - Connections that the network does not admit are not told to the guest.
//! - Connections to addresses of the cluster leave from the pod's address.
//! - Where nobody is at one endpoint of a service, another is tried before the guest hears of it ([`retry`]).
//! - So are the addresses of names ([`lookup`]).
//! - There is no IPv6: `not-supported`, on which programs fall back to IPv4. (A socket of IPv4 in its
//!   place does not do: libc ends the program when such a socket tells its address.)
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
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostIncomingDatagramStream as _, HostOutgoingDatagramStream as _, HostUdpSocket, IncomingDatagramStream,
    OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

use super::budget::{Budget, Charge};
use super::network::{Network, Protocol, Refusal};

mod lookup;
mod retry;

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
    sockets: HashMap<u32, (Charge, OwnedSemaphorePermit)>,
    /// What connections that are under way have tried, by the same.
    attempts: HashMap<u32, retry::Attempt>,
}

impl Held {
    pub(super) fn new(descriptors: &Descriptors, budget: &Arc<Budget>) -> Self {
        Self {
            descriptors: descriptors.clone(),
            budget: Arc::clone(budget),
            sockets: HashMap::new(),
            attempts: HashMap::new(),
        }
    }

    /// What one more takes. Without memory for it the guest ends.
    fn one_more(&self) -> SocketResult<(Charge, OwnedSemaphorePermit)> {
        if self.sockets.len() >= self.descriptors.each {
            return Err(ErrorCode::NewSocketLimit.into());
        }
        let descriptor = Arc::clone(&self.descriptors.left).try_acquire_owned();
        let descriptor = descriptor.map_err(|_| ErrorCode::NewSocketLimit)?;
        let charge = self.budget.charge(SOCKET_BYTES).map_err(SocketError::trap)?;
        Ok((charge, descriptor))
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
fn local(own: Ipv4Addr, socket: SocketAddr) -> SocketAddr {
    let ip = socket.ip();
    if ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        (own, socket.port()).into()
    } else {
        socket
    }
}

/// Whom a guest reaches that asks for `socket`.
fn remote(
    network: Option<&Arc<dyn Network>>,
    protocol: Protocol,
    socket: IpSocketAddress,
) -> SocketResult<IpSocketAddress> {
    let (Some(network), SocketAddr::V4(asked)) = (network, socket.into()) else { return Ok(socket) };
    match network.route(protocol, asked) {
        Ok(reached) => Ok(SocketAddr::V4(reached).into()),
        Err(Refusal::Denied) => Err(ErrorCode::AccessDenied.into()),
        Err(Refusal::NoEndpoint) => Err(ErrorCode::ConnectionRefused.into()),
    }
}

/// As whom a guest knows whoever is at `socket`.
fn origin(network: Option<&Arc<dyn Network>>, socket: IpSocketAddress) -> IpSocketAddress {
    match (network, socket.into()) {
        (Some(network), SocketAddr::V4(from)) => SocketAddr::V4(network.origin(from)).into(),
        _ => socket,
    }
}

/// Replaces those functions of wasmtime-wasi's sockets in `linker`.
pub(super) fn shadow<T: HasNetwork + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let name = |interface: &str| format!("wasi:sockets/{interface}@{VERSION}");

    linker.instance(&name("tcp-create-socket"))?.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, T>, (family,): (IpAddressFamily,)| {
            let more = ipv4(family).and_then(|()| store.data_mut().held().one_more());
            let mut sockets = store.data_mut().sockets();
            let made = match more {
                Ok(more) => sockets.create_tcp_socket(family).map(|socket| (socket, more)),
                Err(error) => Err(error),
            };
            let made = answer(&mut sockets, made)?;
            Ok((made.map(|(socket, more)| hold(&mut store, socket, more)),))
        },
    )?;
    linker.instance(&name("udp-create-socket"))?.func_wrap_async(
        "create-udp-socket",
        |mut store: StoreContextMut<'_, T>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                let more = ipv4(family).and_then(|()| store.data_mut().held().one_more());
                let mut sockets = store.data_mut().sockets();
                let made = match more {
                    Ok(more) => sockets.create_udp_socket(family).await.map(|socket| (socket, more)),
                    Err(error) => Err(error),
                };
                let made = answer(&mut sockets, made)?;
                Ok((made.map(|(socket, more)| hold(&mut store, socket, more)),))
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
            let more = store.data_mut().held().one_more();
            let mut sockets = store.data_mut().sockets();
            let accepted = match more {
                Ok(more) => accept(&mut sockets, network.as_deref(), &this).map(|accepted| (accepted, more)),
                Err(error) => Err(error),
            };
            let accepted = answer(&mut sockets, accepted)?;
            let held = |((socket, input, output), more)| (hold(&mut store, socket, more), input, output);
            Ok((accepted.map(held),))
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store, (this, network, socket): Binding<TcpSocket>| {
            Box::new(async move {
                let own = store.data().network().map(|network| network.address());
                let socket = own.map_or(socket, |own| local(own, socket.into()).into());
                let mut sockets = store.data_mut().sockets();
                let bound = HostTcpSocket::start_bind(&mut sockets, this, network, socket).await;
                Ok((answer(&mut sockets, bound)?,))
            })
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-connect",
        |mut store, (this, network, socket): Binding<TcpSocket>| {
            Box::new(async move {
                let from = store.data().network().map(|network| network.address());
                let reached = remote(store.data().network(), Protocol::Tcp, socket);
                let rep = this.rep();
                let mut sockets = store.data_mut().sockets();
                let attempt = reached.as_ref().ok().and_then(|reached| {
                    retry::Attempt::begun(&mut sockets, &this, socket.into(), (*reached).into())
                });
                let started = match reached {
                    Ok(socket) => connect(&mut sockets, from, this, network, socket.into()).await,
                    Err(error) => Err(error),
                };
                let started = answer(&mut sockets, started)?;
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

    let mut udp = linker.instance(&name("udp"))?;
    udp.resource("udp-socket", ResourceType::host::<UdpSocket>(), |mut store, rep| {
        HostUdpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(rep))?;
        store.data_mut().held().sockets.remove(&rep);
        Ok(())
    })?;
    udp.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store, (this, network, socket): Binding<UdpSocket>| {
            Box::new(async move {
                let own = store.data().network().map(|network| network.address());
                let socket = own.map_or(socket, |own| local(own, socket.into()).into());
                let mut sockets = store.data_mut().sockets();
                let bound = HostUdpSocket::start_bind(&mut sockets, this, network, socket).await;
                Ok((answer(&mut sockets, bound)?,))
            })
        },
    )?;
    udp.func_wrap_async(
        "[method]udp-socket.stream",
        |mut store, (this, socket): (Resource<UdpSocket>, Option<IpSocketAddress>)| {
            Box::new(async move {
                let reached = socket.map(|socket| remote(store.data().network(), Protocol::Udp, socket));
                let mut sockets = store.data_mut().sockets();
                let streams: SocketResult<(
                    Resource<IncomingDatagramStream>,
                    Resource<OutgoingDatagramStream>,
                )> = match reached.transpose() {
                    Ok(socket) => sockets.stream(this, socket).await,
                    Err(error) => Err(error),
                };
                Ok((answer(&mut sockets, streams)?,))
            })
        },
    )?;
    udp.func_wrap(
        "[method]udp-socket.remote-address",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<UdpSocket>,)| {
            let told = HostUdpSocket::remote_address(&mut store.data_mut().sockets(), this);
            let told = told.map(|socket| origin(store.data().network(), socket));
            Ok((answer(&mut store.data_mut().sockets(), told)?,))
        },
    )?;
    udp.func_wrap(
        "[method]incoming-datagram-stream.receive",
        |mut store: StoreContextMut<'_, T>, (this, max): (Resource<IncomingDatagramStream>, u64)| {
            let mut received = store.data_mut().sockets().receive(this, max);
            for datagram in received.iter_mut().flatten() {
                datagram.remote_address = origin(store.data().network(), datagram.remote_address);
            }
            Ok((answer(&mut store.data_mut().sockets(), received)?,))
        },
    )?;
    udp.func_wrap_async(
        "[method]outgoing-datagram-stream.send",
        |mut store, (this, mut datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            Box::new(async move {
                let reached = datagrams.iter_mut().try_for_each(|datagram| {
                    if let Some(socket) = &mut datagram.remote_address {
                        *socket = remote(store.data().network(), Protocol::Udp, *socket)?;
                    }
                    Ok(())
                });
                let mut sockets = store.data_mut().sockets();
                let sent = match reached {
                    Ok(()) => sockets.send(this, datagrams),
                    Err(error) => Err(error),
                };
                Ok((answer(&mut sockets, sent)?,))
            })
        },
    )?;
    lookup::shadow(linker, &name("ip-name-lookup"))?;
    linker.allow_shadowing(false);
    Ok(())
}

type Binding<S> = (Resource<S>, Resource<WasiNetwork>, IpSocketAddress);

/// Remembers what a new socket takes until it is dropped.
fn hold<T: HasNetwork, S>(
    store: &mut StoreContextMut<'_, T>,
    socket: Resource<S>,
    takes: (Charge, OwnedSemaphorePermit),
) -> Resource<S> {
    store.data_mut().held().sockets.insert(socket.rep(), takes);
    socket
}

fn ipv4(family: IpAddressFamily) -> SocketResult<()> {
    match family {
        IpAddressFamily::Ipv4 => Ok(()),
        IpAddressFamily::Ipv6 => Err(ErrorCode::NotSupported.into()),
    }
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
