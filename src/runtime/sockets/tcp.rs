//! `wasi:sockets/tcp`: the interface to a guest's [`socket`]s.

use std::io;
use std::sync::Arc;

use rustix::net::sockopt;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::network::{
    self, ErrorCode, IpAddressFamily, IpSocketAddress, Network as WasiNetwork,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, SocketError, SocketResult, subscribe};

use self::bindings::wasi::sockets::{tcp, tcp_create_socket};
use self::socket::{Streams, TcpSocket};
use super::options::{Set, told_bytes, told_time};
use super::{HasNetwork, Held};
use crate::runtime::network::Network;

mod listener;
mod socket;

mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package coracle:sockets;
            world imports {
                import wasi:sockets/tcp@0.2.12;
                import wasi:sockets/tcp-create-socket@0.2.12;
            }
        ",
        path: ["wit/deps/io", "wit/deps/clocks", "wit/deps/sockets"],
        world: "coracle:sockets/imports",
        require_store_data_send: true,
        imports: { default: trappable },
        trappable_error_type: {
            "wasi:sockets/network.error-code" => wasmtime_wasi::p2::SocketError,
        },
        with: {
            "wasi:io/error": wasmtime_wasi::p2::bindings::io::error,
            "wasi:io/poll": wasmtime_wasi::p2::bindings::io::poll,
            "wasi:io/streams": wasmtime_wasi::p2::bindings::io::streams,
            "wasi:clocks/monotonic-clock": wasmtime_wasi::p2::bindings::clocks::monotonic_clock,
            "wasi:sockets/network": wasmtime_wasi::p2::bindings::sockets::network,
            "wasi:sockets/tcp.tcp-socket": super::socket::TcpSocket,
        },
    });
}

/// What the functions of the interface work on.
pub(in crate::runtime) struct TcpView<'a> {
    pub(in crate::runtime) network: Option<&'a Arc<dyn Network>>,
    pub(in crate::runtime) held: &'a mut Held,
    pub(in crate::runtime) table: &'a mut ResourceTable,
}

struct HasTcp;

impl HasData for HasTcp {
    type Data<'a> = TcpView<'a>;
}

/// Puts it in the place of what is in `linker`; shadowing is allowed by the caller.
pub(super) fn shadow<T: HasNetwork + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    tcp::add_to_linker::<T, HasTcp>(linker, T::tcp)?;
    tcp_create_socket::add_to_linker::<T, HasTcp>(linker, T::tcp)
}

impl TcpView<'_> {
    fn get(&mut self, this: &Resource<TcpSocket>) -> SocketResult<&mut TcpSocket> {
        Ok(self.table.get_mut(this)?)
    }

    /// The guest's streams; it has to let go of them before the socket.
    fn give(
        &mut self,
        this: &Resource<TcpSocket>,
        (input, output): Streams,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        Ok((self.table.push_child(input, this)?, self.table.push_child(output, this)?))
    }
}

impl network::Host for TcpView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<io::Error>().map(ErrorCode::from))
    }
}

impl network::HostNetwork for TcpView<'_> {
    fn drop(&mut self, this: Resource<WasiNetwork>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl tcp_create_socket::Host for TcpView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let network = self.network.cloned().ok_or(ErrorCode::AccessDenied)?;
        let takes = self.held.one_more()?;
        Ok(self.table.push(TcpSocket::new(network, family, takes)?)?)
    }
}

impl tcp::Host for TcpView<'_> {}

impl tcp::HostTcpSocket for TcpView<'_> {
    fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        _: Resource<WasiNetwork>,
        asked: IpSocketAddress,
    ) -> SocketResult<()> {
        Ok(self.get(&this)?.start_bind(asked)?)
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        Ok(self.get(&this)?.finish_bind()?)
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        _: Resource<WasiNetwork>,
        asked: IpSocketAddress,
    ) -> SocketResult<()> {
        Ok(self.get(&this)?.start_connect(asked)?)
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let clock = self.held.clock;
        let streams = self.get(&this)?.finish_connect(clock)?;
        self.give(&this, streams)
    }

    fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        Ok(self.get(&this)?.start_listen()?)
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        Ok(self.get(&this)?.finish_listen()?)
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (takes, clock) = (self.held.one_more()?, self.held.clock);
        let (accepted, streams) = self.get(&this)?.accept(takes, clock)?;
        let accepted = self.table.push(accepted)?;
        let (input, output) = self.give(&accepted, streams)?;
        Ok((accepted, input, output))
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.get(&this)?.local_address()?)
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.get(&this)?.remote_address()?)
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&this)?.is_listening())
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family())
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, size: u64) -> SocketResult<()> {
        Ok(self.get(&this)?.set_backlog(size)?)
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(sockopt::socket_keepalive(self.get(&this)?.descriptor()?)?)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, is_on: bool) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::KeepAlive(is_on))?)
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(told_time(sockopt::tcp_keepidle(self.get(&this)?.descriptor()?)?))
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, time: u64) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::KeepAliveIdle(time))?)
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(told_time(sockopt::tcp_keepintvl(self.get(&this)?.descriptor()?)?))
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, time: u64) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::KeepAliveInterval(time))?)
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(sockopt::tcp_keepcnt(self.get(&this)?.descriptor()?)?)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, count: u32) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::KeepAliveCount(count))?)
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        let limit = sockopt::ip_ttl(self.get(&this)?.descriptor()?)?;
        Ok(u8::try_from(limit).map_err(|_| ErrorCode::NotSupported)?)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, limit: u8) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::HopLimit(limit))?)
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(told_bytes(sockopt::socket_recv_buffer_size(self.get(&this)?.descriptor()?)?))
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, size: u64) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::ReceiveBuffer(size))?)
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(told_bytes(sockopt::socket_send_buffer_size(self.get(&this)?.descriptor()?)?))
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, size: u64) -> SocketResult<()> {
        Ok(self.get(&this)?.set(Set::SendBuffer(size))?)
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, this)
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, what: tcp::ShutdownType) -> SocketResult<()> {
        Ok(self.get(&this)?.shutdown(what)?)
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
