//! Lets everybody else on the machine reach services: sockets at their addresses, at their ports of every
//! node of this process, and at the `hostPort`s of pods. They follow the table; connections that are under
//! way stay with their endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::table::Name;
use super::wanted::{NodeAddress, Target, Wanted, wanted};
use super::{Services, udp};
use crate::client::Recorder;
use crate::clock::Clock;
use crate::runtime::doors::{Back, Caller, Doors, Held};
use crate::runtime::network::Protocol;

/// Connections through all sockets together, or fewer where the process may have few files; who comes later waits
/// in the system's queue. Of these one socket has a fourth at most, so that clients of one Service that do nothing
/// keep out none of others'.
const CONNECTIONS_MAX: usize = 8192;
/// Each connection is two files, and a fourth of all is for these.
const FILES_EACH: u64 = 8;
/// How long a client whose endpoint has ended the connection may say nothing before its side ends too.
const ENDED_MAX: Duration = Duration::from_secs(60);
/// How long an endpoint may be silent to a client that has ended its side and waits for the answer, and how long
/// either may take nothing of what the other says (upstream, kube-proxy's --conntrack-tcp-timeout-close-wait).
const STALLED_MAX: Duration = Duration::from_secs(3600);
/// Held of each direction of a connection, in bytes: who reads slowly slows the other down.
const BUFFER_BYTES: usize = 16 << 10;
/// How long an endpoint may take to answer before another is tried.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long to wait after the system refused a connection, which it does when there are no files left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Place = (Protocol, SocketAddrV4);

/// The open sockets.
pub struct Listeners {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listeners {
    pub(crate) fn start(
        threads: &Handle,
        services: Services,
        doors: Doors,
        nodes: Vec<NodeAddress>,
        recorder: Recorder,
        clock: Clock,
    ) -> Self {
        let stop = CancellationToken::new();
        let connections = connections_max();
        let slots = Arc::new(Semaphore::new(connections));
        let keeper = Keeper {
            services,
            doors,
            nodes,
            recorder,
            clock,
            connections,
            slots,
            open: BTreeMap::new(),
            closing: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        let task = threads.spawn(keeper.run(stop.clone()));
        Self { stop, task }
    }

    /// Closes all sockets and connections.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the sockets of services did not close by themselves");
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) services: Services,
    doors: Doors,
    pub(super) clock: Clock,
    pub(super) target: Target,
}

struct Keeper {
    services: Services,
    doors: Doors,
    nodes: Vec<NodeAddress>,
    recorder: Recorder,
    clock: Clock,
    connections: usize,
    slots: Arc<Semaphore>,
    open: BTreeMap<Place, (Target, CancellationToken)>,
    /// Told to close, but not closed yet.
    closing: BTreeSet<Place>,
    /// Problems that were told of, and last.
    told: BTreeSet<String>,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut changes = self.services.changes();
        loop {
            self.follow(&mut tasks, &stop);
            tokio::select! {
                () = stop.cancelled() => break,
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
                Some(closed) = tasks.join_next() => match closed {
                    Ok(place) => {
                        self.closing.remove(&place);
                        self.open.remove(&place);
                    }
                    Err(error) => tracing::error!(%error, "a socket of a service failed"),
                },
            }
        }
        while tasks.join_next().await.is_some() {}
        // Every connection has a slot until it ends.
        let all = u32::try_from(self.connections).expect("a small number");
        drop(self.slots.acquire_many(all).await);
    }

    /// Opens what is wanted and closes what is not.
    fn follow(&mut self, tasks: &mut JoinSet<Place>, stop: &CancellationToken) {
        let host_ports = self.services.host_ports();
        let Wanted { open, lost, left_out } =
            self.services.with_table(|table| wanted(table, &self.nodes, &host_ports));
        self.open.retain(|place, (target, closed)| {
            let stays = open.get(place) == Some(&*target);
            if !stays {
                closed.cancel();
                self.closing.insert(*place);
            }
            stays
        });
        let mut problems = Vec::new();
        for (place, target) in open {
            // Its turn comes when the old one is closed.
            if self.open.contains_key(&place) || self.closing.contains(&place) {
                continue;
            }
            let way = Way {
                services: self.services.clone(),
                doors: self.doors.clone(),
                clock: self.clock,
                target: target.clone(),
            };
            let closed = stop.child_token();
            match self.listen(place, way, closed.clone(), stop.clone(), tasks) {
                Ok(()) => drop(self.open.insert(place, (target, closed))),
                Err(error) => problems.extend(refused(place, &target, &error)),
            }
        }
        for (place, loser, winner) in lost {
            let text = format!(
                "{} is the Service {}/{}'s; give this one another port, or delete the other",
                text(place),
                winner.0,
                winner.1
            );
            problems.push((self.reference(&loser), text));
        }
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "services have more ports than can be open; pods reach them all the same"
            );
        }
        let now: BTreeSet<String> =
            problems.iter().map(|(about, text)| format!("{about:?} {text}")).collect();
        for (about, text) in problems {
            if !self.told.contains(&format!("{about:?} {text}")) {
                tracing::warn!(service = ?about.name, "{text}");
                self.recorder.warning(&about, "FailedToListen", text);
            }
        }
        self.told = now;
    }

    fn reference(&self, service: &Name) -> ObjectReference {
        let known = self.services.service(&service.0, &service.1);
        ObjectReference {
            uid: known.and_then(|known| known.metadata.uid.clone()),
            ..reference("Service", service)
        }
    }

    fn listen(
        &self,
        place: Place,
        way: Way,
        closed: CancellationToken,
        stop: CancellationToken,
        tasks: &mut JoinSet<Place>,
    ) -> io::Result<()> {
        let (protocol, at) = place;
        let own = Arc::new(Semaphore::new((self.connections / 4).max(1)));
        let slots = Slots { own, all: self.slots.clone() };
        match protocol {
            Protocol::Tcp => {
                let listener = tcp(at)?;
                tasks.spawn(async move {
                    accept(listener, way, slots, closed, stop).await;
                    place
                });
            }
            Protocol::Udp => {
                let socket = std::net::UdpSocket::bind(at)?;
                socket.set_nonblocking(true)?;
                let socket = UdpSocket::from_std(socket)?;
                tasks.spawn(async move {
                    udp::serve(socket, way, slots, closed).await;
                    place
                });
            }
        }
        Ok(())
    }
}

/// As many as the limit of files allows.
fn connections_max() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = files.and_then(|files| usize::try_from(files / FILES_EACH).ok());
    allowed.map_or(CONNECTIONS_MAX, |allowed| allowed.clamp(1, CONNECTIONS_MAX))
}

/// Of one socket, and of all.
pub(super) struct Slots {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// One connection's.
pub(super) type Slot = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Slots {
    /// One, if there is one.
    pub(super) fn try_take(&self) -> Option<Slot> {
        let own = self.own.clone().try_acquire_owned().ok()?;
        Some((own, self.all.clone().try_acquire_owned().ok()?))
    }

    async fn take(&self) -> Slot {
        // Its own first: who waits for that keeps nothing from others.
        let own = self.own.clone().acquire_owned().await.expect("never closed");
        (own, self.all.clone().acquire_owned().await.expect("never closed"))
    }
}

fn tcp(at: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // What was closed a moment ago may still be on its way.
    socket.set_reuseaddr(true)?;
    socket.bind(at.into())?;
    socket.listen(1024)
}

fn reference(kind: &str, (namespace, name): &Name) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        ..ObjectReference::default()
    }
}

fn text((protocol, at): Place) -> String {
    format!("{at}/{}", if protocol == Protocol::Tcp { "TCP" } else { "UDP" })
}

/// What is to be said of a socket that cannot be had; nothing of addresses that are not this machine's.
fn refused(place: Place, target: &Target, error: &io::Error) -> Option<(ObjectReference, String)> {
    let mend = match error.kind() {
        io::ErrorKind::AddrNotAvailable => return None,
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher port, or allow them with \
             `sysctl net.ipv4.ip_unprivileged_port_start=0` or CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrInUse => "another program has it: stop that one, or choose another port",
        _ => "raise the limit of open files (`ulimit -n`), or delete Services that are not needed",
    };
    let what = format!("cannot listen on {}: {error}; {mend}", text(place));
    Some(match target {
        Target::Service { of, .. } => {
            (reference("Service", of), format!("{what}; pods reach the Service all the same"))
        }
        Target::Pod { of, uid, .. } => {
            (ObjectReference { uid: Some(uid.clone()), ..reference("Pod", of) }, what)
        }
    })
}

/// Takes connections until closed; those under way go on until all stops.
async fn accept(
    listener: TcpListener,
    way: Way,
    slots: Slots,
    closed: CancellationToken,
    stop: CancellationToken,
) {
    let way = Arc::new(way);
    let (back, mut returned): (Back, _) = mpsc::unbounded_channel();
    loop {
        let next = async {
            let slot = slots.take().await;
            (slot, listener.accept().await)
        };
        let (passing, all) = tokio::select! {
            biased;
            () = closed.cancelled() => return,
            // The sender lives as long as this loop.
            Some((at, waiting)) = returned.recv() => match waiting.into_caller() {
                Ok(caller) => (Passing { caller, tried: vec![at] }, None),
                Err(error) => {
                    tracing::debug!(%error, %at, "a connection was lost on its way back");
                    continue;
                }
            },
            ((own, all), accepted) = next => match accepted {
                Ok((stream, peer)) => {
                    // Whoever is handed over still counts at this socket: its clients may not crowd out others of
                    // the endpoint.
                    let caller = Caller { stream, peer, held: Box::new(own) };
                    (Passing { caller, tried: Vec::new() }, Some(all))
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to a service was not taken");
                    way.clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(carried) = passing.enter(&way, &back) else { continue };
        let (way, back, stop, slots) = (way.clone(), back.clone(), stop.clone(), slots.all.clone());
        // Waited for by its slot.
        tokio::spawn(async move {
            let carry = async {
                let _all = match all {
                    Some(all) => Some(all),
                    None => slots.acquire_owned().await.ok(),
                };
                carried.go(&way, &back).await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = carry => {}
            }
        });
    }
}

/// A connection on its way to an endpoint, and those that it has tried.
struct Passing {
    caller: Caller,
    tried: Vec<SocketAddrV4>,
}

/// One that is to be carried to an endpoint outside this process.
struct Carried {
    passing: Passing,
    to: SocketAddrV4,
}

impl Passing {
    /// Hands it over to an endpoint of this process. What is to be done if the next is none; nothing is left of it if
    /// nobody is there.
    fn enter(self, way: &Way, back: &Back) -> Option<Carried> {
        let Self { caller, tried } = self;
        let to = way.target.endpoint(&way.services, caller.peer.ip(), &tried)?;
        let caller = way.doors.enter(to, caller, back).err()?;
        Some(Carried { passing: Self { caller, tried }, to })
    }
}

impl Carried {
    /// Carries it there, or to another if that one does not answer.
    async fn go(mut self, way: &Way, back: &Back) {
        loop {
            let Self { passing: Passing { caller, mut tried }, to } = self;
            match way.clock.timeout(CONNECT_MAX, dial(caller.peer.ip(), to)).await {
                Ok(Ok(endpoint)) => {
                    return splice(way, caller.stream, endpoint, caller.peer, caller.held).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, %to, "an endpoint is not there"),
                Err(_) => tracing::debug!(%to, "an endpoint does not answer"),
            }
            tried.push(to);
            let Some(next) = (Passing { caller, tried }).enter(way, back) else { return };
            self = next;
        }
    }
}

/// Carries bytes between the two until both are done.
async fn splice(way: &Way, stream: TcpStream, endpoint: TcpStream, from: SocketAddr, _held: Held) {
    for socket in [&stream, &endpoint] {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection may be slow");
        }
    }
    if let Err(error) = carry(stream, endpoint, way.clock).await {
        tracing::debug!(%error, %from, "a connection to a service broke");
    }
}

/// Carries bytes both ways until both sides are done, or one has waited for the other for too long.
async fn carry(mut client: TcpStream, mut endpoint: TcpStream, clock: Clock) -> io::Result<()> {
    let (client_ended, endpoint_ended) = (CancellationToken::new(), CancellationToken::new());
    let (from_client, to_client) = client.split();
    let (from_endpoint, to_endpoint) = endpoint.split();
    let asks = OneWay { ended: &client_ended, other: &endpoint_ended, silent_max: ENDED_MAX, clock };
    let answers = OneWay { ended: &endpoint_ended, other: &client_ended, silent_max: STALLED_MAX, clock };
    tokio::try_join!(asks.carry(from_client, to_endpoint), answers.carry(from_endpoint, to_client))?;
    Ok(())
}

/// One direction of a connection.
struct OneWay<'a> {
    /// Told when it has ended.
    ended: &'a CancellationToken,
    /// Tells when the other has.
    other: &'a CancellationToken,
    /// How long it may be silent after that.
    silent_max: Duration,
    clock: Clock,
}

impl OneWay<'_> {
    async fn carry(self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let silent = async {
                self.other.cancelled().await;
                self.clock.sleep(self.silent_max).await;
            };
            let length = tokio::select! {
                biased;
                length = from.read(&mut buffer) => length?,
                () = silent => return Err(late()),
            };
            if length == 0 {
                break;
            }
            let written = self.clock.timeout(STALLED_MAX, to.write_all(&buffer[..length])).await;
            written.map_err(|_| late())??;
        }
        self.ended.cancel();
        to.shutdown().await
    }
}

/// Connects as whoever came, where that is an address of this machine's loopback.
async fn dial(from: IpAddr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if from.is_loopback() && to.ip().is_loopback() {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to.into()).await
}

impl Target {
    /// Somebody who is there, but none of `tried`.
    pub(super) fn endpoint(
        &self,
        services: &Services,
        from: IpAddr,
        tried: &[SocketAddrV4],
    ) -> Option<SocketAddrV4> {
        match self {
            Self::Service { front, node, .. } => services.endpoint(*front, node.as_deref(), from, tried),
            Self::Pod { to, .. } => (!tried.contains(to)).then_some(*to),
        }
    }

    /// Whether `endpoint` is still one.
    pub(super) fn has(&self, services: &Services, endpoint: SocketAddrV4) -> bool {
        match self {
            Self::Service { front, node, .. } => services.is_endpoint(*front, node.as_deref(), endpoint),
            Self::Pod { to, .. } => *to == endpoint,
        }
    }
}

#[cfg(test)]
mod tests;
