//! A Job's next pod.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::pods::{self, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use crate::controller::{eligibility, owned};
use crate::kind::job::{COMPLETION_INDEX, TRACKING_FINALIZER};

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

/// BEHAVIOURS 13.3 and 13.8.
pub(super) fn pod(job: &Job, place: &Place) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = owned::pod_of(&template, job);
    let meta = &mut pod.metadata;
    meta.finalizers.get_or_insert_default().push(TRACKING_FINALIZER.to_owned());
    let spec = pod.spec.get_or_insert_default();
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
            eligibility::tolerate(spec);
            eligibility::pin(spec, node);
        }
    }
    pod
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
