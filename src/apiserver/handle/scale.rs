//! `scale`: the number of replicas of any kind that has one (upstream `pkg/registry/apps/*/storage`).

use k8s_openapi::api::autoscaling::v1::Scale;

use super::patch;
use super::update::{Failure, Part, Replacement, names_version, uid_mismatch};
use super::{Inner, Target, WRITE_TRIES_MAX, decoded, dry_run, match_namespace, parse_revision, warned};
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::{Kind, Object, scale};
use crate::store::Record;

impl Inner {
    pub(super) async fn scale(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        if let Some(revision) = parse_revision(options.resource_version.as_deref())? {
            self.wait_for(revision).await?;
        }
        let record = self.find(target)?;
        Ok(shown(shape(target.kind, &record)?))
    }

    pub(super) async fn update_scale(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let validation = FieldValidation::parse(options.field_validation.as_deref(), "UpdateOptions")?;
        let dry_run = dry_run(&options.dry_run, "UpdateOptions")?;
        let Decoded { mut object, warnings } = decode::decode(&scale::KIND, body, validation)?;
        match_namespace(target, &mut *object)?;
        let name = target.name()?;
        let given = object.metadata().name.as_deref().unwrap_or_default();
        if given != name {
            return Err(Error::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        let conditional = names_version(object.metadata());
        for _ in 0..WRITE_TRIES_MAX {
            let record = self.find(target)?;
            match self.rescale(target, &record, &*object, dry_run).await {
                Ok(response) => return Ok(warned(warnings, response)),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Raced) if conditional => break,
                Err(Failure::Raced) => {}
            }
        }
        Err(Error::modified(target.kind, name))
    }

    pub(super) async fn patch_scale(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let validation = FieldValidation::parse(options.field_validation.as_deref(), "PatchOptions")?;
        let dry_run = dry_run(&options.dry_run, "PatchOptions")?;
        let (change, found) = patch::read(body, validation)?;
        for _ in 0..patch::TRIES {
            let record = self.find(target)?;
            let value = change.apply(&scale::KIND, shape(target.kind, &record)?.to_value())?;
            let Decoded { mut object, warnings } = decode::patched(&scale::KIND, &value, validation)?;
            match_namespace(target, &mut *object)?;
            match self.rescale(target, &record, &*object, dry_run).await {
                Ok(response) => {
                    return Ok(warned(found.iter().cloned().chain(warnings).collect(), response));
                }
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Raced) => {}
            }
        }
        Err(Error::modified(target.kind, target.name()?))
    }

    /// One try at giving the object of a record the replicas that a Scale asks for.
    async fn rescale(
        &self,
        target: &Target,
        record: &std::sync::Arc<Record>,
        asked: &dyn Object,
        dry_run: bool,
    ) -> Result<Response, Failure> {
        let kind = target.kind;
        let name = &*record.key.name;
        let errors = scale::KIND.strategy.validate(asked);
        if !errors.is_empty() {
            return Err(Error::invalid(&scale::KIND, name, &errors).into());
        }
        let old = decoded(kind, record);
        let meta = asked.metadata();
        if let Some(uid) = meta.uid.as_deref().filter(|uid| !uid.is_empty()) {
            let have = old.metadata().uid.as_deref().unwrap_or_default();
            if uid != have {
                return Err(uid_mismatch(kind, name, uid, have).into());
            }
        }
        if names_version(meta) && meta.resource_version.as_deref() != Some(&*record.revision.to_string()) {
            return Err(Error::modified(kind, name).into());
        }
        let Some(asked) = asked.downcast_ref::<Scale>() else {
            return Err(Error::internal("a kind decodes its own objects").into());
        };
        let mut new = old.clone_object();
        kind.strategy.scale(&mut *new, scale::replicas(asked));
        let replacement = Replacement { record, old: &*old, new, part: Part::Main, dry_run };
        // What else is to be said of the object was said when it was written.
        let response = match self.replace(target, replacement, Vec::new()).await? {
            Response::Warned { response, .. } | Response::Accepted(response) => *response,
            response => response,
        };
        let scale = match response {
            Response::Record { record, .. } => shape(kind, &record)?,
            Response::Object { object, .. } => of(kind, &*object)?,
            _ => return Err(Error::internal("an update is answered with its object").into()),
        };
        Ok(shown(scale))
    }
}

fn shape(kind: &'static Kind, record: &Record) -> Result<Scale, Error> {
    of(kind, &*decoded(kind, record))
}

fn of(kind: &'static Kind, object: &dyn Object) -> Result<Scale, Error> {
    let scaled = kind.strategy.scaled(object).ok_or_else(|| Error::internal("the kind scales"))?;
    Ok(scale::of(object, scaled))
}

fn shown(scale: Scale) -> Response {
    Response::Object { object: Box::new(scale), created: false }
}
