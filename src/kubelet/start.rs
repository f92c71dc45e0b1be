//! Starting one container: image, environment, mounts, and the run itself; and how a run's end is
//! told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};
use tokio_util::sync::CancellationToken;

use super::api::ApiError;
use super::config::{Beginning, Tracker};
use super::fields::Facts;
use super::lifecycle::{Cause, Ended, StartFailure};
use super::nodes::NodeContext;
use super::queue::JobQueue;
use super::running::Place;
use super::setup::{Setup, Streams};
use super::volume::Volumes;
use super::{annotations, env, limits, pull, sources};
use crate::client;
use crate::kind::pod::as_container;
use crate::network::PodNetwork;
use crate::runtime::budget::Budget;
use crate::runtime::log::Log;
use crate::runtime::network::Network;
use crate::runtime::{self, Exit, Fuel, fs};

/// Exit code of a trap: what a process killed by SIGABRT has.
pub(crate) const TRAPPED: i32 = 134;
/// Exit code of a run that was killed, or took too much memory: as by SIGKILL.
pub(crate) const KILLED: i32 = 137;
/// The longest termination message, in bytes, and the longest of all of a pod's together.
const MESSAGE_BYTES_MAX: usize = 4096;
const POD_MESSAGE_BYTES_MAX: usize = 12 << 10;
/// What of the log may stand in for a message.
const MESSAGE_LOG_LINES: usize = 80;
const MESSAGE_LOG_BYTES: usize = 2048;
/// The most a guest may write where its termination message goes.
const MESSAGE_DIR_BYTES_MAX: u64 = 64 << 10;

/// A run that has begun.
pub(crate) struct Begun {
    pub(crate) container: Arc<runtime::Container>,
    /// Further runs beside this one start from it ([`beside`](super::beside)), until this is dropped.
    pub(crate) place: Place,
    pub(crate) container_id: String,
    pub(crate) image_id: String,
    pub(crate) log: Arc<Log>,
    pub(crate) message: Option<MessageFile>,
}

/// Where a guest leaves its termination message.
pub(crate) struct MessageFile {
    volume: Arc<fs::Volume>,
    name: String,
}

/// What a start needs besides the pod.
pub(crate) struct Start {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) pod_ip: std::net::Ipv4Addr,
    pub(crate) volumes: Arc<Volumes>,
    /// The container, by its place: as [`container`] has it.
    pub(crate) slot: usize,
    /// Counts the container's runs.
    pub(crate) run: i32,
    /// Of the whole pod, above that of the container.
    pub(crate) budget: Option<Arc<Budget>>,
    /// Told how the run begins.
    pub(crate) tracker: Arc<Tracker>,
}

/// A pod's containers in the order of their slots, and the field of the spec that has each.
pub(crate) fn container(pod: &Pod, slot: usize) -> Option<(Cow<'_, ContainerSpec>, &'static str)> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if let Some(container) = init.get(slot) {
        return Some((Cow::Borrowed(container), "initContainers"));
    }
    let slot = slot - init.len();
    if let Some(container) = spec.containers.get(slot) {
        return Some((Cow::Borrowed(container), "containers"));
    }
    let ephemeral =
        spec.ephemeral_containers.as_deref().unwrap_or_default().get(slot - spec.containers.len())?;
    Some((Cow::Owned(as_container(ephemeral)), "ephemeralContainers"))
}

/// Starts a container's run. Events tell the user how far it came.
pub(crate) async fn start(start: Start) -> Result<Begun, StartFailure> {
    let Start { node, pod, pod_ip, volumes, slot, run, budget, tracker } = start;
    let (container, part) = container(&pod, slot).expect("a pod's containers do not become fewer");
    let container = &*container;
    let image_name = container.image.as_deref().unwrap_or_default();
    let about = client::reference(&*pod, Some(format!("spec.{part}{{{}}}", container.name)));
    let record = |reason, message| node.api.record(&about, false, reason, message);
    let policy = container.image_pull_policy.as_deref();
    let requester = pull::ForPod { node: &node, pod: &pod, about: &about, image: image_name };
    let got = node.config.images.get(image_name, policy, &requester).await?;

    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let found = sources::fetch(&*node.api, namespace, env::sources(container)).await.map_err(unreachable)?;
    let facts = Facts { pod: &pod, host_ip: node.config.ip, pod_ip, allocatable: &node.config.capacity };
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = node.shared.networks.services().variables(namespace, links);
    let env = env::build(container, &facts, &found, &services).map_err(|error| config(error.0))?;
    let args = env::args(container, &env, &got.config).map_err(|error| config(error.0))?;
    let frozen = annotations::wishes(&pod).sub_path_frozen;
    let (mut mounts, parts) = volumes.mounts(container, &env, frozen).map_err(config)?;
    let message = if node.config.images.run_code() { message_file(container, &mounts) } else { None };
    if let Some((mount, _)) = &message {
        mounts.push(mount.clone());
    }

    let network = (!pod_ip.is_unspecified()).then(|| {
        let (api, about) = (node.api.clone(), client::reference(&*pod, None));
        let tell = move |refused| api.record(&about, true, "EgressRefused", refused);
        Arc::new(node.shared.networks.of_pod(&pod, pod_ip, node.config.ip, tell))
    });
    if let Some(network) = network.as_ref().filter(|_| node.config.images.run_code()) {
        mounts.extend(name_files(network, &mounts));
    }

    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let delay = node.config.runtime.start_delay(&annotations);
    if !delay.is_zero() {
        node.shared.clock.sleep(delay).await;
    }
    let env_sources: Vec<_> = env::sources(container).collect();
    let has_sources = !env_sources.is_empty() || volumes.have_sources(&parts);
    tracker.begin(Beginning {
        env_sources,
        env: env::versions(&found),
        settings: env::settings(container, &found),
        volumes,
        parts,
        has_sources,
    });
    let log = Arc::new(Log::new(node.shared.clock, node.config.log_bytes_max));
    let limits = limits::of_container(&pod, container, &node.config.capacity);
    let budget = Budget::new(limits, node.shared.clock, budget);
    let streams = Streams::new(container, node.shared.clock, &budget);
    let env = env::with_image(env, &got.config);
    let setup = Arc::new(Setup {
        node: node.clone(),
        label: format!("{namespace}/{name}/{}", container.name),
        pod_ip,
        network: network.map(|network| network as Arc<dyn Network>),
        image: got.image,
        program: args.first().cloned().unwrap_or_default(),
        env: env::with_hostname(env, &pod),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts,
        config: has_sources.then(|| tracker.feed()),
        queue: JobQueue::of(&pod, &node.api, node.shared.clock),
        budget,
        annotations,
        streams,
        over: CancellationToken::new(),
    });
    node.shared.logs.open(uid).begin(&container.name, log.clone());
    // A handler's instances come and go with requests.
    let fuel = if setup.image.is_handler() {
        Fuel::Off
    } else {
        annotations::fuel(&setup.annotations, &container.name)
    };
    let spec = runtime::ContainerSpec {
        http: Some(annotations::http(&pod, container)),
        ..setup.spec(setup.image.clone(), args, setup.streams.stdio(&log), fuel)
    };
    let running = Arc::new(node.config.runtime.start(spec).await);
    let place = node.shared.running.enter(uid, &container.name, &setup);
    node.shared.meters.enter(uid, &container.name, &running, node.shared.clock);

    if !got.was_pulled {
        record("Pulled", format!("Container image {image_name:?} already present on machine"));
    }
    record("Created", format!("Created container: {}", container.name));
    record("Started", format!("Started container {}", container.name));
    let version = node.config.runtime.version();
    let scheme = version.split("://").next().unwrap_or("wasm");
    Ok(Begun {
        container: running,
        place,
        container_id: format!("{scheme}://{uid}.{}.{run}", container.name),
        image_id: got.id,
        log,
        message: message.map(|(_, file)| file),
    })
}

fn config(message: String) -> StartFailure {
    StartFailure { cause: Cause::Config, reason: "CreateContainerConfigError", message, retry: false }
}

fn unreachable(error: ApiError) -> StartFailure {
    StartFailure {
        cause: Cause::Config,
        reason: "CreateContainerConfigError",
        message: format!("cannot read the sources of the environment: {error}"),
        retry: true,
    }
}

/// A small writable directory for the termination message, unless the pod's own volumes lie there.
fn message_file(container: &ContainerSpec, mounts: &[fs::Mount]) -> Option<(fs::Mount, MessageFile)> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let (dir, name) = path.rsplit_once('/')?;
    let taken = |mount: &fs::Mount| mount.path == dir || path.starts_with(&format!("{}/", mount.path));
    if dir.is_empty() || name.is_empty() || mounts.iter().any(|mount| taken(mount) || mount.path == path) {
        return None;
    }
    let volume = fs::Volume::empty_dir(MESSAGE_DIR_BYTES_MAX);
    let mount = fs::Mount { path: dir.to_owned(), volume: volume.clone(), sub_path: None, read_only: false };
    Some((mount, MessageFile { volume, name: name.to_owned() }))
}

/// The files by which programs find out how names are looked up, unless the pod's own volumes lie there.
fn name_files(network: &PodNetwork, mounts: &[fs::Mount]) -> Option<fs::Mount> {
    if mounts.iter().any(|mount| matches!(&*mount.path, "" | "/" | "/etc")) {
        return None;
    }
    let file = |text: String| fs::File::new(text.into(), 0o644);
    let files = BTreeMap::from([
        ("hosts".to_owned(), file(network.hosts().render(network.address()))),
        ("resolv.conf".to_owned(), file(network.resolver().render())),
    ]);
    let volume = fs::Volume::projected(files);
    Some(fs::Mount { path: "/etc".to_owned(), volume, sub_path: None, read_only: true })
}

/// How a run ended, in the status' words (BEHAVIOURS 9.6, 9.13).
///
/// A program's own code is kept as far as WASI carries it. A trap is `Error` 134 with the trap's
/// text as its message; too much memory is `OOMKilled` 137; what the node killed is `Error` 137.
pub(crate) fn ended(
    pod: &Pod,
    slot: usize,
    exit: Exit,
    begun: &Begun,
    started_at: Option<Timestamp>,
    now: Timestamp,
) -> Ended {
    let (exit_code, reason, trap) = match exit {
        Exit::Code(0) => (0, "Completed", None),
        Exit::Code(code) => (code, "Error", None),
        Exit::Trap(text) => (TRAPPED, "Error", Some(text)),
        Exit::OutOfMemory => (KILLED, "OOMKilled", None),
        Exit::Killed => (KILLED, "Error", None),
    };
    let container = container(pod, slot).map(|(container, _)| container);
    let policy = container.as_ref().and_then(|container| container.termination_message_policy.as_deref());
    let written = begun.message.as_ref().and_then(|file| file.volume.read(&file.name));
    let containers = pod
        .spec
        .as_ref()
        .map_or(1, |spec| spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len));
    let bytes_max = message_bytes_max(containers);
    let message = match written.filter(|written| !written.is_empty()) {
        Some(written) => Some(String::from_utf8_lossy(&written).into_owned()),
        None if trap.is_some() => trap,
        None if exit_code != 0 && policy == Some("FallbackToLogsOnError") => {
            Some(begun.log.tail(MESSAGE_LOG_LINES, MESSAGE_LOG_BYTES))
        }
        None => None,
    };
    Ended {
        exit_code,
        reason: reason.to_owned(),
        message: message.map(|text| last_bytes(text, bytes_max)).filter(|text| !text.is_empty()),
        started_at,
        finished_at: Some(now),
        container_id: Some(begun.container_id.clone()),
    }
}

/// The longest message of one container of a pod that has so many (BEHAVIOURS 9.13).
fn message_bytes_max(containers: usize) -> usize {
    MESSAGE_BYTES_MAX.min(POD_MESSAGE_BYTES_MAX / containers.max(1))
}

/// At most `bytes_max` from the end, whole characters.
fn last_bytes(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut start = text.len() - bytes_max;
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text.drain(..start);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9.13
    #[test]
    fn messages_are_cut_at_their_beginning_and_share_a_bound() {
        for (containers, bytes) in [(0, 4096), (1, 4096), (3, 4096), (4, 3072), (12, 1024)] {
            assert_eq!(message_bytes_max(containers), bytes, "{containers}");
        }
        for (text, bytes_max, kept) in
            [("short", 10, "short"), ("0123456789", 4, "6789"), ("aß", 2, "ß"), ("aß", 1, ""), ("", 4, "")]
        {
            assert_eq!(last_bytes(text.to_owned(), bytes_max), kept, "{text:?}");
        }
    }
}
