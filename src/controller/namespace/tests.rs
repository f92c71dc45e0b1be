use k8s_openapi::api::core::v1::{ConfigMap, NamespaceSpec};

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

struct Case {
    terminating: bool,
    finalizers: &'static [&'static str],
    content: Vec<Content>,
}

fn base() -> Case {
    Case { terminating: true, finalizers: &["kubernetes"], content: Vec::new() }
}

fn content<K: crate::kind::Typed>(
    untouched: bool,
    finalizers: &[(&str, usize)],
    lingering: usize,
) -> Content {
    let finalizers = finalizers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    Content { kind: KindRef::of::<K>(), untouched, lingering, finalizers }
}

fn namespace(case: &Case) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some("n".into()),
            deletion_timestamp: case.terminating.then_some(Time(NOW)),
            ..ObjectMeta::default()
        },
        spec: Some(NamespaceSpec {
            finalizers: Some(case.finalizers.iter().map(|f| (*f).to_owned()).collect()),
        }),
        ..Namespace::default()
    }
}

fn render(action: &Action) -> String {
    match action {
        Action::DeleteCollection(kind, namespace) => format!("delete {} in {namespace}", kind.0.plural),
        Action::RequireEmpty(namespace) => format!("require {namespace} empty"),
        Action::Update(_, object, Some(Subresource::Finalize)) => {
            let namespace: &Namespace = object.downcast_ref().unwrap();
            format!("finalize {:?}", namespace.spec.as_ref().unwrap().finalizers.as_deref().unwrap())
        }
        Action::Update(_, object, Some(Subresource::Status)) => {
            let namespace: &Namespace = object.downcast_ref().unwrap();
            let conditions = namespace.status.as_ref().unwrap().conditions.as_ref().unwrap();
            let hanging = conditions.iter().filter(|condition| condition.status == "True");
            let texts =
                hanging.map(|c| format!("{} {}", c.reason.as_ref().unwrap(), c.message.as_ref().unwrap()));
            format!("status {}", texts.collect::<Vec<_>>().join("; "))
        }
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(case: Case, expected: &[&str]) {
    let actions = decide(&namespace(&case), &case.content, NOW);
    assert_eq!(actions.iter().map(render).collect::<Vec<_>>(), expected);
}

/// 11.3, 11.4
#[test]
fn content_goes_pods_first_then_the_finalizer() {
    check(Case { terminating: false, ..base() }, &[]);
    check(base(), &["require n empty", "finalize []"]);
    check(
        Case { finalizers: &["mine", "kubernetes"], ..base() },
        &["require n empty", "finalize [\"mine\"]"],
    );
    check(Case { finalizers: &["mine"], ..base() }, &[]);
    let map = || content::<ConfigMap>(true, &[], 0);
    check(Case { content: vec![map()], ..base() }, &["delete configmaps in n"]);
    check(Case { content: vec![map(), content::<Pod>(true, &[], 0)], ..base() }, &["delete pods in n"]);
    check(
        Case { content: vec![map(), content::<Pod>(false, &[], 1)], ..base() },
        &["status SomeResourcesRemain Some resources are remaining: pods. has 1 resource instances"],
    );
    check(
        Case { content: vec![content::<ConfigMap>(true, &[("a.b/c", 2)], 3)], ..base() },
        &[
            "delete configmaps in n",
            "status SomeResourcesRemain Some resources are remaining: configmaps. has 3 resource instances; \
             SomeFinalizersRemain Some finalizers are remaining: a.b/c in 2 resource instances",
        ],
    );
}

#[test]
fn conditions_are_written_once_and_keep_their_times() {
    let lingering = [content::<Pod>(false, &[], 1)];
    let mut namespace = namespace(&base());
    namespace.status = status(&namespace, &[&lingering[0]], NOW);
    let conditions = namespace.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let types: Vec<&str> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(
        types,
        [
            "NamespaceDeletionDiscoveryFailure",
            "NamespaceDeletionGroupVersionParsingFailure",
            "NamespaceDeletionContentFailure",
            "NamespaceContentRemaining",
            "NamespaceFinalizersRemaining"
        ]
    );
    let later = NOW + jiff::SignedDuration::from_secs(5);
    assert!(decide(&namespace, &lingering, later).is_empty(), "nothing new to say");
    let two = content::<Pod>(false, &[], 2);
    let changed = status(&namespace, &[&two], later).unwrap();
    let condition = &changed.conditions.as_ref().unwrap()[3];
    assert_eq!(condition.last_transition_time, Some(Time(NOW)), "it was True before");
}
