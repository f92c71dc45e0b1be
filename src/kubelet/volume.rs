//! A pod's volumes: ConfigMaps, Secrets, the pod's own fields, and empty directories, all in memory
//! (BEHAVIOURS 10.6 to 10.9, 10.14, 10.17). No byte of a Secret touches the disk here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::config::Tracker;
use super::content::{Contents, Values};
use super::env::expand;
use super::fields::{self, Facts};
use super::sources::{Source, SourceKind, Sources};
use super::token::{self, Tokens};
use crate::kind::quantity::Amount;
use crate::runtime::fs::{self, File};

/// Permission bits when the API gives none.
const DEFAULT_MODE: i32 = 0o644;
/// The most an emptyDir without a sizeLimit may hold, since it is memory. Generous for scratch
/// files, small beside a node; nobody has measured what guests need.
const EMPTY_DIR_BYTES_MAX: u64 = 256 << 20;

mod live;
mod paths;

pub(crate) use live::{Live, Seen};

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
    Files(Shown),
    Empty { bytes_max: u64 },
}

/// What a projected volume shows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Shown {
    pub(crate) files: Files,
    /// Those of them that come from ConfigMaps, for `wasi:config/store`.
    pub(crate) settings: Values,
}

impl Shown {
    fn add(&mut self, path: &str, content: Bytes, mode: Option<i32>, is_setting: bool) {
        if is_setting {
            self.settings.insert(path.to_owned(), content.clone());
        } else {
            self.settings.remove(path);
        }
        self.files.insert(path.to_owned(), file(content, mode));
    }
}

/// The volumes of one pod, shared by its containers.
#[derive(Default)]
pub(crate) struct Volumes(BTreeMap<String, Arc<Live>>);

/// What a container mounts of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) volume: String,
    /// `None` is all of it.
    pub(crate) path: Option<Arc<str>>,
    /// It does not follow the volume.
    pub(crate) frozen: bool,
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

/// Whether admission has added the volume, for guests that speak to the API. There is one in nearly every
/// pod, so a node that runs no guests leaves it empty; and it is no configuration of the pod's.
fn is_api_access(volume: &Volume) -> bool {
    volume.name.starts_with("kube-api-access-") && has_token(volume)
}

fn has_token(volume: &Volume) -> bool {
    let mut sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    sources.any(|source| source.service_account_token.is_some())
}

/// The objects that the pod's volumes depend on, on a node that `runs_code` or not.
pub(crate) fn sources(pod: &Pod, runs_code: bool) -> Vec<Source> {
    let needed = used(pod).filter(|volume| runs_code || !is_api_access(volume));
    needed.flat_map(|volume| needed_by(pod, volume)).collect()
}

fn needed_by(pod: &Pod, volume: &Volume) -> impl Iterator<Item = Source> {
    let account = has_token(volume).then(|| Source::account(token::account(pod)));
    account.into_iter().chain(named_by(volume))
}

/// The ConfigMaps and Secrets that a volume shows as the pod's configuration.
fn sources_of(volume: &Volume) -> Vec<Source> {
    if is_api_access(volume) { Vec::new() } else { named_by(volume) }
}

/// Whether a volume shows something else with the contents `after` than with those `before`, as far as
/// that comes from sources.
pub(crate) fn differs(pod: &Pod, volume: &Volume, before: &Contents, after: &Contents) -> bool {
    needed_by(pod, volume).any(|source| match (before.get(&source), after.get(&source)) {
        (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    })
}

fn named_by(volume: &Volume) -> Vec<Source> {
    let mut sources = Vec::new();
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
    sources
}

/// Whether a volume shows the pod's own labels or annotations.
pub(crate) fn shows_fields(pod: &Pod) -> bool {
    used(pod).any(|volume| {
        let mut projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        volume.downward_api.is_some() || projected.any(|source| source.downward_api.is_some())
    })
}

/// What a volume holds, from its sources as they are now. The error is a cause. Without `tokens` nobody
/// will look into the volume.
pub(crate) fn content(
    volume: &Volume,
    facts: &Facts<'_>,
    contents: &Contents,
    tokens: Option<&Tokens>,
) -> Result<Content, String> {
    let mut shown = Shown::default();
    if tokens.is_none() && is_api_access(volume) {
        return Ok(Content::Files(shown));
    }
    if let Some(source) = &volume.config_map {
        let pick = Pick {
            source: Source::config_map(&source.name),
            items: source.items.as_deref(),
            mode: source.default_mode,
            optional: source.optional,
        };
        pick.into(&mut shown, contents)?;
    } else if let Some(source) = &volume.secret {
        let pick = Pick {
            source: Source::secret(source.secret_name.as_deref().unwrap_or_default()),
            items: source.items.as_deref(),
            mode: source.default_mode,
            optional: source.optional,
        };
        pick.into(&mut shown, contents)?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut shown, facts, source.items.as_deref(), source.default_mode)?;
    } else if let Some(projected) = &volume.projected {
        let sources = projected.sources.iter().flatten();
        let mode = projected.default_mode;
        all(sources.map(|source| {
            if let Some(source) = &source.service_account_token {
                let late = tokens.map(|tokens| tokens.file(&volume.name, source));
                return service_account_token(&mut shown, source, facts.pod, contents, late, mode);
            }
            projection(&mut shown, source, facts, contents, mode)
        }))?;
    } else if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().map(|limit| Amount::of(limit).units());
        let bytes_max = limit.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok());
        return Ok(Content::Empty { bytes_max: bytes_max.unwrap_or(EMPTY_DIR_BYTES_MAX) });
    } else {
        return Err("this node has configMap, secret, downwardAPI, projected and emptyDir volumes only; \
             choose one of them"
            .into());
    }
    shown.files = paths::cleaned(shown.files)?;
    if is_api_access(volume) {
        shown.settings.clear();
    }
    Ok(Content::Files(shown))
}

/// One source of a projected volume; of two files with one path the later stays.
fn projection(
    shown: &mut Shown,
    source: &VolumeProjection,
    facts: &Facts<'_>,
    contents: &Contents,
    mode: Option<i32>,
) -> Result<(), String> {
    if let Some(source) = &source.config_map {
        let (name, items, optional) = (&source.name, source.items.as_deref(), source.optional);
        Pick { source: Source::config_map(name), items, mode, optional }.into(shown, contents)?;
    }
    if let Some(source) = &source.secret {
        let (name, items, optional) = (&source.name, source.items.as_deref(), source.optional);
        Pick { source: Source::secret(name), items, mode, optional }.into(shown, contents)?;
    }
    if let Some(source) = &source.downward_api {
        downward(shown, facts, source.items.as_deref(), mode)?;
    }
    if source.cluster_trust_bundle.is_some() {
        return Err("clusterTrustBundle sources are not supported by this node; \
             project the certificates from a ConfigMap"
            .into());
    }
    Ok(())
}

/// A token of the pod's account, asked for when a guest looks at its file.
fn service_account_token(
    shown: &mut Shown,
    source: &ServiceAccountTokenProjection,
    pod: &Pod,
    contents: &Contents,
    late: Option<fs::Late>,
    mode: Option<i32>,
) -> Result<(), String> {
    let account = token::account(pod);
    if !contents.contains_key(&Source::account(account)) {
        return Err(format!("failed to fetch token: serviceaccounts {account:?} not found"));
    }
    let path = paths::cleaned_path(&source.path)?;
    shown.settings.remove(&path);
    shown.files.insert(path, File { late, ..file(Bytes::new(), mode) });
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
    File::new(content, u32::try_from(mode).expect("nine bits are not negative"))
}

/// What a volume takes of a ConfigMap or Secret: all keys, or the chosen ones under their paths
/// (BEHAVIOURS 10.7).
struct Pick<'a> {
    source: Source,
    items: Option<&'a [KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
}

impl Pick<'_> {
    fn into(self, shown: &mut Shown, contents: &Contents) -> Result<(), String> {
        let Self { source: Source { kind, name }, items, mode, optional } = &self;
        let optional = optional.unwrap_or(false);
        let (word, missing) = match kind {
            SourceKind::ConfigMap => ("configmap", "configmap references non-existent config key"),
            SourceKind::Secret => ("secret", "references non-existent secret key"),
            SourceKind::Account => ("serviceaccount", "an account has no keys"),
        };
        let Some(content) = contents.get(&self.source) else {
            return if optional { Ok(()) } else { Err(format!("{word} {name:?} not found")) };
        };
        let is_setting = *kind == SourceKind::ConfigMap;
        let items = items.unwrap_or_default();
        if items.is_empty() {
            for (key, value) in &content.values {
                shown.add(key, value.clone(), *mode, is_setting);
            }
        }
        for item in items {
            match content.values.get(item.key.as_str()) {
                Some(value) => {
                    let path = paths::cleaned_path(&item.path)?;
                    shown.add(&path, value.clone(), item.mode.or(*mode), is_setting);
                }
                None if optional => {}
                None => return Err(format!("{missing}: {}", item.key)),
            }
        }
        Ok(())
    }
}

fn downward(
    shown: &mut Shown,
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
        shown.add(&paths::cleaned_path(&item.path)?, value.into(), item.mode.or(mode), false);
        Ok(())
    }))
}

/// What a volume shows that shows ConfigMaps and Secrets only.
fn shown_by_sources(volume: &Volume, contents: &Contents) -> Result<Shown, String> {
    let (pod, allocatable, ip) = (Pod::default(), BTreeMap::new(), Ipv4Addr::UNSPECIFIED);
    let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &allocatable };
    match content(volume, &facts, contents, None)? {
        Content::Files(shown) => Ok(shown),
        Content::Empty { .. } => unreachable!("an emptyDir has no sources"),
    }
}

impl Volumes {
    /// Makes every volume that the pod's containers mount, or takes those that are the same for other pods
    /// from `shared`; nothing if some cannot be made.
    pub(crate) fn make(
        facts: &Facts<'_>,
        contents: &Contents,
        tokens: Option<&Tokens>,
        shared: &Sources,
    ) -> Result<Self, Vec<MountError>> {
        let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or_default();
        let make = |volume: &Volume| {
            if let Some(spec) = live::shareable(volume) {
                let live = shared.live(namespace, &spec, &named_by(&spec));
                return live.read(contents, false).map_or(Ok(live), Err);
            }
            Ok(Arc::new(match content(volume, facts, contents, tokens)? {
                Content::Files(shown) => Live::of_one(volume, contents, shown),
                Content::Empty { bytes_max } => Live::empty_dir(bytes_max),
            }))
        };
        let mut volumes = BTreeMap::new();
        let mut wrong = Vec::new();
        for volume in used(facts.pod) {
            match make(volume) {
                Ok(live) => {
                    volumes.insert(volume.name.clone(), live);
                }
                Err(cause) => wrong.push(MountError { volume: volume.name.clone(), cause }),
            }
        }
        if wrong.is_empty() { Ok(Self(volumes)) } else { Err(wrong) }
    }

    /// Shows the sources as they are now, in `all` volumes, since they were read anew, or in those of
    /// which one `has_changed`. What cannot be made any more keeps what it has, and is told.
    pub(crate) fn refresh(
        &self,
        facts: &Facts<'_>,
        contents: &Contents,
        tokens: Option<&Tokens>,
        all: bool,
        has_changed: impl Fn(&Volume) -> bool,
    ) -> Vec<MountError> {
        let mut wrong = Vec::new();
        for volume in used(facts.pod) {
            let Some(live) = self.0.get(&volume.name) else { continue };
            let cause = if live.is_shared() {
                live.read(contents, all)
            } else if all || has_changed(volume) {
                match content(volume, facts, contents, tokens) {
                    Ok(Content::Files(shown)) => {
                        live.show(volume, contents, shown);
                        None
                    }
                    Ok(Content::Empty { .. }) => None,
                    Err(cause) => Some(cause),
                }
            } else {
                None
            };
            wrong.extend(cause.map(|cause| MountError { volume: volume.name.clone(), cause }));
        }
        wrong
    }

    /// From now on `tracker` is told of changes of the volumes that `parts` are of, as far as the pod need
    /// not show them.
    pub(crate) fn track(&self, parts: &[Part], tracker: &Arc<Tracker>) {
        for part in parts {
            if let Some(live) = self.0.get(&part.volume) {
                live.track(tracker);
            }
        }
    }

    /// Whether any of `parts` is of a volume that has ConfigMaps or Secrets as its sources.
    pub(crate) fn have_sources(&self, parts: &[Part]) -> bool {
        parts.iter().any(|part| self.0.get(&part.volume).is_some_and(|live| live.has_sources))
    }

    /// What a volume shows; nothing if there is no such volume.
    pub(crate) fn seen(&self, volume: &str) -> Arc<Seen> {
        self.0.get(volume).map(|live| live.seen()).unwrap_or_default()
    }

    /// Where a container sees its volumes; parts of them stay as they are when it starts if `frozen`.
    /// The error is the message of a `CreateContainerConfigError`.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        env: &[(String, String)],
        frozen: bool,
    ) -> Result<(Vec<fs::Mount>, Vec<Part>), String> {
        let (mut mounts, mut parts) = (Vec::new(), Vec::new());
        for mount in container.volume_mounts.iter().flatten() {
            let Some(live) = self.0.get(&mount.name) else {
                return Err(format!("volumeMount {:?} names no volume of the pod", mount.name));
            };
            let sub_path = sub_path(mount.sub_path.as_deref(), mount.sub_path_expr.as_deref(), env)?;
            parts.push(Part {
                volume: mount.name.clone(),
                path: sub_path.as_deref().map(Arc::from),
                frozen: frozen && sub_path.is_some(),
            });
            mounts.push(fs::Mount {
                path: paths::mount_path(&mount.mount_path),
                volume: live.volume.clone(),
                sub_path: sub_path.map(|path| fs::SubPath { path, frozen }),
                read_only: mount.read_only.unwrap_or(false),
            });
        }
        Ok((mounts, parts))
    }
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
