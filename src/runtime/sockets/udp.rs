//! `wasi:sockets/udp`, by wasmtime-wasi: each datagram is the network's to judge.

use std::net::{SocketAddr, SocketAddrV4};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, Host as _, IpAddressFamily, IpSocketAddress, Network as WasiNetwork,
};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagramStream,
    OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket::Host as _;
use wasmtime_wasi::p2::{SocketResult, UdpSocket};
use wasmtime_wasi::sockets::{WasiSocketsCtxView, WasiSocketsView as _};

use super::{HasNetwork, Socket, Takes, bindable, family, name, remote};
use crate::runtime::network::{Network, Protocol};

/// What a run knows of the streams of one of its sockets.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    family: IpAddressFamily,
    /// The pod's.
    port: u16,
    /// Whom all datagrams go to, if the guest chose one.
    peer: Option<SocketAddrV4>,
}

impl Stream {
    /// Of streams that nothing is known about, of which there are none.
    const UNKNOWN: Self = Self { family: IpAddressFamily::Ipv4, port: 0, peer: None };
}

/// Replaces functions of the interface; shadowing is allowed by the caller.
pub(super) fn shadow<T: HasNetwork + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
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
    let mut udp = linker.instance(&name("udp"))?;
    udp.resource("udp-socket", ResourceType::host::<UdpSocket>(), |mut store, rep| {
        HostUdpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(rep))?;
        store.data_mut().held().sockets.remove(&rep);
        Ok(())
    })?;
    let incoming = ResourceType::host::<IncomingDatagramStream>();
    udp.resource("incoming-datagram-stream", incoming, |mut store, rep| {
        HostIncomingDatagramStream::drop(&mut store.data_mut().sockets(), Resource::new_own(rep))?;
        store.data_mut().held().streams.remove(&rep);
        Ok(())
    })?;
    let outgoing = ResourceType::host::<OutgoingDatagramStream>();
    udp.resource_async("outgoing-datagram-stream", outgoing, |mut store, rep| {
        Box::new(async move {
            store.data_mut().held().streams.remove(&rep);
            let mut sockets = store.data_mut().sockets();
            HostOutgoingDatagramStream::drop(&mut sockets, Resource::new_own(rep)).await
        })
    })?;
    udp.func_wrap_async("[method]udp-socket.start-bind", |mut store, (this, network, socket): Binding| {
        Box::new(async move {
            let family = store.data_mut().held().family(this.rep());
            let own = store.data().network().map(|network| network.address());
            let own = own.ok_or(ErrorCode::AccessDenied);
            let at = own.and_then(|own| bindable(own, family, socket));
            let mut sockets = store.data_mut().sockets();
            let bound = match at {
                Ok(at) => {
                    let at = SocketAddr::V4(at).into();
                    HostUdpSocket::start_bind(&mut sockets, this, network, at).await
                }
                Err(error) => Err(error.into()),
            };
            Ok((answer(&mut sockets, bound)?,))
        })
    })?;
    udp.func_wrap_async(
        "[method]udp-socket.stream",
        |mut store, (this, asked): (Resource<UdpSocket>, Option<IpSocketAddress>)| {
            Box::new(async move {
                let family = store.data_mut().held().family(this.rep());
                let own = Resource::new_borrow(this.rep());
                let own = HostUdpSocket::local_address(&mut store.data_mut().sockets(), own);
                // Without one, none can be made.
                let port = own.map_or(0, |own| SocketAddr::from(own).port());
                let reached = |asked| remote(store.data().network(), family, Protocol::Udp, port, asked);
                let reached = asked.map(reached).transpose();
                let mut sockets = store.data_mut().sockets();
                let streams: SocketResult<(
                    Resource<IncomingDatagramStream>,
                    Resource<OutgoingDatagramStream>,
                )> = match reached {
                    Ok(reached) => sockets.stream(this, reached.map(|to| SocketAddr::V4(to).into())).await,
                    Err(ref error) => Err((*error).into()),
                };
                let streams = answer(&mut sockets, streams)?;
                if let (Ok((incoming, outgoing)), Ok(peer)) = (&streams, reached) {
                    let held = &mut store.data_mut().held().streams;
                    let stream = Stream { family, port, peer };
                    held.extend([(incoming.rep(), stream), (outgoing.rep(), stream)]);
                }
                Ok((streams,))
            })
        },
    )?;
    udp.func_wrap(
        "[method]udp-socket.local-address",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<UdpSocket>,)| {
            let family = store.data_mut().held().family(this.rep());
            let mut sockets = store.data_mut().sockets();
            let own = HostUdpSocket::local_address(&mut sockets, this);
            let own = own.map(|own| family::told(family, own));
            Ok((answer(&mut sockets, own)?,))
        },
    )?;
    udp.func_wrap(
        "[method]udp-socket.remote-address",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<UdpSocket>,)| {
            let family = store.data_mut().held().family(this.rep());
            let peer = HostUdpSocket::remote_address(&mut store.data_mut().sockets(), this);
            let peer = peer.map(|peer| origin(store.data().network().map(|one| &**one), family, peer));
            Ok((answer(&mut store.data_mut().sockets(), peer)?,))
        },
    )?;
    udp.func_wrap(
        "[method]udp-socket.address-family",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<UdpSocket>,)| {
            Ok((store.data_mut().held().family(this.rep()),))
        },
    )?;
    udp.func_wrap(
        "[method]incoming-datagram-stream.receive",
        |mut store: StoreContextMut<'_, T>, (this, max): (Resource<IncomingDatagramStream>, u64)| {
            let stream = store.data_mut().held().stream(this.rep());
            let mut received = store.data_mut().sockets().receive(this, max);
            let network = store.data().network().map(|one| &**one);
            if let Ok(datagrams) = &mut received {
                datagrams.retain(|datagram| {
                    let from = datagram.remote_address.into();
                    network.is_none_or(|network| network.admits(Protocol::Udp, stream.port, from))
                });
                for datagram in datagrams {
                    datagram.remote_address = origin(network, stream.family, datagram.remote_address);
                }
            }
            Ok((answer(&mut store.data_mut().sockets(), received)?,))
        },
    )?;
    udp.func_wrap_async(
        "[method]outgoing-datagram-stream.send",
        |mut store, (this, mut datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            Box::new(async move {
                let stream = store.data_mut().held().stream(this.rep());
                let reached = datagrams.iter_mut().try_for_each(|datagram| {
                    let network = store.data().network();
                    match (&mut datagram.remote_address, stream.peer) {
                        (Some(to), _) => {
                            let Stream { family, port, .. } = stream;
                            *to = SocketAddr::V4(remote(network, family, Protocol::Udp, port, *to)?).into();
                        }
                        (None, Some(peer)) => network.iter().for_each(|one| one.sends(stream.port, peer)),
                        // Which is an error.
                        (None, None) => {}
                    }
                    Ok::<(), ErrorCode>(())
                });
                let mut sockets = store.data_mut().sockets();
                let sent = match reached {
                    Ok(()) => sockets.send(this, datagrams),
                    Err(error) => Err(error.into()),
                };
                Ok((answer(&mut sockets, sent)?,))
            })
        },
    )
}

type Binding = (Resource<UdpSocket>, Resource<WasiNetwork>, IpSocketAddress);

/// Remembers what a new socket takes until it is dropped.
fn hold<T: HasNetwork>(
    store: &mut StoreContextMut<'_, T>,
    socket: Resource<UdpSocket>,
    family: IpAddressFamily,
    takes: Takes,
) -> Resource<UdpSocket> {
    let held = Socket { _takes: takes, family };
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

/// As whom a guest knows whoever is at `socket`.
fn origin(
    network: Option<&dyn Network>,
    family: IpAddressFamily,
    socket: IpSocketAddress,
) -> IpSocketAddress {
    match (network, SocketAddr::from(socket)) {
        (Some(network), SocketAddr::V4(from)) => family::told(family, SocketAddr::V4(network.origin(from))),
        (_, from) => family::told(family, from),
    }
}

impl super::Held {
    fn stream(&self, rep: u32) -> Stream {
        self.streams.get(&rep).copied().unwrap_or(Stream::UNKNOWN)
    }
}
