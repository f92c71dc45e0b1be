//! Deletion: at once, with grace, or held by finalizers (BEHAVIOURS 4).

mod decide;

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};

use super::update::uid_mismatch;
use super::{Inner, Target, WRITE_TRIES_MAX, decoded, dry_run, store_failed, warned};
use crate::apiserver::admission::{self, Admission};
use crate::apiserver::decode;
use crate::apiserver::filter::Filter;
use crate::apiserver::request::{Body, List, Options, Response};
use crate::apiserver::status::{self, Error};
use crate::kind::Object;
use crate::store::{CommitError, Expect, Record};
use decide::{Asked, Decision, Policy, decide};

const OPTIONS: &str = "DeleteOptions";

/// Deletions of a collection that wait for the store at the same time, so that they share flushes.
const DELETIONS_AT_ONCE: usize = 64;

/// How to delete, from the body or the query.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    grace_seconds: Option<i64>,
    policy: Option<Policy>,
    uid: Option<String>,
    resource_version: Option<String>,
    pub(super) dry_run: bool,
    /// Whether what does not go at once is answered with 202, which only old clients ask for
    /// (BEHAVIOURS 4.1).
    accepts: bool,
}

impl Inner {
    pub(super) async fn delete(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let wish = wish(options, body)?;
        let response = self.delete_one(target, target.name()?, &wish).await?;
        let response = match response {
            Response::Record { .. } if wish.accepts => Response::Accepted(Box::new(response)),
            response => response,
        };
        let warning = target.kind.warning_without_propagation.filter(|_| wish.policy.is_none());
        Ok(warned(warning.into_iter().map(str::to_owned).collect(), response))
    }

    /// Many deletions, not one transaction (BEHAVIOURS 4.8).
    pub(super) async fn delete_collection(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let wish = wish(options, body)?;
        let filter = Filter::parse(target.kind, options, target.name.as_deref())?;
        let listing = self.store.list(&target.range(), None, None, &|one| filter.keeps(one));
        let deletions = listing.records.clone().into_iter().map(|record| {
            let one = Target {
                user: target.user.clone(),
                kind: target.kind,
                namespace: Some(record.key.namespace.to_string()).filter(|text| !text.is_empty()),
                name: None,
            };
            let (wish, name) = (&wish, record.key.name.clone());
            async move {
                match self.delete_one(&one, &name, wish).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.is_not_found() => Ok(()),
                    Err(error) => Err(error),
                }
            }
        });
        stream::iter(deletions).buffer_unordered(DELETIONS_AT_ONCE).try_collect::<()>().await?;
        Ok(Response::List(List {
            kind: target.kind,
            revision: self.store.revision(),
            records: listing.records,
            continue_token: None,
            remaining: None,
        }))
    }

    pub(super) async fn delete_one(
        &self,
        target: &Target,
        name: &str,
        wish: &Wish,
    ) -> Result<Response, Error> {
        let kind = target.kind;
        let key = target.key(name);
        let admission = Admission {
            store: &self.store,
            clock: &self.clock,
            random: &self.random,
            plan: self.plan,
            user: &target.user,
            kind,
            namespace: target.namespace.as_deref(),
        };
        admission.delete(name)?;
        for _ in 0..WRITE_TRIES_MAX {
            let Some(record) = self.store.get(&key) else { return Err(Error::not_found(kind, name)) };
            let old = decoded(kind, &record);
            check_preconditions(target, &record, &*old, wish)?;
            admission.check_node(&*old)?;
            let requested = wish.grace_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
            let asked = Asked {
                grace_seconds: requested,
                grace_seconds_decided: kind.strategy.deletion_grace_seconds(&*old, requested),
                policy: wish.policy,
                policy_default: kind.default_propagation,
                held_otherwise: admission::has_spec_finalizers(&*old),
            };
            let done = match decide(old.metadata(), self.now(), &asked) {
                Decision::Keep => Ok(Response::Record { record: record.clone(), created: false }),
                Decision::Remove => self.delete_now(target, &record, &*old, wish.dry_run).await,
                Decision::Mark(marks) => {
                    let mut new = old.clone_object();
                    let meta = new.metadata_mut();
                    let begins = meta.deletion_timestamp.is_none();
                    meta.deletion_timestamp = Some(Time(marks.deletion_timestamp));
                    meta.deletion_grace_period_seconds = Some(marks.grace_seconds);
                    meta.finalizers = (!marks.finalizers.is_empty()).then_some(marks.finalizers);
                    if begins && kind.has_generation {
                        meta.generation = Some(meta.generation.unwrap_or_default() + 1);
                    }
                    admission::mark_terminating(&mut *new);
                    self.mark(&record, new, wish.dry_run).await
                }
            };
            match done {
                Ok(response) => return Ok(response),
                Err(CommitError::Conflict { .. }) => {}
                Err(error @ CommitError::Unwritable(_)) => return Err(store_failed(&error)),
            }
        }
        Err(Error::modified(kind, name))
    }

    async fn delete_now(
        &self,
        target: &Target,
        record: &Arc<Record>,
        old: &dyn Object,
        dry_run: bool,
    ) -> Result<Response, CommitError> {
        let revision = if dry_run { record.revision } else { self.remove(record).await?.revision };
        let uid = old.metadata().uid.as_deref().unwrap_or_default();
        let status = status::success(target.kind, &record.key.name, uid);
        Ok(Response::Deleted { status, revision })
    }

    async fn mark(
        &self,
        record: &Arc<Record>,
        mut new: Box<dyn Object>,
        dry_run: bool,
    ) -> Result<Response, CommitError> {
        if dry_run {
            return Ok(Response::Object { object: new, created: false });
        }
        new.metadata_mut().resource_version = None;
        let encoded = new.encode();
        let expect = Expect::Revision(record.revision);
        let record = self.put(&record.key, expect, new, encoded, None).await?;
        Ok(Response::Record { record, created: false })
    }
}

pub(super) fn check_preconditions(
    target: &Target,
    record: &Record,
    old: &dyn Object,
    wish: &Wish,
) -> Result<(), Error> {
    let (kind, name) = (target.kind, &*record.key.name);
    let uid = old.metadata().uid.as_deref().unwrap_or_default();
    if let Some(asked) = wish.uid.as_deref().filter(|asked| *asked != uid) {
        return Err(uid_mismatch(kind, name, asked, uid));
    }
    let have = record.revision.to_string();
    if let Some(asked) = wish.resource_version.as_deref().filter(|asked| *asked != have) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {have}"
        );
        return Err(Error::conflict(kind, name, &why));
    }
    Ok(())
}

/// The options of a deletion: the body's if there is one, else the query's.
fn wish(options: &Options, body: Body) -> Result<Wish, Error> {
    let is_empty = match &body {
        Body::Empty => true,
        Body::Bytes { bytes, .. } => bytes.is_empty(),
        Body::Object(_) | Body::Value { .. } => false,
    };
    let mut given: DeleteOptions = if is_empty {
        DeleteOptions {
            grace_period_seconds: options.grace_period_seconds,
            propagation_policy: options.propagation_policy.clone(),
            orphan_dependents: options.orphan_dependents,
            dry_run: Some(options.dry_run.clone()),
            ..DeleteOptions::default()
        }
    } else {
        decode::document(body, OPTIONS)?
    };
    let mut dry_run_values = given.dry_run.take().unwrap_or_default();
    if dry_run_values.is_empty() {
        dry_run_values.clone_from(&options.dry_run);
    }
    given.dry_run = Some(dry_run_values);
    Wish::of(given)
}

impl Wish {
    pub(super) fn of(given: DeleteOptions) -> Result<Self, Error> {
        let policy = Policy::parse(given.propagation_policy.as_deref(), given.orphan_dependents)
            .map_err(|errors| Error::invalid_options(OPTIONS, &errors))?;
        let preconditions = given.preconditions.unwrap_or_default();
        Ok(Self {
            grace_seconds: given.grace_period_seconds,
            policy,
            accepts: given.orphan_dependents == Some(false),
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run: dry_run(&given.dry_run.unwrap_or_default(), OPTIONS)?,
        })
    }

    /// Whether only one version of the object is to be deleted.
    pub(super) fn names_version(&self) -> bool {
        self.resource_version.is_some()
    }

    pub(super) fn require_version(&mut self, revision: u64) {
        self.resource_version = Some(revision.to_string());
    }
}
