//! What a service may say (upstream `ValidateService` and `ValidateServiceUpdate`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{HEADLESS, given, is_externally_accessible, is_headless, is_load_balancer, kind_of};
use super::{needs_cluster_ip, needs_health_check};
use crate::kind::field::{Errors, Path, dns_subdomain};
use crate::kind::network;
use crate::kind::validation::{choice, each, labels, port_number, port_number_or_name, qualified_name};

/// ClientIP affinity lasts a day at most.
const AFFINITY_SECONDS_MAX: i32 = 86_400;
const KUBELET_PORT: i32 = 10_250;

/// What is wrong with `name` as a DNS-1035 label: as a DNS-1123 one, but beginning with a letter.
pub(super) fn dns_1035_label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 63 {
        wrong.push("must be no more than 63 characters".to_owned());
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label =
        name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-') && name.bytes().all(inner);
    if !is_label {
        wrong.push("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".to_owned());
    }
    wrong
}

pub(super) fn service(service: &Service, errors: &mut Errors) {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless(spec) && kind_of(spec) != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    by_type(spec, ports, &path, errors);
    let mut names = BTreeSet::new();
    for (i, one) in ports.iter().enumerate() {
        port(one, ports.len() > 1, &mut names, &path.child("ports").index(i), errors);
    }
    labels(errors, &path.child("selector"), spec.selector.as_ref());
    affinity(spec, &path, errors);
    cluster_ips(spec, &path, errors);
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        let path = path.child("externalIPs").index(i);
        if network::ip(&path, text, errors).is_some() {
            network::not_special(&path, text, errors);
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    choice(errors, &path.child("type"), kind_of(spec), &types);
    distinct_ports(spec, ports, &path.child("ports"), errors);
    load_balancer(spec, &path, errors);
    traffic(spec, &path, errors);
}

/// What may not change: the address and its family, unless the type changes to or from
/// ExternalName.
pub(super) fn update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    let path = Path::new("spec");
    if needs_cluster_ip(new) && needs_cluster_ip(old) && !(is_headless(new) && is_headless(old)) {
        let at = path.child("clusterIPs").index(0);
        let first = |spec: &ServiceSpec| spec.cluster_ips.iter().flatten().next().cloned();
        let ips = new.cluster_ips.as_deref().unwrap_or_default();
        match (first(old), first(new)) {
            (Some(_), None) => errors.invalid(&at, ips, "primary clusterIP can not be unset"),
            (Some(before), Some(after)) if before != after => {
                errors.invalid(&at, ips, "may not change once set");
            }
            _ => {}
        }
    }
    if is_load_balancer(new) && is_load_balancer(old) && new.load_balancer_class != old.load_balancer_class {
        errors.invalid(&path.child("loadBalancerClass"), &new.load_balancer_class, "may not change once set");
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && new.health_check_node_port != old.health_check_node_port
    {
        errors.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

fn by_type(spec: &ServiceSpec, ports: &[ServicePort], path: &Path, errors: &mut Errors) {
    let kind = kind_of(spec);
    match kind {
        "LoadBalancer" | "NodePort" => {
            for (i, _) in ports.iter().enumerate().filter(|(_, port)| port.port == KUBELET_PORT) {
                if is_load_balancer(spec) {
                    let why = "may not expose port 10250 externally since it is used by kubelet";
                    errors.invalid(&path.child("ports").index(i).child("port"), KUBELET_PORT, why);
                }
            }
            if is_headless(spec) {
                let why = format!("may not be set to 'None' for {kind} services");
                errors.invalid(&path.child("clusterIPs").index(0), HEADLESS, &why);
            }
        }
        "ExternalName" => {
            let why = "may not be set for ExternalName services";
            let has_ip = given(&spec.cluster_ip).is_some()
                || spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty());
            if has_ip {
                errors.forbidden(&path.child("clusterIPs"), why);
            }
            if spec.ip_families.as_ref().is_some_and(|families| !families.is_empty()) {
                errors.forbidden(&path.child("ipFamilies"), why);
            }
            if spec.ip_family_policy.is_some() {
                errors.forbidden(&path.child("ipFamilyPolicy"), why);
            }
            let name = spec.external_name.as_deref().unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.required(&path.child("externalName"), "");
            } else {
                each(errors, &path.child("externalName"), name, dns_subdomain(name));
            }
        }
        _ => {}
    }
}

fn port(
    port: &ServicePort,
    needs_name: bool,
    names: &mut BTreeSet<String>,
    path: &Path,
    errors: &mut Errors,
) {
    let name = port.name.as_deref().unwrap_or_default();
    network::port_label(&path.child("name"), name, needs_name, names, errors);
    each(errors, &path.child("port"), port.port, port_number(port.port));
    network::protocol(&path.child("protocol"), port.protocol.as_deref(), errors);
    if let Some(target) = &port.target_port {
        port_number_or_name(errors, &path.child("targetPort"), target);
    }
    network::app_protocol(&path.child("appProtocol"), port.app_protocol.as_deref(), errors);
}

fn affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let affinity = spec.session_affinity.as_deref();
    choice(errors, &path.child("sessionAffinity"), affinity.unwrap_or_default(), &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    match (affinity, &spec.session_affinity_config) {
        (Some("ClientIP"), config) => {
            let seconds = config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            let path = path.child("clientIP").child("timeoutSeconds");
            match seconds {
                None => errors.required(&path, "when session affinity type is ClientIP"),
                Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errors.invalid(&path, seconds, &why);
                }
                Some(_) => {}
            }
        }
        (Some("None"), Some(_)) => errors.forbidden(&path, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    if kind_of(spec) == "ExternalName" {
        return;
    }
    let at = path.child("clusterIPs");
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    match given(&spec.cluster_ip) {
        Some(_) if ips.is_empty() => errors.required(&at, ""),
        Some(ip) if ips[0] != ip => errors.invalid(&at, ips, "first value must match `clusterIP`"),
        Some(_) => {}
        None if !ips.is_empty() => {
            errors.invalid(&at, ips, "must be empty when `clusterIP` is not specified");
        }
        None => {}
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (i, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(i);
        match family.as_str() {
            "IPv4" => {}
            "IPv6" => errors.invalid(&path, family, "not configured on this cluster"),
            _ => errors.unsupported(&path, family, &["IPv4", "IPv6"]),
        }
        if families[..i].contains(family) {
            errors.duplicate(&path, family);
        }
    }
    let policy = path.child("ipFamilyPolicy");
    match spec.ip_family_policy.as_deref() {
        Some("RequireDualStack") => {
            let why = "this cluster is not configured for dual-stack services";
            errors.invalid(&policy, "RequireDualStack", why);
        }
        None | Some("SingleStack" | "PreferDualStack") => {}
        Some(other) => {
            errors.unsupported(&policy, other, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
        }
    }
    each_cluster_ip(ips, &at, errors);
}

fn each_cluster_ip(ips: &[String], at: &Path, errors: &mut Errors) {
    let mut are_ips = true;
    for (i, text) in ips.iter().enumerate() {
        if i == 0 && text == HEADLESS {
            if ips.len() > 1 {
                errors.invalid(at, ips, "'None' must be the first and only value");
                are_ips = false;
            }
            continue;
        }
        let ip = network::ip(&at.index(i), text, errors);
        are_ips &= ip.is_some();
        if i == 0 && matches!(ip, Some(IpAddr::V6(_))) {
            let why = "expected an IPv4 value as indicated by `ipFamilies[0]`";
            errors.invalid(&at.index(0), text, why);
        }
    }
    if ips.len() > 2 {
        errors.invalid(at, ips, "may only hold up to 2 values");
    }
    if are_ips && ips.len() > 1 && ips.iter().filter(|ip| !ip.contains(':')).count() != 1 {
        errors.invalid(at, ips, "may specify no more than one IP for each IP family");
    }
}

fn distinct_ports(spec: &ServiceSpec, ports: &[ServicePort], path: &Path, errors: &mut Errors) {
    if kind_of(spec) == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| port.node_port.is_some()) {
            let path = path.index(i).child("nodePort");
            errors.forbidden(&path, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut node_ports = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if let Some(number) = port.node_port
            && !node_ports.insert((&port.protocol, number))
        {
            errors.duplicate(&path.index(i).child("nodePort"), number);
        }
    }
    let mut numbers = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !numbers.insert((&port.protocol, port.port)) {
            let key = serde_json::json!({"protocol": port.protocol, "port": port.port});
            errors.duplicate(&path.index(i), key);
        }
    }
}

fn load_balancer(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    // The path's capital is upstream's.
    let at = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_load_balancer(spec) {
        errors.forbidden(&at, only);
    }
    for (i, range) in ranges.iter().enumerate() {
        network::cidr(&at.index(i), range.trim(), errors);
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !is_load_balancer(spec) {
        errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), only);
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = path.child("loadBalancerClass");
        if !is_load_balancer(spec) {
            errors.forbidden(&at, only);
        }
        each(errors, &at, class, qualified_name(class));
    }
}

fn traffic(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let policies = ["Cluster", "Local"];
    let at = path.child("externalTrafficPolicy");
    match given(&spec.external_traffic_policy) {
        policy if is_externally_accessible(spec) => {
            choice(errors, &at, policy.unwrap_or_default(), &policies)
        }
        Some(policy) => errors.invalid(&at, policy, "may only be set for externally-accessible services"),
        None => {}
    }
    if let Some(port) = spec.health_check_node_port {
        let at = path.child("healthCheckNodePort");
        if needs_health_check(spec) {
            each(errors, &at, port, port_number(port));
        } else {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&at, port, why);
        }
    }
    if let Some(policy) = given(&spec.internal_traffic_policy) {
        choice(errors, &path.child("internalTrafficPolicy"), policy, &policies);
    } else if needs_cluster_ip(spec) {
        errors.required(&path.child("internalTrafficPolicy"), "");
    }
    if let Some(distribution) = given(&spec.traffic_distribution) {
        let at = path.child("trafficDistribution");
        choice(errors, &at, distribution, &["PreferClose"]);
    }
}
