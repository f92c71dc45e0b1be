//! What ConfigMaps and Secrets hold, taken apart once and shared by all pods that see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::sources::{Source, SourceKind};
use crate::kind::content::ContentHash;
use crate::kind::{Typed, config_map, secret};

/// Values by key; never a Secret's where it might be shown.
pub(crate) type Values = BTreeMap<String, Bytes>;

/// Tells contents apart: two revisions of the same content are the same to a pod.
///
/// The hash of a Secret goes nowhere: it lets a guess be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The object's `resourceVersion`.
    pub(crate) revision: u64,
    pub(crate) hash: ContentHash,
}

/// A ConfigMap or Secret at one revision.
pub(crate) struct Content {
    pub(crate) version: Version,
    pub(crate) values: Values,
}

/// Contents of sources of one namespace; what is not in it does not exist.
pub(crate) type Contents = BTreeMap<Source, Arc<Content>>;

/// Versions of what a container sees; a source that is not in it does not exist.
pub(crate) type Versions = BTreeMap<Source, Version>;

/// What can be mounted.
pub(crate) trait HasValues {
    const SOURCE: SourceKind;

    fn hash(&self) -> ContentHash;

    /// Each key with its value.
    fn entries(&self) -> impl Iterator<Item = (&str, &[u8])>;
}

impl HasValues for ConfigMap {
    const SOURCE: SourceKind = SourceKind::ConfigMap;

    fn hash(&self) -> ContentHash {
        config_map::content_hash(self)
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let text = self.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
        let binary = self.binary_data.iter().flatten();
        text.chain(binary.map(|(key, value)| (key.as_str(), value.0.as_slice())))
    }
}

impl HasValues for Secret {
    const SOURCE: SourceKind = SourceKind::Secret;

    fn hash(&self) -> ContentHash {
        secret::content_hash(self)
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()))
    }
}

impl HasValues for ServiceAccount {
    const SOURCE: SourceKind = SourceKind::Account;

    /// That of nothing: what an account shows does not change.
    fn hash(&self) -> ContentHash {
        config_map::content_hash(&ConfigMap::default())
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        std::iter::empty()
    }
}

pub(crate) fn version<K: Typed + HasValues>(object: &K) -> Version {
    Version { revision: revision(object.metadata()), hash: object.hash() }
}

impl Content {
    /// Copies the values of an object.
    pub(crate) fn of<K: Typed + HasValues>(object: &K) -> Self {
        let copy = |(key, value): (&str, &[u8])| (key.to_owned(), Bytes::copy_from_slice(value));
        Self { version: version(object), values: object.entries().map(copy).collect() }
    }

    /// With the bytes of `before` where nothing differs.
    pub(crate) fn sharing(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        if before.version.hash == self.version.hash {
            self.values.clone_from(&before.values);
            return self;
        }
        for (key, value) in &mut self.values {
            if let Some(same) = before.values.get(key).filter(|old| *old == value) {
                value.clone_from(same);
            }
        }
        self
    }
}

/// Versions of this process's own API are numbers that only grow.
pub(crate) fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The older of two versions of the same content, else the newer: the revision of a change of the
/// content.
pub(crate) fn settle(old: Option<&Version>, new: Version) -> Version {
    old.filter(|old| old.hash == new.hash).copied().unwrap_or(new)
}

#[cfg(test)]
mod tests;
