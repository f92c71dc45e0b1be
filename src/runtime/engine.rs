//! The engines that compile and run guests, with the settings that make starting one cheap.
//!
//! Two of them, and a third. The *pool* has all its stacks and memories reserved in advance: starting a guest
//! takes a few microseconds and no new mapping. The *spare* engine allocates on demand: from an
//! [`arena`](super::arena), where the kernel has what that takes, so that no guest has a mapping of its
//! own; elsewhere with few mappings each, of which ten thousand guests at once fit into the kernel's
//! default bound of 65,530.
//! A guest runs in the pool unless it is full, or could not be reserved. The third is as the spare one, and
//! counts fuel: for guests of which that is asked.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::OnceLock;

use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::instance::Guest;
use super::{config, environment, fs, queue, sockets, stop};

/// Guests in the pool at once. Reserves 4 TiB of addresses, of the 128 TiB that a process has.
const POOL_SLOTS: u32 = 1_000;
/// Core instances and tables of a component are a few (program, adapter, shims).
const CORE_INSTANCES_EACH: u32 = 8;
const TABLES_EACH: u32 = 4;
/// What a free slot keeps in memory of what its last guest touched, so that the next need not ask
/// the kernel again. Enough for small Rust programs: 1 MiB of stack and their data above it.
const KEEP_MEMORY: usize = 2 << 20;
const KEEP_TABLE: usize = 64 << 10;
/// Stack of a guest of the spare engine, with room for the host below what WebAssembly may take (512 KiB).
const STACK: usize = 2 << 20;
/// What a growing memory of the spare engine reserves ahead, so that it is not moved each time.
const GROWTH: u64 = 16 << 20;

/// An engine with what belongs to it.
pub(super) struct Lane {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    /// Tells compiled code of differently configured engines apart.
    pub(super) fingerprint: String,
}

/// The engines, each made when the first guest needs it: an idle process pays for none.
#[derive(Default)]
pub(super) struct Lanes {
    pool: OnceLock<Option<Lane>>,
    spare: OnceLock<Result<Lane, String>>,
    fuel: OnceLock<Result<Lane, String>>,
}

impl Lanes {
    /// The pool, if this machine lets us reserve it. `made` is called with a new engine.
    pub(super) fn pool(&self, made: impl FnOnce(&Engine)) -> Option<&Lane> {
        let lane = self.pool.get_or_init(|| match Lane::new(&pool_config()) {
            Ok(lane) => {
                made(&lane.engine);
                Some(lane)
            }
            Err(error) => {
                tracing::warn!("guests start more slowly: cannot reserve their memory in advance: {error:#}");
                None
            }
        });
        lane.as_ref()
    }

    /// The spare engine; an error if this machine cannot run guests at all.
    pub(super) fn spare(&self, made: impl FnOnce(&Engine)) -> Result<&Lane, &str> {
        lazily(&self.spare, &spare_config(), made)
    }

    /// The engine that counts fuel; errors as for the spare one.
    pub(super) fn fuel(&self, made: impl FnOnce(&Engine)) -> Result<&Lane, &str> {
        lazily(&self.fuel, spare_config().consume_fuel(true), made)
    }
}

fn lazily<'a>(
    place: &'a OnceLock<Result<Lane, String>>,
    config: &Config,
    made: impl FnOnce(&Engine),
) -> Result<&'a Lane, &'a str> {
    let lane = place.get_or_init(|| {
        let lane = Lane::new(config).map_err(|error| format!("{error:#}"))?;
        made(&lane.engine);
        Ok(lane)
    });
    lane.as_ref().map_err(String::as_str)
}

impl Lane {
    fn new(config: &Config) -> wasmtime::Result<Self> {
        let engine = Engine::new(config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        environment::shadow(&mut linker)?;
        fs::host::shadow(&mut linker)?;
        sockets::shadow(&mut linker)?;
        config::add_to_linker(&mut linker)?;
        queue::add_to_linker(&mut linker)?;
        stop::add_to_linker(&mut linker)?;
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let fingerprint = format!("{:016x}", hasher.hash_one(engine.precompile_compatibility_hash()));
        Ok(Self { engine, linker, fingerprint })
    }
}

fn common_config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // Only WASI 0.3 needs it, and it doubles the cost of a start.
    config.concurrency_support(false);
    // Memories beyond 4 GiB fit neither the pool nor the component model's interfaces.
    config.wasm_memory64(false);
    config
}

/// The settings of the pool; the benchmark measures against bare wasmtime with the same.
#[must_use]
pub fn pool_config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_SLOTS)
        .total_core_instances(POOL_SLOTS * CORE_INSTANCES_EACH)
        .total_memories(POOL_SLOTS)
        .total_tables(POOL_SLOTS * TABLES_EACH)
        .total_stacks(POOL_SLOTS)
        .linear_memory_keep_resident(KEEP_MEMORY)
        .table_keep_resident(KEEP_TABLE)
        // Resets only the pages a guest has touched; Linux 6.7 and later.
        .pagemap_scan(Enabled::Auto);
    let mut config = common_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

fn spare_config() -> Config {
    let mut config = common_config();
    config
        .memory_reservation(0)
        .memory_guard_size(0)
        .memory_reservation_for_growth(GROWTH)
        .memory_init_cow(false)
        .async_stack_size(STACK);
    #[cfg(target_os = "linux")]
    match super::arena::arenas(STACK) {
        Ok((stacks, memories)) => {
            config.with_host_stack(stacks).with_host_memory(memories);
        }
        Err(error) => tracing::info!("guests beyond {POOL_SLOTS} take mappings of their own: {error}"),
    }
    config
}
