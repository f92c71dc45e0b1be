//! What a pod may read of itself: `fieldRef` and `resourceFieldRef` (BEHAVIOURS 10.4).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kind::pod::totals;
use crate::kind::quantity::Amount;

/// What references are answered from.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) pod_ip: Ipv4Addr,
    /// What the node can give: the limit of containers that have none.
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
}

/// The value of a field path; `None` if there is no such field.
pub(crate) fn field(facts: &Facts<'_>, path: &str) -> Option<String> {
    let meta = &facts.pod.metadata;
    let spec = facts.pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return None,
        };
        return Some(values.as_ref().and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    let text = |value: Option<&String>| Some(value.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => Some(facts.host_ip.to_string()),
        "status.podIP" | "status.podIPs" => Some(facts.pod_ip.to_string()),
        _ => None,
    }
}

/// The host name inside the pod; on the node's network it is the node's.
pub(crate) fn hostname(pod: &Pod) -> String {
    /// The longest host name.
    const LENGTH_MAX: usize = 63;
    let spec = pod.spec.as_ref();
    let node = spec.filter(|spec| spec.host_network == Some(true)).and_then(|spec| spec.node_name.as_deref());
    let wanted = spec.and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let name = node.or(wanted).or(pod.metadata.name.as_deref()).unwrap_or_default();
    let end = name.char_indices().map(|(at, _)| at).nth(LENGTH_MAX).unwrap_or(name.len());
    name[..end].trim_end_matches(['-', '.']).to_owned()
}

/// `metadata.labels['app']` in its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let unquoted = |quote: char| key.strip_prefix(quote).and_then(|key| key.strip_suffix(quote));
    Some((map, unquoted('\'').or_else(|| unquoted('"')).unwrap_or(key)))
}

/// Lines `key="value"`, sorted.
fn lines(values: Option<&BTreeMap<String, String>>) -> String {
    let lines = values.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A string as Go's `%q` writes it, which is how Kubernetes quotes the values.
fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for c in text.chars() {
        match c {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\x07' => result.push_str("\\a"),
            '\x08' => result.push_str("\\b"),
            '\x0c' => result.push_str("\\f"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            '\x0b' => result.push_str("\\v"),
            c if c.is_ascii_control() => result.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_printable(c) => result.push(c),
            c if u32::from(c) <= 0xffff => result.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => result.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    result.push('"');
    result
}

/// Letters, marks, numbers, punctuation, symbols and the plain space, as Go's `IsPrint` has it. Rust
/// shares the notion but not the function: behind another character, where marks count as printable,
/// it is what is not escaped.
fn is_printable(c: char) -> bool {
    let text: String = ['.', c].iter().collect();
    !text.escape_debug().skip(1).eq(c.escape_unicode())
}

/// The amount of `limits.cpu`, `requests.memory` and so on of a container in divisors, rounded up.
pub(crate) fn resource(
    facts: &Facts<'_>,
    container: &str,
    resource: &str,
    divisor: Option<&Quantity>,
) -> Result<String, String> {
    let spec = facts.pod.spec.as_ref();
    let all =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let container = all
        .into_iter()
        .find(|known| known.name == container)
        .ok_or_else(|| format!("container {container} not found"))?;
    let (part, name) =
        resource.split_once('.').ok_or_else(|| format!("unsupported container resource : {resource}"))?;
    let amount = match part {
        "limits" => bound(facts.pod, container, name).or_else(|| facts.allocatable.get(name).map(Amount::of)),
        "requests" => request(container, name),
        _ => return Err(format!("unsupported container resource : {resource}")),
    };
    let divisor = divisor.map(Amount::of).filter(|divisor| !divisor.is_zero());
    let divisor = divisor.unwrap_or(Amount::from_units(1));
    Ok(amount.unwrap_or_default().divided_by(divisor).to_string())
}

/// A container's limit of one resource.
pub(crate) fn limit(container: &Container, name: &str) -> Option<Amount> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get(name).map(Amount::of).filter(|amount| !amount.is_zero())
}

/// What a container may use of one resource: by its own limit, or else by its pod's.
pub(crate) fn bound(pod: &Pod, container: &Container, name: &str) -> Option<Amount> {
    let of_pod = || pod.spec.as_ref().and_then(|spec| totals::own_limit(spec, name));
    limit(container, name).or_else(of_pod)
}

/// A container's request of one resource.
pub(crate) fn request(container: &Container, name: &str) -> Option<Amount> {
    container.resources.as_ref()?.requests.as_ref()?.get(name).map(Amount::of)
}
