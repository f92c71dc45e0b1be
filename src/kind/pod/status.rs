//! What a status update may not do (upstream `ValidatePodStatusUpdate`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};

use super::{egress_hosts, is_sidecar, list, text};
use crate::kind::field::{self, Errors, Path};
use crate::kind::validation::{IMMUTABLE, each, ip_address, qualified_name};

pub(super) fn validate_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    let (no_status, no_spec) = (PodStatus::default(), PodSpec::default());
    let old_status = old.status.as_ref().unwrap_or(&no_status);
    let status = new.status.as_ref().unwrap_or(&no_status);
    let spec = old.spec.as_ref().unwrap_or(&no_spec);
    let path = Path::new("status");
    egress_hosts::validate_update(new, old, errors);

    for (i, condition) in list(&status.conditions).iter().enumerate() {
        // Upstream says `metadata.conditions` and `Type`; clients look for neither.
        let path = path.child("conditions").index(i).child("type");
        each(errors, &path, &condition.type_, qualified_name(&condition.type_));
    }
    let nominated = text(&status.nominated_node_name);
    if !nominated.is_empty() && nominated != text(&old_status.nominated_node_name) {
        each(errors, &path.child("nominatedNodeName"), nominated, field::dns_subdomain(nominated));
    }
    if status.qos_class != old_status.qos_class {
        errors.invalid(&path.child("qosClass"), text(&status.qos_class), IMMUTABLE);
    }

    let policy = text(&spec.restart_policy);
    let inits = list(&spec.init_containers);
    let is_sidecar = |name: &str| inits.iter().any(|init| init.name == name && is_sidecar(init));
    for (which, new, old, may_restart) in [
        (
            "containerStatuses",
            &status.container_statuses,
            &old_status.container_statuses,
            &(|_: &str| false) as &dyn Fn(&str) -> bool,
        ),
        (
            "initContainerStatuses",
            &status.init_container_statuses,
            &old_status.init_container_statuses,
            &is_sidecar,
        ),
    ] {
        if policy != "Always" {
            let on_failure = policy == "OnFailure";
            let path = path.child(which);
            validate_transitions(list(new), list(old), on_failure, may_restart, &path, errors);
        }
    }
    validate_addresses(status, &path, errors);
}

/// Containers that ended for good stay ended.
fn validate_transitions(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    on_failure: bool,
    may_restart: &dyn Fn(&str) -> bool,
    path: &Path,
    errors: &mut Errors,
) {
    let terminated =
        |status: &ContainerStatus| status.state.as_ref().and_then(|state| state.terminated.clone());
    for (i, old) in old.iter().enumerate() {
        let Some(end) = terminated(old) else { continue };
        if (end.exit_code != 0 && on_failure) || may_restart(&old.name) {
            continue;
        }
        if new.iter().any(|new| new.name == old.name && terminated(new).is_none()) {
            let why = "may not be transitioned to non-terminated state";
            errors.forbidden(&path.index(i).child("state"), why);
        }
    }
}

fn validate_addresses(status: &PodStatus, path: &Path, errors: &mut Errors) {
    let pods: Vec<&str> = list(&status.pod_ips).iter().map(|one| one.ip.as_str()).collect();
    let hosts: Vec<&str> = list(&status.host_ips).iter().map(|one| one.ip.as_str()).collect();
    if let Some(first) = hosts.first().filter(|first| **first != text(&status.host_ip)) {
        let path = path.child("hostIPs").index(0).child("ip");
        errors.invalid(&path, first, "must be equal to `hostIP`");
    }
    for (which, addresses) in [("podIPs", pods), ("hostIPs", hosts)] {
        let path = path.child(which);
        let mut seen = BTreeSet::new();
        for (i, address) in addresses.iter().enumerate() {
            ip_address(errors, &path.index(i), address);
            if !seen.insert(address) {
                errors.duplicate(&path.index(i), address);
            }
        }
        let families = addresses.iter().filter_map(|address| address.parse().ok());
        let families: BTreeSet<bool> = families.map(|address: IpAddr| address.is_ipv4()).collect();
        if addresses.len() > 1 && families.len() != addresses.len() {
            errors.invalid(&path, &addresses, "may specify no more than one IP for each IP family");
        }
    }
}
