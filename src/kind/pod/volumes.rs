//! Volumes of a pod spec (BEHAVIOURS 10.6 to 10.17; upstream `ValidateVolumes`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath,
    ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::env::{FILE_FIELDS, validate_field, validate_resource};
use super::{list, text};
use crate::kind::field::{self, Errors, Path};
use crate::kind::quantity::Amount;
use crate::kind::validation::{
    self, choice, descending_path, each, file_path, label_selector, path_without_backsteps,
};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// The fields of the sources that a volume names, in the order Kubernetes looks for them.
pub(super) fn source_names(volume: &Volume) -> Vec<&'static str> {
    let sources = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    sources.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
}

/// Checks the volumes of the pod called `pod_name`; those without errors, by name.
pub(super) fn validate<'a>(
    volumes: &'a [Volume],
    pod_name: Option<&str>,
    is_pod: bool,
    path: &Path,
    errors: &mut Errors,
) -> BTreeMap<&'a str, &'a Volume> {
    let mut good: BTreeMap<&str, &Volume> = BTreeMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let mut found = Errors::default();
        validate_source(volume, is_pod, &path, &mut found);
        let path_of_name = path.child("name");
        if volume.name.is_empty() {
            found.required(&path_of_name, "");
        } else {
            each(&mut found, &path_of_name, &volume.name, field::dns_label(&volume.name));
        }
        if good.contains_key(volume.name.as_str()) {
            found.duplicate(&path_of_name, &volume.name);
        }
        if found.is_empty() {
            good.insert(&volume.name, volume);
        }
        errors.extend(found);
        if let (Some(pod_name), Some(claim)) = (pod_name, &volume.persistent_volume_claim) {
            let made = |other: &&Volume| {
                other.ephemeral.is_some() && claim.claim_name == format!("{pod_name}-{}", other.name)
            };
            if volumes.iter().any(|other| made(&other)) {
                let why = "must not reference a PVC that gets created for an ephemeral volume";
                let path = path.child("persistentVolumeClaim").child("claimName");
                errors.invalid(&path, &claim.claim_name, why);
            }
        }
    }
    good
}

/// Just one source; only the first is looked into.
fn validate_source(volume: &Volume, is_pod: bool, path: &Path, errors: &mut Errors) {
    let names = source_names(volume);
    let Some((first, others)) = names.split_first() else {
        return errors.required(path, "must specify a volume type");
    };
    validate_native(volume, first, is_pod, &path.child(first), errors);
    validate_foreign(volume, first, &path.child(first), errors);
    for other in others {
        errors.forbidden(&path.child(other), "may not specify more than 1 volume type");
    }
}

/// Sources that nodes here can mount, and the few that only look so.
fn validate_native(volume: &Volume, first: &str, is_pod: bool, path: &Path, errors: &mut Errors) {
    match first {
        "emptyDir" => {
            let limit = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
            if limit.is_some_and(|limit| Amount::parse(&limit.0).map_or(true, Amount::is_negative)) {
                let why = "SizeLimit field must be a valid resource quantity";
                errors.forbidden(&path.child("sizeLimit"), why);
            }
        }
        "secret" => {
            let source = volume.secret.as_ref().expect("the first source is there");
            if text(&source.secret_name).is_empty() {
                errors.required(&path.child("secretName"), "");
            }
            validate_mode(source.default_mode, &path.child("defaultMode"), errors);
            validate_items(list(&source.items), &path.child("items"), errors);
        }
        "configMap" => {
            let source = volume.config_map.as_ref().expect("the first source is there");
            if source.name.is_empty() {
                errors.required(&path.child("name"), "");
            }
            validate_mode(source.default_mode, &path.child("defaultMode"), errors);
            validate_items(list(&source.items), &path.child("items"), errors);
        }
        "downwardAPI" => {
            let source = volume.downward_api.as_ref().expect("the first source is there");
            validate_mode(source.default_mode, &path.child("defaultMode"), errors);
            for file in list(&source.items) {
                validate_downward_file(file, path, errors);
            }
        }
        "projected" => {
            let source = volume.projected.as_ref().expect("the first source is there");
            validate_projected(source, path, errors);
        }
        "image" => {
            let source = volume.image.as_ref().expect("the first source is there");
            if is_pod && text(&source.reference).is_empty() {
                errors.required(&path.child("reference"), "");
            }
            let policies = ["Always", "IfNotPresent", "Never"];
            choice(errors, &path.child("pullPolicy"), text(&source.pull_policy), &policies);
        }
        "hostPath" => {
            let source = volume.host_path.as_ref().expect("the first source is there");
            validate_host_path(source, path, errors);
        }
        _ => {}
    }
}

fn validate_host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    if source.path.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    path_without_backsteps(errors, &path.child("path"), &source.path);
    validation::choice_or_empty(errors, &path.child("type"), text(&source.type_), TYPES);
}

/// Sources that no node here can mount, though the API takes them: what they must name.
fn validate_foreign(volume: &Volume, first: &str, path: &Path, errors: &mut Errors) {
    let texts: Vec<(&str, &str)> = match first {
        "persistentVolumeClaim" => {
            volume.persistent_volume_claim.iter().map(|s| ("claimName", s.claim_name.as_str())).collect()
        }
        "gitRepo" => volume.git_repo.iter().map(|s| ("repository", s.repository.as_str())).collect(),
        "gcePersistentDisk" => {
            volume.gce_persistent_disk.iter().map(|s| ("pdName", s.pd_name.as_str())).collect()
        }
        "awsElasticBlockStore" => {
            volume.aws_elastic_block_store.iter().map(|s| ("volumeID", s.volume_id.as_str())).collect()
        }
        "nfs" => {
            let nfs = volume.nfs.iter();
            nfs.flat_map(|s| [("server", s.server.as_str()), ("path", s.path.as_str())]).collect()
        }
        "iscsi" => {
            let iscsi = volume.iscsi.iter();
            iscsi
                .flat_map(|s| [("targetPortal", s.target_portal.as_str()), ("iqn", s.iqn.as_str())])
                .collect()
        }
        "glusterfs" => {
            let glusterfs = volume.glusterfs.iter();
            glusterfs.flat_map(|s| [("endpoints", s.endpoints.as_str()), ("path", s.path.as_str())]).collect()
        }
        "rbd" => volume.rbd.iter().map(|s| ("image", s.image.as_str())).collect(),
        "cinder" => volume.cinder.iter().map(|s| ("volumeID", s.volume_id.as_str())).collect(),
        "quobyte" => {
            let quobyte = volume.quobyte.iter();
            quobyte.flat_map(|s| [("registry", s.registry.as_str()), ("volume", s.volume.as_str())]).collect()
        }
        "flexVolume" => volume.flex_volume.iter().map(|s| ("driver", s.driver.as_str())).collect(),
        "azureFile" => {
            let azure = volume.azure_file.iter();
            azure
                .flat_map(|s| [("secretName", s.secret_name.as_str()), ("shareName", s.share_name.as_str())])
                .collect()
        }
        "vsphereVolume" => {
            volume.vsphere_volume.iter().map(|s| ("volumePath", s.volume_path.as_str())).collect()
        }
        "photonPersistentDisk" => {
            volume.photon_persistent_disk.iter().map(|s| ("pdID", s.pd_id.as_str())).collect()
        }
        "portworxVolume" => {
            volume.portworx_volume.iter().map(|s| ("volumeID", s.volume_id.as_str())).collect()
        }
        "azureDisk" => {
            let azure = volume.azure_disk.iter();
            azure
                .flat_map(|s| [("diskName", s.disk_name.as_str()), ("diskURI", s.disk_uri.as_str())])
                .collect()
        }
        "csi" => volume.csi.iter().map(|s| ("driver", s.driver.as_str())).collect(),
        _ => Vec::new(),
    };
    for (which, value) in texts {
        if value.is_empty() {
            errors.required(&path.child(which), "");
        }
    }
    match first {
        "nfs" => {
            let nfs = volume.nfs.as_ref().expect("the first source is there");
            if !nfs.path.starts_with('/') {
                errors.invalid(&path.child("path"), &nfs.path, "must be an absolute path");
            }
        }
        "gitRepo" => {
            let directory = volume.git_repo.as_ref().map_or("", |source| text(&source.directory));
            descending_path(errors, &path.child("directory"), directory);
        }
        "rbd" | "cephfs" => {
            let rbd = volume.rbd.iter().map(|source| source.monitors.len());
            let monitors = rbd.chain(volume.cephfs.iter().map(|source| source.monitors.len())).next();
            if monitors == Some(0) {
                errors.required(&path.child("monitors"), "");
            }
        }
        "ephemeral" if volume.ephemeral.as_ref().is_some_and(|s| s.volume_claim_template.is_none()) => {
            errors.required(&path.child("volumeClaimTemplate"), "");
        }
        _ => {}
    }
}

fn validate_mode(mode: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, MODE);
    }
}

fn validate_items(items: &[KeyToPath], path: &Path, errors: &mut Errors) {
    for (i, item) in items.iter().enumerate() {
        let path = path.index(i);
        if item.key.is_empty() {
            errors.required(&path.child("key"), "");
        }
        validate_file(&item.path, item.mode, &path, errors);
    }
}

/// Where a file goes in its volume, and its mode.
fn validate_file(file: &str, mode: Option<i32>, path: &Path, errors: &mut Errors) {
    if file.is_empty() {
        errors.required(&path.child("path"), "");
    }
    file_path(errors, &path.child("path"), file);
    validate_mode(mode, &path.child("mode"), errors);
}

/// Upstream names these by the volume, not by the item; clients know them so.
fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            validate_field(field, FILE_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", why);
            }
        }
        (None, Some(resource)) => {
            validate_resource(resource, true, &path.child("resourceFieldRef"), errors);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    validate_file(&file.path, file.mode, path, errors);
}

fn validate_projected(projected: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    validate_mode(projected.default_mode, &path.child("defaultMode"), errors);
    let mut taken = BTreeSet::new();
    for (i, source) in list(&projected.sources).iter().enumerate() {
        validate_projection(source, &path.child("sources").index(i), path, &mut taken, errors);
    }
}

/// One source of the projected volume at `volume_path`; `taken` are the files of those before it.
fn validate_projection<'a>(
    source: &'a VolumeProjection,
    path: &Path,
    volume_path: &Path,
    taken: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let mut sources = 0;
    let mut take = |file: &'a str, shown: &str, errors: &mut Errors| {
        if !file.is_empty() && !taken.insert(file) {
            errors.invalid(volume_path, shown, "conflicting duplicate paths");
        }
    };
    let secret = source.secret.as_ref().map(|secret| ("secret", &secret.name, &secret.items));
    let map = source.config_map.as_ref().map(|map| ("configMap", &map.name, &map.items));
    for (which, name, items) in [secret, map].into_iter().flatten() {
        sources += 1;
        let path = path.child(which);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        validate_items(list(items), &path.child("items"), errors);
        list(items).iter().for_each(|item| take(&item.path, name, errors));
    }
    if let Some(downward) = &source.downward_api {
        sources += 1;
        for file in list(&downward.items) {
            validate_downward_file(file, &path.child("downwardAPI"), errors);
            take(&file.path, &file.path, errors);
        }
    }
    if let Some(token) = &source.service_account_token {
        sources += 1;
        let path = path.child("serviceAccountToken").child("expirationSeconds");
        let seconds = token.expiration_seconds.unwrap_or_default();
        if seconds < TOKEN_SECONDS_MIN {
            errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > TOKEN_SECONDS_MAX {
            errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        if token.path.is_empty() {
            errors.required(&volume_path.child("path"), "");
        } else {
            file_path(errors, &volume_path.child("path"), &token.path);
        }
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        sources += 1;
        validate_trust_bundle(bundle, &path.child("clusterTrustBundle"), errors);
        take(&bundle.path, &bundle.path, errors);
    }
    if sources > 1 {
        errors.forbidden(path, "may not specify more than 1 volume type per source");
    }
}

fn validate_trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path, errors: &mut Errors) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            if let Some(selector) = &bundle.label_selector {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), selector, why);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            label_selector(errors, &path.child("labelSelector"), bundle.label_selector.as_ref());
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
    validate_file(&bundle.path, None, path, errors);
}
