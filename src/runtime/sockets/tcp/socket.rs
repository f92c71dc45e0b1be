//! A guest's socket of TCP: what it is, and what it becomes.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::listen;
use tokio::net::TcpStream;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, Pollable};

use super::listener::{Arrived, Listener};
use super::tcp::ShutdownType;
use crate::clock::Clock;
use crate::runtime::network::{Network, Protocol, as_ipv4};
use crate::runtime::sockets::connect::connect;
use crate::runtime::sockets::connection::{Connection, Reader, Writer, WriterEnd};
use crate::runtime::sockets::options::{Options, Set};
use crate::runtime::sockets::{Takes, bindable, family, is_unicast, remote};

/// Connections that wait for a guest that listens and has not said how many may.
const BACKLOG: u32 = 1_024;
/// What `set-listen-backlog-size` is bounded by; the system has a bound of its own (`net.core.somaxconn`).
const BACKLOG_MAX: u32 = 4_096;

/// A guest's socket.
#[expect(unreachable_pub, reason = "the generated bindings export it once more")]
pub struct TcpSocket {
    state: State,
    /// Of what the guest takes it for a socket.
    family: IpAddressFamily,
    network: Arc<dyn Network>,
    options: Options,
    backlog: u32,
    /// What it takes until it is a connection.
    takes: Option<Takes>,
}

enum State {
    Unbound(tokio::net::TcpSocket),
    /// Begun, and not finished.
    Binding(tokio::net::TcpSocket),
    Bound(tokio::net::TcpSocket),
    /// Begun, and not finished.
    Opening(Listener),
    Listening(Listener),
    Connecting(Connecting),
    Connected(Connected),
    /// It came to nothing.
    Failed,
}

/// A connection that has been begun.
struct Connecting {
    /// Whom the guest asked for.
    asked: IpSocketAddress,
    under_way: Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>,
    come: Option<io::Result<TcpStream>>,
}

impl Connecting {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.come.is_none() {
            self.come = Some(ready!(self.under_way.as_mut().poll(context)));
        }
        Poll::Ready(())
    }
}

struct Connected {
    connection: Arc<Connection>,
    /// Where the guest takes it to begin, if it is not where it does.
    own: Option<SocketAddr>,
    /// Whom the guest takes to be at the other end.
    peer: IpSocketAddress,
    reader: Reader,
    writer: WriterEnd,
}

/// Both directions of a connection.
pub(super) type Streams = (DynInputStream, DynOutputStream);

impl TcpSocket {
    pub(super) fn new(network: Arc<dyn Network>, family: IpAddressFamily, takes: Takes) -> io::Result<Self> {
        let state = State::Unbound(tokio::net::TcpSocket::new_v4()?);
        let options = Options::default();
        Ok(Self { state, family, network, options, backlog: BACKLOG, takes: Some(takes) })
    }

    pub(super) fn family(&self) -> IpAddressFamily {
        self.family
    }

    /// What options are set of.
    pub(super) fn descriptor(&self) -> Result<BorrowedFd<'_>, ErrorCode> {
        match &self.state {
            State::Unbound(socket) | State::Binding(socket) | State::Bound(socket) => Ok(socket.as_fd()),
            State::Opening(listener) | State::Listening(listener) => Ok(listener.socket.as_fd()),
            State::Connected(connected) => Ok(connected.connection.stream.as_fd()),
            State::Connecting(_) | State::Failed => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn set(&mut self, set: Set) -> Result<(), ErrorCode> {
        let mut options = std::mem::take(&mut self.options);
        let done = self.descriptor().and_then(|socket| options.set(socket, set));
        self.options = options;
        done
    }

    /// An error if something was begun and is not finished.
    fn at_rest(&self) -> Result<(), ErrorCode> {
        match self.state {
            State::Binding(_) | State::Opening(_) | State::Connecting(_) => {
                Err(ErrorCode::ConcurrencyConflict)
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Failed)
    }

    pub(super) fn start_bind(&mut self, asked: IpSocketAddress) -> Result<(), ErrorCode> {
        self.at_rest()?;
        let State::Unbound(socket) = &self.state else { return Err(ErrorCode::InvalidState) };
        let at = bindable(self.network.address(), self.family, asked)?;
        // Connections that have ended lately do not count (wasi:sockets/tcp, start-bind).
        socket.set_reuseaddr(true)?;
        socket.bind(at.into())?;
        if let State::Unbound(socket) = self.take() {
            self.state = State::Binding(socket);
        }
        Ok(())
    }

    pub(super) fn finish_bind(&mut self) -> Result<(), ErrorCode> {
        let State::Binding(_) = &self.state else { return Err(ErrorCode::NotInProgress) };
        if let State::Binding(socket) = self.take() {
            self.state = State::Bound(socket);
        }
        Ok(())
    }

    pub(super) fn start_connect(&mut self, asked: IpSocketAddress) -> Result<(), ErrorCode> {
        self.at_rest()?;
        let (State::Unbound(_) | State::Bound(_)) = &self.state else { return Err(ErrorCode::InvalidState) };
        let reached = remote(Some(&self.network), self.family, Protocol::Tcp, 0, asked)?;
        if reached.port() == 0 || reached.ip().is_unspecified() || !is_unicast(*reached.ip()) {
            return Err(ErrorCode::InvalidArgument);
        }
        let wanted = SocketAddr::from(asked);
        let ip = as_ipv4(wanted.ip()).ok_or(ErrorCode::RemoteUnreachable)?;
        let to = SocketAddrV4::new(ip, wanted.port());
        let mut under_way: Pin<Box<dyn Future<Output = _> + Send>> = match self.take() {
            State::Unbound(socket) => {
                let (network, options) = (Arc::clone(&self.network), self.options.clone());
                Box::pin(async move { connect(&*network, Some(socket), &options, to, reached).await })
            }
            // The guest has chosen where its socket is: there is no other.
            State::Bound(socket) => Box::pin(socket.connect(reached.into())),
            _ => return Err(ErrorCode::InvalidState),
        };
        // It begins now, and goes on whenever the guest looks, or waits for it.
        let come = match under_way.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(come) => Some(come),
            Poll::Pending => None,
        };
        self.state = State::Connecting(Connecting { asked, under_way, come });
        Ok(())
    }

    pub(super) fn finish_connect(&mut self, clock: Clock) -> Result<Streams, ErrorCode> {
        let State::Connecting(connecting) = &mut self.state else { return Err(ErrorCode::NotInProgress) };
        if connecting.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock);
        }
        let asked = connecting.asked;
        let come = connecting.come.take().ok_or(ErrorCode::WouldBlock)?;
        self.state = State::Failed;
        let takes = self.takes.take().ok_or(ErrorCode::InvalidState)?;
        Ok(self.connected(Connection::new(come?, takes, None), None, asked, clock))
    }

    pub(super) fn start_listen(&mut self) -> Result<(), ErrorCode> {
        self.at_rest()?;
        let State::Bound(_) = &self.state else { return Err(ErrorCode::InvalidState) };
        if let State::Bound(socket) = self.take() {
            self.state = State::Opening(Listener::new(socket.listen(self.backlog)?, &*self.network)?);
        }
        Ok(())
    }

    pub(super) fn finish_listen(&mut self) -> Result<(), ErrorCode> {
        let State::Opening(_) = &self.state else { return Err(ErrorCode::NotInProgress) };
        if let State::Opening(listener) = self.take() {
            self.state = State::Listening(listener);
        }
        Ok(())
    }

    pub(super) fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    /// The next connection, which takes `takes`.
    pub(super) fn accept(&mut self, takes: Takes, clock: Clock) -> Result<(Self, Streams), ErrorCode> {
        let State::Listening(listener) = &mut self.state else { return Err(ErrorCode::InvalidState) };
        if listener.poll(&*self.network, &mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock);
        }
        let arrived = listener.arrived.take().ok_or(ErrorCode::WouldBlock)?;
        let Arrived { stream, peer, held } = arrived.map_err(aborted)?;
        // What was set of the listener holds for its connections.
        let options = self.options.clone();
        let own = if held.is_some() {
            options.apply(&stream)?;
            // By which address it came is not for the guest to know.
            Some(listener.at)
        } else {
            None
        };
        let (state, family, network) = (State::Failed, self.family, Arc::clone(&self.network));
        let mut accepted = Self { state, family, network, options, backlog: BACKLOG, takes: None };
        let connection = Connection::new(stream, takes, held);
        let streams = accepted.connected(connection, own, family::told(family, peer), clock);
        Ok((accepted, streams))
    }

    fn connected(
        &mut self,
        connection: Arc<Connection>,
        own: Option<SocketAddr>,
        peer: IpSocketAddress,
        clock: Clock,
    ) -> Streams {
        let reader = Reader::new(&connection);
        let (output, writer) = Writer::new(&connection, clock);
        let input = Box::new(reader.clone());
        self.state = State::Connected(Connected { connection, own, peer, reader, writer });
        (input, Box::new(output))
    }

    pub(super) fn set_backlog(&mut self, size: u64) -> Result<(), ErrorCode> {
        if size == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        let size = u32::try_from(size).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX);
        match &self.state {
            State::Unbound(_) | State::Binding(_) | State::Bound(_) => {}
            State::Opening(listener) | State::Listening(listener) => {
                listen(&listener.socket, i32::try_from(size).unwrap_or(i32::MAX))?;
            }
            State::Connecting(_) | State::Connected(_) | State::Failed => {
                return Err(ErrorCode::InvalidState);
            }
        }
        self.backlog = size;
        Ok(())
    }

    pub(super) fn local_address(&self) -> Result<IpSocketAddress, ErrorCode> {
        let own = match &self.state {
            State::Binding(socket) | State::Bound(socket) => socket.local_addr()?,
            State::Opening(listener) | State::Listening(listener) => listener.at,
            State::Connected(Connected { own: Some(own), .. }) => *own,
            State::Connected(Connected { connection, .. }) => connection.stream.local_addr()?,
            State::Unbound(_) | State::Connecting(_) | State::Failed => return Err(ErrorCode::InvalidState),
        };
        Ok(family::told(self.family, own))
    }

    pub(super) fn remote_address(&self) -> Result<IpSocketAddress, ErrorCode> {
        match &self.state {
            State::Connected(connected) => Ok(connected.peer),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn shutdown(&self, what: ShutdownType) -> Result<(), ErrorCode> {
        let State::Connected(connected) = &self.state else { return Err(ErrorCode::InvalidState) };
        if let ShutdownType::Receive | ShutdownType::Both = what {
            connected.reader.close();
        }
        if let ShutdownType::Send | ShutdownType::Both = what {
            connected.writer.close();
        }
        Ok(())
    }
}

#[async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        poll_fn(|context| match &mut self.state {
            State::Connecting(connecting) => connecting.poll(context),
            State::Listening(listener) => listener.poll(&*self.network, context),
            _ => Poll::Ready(()),
        })
        .await;
    }
}

/// Linux tells of what befell a connection that was on its way as if the listener had failed (accept(2)).
fn aborted(error: io::Error) -> ErrorCode {
    match ErrorCode::from(&error) {
        ErrorCode::ConnectionReset
        | ErrorCode::RemoteUnreachable
        | ErrorCode::NotSupported
        | ErrorCode::Unknown => ErrorCode::ConnectionAborted,
        other => other,
    }
}
