//! The benchmark harness: scenarios, measurements, reports.
//!
//! A scenario starts what it measures, measures it, and gives a [`Report`] that says beside each
//! figure under which conditions it was taken. One line in [`SCENARIOS`] makes it known.

mod config_fanout;
mod cpu;
mod cron;
mod daemon_set;
mod density;
mod fair;
mod footprint;
mod hostile;
mod http;
mod job;
mod load;
mod pods;
mod report;
mod service;
mod stage;
mod start;
mod stop;

use std::error::Error;

pub use report::{Figure, Report};

/// What a scenario may be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many of what the scenario counts.
    pub count: u32,
    pub nodes: u32,
    /// Keep data on disk, in a temporary directory; else in memory.
    pub durable: bool,
    /// Simulated nodes instead of nodes that run code.
    pub simulated: bool,
}

/// One scenario by its name.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&Options) -> Result<Report, Failure>,
}

pub type Failure = Box<dyn Error + Send + Sync>;

pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pods",
        about: "create pods that exit at once until all have Succeeded; then the latency from create to Running",
        run: pods::run,
    },
    Scenario {
        name: "config-fanout",
        about: "change a ConfigMap that many pods mount: the time from the API's answer to the new bytes in each guest",
        run: config_fanout::run,
    },
    Scenario {
        name: "cron",
        about: "CronJobs that are all due at the same minute: the time from that minute to each one's Job",
        run: cron::run,
    },
    Scenario {
        name: "job",
        about: "a Job of N completions of pods that exit at once, then one that is Indexed: the time until each is Complete",
        run: job::run,
    },
    Scenario {
        name: "daemonset",
        about: "make a DaemonSet on N simulated nodes: the time until each runs its pod, then until all are replaced",
        run: daemon_set::run,
    },
    Scenario {
        name: "start",
        about: "the latency from create to Running of pods whose image is not yet compiled, is in the cache on disk, or has run",
        run: start::run,
    },
    Scenario {
        name: "stop",
        about: "delete pods whose guests go on, asleep or computing: the time from the end of their grace until they are gone",
        run: stop::run,
    },
    Scenario {
        name: "density",
        about: "pods whose guests sleep, until there are N or no more can be: what each costs, and what ended it",
        run: density::run,
    },
    Scenario {
        name: "fair",
        about: "guests that compute without end, beside one that sleeps N times and a client of the API: how late both are",
        run: fair::run,
    },
    Scenario {
        name: "hostile",
        about: "guests that loop, allocate, recurse, spam, hoard or will not stop, beside one that sleeps N times and a client of the API",
        run: hostile::run,
    },
    Scenario {
        name: "http",
        about: "ask a handler N times over kept connections, by each kind of instance: requests/s and latency; `wasmtime serve` beside, if CORACLE_BENCH_WASMTIME names a wasmtime",
        run: http::run,
    },
    Scenario {
        name: "service",
        about: "ask a pod over HTTP N times a round, from a pod and from outside: at its own address, and at its Service's",
        run: service::run,
    },
    Scenario {
        name: "footprint",
        about: "start `coracle up` beside this process: time to ready, memory, CPU and wake-ups when idle, binary size",
        run: footprint::run,
    },
];
