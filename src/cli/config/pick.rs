//! Which versions a command is about.

use super::content::Configuration;
use crate::client::remote::{Change, ObjectHistory, Version};

/// The kept history of one object, and how messages name it.
pub(super) struct Kept<K> {
    /// `configmap/x`
    pub(super) target: String,
    pub(super) history: ObjectHistory<K>,
}

impl<K: Configuration> Kept<K> {
    /// The newest version.
    pub(super) fn current(&self) -> Result<&Version<K>, String> {
        self.history.items.last().ok_or_else(|| format!("{} has no history", self.target))
    }

    /// The version of just this revision.
    pub(super) fn at(&self, revision: u64) -> Result<&Version<K>, String> {
        let items = &self.history.items;
        items.iter().find(|version| version.revision == revision).ok_or_else(|| {
            let known: Vec<_> = items.iter().map(|version| version.revision.to_string()).collect();
            let older =
                self.history.truncated && items.first().is_some_and(|first| revision < first.revision);
            let why = if older { " any more: older history was dropped" } else { "" };
            format!("{} has no revision {revision}{why}; it has {}", self.target, known.join(", "))
        })
    }

    /// The newest version before `version` whose content differs from its; a deletion has none to
    /// compare and is passed over.
    pub(super) fn before(&self, version: &Version<K>) -> Result<&Version<K>, String> {
        let earlier = self.history.items.iter().rev().filter(|one| one.revision < version.revision);
        let mut candidates = earlier.filter(|one| one.change != Change::Deleted);
        let found = candidates.find(|one| one.hash != version.hash || one.destroyed);
        found.ok_or_else(|| {
            let kept = if self.history.truncated { "kept " } else { "" };
            format!(
                "{} has no {kept}content before revision {} that differs from it",
                self.target, version.revision
            )
        })
    }

    /// What was stored; `None` if it was deleted.
    pub(super) fn object<'a>(&self, version: &'a Version<K>) -> Result<Option<&'a K>, String> {
        if version.destroyed {
            return Err(format!(
                "the content of {} at revision {} was destroyed when it was deleted; nobody can read it any more",
                self.target, version.revision
            ));
        }
        Ok(version.object.as_ref())
    }
}
