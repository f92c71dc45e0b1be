//! `http`: requests a second that a handler answers, and how long each takes.
//!
//! The built-in `hello-http` is served with each kind of instance, and asked over connections of the loopback
//! that are kept, by a generator in this process ([`load`](super::load)) on the same cores. With the variable
//! `CORACLE_BENCH_WASMTIME`, the path of a `wasmtime` program, the same component is served by `wasmtime serve`
//! and asked by the same generator in the same run: with an instance for each request, as is its way, and with
//! ones that are reused.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::load::load;
use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::client::Select;
use crate::clock::Clock;
use crate::cluster::{Cluster, Config};
use crate::guests;

const IMAGE: &str = "coracle.dev/hello-http:v1";
/// A program to measure beside this one.
const WASMTIME: &str = "CORACLE_BENCH_WASMTIME";
const CONNECTIONS: u32 = 32;
/// The annotation, and a name for the pod.
const KINDS: &[(&str, &str)] = &[("fresh", "fresh"), ("pooled:8", "pooled"), ("reused", "reused")];
/// Of the other program: a name, and arguments.
const SERVE_KINDS: &[(&str, &[&str])] = &[
    ("wasmtime serve, fresh", &[]),
    ("wasmtime serve, reused", &["--max-instance-reuse-count", "1000000000"]),
];
/// How long `wasmtime serve` may take to compile and to listen.
const START_MAX: Duration = Duration::from_secs(60);
const START_STEP: Duration = Duration::from_millis(50);

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("http measures code that is run; leave out --simulated".into());
    }
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("http", options);
    report.condition("client", format!("own generator in this process, {CONNECTIONS} kept connections"));
    // It is listened on, so that its addresses are no other cluster's.
    let config = Config { listen: Some((Ipv4Addr::LOCALHOST, 0).into()), ..stage::config(options) };
    stage::on(config, async |cluster| {
        for (kind, name) in KINDS {
            let server = pod(cluster, name, kind).await?;
            ask(cluster.clock(), server, options.count, &mut report, kind).await?;
        }
        Ok(())
    })
    .await?;
    if let Some(program) = std::env::var_os(WASMTIME) {
        let clock = Clock::real();
        for (name, more) in SERVE_KINDS {
            let serve = Serve::start(Path::new(&program), more, clock).await?;
            ask(clock, serve.address, options.count, &mut report, name).await?;
        }
    }
    Ok(report)
}

async fn ask(
    clock: Clock,
    server: SocketAddr,
    count: u32,
    report: &mut Report,
    name: &str,
) -> Result<(), Failure> {
    // What is done once for the first requests does not count.
    load(clock, server, "/", CONNECTIONS, count / 10 + 1).await?;
    load(clock, server, "/", CONNECTIONS, count).await?.tell(report, name);
    Ok(())
}

/// Where a pod of the image is served, once it is.
async fn pod(cluster: &Cluster, name: &str, instances: &str) -> Result<SocketAddr, Failure> {
    let client = cluster.client();
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    let annotation = ("coracle.dev/http-instances".to_owned(), instances.to_owned());
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".into()),
            annotations: Some([annotation].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".into(),
                image: Some(IMAGE.to_owned()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    };
    client.create(pod).await?;
    wait_for(&mut watcher, name, "Running", 1).await?;
    let pod = client.get::<Pod>("default", name).await?;
    let ip =
        pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).ok_or("the pod has no address")?;
    Ok((ip.parse::<Ipv4Addr>()?, 8080).into())
}

/// A `wasmtime serve` of the same component; ended when it is dropped.
struct Serve {
    child: Child,
    address: SocketAddr,
    _scratch: stage::Scratch,
}

impl Serve {
    async fn start(program: &Path, more: &[&str], clock: Clock) -> Result<Self, Failure> {
        let scratch = stage::Scratch::new();
        std::fs::create_dir_all(&scratch.0)?;
        let file = scratch.0.join("hello-http.wasm");
        let (_, wasm) = guests::builtin().iter().find(|(name, _)| *name == IMAGE).ok_or("it is built in")?;
        std::fs::write(&file, wasm)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(program)
            .args(["serve", "-S", "cli", "--addr", &address.to_string()])
            .args(more)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {} ({WASMTIME}): {error}", program.display()))?;
        let mut serve = Self { child, address, _scratch: scratch };
        let began = clock.monotonic();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if let Some(status) = serve.child.try_wait()? {
                return Err(format!("{} serve ended: {status}", program.display()).into());
            }
            if clock.monotonic().saturating_sub(began) > START_MAX {
                return Err(format!("{} serve does not listen on {address}", program.display()).into());
            }
            clock.sleep(START_STEP).await;
        }
        Ok(serve)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_instance_is_measured() {
        let options = Options { count: 100, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        let per_server = 3;
        assert!(report.figures.len() >= KINDS.len() * per_server, "{report}");
        assert!(report.figures.iter().all(|figure| figure.value > 0.0), "{report}");
    }
}
