//! The cluster's name server, for everybody who is not a guest: guests ask in process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Names;
use super::upstream::PORT;
use super::wire::{Reply, Transport, reply};
use crate::clock::Clock;

/// Questions that wait for other servers at a time; more are dropped, to be asked again.
const WAITING_MAX: usize = 256;
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// A connection on which nothing is asked, or no answer read, for so long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The largest question that is read over UDP; no name is longer than 255 bytes.
const UDP_READ_MAX: usize = 4096;
/// A wait after the system has no sockets left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    names: Arc<Names>,
    clock: Clock,
}

impl Server {
    /// Listens on `address`, over UDP and TCP; port 0 is any, the same for both.
    ///
    /// # Errors
    /// If the system does not let us.
    pub async fn bind(address: Ipv4Addr, names: Arc<Names>, clock: Clock) -> io::Result<Self> {
        Self::bind_at((address, PORT).into(), names, clock).await
    }

    pub(crate) async fn bind_at(address: SocketAddr, names: Arc<Names>, clock: Clock) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let udp = Arc::new(UdpSocket::bind(tcp.local_addr()?).await?);
        Ok(Self { udp, tcp, names, clock })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let Self { udp, tcp, names, clock } = self;
        let datagrams = serve_datagrams(udp, Arc::clone(&names), clock);
        let connections = serve_connections(tcp, names, clock);
        tokio::select! {
            () = stop.cancelled() => {}
            () = datagrams => {}
            () = connections => {}
        }
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, names: Arc<Names>, clock: Clock) {
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    let mut tasks = JoinSet::new();
    let mut bytes = vec![0; UDP_READ_MAX];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut bytes).await {
            Ok(received) => received,
            // Such as that an earlier answer found nobody.
            Err(error) => {
                debug!(%error, "cannot read a question");
                clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // What is known is answered here and now; only others are waited for.
        match names.with_zone(|zone| reply(zone, &bytes[..length], Transport::Udp)) {
            Reply::Nothing => {}
            Reply::Answer(answer) => send(&socket, &answer, from).await,
            Reply::Others(question) => {
                let Ok(place) = Arc::clone(&waiting).try_acquire_owned() else { continue };
                let (socket, names) = (Arc::clone(&socket), Arc::clone(&names));
                tasks.spawn(async move {
                    let _place = place;
                    let answer = names.ask_others(*question, Transport::Udp, from.ip()).await;
                    send(&socket, &answer, from).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        debug!(%error, %to, "cannot send an answer");
    }
}

async fn serve_connections(listener: TcpListener, names: Arc<Names>, clock: Clock) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((connection, from)) => {
                let names = Arc::clone(&names);
                tasks.spawn(async move {
                    let _place = place;
                    if let Err(error) = serve_connection(connection, from.ip(), &names, clock).await {
                        debug!(%error, "a connection for names ended");
                    }
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a connection for names");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One question after the other.
async fn serve_connection(
    mut connection: TcpStream,
    from: IpAddr,
    names: &Names,
    clock: Clock,
) -> io::Result<()> {
    let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let read = async {
            let mut bytes = vec![0; usize::from(connection.read_u16().await?)];
            connection.read_exact(&mut bytes).await?;
            io::Result::Ok(bytes)
        };
        let bytes = match clock.timeout(SILENCE_MAX, read).await.map_err(silent)? {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match names.with_zone(|zone| reply(zone, &bytes, Transport::Tcp)) {
            Reply::Nothing => return Ok(()),
            Reply::Answer(answer) => answer,
            Reply::Others(question) => names.ask_others(*question, Transport::Tcp, from).await,
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        clock.timeout(SILENCE_MAX, connection.write_all(&framed)).await.map_err(silent)??;
    }
}

#[cfg(test)]
mod tests;
