//! Lets everybody else on the machine reach services: sockets at their addresses, at their ports of every
//! node of this process, and at the `hostPort`s of pods. They follow the table; connections that are under
//! way stay with their endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::table::Name;
use super::wanted::{NodeAddress, Target, Wanted, wanted};
use super::{Services, udp};
use crate::client::Recorder;
use crate::clock::Clock;
use crate::runtime::doors::Doors;
use crate::runtime::network::Protocol;

/// Connections through all sockets together; who comes later waits in the system's queue.
const CONNECTIONS_MAX: usize = 8192;
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
        services: Services,
        doors: Doors,
        nodes: Vec<NodeAddress>,
        recorder: Recorder,
        clock: Clock,
    ) -> Self {
        let stop = CancellationToken::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let keeper = Keeper {
            services,
            doors,
            nodes,
            recorder,
            clock,
            slots,
            open: BTreeMap::new(),
            closing: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        let task = tokio::spawn(keeper.run(stop.clone()));
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
        let all = u32::try_from(CONNECTIONS_MAX).expect("a small number");
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
    ) -> std::io::Result<()> {
        let (protocol, at) = place;
        match protocol {
            Protocol::Tcp => {
                let listener = tcp(at)?;
                let slots = self.slots.clone();
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
                    udp::serve(socket, way, closed).await;
                    place
                });
            }
        }
        Ok(())
    }
}

fn tcp(at: SocketAddrV4) -> std::io::Result<TcpListener> {
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
fn refused(place: Place, target: &Target, error: &std::io::Error) -> Option<(ObjectReference, String)> {
    let mend = match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => return None,
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: choose a higher port, or allow them with \
             `sysctl net.ipv4.ip_unprivileged_port_start=0` or CAP_NET_BIND_SERVICE"
        }
        std::io::ErrorKind::AddrInUse => "another program has it: stop that one, or choose another port",
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
    slots: Arc<Semaphore>,
    closed: CancellationToken,
    stop: CancellationToken,
) {
    let way = Arc::new(way);
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.expect("never closed");
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = closed.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, from)) => {
                let (way, stop) = (way.clone(), stop.clone());
                // Waited for by its slot.
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = pass(&way, stream, from) => {}
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to a service was not taken");
                way.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets the connection through to an endpoint, another if one does not answer.
async fn pass(way: &Way, mut stream: TcpStream, from: SocketAddr) {
    let mut tried = Vec::new();
    while let Some(to) = way.target.endpoint(&way.services, from.ip(), &tried) {
        stream = match way.doors.enter(to, stream, from) {
            Ok(()) => return,
            Err(stream) => stream,
        };
        match way.clock.timeout(CONNECT_MAX, dial(from.ip(), to)).await {
            Ok(Ok(endpoint)) => return splice(stream, endpoint, from).await,
            Ok(Err(error)) => tracing::debug!(%error, %to, "an endpoint is not there"),
            Err(_) => tracing::debug!(%to, "an endpoint does not answer"),
        }
        tried.push(to);
    }
}

/// Carries bytes until both sides are done.
async fn splice(mut stream: TcpStream, mut endpoint: TcpStream, from: SocketAddr) {
    for socket in [&stream, &endpoint] {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection may be slow");
        }
    }
    let carried = copy_bidirectional_with_sizes(&mut stream, &mut endpoint, BUFFER_BYTES, BUFFER_BYTES).await;
    if let Err(error) = carried {
        tracing::debug!(%error, %from, "a connection to a service broke");
    }
}

/// Connects as whoever came, where that is an address of this machine's loopback.
async fn dial(from: IpAddr, to: SocketAddrV4) -> std::io::Result<TcpStream> {
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
