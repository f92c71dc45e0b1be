//! What is accepted but hardly meant (upstream `api/pod/warnings.go`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, Volume, VolumeProjection,
};

use super::{list, text};
use crate::kind::field::{self, Path};
use crate::kind::quantity::Amount;
use crate::kind::resources::Resources;

/// Files of a volume that are compared, each with each: more than a person writes, few enough that a
/// request cannot keep the server busy.
const COMPARED_MAX: usize = 1000;

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
    for volume in list(&spec.volumes) {
        of_volume(volume, warnings);
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

/// A file in a volume, and where it comes from if the volume has several sources.
struct Placed {
    path: String,
    source: String,
}

impl Placed {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    /// Whether one is the other, or would have to be a directory above it.
    fn overlaps(&self, other: &Self) -> bool {
        let below = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let named = !self.path.is_empty() && !other.path.is_empty();
        named && (below(&self.path, &other.path) || below(&other.path, &self.path))
    }

    fn shown(&self) -> String {
        if self.source.is_empty() {
            format!("{:?}", self.path)
        } else {
            format!("{:?} ({})", self.path, self.source)
        }
    }
}

/// Paths of which only one can be there; the node refuses some of them.
fn of_volume(volume: &Volume, warnings: &mut Vec<String>) {
    let mut overlaps = |described: &str, files: Vec<Placed>| {
        for (i, file) in files.iter().enumerate().take(COMPARED_MAX) {
            for earlier in files[..i].iter().filter(|earlier| file.overlaps(earlier)) {
                let (file, earlier, name) = (file.shown(), earlier.shown(), &volume.name);
                warnings
                    .push(format!("volume {name:?} ({described}): overlapping paths: {file} with {earlier}"));
            }
        }
    };
    if let Some(map) = &volume.config_map {
        overlaps(&format!("ConfigMap {:?}", map.name), of_keys(list(&map.items), ""));
    }
    if let Some(secret) = &volume.secret {
        overlaps(&format!("Secret {:?}", text(&secret.secret_name)), of_keys(list(&secret.items), ""));
    }
    if let Some(downward) = &volume.downward_api {
        overlaps("DownwardAPI", of_fields(list(&downward.items), ""));
    }
    if let Some(projected) = &volume.projected {
        let sources = list(&projected.sources);
        overlaps("Projected", sources.iter().flat_map(of_projection).collect());
        for _ in sources.iter().filter(|source| **source == VolumeProjection::default()) {
            warnings.push(format!("volume {:?} (Projected) has no sources provided", volume.name));
        }
    }
}

fn of_keys(items: &[KeyToPath], source: &str) -> Vec<Placed> {
    items.iter().map(|item| Placed::new(&item.path, source)).collect()
}

fn of_fields(items: &[DownwardAPIVolumeFile], source: &str) -> Vec<Placed> {
    items.iter().map(|item| Placed::new(&item.path, source)).collect()
}

fn of_projection(source: &VolumeProjection) -> Vec<Placed> {
    if let Some(map) = &source.config_map {
        of_keys(list(&map.items), &format!("ConfigMap {:?}", map.name))
    } else if let Some(secret) = &source.secret {
        of_keys(list(&secret.items), &format!("Secret {:?}", secret.name))
    } else if let Some(downward) = &source.downward_api {
        of_fields(list(&downward.items), "DownwardAPI")
    } else if let Some(token) = &source.service_account_token {
        vec![Placed::new(&token.path, "ServiceAccountToken")]
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        let name = bundle.name.as_deref().unwrap_or(text(&bundle.signer_name));
        vec![Placed::new(&bundle.path, &format!("ClusterTrustBundle {name:?}"))]
    } else {
        Vec::new()
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
