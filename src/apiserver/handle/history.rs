//! `history`: every version of one object that the store keeps, also of one that is gone.

use super::{Inner, Target, parse_revision};
use crate::apiserver::request::{Options, Response};
use crate::apiserver::status::Error;
use crate::store::{Content, ReadError, Version};

impl Inner {
    pub(super) async fn history(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        if let Some(revision) = parse_revision(options.resource_version.as_deref())? {
            self.wait_for(revision).await?;
        }
        let name = target.name()?;
        let mut history = self.store.history(&target.key(name)).await.map_err(|error| match error {
            ReadError::Expired { asked, oldest } => Error::too_old(asked, oldest),
            ReadError::Future { .. } | ReadError::Unreadable(_) => Error::internal(error),
        })?;
        if history.versions.is_empty() {
            return Err(Error::not_found(target.kind, name));
        }
        if target.kind.encrypted_at_rest {
            forget_deleted(&mut history.versions);
        }
        Ok(Response::History(history))
    }
}

/// What a deletion destroys in the files is not told from memory either: the answer is the same wherever
/// it comes from.
fn forget_deleted(versions: &mut [Version]) {
    let deleted = versions.iter().rposition(|version| matches!(version.content, Content::Deleted));
    for version in &mut versions[..deleted.unwrap_or(0)] {
        if matches!(version.content, Content::Put(_)) {
            version.content = Content::Destroyed;
        }
    }
}
