//! `history`: every version of one object that the store keeps, also of one that is gone.

use super::{Inner, Target, parse_revision};
use crate::apiserver::request::{Options, Response};
use crate::apiserver::status::Error;
use crate::store::ReadError;

impl Inner {
    pub(super) async fn history(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        if let Some(revision) = parse_revision(options.resource_version.as_deref())? {
            self.wait_for(revision).await?;
        }
        let name = target.name()?;
        let history = self.store.history(&target.key(name)).await.map_err(|error| match error {
            ReadError::Expired { asked, oldest } => Error::too_old(asked, oldest),
            ReadError::Future { .. } | ReadError::Unreadable(_) => Error::internal(error),
        })?;
        if history.versions.is_empty() {
            return Err(Error::not_found(target.kind, name));
        }
        Ok(Response::History(history))
    }
}
