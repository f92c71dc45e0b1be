//! A Job's next pod.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvVar, EnvVarSource, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, Pod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::pods::{self, INDEX_FAILURES, INDEX_IGNORED_FAILURES, NODE};
use crate::kind::job::{COMPLETION_INDEX, TRACKING_FINALIZER};
use crate::kind::{node_selector, taint};

/// The longest text that five characters can follow in a name.
const NAME_CHARS_MAX: usize = 58;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// What a pod is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Any,
    /// A completion index, and how often it failed before: counted, and ignored by the policy.
    Index(u32, Option<(i32, i32)>),
    Node(String),
}

/// How the Job's pods, and pods that it adopts, refer to it.
pub(super) fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// BEHAVIOURS 13.3 and 13.8.
pub(super) fn pod(job: &Job, place: &Place) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let given = template.metadata.unwrap_or_default();
    let mut meta = ObjectMeta {
        namespace: job.metadata.namespace.clone(),
        generate_name: Some(format!("{name}-")),
        labels: given.labels,
        annotations: given.annotations,
        finalizers: given.finalizers,
        owner_references: Some(vec![owner(job)]),
        ..ObjectMeta::default()
    };
    meta.finalizers.get_or_insert_default().push(TRACKING_FINALIZER.to_owned());
    let mut spec = template.spec.unwrap_or_default();
    match place {
        Place::Any => {}
        Place::Index(index, failures) => {
            let suffix = format!("-{index}-");
            let kept: String = name.chars().take(NAME_CHARS_MAX - suffix.len()).collect();
            meta.generate_name = Some(kept + &suffix);
            spec.hostname = Some(format!("{name}-{index}"));
            let annotations = meta.annotations.get_or_insert_default();
            annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
            if let Some((counted, ignored)) = failures {
                annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
                if *ignored > 0 {
                    annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
                }
            }
            let labels = meta.labels.get_or_insert_default();
            labels.insert(COMPLETION_INDEX.to_owned(), index.to_string());
            spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
        }
        Place::Node(node) => {
            meta.annotations.get_or_insert_default().insert(NODE.to_owned(), node.clone());
            tolerate(&mut spec);
            pin(&mut spec, node);
        }
    }
    Pod { metadata: meta, spec: Some(spec), status: None }
}

/// What the pod that replaces `last` knows of its index's failures.
pub(super) fn failures_after(last: Option<&Pod>, counts: impl Fn(&Pod) -> bool) -> (i32, i32) {
    let Some(last) = last else { return (0, 0) };
    let (counted, ignored) = (pods::index_failures(last), pods::index_ignored_failures(last));
    if counts(last) { (counted + 1, ignored) } else { (counted, ignored + 1) }
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    env.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}

/// Only on `node`, as a DaemonSet does it: the scheduler still decides whether there is room.
fn pin(spec: &mut PodSpec, node: &str) {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![name]) };
    let required = Some(NodeSelector { node_selector_terms: vec![term] });
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = required;
}

/// What the pods of a Job for each node tolerate, as those of a DaemonSet (BEHAVIOURS 12.3): such a node
/// will be well again, and then has its turn.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

fn tolerate(spec: &mut PodSpec) {
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED {
        let new = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&new) {
            tolerations.push(new);
        }
    }
}

/// Whether a pod with this spec may run on the node (BEHAVIOURS 12.2).
pub(super) fn fits(spec: &PodSpec, node: &Node) -> bool {
    let mut spec = spec.clone();
    tolerate(&mut spec);
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    spec.node_selector.as_ref().is_none_or(|wanted| node_selector::matches_map(wanted, &labels))
        && required.is_none_or(|terms| node_selector::matches(terms, node))
        && taint::untolerated(taints, tolerations, &["NoSchedule", "NoExecute"]).is_none()
}
