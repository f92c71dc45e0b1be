//! A connection to a service of which one endpoint is not there: it has ended, and the word of that is still on
//! its way. Another is tried, on another socket, which takes the place of the guest's.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::instance_network::Host as _;
use wasmtime_wasi::p2::bindings::sockets::network::IpAddressFamily;
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::{SocketResult, TcpSocket};
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use super::connect;
use crate::runtime::network::{ENDPOINTS_MAX, Network, as_ipv4};

/// What one connection has tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// As the guest asked.
    to: SocketAddrV4,
    /// The last is under way.
    tried: Vec<SocketAddrV4>,
    options: Options,
}

/// What a guest has set of its socket, which no longer tells it once it has failed.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// Idle time, interval and count.
    keep_alive: Option<(u64, u64, u32)>,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

impl Attempt {
    /// One that is about to begin. `None` where there is no other: `to` is itself, or the guest has chosen where
    /// its socket is.
    pub(super) fn begun(
        sockets: &mut WasiSocketsCtxView<'_>,
        this: &Resource<TcpSocket>,
        to: SocketAddr,
        reached: SocketAddr,
    ) -> Option<Self> {
        let (Some(ip), SocketAddr::V4(reached)) = (as_ipv4(to.ip()), reached) else { return None };
        let to = SocketAddrV4::new(ip, to.port());
        let is_bound = HostTcpSocket::local_address(sockets, Resource::new_borrow(this.rep())).is_ok();
        if to == reached || is_bound {
            return None;
        }
        let options = Options::of(sockets, this).ok()?;
        Some(Self { to, tried: vec![reached], options })
    }

    /// The next, if there is one.
    pub(super) fn next(mut self, network: &dyn Network) -> Option<Self> {
        if self.tried.len() >= ENDPOINTS_MAX {
            return None;
        }
        let another = network.another(self.to, &self.tried)?;
        self.tried.push(another);
        Some(self)
    }
}

/// Begins it; whether it has.
pub(super) async fn again(
    sockets: &mut WasiSocketsCtxView<'_>,
    own: Ipv4Addr,
    this: &Resource<TcpSocket>,
    attempt: &Attempt,
) -> bool {
    let Some(to) = attempt.tried.last().copied() else { return false };
    if replace(sockets, this, &attempt.options).is_err() {
        return false;
    }
    let Ok(network) = sockets.instance_network() else { return false };
    let borrowed = Resource::new_borrow(network.rep());
    let this = Resource::new_borrow(this.rep());
    let begun = connect(sockets, Some(own), this, borrowed, to.into()).await;
    sockets.table.delete(network).is_ok() && begun.is_ok()
}

/// Gives the guest's socket another of the system's.
fn replace(
    sockets: &mut WasiSocketsCtxView<'_>,
    this: &Resource<TcpSocket>,
    options: &Options,
) -> SocketResult<()> {
    let made = sockets.create_tcp_socket(IpAddressFamily::Ipv4)?;
    let set = options.set(sockets, &made);
    let made = sockets.table.delete(made)?;
    *sockets.table.get_mut(this)? = made;
    set
}

impl Options {
    fn of(sockets: &mut WasiSocketsCtxView<'_>, this: &Resource<TcpSocket>) -> SocketResult<Self> {
        let this = || Resource::<TcpSocket>::new_borrow(this.rep());
        let keep_alive = if HostTcpSocket::keep_alive_enabled(sockets, this())? {
            let idle = HostTcpSocket::keep_alive_idle_time(sockets, this())?;
            let interval = HostTcpSocket::keep_alive_interval(sockets, this())?;
            Some((idle, interval, HostTcpSocket::keep_alive_count(sockets, this())?))
        } else {
            None
        };
        Ok(Self {
            keep_alive,
            hop_limit: HostTcpSocket::hop_limit(sockets, this())?,
            receive_buffer: HostTcpSocket::receive_buffer_size(sockets, this())?,
            send_buffer: HostTcpSocket::send_buffer_size(sockets, this())?,
        })
    }

    fn set(&self, sockets: &mut WasiSocketsCtxView<'_>, this: &Resource<TcpSocket>) -> SocketResult<()> {
        let rep = this.rep();
        let this = || Resource::<TcpSocket>::new_borrow(rep);
        let fresh = Self::of(sockets, &this())?;
        if let Some((idle, interval, count)) = self.keep_alive {
            HostTcpSocket::set_keep_alive_enabled(sockets, this(), true)?;
            HostTcpSocket::set_keep_alive_idle_time(sockets, this(), idle)?;
            HostTcpSocket::set_keep_alive_interval(sockets, this(), interval)?;
            HostTcpSocket::set_keep_alive_count(sockets, this(), count)?;
        }
        if self.hop_limit != fresh.hop_limit {
            HostTcpSocket::set_hop_limit(sockets, this(), self.hop_limit)?;
        }
        // The system grows those by itself that nobody has set.
        if self.receive_buffer != fresh.receive_buffer {
            HostTcpSocket::set_receive_buffer_size(sockets, this(), self.receive_buffer)?;
        }
        if self.send_buffer != fresh.send_buffer {
            HostTcpSocket::set_send_buffer_size(sockets, this(), self.send_buffer)?;
        }
        Ok(())
    }
}
