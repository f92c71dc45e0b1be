use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

use super::*;
use crate::controller::owned;

fn meta(name: &str, deleting: bool, finalizers: &[&str], owners: &[(&str, &str)]) -> ObjectMeta {
    let owner = |(kind, name): &(&str, &str)| OwnerReference {
        api_version: "v1".into(),
        kind: (*kind).to_owned(),
        name: (*name).to_owned(),
        uid: format!("uid-{name}"),
        block_owner_deletion: Some(true),
        controller: None,
    };
    ObjectMeta {
        namespace: Some("ns".into()),
        name: Some(name.into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some("7".into()),
        deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
        finalizers: (!finalizers.is_empty()).then(|| finalizers.iter().map(|f| (*f).to_owned()).collect()),
        owner_references: (!owners.is_empty()).then(|| owners.iter().map(owner).collect()),
        ..ObjectMeta::default()
    }
}

fn map(meta: ObjectMeta) -> Arc<dyn Object> {
    Arc::new(ConfigMap { metadata: meta, ..ConfigMap::default() })
}

fn seen(objects: &[ObjectMeta]) -> Snapshot {
    let mut seen = Snapshot::new(Garbage.indexes());
    for meta in objects {
        seen.insert(KindRef::of::<ConfigMap>(), map(meta.clone()));
    }
    seen
}

fn render(action: &Action) -> String {
    match action {
        Action::Delete { key, uid, propagation_policy, .. } => {
            format!("delete {} {uid} {}", key.name, propagation_policy.unwrap())
        }
        Action::RequireAbsent(key, uid) => {
            format!("require no {}/{} {}", key.kind.0.plural, key.name, uid.as_deref().unwrap())
        }
        Action::Patch(key, patch) => {
            let meta = &patch["metadata"];
            assert_eq!(
                (meta["uid"].as_str(), meta["resourceVersion"].as_str()),
                (Some(&*format!("uid-{}", key.name)), Some("7"))
            );
            let mut text = format!("patch {}", key.name);
            if let Some(finalizers) = meta.get("finalizers") {
                text += &format!(" finalizers {finalizers}");
            }
            if let Some(owners) = meta.get("ownerReferences") {
                let names: Vec<String> = owners
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|owner| {
                        let blocks = if owner["blockOwnerDeletion"] == true { "!" } else { "" };
                        format!("{}{blocks}", owner["name"].as_str().unwrap())
                    })
                    .collect();
                text += &format!(" owners {names:?}");
            }
            text
        }
        Action::Warn { reason, .. } => format!("warn {reason}"),
        other => format!("{other:?}"),
    }
}

/// What is decided about the config map `a` among these.
#[track_caller]
fn check(objects: &[ObjectMeta], expected: &[&str]) {
    let key = Key::new(KindRef::of::<ConfigMap>(), "ns", "a");
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
    let decision = Garbage.reconcile(&seen(objects), &key, moment);
    assert_eq!(decision.actions.iter().map(render).collect::<Vec<_>>(), expected);
}

const OWNED: &[(&str, &str)] = &[("ConfigMap", "o")];

/// 4.4, 4.6
#[test]
fn what_has_no_owner_left_goes() {
    check(&[meta("a", false, &[], &[])], &[]);
    check(&[meta("a", false, &[], OWNED), meta("o", false, &[], &[])], &[]);
    check(&[meta("a", false, &[], OWNED)], &["require no configmaps/o uid-o", "delete a uid-a Background"]);
    // Same name, other uid.
    let mut other = meta("o", false, &[], &[]);
    other.uid = Some("new".into());
    check(
        &[meta("a", false, &[], OWNED), other],
        &["require no configmaps/o uid-o", "delete a uid-a Background"],
    );
    // One live owner of two keeps it.
    check(
        &[meta("a", false, &[], &[("ConfigMap", "o"), ("ConfigMap", "p")]), meta("p", false, &[], &[])],
        &["require no configmaps/o uid-o", "patch a owners [\"p!\"]"],
    );
    // An owner in background deletion, held by a finalizer of somebody, is still there.
    check(&[meta("a", false, &[], OWNED), meta("o", true, &["x/y"], &[])], &[]);
    // A kind that is not served says nothing.
    check(&[meta("a", false, &[], &[("Widget", "o")])], &[]);
    // Already going.
    check(&[meta("a", true, &["x/y"], OWNED)], &[]);
}

/// 4.4
#[test]
fn foreground_deletion_waits_for_blocking_dependents() {
    let owner = || meta("a", true, &[FOREGROUND, "x/y"], &[]);
    check(&[owner()], &["patch a finalizers [\"x/y\"]"]);
    check(&[owner(), meta("d", false, &[], &[("ConfigMap", "a")])], &[]);
    let mut free = meta("d", false, &[], &[("ConfigMap", "a")]);
    free.owner_references.as_mut().unwrap()[0].block_owner_deletion = None;
    check(&[owner(), free], &["patch a finalizers [\"x/y\"]"]);
    // Its dependents see it as no owner: they go, in the foreground if they have dependents.
    let waiting = || meta("o", true, &[FOREGROUND], &[]);
    check(&[meta("a", false, &[], OWNED), waiting()], &["delete a uid-a Background"]);
    check(
        &[meta("a", false, &[], OWNED), waiting(), meta("d", false, &[], &[("ConfigMap", "a")])],
        &["delete a uid-a Foreground"],
    );
    check(
        &[
            meta("a", false, &[], &[("ConfigMap", "o"), ("ConfigMap", "p")]),
            waiting(),
            meta("p", false, &[], &[]),
        ],
        &["patch a owners [\"p!\"]"],
    );
}

/// 4.6
#[test]
fn circles_are_broken() {
    check(
        &[meta("a", true, &[FOREGROUND], OWNED), meta("o", true, &[FOREGROUND], &[("ConfigMap", "a")])],
        &["patch a owners [\"o\"]"],
    );
}

/// 4.4
#[test]
fn orphaning_lets_the_dependents_go_first() {
    let owner = || meta("a", true, &[ORPHAN], &[]);
    check(&[owner()], &["patch a finalizers []"]);
    check(
        &[
            owner(),
            meta("d", false, &[], &[("ConfigMap", "a"), ("ConfigMap", "p")]),
            meta("e", false, &[], &[("ConfigMap", "a")]),
        ],
        &["patch d owners [\"p!\"]", "patch e owners []"],
    );
}

/// 4.6
#[test]
fn a_cluster_object_cannot_have_a_namespaced_owner() {
    let mut node = meta("a", false, &[], OWNED);
    node.namespace = None;
    let kind = KindRef::of::<Node>();
    let mut seen = Snapshot::new(Garbage.indexes());
    seen.insert(kind, Arc::new(Node { metadata: node, ..Node::default() }));
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
    // It would warn at every look, so it does nothing else and is looked at only when it changes.
    let decision = Garbage.reconcile(&seen, &Key::new(kind, "", "a"), moment);
    assert_eq!(decision.actions.iter().map(render).collect::<Vec<_>>(), ["warn OwnerRefInvalidNamespace"]);
}

fn woken(seen: &Snapshot, change: &Change<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    Garbage.wakes(seen, change, &mut |key| keys.push(key.name));
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[test]
fn changes_wake_dependents_and_waiting_owners() {
    let kind = KindRef::of::<ConfigMap>();
    let owner = map(meta("o", false, &[], &[]));
    let going = map(meta("o", true, &[FOREGROUND], &[]));
    let dependent = map(meta("a", false, &[], OWNED));
    let mut seen =
        seen(&[meta("o", false, &[], &[]), meta("a", false, &[], OWNED), meta("b", false, &[], OWNED)]);
    assert!(woken(&seen, &Change { kind, old: Some(&owner), new: Some(&owner) }).is_empty());
    assert_eq!(woken(&seen, &Change { kind, old: Some(&owner), new: None }), ["a", "b"]);
    assert_eq!(woken(&seen, &Change { kind, old: Some(&owner), new: Some(&going) }), ["a", "b", "o"]);
    assert_eq!(woken(&seen, &Change { kind, old: None, new: Some(&dependent) }), ["a"]);
    seen.insert(kind, going);
    assert_eq!(woken(&seen, &Change { kind, old: Some(&dependent), new: None }), ["o"]);
    // Objects without owners cost nothing.
    let secret: Arc<dyn Object> = Arc::new(Secret::default());
    let change = Change { kind: KindRef::of::<Secret>(), old: None, new: Some(&secret) };
    assert!(woken(&seen, &change).is_empty());
}

/// A deployment, its replica set and its pod, and what the API would do with them.
struct Chain {
    seen: Snapshot,
    lines: Vec<String>,
}

impl Chain {
    fn new(change_pod: impl FnOnce(&mut ObjectMeta)) -> Self {
        let meta = |name: &str, owner: Option<&dyn Object>| ObjectMeta {
            owner_references: owner.map(|owner| vec![owned::controller_reference(owner)]),
            ..meta(name, false, &[], &[])
        };
        let deployment = Deployment { metadata: meta("d", None), ..Deployment::default() };
        let set = ReplicaSet { metadata: meta("r", Some(&deployment)), ..ReplicaSet::default() };
        let mut pod = Pod { metadata: meta("p", Some(&set)), ..Pod::default() };
        change_pod(&mut pod.metadata);
        let mut seen = Snapshot::new(Garbage.indexes());
        seen.insert(KindRef::of::<Deployment>(), Arc::new(deployment));
        seen.insert(KindRef::of::<ReplicaSet>(), Arc::new(set));
        seen.insert(KindRef::of::<Pod>(), Arc::new(pod));
        Self { seen, lines: Vec::new() }
    }

    /// Changes the metadata of an object, which goes if it is being deleted and nothing holds it.
    fn change(&mut self, key: &Key, change: impl FnOnce(&mut ObjectMeta)) {
        let old = self.seen.get_any(key.kind, &key.namespace, &key.name).expect("it is there");
        let mut new = old.clone_object();
        change(new.metadata_mut());
        let meta = new.metadata();
        if meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty) {
            self.seen.remove(key.kind, &key.namespace, &key.name);
            self.lines.push(format!("{} is gone", key.name));
        } else {
            self.seen.insert(key.kind, Arc::from(new));
        }
    }

    fn delete(&mut self, key: &Key, policy: &str) {
        let finalizer = match policy {
            "Foreground" => Some(FOREGROUND),
            "Orphan" => Some(ORPHAN),
            _ => None,
        };
        self.change(key, |meta| {
            meta.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
            meta.finalizers.get_or_insert_default().extend(finalizer.map(str::to_owned));
        });
    }

    /// Decides about all, from the owner down, until nothing is left to do.
    fn settle(&mut self) {
        let keys = [KindRef::of::<Deployment>(), KindRef::of::<ReplicaSet>(), KindRef::of::<Pod>()];
        let keys = keys.map(|kind| Key::new(kind, "ns", &kind.0.singular[..1]));
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
        loop {
            let before = self.lines.len();
            for key in &keys {
                let decision = Garbage.reconcile(&self.seen, key, moment);
                self.lines.extend(decision.actions.iter().map(render));
                for action in decision.actions {
                    match action {
                        Action::RequireAbsent(key, _) => {
                            assert!(self.seen.get_any(key.kind, &key.namespace, &key.name).is_none());
                        }
                        Action::Delete { key, propagation_policy, .. } => {
                            self.delete(&key, propagation_policy.unwrap());
                        }
                        Action::Patch(key, patch) => self.change(&key, |meta| {
                            let mut value = serde_json::to_value(&*meta).unwrap();
                            json_patch::merge(&mut value, &patch["metadata"]);
                            *meta = serde_json::from_value(value).unwrap();
                        }),
                        other => panic!("{other:?}"),
                    }
                }
            }
            if self.lines.len() == before {
                return;
            }
        }
    }
}

/// What follows when a deployment is deleted with this policy.
#[track_caller]
fn check_chain(policy: &str, expected: &[&str]) {
    let mut chain = Chain::new(|_| {});
    chain.delete(&Key::new(KindRef::of::<Deployment>(), "ns", "d"), policy);
    chain.settle();
    assert_eq!(chain.lines, expected);
}

/// 4.4
#[test]
fn a_policy_reaches_from_a_deployment_to_its_pods() {
    check_chain(
        "Background",
        &[
            "d is gone",
            "require no deployments/d uid-d",
            "delete r uid-r Background",
            "r is gone",
            "require no replicasets/r uid-r",
            "delete p uid-p Background",
            "p is gone",
        ],
    );
    check_chain(
        "Foreground",
        &[
            "delete r uid-r Foreground",
            "delete p uid-p Background",
            "p is gone",
            "patch r finalizers []",
            "r is gone",
            "patch d finalizers []",
            "d is gone",
        ],
    );
    // The set keeps its pods: it is not deleted.
    check_chain("Orphan", &["patch r owners []", "patch d finalizers []", "d is gone"]);
}

/// 4.3, 4.4
#[test]
fn what_holds_a_pod_holds_its_owners_in_the_foreground_only() {
    let held = |meta: &mut ObjectMeta| meta.finalizers = Some(vec!["x/y".to_owned()]);
    let deployment = Key::new(KindRef::of::<Deployment>(), "ns", "d");
    let pod = Key::new(KindRef::of::<Pod>(), "ns", "p");
    let mut chain = Chain::new(held);
    chain.delete(&deployment, "Foreground");
    chain.settle();
    assert_eq!(chain.lines, ["delete r uid-r Foreground", "delete p uid-p Background"]);
    chain.change(&pod, |meta| meta.finalizers = None);
    chain.settle();
    assert_eq!(
        chain.lines[2..],
        ["p is gone", "patch r finalizers []", "r is gone", "patch d finalizers []", "d is gone"]
    );
    let mut chain = Chain::new(held);
    chain.delete(&deployment, "Background");
    chain.settle();
    assert_eq!(
        chain.lines.iter().filter(|line| line.ends_with("is gone")).collect::<Vec<_>>(),
        ["d is gone", "r is gone"]
    );
}
