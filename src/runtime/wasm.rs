//! The runtime that runs the code: WASI 0.2 commands, handlers of HTTP requests, and WASI 0.1 modules in wasmtime.
//!
//! An image goes through [`component`](super::component) and is compiled once (its code kept by
//! [`cache`](super::cache)), then linked once. A start makes a store with what the container may
//! use, instantiates and runs, all in one task on the guests' threads: [`instance`](super::instance).
//!
//! **Exit codes.** A WASI 0.1 module keeps its code, as does a 0.2 component that calls
//! `wasi:cli/exit#exit-with-code`. The usual `exit` of WASI 0.2, which Rust's standard library calls,
//! knows only success and failure: every failure is 1.
//!
//! **Memory.** The limit counts linear memories, tables, open files and directories, sockets, and the pipes of a
//! run, of all runs that share a [`Budget`](super::budget::Budget). A guest that asks for more ends at once
//! with [`Exit::OutOfMemory`]. Files in volumes have quotas of their own.
//!
//! **Processor.** A guest gives way every few milliseconds, and a limit in milli-cores holds over
//! periods of 100 ms, for all runs that share a budget. What guests that compute get of a full machine follows
//! their requests ([`shares`](super::shares)). In virtual time guests run undisturbed, limits on the processor do not apply,
//! and a guest that never waits is charged a virtual second for each 200 ms that it really runs, so
//! that it can be stopped there too.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, watch};
use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::cache::Cache;
use super::engine::{Lane, Lanes};
use super::http::outgoing::Trust;
use super::http::{self, Http};
use super::instance::{self, Guest, World};
use super::limits::Meter;
use super::shares::Shares;
use super::sockets::Descriptors;
use super::stop::{self, Stop};
use super::ticker::Ticker;
use super::turns::{Stage, Switch, Threads};
use super::{Container, ContainerSpec, Ending, Exit, Fuel, Image, ImageError, Runtime, component, hex};
use crate::clock::Clock;
use crate::random::Random;

pub use super::engine::pool_config;

#[cfg(test)]
pub(super) mod tests;

/// The engine's version, as the dependency is pinned.
const WASMTIME_VERSION: &str = "48.0.8";

/// Images kept ready to run; the least recently used goes first. Containers hold on to theirs.
const IMAGES_MAX: usize = 64;

/// What a [`WasmRuntime`] is made with.
pub struct Options {
    pub clock: Clock,
    /// What guests draw from in virtual time; in real time they draw from the machine.
    pub random: Random,
    /// Where guests run: threads of their own, polling their timers often (`event_interval(1)`), so
    /// that guests that compute delay nobody. In virtual time the one runtime there is.
    pub guests: Handle,
    /// Where guests go on that compute for long: threads that the system prefers less. `None` leaves
    /// them where they are.
    pub computing: Option<Handle>,
    /// Where compiled code is kept; `None` keeps it in memory only.
    pub cache_dir: Option<PathBuf>,
    /// Certificates (DER) that guests believe over HTTPS beside those of the machine.
    pub roots: Vec<Vec<u8>>,
}

/// Why there can be no runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("open the directory for compiled code {}", path.display())]
    CacheDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Runs WebAssembly. Costs next to nothing until the first image is prepared.
pub struct WasmRuntime {
    stage: Stage,
    shared: Arc<Shared>,
    images: Mutex<Images>,
}

/// What running guests need of the runtime.
pub(super) struct Shared {
    world: World,
    lanes: Lanes,
    ticker: Arc<Ticker>,
    cache: Option<Cache>,
    compilations: AtomicU64,
}

impl Shared {
    pub(super) fn clock(&self) -> Clock {
        self.world.clock
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }
}

#[derive(Default)]
struct Images {
    by_digest: BTreeMap<String, Entry>,
    /// Counts uses, to know the least recent.
    uses: u64,
}

struct Entry {
    /// The bytes it was asked for with last: those of the same place in memory need no hashing.
    source: Bytes,
    image: Arc<OnceCell<Arc<WasmImage>>>,
    used: u64,
}

/// A compiled and linked image.
pub(super) struct WasmImage {
    digest: String,
    /// What it is compiled from.
    source: Bytes,
    /// Whether it can hear that it is to stop.
    hears_stop: bool,
    is_command: bool,
    is_handler: bool,
    /// Ready for the pool, if there is one.
    pooled: Option<Linked>,
    /// Ready for the spare engine, once the pool was full.
    spare: OnceLock<Result<Linked, ImageError>>,
    /// Ready for the engine that counts fuel, once that was asked for.
    fuel: OnceLock<Result<Linked, ImageError>>,
}

/// An image linked for one engine, as what it exports.
#[derive(Clone)]
struct Linked {
    command: Option<CommandPre<Guest>>,
    proxy: Option<ProxyPre<Guest>>,
    /// Whether it imports the interface by which it can hear that it is to stop.
    hears_stop: bool,
}

impl Image for WasmImage {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn is_command(&self) -> bool {
        self.is_command
    }

    fn is_handler(&self) -> bool {
        self.is_handler
    }
}

impl WasmImage {
    /// What answers requests from the pool, if there is one.
    pub(super) fn pooled_proxy(&self) -> Option<&ProxyPre<Guest>> {
        self.pooled.as_ref()?.proxy.as_ref()
    }
}

impl WasmRuntime {
    /// A runtime whose containers run on `options.guests`.
    pub fn new(options: Options) -> Result<Arc<Self>, RuntimeError> {
        let Options { clock, random, guests, computing, cache_dir, roots } = options;
        let cache = cache_dir
            .map(|path| Cache::open(path.clone()).map_err(|source| RuntimeError::CacheDir { path, source }))
            .transpose()?;
        let trust = Trust::new(roots);
        let world = World { clock, random, trust, descriptors: Descriptors::default() };
        let shared = Shared {
            world,
            lanes: Lanes::default(),
            ticker: Arc::default(),
            cache,
            compilations: AtomicU64::new(0),
        };
        let stage = Stage {
            ticker: Arc::clone(&shared.ticker),
            clock,
            shares: Shares::new(computing.as_ref().map_or(1, |threads| threads.metrics().num_workers())),
            threads: Threads { waiting: guests, computing },
        };
        Ok(Arc::new(Self { stage, shared: Arc::new(shared), images: Mutex::default() }))
    }

    /// How many images had to be compiled, because no code of theirs was kept.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.shared.compilations.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Runtime for WasmRuntime {
    fn version(&self) -> String {
        format!("wasmtime://{WASMTIME_VERSION}")
    }

    async fn prepare(&self, wasm: Bytes) -> Result<Arc<dyn Image>, ImageError> {
        let known = self.images.lock().expect("no holder panics").by_source(&wasm);
        let (digest, cell) = match known {
            Some(known) => known,
            None => {
                let source = wasm.clone();
                let digest = blocking(move || format!("sha256:{}", hex(&Sha256::digest(&source)))).await;
                let cell = self.images.lock().expect("no holder panics").by_digest(&digest, &wasm);
                (digest, cell)
            }
        };
        // Whoever comes second for the same image waits for the first.
        let image = cell
            .get_or_try_init(|| {
                let shared = Arc::clone(&self.shared);
                blocking(move || shared.prepare(digest, wasm).map(Arc::new))
            })
            .await?;
        Ok(Arc::clone(image) as Arc<dyn Image>)
    }

    async fn start(&self, spec: ContainerSpec) -> Container {
        let image: Arc<dyn Any + Send + Sync> = Arc::clone(&spec.image) as Arc<dyn Any + Send + Sync>;
        let image = image.downcast::<WasmImage>().ok();
        let (exit, exited) = watch::channel(None);
        let meter = Arc::new(Meter::new(Arc::clone(&spec.budget), spec.fuel));
        let ending = Ending { stdio: spec.stdio.clone(), exit, result: Exit::Killed };
        let stop = Arc::new(Stop::new(self.shared.world.clock));
        let switch = Arc::new(Switch::default());
        let served = image.clone().filter(|image| image.is_handler).zip(spec.http);
        let hears_stop = served.is_some() || image.as_ref().is_some_and(|image| image.hears_stop);
        let run = match (served, image) {
            (Some((image, http)), _) => self.serve(spec, image, http, &stop),
            (None, Some(image)) => {
                let (shared, meter, stop) = (Arc::clone(&self.shared), Arc::clone(&meter), Arc::clone(&stop));
                Box::pin(async move { run(&shared, &image, &spec, &meter, &stop).await })
            }
            (None, None) => ended("the image was prepared by another runtime"),
        };
        self.stage.begin(run, Arc::clone(&meter), Arc::clone(&switch), Some(ending));
        let container = Container::new(exited, Box::new(move || switch.kill())).with_meter(meter);
        if hears_stop { container.hearing(Box::new(move |left| stop.ask(left))) } else { container }
    }
}

/// One run of a container, to its end.
type Running = Pin<Box<dyn Future<Output = Exit> + Send>>;

fn ended(why: impl Into<String>) -> Running {
    let exit = Exit::Trap(why.into());
    Box::pin(std::future::ready(exit))
}

impl WasmRuntime {
    /// Serves a handler. Its port is listened on when this returns.
    fn serve(&self, spec: ContainerSpec, image: Arc<WasmImage>, http: Http, stop: &Arc<Stop>) -> Running {
        let Some(network) = spec.network.clone() else {
            return ended("cannot serve HTTP: the container has no network");
        };
        let listener = match http::bind(&*network, &http) {
            Ok(listener) => listener,
            Err(why) => return ended(why),
        };
        let (shared, stage, stop) = (Arc::clone(&self.shared), self.stage.clone(), Arc::clone(stop));
        let server = http::Server::new(http::Parts { spec, http, network, image, shared, stage, stop });
        Box::pin(server.serve(listener))
    }
}

impl Images {
    fn by_source(&mut self, source: &Bytes) -> Option<(String, Arc<OnceCell<Arc<WasmImage>>>)> {
        let same = |entry: &Entry| {
            // Both are alive and neither can change, so the same place is the same content.
            entry.source.as_ptr() == source.as_ptr() && entry.source.len() == source.len()
        };
        let (digest, entry) = self.by_digest.iter_mut().find(|(_, entry)| same(entry))?;
        self.uses += 1;
        entry.used = self.uses;
        Some((digest.clone(), Arc::clone(&entry.image)))
    }

    fn by_digest(&mut self, digest: &str, source: &Bytes) -> Arc<OnceCell<Arc<WasmImage>>> {
        self.uses += 1;
        let used = self.uses;
        let entry = self.by_digest.entry(digest.to_owned()).or_insert_with(|| Entry {
            source: source.clone(),
            image: Arc::default(),
            used,
        });
        entry.used = used;
        entry.source = source.clone();
        let image = Arc::clone(&entry.image);
        if self.by_digest.len() > IMAGES_MAX {
            let oldest = self.by_digest.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(oldest) = oldest.map(|(digest, _)| digest.clone()) {
                self.by_digest.remove(&oldest);
            }
        }
        image
    }
}

impl Shared {
    fn prepare(&self, digest: String, source: Bytes) -> Result<WasmImage, ImageError> {
        let mut image = WasmImage {
            digest,
            source,
            hears_stop: false,
            is_command: false,
            is_handler: false,
            pooled: None,
            spare: OnceLock::new(),
            fuel: OnceLock::new(),
        };
        image.pooled = match self.lanes.pool(|engine| self.ticker.add(engine)) {
            Some(pool) => Some(self.link(pool, &image)?),
            None => None,
        };
        let linked = match &image.pooled {
            Some(linked) => linked,
            None => self.spare(&image)?,
        };
        let found = (linked.hears_stop, linked.command.is_some(), linked.proxy.is_some());
        (image.hears_stop, image.is_command, image.is_handler) = found;
        Ok(image)
    }

    /// The image for the spare engine, compiled when it is first needed.
    fn spare<'a>(&self, image: &'a WasmImage) -> Result<&'a Linked, ImageError> {
        let lane = || self.lanes.spare(|engine| self.ticker.add(engine));
        self.later(&image.spare, lane, image)
    }

    /// The same for the engine that counts fuel.
    fn fuel<'a>(&self, image: &'a WasmImage) -> Result<&'a Linked, ImageError> {
        let lane = || self.lanes.fuel(|engine| self.ticker.add(engine));
        self.later(&image.fuel, lane, image)
    }

    fn later<'a, 'b>(
        &self,
        place: &'a OnceLock<Result<Linked, ImageError>>,
        lane: impl FnOnce() -> Result<&'b Lane, &'b str>,
        image: &WasmImage,
    ) -> Result<&'a Linked, ImageError> {
        let command = place.get_or_init(|| {
            let lane = lane().map_err(|error| {
                ImageError::Garbage(format!("this machine cannot run WebAssembly: {error}"))
            })?;
            self.link(lane, image)
        });
        command.as_ref().map_err(Clone::clone)
    }

    fn link(&self, lane: &Lane, image: &WasmImage) -> Result<Linked, ImageError> {
        let component = self.compile(lane, image)?;
        // Interfaces were checked by name; what remains is a function that only newer hosts have.
        let failed = |error| ImageError::MissingImports(vec![format!("{error:#}")]);
        let pre = lane.linker.instantiate_pre(&component).map_err(failed)?;
        let ty = component.component_type();
        let exports =
            |interface| ty.exports(&lane.engine).any(|(name, _)| component::is_version_of(name, interface));
        let hears_stop = ty.imports(&lane.engine).any(|(name, _)| name == stop::INTERFACE);
        let proxy = exports(component::HANDLER).then(|| ProxyPre::new(pre.clone())).transpose();
        let command = exports(component::COMMAND).then(|| CommandPre::new(pre)).transpose();
        Ok(Linked { command: command.map_err(failed)?, proxy: proxy.map_err(failed)?, hears_stop })
    }

    fn compile(&self, lane: &Lane, image: &WasmImage) -> Result<Component, ImageError> {
        let cached = self.cache.as_ref().and_then(|cache| cache.load(&image.digest, &lane.fingerprint));
        if let Some(component) = cached.and_then(|code| deserialize(lane, &code)) {
            return Ok(component);
        }
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let converted = component::componentize(&image.source)?;
        let wasm = converted.as_deref().unwrap_or(&image.source);
        let component =
            Component::new(&lane.engine, wasm).map_err(|error| ImageError::Garbage(format!("{error:#}")))?;
        if let Some(cache) = &self.cache {
            let kept = component.serialize().map_err(std::io::Error::other);
            if let Err(error) = kept.and_then(|code| cache.store(&image.digest, &lane.fingerprint, &code)) {
                tracing::warn!("keep the compiled code of {}: {error}", image.digest);
            }
        }
        Ok(component)
    }
}

/// A component from code that [`Cache::load`] has returned.
fn deserialize(lane: &Lane, code: &[u8]) -> Option<Component> {
    #[expect(
        unsafe_code,
        reason = "the cache returns only what we wrote, checked against a code with our key"
    )]
    // SAFETY: `code` is what `Component::serialize` gave for an engine with this configuration; the
    // engine checks its own version and settings once more.
    let component = unsafe { Component::deserialize(&lane.engine, code) };
    component.inspect_err(|error| tracing::warn!("compiling an image again: {error:#}")).ok()
}

async fn run(
    shared: &Arc<Shared>,
    image: &Arc<WasmImage>,
    spec: &ContainerSpec,
    meter: &Arc<Meter>,
    stop: &Arc<Stop>,
) -> Exit {
    let no_command = || {
        let why = "the image is a handler of HTTP requests and no command: it exports no `wasi:cli/run`";
        Exit::Trap(why.to_owned())
    };
    let counts_fuel = spec.fuel != Fuel::Off;
    if let Some(pooled) = image.pooled.as_ref().filter(|_| !counts_fuel) {
        let Some(command) = &pooled.command else { return no_command() };
        if let Ok(exit) = instance::run(command, spec, &shared.world, meter, stop).await {
            return exit;
        }
    }
    let linked = if counts_fuel { fuel(shared, image).await } else { spare(shared, image).await };
    match linked {
        Ok(Linked { command: Some(command), .. }) => {
            match instance::run(&command, spec, &shared.world, meter, stop).await {
                Ok(exit) => exit,
                Err(instance::PoolFull) => Exit::Trap("no memory is left for another container".to_owned()),
            }
        }
        Ok(Linked { command: None, .. }) => no_command(),
        Err(error) => Exit::Trap(error.to_string()),
    }
}

/// The image for the spare engine, which may have to be compiled first.
async fn spare(shared: &Arc<Shared>, image: &Arc<WasmImage>) -> Result<Linked, ImageError> {
    if image.spare.get().is_some() {
        return shared.spare(image).cloned();
    }
    let (shared, image) = (Arc::clone(shared), Arc::clone(image));
    blocking(move || shared.spare(&image).cloned()).await
}

/// The same for the engine that counts fuel.
async fn fuel(shared: &Arc<Shared>, image: &Arc<WasmImage>) -> Result<Linked, ImageError> {
    if image.fuel.get().is_some() {
        return shared.fuel(image).cloned();
    }
    let (shared, image) = (Arc::clone(shared), Arc::clone(image));
    blocking(move || shared.fuel(&image).cloned()).await
}

/// What answers requests from the spare engine.
pub(super) async fn spare_proxy(
    shared: &Arc<Shared>,
    image: &Arc<WasmImage>,
) -> Result<ProxyPre<Guest>, String> {
    let linked = spare(shared, image).await.map_err(|error| error.to_string())?;
    linked.proxy.ok_or_else(|| "the image is no handler of HTTP requests".to_owned())
}

/// Runs what takes long on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
