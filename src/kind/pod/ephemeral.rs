//! Ephemeral containers: added to a pod that runs, to look into it (BEHAVIOURS 8.6; upstream
//! `validateEphemeralContainers`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements};

use super::containers::{self, Context};
use super::{defaults, list, text, update};
use crate::kind::field::{Errors, Path};

const UNSET: &str = "cannot be set for an Ephemeral Container";

/// A `$to` with what `$from` has of every container, which upstream writes as one type inside the other.
macro_rules! with_common {
    ($from:expr, $to:ident { $($more:ident),* }) => {{
        let from = $from;
        $to {
            args: from.args,
            command: from.command,
            env: from.env,
            env_from: from.env_from,
            image: from.image,
            image_pull_policy: from.image_pull_policy,
            lifecycle: from.lifecycle,
            liveness_probe: from.liveness_probe,
            name: from.name,
            ports: from.ports,
            readiness_probe: from.readiness_probe,
            resize_policy: from.resize_policy,
            resources: from.resources,
            restart_policy: from.restart_policy,
            security_context: from.security_context,
            startup_probe: from.startup_probe,
            stdin: from.stdin,
            stdin_once: from.stdin_once,
            termination_message_path: from.termination_message_path,
            termination_message_policy: from.termination_message_policy,
            tty: from.tty,
            volume_devices: from.volume_devices,
            volume_mounts: from.volume_mounts,
            working_dir: from.working_dir,
            $($more),*
        }
    }};
}

/// The same container as one of the pod's own, but for its target.
#[must_use]
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    with_common!(ephemeral.clone(), Container {})
}

/// The defaults of any container. Idempotent.
pub(super) fn set_defaults(ephemeral: &mut EphemeralContainer) {
    let mut container = as_container(ephemeral);
    defaults::set_container_defaults(&mut container);
    let target_container_name = ephemeral.target_container_name.take();
    *ephemeral = with_common!(container, EphemeralContainer { target_container_name });
}

/// The ephemeral containers of the pod; names are unique among all its containers.
pub(super) fn validate(spec: &PodSpec, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let others = spec.containers.iter().chain(list(&spec.init_containers));
    let others: BTreeSet<&str> = others.map(|container| container.name.as_str()).collect();
    let mut names = others.clone();
    for (i, ephemeral) in list(&spec.ephemeral_containers).iter().enumerate() {
        let path = path.index(i);
        containers::validate_common(&as_container(ephemeral), context, &path, errors);
        let image = text(&ephemeral.image);
        if image.trim() != image {
            errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
        }
        if !names.insert(&ephemeral.name) {
            errors.duplicate(&path.child("name"), &ephemeral.name);
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        validate_unset(ephemeral, &path, errors);
    }
}

/// A pod's work does not rest on such containers, so what would serve that is refused.
fn validate_unset(ephemeral: &EphemeralContainer, path: &Path, errors: &mut Errors) {
    let nothing = ResourceRequirements::default();
    let resources = ephemeral.resources.as_ref().unwrap_or(&nothing);
    for (which, given) in [
        ("ports", !list(&ephemeral.ports).is_empty()),
        ("resources", *resources != nothing),
        ("resizePolicy", !list(&ephemeral.resize_policy).is_empty()),
        ("restartPolicy", ephemeral.restart_policy.is_some()),
        ("livenessProbe", ephemeral.liveness_probe.is_some()),
        ("readinessProbe", ephemeral.readiness_probe.is_some()),
        ("startupProbe", ephemeral.startup_probe.is_some()),
        ("lifecycle", ephemeral.lifecycle.is_some()),
    ] {
        if given {
            errors.forbidden(&path.child(which), UNSET);
        }
    }
    for (i, mount) in list(&ephemeral.volume_mounts).iter().enumerate() {
        for (which, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if !text(value).is_empty() {
                errors.forbidden(&path.child("volumeMounts").index(i).child(which), UNSET);
            }
        }
    }
}

/// Gives `new` the old content of all but the list.
pub(super) fn prepare_update(new: &mut Pod, old: &Pod) {
    let ephemeral = new.spec.take().and_then(|spec| spec.ephemeral_containers);
    new.clone_from(old);
    new.spec.get_or_insert_default().ephemeral_containers = ephemeral;
}

/// Only additions: what was added is what runs.
pub(super) fn validate_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    if old.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
        errors.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
    }
    let of =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let (new, old) = (of(new), of(old));
    let path = Path::new("spec").child("ephemeralContainers");
    for before in &old {
        let name = &before.name;
        match new.iter().find(|ephemeral| ephemeral.name == *name) {
            None => {
                errors.forbidden(
                    &path,
                    &format!("existing ephemeral containers {name:?} may not be removed\n"),
                );
            }
            Some(now) if now != before => {
                let json = |one| serde_json::to_value(one).expect("an API type has string keys only");
                let mut lines = Vec::new();
                update::compare(name, &json(now), &json(before), &mut lines);
                if !lines.is_empty() {
                    let lines = lines.join("\n");
                    let why = format!("existing ephemeral containers {name:?} may not be changed\n{lines}");
                    errors.forbidden(&path, &why);
                }
            }
            Some(_) => {}
        }
    }
}
