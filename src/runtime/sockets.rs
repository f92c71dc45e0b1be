//! A guest's sockets: those of its pod's address, and no other's.
//!
//! wasmtime-wasi's `wasi:sockets` does the work; here are the functions in which the pod's address
//! takes the place of what a guest would mean on a machine of its own:
//!
//! - Binding to 0.0.0.0 or to 127.0.0.1 is binding to the pod's address. Any other address is not the
//!   pod's: `access-denied`.
//! - Connecting to 127.0.0.1 is connecting to the pod itself, as its containers share one machine.
//! - Connections to addresses of the cluster leave from the pod's address.
//! - Loopback addresses outside the cluster's plan belong to the machine: `access-denied`.
//! - There is no IPv6: `not-supported`, on which programs fall back to IPv4. (A socket of IPv4 in its
//!   place does not do: libc ends the program when such a socket tells its address.)

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, Host as _, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostOutgoingDatagramStream as _, HostUdpSocket, IncomingDatagramStream, OutgoingDatagram,
    OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::p2::{SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsCtxView, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

#[cfg(test)]
mod tests;

/// The version of the interfaces that wasmtime-wasi links; guests of others are matched to it.
const VERSION: &str = "0.2.12";

/// 127.64.0.0 and up: nodes, services and pods. What is below belongs to the machine.
const CLUSTER_FIRST: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 0);

/// The part of a guest's store that tells its address; `None` is a container without a network.
pub(super) trait HasAddress: WasiView {
    fn address(&self) -> Option<Ipv4Addr>;
}

/// Lets a guest have sockets if it has an address.
pub(super) fn permit(wasi: &mut WasiCtxBuilder, address: Option<Ipv4Addr>) {
    wasi.allow_tcp(address.is_some()).allow_udp(address.is_some()).allow_ip_name_lookup(false);
    if let Some(own) = address {
        wasi.socket_addr_check(move |socket, reason| {
            let is_permitted = is_permitted(own, socket, reason);
            Box::pin(async move { is_permitted })
        });
    }
}

/// Whether a guest with the address `own` may do that, after [`local`] and [`remote`].
fn is_permitted(own: Ipv4Addr, socket: SocketAddr, reason: SocketAddrUse) -> bool {
    let SocketAddr::V4(socket) = socket else { return false };
    match reason {
        // Where a connection leaves the machine the system chooses the address it leaves from.
        SocketAddrUse::TcpBind => {
            *socket.ip() == own || socket == SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)
        }
        SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => *socket.ip() == own,
        SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => !is_machines(*socket.ip()),
        SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
    }
}

/// Loopback outside the cluster's plan.
fn is_machines(ip: Ipv4Addr) -> bool {
    ip.is_loopback() && ip < CLUSTER_FIRST
}

/// Where a guest binds that asks for `socket`.
fn local(own: Ipv4Addr, socket: SocketAddr) -> SocketAddr {
    if socket.ip().is_unspecified() { (own, socket.port()).into() } else { remote(own, socket) }
}

/// Whom a guest reaches that asks for `socket`.
fn remote(own: Ipv4Addr, socket: SocketAddr) -> SocketAddr {
    if socket.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) { (own, socket.port()).into() } else { socket }
}

/// Replaces those functions of wasmtime-wasi's sockets in `linker`.
pub(super) fn shadow<T: HasAddress + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let name = |interface: &str| format!("wasi:sockets/{interface}@{VERSION}");

    linker.instance(&name("tcp-create-socket"))?.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, T>, (family,): (IpAddressFamily,)| {
            let mut sockets = store.data_mut().sockets();
            let made = ipv4(family).and_then(|()| sockets.create_tcp_socket(family));
            Ok((answer(&mut sockets, made)?,))
        },
    )?;
    linker.instance(&name("udp-create-socket"))?.func_wrap_async(
        "create-udp-socket",
        |mut store: StoreContextMut<'_, T>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                let mut sockets = store.data_mut().sockets();
                let made = match ipv4(family) {
                    Ok(()) => sockets.create_udp_socket(family).await,
                    Err(error) => Err(error),
                };
                Ok((answer(&mut sockets, made)?,))
            })
        },
    )?;

    let mut tcp = linker.instance(&name("tcp"))?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store, (this, network, socket): Binding<TcpSocket>| {
            Box::new(async move {
                let socket = own(&store).map_or(socket, |own| local(own, socket.into()).into());
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
                let own = own(&store);
                let mut sockets = store.data_mut().sockets();
                let started = connect(&mut sockets, own, this, network, socket.into()).await;
                Ok((answer(&mut sockets, started)?,))
            })
        },
    )?;

    let mut udp = linker.instance(&name("udp"))?;
    udp.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store, (this, network, socket): Binding<UdpSocket>| {
            Box::new(async move {
                let socket = own(&store).map_or(socket, |own| local(own, socket.into()).into());
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
                let own = own(&store);
                let socket = socket.map(|socket| own.map_or(socket, |own| remote(own, socket.into()).into()));
                let mut sockets = store.data_mut().sockets();
                let streams: SocketResult<(
                    Resource<IncomingDatagramStream>,
                    Resource<OutgoingDatagramStream>,
                )> = sockets.stream(this, socket).await;
                Ok((answer(&mut sockets, streams)?,))
            })
        },
    )?;
    udp.func_wrap_async(
        "[method]outgoing-datagram-stream.send",
        |mut store, (this, mut datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            Box::new(async move {
                if let Some(own) = own(&store) {
                    for datagram in &mut datagrams {
                        let to = datagram.remote_address.map(|socket| remote(own, socket.into()).into());
                        datagram.remote_address = to;
                    }
                }
                let mut sockets = store.data_mut().sockets();
                let sent = sockets.send(this, datagrams);
                Ok((answer(&mut sockets, sent)?,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type Binding<S> = (Resource<S>, Resource<Network>, IpSocketAddress);

fn own<T: HasAddress>(store: &StoreContextMut<'_, T>) -> Option<Ipv4Addr> {
    store.data().address()
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

async fn connect(
    sockets: &mut WasiSocketsCtxView<'_>,
    own: Option<Ipv4Addr>,
    this: Resource<TcpSocket>,
    network: Resource<Network>,
    socket: SocketAddr,
) -> SocketResult<()> {
    let Some(own) = own else { return sockets.start_connect(this, network, socket.into()) };
    let socket = remote(own, socket);
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
