//! The runtime that plays a script instead of running code, for simulated nodes.
//!
//! The script is in the pod's annotations. Each may be followed by `.<container>` to apply to that
//! container only, which then wins.
//!
//! | annotation | value | without it |
//! |---|---|---|
//! | `coracle.dev/sim-start-delay` | how long a start takes, like `100ms` | no time |
//! | `coracle.dev/sim-duration` | how long the container runs, like `5s` or `1m30s` | until it is killed |
//! | `coracle.dev/sim-jitter` | up to this much is added to each of both, by the seed | nothing |
//! | `coracle.dev/sim-exit-code` | the code it ends with | 0 |
//! | `coracle.dev/sim-failure-rate` | chance of failing, 0 to 1, by the seed | see below |
//!
//! The start delay of a container counts as far as it is longer than the pod's, which the node waits
//! for before each start.
//!
//! With a failure rate, a run that fails ends with the exit code given, or 1 if none or 0 is given,
//! and the others end with 0. A value that makes no sense ends the container with a message.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Container, ContainerSpec, Ending, Exit, Image, ImageError, Runtime, hex};
use crate::clock::Clock;
use crate::random::Random;

#[cfg(test)]
mod tests;

const START_DELAY: &str = "coracle.dev/sim-start-delay";
const DURATION: &str = "coracle.dev/sim-duration";
const JITTER: &str = "coracle.dev/sim-jitter";
const EXIT_CODE: &str = "coracle.dev/sim-exit-code";
const FAILURE_RATE: &str = "coracle.dev/sim-failure-rate";

/// Fineness of chances and of jitter in nanoseconds.
const CHANCE_UNIT: u64 = 1_000_000_000;

/// Plays scripts. Any image will do, and none is looked into.
pub struct SimRuntime {
    clock: Clock,
    random: Random,
    tasks: Handle,
}

impl SimRuntime {
    /// A runtime whose containers are tasks of `tasks`.
    #[must_use]
    pub fn new(clock: Clock, random: Random, tasks: Handle) -> Arc<Self> {
        Arc::new(Self { clock, random, tasks })
    }
}

struct SimImage {
    digest: String,
}

impl Image for SimImage {
    fn digest(&self) -> &str {
        &self.digest
    }
}

#[async_trait]
impl Runtime for SimRuntime {
    fn version(&self) -> String {
        "sim://1".to_owned()
    }

    async fn prepare(&self, wasm: Bytes) -> Result<Arc<dyn Image>, ImageError> {
        let digest = hex(&Sha256::digest(&wasm));
        Ok(Arc::new(SimImage { digest: format!("sha256:{digest}") }))
    }

    /// Takes what the start delay of this container, with its jitter, is longer than the pod's.
    async fn start(&self, spec: ContainerSpec) -> Container {
        let name = spec.label.rsplit('/').next().unwrap_or_default();
        let plan = Script::parse(&spec.annotations, Some(name)).map(|script| script.plan(&self.random));
        if let Ok(plan) = &plan {
            let left = plan.start_delay.saturating_sub(self.start_delay(&spec.annotations));
            if !left.is_zero() {
                self.clock.sleep(left).await;
            }
        }
        let (exit, exited) = watch::channel(None);
        let ending = Ending { stdio: spec.stdio, exit, result: Exit::Killed };
        let task = self.tasks.spawn(play(self.clock, plan, ending));
        let abort = task.abort_handle();
        Container::new(exited, Box::new(move || abort.abort()))
    }

    fn start_delay(&self, annotations: &BTreeMap<String, String>) -> Duration {
        Script::parse(annotations, None).map_or(Duration::ZERO, |script| script.start_delay)
    }
}

async fn play(clock: Clock, plan: Result<Plan, String>, mut ending: Ending) {
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            ending.result = Exit::Trap(error);
            return;
        }
    };
    match plan.duration {
        Some(duration) if !duration.is_zero() => clock.sleep(duration).await,
        Some(_) => {}
        None => std::future::pending().await,
    }
    ending.result = Exit::Code(plan.exit_code);
}

/// What the annotations say.
#[derive(Debug, Default, PartialEq)]
struct Script {
    start_delay: Duration,
    duration: Option<Duration>,
    jitter: Duration,
    exit_code: i32,
    failure_rate: Option<f64>,
}

/// What one run does.
#[derive(Debug, PartialEq)]
struct Plan {
    start_delay: Duration,
    duration: Option<Duration>,
    exit_code: i32,
}

impl Script {
    fn parse(annotations: &BTreeMap<String, String>, container: Option<&str>) -> Result<Self, String> {
        let value = |key: &str| {
            let own = container.and_then(|container| annotations.get(&format!("{key}.{container}")));
            own.or_else(|| annotations.get(key)).map(String::as_str)
        };
        let rate = parse::<f64>(FAILURE_RATE, value(FAILURE_RATE), "a number from 0 to 1")?;
        if let Some(rate) = rate
            && !(0.0..=1.0).contains(&rate)
        {
            return Err(format!("annotation {FAILURE_RATE}: {rate} is not a number from 0 to 1"));
        }
        Ok(Self {
            start_delay: duration(START_DELAY, value(START_DELAY))?.unwrap_or_default(),
            duration: duration(DURATION, value(DURATION))?,
            jitter: duration(JITTER, value(JITTER))?.unwrap_or_default(),
            exit_code: parse(EXIT_CODE, value(EXIT_CODE), "a whole number")?.unwrap_or(0),
            failure_rate: rate,
        })
    }

    fn plan(&self, random: &Random) -> Plan {
        let jitter = || {
            if self.jitter.is_zero() {
                return Duration::ZERO;
            }
            let nanoseconds = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
            Duration::from_nanos(random.below(nanoseconds))
        };
        let exit_code = match self.failure_rate {
            None => self.exit_code,
            Some(rate) => {
                let draw = Duration::from_nanos(random.below(CHANCE_UNIT)).as_secs_f64();
                let failure = if self.exit_code == 0 { 1 } else { self.exit_code };
                if draw < rate { failure } else { 0 }
            }
        };
        Plan {
            start_delay: self.start_delay + jitter(),
            duration: self.duration.map(|duration| duration + jitter()),
            exit_code,
        }
    }
}

fn parse<T: FromStr>(key: &str, value: Option<&str>, wanted: &str) -> Result<Option<T>, String> {
    value
        .map(|text| text.parse().map_err(|_| format!("annotation {key}: {text:?} is not {wanted}")))
        .transpose()
}

fn duration(key: &str, value: Option<&str>) -> Result<Option<Duration>, String> {
    let wanted = "a duration like 100ms or 1m30s";
    let Some(signed) = parse::<SignedDuration>(key, value, wanted)? else { return Ok(None) };
    let duration = Duration::try_from(signed);
    duration
        .map(Some)
        .map_err(|_| format!("annotation {key}: {:?} is not {wanted}", value.unwrap_or_default()))
}
