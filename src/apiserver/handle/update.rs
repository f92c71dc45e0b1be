//! Changed objects: PUT of the object or of a part of it (BEHAVIOURS 1.1, 2.4, 4.3, 8.1).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Inner, Target, WRITE_TRIES_MAX, decoded, dry_run, match_namespace, store_failed, warned};
use crate::apiserver::admission::{self, Admission};
use crate::apiserver::authz;
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::request::{Body, Options, Response, Verb};
use crate::apiserver::status::Error;
use crate::kind::field::{Errors, FieldError, Path};
use crate::kind::{Kind, Object, metadata};
use crate::store::{CommitError, Expect, Record};

const OPTIONS: &str = "UpdateOptions";

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status.
    Main,
    Status,
    /// A pod's list of ephemeral containers.
    EphemeralContainers,
    /// A namespace's `spec.finalizers`.
    Finalize,
}

/// Why one try at a write did not happen.
pub(super) enum Failure {
    /// Somebody else wrote the object meanwhile.
    Raced,
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The object that is stored and the one that is to take its place.
pub(super) struct Replacement<'a> {
    pub(super) record: &'a Arc<Record>,
    pub(super) old: &'a dyn Object,
    pub(super) new: Box<dyn Object>,
    pub(super) part: Part,
    pub(super) dry_run: bool,
}

impl Inner {
    pub(super) async fn update(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
        part: Part,
    ) -> Result<Response, Error> {
        let kind = target.kind;
        let dry_run = dry_run(&options.dry_run, OPTIONS)?;
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        let Decoded { mut object, warnings } = decode::decode(kind, body, validation)?;
        match_namespace(target, &mut *object)?;
        let name = target.name()?;
        match_name(name, &*object)?;
        let conditional = names_version(object.metadata());
        for _ in 0..WRITE_TRIES_MAX {
            let Some(record) = self.store.get(&target.key(name)) else {
                if !kind.create_on_update || part != Part::Main || conditional {
                    return Err(Error::not_found(kind, name));
                }
                authz::authorize(&target.user, Verb::Create, kind, None, target.namespace.as_deref(), None)?;
                return self.create_object(target, object, dry_run, warnings).await;
            };
            if !conditional && !kind.unconditional_update {
                return Err(lacks_version(kind, name));
            }
            let old = decoded(kind, &record);
            // Only a write that may be tried again needs the object again.
            let (new, rest) = if conditional {
                (object, None)
            } else {
                let copy = object.clone_object();
                (object, Some(copy))
            };
            let replacement = Replacement { record: &record, old: &*old, new, part, dry_run };
            match (self.replace(target, replacement, warnings.clone()).await, rest) {
                (Ok(response), _) => return Ok(response),
                (Err(Failure::Refused(error)), _) => return Err(error),
                (Err(Failure::Raced), None) => return Err(Error::modified(kind, name)),
                (Err(Failure::Raced), Some(copy)) => object = copy,
            }
        }
        Err(Error::modified(kind, name))
    }

    /// One try at putting one object in another's place.
    pub(super) async fn replace(
        &self,
        target: &Target,
        replacement: Replacement<'_>,
        mut warnings: Vec<String>,
    ) -> Result<Response, Failure> {
        let Replacement { record, old, mut new, part, dry_run } = replacement;
        let kind = target.kind;
        let name = &*record.key.name;
        check_identity(kind, record, old.metadata(), new.metadata())?;
        take_over(new.metadata_mut(), old.metadata(), part);
        let _allocating = if part == Part::Main && admission::allocates(kind) {
            Some(self.allocation.lock().await)
        } else {
            None
        };
        let admission = Admission {
            store: &self.store,
            clock: &self.clock,
            random: &self.random,
            plan: self.plan,
            user: &target.user,
            kind,
            namespace: target.namespace.as_deref(),
        };
        admission.check_node(old)?;
        let mut errors = Errors::default();
        match part {
            Part::Main => {
                kind.strategy.set_defaults(&mut *new);
                admission.update(&mut *new, old)?;
                kind.strategy.prepare_update(&mut *new, old);
                if kind.has_generation && kind.strategy.spec_changed(&*new, old) {
                    let generation = new.metadata().generation.unwrap_or_default();
                    new.metadata_mut().generation = Some(generation + 1);
                }
                metadata::validate_update(new.metadata(), old.metadata(), &mut errors);
                errors.extend(kind.strategy.validate(&*new));
                errors.extend(kind.strategy.validate_update(&*new, old));
            }
            Part::Status => {
                kind.strategy.prepare_status_update(&mut *new, old);
                metadata::validate_update(new.metadata(), old.metadata(), &mut errors);
                errors.extend(kind.strategy.validate_status_update(&*new, old));
            }
            Part::EphemeralContainers => {
                kind.strategy.set_defaults(&mut *new);
                kind.strategy.prepare_ephemeral_update(&mut *new, old);
                errors.extend(kind.strategy.validate_ephemeral_update(&*new, old));
            }
            Part::Finalize => {
                new = admission::finalized(&*new, old);
                errors.extend(kind.strategy.validate(&*new));
            }
        }
        if !errors.is_empty() {
            return Err(Error::invalid(kind, name, &errors).into());
        }
        if part == Part::Main {
            warnings.extend(kind.strategy.warnings(&*new));
            warnings.extend(admission::warning(&*new));
        }
        if goes(&*new) {
            return self.let_go(record, new, dry_run, warnings).await;
        }
        if new.equals(old) {
            let response = Response::Record { record: record.clone(), created: false };
            return Ok(warned(warnings, response));
        }
        if dry_run {
            return Ok(warned(warnings, Response::Object { object: new, created: false }));
        }
        new.metadata_mut().resource_version = None;
        let encoded = new.encode();
        match self.put(&record.key, Expect::Revision(record.revision), new, encoded, None).await {
            Ok(record) => Ok(warned(warnings, Response::Record { record, created: false })),
            Err(CommitError::Conflict { .. }) => Err(Failure::Raced),
            Err(error @ CommitError::Unwritable(_)) => Err(store_failed(&error).into()),
        }
    }

    /// The update that emptied the finalizers of an object in deletion: it is gone, and the answer
    /// still shows it (BEHAVIOURS 4.3).
    async fn let_go(
        &self,
        record: &Arc<Record>,
        mut object: Box<dyn Object>,
        dry_run: bool,
        warnings: Vec<String>,
    ) -> Result<Response, Failure> {
        if !dry_run {
            match self.remove(record).await {
                Ok(gone) => object.metadata_mut().resource_version = Some(gone.revision.to_string()),
                Err(CommitError::Conflict { .. }) => return Err(Failure::Raced),
                Err(error @ CommitError::Unwritable(_)) => return Err(store_failed(&error).into()),
            }
        }
        Ok(warned(warnings, Response::Object { object, created: false }))
    }
}

/// Whether nothing holds an object in deletion any longer.
fn goes(object: &dyn Object) -> bool {
    let meta = object.metadata();
    meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or_default() == 0
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && !admission::has_spec_finalizers(object)
}

/// The object is the one the client thinks it is, at the version it thinks it is.
fn check_identity(kind: &Kind, record: &Record, old: &ObjectMeta, new: &ObjectMeta) -> Result<(), Error> {
    let name = &*record.key.name;
    if let Some(uid) = new.uid.as_deref().filter(|uid| !uid.is_empty()) {
        let have = old.uid.as_deref().unwrap_or_default();
        if uid != have {
            return Err(uid_mismatch(kind, name, uid, have));
        }
    }
    if !names_version(new) {
        return Ok(());
    }
    let text = new.resource_version.as_deref().unwrap_or_default();
    match text.parse::<u64>() {
        Ok(version) if version == record.revision => Ok(()),
        Ok(_) => Err(Error::modified(kind, name)),
        Err(_) => {
            let mut errors = Errors::default();
            let path = Path::new("metadata").child("resourceVersion");
            errors.invalid(&path, text, "must be the version of an object, as the server gave it");
            Err(Error::invalid(kind, name, &errors))
        }
    }
}

/// Whether metadata names a version of the object; `0` stands for none.
pub(super) fn names_version(meta: &ObjectMeta) -> bool {
    meta.resource_version.as_deref().is_some_and(|text| !text.is_empty() && text != "0")
}

/// 409 when an object of that name has another uid than was asked for.
pub(super) fn uid_mismatch(kind: &Kind, name: &str, asked: &str, have: &str) -> Error {
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {have}");
    Error::conflict(kind, name, &why)
}

/// Brings the metadata of a change to what clients cannot change.
fn take_over(new: &mut ObjectMeta, old: &ObjectMeta, part: Part) {
    new.uid.clone_from(&old.uid);
    new.resource_version.clone_from(&old.resource_version);
    new.generation = old.generation;
    if new.creation_timestamp.is_none() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    new.managed_fields = None;
    new.self_link = None;
    if part != Part::Main {
        // `status` changes labels and annotations besides itself.
        new.creation_timestamp.clone_from(&old.creation_timestamp);
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
        new.finalizers.clone_from(&old.finalizers);
        new.owner_references.clone_from(&old.owner_references);
        new.generate_name.clone_from(&old.generate_name);
    }
}

fn match_name(name: &str, object: &dyn Object) -> Result<(), Error> {
    match object.metadata().name.as_deref().unwrap_or_default() {
        "" => Err(Error::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given if given == name => Ok(()),
        given => Err(Error::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
    }
}

fn lacks_version(kind: &Kind, name: &str) -> Error {
    let error = FieldError {
        field: "metadata.resourceVersion".into(),
        reason: "FieldValueInvalid",
        message: "Invalid value: 0x0: must be specified for an update".into(),
    };
    Error::invalid(kind, name, &Errors(vec![error]))
}
