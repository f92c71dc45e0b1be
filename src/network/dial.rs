//! The host's own connections to pods: probes, port-forward, the API's proxies.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

use crate::kind::address_plan::{HOST, is_pod};

/// Connects as a node does: to a pod from an address of nodes, which policies always permit.
///
/// # Errors
/// As `connect(2)`.
pub async fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    match to.ip() {
        IpAddr::V4(ip) if is_pod(ip) => {
            let socket = TcpSocket::new_v4()?;
            if let Err(error) = socket.bind((HOST, 0).into()) {
                tracing::debug!(%error, "connections to pods do not leave from an address of nodes");
            }
            socket.connect(to).await
        }
        IpAddr::V4(_) | IpAddr::V6(_) => TcpStream::connect(to).await,
    }
}
