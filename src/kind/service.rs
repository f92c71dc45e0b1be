//! Service: a stable address for pods (BEHAVIOURS 16).
//!
//! Addresses and node ports are handed out at admission; here is what may be asked for, and what
//! stays when an object changes.

mod validate;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
    SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::Errors;
use super::table::{self, Cell};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[Subresource::Status, Subresource::Proxy],
    create_on_update: true,
    columns: &[
        table::NAME,
        table::described(
            "Type",
            "string",
            0,
            "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
        ),
        table::described(
            "Cluster-IP",
            "string",
            0,
            "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
        ),
        table::described(
            "External-IP",
            "string",
            0,
            "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
        ),
        table::described(
            "Port(s)",
            "string",
            0,
            "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
        ),
        table::AGE,
        table::described(
            "Selector",
            "string",
            1,
            "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
        ),
    ],
    ..Kind::namespaced(&Rules, "service")
};

/// The `clusterIP` of a service that has no address of its own.
pub const HEADLESS: &str = "None";

/// Seconds that ClientIP affinity sticks for, unless told otherwise.
const AFFINITY_SECONDS: i32 = 10_800;

struct Rules;

impl Strategy for Rules {
    type Object = Service;

    fn set_defaults(&self, service: &mut Service) {
        let spec = service.spec.get_or_insert_default();
        if spec.type_.as_deref().unwrap_or_default().is_empty() {
            spec.type_ = Some("ClusterIP".to_owned());
        }
        set_affinity(spec);
        for port in spec.ports.iter_mut().flatten() {
            set_port(port);
        }
        if is_externally_accessible(spec)
            && spec.external_traffic_policy.as_deref().unwrap_or_default().is_empty()
        {
            spec.external_traffic_policy = Some("Cluster".to_owned());
        }
        // Kubernetes does not write `false`, 0 and empty values here.
        spec.publish_not_ready_addresses = spec.publish_not_ready_addresses.filter(|&is| is);
        spec.health_check_node_port = spec.health_check_node_port.filter(|&port| port != 0);
        spec.cluster_ip = spec.cluster_ip.take().filter(|ip| !ip.is_empty());
        spec.cluster_ips = spec.cluster_ips.take().filter(|ips| !ips.is_empty());
        if needs_cluster_ip(spec) {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
            // The cluster speaks IPv4 only.
            if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
                spec.ip_families = Some(vec!["IPv4".to_owned()]);
            }
            spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
        }
        if is_load_balancer(spec) {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
    }

    fn prepare_create(&self, service: &mut Service) {
        service.status =
            Some(ServiceStatus { conditions: None, load_balancer: Some(LoadBalancerStatus::default()) });
        let spec = service.spec.get_or_insert_default();
        if let Some(ip) = given(&spec.cluster_ip).filter(|_| spec.cluster_ips.is_none()) {
            spec.cluster_ips = Some(vec![ip.to_owned()]);
        }
    }

    fn prepare_update(&self, new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        carry_over(new, old);
        let empty = ServiceSpec::default();
        drop_unused(new.spec.get_or_insert_default(), old.spec.as_ref().unwrap_or(&empty));
    }

    fn prepare_status_update(&self, new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        validate::dns_1035_label(name)
    }

    fn validate(&self, service: &Service, errors: &mut Errors) {
        validate::service(service, errors);
    }

    fn validate_update(&self, new: &Service, old: &Service, errors: &mut Errors) {
        let empty = ServiceSpec::default();
        validate::update(new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty), errors);
    }

    fn fields(&self, service: &Service) -> Vec<(&'static str, String)> {
        let spec = service.spec.as_ref();
        vec![
            ("spec.clusterIP", spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default()),
            ("spec.type", spec.and_then(|spec| spec.type_.clone()).unwrap_or_default()),
        ]
    }

    fn cells(&self, service: &Service, now: Timestamp) -> Vec<Cell> {
        let empty = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let ports: Vec<String> = spec.ports.iter().flatten().map(port_text).collect();
        let selector: Vec<String> =
            spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            table::name(service),
            Cell::Text(spec.type_.clone().unwrap_or_default()),
            Cell::or_none(spec.cluster_ips.iter().flatten().next().map_or("", String::as_str)),
            Cell::Text(external(spec, service.status.as_ref())),
            Cell::or_none(&ports.join(",")),
            table::age(service, now),
            Cell::or_none(&selector.join(",")),
        ]
    }
}

/// Whether the service has a `clusterIP`, if only `None`: all types but ExternalName.
#[must_use]
pub fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(kind_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether each port of the service also listens on every node.
#[must_use]
pub fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match kind_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether the service has no address of its own: `clusterIP: None`.
#[must_use]
pub fn is_headless(spec: &ServiceSpec) -> bool {
    match spec.cluster_ips.as_deref() {
        None | Some([]) => spec.cluster_ip.as_deref() == Some(HEADLESS),
        Some(ips) => ips == [HEADLESS],
    }
}

/// Takes over from `old` the addresses and ports that were handed out and that the client left out,
/// so that a PUT of a manifest does not ask for new ones. Idempotent; whoever hands them out on an
/// update asks this first.
pub fn carry_over(new: &mut Service, old: &Service) {
    let empty = ServiceSpec::default();
    let (new, old) = (new.spec.get_or_insert_default(), old.spec.as_ref().unwrap_or(&empty));
    pair_cluster_ips(new, old);
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if given(&new.cluster_ip).is_none() && new.cluster_ips.is_none() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.is_none() && new.cluster_ip == old.cluster_ip {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let ports = |spec: &ServiceSpec| -> BTreeSet<i32> {
            spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|&port| port != 0).collect()
        };
        let mut used: BTreeSet<i32> = &ports(old) & &ports(new);
        let by_name: BTreeMap<&str, i32> = old
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Some((port.name.as_deref().unwrap_or_default(), port.node_port?)))
            .collect();
        for port in new.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or_default() == 0) {
            let before = by_name.get(port.name.as_deref().unwrap_or_default());
            if let Some(&before) = before.filter(|&&before| before != 0)
                && used.insert(before)
            {
                port.node_port = Some(before);
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.is_none() {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// `clusterIP` is the first of `clusterIPs`; a client that knows only the former changes both.
fn pair_cluster_ips(new: &mut ServiceSpec, old: &ServiceSpec) {
    let changed = given(&new.cluster_ip) != given(&old.cluster_ip);
    if changed && new.cluster_ips == old.cluster_ips {
        new.cluster_ips = given(&new.cluster_ip).map(|ip| vec![ip.to_owned()]);
    } else if let Some(ip) = given(&new.cluster_ip).filter(|_| new.cluster_ips.is_none() && changed) {
        new.cluster_ips = Some(vec![ip.to_owned()]);
    }
}

/// Clears what a change of type makes meaningless, unless the client changed it at the same time,
/// which is then refused.
fn drop_unused(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            (new.cluster_ip, new.cluster_ips) = (None, None);
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
        if new.internal_traffic_policy == old.internal_traffic_policy {
            new.internal_traffic_policy = None;
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) {
        let ports = |spec: &ServiceSpec| -> BTreeSet<(String, i32)> {
            let port = |port: &ServicePort| {
                (port.protocol.clone().unwrap_or_default(), port.node_port.unwrap_or_default())
            };
            spec.ports.iter().flatten().map(port).collect()
        };
        if ports(new) == ports(old) {
            for port in new.ports.iter_mut().flatten() {
                port.node_port = None;
            }
        }
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    if is_load_balancer(old) && !is_load_balancer(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if is_externally_accessible(old)
        && !is_externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

fn set_affinity(spec: &mut ServiceSpec) {
    if spec.session_affinity.as_deref().unwrap_or_default().is_empty() {
        spec.session_affinity = Some("None".to_owned());
    }
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let seconds = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            if seconds.and_then(|client| client.timeout_seconds).is_none() {
                let client_ip = Some(ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) });
                spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
            }
        }
        _ => {}
    }
}

fn set_port(port: &mut ServicePort) {
    if port.protocol.as_deref().unwrap_or_default().is_empty() {
        port.protocol = Some("TCP".to_owned());
    }
    port.node_port = port.node_port.filter(|&number| number != 0);
    let is_set = match &port.target_port {
        Some(IntOrString::Int(number)) => *number != 0,
        Some(IntOrString::String(name)) => !name.is_empty(),
        None => false,
    };
    if !is_set {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

fn kind_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or_default()
}

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    kind_of(spec) == "LoadBalancer"
}

fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match kind_of(spec) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    is_load_balancer(spec) && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// `80:30080/TCP`
fn port_text(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or_default();
    match port.node_port {
        Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
        _ => format!("{}/{protocol}", port.port),
    }
}

/// How the service is reached from outside, for people.
fn external(spec: &ServiceSpec, status: Option<&ServiceStatus>) -> String {
    let own = spec.external_ips.as_deref().unwrap_or_default();
    match kind_of(spec) {
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let ingress = status.and_then(|status| status.load_balancer.as_ref());
            let ingress: BTreeSet<&str> = ingress
                .and_then(|balancer| balancer.ingress.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|point| given(&point.ip).or_else(|| given(&point.hostname)))
                .collect();
            let all: Vec<&str> = ingress.into_iter().chain(own.iter().map(String::as_str)).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        _ => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests;
