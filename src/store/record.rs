//! One object at one revision.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;

use super::seal::DataKey;
use super::{Key, Revision};
use crate::kind::{Encoded, Object};

/// How the member that carries the revision begins, as [`Encoded::with_revision`] writes it.
const MEMBER: &[u8] = b"\"resourceVersion\":\"";

/// When something was committed: microseconds since 1970, in what `i64` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    /// Of what format 1 wrote. It is no time that a clock can show.
    pub(super) const UNKNOWN: Self = Self(i64::MIN);

    pub(super) fn of(time: Timestamp) -> Self {
        Self(time.as_microsecond())
    }

    pub(super) fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.0).ok()
    }
}

/// One object at one revision. Immutable; shared by history, watchers and readers.
pub struct Record {
    pub key: Key,
    /// The revision that wrote this content.
    pub revision: Revision,
    /// The revision that created the object.
    pub created: Revision,
    committed: Moment,
    /// Complete JSON, `resourceVersion` included: GET, LIST and watches send just these bytes.
    pub json: Bytes,
    /// Where in `json` the `resourceVersion` member begins.
    revision_at: usize,
    /// What this is sealed with in files; `None` if it is not.
    data_key: Option<Arc<DataKey>>,
    object: OnceLock<Arc<dyn Object>>,
    /// The same content, decoded, at another revision: cheaper to copy than to decode again.
    origin: Option<Arc<dyn Object>>,
}

impl std::fmt::Debug for Record {
    /// Without the content, which may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({:?} at {})", self.key, self.revision)
    }
}

impl Record {
    /// The decoded object, whose `resourceVersion` is this revision. `decode` is called at most once
    /// in the record's life, and not at all for one committed by this process.
    pub fn object(&self, decode: impl FnOnce(&[u8]) -> Arc<dyn Object>) -> Arc<dyn Object> {
        let make = || match &self.origin {
            Some(origin) => at_revision(origin.clone_object(), self.revision),
            None => decode(&self.json),
        };
        self.object.get_or_init(make).clone()
    }

    /// When `revision` was committed, in whole microseconds; `None` if a version of Coracle wrote it that
    /// did not note the time.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.committed.timestamp()
    }

    /// The same content with another revision in it, as watches tell of an object that has left what they
    /// select: at the revision when it went.
    #[must_use]
    pub fn with_revision(&self, revision: Revision) -> Arc<Self> {
        self.deleted(revision, self.committed)
    }

    /// The same content at the revision and the time of its deletion.
    pub(super) fn deleted(&self, revision: Revision, committed: Moment) -> Arc<Self> {
        let digits_at = self.revision_at + MEMBER.len();
        let digits_end = digits_at + self.revision.to_string().len();
        let digits = revision.to_string();
        let mut json = Vec::with_capacity(digits_at + digits.len() + self.json.len() - digits_end);
        json.extend_from_slice(&self.json[..digits_at]);
        json.extend_from_slice(digits.as_bytes());
        json.extend_from_slice(&self.json[digits_end..]);
        Arc::new(Self {
            key: self.key.clone(),
            revision,
            created: self.created,
            committed,
            json: json.into(),
            revision_at: self.revision_at,
            data_key: self.data_key.clone(),
            object: OnceLock::new(),
            origin: self.object.get().or(self.origin.as_ref()).cloned(),
        })
    }

    /// A new record, as a commit makes it.
    pub(super) fn commit(
        key: Key,
        revision: Revision,
        created: Revision,
        committed: Moment,
        data_key: Option<Arc<DataKey>>,
        object: Box<dyn Object>,
        encoded: &Encoded,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            revision,
            created,
            committed,
            json: encoded.with_revision(revision),
            revision_at: encoded.revision_at,
            data_key,
            object: OnceLock::from(at_revision(object, revision)),
            origin: None,
        })
    }

    /// A record as a file has it; `None` if the JSON does not carry the revision where it should.
    pub(super) fn stored(
        key: Key,
        revision: Revision,
        created: Revision,
        committed: Moment,
        json: Bytes,
        revision_at: usize,
        data_key: Option<Arc<DataKey>>,
    ) -> Option<Arc<Self>> {
        let digits =
            json.get(revision_at..)?.strip_prefix(MEMBER)?.strip_prefix(revision.to_string().as_bytes())?;
        if digits.first() != Some(&b'"') {
            return None;
        }
        let (object, origin) = (OnceLock::new(), None);
        Some(Arc::new(Self {
            key,
            revision,
            created,
            committed,
            json,
            revision_at,
            data_key,
            object,
            origin,
        }))
    }

    /// The same, to be sealed with `data_key` whenever it is written.
    pub(super) fn sealed_with(&self, data_key: Arc<DataKey>) -> Arc<Self> {
        Arc::new(Self {
            key: self.key.clone(),
            revision: self.revision,
            created: self.created,
            committed: self.committed,
            json: self.json.clone(),
            revision_at: self.revision_at,
            data_key: Some(data_key),
            object: self.object.clone(),
            origin: self.origin.clone(),
        })
    }

    pub(super) fn data_key(&self) -> Option<&Arc<DataKey>> {
        self.data_key.as_ref()
    }

    pub(super) fn committed(&self) -> Moment {
        self.committed
    }

    pub(super) fn revision_at(&self) -> usize {
        self.revision_at
    }
}

fn at_revision(mut object: Box<dyn Object>, revision: Revision) -> Arc<dyn Object> {
    object.metadata_mut().resource_version = Some(revision.to_string());
    object.into()
}
