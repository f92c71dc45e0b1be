//! Job: pods that run to their end, so many times (BEHAVIOURS 13).
//!
//! [`spec`] is what a CronJob's template shares. Beyond Kubernetes: `completionMode: PerNode`, once on
//! each node, and the annotation [`traps::ANNOTATION`], by which failures are told apart by the trap
//! that ended a guest.

pub mod indexes;
pub mod spec;
mod status;
mod table;
pub mod traps;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};

use super::field::{Errors, Path, dns_label};
use super::selector::LabelSelector;
use super::table::Cell;
use super::{Kind, Propagation, Strategy, Subresource, validation};

/// Holds a finished pod until its Job has counted it (BEHAVIOURS 13.3).
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// From before labels of Kubernetes had a prefix.
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";

/// `completionMode` of a Job whose pods are counted only.
pub const NON_INDEXED: &str = "NonIndexed";
/// One completion for each index.
pub const INDEXED: &str = "Indexed";
/// Ours: one completion on each eligible node.
pub const PER_NODE: &str = "PerNode";

pub static KIND: Kind = Kind {
    categories: &["all"],
    subresources: &[Subresource::Status, Subresource::Queue],
    has_generation: true,
    default_propagation: Propagation::Orphan,
    warning_without_propagation: Some(
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
    ),
    columns: table::COLUMNS,
    ..Kind::namespaced(&Rules, "job")
};

struct Rules;

/// Whether a condition of the Job is True.
#[must_use]
pub fn is_true(status: Option<&JobStatus>, condition: &str) -> bool {
    let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|one| one.type_ == condition && one.status == "True")
}

/// Whether the Job is Complete or Failed.
#[must_use]
pub fn is_finished(job: &Job) -> bool {
    is_true(job.status.as_ref(), "Complete") || is_true(job.status.as_ref(), "Failed")
}

/// `completionMode`, of which absence is [`NON_INDEXED`].
#[must_use]
pub fn mode(spec: &JobSpec) -> &str {
    spec.completion_mode.as_deref().unwrap_or(NON_INDEXED)
}

/// Whether the Job is to rest.
#[must_use]
pub fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

impl Strategy for Rules {
    type Object = Job;

    fn set_defaults(&self, job: &mut Job) {
        let spec = job.spec.get_or_insert_default();
        spec::set_defaults(spec);
        spec.manual_selector.get_or_insert(false);
        if job.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
            let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
            job.metadata.labels = labels.filter(|labels| !labels.is_empty());
        }
    }

    fn prepare_create(&self, job: &mut Job) {
        job.status = Some(JobStatus::default());
        generate_selector(job);
        // As Kubernetes shows it when the object is read again.
        self.set_defaults(job);
    }

    fn prepare_update(&self, new: &mut Job, old: &Job) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Job, old: &Job) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &Job, old: &Job) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, job: &Job, errors: &mut Errors) {
        let nothing = JobSpec::default();
        let spec = job.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        validate_generated_selector(job, spec, errors);
        spec::validate(spec, &path, errors);
        if spec.selector.is_none() {
            errors.required(&path.child("selector"), "");
        }
        validation::label_selector(errors, &path.child("selector"), spec.selector.as_ref());
        let labels = template_labels(spec);
        if let Ok(selector) = LabelSelector::from_meta(spec.selector.as_ref())
            && !selector.matches(labels)
        {
            let at = path.child("template").child("metadata").child("labels");
            errors.invalid(&at, labels, "`selector` does not match template `labels`");
        }
        if mode(spec) == INDEXED && spec.completions.is_some_and(|completions| completions > 0) {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            let last = format!("{name}-{}", spec.completions.unwrap_or_default() - 1);
            if !dns_label(&last).is_empty() {
                let why = format!("will not able to create pod with invalid DNS label: {last}");
                errors.invalid(&Path::new("metadata").child("name"), name, &why);
            }
        }
        traps::validate(job, errors);
    }

    fn validate_update(&self, new: &Job, old: &Job, errors: &mut Errors) {
        spec::validate_update(new, old, errors);
    }

    fn validate_status_update(&self, new: &Job, old: &Job, errors: &mut Errors) {
        status::validate_update(new, old, errors);
    }

    fn warnings(&self, job: &Job) -> Vec<String> {
        let wrong = dns_label(job.metadata.name.as_deref().unwrap_or_default());
        if wrong.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        )]
    }

    fn fields(&self, job: &Job) -> Vec<(&'static str, String)> {
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or_default();
        vec![("status.successful", succeeded.to_string())]
    }

    fn cells(&self, job: &Job, now: Timestamp) -> Vec<Cell> {
        table::cells(job, now)
    }
}

fn template_labels(spec: &JobSpec) -> Option<&BTreeMap<String, String>> {
    spec.template.metadata.as_ref()?.labels.as_ref()
}

/// Gives the template labels by which the Job's pods are known, and selects them; what the user set is
/// left, to be judged by validation (BEHAVIOURS 13.2).
fn generate_selector(job: &mut Job) {
    let name = job.metadata.name.clone().unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let spec = job.spec.get_or_insert_default();
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (label, value) in
        [(OLD_NAME_LABEL, &name), (NAME_LABEL, &name), (OLD_UID_LABEL, &uid), (UID_LABEL, &uid)]
    {
        labels.entry(label.to_owned()).or_insert_with(|| value.clone());
    }
    let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selector.entry(UID_LABEL.to_owned()).or_insert(uid);
}

fn validate_generated_selector(job: &Job, spec: &JobSpec, errors: &mut Errors) {
    if spec.manual_selector == Some(true) || spec.selector.is_none() {
        return;
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        errors.required(&Path::new("metadata").child("uid"), "");
    }
    let expected = [(OLD_UID_LABEL, uid), (OLD_NAME_LABEL, name), (UID_LABEL, uid), (NAME_LABEL, name)];
    let path = Path::new("spec");
    let labels_path = path.child("template").child("metadata").child("labels");
    for (label, value) in expected {
        match template_labels(spec).and_then(|labels| labels.get(label)) {
            None => errors.required(&labels_path.key(label), &format!("must be '{value}'")),
            Some(found) if found != value => {
                let labels = template_labels(spec);
                errors.invalid(&labels_path.key(label), labels, &format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
    if let Ok(selector) = LabelSelector::from_meta(spec.selector.as_ref())
        && !selector.matches(Some(&expected))
    {
        errors.invalid(&path.child("selector"), &spec.selector, "`selector` not auto-generated");
    }
}
