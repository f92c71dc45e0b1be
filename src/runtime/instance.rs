//! One run of one container: its store, from instantiation to the exit code.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, I32Exit, WasiCtx, WasiCtxView, WasiView};

use super::budget::{Budget, OverLimit};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::config::{Config, ConfigView, HasConfig};
use super::environment::{Environment, HasEnvironment};
use super::fs::handle::Files;
use super::fs::host::{FilesView, HasFiles};
use super::http::outgoing::{Hooks, Trust};
use super::limits::{MemoryLimit, Meter, Slices};
use super::network::Network;
use super::queue::{HasQueue, Queue, QueueView};
use super::sockets::{self, Descriptors, HasNetwork, Held, TcpView};
use super::stop::{HasStop, Stop, StopView};
use super::{ContainerSpec, Exit, Fuel};
use crate::clock::Clock;
use crate::random::Random;

/// Most bytes that a guest may pass to the host in one call, since the host holds them meanwhile.
const HOSTCALL_BYTES_MAX: usize = 16 << 20;
/// Most handles (open files, streams, pollables) that a guest may have.
const HANDLES_MAX: usize = 10_000;
/// What the headers of one request or answer may take, as the host keeps them.
const FIELDS_BYTES_MAX: usize = 128 << 10;
/// Functions named in the words for a trap.
const FRAMES_MAX: usize = 4;

/// What the host keeps for a guest: the data of its store.
pub(super) struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    environment: Arc<Environment>,
    files: Files,
    config: Option<Arc<Config>>,
    queue: Option<Arc<dyn Queue>>,
    network: Option<Arc<dyn Network>>,
    stop: Arc<Stop>,
    memory: MemoryLimit,
    http: WasiHttpCtx,
    hooks: Hooks,
    sockets: Held,
    budget: Arc<Budget>,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl HasEnvironment for Guest {
    fn environment(&self) -> &Environment {
        &self.environment
    }
}

impl HasNetwork for Guest {
    fn network(&self) -> Option<&Arc<dyn Network>> {
        self.network.as_ref()
    }

    fn held(&mut self) -> &mut Held {
        &mut self.sockets
    }

    fn tcp(&mut self) -> TcpView<'_> {
        TcpView { network: self.network.as_ref(), held: &mut self.sockets, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

impl HasFiles for Guest {
    fn files(&mut self) -> FilesView<'_> {
        FilesView { files: &self.files, table: &mut self.table, budget: &self.budget }
    }
}

impl HasConfig for Guest {
    fn config(&mut self) -> ConfigView<'_> {
        ConfigView { config: self.config.as_deref(), table: &mut self.table }
    }
}

impl HasQueue for Guest {
    fn queue(&mut self) -> QueueView<'_> {
        QueueView(self.queue.as_ref())
    }
}

impl HasStop for Guest {
    fn stop(&mut self) -> StopView<'_> {
        StopView { stop: &self.stop, table: &mut self.table }
    }
}

/// What all guests share.
#[derive(Clone)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) random: Random,
    /// Whom guests believe over HTTPS.
    pub(super) trust: Trust,
    pub(super) descriptors: Descriptors,
}

/// The pool has no place left; nothing has run yet.
pub(super) struct PoolFull;

/// Whether an instantiation failed because there was no place in the pool.
pub(super) fn is_pool_full(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

/// What an instance of a container lives in.
///
/// # Errors
/// In words, if what the container mounts cannot be.
pub(super) fn store(
    engine: &Engine,
    spec: &ContainerSpec,
    environment: &Arc<Environment>,
    world: &World,
    meter: &Arc<Meter>,
    stop: &Arc<Stop>,
) -> Result<Store<Guest>, String> {
    let guest = Guest::new(spec, Arc::clone(environment), world, Arc::clone(stop))?;
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_epoch_deadline(1);
    let mut slices = Slices::new(world.clock, Arc::clone(meter));
    store.epoch_deadline_callback(move |_| Ok(slices.next()));
    Ok(store)
}

/// Why an instance ended that was to live on, in a line.
pub(super) fn told(store: &Store<Guest>, error: &wasmtime::Error) -> String {
    if store.data().memory.hit || error.is::<OverLimit>() {
        return "it took more memory than the container's limit".to_owned();
    }
    match error.downcast_ref::<I32Exit>() {
        Some(exit) => format!("it ended with exit code {}", exit.0),
        None => describe(error),
    }
}

/// Runs a container to its end.
pub(super) async fn run(
    command: &CommandPre<Guest>,
    spec: &ContainerSpec,
    world: &World,
    meter: &Arc<Meter>,
    stop: &Arc<Stop>,
) -> Result<Exit, PoolFull> {
    // What its pipes may hold is taken at once: their other ends fill and empty them at any time.
    let Ok(_pipes) = spec.budget.charge(spec.stdio.pipe_bytes()) else { return Ok(Exit::OutOfMemory) };
    let environment = Environment::of(spec);
    let mut store = match store(command.engine(), spec, &environment, world, meter, stop) {
        Ok(store) => store,
        Err(error) => return Ok(Exit::Trap(error)),
    };
    let given = match spec.fuel {
        Fuel::Off => None,
        Fuel::Count => Some(u64::MAX),
        Fuel::Limit(fuel) => Some(fuel),
    };
    if let Some(given) = given {
        if let Err(error) = store.set_fuel(given) {
            return Ok(Exit::Trap(describe(&error)));
        }
        let fuel = Arc::clone(meter);
        let mut slices = Slices::new(world.clock, Arc::clone(meter));
        store.epoch_deadline_callback(move |context| {
            fuel.set_fuel(given.saturating_sub(context.get_fuel()?));
            Ok(slices.next())
        });
    }
    // Looks at the fuel once more when the run ends, even if it is killed.
    let mut store = Counted { store, given, meter };
    let store = &mut store.store;
    let result = match command.instantiate_async(&mut *store).await {
        Ok(command) => command.wasi_cli_run().call_run(&mut *store).await,
        Err(error) if is_pool_full(&error) => return Err(PoolFull),
        Err(error) => Err(error),
    };
    Ok(match result {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(())) => Exit::Code(1),
        Err(error) if store.data().memory.hit || error.is::<OverLimit>() => Exit::OutOfMemory,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Exit::Code(exit.0),
            None => Exit::Trap(describe_end(&error, spec.fuel)),
        },
    })
}

/// A store whose fuel is told when it goes.
struct Counted<'a> {
    store: Store<Guest>,
    given: Option<u64>,
    meter: &'a Meter,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(given) = self.given
            && let Ok(left) = self.store.get_fuel()
        {
            self.meter.set_fuel(given.saturating_sub(left));
        }
    }
}

impl Guest {
    fn new(
        spec: &ContainerSpec,
        environment: Arc<Environment>,
        world: &World,
        stop: Arc<Stop>,
    ) -> Result<Self, String> {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(spec.stdio.guest_stdout())
            .stderr(spec.stdio.guest_stderr())
            .wall_clock(GuestClock(world.clock))
            .monotonic_clock(GuestClock(world.clock));
        sockets::permit(&mut wasi, spec.network.as_ref());
        if let Some(stdin) = spec.stdio.guest_stdin() {
            wasi.stdin(stdin);
        }
        if world.clock.is_virtual() {
            wasi.secure_random(Draws(world.random.clone()))
                .insecure_random(Draws(world.random.clone()))
                .insecure_random_seed(u128::from(world.random.below(u64::MAX)));
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES_MAX);
        let hooks = Hooks::new(spec.network.clone(), world.clock, world.trust.clone());
        let files = Files::mount(&spec.mounts, spec.working_dir.as_deref(), world.clock)?;
        let (config, memory) = (spec.config.clone(), MemoryLimit::new(Arc::clone(&spec.budget)));
        Ok(Self {
            wasi: wasi.build(),
            table,
            environment,
            files,
            config,
            queue: spec.queue.clone(),
            network: spec.network.clone(),
            stop,
            memory,
            http,
            hooks,
            sockets: Held::new(&world.descriptors, &spec.budget, world.clock),
            budget: Arc::clone(&spec.budget),
        })
    }
}

/// As [`describe`], and of a run that has used up its fuel how much that was.
fn describe_end(error: &wasmtime::Error, fuel: Fuel) -> String {
    match (error.downcast_ref::<Trap>(), fuel) {
        (Some(Trap::OutOfFuel), Fuel::Limit(fuel)) => {
            format!("the fuel limit of {fuel} was used up: {}", describe(error))
        }
        _ => describe(error),
    }
}

/// A trap in a line: what happened, and in which functions if the guest names them.
fn describe(error: &wasmtime::Error) -> String {
    let cause = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let names: Vec<&str> = frames.iter().filter_map(|frame| frame.func_name()).take(FRAMES_MAX).collect();
    if names.is_empty() { cause } else { format!("{cause} (in {})", names.join(" < ")) }
}

/// The project's clock, for guests.
struct GuestClock(Clock);

impl HostWallClock for GuestClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::try_from(self.0.now().as_duration()).unwrap_or_default()
    }
}

impl HostMonotonicClock for GuestClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.monotonic().as_nanos()).expect("the process is younger than 584 years")
    }
}

/// The project's chance, for guests in virtual time; in real time they have the machine's.
struct Draws(Random);

impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.0.below(1 << 32)).expect("below 2^32"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.below(1 << 32) << 32 | self.0.below(1 << 32))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}
