//! Annotations of a pod that this kubelet acts on, as pure functions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

/// `frozen`: mounts of a part of a volume do not follow its changes, as in Kubernetes
/// (BEHAVIOURS 10.8). Without it they do.
pub(crate) const SUB_PATH: &str = "coracle.dev/subpath";

/// What is done when content changes that a container uses: `ignore` (also without it, and what
/// Kubernetes does), `restart`, or `http:PATH:PORT`.
pub(crate) const ON_CONFIG_CHANGE: &str = "coracle.dev/on-config-change";

/// What a change of the content of a ConfigMap or Secret does to the containers that use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnConfigChange {
    #[default]
    Ignore,
    /// Ends the container and starts it again.
    Restart,
    /// Asks the container over HTTP. Nodes cannot reach a container's ports yet.
    Http { path: String, port: u16 },
}

/// What the annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// See [`SUB_PATH`].
    pub(crate) sub_path_frozen: bool,
    /// See [`ON_CONFIG_CHANGE`].
    pub(crate) on_config_change: OnConfigChange,
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
    wishes
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
