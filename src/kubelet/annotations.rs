//! Annotations of a pod that this kubelet acts on, as pure functions.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::kind::quantity::Amount;
use crate::runtime::http::{Http, Instances, KEPT_MAX, PORT_DEFAULT};

use crate::runtime::Fuel;

/// `frozen`: mounts of a part of a volume do not follow its changes, as in Kubernetes
/// (BEHAVIOURS 10.8). Without it they do.
pub(crate) const SUB_PATH: &str = "coracle.dev/subpath";

/// What is done when content changes that a container uses: `ignore` (also without it, and what
/// Kubernetes does), `restart`, or `http:PATH:PORT`.
pub(crate) const ON_CONFIG_CHANGE: &str = "coracle.dev/on-config-change";

/// Which instance of a handler answers a request: `fresh` (also without it), `reused`, or `pooled:N`.
pub(crate) const HTTP_INSTANCES: &str = "coracle.dev/http-instances";
/// The longest body of a request to a handler, as a quantity: `10Mi`.
pub(crate) const HTTP_BODY_MAX: &str = "coracle.dev/http-body-max";
/// How long a handler may take for a request, as a duration: `30s`.
pub(crate) const HTTP_TIMEOUT: &str = "coracle.dev/http-timeout";
/// `true`: a line for each request to a handler in its log.
pub(crate) const HTTP_ACCESS_LOG: &str = "coracle.dev/http-access-log";
/// Instances of `pooled` without a number.
const POOLED_DEFAULT: u16 = 8;
/// Whether the work of the pod's containers is counted in fuel ([`Fuel`]): `count`, or a number that ends a
/// run which has used so much. Followed by `.CONTAINER` it is about that container only, and wins there.
pub(crate) const FUEL: &str = "coracle.dev/fuel";

/// What this and a container's name say: the fuel of its latest run that has ended.
pub(crate) const FUEL_USED: &str = "coracle.dev/fuel-used.";

/// What a change of the content of a ConfigMap or Secret does to the containers that use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnConfigChange {
    #[default]
    Ignore,
    /// Ends the container and starts it again.
    Restart,
    /// Asks the pod over HTTP, at its address.
    Http { path: String, port: u16 },
}

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// See [`SUB_PATH`].
    pub(crate) sub_path_frozen: bool,
    /// See [`ON_CONFIG_CHANGE`].
    pub(crate) on_config_change: OnConfigChange,
    /// How handlers are served; the port is the container's.
    pub(crate) http: Http,
    /// Values that mean nothing, each with those that would; they count as not given.
    pub(crate) complaints: Vec<String>,
}

/// Reads the annotations of a pod.
#[must_use]
pub(crate) fn wishes(pod: &Pod) -> Wishes {
    let none = BTreeMap::new();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let mut wishes = Wishes::default();
    match annotations.get(SUB_PATH).map(String::as_str) {
        None => {}
        Some("frozen") => wishes.sub_path_frozen = true,
        Some(other) => wishes.complaints.push(format!(
            "annotation {SUB_PATH}: {other:?} has no meaning; the only value is \"frozen\", and without the \
             annotation mounts with a subPath follow changes"
        )),
    }
    if let Some(value) = annotations.get(ON_CONFIG_CHANGE) {
        match on_config_change(value) {
            Some(wish) => wishes.on_config_change = wish,
            None => wishes.complaints.push(format!(
                "annotation {ON_CONFIG_CHANGE}: {value:?} has no meaning, so changes are ignored; use \
                 \"ignore\", \"restart\" or \"http:PATH:PORT\", as in \"http:/reload:8080\""
            )),
        }
    }
    if let Some(value) = annotations.get(HTTP_INSTANCES) {
        match http_instances(value) {
            Some(instances) => wishes.http.instances = instances,
            None => wishes.complaints.push(format!(
                "annotation {HTTP_INSTANCES}: {value:?} has no meaning, so each request has an instance of its own; \
                 use \"fresh\", \"reused\", \"pooled\" or \"pooled:N\" with N from 1 to {KEPT_MAX}"
            )),
        }
    }
    if let Some(value) = annotations.get(HTTP_BODY_MAX) {
        match bytes(value) {
            Some(bytes) => wishes.http.body_bytes_max = Some(bytes),
            None => wishes.complaints.push(format!(
                "annotation {HTTP_BODY_MAX}: {value:?} is no number of bytes, so bodies may be of any length; use \
                 a quantity, as in \"10Mi\""
            )),
        }
    }
    if let Some(value) = annotations.get(HTTP_TIMEOUT) {
        match time(value) {
            Some(time) => wishes.http.time_max = Some(time),
            None => wishes.complaints.push(format!(
                "annotation {HTTP_TIMEOUT}: {value:?} is no time that passes, so requests may take any; use a \
                 duration, as in \"30s\" or \"1m30s\""
            )),
        }
    }
    match annotations.get(HTTP_ACCESS_LOG).map(String::as_str) {
        None | Some("false") => {}
        Some("true") => wishes.http.access_log = true,
        Some(other) => wishes.complaints.push(format!(
            "annotation {HTTP_ACCESS_LOG}: {other:?} has no meaning, so requests are not logged; use \"true\" or \
             \"false\""
        )),
    }
    let of_fuel =
        |key: &str| key.strip_prefix(FUEL).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    for (key, value) in annotations.iter().filter(|(key, _)| of_fuel(key)) {
        if read_fuel(value).is_none() {
            wishes.complaints.push(format!(
                "annotation {key}: {value:?} has no meaning, so fuel is not counted; use \"count\", or how much \
                 may be used, as in \"1000000000\""
            ));
        }
    }
    wishes
}

/// How a container is served if its image is a handler: on the first of its ports that is TCP's.
#[must_use]
pub(crate) fn http(pod: &Pod, container: &Container) -> Http {
    let ports = container.ports.iter().flatten();
    let mut tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    let port = tcp.find_map(|port| u16::try_from(port.container_port).ok());
    Http { port: port.unwrap_or(PORT_DEFAULT), ..wishes(pod).http }
}

fn time(value: &str) -> Option<Duration> {
    let time = value.parse::<SignedDuration>().ok()?;
    Duration::try_from(time).ok().filter(|time| !time.is_zero())
}

fn http_instances(value: &str) -> Option<Instances> {
    match value {
        "fresh" => return Some(Instances::Fresh),
        "reused" => return Some(Instances::Kept(1)),
        "pooled" => return Some(Instances::Kept(POOLED_DEFAULT)),
        _ => {}
    }
    let count = value.strip_prefix("pooled:")?;
    let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse().ok().filter(|count| is_number && (1..=KEPT_MAX).contains(count))?;
    Some(Instances::Kept(count))
}

/// A whole number of bytes.
fn bytes(value: &str) -> Option<u64> {
    let amount = Amount::parse(value).ok()?;
    u64::try_from(amount.units()).ok().filter(|_| !amount.is_negative())
}

/// What a container's annotations say of its fuel; nothing, if they make no sense.
pub(crate) fn fuel(annotations: &BTreeMap<String, String>, container: &str) -> Fuel {
    let value = annotations.get(&format!("{FUEL}.{container}")).or_else(|| annotations.get(FUEL));
    value.and_then(|value| read_fuel(value)).unwrap_or_default()
}

fn read_fuel(value: &str) -> Option<Fuel> {
    if value == "count" {
        return Some(Fuel::Count);
    }
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|fuel| *fuel != 0 && is_number).map(Fuel::Limit)
}

fn on_config_change(value: &str) -> Option<OnConfigChange> {
    match value {
        "ignore" => return Some(OnConfigChange::Ignore),
        "restart" => return Some(OnConfigChange::Restart),
        _ => {}
    }
    let (path, port) = value.strip_prefix("http:")?.rsplit_once(':')?;
    let is_path = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port != 0 && is_number)?;
    is_path.then(|| OnConfigChange::Http { path: path.to_owned(), port })
}

#[cfg(test)]
mod tests;
