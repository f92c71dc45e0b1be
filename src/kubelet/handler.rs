//! Does what a probe or a hook says: asks over HTTP, TCP or gRPC, runs a command beside the container, or sleeps
//! (upstream `pkg/probe` and `kubelet/lifecycle`).
//!
//! Connections are the node's own, to the pod's address. Words for failures are those of upstream, which
//! people search for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container as ContainerSpec, HTTPGetAction, LifecycleHandler, Probe as ProbeSpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::{TcpStream, lookup_host};

use super::backoff::go_duration;
use super::beside::{self, Unfinished};
use super::probe::Answer;
use super::setup::Setup;
use crate::clock::Clock;
use crate::network::dial;

mod grpc;
mod http_get;

#[cfg(test)]
mod tests;

/// Of what a command writes, what is told (upstream `maxReadLength` of `pkg/probe/exec`).
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// A container to be asked.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) container: &'a ContainerSpec,
    /// The pod's address.
    pub(crate) ip: Ipv4Addr,
    pub(crate) clock: Clock,
    /// Where commands are run; none once the container has ended.
    pub(crate) setup: Option<&'a Arc<Setup>>,
}

/// Probes once, within the probe's timeout.
pub(crate) async fn probe(spec: &ProbeSpec, target: Target<'_>) -> Answer {
    let seconds = spec.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(1).max(1);
    let timeout = Duration::from_secs(seconds);
    if let Some(get) = &spec.http_get {
        match http_get::Get::new(get, target.container, target.ip, "probe") {
            Ok(get) => match target.clock.timeout(timeout, get.follow()).await {
                Ok(answer) => http_get::answer(answer),
                Err(_) => Answer::Failed(get.timed_out()),
            },
            Err(why) => Answer::Unclear(why),
        }
    } else if let Some(socket) = &spec.tcp_socket {
        let host = socket.host.clone().filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| target.ip.to_string());
        match port(&socket.port, target.container) {
            Ok(port) => match target.clock.timeout(timeout, connect(&host, port)).await {
                Ok(Ok(_)) => Answer::Passed,
                Ok(Err(why)) => Answer::Failed(why),
                Err(_) => Answer::Failed(format!("dial tcp {}: i/o timeout", authority(&host, port))),
            },
            Err(why) => Answer::Unclear(why),
        }
    } else if let Some(call) = &spec.grpc {
        match number(call.port) {
            Ok(port) => grpc::check(target, port, call.service.as_deref().unwrap_or_default(), timeout).await,
            Err(why) => Answer::Unclear(why),
        }
    } else if let Some(exec) = &spec.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        match run(command, timeout, target).await {
            Ok((0, _)) => Answer::Passed,
            Ok((_, output)) => Answer::Failed(output),
            Err(Some(Unfinished::Late(_))) => Answer::Failed(format!(
                "command timed out: {:?} timed out after {}",
                command.join(" "),
                go_duration(timeout)
            )),
            Err(Some(Unfinished::NotStarted(why))) => Answer::Unclear(why.to_string()),
            Err(None) => Answer::Unclear("the container has ended".to_owned()),
        }
    } else {
        Answer::Unclear("it is neither exec, httpGet, tcpSocket nor grpc".to_owned())
    }
}

/// Runs a command beside the container: its exit code, and what it wrote. `None` if nothing runs any more.
async fn run(
    command: &[String],
    limit: Duration,
    target: Target<'_>,
) -> Result<(i32, String), Option<Unfinished>> {
    let setup = target.setup.ok_or(None)?;
    let finished = beside::finish(setup, command, limit, OUTPUT_BYTES_MAX).await.map_err(Some)?;
    Ok((finished.code, String::from_utf8_lossy(&finished.output).into_owned()))
}

/// Asks for `path` over HTTP, so that the pod hears of a change; why it failed, if it did.
pub(crate) async fn announce(path: &str, port: u16, timeout: Duration, target: Target<'_>) -> Option<String> {
    let get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(port.into()),
        ..HTTPGetAction::default()
    };
    let seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
    let asked = ProbeSpec { http_get: Some(get), timeout_seconds: Some(seconds), ..ProbeSpec::default() };
    match probe(&asked, target).await {
        Answer::Passed | Answer::Warned(_) => None,
        Answer::Failed(why) | Answer::Unclear(why) => Some(why),
    }
}

/// Runs a hook to its end: why it failed, if it did. How long it may take is up to the caller.
pub(crate) async fn hook(handler: &LifecycleHandler, target: Target<'_>) -> Option<String> {
    if let Some(get) = &handler.http_get {
        let get = match http_get::Get::new(get, target.container, target.ip, "lifecycle") {
            Ok(get) => get,
            Err(why) => return Some(why),
        };
        // Whatever the server answers, it has heard.
        get.follow().await.err()
    } else if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
        target.clock.sleep(Duration::from_secs(seconds)).await;
        None
    } else if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        let words = command.join(" ");
        match run(command, Duration::MAX, target).await {
            Ok((0, _)) => None,
            Ok((code, output)) => Some(format!("command {words:?} exited with {code}: {output}")),
            Err(why) => Some(format!(
                "command {words:?} was not run: {}",
                why.map_or_else(|| "the container has ended".to_owned(), |why| why.to_string())
            )),
        }
    } else {
        // `tcpSocket` passes validation for old manifests, and fails here (core/v1 `LifecycleHandler`).
        Some("invalid handler: it is neither exec, httpGet nor sleep".to_owned())
    }
}

fn number(port: i32) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {port}"))
}

/// A port by number or by its name in the container (upstream `probe.ResolveContainerPort`).
fn port(given: &IntOrString, container: &ContainerSpec) -> Result<u16, String> {
    match given {
        IntOrString::Int(port) => number(*port),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
            let port = named.or_else(|| name.parse().ok());
            number(port.ok_or_else(|| format!("container {} has no port named {name:?}", container.name))?)
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects, or says why not in Go's words.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => (ip, port).into(),
        Err(_) => {
            let mut found = lookup_host((host, port))
                .await
                .map_err(|_| format!("dial tcp: lookup {host}: no such host"))?;
            found.next().ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))?
        }
    };
    dial(address).await.map_err(|error| format!("dial tcp {address}: connect: {}", go_error(&error)))
}

/// An error of a socket as Go names it.
fn go_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        std::io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}
