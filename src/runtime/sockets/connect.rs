//! Connections that leave a pod. Where nobody is at one endpoint of a service, because it has ended and the word of
//! that is still on its way, another is tried before the guest hears of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::net::{TcpSocket, TcpStream};

use super::options::Options;
use crate::runtime::network::{ENDPOINTS_MAX, Network};

/// Connects to `reached`, to which `to` led, or to another if nobody is there: by `first`, if that is given and has
/// the `options`, and by sockets of its own.
///
/// # Errors
/// Of the last that was tried.
pub(in crate::runtime) async fn connect(
    network: &dyn Network,
    mut first: Option<TcpSocket>,
    options: &Options,
    to: SocketAddrV4,
    mut reached: SocketAddrV4,
) -> io::Result<TcpStream> {
    let mut tried = Vec::new();
    loop {
        let socket = match first.take() {
            Some(socket) => socket,
            None => {
                let socket = TcpSocket::new_v4()?;
                options.apply(&socket)?;
                socket
            }
        };
        leave_from(&socket, network.address(), reached)?;
        match socket.connect(reached.into()).await {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                tried.push(reached);
                let another = if tried.len() < ENDPOINTS_MAX { network.another(to, &tried) } else { None };
                reached = another.ok_or(refused)?;
            }
            other => return other,
        }
    }
}

/// Within the cluster a connection leaves from the pod's `own` address; where it leaves the machine the system
/// chooses.
fn leave_from(socket: &TcpSocket, own: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    if to.ip().is_loopback() { socket.bind(SocketAddr::from((own, 0))) } else { Ok(()) }
}
