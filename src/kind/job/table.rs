//! kubectl's view of a Job (upstream `printJob`).

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{is_suspended, is_true};
use crate::kind::table::{self, Cell, Column, column, described, human_duration};

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    described("Status", "string", 0, "Status of the job."),
    described(
        "Completions",
        "string",
        0,
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
    ),
    described("Duration", "string", 0, "Time required to complete the job."),
    table::AGE,
    described("Containers", "string", 1, "Names of each container in the template."),
    described("Images", "string", 1, "Images referenced by each container in the template."),
    Column {
        description: "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ..column("Selector", "string", 1)
    },
];

pub(super) fn cells(job: &Job, now: Timestamp) -> Vec<Cell> {
    let (no_spec, no_status, no_pod) = (JobSpec::default(), JobStatus::default(), PodSpec::default());
    let spec = job.spec.as_ref().unwrap_or(&no_spec);
    let status = job.status.as_ref().unwrap_or(&no_status);
    let containers = &spec.template.spec.as_ref().unwrap_or(&no_pod).containers;
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> =
        containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
    vec![
        table::name(job),
        Cell::Text(state(job, spec, status).to_owned()),
        Cell::Text(completions(spec, status)),
        Cell::Text(duration(status, now)),
        table::age(job, now),
        Cell::Text(names.join(",")),
        Cell::Text(images.join(",")),
        Cell::Text(selector(spec.selector.as_ref())),
    ]
}

fn state(job: &Job, spec: &JobSpec, status: &JobStatus) -> &'static str {
    let is = |condition| is_true(Some(status), condition);
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if is("Suspended") || is_suspended(spec) && status.start_time.is_none() {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(spec: &JobSpec, status: &JobStatus) -> String {
    let succeeded = status.succeeded.unwrap_or_default();
    match (spec.completions, spec.parallelism.unwrap_or_default()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) if super::mode(spec) == super::PER_NODE => succeeded.to_string(),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(status: &JobStatus, now: Timestamp) -> String {
    let Some(started) = &status.start_time else { return String::new() };
    let end = status.completion_time.as_ref().map_or(now, |time| time.0);
    human_duration(end.duration_since(started.0).as_secs())
}

/// Upstream's `FormatLabelSelector`, for the labels that selectors of Jobs are made of.
fn selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "<none>".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.as_deref().unwrap_or_default().join(",");
        match one.operator.as_str() {
            "In" => format!("{} in ({values})", one.key),
            "NotIn" => format!("{} notin ({values})", one.key),
            "DoesNotExist" => format!("!{}", one.key),
            _ => one.key.clone(),
        }
    });
    let all: Vec<String> = labels.chain(expressions).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}
