//! Does what controllers decided, and tells which revisions that made.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinSet;

use super::driver::watched;
use super::fault::Fault;
use super::{Action, KindRef, snapshot};
use crate::client::{Client, DeleteOptions, Recorder, Result};

/// Actions of one [`Action::Together`] under way at one time. They wait for the store's flushes, each
/// of which takes all that is there.
const TOGETHER_MAX: usize = 256;

/// The newest revision that was written of each kind.
pub(super) type Wrote = BTreeMap<KindRef, u64>;

/// What became of a decision.
#[derive(Default)]
pub(super) struct Applied {
    pub(super) wrote: Wrote,
    /// `Ok(false)` if a requirement did not hold.
    pub(super) result: Option<Result<bool>>,
}

impl Applied {
    fn take(&mut self, other: Self) {
        for (kind, revision) in other.wrote {
            self.wrote(kind, revision);
        }
        // The first failure is told; what lies beneath a requirement that does not hold is not an error.
        if !matches!(self.result, Some(Err(_) | Ok(false))) {
            self.result = other.result;
        }
    }

    fn wrote(&mut self, kind: KindRef, revision: u64) {
        let newest = self.wrote.entry(KindRef(kind.0.stored_kind())).or_default();
        *newest = revision.max(*newest);
    }

    fn goes_on(&self) -> bool {
        !matches!(self.result, Some(Err(_) | Ok(false)))
    }
}

/// The hands of one controller.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) controller: &'static str,
    pub(super) fault: Option<Fault>,
}

impl Hands {
    /// Applies actions in order, up to the first that fails.
    pub(super) async fn apply_all(&self, actions: Vec<Action>) -> Applied {
        let mut all = Applied::default();
        for action in actions {
            all.take(self.apply(action).await);
            if !all.goes_on() {
                break;
            }
        }
        all
    }

    /// Writes what is to be said of a failure, after which the decision is made again.
    pub(super) async fn tell_failure(&self, actions: Vec<Action>, wrote: Wrote) -> Applied {
        let told = self.apply_all(actions).await;
        let mut all = Applied { wrote, result: Some(Ok(false)) };
        all.take(told);
        all
    }

    fn apply(&self, action: Action) -> Pin<Box<dyn Future<Output = Applied> + Send + '_>> {
        Box::pin(async move {
            match action {
                Action::Together(actions) => self.together(actions).await,
                Action::InOrder(actions) => self.apply_all(actions).await,
                action => {
                    let mut done = Applied::default();
                    done.result = Some(self.apply_one(action, &mut done).await);
                    done
                }
            }
        })
    }

    /// Tasks, so that a second core takes part in what a write costs before it waits.
    async fn together(&self, actions: Vec<Action>) -> Applied {
        let mut left = actions.into_iter().enumerate();
        let mut tasks = JoinSet::new();
        let mut done = Vec::with_capacity(left.len());
        loop {
            while tasks.len() < TOGETHER_MAX
                && let Some((number, action)) = left.next()
            {
                let hands = self.clone();
                tasks.spawn(async move { (number, hands.apply(action).await) });
            }
            match tasks.join_next().await {
                Some(one) => done.push(one.expect("applying does not panic")),
                None => break,
            }
        }
        done.sort_unstable_by_key(|(number, _)| *number);
        let mut all = Applied::default();
        for (_, one) in done {
            all.take(one);
        }
        all
    }

    async fn apply_one(&self, action: Action, done: &mut Applied) -> Result<bool> {
        if let Some(fault) = &self.fault
            && action.writes()
        {
            fault.pass(self.controller).await;
        }
        let client = &self.client;
        match action {
            Action::Create(kind, object) => {
                let is_named = object.metadata().name.is_some();
                match client.create_any(kind.0, object).await {
                    Ok((_, revision)) => done.wrote(kind, revision),
                    // A generated name that was taken made nothing.
                    Err(error) if error.is_already_exists() && is_named => {}
                    Err(error) => return Err(error),
                }
            }
            Action::CreateFor(kind, object, owner, words) => {
                let is_named = object.metadata().name.is_some();
                match client.create_any(kind.0, object).await {
                    Ok((name, revision)) => {
                        done.wrote(kind, revision);
                        let message = format!("{}{name}", words.created);
                        self.recorder.normal(&owner, "SuccessfulCreate", message);
                    }
                    Err(error) if error.is_already_exists() && is_named => {}
                    // The owner goes with it.
                    Err(error) if error.is_namespace_terminating() => {}
                    Err(error) => {
                        let message = format!("{}{error}", words.failed);
                        self.recorder.warning(&owner, "FailedCreate", message);
                        return Err(error);
                    }
                }
            }
            Action::Update(kind, object, subresource) => {
                let updated = client.update_any(kind.0, object, subresource).await;
                done.wrote(kind, forgive_missing(updated)?);
            }
            Action::Patch(key, patch) => {
                let patched = client.merge_patch_any(key.kind.0, &key.namespace, &key.name, patch).await;
                done.wrote(key.kind, forgive_missing(patched)?);
            }
            Action::Delete { key, uid, grace_period_seconds, propagation_policy } => {
                let options = DeleteOptions { uid: Some(uid), grace_period_seconds, propagation_policy };
                let deleted = client.delete_any(key.kind.0, &key.namespace, &key.name, options).await;
                match deleted {
                    // Another object has the name now.
                    Err(error) if error.is_conflict() => return Ok(false),
                    deleted => done.wrote(key.kind, forgive_missing(deleted)?),
                }
            }
            Action::DeleteFor { key, uid, owner } => {
                let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
                let deleted = client.delete_any(key.kind.0, &key.namespace, &key.name, options).await;
                match deleted {
                    Ok(revision) => {
                        done.wrote(key.kind, revision);
                        let message = format!("Deleted {}: {}", key.kind.0.singular, key.name);
                        self.recorder.normal(&owner, "SuccessfulDelete", message);
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) if error.is_conflict() => return Ok(false),
                    Err(error) => {
                        self.recorder.warning(&owner, "FailedDelete", format!("Error deleting: {error}"));
                        return Err(error);
                    }
                }
            }
            Action::DeleteCollection(kind, namespace) => {
                let options =
                    DeleteOptions { propagation_policy: Some("Background"), ..DeleteOptions::default() };
                client.delete_collection(kind.0, &namespace, options).await?;
            }
            Action::RequireAbsent(key, uid) => {
                match client.get_any(key.kind.0, &key.namespace, &key.name).await {
                    Ok(found) => return Ok(uid.is_some_and(|uid| snapshot::uid(&*found) != uid)),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            Action::RequirePresent(key, uid) => {
                match client.get_any(key.kind.0, &key.namespace, &key.name).await {
                    Ok(found) => {
                        let going = found.metadata().deletion_timestamp.is_some();
                        return Ok(!going && snapshot::uid(&*found) == uid);
                    }
                    Err(error) if error.is_not_found() => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            Action::RequireEmpty(namespace) => {
                for kind in watched().filter(|kind| kind.0.is_namespaced()) {
                    if !client.list_keys(kind.0, &namespace).await?.is_empty() {
                        return Ok(false);
                    }
                }
            }
            Action::Warn { about, reason, message } => self.recorder.warning(&about, reason, message),
            Action::Event { about, reason, message } => self.recorder.normal(&about, reason, message),
            Action::Together(_) | Action::InOrder(_) => unreachable!("taken apart before"),
        }
        Ok(true)
    }
}

/// The revision of a write; none if its object is gone, which is as good.
fn forgive_missing(result: Result<u64>) -> Result<u64> {
    match result {
        Err(error) if error.is_not_found() => Ok(0),
        result => result,
    }
}
