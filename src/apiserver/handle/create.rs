//! New objects (BEHAVIOURS 2.1 to 2.3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::update::names_version;
use super::{Inner, Target, dry_run, match_namespace, store_failed, warned};
use crate::apiserver::admission::{self, Admission};
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::field::Errors;
use crate::kind::{Kind, Object, metadata};
use crate::store::{CommitError, Expect};

const OPTIONS: &str = "CreateOptions";

/// Characters of `generateName` that are kept, so that the whole is a DNS label.
const GENERATE_BASE_CHARS_MAX: usize = 58;
const GENERATED_CHARS: usize = 5;
const GENERATE_TRIES: usize = 8;

impl Inner {
    pub(super) async fn create(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let dry_run = dry_run(&options.dry_run, OPTIONS)?;
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        let Decoded { object, warnings } = decode::decode(target.kind, body, validation)?;
        self.create_object(target, object, dry_run, warnings).await
    }

    /// Creates `object`; its name is known or to be generated.
    pub(super) async fn create_object(
        &self,
        target: &Target,
        mut object: Box<dyn Object>,
        dry_run: bool,
        mut warnings: Vec<String>,
    ) -> Result<Response, Error> {
        let kind = target.kind;
        match_namespace(target, &mut *object)?;
        if names_version(object.metadata()) {
            return Err(Error::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let generated = self.name(target, &mut *object)?;
        self.own_metadata(kind, &mut *object);
        let _allocating = if admission::allocates(kind) { Some(self.allocation.lock().await) } else { None };
        kind.strategy.set_defaults(&mut *object);
        let admission = Admission {
            store: &self.store,
            clock: &self.clock,
            random: &self.random,
            plan: self.plan,
            user: &target.user,
            kind,
            namespace: target.namespace.as_deref(),
        };
        let mut guard = admission.create(&mut *object).await?;
        kind.strategy.prepare_create(&mut *object);
        let name = object.metadata().name.clone().unwrap_or_default();
        let mut errors = Errors::default();
        metadata::validate(object.metadata(), kind, &mut errors);
        errors.extend(kind.strategy.validate(&*object));
        errors.extend(kind.strategy.validate_create(&*object));
        if !errors.is_empty() {
            return Err(Error::invalid(kind, &name, &errors));
        }
        warnings.extend(kind.strategy.warnings(&*object));
        warnings.extend(admission::warning(&*object));
        let key = target.key(&name);
        let taken = || {
            if generated {
                Error::generate_name_taken(kind, &name)
            } else {
                Error::already_exists(kind, &name)
            }
        };
        if dry_run {
            if self.store.get(&key).is_some() {
                return Err(taken());
            }
            return Ok(warned(warnings, Response::Object { object, created: true }));
        }
        let encoded = object.encode();
        loop {
            match self.put(&key, Expect::Absent, object, encoded.clone(), guard.take()).await {
                Ok(record) => return Ok(warned(warnings, Response::Record { record, created: true })),
                Err(CommitError::Conflict { key: conflicting, .. }) if conflicting == key => {
                    return Err(taken());
                }
                Err(CommitError::Conflict { .. }) => {
                    // The namespace changed meanwhile. It may be going.
                    guard = admission.namespace_guard(&name)?;
                    object =
                        kind.stored_kind().strategy.decode_json(&encoded.json).map_err(Error::internal)?;
                }
                Err(error @ CommitError::Unwritable(_)) => return Err(store_failed(&error)),
            }
        }
    }

    /// Settles `metadata.name`: the body's, the URL's, or a generated one; whether it was generated.
    fn name(&self, target: &Target, object: &mut dyn Object) -> Result<bool, Error> {
        let meta = object.metadata_mut();
        if meta.name.as_deref().is_some_and(|name| !name.is_empty()) {
            return Ok(false);
        }
        let Some(base) = meta.generate_name.as_deref().filter(|base| !base.is_empty()) else {
            return Ok(false);
        };
        let base: String = base.chars().take(GENERATE_BASE_CHARS_MAX).collect();
        let mut name = String::new();
        for _ in 0..GENERATE_TRIES {
            name = format!("{base}{}", self.random.name_suffix(GENERATED_CHARS));
            if self.store.get(&target.key(&name)).is_none() {
                meta.name = Some(name);
                return Ok(true);
            }
        }
        Err(Error::generate_name_taken(target.kind, &name))
    }

    /// What only the server sets (BEHAVIOURS 2.3).
    fn own_metadata(&self, kind: &Kind, object: &mut dyn Object) {
        let uid = self.random.uid();
        let now = Time(self.now());
        let meta = object.metadata_mut();
        meta.uid = Some(uid);
        meta.creation_timestamp = Some(now);
        meta.generation = kind.has_generation.then_some(1);
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.managed_fields = None;
        meta.self_link = None;
        meta.resource_version = None;
    }
}
