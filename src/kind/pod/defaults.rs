//! What is filled in when a spec leaves it out (BEHAVIOURS 9.1; upstream `core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, Container, EmptyDirVolumeSource, HTTPGetAction, LifecycleHandler,
    ObjectFieldSelector, PodSpec, Probe, RBDVolumeSource, ResourceRequirements, ScaleIOVolumeSource, Volume,
};

use super::volumes::source_names;
use super::{text, totals};
use crate::kind::resources;

/// `rw-r--r--`
const FILE_MODE: i32 = 0o644;
/// Seconds that a projected token lives.
const TOKEN_SECONDS: i64 = 3600;

/// An empty text counts as left out.
fn default_text(slot: &mut Option<String>, value: &str) {
    if text(slot).is_empty() {
        *slot = Some(value.to_owned());
    }
}

/// A zero counts as left out.
fn default_number(slot: &mut Option<i32>, value: i32) {
    if slot.unwrap_or_default() == 0 {
        *slot = Some(value);
    }
}

/// The defaults of every pod spec, in templates too. Idempotent.
pub fn set_defaults(spec: &mut PodSpec) {
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    set_service_account(spec);
    resources::canonicalize(&mut spec.overhead);
    if let Some(ResourceRequirements { limits, requests, .. }) = &mut spec.resources {
        resources::canonicalize(limits);
        resources::canonicalize(requests);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        set_volume_defaults(volume);
    }
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        set_container_defaults(container);
    }
    spec.ephemeral_containers.iter_mut().flatten().for_each(super::ephemeral::set_defaults);
}

/// The defaults that only a pod has, and a template leaves open. Idempotent.
pub(super) fn set_pod_defaults(spec: &mut PodSpec) {
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(ResourceRequirements { limits: Some(limits), requests, .. }) = &mut container.resources {
            let requests = requests.get_or_insert_default();
            for (name, limit) in limits.iter() {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            default_number(&mut port.host_port, port.container_port);
        }
    }
    totals::set_defaults(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
pub(super) fn set_service_account(spec: &mut PodSpec) {
    if text(&spec.service_account_name).is_empty() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
}

pub(super) fn set_container_defaults(container: &mut Container) {
    let policy = pull_policy(text(&container.image));
    default_text(&mut container.image_pull_policy, policy);
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
    }
    for source in container.env.iter_mut().flatten().filter_map(|env| env.value_from.as_mut()) {
        source.field_ref.iter_mut().for_each(set_field_defaults);
        let divisor = source.resource_field_ref.as_mut().and_then(|one| one.divisor.as_mut());
        divisor.map(resources::canonicalize_one);
    }
    let requirements = container.resources.get_or_insert_default();
    resources::canonicalize(&mut requirements.limits);
    resources::canonicalize(&mut requirements.requests);
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for probe in probes.into_iter().flatten() {
        set_probe_defaults(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            let LifecycleHandler { http_get, .. } = handler;
            http_get.iter_mut().for_each(set_http_defaults);
        }
    }
}

fn set_probe_defaults(probe: &mut Probe) {
    default_number(&mut probe.timeout_seconds, 1);
    default_number(&mut probe.period_seconds, 10);
    default_number(&mut probe.success_threshold, 1);
    default_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(set_http_defaults);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn set_http_defaults(get: &mut HTTPGetAction) {
    default_text(&mut get.path, "/");
    default_text(&mut get.scheme, "HTTP");
}

fn set_field_defaults(field: &mut ObjectFieldSelector) {
    default_text(&mut field.api_version, "v1");
}

fn set_volume_defaults(volume: &mut Volume) {
    if source_names(volume).is_empty() {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|source| source.size_limit.as_mut()) {
        resources::canonicalize_one(limit);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        let fields = source.items.iter_mut().flatten().filter_map(|item| item.field_ref.as_mut());
        fields.for_each(set_field_defaults);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for part in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut part.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
            }
            let items = part.downward_api.iter_mut().filter_map(|api| api.items.as_mut()).flatten();
            items.filter_map(|item| item.field_ref.as_mut()).for_each(set_field_defaults);
        }
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(text(&source.reference));
        default_text(&mut source.pull_policy, policy);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    set_foreign_volume_defaults(volume);
}

/// Of volumes that the API takes though no node here can mount them.
fn set_foreign_volume_defaults(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        default_text(&mut source.iscsi_interface, "default");
    }
    if let Some(RBDVolumeSource { pool, user, keyring, .. }) = &mut volume.rbd {
        default_text(pool, "rbd");
        default_text(user, "admin");
        default_text(keyring, "/etc/ceph/keyring");
    }
    if let Some(AzureDiskVolumeSource { caching_mode, fs_type, kind, read_only, .. }) = &mut volume.azure_disk
    {
        caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        fs_type.get_or_insert_with(|| "ext4".to_owned());
        kind.get_or_insert_with(|| "Shared".to_owned());
        read_only.get_or_insert(false);
    }
    if let Some(ScaleIOVolumeSource { storage_mode, fs_type, .. }) = &mut volume.scale_io {
        default_text(storage_mode, "ThinProvisioned");
        default_text(fs_type, "xfs");
    }
    if let Some(claim) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut()) {
        claim.spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    }
}

/// `Always` for `:latest` or neither tag nor digest, else `IfNotPresent` (BEHAVIOURS 9.1). A name
/// that is no image reference has no tag that could be the latest.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => repository,
    };
    let is_reference = path.split('/').all(|part| {
        !part.is_empty() && part.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
    });
    match (is_reference, tag, digest) {
        (true, Some("latest"), _) | (true, None, None) => "Always",
        _ => "IfNotPresent",
    }
}
