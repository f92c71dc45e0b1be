//! Where a guest's connections come in.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use tokio::net::{TcpListener, TcpStream};

use crate::runtime::doors::{Caller, Door, Held};
use crate::runtime::network::{Network, Protocol};

/// At the socket, and at the door for those that were accepted elsewhere.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) at: SocketAddr,
    door: Door,
    /// Has been let in, and waits for the guest.
    pub(super) arrived: Option<io::Result<Arrived>>,
    /// Who is asked first, so that neither way keeps the other from its turn.
    door_first: bool,
}

pub(super) struct Arrived {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// What it counts by where it was accepted, if that was elsewhere.
    pub(super) held: Option<Held>,
}

impl Listener {
    pub(super) fn new(socket: TcpListener, network: &dyn Network) -> io::Result<Self> {
        let at = socket.local_addr()?;
        Ok(Self { socket, at, door: network.door(at.port()), arrived: None, door_first: false })
    }

    /// Waits until somebody comes whom the network admits. The others are turned away, and the guest never hears of
    /// them.
    pub(super) fn poll(&mut self, network: &dyn Network, context: &mut Context<'_>) -> Poll<()> {
        while self.arrived.is_none() {
            let arrived = ready!(self.poll_any(context));
            if let Ok(Arrived { peer, .. }) = &arrived
                && !network.admits(Protocol::Tcp, self.at.port(), *peer)
            {
                continue;
            }
            self.arrived = Some(arrived);
        }
        Poll::Ready(())
    }

    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Arrived>> {
        self.door_first = !self.door_first;
        for at_door in [self.door_first, !self.door_first] {
            let polled = if at_door {
                let arrived = self.door.poll_arrival(context);
                arrived.map_ok(|Caller { stream, peer, held }| Arrived { stream, peer, held: Some(held) })
            } else {
                let accepted = self.socket.poll_accept(context);
                accepted.map_ok(|(stream, peer)| Arrived { stream, peer, held: None })
            };
            if polled.is_ready() {
                return polled;
            }
        }
        Poll::Pending
    }
}
