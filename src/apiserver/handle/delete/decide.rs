//! What a deletion does to an object, decided on values (apiserver `registry/rest/delete.go` and
//! `registry/generic/registry/store.go`).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kind::Propagation;
use crate::kind::field::{Errors, Path};

/// Holds an owner until its dependents have lost their reference to it.
const ORPHAN: &str = "orphan";
/// Holds an owner until its blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl Policy {
    /// From `propagationPolicy`, or the older `orphanDependents`; not both.
    pub(super) fn parse(
        policy: Option<&str>,
        orphan_dependents: Option<bool>,
    ) -> Result<Option<Self>, Errors> {
        let mut errors = Errors::default();
        let path = Path::new("propagationPolicy");
        let policy = policy.filter(|text| !text.is_empty());
        if let (Some(policy), Some(_)) = (policy, orphan_dependents) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid(&path, policy, why);
            return Err(errors);
        }
        match (policy, orphan_dependents) {
            (None, None) => Ok(None),
            (None, Some(true)) | (Some("Orphan"), _) => Ok(Some(Self::Orphan)),
            (None, Some(false)) | (Some("Background"), _) => Ok(Some(Self::Background)),
            (Some("Foreground"), _) => Ok(Some(Self::Foreground)),
            (Some(other), _) => {
                errors.unsupported(&path, other, &["Foreground", "Background", "Orphan", "nil"]);
                Err(errors)
            }
        }
    }
}

/// What a deletion asks for, and what the kind makes of it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// As requested, never negative.
    pub(super) grace_seconds: Option<i64>,
    /// What a first deletion must wait, by the kind's rules.
    pub(super) grace_seconds_decided: i64,
    pub(super) policy: Option<Policy>,
    pub(super) policy_default: Propagation,
    /// Something besides finalizers and grace holds the object.
    pub(super) held_otherwise: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The object goes now.
    Remove,
    /// It stays, marked.
    Mark(Marks),
    /// It is marked already, and this deletion changes nothing.
    Keep,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) deletion_timestamp: Timestamp,
    pub(super) grace_seconds: i64,
    pub(super) finalizers: Vec<String>,
}

pub(super) fn decide(meta: &ObjectMeta, now: Timestamp, asked: &Asked) -> Decision {
    let before = meta.finalizers.as_deref().unwrap_or_default();
    let finalizers = finalizers(before, asked.policy, asked.policy_default);
    let held = !finalizers.is_empty() || asked.held_otherwise;
    let (deletion_timestamp, grace_seconds) = match &meta.deletion_timestamp {
        None => {
            let grace = asked.grace_seconds_decided.max(0);
            (now + SignedDuration::from_secs(grace), grace)
        }
        Some(at) => {
            // A second deletion only ever shortens.
            let current = meta.deletion_grace_period_seconds.unwrap_or_default();
            let grace = asked.grace_seconds.map_or(current, |asked| asked.min(current));
            (at.0 - SignedDuration::from_secs(current - grace), grace)
        }
    };
    if grace_seconds == 0 && !held {
        return Decision::Remove;
    }
    let unchanged = meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or_default() == grace_seconds
        && before == finalizers;
    if unchanged {
        return Decision::Keep;
    }
    Decision::Mark(Marks { deletion_timestamp, grace_seconds, finalizers })
}

/// The finalizers of an object in deletion: those it has, and the one that the policy brings. What
/// the request asks wins over what an earlier one asked, and that over the kind's default.
fn finalizers(before: &[String], policy: Option<Policy>, default: Propagation) -> Vec<String> {
    let has = |finalizer: &str| before.iter().any(|one| one == finalizer);
    let policy = policy.unwrap_or_else(|| {
        if has(ORPHAN) {
            Policy::Orphan
        } else if has(FOREGROUND) {
            Policy::Foreground
        } else {
            match default {
                Propagation::Background => Policy::Background,
                Propagation::Orphan => Policy::Orphan,
            }
        }
    });
    let wanted = match policy {
        Policy::Background => None,
        Policy::Foreground => Some(FOREGROUND),
        Policy::Orphan => Some(ORPHAN),
    };
    let kept = before.iter().filter(|one| {
        let of_policy = *one == ORPHAN || *one == FOREGROUND;
        !of_policy || wanted == Some(one.as_str())
    });
    let mut finalizers: Vec<String> = kept.cloned().collect();
    finalizers.extend(wanted.filter(|wanted| !has(wanted)).map(str::to_owned));
    finalizers
}

#[cfg(test)]
mod tests;
