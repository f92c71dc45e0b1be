//! What is accepted but hardly meant (upstream `api/pod/warnings.go`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec};

use super::{list, text};
use crate::kind::field::{self, Path};
use crate::kind::quantity::Amount;
use crate::kind::resources::Resources;

pub(super) fn of_pod(pod: &Pod) -> Vec<String> {
    let mut warnings = Vec::new();
    let wrong = field::dns_label(pod.metadata.name.as_deref().unwrap_or_default());
    if !wrong.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
    if let Some(spec) = &pod.spec {
        of_spec(spec, &Path::new("spec"), &mut warnings);
    }
    warnings
}

fn of_spec(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    for (i, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        if constraint.label_selector.is_none() {
            let path = path.child("topologySpreadConstraints").index(i).child("labelSelector");
            warnings.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    }
    let mut addresses = BTreeSet::new();
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        if !addresses.insert(&alias.ip) {
            let path = path.child("hostAliases").index(i).child("ip");
            warnings.push(format!("{path}: duplicate ip {:?}", alias.ip));
        }
    }
    let mut secrets = BTreeSet::new();
    for (i, secret) in list(&spec.image_pull_secrets).iter().enumerate() {
        let path = path.child("imagePullSecrets").index(i).child("name");
        if !secrets.insert(&secret.name) {
            warnings.push(format!("{path}: duplicate name {:?}", secret.name));
        }
        if secret.name.is_empty() {
            warnings.push(format!("{path}: invalid empty name {:?}", secret.name));
        }
    }
    let containers = || {
        let inits = list(&spec.init_containers).iter().enumerate().map(|(i, one)| ("initContainers", i, one));
        let others = spec.containers.iter().enumerate().map(|(i, one)| ("containers", i, one));
        inits.chain(others).map(|(which, i, one)| (path.child(which).index(i), one))
    };
    for (path, container) in containers() {
        of_container(container, &path, warnings);
    }
    of_ports(containers(), warnings);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
}

fn of_container(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    let resources = container.resources.clone().unwrap_or_default();
    for (which, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        of_fractions(amounts.as_ref(), &path.child("resources").child(which), warnings);
    }
    let mut names = BTreeSet::new();
    for (i, variable) in list(&container.env).iter().enumerate() {
        if names.insert(&variable.name) {
            continue;
        }
        // Building on the earlier value is the one good reason to name it again.
        let reference = format!("$({})", variable.name);
        let value = text(&variable.value);
        if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of {:?}, which may be dropped when using apply",
                path.child("env").index(i),
                variable.name
            ));
        }
    }
}

fn of_fractions(amounts: Option<&Resources>, path: &Path, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(amount) = amounts.and_then(|amounts| amounts.get(name)) else { continue };
        if Amount::of(amount).millis() % 1000 != 0 {
            warnings.push(format!(
                "{}: fractional byte value {:?} is invalid, must be an integer",
                path.key(name),
                amount.0
            ));
        }
    }
}

fn of_ports<'a>(containers: impl Iterator<Item = (Path, &'a Container)>, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<(i32, &str), Vec<(Path, &ContainerPort)>> = BTreeMap::new();
    for (path, container) in containers {
        for (i, port) in list(&container.ports).iter().enumerate() {
            let path = path.child("ports").index(i);
            let host =
                |port: &ContainerPort| (port.host_port.unwrap_or_default(), text(&port.host_ip).to_owned());
            let others = seen.entry((port.container_port, text(&port.protocol))).or_default();
            for (other_path, other) in others.iter() {
                let (mine, theirs) = (host(port), host(other));
                if mine == theirs {
                    warnings.push(format!("{path}: duplicate port definition with {other_path}"));
                } else if mine.0 == 0 || theirs.0 == 0 {
                    warnings.push(format!("{path}: overlapping port definition with {other_path}"));
                }
            }
            others.push((path, port));
        }
    }
}
