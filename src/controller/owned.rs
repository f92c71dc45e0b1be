//! What all that own pods share: whose an object is, how a pod is made from a template, when it counts,
//! and which pods go first (upstream's `controller_ref_manager.go` and `controller_utils.go`).
//!
//! Ownership is by uid (BEHAVIOURS 4.6). Objects that match a selector and have no controller are
//! adopted, owned ones that stopped matching are released (4.7), both by patches of the version that was
//! seen; before the first adoption the API is asked whether the owner is still there. Those that go are
//! released too: what they still wait for may be the owner's finalizer.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use super::snapshot::Give;
use super::{Action, Change, Index, Key, KindRef, Snapshot, Words, snapshot};
use crate::kind::selector::LabelSelector;
use crate::kind::{Object, Typed, field};

/// Objects by their controller's uid.
const BY_CONTROLLER: &str = "objects by their controller's uid";
/// Objects that could be adopted, by namespace.
const ORPHANS: &str = "adoptable objects by namespace";

/// What a controller must list as its indexes to use this module.
pub static INDEXES: [Index; 2] =
    [Index { name: BY_CONTROLLER, of: by_controller }, Index { name: ORPHANS, of: orphans }];

/// Pods of which one decision makes or deletes no more (upstream's burst of replica sets is 500, of
/// daemon sets 250).
pub const BURST: usize = 500;

/// A pod with this annotation goes before those with a higher number; 0 without it.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn by_controller(object: &dyn Object, give: Give<'_>) {
    if let Some(owner) = controller_of(object.metadata()) {
        give(&owner.uid, 0);
    }
}

fn orphans(object: &dyn Object, give: Give<'_>) {
    let any = object.as_any();
    if (any.is::<Pod>() || any.is::<ReplicaSet>() || any.is::<ControllerRevision>())
        && controller_of(object.metadata()).is_none()
    {
        give(snapshot::namespace(object), 0);
    }
}

/// The reference to the object's controller, if it has one.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The reference by which `owner` controls its objects.
#[must_use]
pub fn controller_reference(owner: &dyn Object) -> OwnerReference {
    OwnerReference {
        api_version: owner.api_version().to_owned(),
        kind: owner.kind_name().to_owned(),
        name: snapshot::name(owner).to_owned(),
        uid: snapshot::uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// How Events name an object of any kind.
#[must_use]
pub fn reference(object: &dyn Object) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(object.api_version().to_owned()),
        kind: Some(object.kind_name().to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The objects of type `K` that the object with this uid controls, by name.
pub fn controlled<'a, K: Typed>(seen: &'a Snapshot, uid: &str) -> impl Iterator<Item = &'a K> {
    seen.indexed(BY_CONTROLLER, uid).filter_map(|(_, object)| object.downcast_ref())
}

/// What is an owner's, once the actions are done.
pub struct Claimed<'a, K> {
    pub mine: Vec<&'a K>,
    /// Adoptions and releases, to be done before all else.
    pub actions: Vec<Action>,
}

/// Finds the objects of type `K` that `owner` controls: those it has and that match `selector`, and
/// orphans that match and that `adoptable` accepts. An owner in deletion neither adopts nor releases.
/// `finalizer` is what the owner's objects have, and lose with it.
pub fn claim<'a, K: Typed>(
    seen: &'a Snapshot,
    owner: &dyn Object,
    owners: KindRef,
    selector: &LabelSelector,
    finalizer: Option<&str>,
    adoptable: impl Fn(&K) -> bool,
) -> Claimed<'a, K> {
    let kind = KindRef::of::<K>();
    let going = owner.metadata().deletion_timestamp.is_some();
    let uid = snapshot::uid(owner);
    let mut mine = Vec::new();
    let mut actions = Vec::new();
    for object in controlled::<K>(seen, uid) {
        let meta = object.metadata();
        if selector.matches(meta.labels.as_ref()) {
            mine.push(object);
        } else if !going {
            let mut new = Claim::of(object);
            new.owners.retain(|owner| owner.uid != uid);
            new.finalizers.retain(|one| Some(one.as_str()) != finalizer);
            actions.push(new.patch(kind, object));
        }
    }
    if going {
        return Claimed { mine, actions };
    }
    let mut asked = false;
    for (_, object) in seen.indexed(ORPHANS, snapshot::namespace(owner)) {
        let Some(object) = object.downcast_ref::<K>() else { continue };
        let meta = object.metadata();
        if meta.deletion_timestamp.is_some() || !selector.matches(meta.labels.as_ref()) || !adoptable(object)
        {
            continue;
        }
        if !asked {
            actions.push(Action::RequirePresent(Key::to(owners, owner), uid.to_owned()));
            asked = true;
        }
        let mut new = Claim::of(object);
        new.owners.retain(|owner| owner.uid != uid);
        new.owners.push(controller_reference(owner));
        new.finalizers
            .extend(finalizer.filter(|one| !new.finalizers.iter().any(|it| it == one)).map(str::to_owned));
        actions.push(new.patch(kind, object));
        mine.push(object);
    }
    Claimed { mine, actions }
}

/// By what an object says whose it is.
struct Claim {
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
}

impl Claim {
    fn of(object: &dyn Object) -> Self {
        let meta = object.metadata();
        Self {
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        }
    }

    /// What makes it so of `object`, as it was seen.
    fn patch(self, kind: KindRef, object: &dyn Object) -> Action {
        fn list<T: serde::Serialize>(all: &[T]) -> serde_json::Value {
            if all.is_empty() { serde_json::Value::Null } else { json!(all) }
        }
        let meta = object.metadata();
        let mut patch = json!({
            "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": list(&self.owners),
        });
        if self.finalizers != *meta.finalizers.as_deref().unwrap_or_default() {
            patch["finalizers"] = list(&self.finalizers);
        }
        Action::Patch(Key::to(kind, object), json!({ "metadata": patch }))
    }
}

/// Wakes the owners of type `K` that a change of a `C` concerns: its controllers before and after, and
/// when it is an orphan that others may want, those whose selector matches it.
pub fn wake_owners<K: Typed, C: Typed>(
    seen: &Snapshot,
    change: &Change<'_>,
    selector: impl Fn(&K) -> Option<LabelSelector>,
    wake: &mut dyn FnMut(Key),
) {
    if change.kind != KindRef::of::<C>() {
        return;
    }
    let owners = KindRef::of::<K>();
    let controller = |object: &dyn Object| {
        let owner = controller_of(object.metadata())?;
        (owner.kind == K::KIND && owner.api_version == K::API_VERSION)
            .then(|| Key::new(owners, snapshot::namespace(object), &owner.name))
    };
    let [old, new] = [change.old, change.new].map(|side| side.and_then(|object| controller(&**object)));
    if new != old
        && let Some(key) = old
    {
        wake(key);
    }
    if let Some(key) = new {
        wake(key);
    }
    let Some(object) = change.new else { return };
    let meta = object.metadata();
    let was_the_same = change
        .old
        .is_some_and(|old| controller_of(old.metadata()).is_none() && old.metadata().labels == meta.labels);
    if was_the_same || controller_of(meta).is_some() || meta.deletion_timestamp.is_some() {
        return;
    }
    for owner in seen.in_namespace(owners, snapshot::namespace(&**object)) {
        let matches = |owner| selector(owner).is_some_and(|selector| selector.matches(meta.labels.as_ref()));
        if owner.downcast_ref::<K>().is_some_and(matches) {
            wake(Key::to(owners, &**owner));
        }
    }
}

/// A pod as the template has it, named after `owner` and controlled by it.
#[must_use]
pub fn pod_of(template: &PodTemplateSpec, owner: &dyn Object) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.metadata().namespace.clone(),
            generate_name: Some(name_prefix(snapshot::name(owner))),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// What the names of an owner's pods begin with; the dash is left out where names would be too long.
fn name_prefix(owner: &str) -> String {
    let text = format!("{owner}a");
    if field::dns_subdomain(&text).is_empty() { format!("{owner}-") } else { owner.to_owned() }
}

/// Makes a pod for `owner`, with an Event about how it went.
#[must_use]
pub fn create_pod(owner: &dyn Object, pod: Pod) -> Action {
    Action::CreateFor(KindRef::of::<Pod>(), Box::new(pod), reference(owner), Words::POD)
}

/// Deletes a pod of `owner`, with an Event about how it went.
#[must_use]
pub fn delete_pod(owner: &dyn Object, pod: &Pod) -> Action {
    Action::DeleteFor {
        owner: reference(owner),
        key: Key::to(KindRef::of::<Pod>(), pod),
        uid: snapshot::uid(pod).to_owned(),
    }
}

/// The actions in batches of 1, 2, 4 and so on, each done only when the one before it has succeeded: when
/// the API refuses one pod, it will not be asked about all.
#[must_use]
pub fn slow_start(actions: Vec<Action>) -> Vec<Action> {
    let mut batches = Vec::new();
    let mut rest = actions;
    let mut size = 1;
    while !rest.is_empty() {
        let later = rest.split_off(size.min(rest.len()));
        batches.push(Action::Together(rest));
        rest = later;
        size *= 2;
    }
    batches
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Neither finished nor on its way out.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

fn condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|one| one.type_ == name)
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    condition(pod, "Ready").filter(|condition| condition.status == "True")
}

#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}

/// When a ready pod will have been ready for `min_ready_seconds`; `None` if it is not ready, or does not
/// say since when and would have to.
#[must_use]
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let ready = ready_condition(pod)?;
    let since = ready.last_transition_time.as_ref().map(|time| time.0);
    if min_ready_seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    since?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

/// Ready for at least `min_ready_seconds`.
#[must_use]
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// How long until the next of the ready pods becomes available, if one is still to.
#[must_use]
pub fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let waits = pods.into_iter().filter_map(|pod| available_at(pod, min_ready_seconds));
    let next = waits.filter(|at| *at > now).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}

/// Sorts active pods so that those that are missed the least come first (upstream's
/// `ActivePodsWithRanks`): without a node; earlier in life; not ready; cheap by annotation; on a node
/// with more of the `related` pods; ready, then created, more recently, on a scale that doubles and at
/// random within a step; restarted more often.
pub fn sort_for_deletion(pods: &mut [&Pod], related: &[&Pod], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node_of(pod)).or_default() += 1;
    }
    let rank = |pod: &Pod| on_node.get(node_of(pod)).copied().unwrap_or_default();
    pods.sort_by(|a, b| {
        by_worth(a)
            .cmp(&by_worth(b))
            .then_with(|| rank(b).cmp(&rank(a)))
            .then_with(|| {
                let since = |pod| ready_condition(pod).and_then(|c| c.last_transition_time.as_ref());
                match (since(a), since(b)) {
                    (Some(one), Some(other)) => by_age(one.0, other.0, a, b, now),
                    (one, other) => one.is_some().cmp(&other.is_some()),
                }
            })
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| {
                let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                match (created(a), created(b)) {
                    (Some(one), Some(other)) => by_age(one, other, a, b, now),
                    (one, other) => one.is_some().cmp(&other.is_some()),
                }
            })
    });
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// What of a pod's worth is the pod's own; the least comes first.
fn by_worth(pod: &Pod) -> (bool, u8, bool, i32) {
    let life = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    let cost = cost.and_then(|text| text.parse().ok()).unwrap_or(0);
    (!node_of(pod).is_empty(), life, is_ready(pod), cost)
}

/// The younger before the older if one is at least twice as old; else by uid, which is as good as random.
fn by_age(one: Timestamp, other: Timestamp, a: &Pod, b: &Pod, now: Timestamp) -> Ordering {
    if one == other {
        return Ordering::Equal;
    }
    let step = |then: Timestamp| {
        u64::try_from(now.duration_since(then).as_secs()).ok().filter(|age| *age > 0).map_or(0, u64::ilog2)
    };
    step(one).cmp(&step(other)).then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

/// The most restarts of one container, and of one that runs beside them.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |statuses: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        statuses.iter().flatten().map(|one| one.restart_count).max().unwrap_or(0)
    };
    (most(&status.container_statuses), most(&status.init_container_statuses))
}

/// The oldest first.
pub fn sort_by_age<K: Typed>(objects: &mut [&K]) {
    objects.sort_by(|a, b| {
        snapshot::created(*a)
            .cmp(&snapshot::created(*b))
            .then_with(|| snapshot::name(*a).cmp(snapshot::name(*b)))
    });
}

#[cfg(test)]
mod tests;
