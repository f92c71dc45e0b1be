//! CronJob: Jobs on a schedule (BEHAVIOURS 14).

pub mod extras;

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job, JobTemplateSpec};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::field::{Errors, Path, dns_label};
use super::schedule::{Schedule, time_zone};
use super::table::{self, Cell, Column, column, described};
use super::validation::{choice, not_negative};
use super::{Kind, Strategy, Subresource, pod};
pub use extras::Extras;

pub static KIND: Kind = Kind {
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[Subresource::Status, Subresource::Trigger],
    has_generation: true,
    columns: &[
        table::NAME,
        described(
            "Schedule",
            "string",
            0,
            "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
        ),
        described(
            "Timezone",
            "string",
            0,
            "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process.",
        ),
        described(
            "Suspend",
            "boolean",
            0,
            "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
        ),
        described("Active", "integer", 0, "A list of pointers to currently running jobs."),
        described(
            "Last Schedule",
            "string",
            0,
            "Information when was the last time the job was successfully scheduled.",
        ),
        table::AGE,
        Column {
            description: "Names of each container in the template.",
            ..column("Containers", "string", 1)
        },
        Column {
            description: "Images referenced by each container in the template.",
            ..column("Images", "string", 1)
        },
        described(
            "Selector",
            "string",
            1,
            "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ),
    ],
    ..Kind::namespaced(&Rules, "cronjob")
};

pub const ALLOW: &str = "Allow";
pub const FORBID: &str = "Forbid";
pub const REPLACE: &str = "Replace";

/// On a Job: the time it was started for, RFC 3339.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// On a Job that no schedule started.
pub const INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";
pub const MANUAL: &str = "manual";

/// Characters a name may have: its Jobs' names are eleven longer and must be labels.
const NAME_CHARS_MAX: usize = 52;
/// Characters of a part of a time zone's name (IANA's theory of names).
const ZONE_PART_CHARS_MAX: usize = 14;

/// The schedule that the spec says; times without a zone are those of `local`.
pub fn schedule(spec: &CronJobSpec, local: &TimeZone) -> Result<Schedule, String> {
    let zone = match spec.time_zone.as_deref() {
        Some(name) => time_zone(name)?,
        None => local.clone(),
    };
    Schedule::parse(&spec.schedule, &zone).map_err(|error| error.to_string())
}

/// A Job of the template, owned by the CronJob, with more annotations.
#[must_use]
pub fn job_of(cron_job: &CronJob, name: String, more: BTreeMap<String, String>) -> Job {
    let template = cron_job.spec.as_ref().map(|spec| spec.job_template.clone()).unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.extend(more);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron_job.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: KIND.api_version(),
                kind: KIND.kind.to_owned(),
                name: cron_job.metadata.name.clone().unwrap_or_default(),
                uid: cron_job.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

struct Rules;

impl Strategy for Rules {
    type Object = CronJob;

    fn set_defaults(&self, cron_job: &mut CronJob) {
        let spec = cron_job.spec.get_or_insert_default();
        spec.concurrency_policy.get_or_insert_with(|| ALLOW.to_owned());
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        pod::template::set_defaults(&mut spec.job_template.spec.get_or_insert_default().template);
    }

    fn prepare_create(&self, cron_job: &mut CronJob) {
        cron_job.status = Some(CronJobStatus::default());
    }

    fn prepare_update(&self, new: &mut CronJob, old: &CronJob) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut CronJob, old: &CronJob) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &CronJob, old: &CronJob) -> bool {
        new.spec != old.spec
    }

    fn validate_create(&self, cron_job: &CronJob, errors: &mut Errors) {
        validate_spec(cron_job, None, errors);
        let name = cron_job.metadata.name.as_deref().unwrap_or_default();
        if name.len() > NAME_CHARS_MAX {
            let why = format!("must be no more than {NAME_CHARS_MAX} characters");
            errors.invalid(&Path::new("metadata.name"), name, &why);
        }
    }

    fn validate_update(&self, new: &CronJob, old: &CronJob, errors: &mut Errors) {
        validate_spec(new, old.spec.as_ref(), errors);
    }

    fn warnings(&self, cron_job: &CronJob) -> Vec<String> {
        let mut warnings = Vec::new();
        let name = cron_job.metadata.name.as_deref().unwrap_or_default();
        let wrong = dns_label(name);
        if !wrong.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
                wrong.join(" ")
            ));
        }
        warnings.extend(Extras::of(&cron_job.metadata).1);
        warnings
    }

    fn cells(&self, cron_job: &CronJob, now: Timestamp) -> Vec<Cell> {
        let spec = cron_job.spec.clone().unwrap_or_default();
        let status = cron_job.status.as_ref();
        let last = status.and_then(|status| status.last_schedule_time.as_ref());
        let active = status.and_then(|status| status.active.as_ref()).map_or(0, Vec::len);
        let no_pod = PodSpec::default();
        let job = spec.job_template.spec.as_ref();
        let containers = &job.and_then(|job| job.template.spec.as_ref()).unwrap_or(&no_pod).containers;
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        let images: Vec<&str> =
            containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
        let suspend = match spec.suspend {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        vec![
            table::name(cron_job),
            Cell::Text(spec.schedule),
            Cell::or_none(spec.time_zone.as_deref().unwrap_or_default()),
            Cell::Text(suspend.to_owned()),
            table::count(active),
            Cell::or_none(&last.map_or_else(String::new, |last| table::since(Some(last.0), now))),
            table::age(cron_job, now),
            Cell::Text(names.join(",")),
            Cell::Text(images.join(",")),
            // Templates have none (it is generated for each Job).
            Cell::or_none(""),
        ]
    }
}

fn validate_spec(cron_job: &CronJob, old: Option<&CronJobSpec>, errors: &mut Errors) {
    let path = Path::new("spec");
    let nothing = CronJobSpec::default();
    let spec = cron_job.spec.as_ref().unwrap_or(&nothing);
    if spec.schedule.is_empty() {
        errors.required(&path.child("schedule"), "");
    } else {
        validate_schedule(spec, old, &path.child("schedule"), errors);
    }
    if let Some(seconds) = spec.starting_deadline_seconds {
        not_negative(errors, &path.child("startingDeadlineSeconds"), seconds);
    }
    if old.is_none_or(|old| old.time_zone != spec.time_zone)
        && let Some(name) = &spec.time_zone
    {
        validate_time_zone(name, &path.child("timeZone"), errors);
    }
    let policy = spec.concurrency_policy.as_deref().unwrap_or_default();
    if policy.is_empty() {
        errors.required(&path.child("concurrencyPolicy"), "");
    } else {
        choice(errors, &path.child("concurrencyPolicy"), policy, &[ALLOW, FORBID, REPLACE]);
    }
    validate_template(&spec.job_template, &path.child("jobTemplate").child("spec"), errors);
    if let Some(limit) = spec.successful_jobs_history_limit {
        not_negative(errors, &path.child("successfulJobsHistoryLimit"), limit.into());
    }
    if let Some(limit) = spec.failed_jobs_history_limit {
        not_negative(errors, &path.child("failedJobsHistoryLimit"), limit.into());
    }
}

fn validate_schedule(spec: &CronJobSpec, old: Option<&CronJobSpec>, path: &Path, errors: &mut Errors) {
    let text = &spec.schedule;
    if let Err(error) = Schedule::parse(text, &TimeZone::UTC) {
        errors.invalid(path, text, &error.to_string());
    }
    // An object that has it already may keep it (BEHAVIOURS 14.2).
    let tolerated = old.is_some_and(|old| old.schedule.contains("TZ"));
    if text.contains("TZ") && !tolerated {
        errors.invalid(path, text, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if text.contains("TZ") && spec.time_zone.is_some() {
        errors.invalid(path, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
    }
}

fn validate_time_zone(name: &str, path: &Path, errors: &mut Errors) {
    let is_part = |part: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
        let length = 1..=ZONE_PART_CHARS_MAX;
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.chars().all(letter)
            && length.contains(&part.len())
    };
    if name.is_empty() {
        errors.invalid(path, name, "timeZone must be nil or non-empty string");
    } else if !name.split('/').all(is_part) {
        errors.invalid(path, name, &format!("unknown time zone {name}"));
    } else if name.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, name, why);
    } else if let Err(why) = time_zone(name) {
        errors.invalid(path, name, &why);
    }
}

fn validate_template(template: &JobTemplateSpec, path: &Path, errors: &mut Errors) {
    let spec = template.spec.clone().unwrap_or_default();
    super::job::spec::validate(&spec, path, errors);
    if let Some(selector) = &spec.selector {
        errors.invalid(&path.child("selector"), selector, "`selector` will be auto-generated");
    }
    if spec.manual_selector == Some(true) {
        errors.unsupported(&path.child("manualSelector"), true, &["nil", "false"]);
    }
}

#[cfg(test)]
mod tests;
