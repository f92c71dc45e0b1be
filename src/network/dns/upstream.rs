//! Questions to other servers: those of the machine, and those that a pod names for itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::wire::{self, Transport};
use crate::clock::Clock;
use crate::random::Random;

/// The port of name servers.
pub const PORT: u16 = 53;
/// How long one server may take for one question.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Rounds of asking every server, as UDP loses what it likes.
const ROUNDS: usize = 2;
/// Questions under way at a time; more wait. Each has a socket.
const QUESTIONS_MAX: usize = 256;
/// The largest answer over UDP that is read.
const UDP_READ_MAX: usize = 4096;
/// Answers to other questions that are passed over before a server is given up.
const STRAYS_MAX: usize = 16;

/// Asks others; shared by all.
pub struct Upstream {
    clock: Clock,
    random: Random,
    questions: Semaphore,
    /// [`PORT`], but for tests.
    port: u16,
}

impl Upstream {
    #[must_use]
    pub fn new(clock: Clock, random: Random) -> Self {
        Self { clock, random, questions: Semaphore::new(QUESTIONS_MAX), port: PORT }
    }

    /// A number for a question, which is no secret but hard to guess.
    #[must_use]
    pub fn id(&self) -> u16 {
        u16::try_from(self.random.below(1 << 16)).expect("below 2^16")
    }

    /// The answer of the first of `servers` that gives one.
    ///
    /// # Errors
    /// If none does; in virtual time, in which nobody outside can be waited for.
    pub async fn ask(&self, servers: &[IpAddr], query: &[u8], transport: Transport) -> io::Result<Message> {
        if self.clock.is_virtual() {
            return Err(io::Error::other("there are no other name servers in virtual time"));
        }
        let _place = self.questions.acquire().await.map_err(io::Error::other)?;
        let mut last = io::Error::other("there is no other name server to ask");
        for _ in 0..ROUNDS {
            for server in servers {
                let server = SocketAddr::from((*server, self.port));
                match self.clock.timeout(ANSWER_MAX, exchange(server, query, transport)).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
        }
        Err(last)
    }

    /// The IPv4 addresses of `name`; `None` if there is no such name.
    ///
    /// # Errors
    /// If no server says.
    pub async fn addresses(&self, servers: &[IpAddr], name: &str) -> io::Result<Option<Vec<IpAddr>>> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "it is no name of DNS");
        let query = |transport| wire::address_query(name, self.id(), transport).ok_or_else(no_name);
        let mut answer = self.ask(servers, &query(Transport::Udp)?, Transport::Udp).await?;
        if answer.metadata.truncation {
            answer = self.ask(servers, &query(Transport::Tcp)?, Transport::Tcp).await?;
        }
        Ok(wire::addresses(&answer))
    }
}

async fn exchange(server: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Message> {
    match transport {
        Transport::Udp => over_udp(server, query).await,
        Transport::Tcp => over_tcp(server, query).await,
    }
}

/// From a port of its own, so that an answer must hit both number and port to be believed.
async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut bytes = vec![0; UDP_READ_MAX];
    for _ in 0..STRAYS_MAX {
        let length = socket.recv(&mut bytes).await?;
        if let Some(answer) = wire::matching(query, &bytes[..length]) {
            return Ok(answer);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what came back is no answer"))
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Message> {
    let mut connection = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), query].concat();
    connection.write_all(&framed).await?;
    let mut bytes = vec![0; usize::from(connection.read_u16().await?)];
    connection.read_exact(&mut bytes).await?;
    wire::matching(query, &bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what came back is no answer"))
}

#[cfg(test)]
mod tests;
