//! What an idle cluster costs: `coracle up` as a process of its own, looked at from outside.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Failure, Options, Report};
use crate::clock::{self, Clock};

/// How long the idle cluster is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Time for the work of starting to settle before watching begins.
const SETTLED: Duration = Duration::from_secs(3);
/// Starts whose median is the time to ready.
const STARTS: usize = 5;
/// Clock ticks a second in /proc/PID/stat; 100 on every Linux that runs Rust's std.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    let clock = Clock::real();
    let mut report = Report::new("footprint");
    report.condition("nodes", options.nodes.to_string());
    report.condition("store", if options.durable { "durable" } else { "ephemeral" });

    let scratch = std::env::temp_dir().join(format!("coracle-footprint-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)
        .map_err(|error| format!("cannot create {}: {error}", scratch.display()))?;
    let measured = measure(options, clock, &scratch, &mut report);
    std::fs::remove_dir_all(&scratch).ok();
    measured?;
    let binary = std::env::current_exe()?;
    report.figure("binary", bytes_to_mb(std::fs::metadata(&binary)?.len()), "MB");
    Ok(report)
}

fn measure(
    options: &Options,
    clock: Clock,
    scratch: &std::path::Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let data = options.durable.then(|| scratch.join("data"));
    let mut starts = Vec::new();
    for _ in 1..STARTS {
        let before = clock.monotonic();
        let up = Idle::start(options.nodes, data.as_ref(), scratch)?;
        starts.push(clock.monotonic().saturating_sub(before));
        up.stop()?;
    }
    let before = clock.monotonic();
    let up = Idle::start(options.nodes, data.as_ref(), scratch)?;
    starts.push(clock.monotonic().saturating_sub(before));
    report.percentiles("start to ready", &mut starts);

    clock::sleep_thread(SETTLED);
    let (cpu_before, switches_before) = (up.cpu_ticks()?, up.context_switches()?);
    clock::sleep_thread(WATCHED);
    let (cpu, switches) = (up.cpu_ticks()? - cpu_before, up.context_switches()? - switches_before);
    report.figure("idle RSS", up.rss_mb()?, "MB");
    report.figure("idle CPU", cpu / TICKS_PER_SECOND / WATCHED.as_secs_f64() * 100.0, "% of a core");
    report.figure("idle wake-ups", switches / WATCHED.as_secs_f64(), "/s");
    up.stop()
}

/// A `coracle up` to look at.
struct Idle(Child);

impl Idle {
    fn start(nodes: u32, data: Option<&PathBuf>, scratch: &std::path::Path) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["up", "--listen", "127.0.0.1:0", "--nodes", &nodes.to_string(), "--kubeconfig"]);
        command.arg(scratch.join("kubeconfig"));
        match data {
            Some(data) => command.arg("--data-dir").arg(data),
            None => command.arg("--ephemeral"),
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let idle = Self(child);
        if line.starts_with("ready ") { Ok(idle) } else { Err("`coracle up` did not become ready".into()) }
    }

    fn stop(mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("the process has no id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.0.wait()?;
        Ok(())
    }

    fn proc(&self, file: &str) -> Result<String, Failure> {
        let path = format!("/proc/{}/{file}", self.0.id());
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}").into())
    }

    fn rss_mb(&self) -> Result<f64, Failure> {
        Ok(field(&self.proc("status")?, "VmRSS:")? / 1024.0)
    }

    /// User and system time.
    fn cpu_ticks(&self) -> Result<f64, Failure> {
        let stat = self.proc("stat")?;
        let after_name = stat.rsplit_once(") ").ok_or("/proc/PID/stat has a name")?.1;
        let mut fields = after_name.split_whitespace().skip(11);
        let mut next = || {
            fields.next().and_then(|ticks| ticks.parse::<f64>().ok()).ok_or("/proc/PID/stat has CPU times")
        };
        Ok(next()? + next()?)
    }

    /// Times that any of its threads was put on a core after waiting.
    fn context_switches(&self) -> Result<f64, Failure> {
        let tasks = format!("/proc/{}/task", self.0.id());
        let mut sum = 0.0;
        for task in std::fs::read_dir(tasks)? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            sum += field(&status, "voluntary_ctxt_switches:")?;
        }
        Ok(sum)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Result<f64, Failure> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

fn bytes_to_mb(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}
