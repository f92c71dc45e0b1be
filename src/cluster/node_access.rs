//! What the API asks of nodes: their kubelets are in this process.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::terminal::{self, Both};
use crate::apiserver::request::{LogOptions, LogStream, StreamOptions};
use crate::apiserver::stream::{Dial, Ended, Input, Opening, Session};
use crate::apiserver::{ContainerUsage, Error, NodeAccess, PodUsage};
use crate::clock::Clock;
use crate::kind::address_plan::is_machines;
use crate::kubelet::terminal::OnInterrupt;
use crate::kubelet::{Logs, Meters, Refused, Running, Used, Wanted};
use crate::network::dial;
use crate::runtime::log::LogQuery;
use crate::runtime::pipe::{Receiver, Sender};

/// Exit code of a run that somebody at a terminal has interrupted: as by SIGINT.
const INTERRUPTED: i32 = 130;
/// How long a pod's port may take to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);

pub(super) struct Nodes {
    pub(super) logs: Logs,
    pub(super) running: Running,
    pub(super) meters: Meters,
    pub(super) clock: Clock,
}

#[async_trait]
impl NodeAccess for Nodes {
    async fn logs(&self, pod: &Pod, container: &str, options: &LogOptions) -> Result<LogStream, Error> {
        let since =
            options.since_seconds.map(|seconds| self.clock.now() - jiff::SignedDuration::from_secs(seconds));
        let query = LogQuery {
            follow: options.follow,
            since: since.or(options.since_time),
            timestamps: options.timestamps,
            tail_lines: options.tail_lines,
            limit_bytes: options.limit_bytes,
        };
        self.logs
            .read(pod, container, options.previous, &query)
            .map_err(|no_log| Error::bad_request(no_log.to_string()))
    }

    async fn usage(&self, pods: &[Arc<Pod>]) -> HashMap<String, PodUsage> {
        let uids: Vec<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let used = self.meters.of(&uids, self.clock).await;
        used.into_iter().filter_map(|(uid, used)| Some((uid, pod_usage(used)?))).collect()
    }

    fn exec(&self, pod: &Pod, container: &str, options: &StreamOptions) -> Result<Opening, Error> {
        let joined = self.running.find(pod, container).map_err(refused)?;
        let options = options.clone();
        Ok(async move {
            let wanted = Wanted { stdin: options.stdin, tty: options.tty, merged: false };
            let started = joined.exec(&options.command, wanted).await;
            let mut run = started.map_err(|refused| Error::internal(refused.to_string()))?;
            let stdin = run.stdin.take();
            let stdout = wanted_or_drained(run.stdout.take(), options.stdout);
            if options.tty {
                let on_interrupt = if run.is_shell { OnInterrupt::EndIfEmpty } else { OnInterrupt::End };
                let Both { stdin, stdout, interrupted } = terminal::before(stdin, stdout, on_interrupt);
                let ended = async move {
                    tokio::select! {
                        biased;
                        () = interrupted.cancelled() => Ended { code: INTERRUPTED, text: None },
                        (code, text) = run.exited() => Ended { code, text },
                    }
                };
                return Ok(Session { stdin, stdout, stderr: None, ended: ended.boxed() });
            }
            let stdin = stdin.map(|stdin| Box::new(Stdin(stdin)) as Box<dyn Input>);
            let stdout = stdout.map(pieces);
            let stderr = wanted_or_drained(run.stderr.take(), options.stderr).map(pieces);
            let ended = async move {
                let (code, text) = run.exited().await;
                Ended { code, text }
            };
            Ok(Session { stdin, stdout, stderr, ended: ended.boxed() })
        }
        .boxed())
    }

    fn attach(&self, pod: &Pod, container: &str, options: &StreamOptions) -> Result<Opening, Error> {
        let joined = self.running.find(pod, container).map_err(refused)?;
        let options = options.clone();
        Ok(async move {
            let attached = joined.attach(options.stdin, options.stdout, options.stderr);
            let attached = attached.map_err(|refused| Error::internal(refused.to_string()))?;
            let (stdin, stdout) = if options.tty {
                let both = terminal::before(attached.stdin, attached.stdout, OnInterrupt::NewLine);
                (both.stdin, both.stdout)
            } else {
                let stdin = attached.stdin.map(|stdin| Box::new(Stdin(stdin)) as Box<dyn Input>);
                (stdin, attached.stdout.map(pieces))
            };
            Ok(Session {
                stdin,
                stdout,
                stderr: attached.stderr.map(pieces),
                // As upstream: how the container itself ends is told by its status.
                ended: async move {
                    joined.over().await;
                    Ended::default()
                }
                .boxed(),
            })
        }
        .boxed())
    }

    fn dial(&self, pod: &Pod) -> Result<Dial, Error> {
        let address = self.running.address(pod).ok_or_else(|| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            Error::bad_request(format!("unable to forward ports: pod {name} is not running"))
        })?;
        let clock = self.clock;
        Ok(Arc::new(move |port| connect(clock, (address, port).into()).boxed()))
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        // What listens on the machine's own addresses is not the cluster's to show.
        let is_ours = match to.ip() {
            IpAddr::V4(ip) => !is_machines(ip) && !ip.is_unspecified(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        };
        if !is_ours {
            let refused = io::Error::new(io::ErrorKind::PermissionDenied, "address not allowed");
            return async { Err(refused) }.boxed();
        }
        connect(self.clock, to).boxed()
    }
}

async fn connect(clock: Clock, to: SocketAddr) -> io::Result<TcpStream> {
    let connection = clock.timeout(CONNECT_MAX, dial(to)).await;
    let connection = connection.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let named = |error: io::Error| {
        let text = error.to_string();
        let why = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
        io::Error::new(error.kind(), format!("dial tcp {to}: connect: {why}"))
    };
    let connection = connection.map_err(named)?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// In the words by which kubectl's users know it.
fn refused(refused: Refused) -> Error {
    Error::bad_request(format!("unable to upgrade connection: {refused}"))
}

struct Stdin(Sender);

#[async_trait]
impl Input for Stdin {
    async fn write(&self, bytes: Bytes) -> bool {
        self.0.write(bytes).await
    }
}

fn pieces(output: Receiver) -> LogStream {
    Box::pin(stream::unfold(output, async |mut output| {
        let piece = output.read().await?;
        Some((piece, output))
    }))
}

fn pod_usage(used: Vec<Used>) -> Option<PodUsage> {
    let (at, window) = used.iter().map(|one| (one.at, one.window)).max()?;
    let of = |Used { container: name, nanocores, memory, fuel, .. }: Used| ContainerUsage {
        name,
        nanocores,
        memory,
        fuel,
    };
    Some(PodUsage { at, window, containers: used.into_iter().map(of).collect() })
}

/// What nobody wants is read all the same, or the program would wait for that.
fn wanted_or_drained(output: Option<Receiver>, is_wanted: bool) -> Option<Receiver> {
    let mut output = output?;
    if is_wanted {
        return Some(output);
    }
    tokio::spawn(async move { while output.read().await.is_some() {} });
    None
}
