//! One container that is a handler: its socket, from the first connection to the last.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::complaints::Complaints;
use super::exchange::{Handler, Job};
use super::gate::Gate;
use super::{FRESH_MAX, Http, Instances, WAITING_MAX, connection};
use crate::runtime::doors::Caller;
use crate::runtime::environment::Environment;
use crate::runtime::network::{Network, Protocol};
use crate::runtime::stop::Stop;
use crate::runtime::turns::{Stage, Switch};
use crate::runtime::wasm::{Shared, WasmImage};
use crate::runtime::{ContainerSpec, Exit};

/// Connections of one container at a time, or fewer where the process may have few files; more wait in the system's
/// queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections that wait in the system's queue; who comes when that is full tries again a second later.
const BACKLOG: u32 = 1_024;
/// The pause after an error of the listening socket, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server is made of.
pub(in crate::runtime) struct Parts {
    pub(in crate::runtime) spec: ContainerSpec,
    pub(in crate::runtime) http: Http,
    pub(in crate::runtime) network: Arc<dyn Network>,
    pub(in crate::runtime) image: Arc<WasmImage>,
    pub(in crate::runtime) shared: Arc<Shared>,
    pub(in crate::runtime) stage: Stage,
    pub(in crate::runtime) stop: Arc<Stop>,
}

/// A container's server.
pub(in crate::runtime) struct Server {
    pub(super) parts: Parts,
    /// All its instances are told the same.
    pub(super) environment: Arc<Environment>,
    pub(super) gate: Arc<Gate<Job, Handler>>,
    pub(super) live: Live,
    pub(super) complaints: Complaints,
    /// It has been asked to stop.
    pub(super) closing: CancellationToken,
}

/// Listens on a container's port. To be called in a tokio runtime.
///
/// # Errors
/// In words for the container's status.
pub(in crate::runtime) fn bind(network: &dyn Network, http: &Http) -> Result<StdListener, String> {
    let address = SocketAddrV4::new(network.address(), http.port);
    let bound = || {
        let socket = TcpSocket::new_v4()?;
        // What was closed a moment ago may still be on its way.
        socket.set_reuseaddr(true)?;
        socket.bind(address.into())?;
        socket.listen(BACKLOG)?.into_std()
    };
    bound().map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::AddrInUse => "; another container of the pod has it: give each a containerPort",
            io::ErrorKind::PermissionDenied => "; choose a containerPort from 1024 on",
            _ => "",
        };
        format!("cannot serve HTTP on {address}: {error}{mend}")
    })
}

impl Server {
    pub(in crate::runtime) fn new(parts: Parts) -> Arc<Self> {
        let count = match parts.http.instances {
            Instances::Fresh => FRESH_MAX,
            Instances::Kept(count) => count,
        };
        Arc::new(Self {
            environment: Environment::of(&parts.spec),
            parts,
            gate: Gate::new(count, WAITING_MAX),
            live: Live::default(),
            complaints: Complaints::default(),
            closing: CancellationToken::new(),
        })
    }

    /// Serves until it is asked to stop, and then until nothing is under way. Dropped, it ends everything.
    pub(in crate::runtime) async fn serve(self: Arc<Self>, listener: StdListener) -> Exit {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return Exit::Trap(format!("cannot serve HTTP: {error}")),
        };
        let _all = EndsAll(&self);
        let descriptors = &self.parts.shared.world().descriptors;
        let places = Arc::new(Semaphore::new(descriptors.clients_each(CONNECTIONS_MAX)));
        let mut door = self.parts.network.door(self.parts.http.port);
        let mut next = async || {
            // It is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            let place = (place, descriptors.for_client().await);
            tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, peer)| (stream, peer, (Some(place), None))),
                arrived = door.arrival() => {
                    arrived.map(|Caller { stream, peer, held }| (stream, peer, (Some(place), Some(held))))
                }
            }
        };
        let mut connections = JoinSet::new();
        let admit = |connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, place| {
            let Parts { network, http, .. } = &self.parts;
            if network.admits(Protocol::Tcp, http.port, peer) {
                let served = connection::serve(Arc::clone(&self), stream, peer);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
        };
        let mut asked = std::pin::pin!(self.parts.stop.asked());
        loop {
            let accepted = loop {
                tokio::select! {
                    () = &mut asked => break None,
                    accepted = next() => break Some(accepted),
                    Some(_) = connections.join_next() => {}
                }
            };
            match accepted {
                None => break,
                Some(Ok((stream, peer, place))) => admit(&mut connections, stream, peer, place),
                Some(Err(error)) => {
                    tracing::debug!(container = self.parts.spec.label, %error, "accept failed");
                    self.parts.shared.clock().sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Whoever has connected by now is not turned away.
        for Caller { stream, peer, held } in door.close() {
            admit(&mut connections, stream, peer, (None, Some(held)));
        }
        while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
            admit(&mut connections, stream, peer, (None, None));
        }
        drop(listener);
        self.closing.cancel();
        while connections.join_next().await.is_some() {}
        // Handlers may have work left after their answers.
        self.gate.empty().await;
        Exit::Code(0)
    }
}

/// The runs of handlers that are under way.
#[derive(Default)]
pub(super) struct Live(Mutex<Runs>);

#[derive(Default)]
struct Runs {
    over: bool,
    next: u64,
    switches: BTreeMap<u64, Arc<Switch>>,
}

/// One of them, until it is dropped.
pub(super) struct Entry {
    server: Arc<Server>,
    number: u64,
}

impl Live {
    /// A run that `switch` ends; `None` once all is over.
    pub(super) fn enter(server: &Arc<Server>, switch: &Arc<Switch>) -> Option<Entry> {
        let mut runs = server.live.0.lock().expect("no holder panics");
        if runs.over {
            return None;
        }
        let number = runs.next;
        runs.next += 1;
        runs.switches.insert(number, Arc::clone(switch));
        Some(Entry { server: Arc::clone(server), number })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.server.live.0.lock().expect("no holder panics").switches.remove(&self.number);
    }
}

/// Ends what is under way when the container's own run ends.
struct EndsAll<'a>(&'a Arc<Server>);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        let mut runs = self.0.live.0.lock().expect("no holder panics");
        runs.over = true;
        let switches = std::mem::take(&mut runs.switches);
        drop(runs);
        for switch in switches.values() {
            switch.kill();
        }
        drop(self.0.gate.take_idle());
    }
}
