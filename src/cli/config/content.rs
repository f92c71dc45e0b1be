//! What `coracle config` compares and restores: the content of ConfigMaps and Secrets.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::kind::Typed;

/// One value.
#[derive(PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Of a ConfigMap's `data`.
    Text(&'a str),
    /// Of a ConfigMap's `binaryData`.
    Bytes(&'a [u8]),
    /// Of a Secret's `data`.
    Hidden(&'a [u8]),
}

/// Values by key.
pub(super) type Entries<'a> = BTreeMap<&'a str, Value<'a>>;

/// A kind whose history these commands can show and undo.
pub(super) trait Configuration: Typed + k8s_openapi::Resource<Scope = NamespaceResourceScope> {
    /// `configmap`, as messages name it.
    const WORD: &'static str;

    fn entries(&self) -> Entries<'_>;

    fn is_immutable(&self) -> bool;

    /// A Secret's type, which no update can change.
    fn fixed_type(&self) -> Option<&str>;

    /// Takes over the content of `other` and nothing else.
    fn take_content(&mut self, other: &Self);
}

impl Configuration for ConfigMap {
    const WORD: &'static str = "configmap";

    fn entries(&self) -> Entries<'_> {
        let text = self.data.iter().flatten().map(|(key, value)| (key.as_str(), Value::Text(value)));
        let binary = self.binary_data.iter().flatten();
        text.chain(binary.map(|(key, value)| (key.as_str(), Value::Bytes(&value.0)))).collect()
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }

    fn fixed_type(&self) -> Option<&str> {
        None
    }

    fn take_content(&mut self, other: &Self) {
        self.data.clone_from(&other.data);
        self.binary_data.clone_from(&other.binary_data);
    }
}

impl Configuration for Secret {
    const WORD: &'static str = "secret";

    fn entries(&self) -> Entries<'_> {
        let data = self.data.iter().flatten();
        data.map(|(key, value)| (key.as_str(), Value::Hidden(&value.0))).collect()
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }

    fn fixed_type(&self) -> Option<&str> {
        self.type_.as_deref()
    }

    fn take_content(&mut self, other: &Self) {
        self.data.clone_from(&other.data);
    }
}

/// How the keys of two contents differ: `+added ~changed -removed`, by key; empty if they do not.
pub(super) fn changed_keys(old: &Entries<'_>, new: &Entries<'_>) -> String {
    let keys: std::collections::BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let marked = keys.into_iter().filter_map(|key| match (old.get(key), new.get(key)) {
        (None, _) => Some(format!("+{key}")),
        (_, None) => Some(format!("-{key}")),
        (Some(a), Some(b)) => (a != b).then(|| format!("~{key}")),
    });
    marked.collect::<Vec<_>>().join(" ")
}
