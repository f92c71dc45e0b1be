//! `coracle config undo`: what is to be written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::content::Configuration;
use super::pick::Kept;
use crate::client::remote::{Change, Version};

/// How the content of a version becomes the current one.
pub(super) enum Undo<K> {
    /// It already is.
    Nothing,
    /// The object as it is now, with that content.
    Replace(Box<K>),
    /// It is deleted now, so it is made again.
    Create(Box<K>),
}

/// The version to go back to: the one asked for, or the newest whose content differs from what is now.
///
/// After an undo that is the content before it, so that two in a row leave things as they were.
pub(super) fn target<K: Configuration>(kept: &Kept<K>, asked: Option<u64>) -> Result<&Version<K>, String> {
    match asked {
        Some(revision) => kept.at(revision),
        None => kept.before(kept.current()?),
    }
}

/// What restores `version`, as far as the rules of ConfigMaps and Secrets let anybody.
pub(super) fn decide<K: Configuration>(kept: &Kept<K>, version: &Version<K>) -> Result<Undo<K>, String> {
    let (target, revision) = (&kept.target, version.revision);
    let Some(wanted) = kept.object(version)? else {
        return Err(format!("at revision {revision} {target} was deleted; name a revision that has content"));
    };
    let current = kept.current()?;
    if current.change == Change::Deleted {
        return Ok(Undo::Create(Box::new(anew(wanted))));
    }
    let Some(now) = kept.object(current)? else {
        return Err(format!("the answer about {target} lacks its current content"));
    };
    if now.fixed_type() != wanted.fixed_type() {
        let name = |of: Option<&str>| of.unwrap_or_default().to_owned();
        return Err(format!(
            "{target} is of type {} now and was of type {} at revision {revision}, and a type cannot change; \
             delete it, and undo with --to-revision {revision} makes it again",
            name(now.fixed_type()),
            name(wanted.fixed_type())
        ));
    }
    if now.entries() == wanted.entries() {
        return Ok(Undo::Nothing);
    }
    if now.is_immutable() {
        return Err(format!(
            "{target} is immutable, so its content cannot be restored in place; \
             delete it, and undo with --to-revision {revision} makes it again"
        ));
    }
    let mut restored = now.clone();
    restored.take_content(wanted);
    Ok(Undo::Replace(Box::new(restored)))
}

/// A new object of the same content, labels and annotations. Its owners may be gone, which would be the end
/// of it again, and nobody may be left to take its finalizers off, so it has neither.
fn anew<K: Configuration>(old: &K) -> K {
    let mut new = old.clone();
    let meta = new.metadata_mut();
    let ObjectMeta { name, namespace, labels, annotations, .. } = std::mem::take(meta);
    *meta = ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() };
    new
}
