//! One object.

use super::{Inner, Target, parse_revision};
use crate::apiserver::request::{Options, Response};
use crate::apiserver::status::Error;

impl Inner {
    pub(super) async fn get(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        if let Some(revision) = parse_revision(options.resource_version.as_deref())? {
            self.wait_for(revision).await?;
        }
        Ok(Response::Record { record: self.find(target)?, created: false })
    }
}
