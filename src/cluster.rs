//! Wiring: builds every part, starts it, stops it in reverse.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::Service;

use crate::apiserver::authn::User;
use crate::apiserver::http::Server;
use crate::apiserver::pki::{Pki, PkiError};
use crate::apiserver::{self, Api, Parts, kubeconfig};
use crate::client::{Client, Recorder};
use crate::clock::Clock;
use crate::controller::fault::Fault;
use crate::controller::{self, Controllers};
use crate::guests;
use crate::kind;
use crate::kind::address_plan::AddressPlan;
use crate::kubelet::image::registry::{self, Registries};
use crate::kubelet::image::{self, ImageStore, Images, StoreError};
use crate::kubelet::{self, Kubelets, Logs, Meters, NodeConfig, Running};
use crate::network::claim::Claim;
use crate::network::{Listeners, Networks, NodeAddress};
use crate::random::Random;
use crate::runtime::sim::SimRuntime;
use crate::runtime::wasm::{self, WasmRuntime};
use crate::scheduler::{self, Scheduler};
use crate::store::{self, OpenError, Store};

mod dns;
mod node_access;
mod terminal;
mod threads;

use dns::Dns;
use node_access::Nodes;
use threads::GuestThreads;

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// `None` keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// The key that Secrets are encrypted with; `None` keeps it beside the data directory. It is made if
    /// need be.
    pub key_file: Option<PathBuf>,
    /// Bytes of history on disk, besides the current state.
    pub history_bytes: u64,
    /// `None` serves in process only.
    pub listen: Option<SocketAddr>,
    /// Nodes that run WebAssembly, named `node-0`, `node-1`, …
    pub nodes: u32,
    /// Nodes that play scripts, named `sim-0`, `sim-1`, …
    pub sim_nodes: u32,
    /// A data directory whose imported images may be used, if it is not `data_dir`.
    pub image_dir: Option<PathBuf>,
    /// Images by name that exist in this cluster only; with any, `image_dir` is not looked at.
    pub images: Vec<(String, Bytes)>,
    /// Where images may be pulled from; `None` pulls none, as does virtual time, since the network is in
    /// real time.
    pub registries: Option<registry::Options>,
    /// Below this directory, `file:///…` is an image.
    pub file_images: Option<PathBuf>,
    /// Virtual time from this moment on, and the seed of all chance. Needs
    /// [`crate::clock::virtual_runtime`].
    pub virtual_time: Option<(Timestamp, u64)>,
}

impl Default for Config {
    /// One node, in memory, in process.
    fn default() -> Self {
        Self {
            data_dir: None,
            key_file: None,
            history_bytes: store::HISTORY_BYTES_DEFAULT,
            listen: None,
            nodes: 1,
            sim_nodes: 0,
            image_dir: None,
            images: Vec::new(),
            registries: None,
            file_images: None,
            virtual_time: None,
        }
    }
}

/// Why a cluster cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot open the store: {0}")]
    Store(#[source] OpenError),
    #[error("cannot prepare the cluster's certificates: {0}")]
    Pki(#[source] PkiError),
    #[error("cannot serve the API: {0}; choose another address with --listen")]
    Listen(#[source] std::io::Error),
    #[error("cannot start the threads that guests run on: {0}")]
    Threads(#[source] std::io::Error),
    #[error("cannot prepare the runtime: {0}")]
    Runtime(#[source] wasm::RuntimeError),
    #[error("cannot use the image: {0}")]
    Image(#[source] StoreError),
    #[error("cannot use the directory of images {}", path.display())]
    FileImages {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the cluster's first objects: {0}")]
    Bootstrap(#[source] apiserver::Error),
}

/// The folder of the store in a data directory.
pub(crate) const STORE: &str = "store";

/// Where the API is said to be when nothing serves it over the network.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);

/// A running cluster.
pub struct Cluster {
    clock: Clock,
    store: Store,
    api: Api,
    pki: Pki,
    server: Option<Server>,
    /// `None` only while they are started anew.
    controllers: Option<controller::Handle>,
    scheduler: scheduler::Handle,
    kubelets: Kubelets,
    /// None if nobody reaches the cluster from outside.
    listeners: Option<Listeners>,
    guests: GuestThreads,
    claim: Claim,
    dns: Option<Dns>,
}

impl Cluster {
    /// Starts every part. To be called inside a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (clock, random) = match config.virtual_time {
            Some((start, seed)) => (Clock::starting_at(start), Random::from_seed(seed)),
            None => (Clock::real(), Random::from_os()),
        };
        let store = match &config.data_dir {
            Some(data_dir) => {
                let options = store::Options {
                    directory: data_dir.join(STORE),
                    clock,
                    history_bytes: config.history_bytes,
                    sealing: Some(sealing(data_dir, config.key_file.as_deref()).map_err(StartError::Store)?),
                };
                Store::open(&options).map_err(StartError::Store)?
            }
            None => Store::ephemeral(clock),
        };
        store.forget_deleted(sealed());
        let guests = GuestThreads::start(clock).map_err(StartError::Threads)?;
        let known = known_plan(&store);
        let is_reached = config.listen.is_some() && !clock.is_virtual();
        let claim = if is_reached { Claim::take(known) } else { Claim::none(known) };
        let pki_dir = config.data_dir.as_ref().map(|data_dir| data_dir.join("pki"));
        // The certificate always covers loopback; an address that somebody chose is added.
        let names: Vec<String> = config.listen.iter().map(|address| address.ip().to_string()).collect();
        let pki = Pki::load_or_create_for(pki_dir.as_deref(), clock, &names).map_err(StartError::Pki)?;
        let roots = vec![pki.ca_bytes().map_err(StartError::Pki)?];
        let nodes = nodes(&config, clock, &random, &guests, claim.plan(), roots)?;
        let (logs, running, meters) = (Logs::default(), Running::default(), Meters::default());
        let node_access =
            Arc::new(Nodes { logs: logs.clone(), running: running.clone(), meters: meters.clone(), clock });
        let api = Api::new(Parts {
            store: store.clone(),
            clock,
            random: random.clone(),
            nodes: node_access,
            tokens: pki.tokens(),
            plan: claim.plan(),
        });

        let server = match config.listen {
            Some(address) => {
                let server = Server::start(api.clone(), &pki, address, clock).await;
                Some(server.map_err(StartError::Listen)?)
            }
            None => None,
        };
        let api_address = server.as_ref().map_or(NOWHERE, Server::address);

        let networks = Networks::new(claim.plan(), clock, &random);
        let dns = if is_reached { Some(Dns::start(&networks, clock).await) } else { None };

        let manager = Client::new(api.clone(), User::component("kube-controller-manager"));
        let settings = controller::Config {
            ca_pem: pki.ca_pem().to_owned(),
            api_address,
            plan: claim.plan(),
            dns: dns.as_ref().map(Dns::told),
            tokens: pki.tokens(),
            time_zone: time_zone(clock),
            fault: None,
        };
        let admin = Client::new(api.clone(), User::admin());
        controller::bootstrap(&admin, &settings).await.map_err(StartError::Bootstrap)?;
        let recorder = Recorder::start(manager.clone(), clock, "controller-manager", None);
        if let Some(dns) = &dns {
            dns.tell(&admin, &recorder).await;
        }
        let controllers = Some(Controllers::start(manager, recorder, clock, &settings));

        let scheduling = Client::new(api.clone(), User::component("kube-scheduler"));
        let recorder = Recorder::start(scheduling.clone(), clock, "default-scheduler", None);
        let scheduler = Scheduler::start(scheduling, recorder, clock, random.clone());

        let open: Vec<NodeAddress> = nodes
            .iter()
            .take(config.nodes.try_into().unwrap_or(usize::MAX))
            .map(|node| NodeAddress { name: node.name.clone(), ip: node.ip })
            .collect();
        let kubelets = Kubelets::start(kubelet::Parts {
            client: admin,
            client_for: {
                let api = api.clone();
                Box::new(move |node| Client::new(api.clone(), User::node(node)))
            },
            clock,
            networks: networks.clone(),
            random,
            nodes,
            logs,
            running,
            meters,
        });
        let listeners = is_reached.then(|| {
            let proxy = Client::new(api.clone(), User::admin());
            let recorder = Recorder::start(proxy, clock, "kube-proxy", None);
            networks.listen(&guests.waiting(), open, recorder, clock)
        });
        Ok(Self {
            clock,
            store,
            api,
            pki,
            server,
            controllers,
            scheduler,
            kubelets,
            listeners,
            guests,
            claim,
            dns,
        })
    }

    /// Returns once every node is Ready.
    pub async fn ready(&self) -> Result<(), apiserver::Error> {
        self.kubelets.ready().await
    }

    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// A door for the administrator.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.api.clone(), User::admin())
    }

    /// The API's URL.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.server.as_ref().map_or(NOWHERE, Server::address);
        if address.ip().is_unspecified() {
            address.set_ip(NOWHERE.ip());
        }
        format!("https://{address}")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        let (certificate, key) = self.pki.client(&User::admin());
        kubeconfig::render(&self.url(), self.pki.ca_pem(), &certificate, &key)
    }

    /// Ends the controllers and starts others, which know only what is stored, and die where `fault`
    /// says: for tests of crashes.
    pub async fn restart_controllers(&mut self, fault: Option<Fault>) {
        if let Some(old) = self.controllers.take() {
            old.shutdown().await;
        }
        let settings = controller::Config {
            ca_pem: self.pki.ca_pem().to_owned(),
            api_address: self.server.as_ref().map_or(NOWHERE, Server::address),
            plan: self.claim.plan(),
            dns: self.dns.as_ref().map(Dns::told),
            tokens: self.pki.tokens(),
            time_zone: time_zone(self.clock),
            fault,
        };
        let manager = Client::new(self.api.clone(), User::component("kube-controller-manager"));
        let recorder = Recorder::start(manager.clone(), self.clock, "controller-manager", None);
        self.controllers = Some(Controllers::start(manager, recorder, self.clock, &settings));
    }

    /// Stops every part, the last started first. What was acknowledged stays acknowledged.
    pub async fn shutdown(self) {
        if let Some(server) = self.server {
            server.shutdown().await;
        }
        self.scheduler.shutdown().await;
        if let Some(controllers) = self.controllers {
            controllers.shutdown().await;
        }
        if let Some(listeners) = self.listeners {
            listeners.shutdown().await;
        }
        self.kubelets.shutdown().await;
        if let Some(dns) = self.dns {
            dns.shutdown().await;
        }
        self.store.close();
        drop(self.guests);
        drop(self.claim);
    }
}

/// As a controller manager takes its machine's; virtual time is nowhere.
fn time_zone(clock: Clock) -> TimeZone {
    if clock.is_virtual() { TimeZone::UTC } else { TimeZone::system() }
}

/// The addresses that the cluster had before, by its API's own Service.
fn known_plan(store: &Store) -> Option<AddressPlan> {
    let kind = kind::of::<Service>();
    let key =
        store::Key { collection: kind.collection(), namespace: "default".into(), name: "kubernetes".into() };
    let record = store.get(&key)?;
    let object = apiserver::decoded(kind, &record);
    let ip = object.downcast_ref::<Service>()?.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()?;
    AddressPlan::of_service(ip)
}

/// The collections whose content is as secret in files as it is in memory.
fn sealed() -> Vec<&'static str> {
    kind::ALL.iter().filter(|kind| kind.encrypted_at_rest).map(|kind| kind.plural).collect()
}

/// What of the store is encrypted, and where the key is.
fn sealing(data_dir: &Path, key_file: Option<&Path>) -> Result<store::Sealing, OpenError> {
    Ok(store::Sealing { collections: sealed(), key_file: store::locate(data_dir, key_file)? })
}

fn nodes(
    config: &Config,
    clock: Clock,
    random: &Random,
    threads: &GuestThreads,
    plan: AddressPlan,
    roots: Vec<Vec<u8>>,
) -> Result<Vec<NodeConfig>, StartError> {
    let images_of = |data_dir: &Path| ImageStore::on_disk(data_dir.join("images"));
    let images = match config.data_dir.as_deref().or(config.image_dir.as_deref()) {
        Some(data_dir) if config.images.is_empty() => images_of(data_dir),
        Some(_) | None => ImageStore::in_memory(),
    };
    let images = images.with_built_in(guests::builtin());
    for (name, wasm) in &config.images {
        images.import(name, wasm).map_err(StartError::Image)?;
    }
    let cache_dir =
        config.data_dir.as_deref().or(config.image_dir.as_deref()).map(|dir| dir.join("compiled"));
    let options = wasm::Options {
        clock,
        random: random.clone(),
        guests: threads.waiting(),
        computing: threads.computing(),
        cache_dir,
        roots,
    };
    let runs = WasmRuntime::new(options).map_err(StartError::Runtime)?;
    let registries = config.registries.clone().filter(|_| !clock.is_virtual());
    let files = config.file_images.as_ref().map(|path| {
        // Names are compared with it, so it is what links lead to.
        path.canonicalize().map_err(|source| StartError::FileImages { path: path.clone(), source })
    });
    let sources = image::Sources {
        registries: registries.map(|options| Arc::new(Registries::new(options, clock))),
        files: files.transpose()?,
    };
    let images = Images::from(Arc::new(images), runs.clone(), sources);
    let plays = SimRuntime::new(clock, random.clone(), threads.waiting());
    let any = Images::any(plays.clone());

    let wasm = (0..config.nodes)
        .map(|i| NodeConfig::wasm(&format!("node-{i}"), plan.node(i), runs.clone(), images.clone()));
    let sim = (0..config.sim_nodes).map(|i| {
        NodeConfig::sim(&format!("sim-{i}"), plan.node(config.nodes + i), plays.clone(), any.clone())
    });
    Ok(wasm.chain(sim).collect())
}

#[cfg(test)]
mod tests;
