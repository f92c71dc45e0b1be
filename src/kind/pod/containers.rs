//! Containers and init containers of a pod spec (upstream `validateContainers`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Volume, VolumeMount};

use super::{env, handlers, is_sidecar, list, security, text};
use crate::kind::field::{self, Errors, Path};
use crate::kind::resources;
use crate::kind::validation::{self, choice, descending_path, each, port_name, port_number};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// What containers may refer to in their pod.
pub(super) struct Context<'a> {
    /// The volumes without errors, by name.
    pub(super) volumes: BTreeMap<&'a str, &'a Volume>,
    /// Names of resource claims.
    pub(super) claims: BTreeSet<&'a str>,
    pub(super) grace_period_seconds: Option<i64>,
    pub(super) restart_policy: &'a str,
    pub(super) host_users: bool,
}

/// The containers of the pod.
pub(super) fn validate(containers: &[Container], context: &Context<'_>, path: &Path, errors: &mut Errors) {
    if containers.is_empty() {
        return errors.required(path, "");
    }
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        validate_common(container, context, &path, errors);
        if !names.insert(&container.name) {
            errors.duplicate(&path.child("name"), &container.name);
        }
        handlers::validate(container, context.grace_period_seconds, &path, errors);
        if container.restart_policy.is_some() {
            errors.forbidden(&path.child("restartPolicy"), "may not be set for non-init containers");
        }
    }
    validate_host_ports(containers.iter().enumerate(), path, errors);
}

/// The init containers; names are unique among them and `containers`.
pub(super) fn validate_init(
    inits: &[Container],
    containers: &[Container],
    context: &Context<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut names: BTreeSet<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    for (i, container) in inits.iter().enumerate() {
        let list_path = path;
        let path = path.index(i);
        validate_common(container, context, &path, errors);
        if container.restart_policy.is_some() && !is_sidecar(container) {
            let policy = text(&container.restart_policy);
            errors.unsupported(&path.child("restartPolicy"), policy, &["Always"]);
        }
        if names.contains(container.name.as_str()) {
            errors.duplicate(&path.child("name"), &container.name);
        } else if !container.name.is_empty() {
            names.insert(&container.name);
        }
        // One by one: they do not run at the same time.
        validate_host_ports(std::iter::once((i, container)), list_path, errors);
        if is_sidecar(container) {
            handlers::validate(container, context.grace_period_seconds, &path, errors);
            continue;
        }
        for (which, given) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if given {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&path.child(which), why);
            }
        }
    }
}

pub(super) fn validate_common(
    container: &Container,
    context: &Context<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    if container.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        each(errors, &path.child("name"), &container.name, field::dns_label(&container.name));
    }
    if text(&container.image).is_empty() {
        errors.required(&path.child("image"), "");
    }
    let message_policies = ["File", "FallbackToLogsOnError"];
    let message_policy = text(&container.termination_message_policy);
    choice(errors, &path.child("terminationMessagePolicy"), message_policy, &message_policies);
    validate_ports(list(&container.ports), &path.child("ports"), errors);
    env::validate(list(&container.env), &path.child("env"), errors);
    env::validate_from(list(&container.env_from), &path.child("envFrom"), errors);
    validate_mounts(container, context, &path.child("volumeMounts"), errors);
    validate_devices(container, context, &path.child("volumeDevices"), errors);
    let pull_policy = text(&container.image_pull_policy);
    choice(errors, &path.child("imagePullPolicy"), pull_policy, PULL_POLICIES);
    if let Some(requirements) = &container.resources {
        let path = path.child("resources");
        resources::validate_requirements(errors, &path, requirements, &context.claims);
    }
    validate_resize_policy(container, context.restart_policy, &path.child("resizePolicy"), errors);
    if let Some(security_context) = &container.security_context {
        let path = path.child("securityContext");
        security::validate_container(security_context, context.host_users, &path, errors);
    }
}

fn validate_ports(ports: &[ContainerPort], path: &Path, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let wrong = port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            each(errors, &path.child("name"), name, wrong);
        }
        if port.container_port == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            let wrong = port_number(port.container_port);
            each(errors, &path.child("containerPort"), port.container_port, wrong);
        }
        if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
            each(errors, &path.child("hostPort"), host_port, port_number(host_port));
        }
        choice(errors, &path.child("protocol"), text(&port.protocol), PROTOCOLS);
    }
}

/// No host port twice among `containers`, given with their places in the list at `path`.
fn validate_host_ports<'a>(
    containers: impl Iterator<Item = (usize, &'a Container)>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut taken = BTreeSet::new();
    for (c, container) in containers {
        for (p, port) in list(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|port| *port != 0) else { continue };
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if taken.contains(&key) {
                let path = path.index(c).child("ports").index(p).child("hostPort");
                errors.duplicate(&path, &key);
            }
            taken.insert(key);
        }
    }
}

fn validate_mounts(container: &Container, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let mut mount_points = BTreeSet::new();
    let devices = list(&container.volume_devices);
    for (i, mount) in list(&container.volume_mounts).iter().enumerate() {
        let list_path = path;
        let path = path.index(i);
        let (name, mount_path) = (mount.name.as_str(), mount.mount_path.as_str());
        let (sub_path, sub_path_expr) = (text(&mount.sub_path), text(&mount.sub_path_expr));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        let volume = context.volumes.get(name);
        if volume.is_none() {
            errors.not_found(&path.child("name"), name);
        }
        if mount_path.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !mount_points.insert(mount_path) {
            errors.invalid(&path.child("mountPath"), mount_path, "must be unique");
        }
        if devices.iter().any(|device| device.name == name) {
            errors.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.device_path == mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(&path.child("mountPath"), mount_path, why);
        }
        if volume.is_some_and(|volume| volume.image.is_some()) {
            for (which, value) in [("subPath", sub_path), ("subPathExpr", sub_path_expr)] {
                if !value.is_empty() {
                    errors.invalid(&path.child(which), value, "not allowed in image volume sources");
                }
            }
        }
        // Upstream names these by the list, not by the item; clients know them so.
        descending_path(errors, &list_path.child("subPath"), sub_path);
        if !sub_path_expr.is_empty() {
            if !sub_path.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(&path.child("subPathExpr"), sub_path_expr, why);
            }
            descending_path(errors, &list_path.child("subPathExpr"), sub_path_expr);
        }
        validate_propagation(mount, container, list_path, errors);
    }
}

fn validate_propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut Errors) {
    if let Some(mode) = &mount.mount_propagation {
        let path = path.child("mountPropagation");
        let modes = ["Bidirectional", "HostToContainer", "None"];
        if !modes.contains(&mode.as_str()) {
            errors.unsupported(&path, mode, &modes);
        }
        let privileged = container.security_context.as_ref().and_then(|context| context.privileged);
        if mode == "Bidirectional" && privileged != Some(true) {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&path, why);
        }
    }
    let path = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&path, why);
            }
        }
        Some(other) => errors.unsupported(&path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn validate_devices(container: &Container, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mounts = list(&container.volume_mounts);
    for (i, device) in list(&container.volume_devices).iter().enumerate() {
        let (name, device_path) = (device.name.as_str(), device.device_path.as_str());
        let (path_of_name, path_of_device) = (path.index(i).child("name"), path.index(i).child("devicePath"));
        if name.is_empty() {
            errors.required(&path_of_name, "");
        } else if !names.insert(name) {
            errors.invalid(&path_of_name, name, "must be unique");
        }
        match context.volumes.get(name) {
            None => errors.not_found(&path_of_name, name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path_of_name, name, why);
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            errors.required(&path_of_device, "");
        }
        if paths.contains(device_path) {
            errors.invalid(&path_of_device, device_path, "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            errors.invalid(&path_of_device, device_path, "can not contain backsteps ('..')");
        } else {
            paths.insert(device_path);
        }
        if mounts.iter().any(|mount| mount.name == name) {
            errors.invalid(&path_of_name, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.mount_path == device_path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(&path_of_device, device_path, why);
        }
    }
}

fn validate_resize_policy(container: &Container, pod_policy: &str, path: &Path, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (i, policy) in list(&container.resize_policy).iter().enumerate() {
        if !names.insert(&policy.resource_name) {
            errors.duplicate(&path.index(i), &policy.resource_name);
        }
        validation::choice(errors, path, &policy.resource_name, &["cpu", "memory"]);
        let restart = policy.restart_policy.as_str();
        validation::choice(errors, path, restart, &["NotRequired", "RestartContainer"]);
        if pod_policy == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.invalid(path, restart, why);
        }
    }
}
