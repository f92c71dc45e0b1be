//! Patches of stored objects (BEHAVIOURS 3.1 to 3.3).

use super::update::{Failure, Part, Replacement};
use super::{Inner, Target, decoded, dry_run, match_namespace};
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::patch::{self, Patch};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::field::{Errors, Path};

const OPTIONS: &str = "PatchOptions";

/// Tries of a patch when others write the object, as upstream has it.
pub(super) const TRIES: usize = 5;

impl Inner {
    pub(super) async fn patch(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
        part: Part,
    ) -> Result<Response, Error> {
        let kind = target.kind;
        let dry_run = dry_run(&options.dry_run, OPTIONS)?;
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        // An apply patch is refused for what it is, not for its options.
        let from_wire = matches!(body, Body::Bytes { .. });
        let (change, found) = read(body, validation)?;
        if options.force.is_some() {
            let mut errors = Errors::default();
            errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
            return Err(Error::invalid_options(OPTIONS, &errors));
        }
        for _ in 0..TRIES {
            let record = self.find(target)?;
            let old = decoded(kind, &record);
            let current = kind.served(&*old).map_or_else(|| old.to_value(), |served| served.to_value());
            let value = change.apply(kind, current)?;
            let Decoded { object: mut new, warnings } = if from_wire {
                decode::patched(kind, &value, validation)?
            } else {
                Decoded { object: decode::from_value(kind, value)?, warnings: Vec::new() }
            };
            match_namespace(target, &mut *new)?;
            let warnings = found.iter().cloned().chain(warnings).collect();
            let replacement = Replacement { record: &record, old: &*old, new, part, dry_run };
            match self.replace(target, replacement, warnings).await {
                Ok(response) => return Ok(response),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Raced) => {}
            }
        }
        Err(Error::modified(kind, target.name()?))
    }
}

/// The patch in a body, and texts for `Warning:` headers.
pub(super) fn read(body: Body, validation: FieldValidation) -> Result<(Patch, Vec<String>), Error> {
    match body {
        Body::Bytes { media_type, bytes } => {
            patch::check_media_type(media_type.as_deref())?;
            let (value, warnings) = decode::patch_document(&bytes, validation)?;
            Ok((Patch::from_value(media_type.as_deref(), value)?, warnings))
        }
        Body::Value { media_type, value } => Ok((Patch::from_value(Some(media_type), value)?, Vec::new())),
        Body::Empty | Body::Object(_) => {
            Err(Error::bad_request("error decoding patch: the body of a patch is a JSON document"))
        }
    }
}
