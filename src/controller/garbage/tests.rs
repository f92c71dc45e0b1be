use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;

use super::*;

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
