//! Datagrams to services from outside: each client has an endpoint of its own for as long as they talk.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::listeners::{Slot, Slots, Way};

/// Clients of one socket at one time; datagrams of others are dropped, as UDP may.
const FLOWS_MAX: usize = 1024;
/// A client that neither sends nor is answered for so long has gone.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

struct Flow {
    endpoint: SocketAddrV4,
    socket: Arc<UdpSocket>,
    /// Of what number of the table the endpoint was still one.
    version: u64,
    ended: CancellationToken,
    /// Among the connections of all services.
    _slot: Slot,
}

/// Carries datagrams both ways until closed.
pub(super) async fn serve(front: UdpSocket, way: Way, slots: Slots, closed: CancellationToken) {
    let front = Arc::new(front);
    let versions = way.services.changes();
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut answers: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = tokio::select! {
            biased;
            () = closed.cancelled() => break,
            Some(ended) = answers.join_next() => {
                if let Ok(from) = ended
                    && flows.get(&from).is_some_and(|flow| flow.ended.is_cancelled())
                {
                    flows.remove(&from);
                }
                continue;
            }
            received = front.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // An earlier answer reached nobody.
                Err(error) => {
                    tracing::debug!(%error, "a datagram to a service was lost");
                    continue;
                }
            },
        };
        let version = *versions.borrow();
        let stays = |flow: &Flow| flow.version == version || way.target.has(&way.services, flow.endpoint);
        match flows.get_mut(&from) {
            Some(flow) if !flow.ended.is_cancelled() && stays(flow) => flow.version = version,
            Some(_) | None => {
                if let Some(old) = flows.remove(&from) {
                    old.ended.cancel();
                }
                if flows.len() >= FLOWS_MAX {
                    continue;
                }
                // As many sockets as connections may be: datagrams of who comes later are dropped too.
                let Some(slot) = slots.try_take() else { continue };
                match open(&way, from, version, slot).await {
                    Some(flow) => {
                        answers.spawn(answer(
                            front.clone(),
                            flow.socket.clone(),
                            from,
                            way.clock,
                            flow.ended.clone(),
                        ));
                        flows.insert(from, flow);
                    }
                    None => continue,
                }
            }
        }
        let Some(flow) = flows.get(&from) else { continue };
        if let Err(error) = flow.socket.send(&buffer[..length]).await {
            tracing::debug!(%error, endpoint = %flow.endpoint, "an endpoint is not there");
            flow.ended.cancel();
        }
    }
    for flow in flows.into_values() {
        flow.ended.cancel();
    }
}

async fn open(way: &Way, from: SocketAddr, version: u64, slot: Slot) -> Option<Flow> {
    let endpoint = way.target.endpoint(&way.services, from.ip(), &[])?;
    let at = if from.ip().is_loopback() && endpoint.ip().is_loopback() {
        SocketAddr::new(from.ip(), 0)
    } else {
        SocketAddr::from(([0, 0, 0, 0], 0))
    };
    let connected = async {
        let socket = UdpSocket::bind(at).await?;
        socket.connect(SocketAddr::V4(endpoint)).await?;
        std::io::Result::Ok(socket)
    };
    match connected.await {
        Ok(socket) => {
            let (socket, ended) = (Arc::new(socket), CancellationToken::new());
            Some(Flow { endpoint, socket, version, ended, _slot: slot })
        }
        Err(error) => {
            tracing::debug!(%error, %endpoint, "a datagram to a service was lost");
            None
        }
    }
}

/// Carries what the endpoint says to `to`, until it is told to end or is idle.
async fn answer(
    front: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    clock: crate::clock::Clock,
    ended: CancellationToken,
) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            () = ended.cancelled() => break,
            received = clock.timeout(IDLE_MAX, socket.recv(&mut buffer)) => received,
        };
        match received {
            Ok(Ok(length)) => {
                if let Err(error) = front.send_to(&buffer[..length], to).await {
                    tracing::debug!(%error, %to, "an answer of a service was lost");
                }
            }
            // Nobody is there any more.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    ended.cancel();
    to
}
