//! What a run of an empty component costs: through the runtime, and by bare wasmtime with the same
//! settings. The first should stay within twice the second.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle::clock::Clock;
use coracle::random::Random;
use coracle::runtime::budget::{Budget, Limits};
use coracle::runtime::log::Log;
use coracle::runtime::stdio::Stdio;
use coracle::runtime::wasm::{Options, WasmRuntime, pool_config};
use coracle::runtime::{ContainerSpec, Exit, Image, Runtime};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Builder;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// Runs in one iteration with two threads.
const BATCH: u32 = 200;

/// A component that ends at once, and imports nothing.
const EMPTY: &str = r#"(component
    (core module $m (memory 1) (func (export "run") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $run (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $run)))"#;

struct Bare {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

fn link_bare(wasm: &[u8]) -> CommandPre<Bare> {
    let engine = Engine::new(&pool_config()).expect("an engine");
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("a linker");
    let component = Component::new(&engine, wasm).expect("a component");
    CommandPre::new(linker.instantiate_pre(&component).expect("linked")).expect("a command")
}

async fn run_bare(command: &CommandPre<Bare>) {
    let guest = Bare { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
    let mut store = Store::new(command.engine(), guest);
    store.set_epoch_deadline(1 << 40);
    let instance = command.instantiate_async(&mut store).await.expect("instantiated");
    instance.wasi_cli_run().call_run(&mut store).await.expect("no trap").expect("success");
}

fn spec(image: &Arc<dyn Image>, clock: Clock) -> ContainerSpec {
    ContainerSpec {
        label: "bench/empty/main".to_owned(),
        image: Arc::clone(image),
        args: vec!["empty".to_owned()],
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        config: None,
        queue: None,
        network: None,
        http: None,
        budget: Budget::new(Limits::default(), clock, None),
        fuel: coracle::runtime::Fuel::Off,
        stdio: Stdio::log(&Arc::new(Log::new(clock, 1 << 20))),
        annotations: BTreeMap::new(),
    }
}

async fn run_ours(runtime: &WasmRuntime, spec: ContainerSpec) {
    assert_eq!(runtime.start(spec).await.exited().await, Exit::Code(0));
}

fn run_empty(criterion: &mut Criterion) {
    let wasm = wat::parse_str(EMPTY).expect("text of a component");
    let bare = link_bare(&wasm);
    let clock = Clock::real();

    let one = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let two = Builder::new_multi_thread().worker_threads(2).event_interval(1).enable_all().build();
    let two = two.expect("a runtime");
    for (threads, tokio) in [("one thread", one), ("two threads", two)] {
        let random = Random::from_os();
        let options = Options {
            clock,
            random,
            guests: tokio.handle().clone(),
            computing: None,
            cache_dir: None,
            roots: Vec::new(),
        };
        let runtime = WasmRuntime::new(options).expect("a runtime");
        let image = tokio.block_on(runtime.prepare(wasm.clone().into())).expect("an image");

        let mut group = criterion.benchmark_group("instantiate, run, drop");
        if threads == "one thread" {
            group.bench_function(BenchmarkId::new("bare wasmtime", threads), |bencher| {
                bencher.to_async(&tokio).iter(|| run_bare(&bare));
            });
            group.bench_function(BenchmarkId::new("runtime", threads), |bencher| {
                let setup = || spec(&image, clock);
                let run = |spec| run_ours(&runtime, spec);
                bencher.to_async(&tokio).iter_batched(setup, run, BatchSize::SmallInput);
            });
            continue;
        }
        group.throughput(Throughput::Elements(u64::from(BATCH)));
        group.bench_function(BenchmarkId::new("bare wasmtime", threads), |bencher| {
            bencher.to_async(&tokio).iter(|| async {
                let run = |_| {
                    let bare = bare.clone();
                    tokio.spawn(async move { run_bare(&bare).await })
                };
                for task in (0..BATCH).map(run).collect::<Vec<_>>() {
                    task.await.expect("no panic");
                }
            });
        });
        group.bench_function(BenchmarkId::new("runtime", threads), |bencher| {
            bencher.to_async(&tokio).iter(|| async {
                let mut containers = Vec::new();
                for _ in 0..BATCH {
                    containers.push(runtime.start(spec(&image, clock)).await);
                }
                for container in containers {
                    assert_eq!(container.exited().await, Exit::Code(0));
                }
            });
        });
    }
}

criterion_group!(benches, run_empty);
criterion_main!(benches);
