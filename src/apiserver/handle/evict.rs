//! `pods/eviction`: deletes a pod if its disruption budget allows that (BEHAVIOURS 8.5).
//!
//! What the budget allows is decided on its status, which the disruption controller works out. The pod's
//! condition `DisruptionTarget` and one disruption less in the budget are one transaction; the deletion
//! follows.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status, Time};

use super::delete::{Wish, check_preconditions};
use super::{Inner, Target, WRITE_TRIES_MAX, decoded, dry_run, match_namespace, store_failed, warned};
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::pod_disruption_budget::{ALWAYS_ALLOW, DISRUPTION_TARGET, covers, tell_allowed};
use crate::kind::{Object, eviction, pod_disruption_budget};
use crate::store::{Change, CommitError, Expect, Range, Write};

const OPTIONS: &str = "CreateOptions";

/// Evictions that the disruption controller has still to see, above which a budget allows no more
/// (upstream's `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;
/// When to try again while the controller has not seen a changed budget yet.
const RETRY_SECONDS: i32 = 10;

impl Inner {
    pub(super) async fn evict(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        let Decoded { mut object, warnings } = decode::decode(&eviction::KIND, body, validation)?;
        match_namespace(target, &mut *object)?;
        let Ok(eviction) = object.into_any().downcast::<Eviction>() else {
            return Err(Error::internal("the eviction's kind decodes evictions"));
        };
        let name = target.name()?;
        if eviction.metadata.name.as_deref() != Some(name) {
            return Err(Error::bad_request("name in URL does not match name in Eviction object"));
        }
        let wish = wish(eviction.delete_options.unwrap_or_default(), options)?;
        for _ in 0..WRITE_TRIES_MAX {
            match self.try_to_evict(target, name, &wish).await {
                Ok(true) => return Ok(warned(warnings, evicted())),
                Ok(false) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::modified(target.kind, name))
    }

    /// One try; `false` if somebody else wrote the pod or its budget meanwhile.
    async fn try_to_evict(&self, target: &Target, name: &str, wish: &Wish) -> Result<bool, Error> {
        let record = self.find(target)?;
        let old = decoded(target.kind, &record);
        let Some(pod) = old.downcast_ref::<Pod>() else { return Err(Error::internal("pods are pods")) };
        check_preconditions(target, &record, pod, wish)?;
        let collection = pod_disruption_budget::KIND.collection();
        let range = Range { collection, namespace: target.namespace.as_deref().map(Into::into) };
        let budgets = self.store.list(&range, None, None, &|_| true).records;
        let budgets: Vec<_> = budgets
            .into_iter()
            .map(|record| (decoded(&pod_disruption_budget::KIND, &record), record))
            .collect();
        let known = budgets.iter().filter_map(|(budget, record)| Some((budget.downcast_ref()?, record)));
        let covering: Vec<_> = known.filter(|(budget, _)| covers(budget, pod)).collect();
        let permit =
            decide(pod, &covering.iter().map(|(budget, _)| *budget).collect::<Vec<_>>(), self.now())?;
        let mut wish = wish.clone();
        if !wish.dry_run {
            let mut revision = record.revision;
            let mut marked = Box::new(pod.clone());
            mark(&mut marked, self.now());
            // The pod that was looked at, even if nothing of it changes.
            let expect = Expect::Revision(revision);
            if *marked != *pod || permit.charged.is_some() {
                let budget =
                    permit.charged.as_ref().zip(covering.first()).map(|(charged, (_, record))| Write {
                        key: record.key.clone(),
                        expect: Expect::Revision(record.revision),
                        change: put(Box::new(charged.clone())),
                    });
                marked.metadata.resource_version = None;
                let encoded = marked.encode();
                match self.put(&record.key, expect, marked, encoded, budget).await {
                    Ok(record) => revision = record.revision,
                    Err(CommitError::Conflict { .. }) if wish.names_version() => {
                        return Err(Error::modified(target.kind, name));
                    }
                    Err(CommitError::Conflict { .. }) => return Ok(false),
                    Err(error @ CommitError::Unwritable(_)) => return Err(store_failed(&error)),
                }
            }
            if permit.only_as_seen || wish.names_version() {
                wish.require_version(revision);
            }
        }
        match self.delete_one(target, name, &wish).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() && permit.only_as_seen => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn put(mut budget: Box<PodDisruptionBudget>) -> Change {
    budget.metadata.resource_version = None;
    let encoded = budget.encode();
    Change::Put { object: budget, encoded }
}

/// How to delete the pod: as the eviction says, and as a dry run if either it or the request says so.
fn wish(mut given: DeleteOptions, options: &Options) -> Result<Wish, Error> {
    let asked = given.dry_run.get_or_insert_default();
    if asked.is_empty() {
        asked.clone_from(&options.dry_run);
    } else if !options.dry_run.is_empty() && *asked != options.dry_run {
        return Err(Error::bad_request(format!(
            "Non-matching dry-run options in request and content: {:?} and {:?}",
            options.dry_run, asked
        )));
    }
    dry_run(&options.dry_run, OPTIONS)?;
    Wish::of(given)
}

/// 201, without details, as upstream answers.
fn evicted() -> Response {
    Response::Status(Status { status: Some("Success".into()), code: Some(201), ..Status::default() })
}

fn mark(pod: &mut Pod, now: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let before = conditions.iter().find(|one| one.type_ == DISRUPTION_TARGET && one.status == "True");
    let since = before.and_then(|one| one.last_transition_time.clone());
    let condition = PodCondition {
        type_: DISRUPTION_TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: since.or(Some(Time(now))),
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|one| one.type_ == DISRUPTION_TARGET) {
        Some(one) => *one = condition,
        None => conditions.push(condition),
    }
}

/// What lets a pod be evicted.
#[derive(Debug, Default, PartialEq)]
struct Permit {
    /// The budget, with one disruption less.
    charged: Option<PodDisruptionBudget>,
    /// Nothing was charged because of what the pod is like: it must still be so when it is deleted.
    only_as_seen: bool,
}

/// Whether the pod may go, by the budgets that cover it (upstream `pkg/registry/core/pod/storage/eviction.go`).
fn decide(pod: &Pod, budgets: &[&PodDisruptionBudget], now: Timestamp) -> Result<Permit, Error> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Succeeded" | "Failed") {
        // It disturbs nobody any more.
        return Ok(Permit::default());
    }
    if phase == "Pending" {
        return Ok(Permit { only_as_seen: true, ..Permit::default() });
    }
    let budget = match budgets {
        [] => return Ok(Permit::default()),
        [budget] => *budget,
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Error::new(500, "", message));
        }
    };
    let status = budget.status.clone().unwrap_or_default();
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let is_whole = status.current_healthy >= status.desired_healthy && status.desired_healthy > 0;
    if !is_ready(pod) && (policy == Some(ALWAYS_ALLOW) || is_whole) {
        // It is not among those that the budget counts.
        return Ok(Permit { only_as_seen: true, ..Permit::default() });
    }
    charge(pod, budget, now).map(|charged| Permit { charged: Some(charged), only_as_seen: false })
}

fn charge(pod: &Pod, budget: &PodDisruptionBudget, now: Timestamp) -> Result<PodDisruptionBudget, Error> {
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let mut charged = budget.clone();
    let status = charged.status.get_or_insert_default();
    if status.observed_generation.unwrap_or_default() < budget.metadata.generation.unwrap_or_default() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(&why).with_retry_after(RETRY_SECONDS));
    }
    let kind = &pod_disruption_budget::KIND;
    if status.disruptions_allowed < 0 {
        return Err(Error::forbidden(kind, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = status.disrupted_pods.get_or_insert_default();
    if disrupted.len() > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Error::forbidden(kind, name, why));
    }
    if status.disruptions_allowed == 0 {
        return Err(refused(&format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy, status.current_healthy
        )));
    }
    disrupted.insert(pod.metadata.name.clone().unwrap_or_default(), Time(now));
    status.disruptions_allowed -= 1;
    if status.disruptions_allowed == 0 {
        tell_allowed(status, now);
    }
    Ok(charged)
}

/// 429, which clients such as `kubectl drain` take as a word to wait.
fn refused(why: &str) -> Error {
    Error::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
        .with_cause("DisruptionBudget", why, "")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

#[cfg(test)]
mod tests;
