//! A pod's volumes: ConfigMaps, Secrets, the pod's own fields, and empty directories, all in memory
//! (BEHAVIOURS 10.6 to 10.9, 10.14, 10.17). No byte of a Secret touches the disk here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};

use super::env::expand;
use super::fields::{self, Facts};
use super::sources::{Found, Source};
use crate::kind::quantity::Amount;
use crate::runtime::fs::{self, File};

/// Permission bits when the API gives none.
const DEFAULT_MODE: i32 = 0o644;
/// The most an emptyDir without a sizeLimit may hold, since it is memory. Generous for scratch
/// files, small beside a node; nobody has measured what guests need.
const EMPTY_DIR_BYTES_MAX: u64 = 256 << 20;

mod paths;

type Files = BTreeMap<String, File>;

/// A volume that cannot be made now, in the words of its event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {cause}")]
pub(crate) struct MountError {
    pub(crate) volume: String,
    pub(crate) cause: String,
}

/// What a volume's source comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Files(Files),
    Empty { bytes_max: u64 },
}

/// The volumes of one pod, shared by its containers.
#[derive(Default)]
pub(crate) struct Volumes(BTreeMap<String, Live>);

struct Live {
    volume: Arc<fs::Volume>,
    /// The content of a projected volume, for mounts of a part of it, which do not follow changes.
    files: Option<Mutex<Files>>,
}

/// The pod's volumes that a container mounts; others are not made.
fn used(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let mounted: BTreeSet<&str> = containers
        .flat_map(|container| container.volume_mounts.iter().flatten())
        .map(|mount| mount.name.as_str())
        .collect();
    let volumes = spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(move |volume| mounted.contains(volume.name.as_str()))
}

/// The ConfigMaps and Secrets that the pod's volumes show.
pub(crate) fn sources(pod: &Pod) -> Vec<Source> {
    let mut sources = Vec::new();
    for volume in used(pod) {
        if let Some(source) = &volume.config_map {
            sources.push(Source::config_map(&source.name));
        }
        if let Some(source) = &volume.secret {
            sources.push(Source::secret(source.secret_name.as_deref().unwrap_or_default()));
        }
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for source in projected {
            sources.extend(source.config_map.iter().map(|source| Source::config_map(&source.name)));
            sources.extend(source.secret.iter().map(|source| Source::secret(&source.name)));
        }
    }
    sources
}

/// Whether a volume shows the pod's own labels or annotations.
pub(crate) fn shows_fields(pod: &Pod) -> bool {
    used(pod).any(|volume| {
        let mut projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        volume.downward_api.is_some() || projected.any(|source| source.downward_api.is_some())
    })
}

/// What a volume holds, from its sources as they are now. The error is a cause.
pub(crate) fn content(volume: &Volume, facts: &Facts<'_>, found: &Found) -> Result<Content, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let (mode, items) = (source.default_mode, source.items.as_deref());
        config_map(&mut files, found, &source.name, items, mode, source.optional)?;
    } else if let Some(source) = &volume.secret {
        let (mode, items) = (source.default_mode, source.items.as_deref());
        secret(
            &mut files,
            found,
            source.secret_name.as_deref().unwrap_or_default(),
            items,
            mode,
            source.optional,
        )?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut files, facts, source.items.as_deref(), source.default_mode)?;
    } else if let Some(projected) = &volume.projected {
        let sources = projected.sources.iter().flatten();
        all(sources.map(|source| projection(&mut files, source, facts, found, projected.default_mode)))?;
    } else if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().map(|limit| Amount::of(limit).units());
        let bytes_max = limit.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok());
        return Ok(Content::Empty { bytes_max: bytes_max.unwrap_or(EMPTY_DIR_BYTES_MAX) });
    } else {
        return Err("this node has configMap, secret, downwardAPI, projected and emptyDir volumes only; \
             choose one of them"
            .into());
    }
    Ok(Content::Files(paths::cleaned(files)?))
}

/// One source of a projected volume; of two files with one path the later stays.
fn projection(
    files: &mut Files,
    source: &VolumeProjection,
    facts: &Facts<'_>,
    found: &Found,
    mode: Option<i32>,
) -> Result<(), String> {
    if let Some(source) = &source.config_map {
        config_map(files, found, &source.name, source.items.as_deref(), mode, source.optional)?;
    }
    if let Some(source) = &source.secret {
        secret(files, found, &source.name, source.items.as_deref(), mode, source.optional)?;
    }
    if let Some(source) = &source.downward_api {
        downward(files, facts, source.items.as_deref(), mode)?;
    }
    if source.cluster_trust_bundle.is_some() {
        return Err("clusterTrustBundle sources are not supported by this node; \
             project the certificates from a ConfigMap"
            .into());
    }
    // Tokens of service accounts come with authentication by token; until then the file is missing.
    Ok(())
}

/// Success, or everything that is wrong, in the form of Kubernetes' aggregates: `[a, b]`.
fn all(results: impl Iterator<Item = Result<(), String>>) -> Result<(), String> {
    let mut wrong: Vec<String> = Vec::new();
    for why in results.filter_map(Result::err) {
        if !wrong.contains(&why) {
            wrong.push(why);
        }
    }
    match &mut wrong[..] {
        [] => Ok(()),
        [why] => Err(std::mem::take(why)),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// Kubernetes writes modes in 9 bits.
fn file(content: Bytes, mode: Option<i32>) -> File {
    let mode = mode.unwrap_or(DEFAULT_MODE) & 0o777;
    File { content, mode: u32::try_from(mode).expect("nine bits are not negative") }
}

fn config_map(
    files: &mut Files,
    found: &Found,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), String> {
    let optional = optional.unwrap_or(false);
    let Some(map) = found.config_map(name) else {
        return if optional { Ok(()) } else { Err(format!("configmap {name:?} not found")) };
    };
    let missing = "configmap references non-existent config key";
    pick(files, &config_map_data(map), items, mode, optional, missing)
}

fn secret(
    files: &mut Files,
    found: &Found,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), String> {
    let optional = optional.unwrap_or(false);
    let Some(secret) = found.secret(name) else {
        return if optional { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    pick(files, &secret_data(secret), items, mode, optional, "references non-existent secret key")
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    text.chain(binary).collect()
}

fn secret_data(secret: &Secret) -> BTreeMap<&str, &[u8]> {
    secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()
}

/// All keys, or the chosen ones under their paths (BEHAVIOURS 10.7).
fn pick(
    files: &mut Files,
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
    missing: &str,
) -> Result<(), String> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        files.extend(
            data.iter().map(|(key, value)| ((*key).to_owned(), file(Bytes::copy_from_slice(value), mode))),
        );
    }
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                let path = paths::cleaned_path(&item.path)?;
                files.insert(path, file(Bytes::copy_from_slice(value), item.mode.or(mode)));
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    facts: &Facts<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
) -> Result<(), String> {
    all(items.unwrap_or_default().iter().map(|item| {
        let value = if let Some(reference) = &item.field_ref {
            fields::field(facts, &reference.field_path)
                .ok_or_else(|| format!("unsupported fieldPath: {}", reference.field_path))?
        } else if let Some(reference) = &item.resource_field_ref {
            let container = reference.container_name.as_deref().unwrap_or_default();
            fields::resource(facts, container, &reference.resource, reference.divisor.as_ref())?
        } else {
            String::new()
        };
        files.insert(paths::cleaned_path(&item.path)?, file(value.into(), item.mode.or(mode)));
        Ok(())
    }))
}

impl Volumes {
    /// Makes every volume that the pod's containers mount; nothing if some cannot be made.
    pub(crate) fn make(facts: &Facts<'_>, found: &Found) -> Result<Self, Vec<MountError>> {
        let mut volumes = BTreeMap::new();
        let mut wrong = Vec::new();
        for volume in used(facts.pod) {
            let live = match content(volume, facts, found) {
                Err(cause) => {
                    wrong.push(MountError { volume: volume.name.clone(), cause });
                    continue;
                }
                Ok(Content::Files(files)) => {
                    let kept = is_mounted_in_part(facts.pod, &volume.name).then(|| Mutex::new(files.clone()));
                    Live { volume: fs::Volume::projected(files), files: kept }
                }
                Ok(Content::Empty { bytes_max }) => {
                    Live { volume: fs::Volume::empty_dir(bytes_max), files: None }
                }
            };
            volumes.insert(volume.name.clone(), live);
        }
        if wrong.is_empty() { Ok(Self(volumes)) } else { Err(wrong) }
    }

    /// Shows the sources as they are now. What cannot be made any more keeps what it has, and is told.
    pub(crate) fn refresh(&self, facts: &Facts<'_>, found: &Found) -> Vec<MountError> {
        let mut wrong = Vec::new();
        for volume in used(facts.pod) {
            let Some(live) = self.0.get(&volume.name) else { continue };
            match content(volume, facts, found) {
                Ok(Content::Files(files)) => {
                    if let Some(kept) = &live.files {
                        kept.lock().expect("no holder panics").clone_from(&files);
                    }
                    live.volume.replace(files);
                }
                Ok(Content::Empty { .. }) => {}
                Err(cause) => wrong.push(MountError { volume: volume.name.clone(), cause }),
            }
        }
        wrong
    }

    /// Where a container sees its volumes. The error is the message of a `CreateContainerConfigError`.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<fs::Mount>, String> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let Some(live) = self.0.get(&mount.name) else {
                return Err(format!("volumeMount {:?} names no volume of the pod", mount.name));
            };
            let sub_path = sub_path(mount.sub_path.as_deref(), mount.sub_path_expr.as_deref(), env)?;
            let volume = match (&live.files, &sub_path) {
                (Some(files), Some(_)) => {
                    fs::Volume::projected(files.lock().expect("no holder panics").clone())
                }
                (Some(_) | None, _) => live.volume.clone(),
            };
            mounts.push(fs::Mount {
                path: paths::mount_path(&mount.mount_path),
                volume,
                sub_path,
                read_only: mount.read_only.unwrap_or(false),
            });
        }
        Ok(mounts)
    }
}

fn is_mounted_in_part(pod: &Pod, volume: &str) -> bool {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers
        .flat_map(|container| container.volume_mounts.iter().flatten())
        .any(|mount| mount.name == volume && (mount.sub_path.is_some() || mount.sub_path_expr.is_some()))
}

/// The part of a volume to mount, expanded; never one outside it (BEHAVIOURS 10.9).
fn sub_path(
    plain: Option<&str>,
    expression: Option<&str>,
    env: &[(String, String)],
) -> Result<Option<String>, String> {
    let path = match (plain.filter(|path| !path.is_empty()), expression.filter(|path| !path.is_empty())) {
        (Some(path), _) => path.to_owned(),
        (None, Some(expression)) => {
            let missing = std::cell::RefCell::new(BTreeSet::new());
            let path = expand(expression, |name| {
                let value = env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                // An empty value, such as an annotation's that is not there, would mount too much.
                if value.as_ref().is_none_or(String::is_empty) {
                    missing.borrow_mut().insert(name.to_owned());
                }
                value
            });
            let missing = missing.into_inner();
            if !missing.is_empty() {
                let names = missing.into_iter().collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "failed to expand subPathExpr {expression:?}: missing value for {names}"
                ));
            }
            path
        }
        (None, None) => return Ok(None),
    };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("failed to prepare subPath {path:?}: must be a relative path without '..'"));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests;
