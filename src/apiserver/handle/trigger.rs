//! `cronjobs/trigger`: starts a Job of a CronJob's template now, which is ours: Kubernetes leaves it to
//! clients (`kubectl create job --from`), who cannot change the template on the way.
//!
//! ```text
//! POST /apis/batch/v1/namespaces/NS/cronjobs/NAME/trigger
//! {"apiVersion":"coracle.dev/v1","kind":"Trigger",  may be left out, as everything else and the body itself
//!  "name":"backup-now",            the Job's name; else it is generated from the CronJob's
//!  "container":"main",             which container the next two are for; else the template's first
//!  "args":["--full"],              in place of the template's
//!  "env":{"LEVEL":"debug"}}        laid over the template's, variable by variable
//! ```
//!
//! The answer is the Job (201). It is the CronJob's, marked as `kubectl create job --from` marks its own
//! (BEHAVIOURS 14.8), so history limits count it and concurrencyPolicy does not. A suspended CronJob can
//! be triggered. The template itself stays as it is.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde::Deserialize;

use super::{Inner, Target, decoded, dry_run};
use crate::apiserver::decode;
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::cron_job::{self, INSTANTIATE, MANUAL};
use crate::kind::job;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Trigger {
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    container: Option<String>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
}

impl Inner {
    pub(super) async fn trigger(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let dry_run = dry_run(&options.dry_run, "CreateOptions")?;
        let trigger: Trigger = decode::document(body, "Trigger")?;
        trigger.check_type()?;
        let record = self.find(target)?;
        let found = decoded(target.kind, &record);
        let cron_job = found.downcast_ref::<CronJob>().ok_or_else(|| Error::internal("not a CronJob"))?;
        if cron_job.metadata.deletion_timestamp.is_some() {
            let why = "it is being deleted, so no Job of it can be started";
            return Err(Error::conflict(target.kind, target.name()?, why));
        }
        let job = trigger.job(cron_job)?;
        let jobs = Target {
            user: target.user.clone(),
            kind: &job::KIND,
            namespace: target.namespace.clone(),
            name: None,
        };
        self.create_object(&jobs, Box::new(job), dry_run, Vec::new()).await
    }
}

impl Trigger {
    fn check_type(&self) -> Result<(), Error> {
        let version = self.api_version.as_deref().unwrap_or("coracle.dev/v1");
        let kind = self.kind.as_deref().unwrap_or("Trigger");
        if (version, kind) == ("coracle.dev/v1", "Trigger") {
            return Ok(());
        }
        Err(Error::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a Trigger of coracle.dev/v1"
        )))
    }

    fn job(self, cron_job: &CronJob) -> Result<Job, Error> {
        let name = self.name.unwrap_or_default();
        let manual = BTreeMap::from([(INSTANTIATE.to_owned(), MANUAL.to_owned())]);
        let mut job = cron_job::job_of(cron_job, name.clone(), manual);
        if name.is_empty() {
            job.metadata.name = None;
            let base = cron_job.metadata.name.as_deref().unwrap_or_default();
            job.metadata.generate_name = Some(format!("{base}-"));
        }
        if self.args.is_none() && self.env.is_none() && self.container.is_none() {
            return Ok(job);
        }
        let pod = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        let containers = pod.map(|pod| pod.containers.as_mut_slice()).unwrap_or_default();
        let container = find(containers, self.container.as_deref(), cron_job)?;
        if let Some(args) = self.args {
            container.args = Some(args);
        }
        for (name, value) in self.env.into_iter().flatten() {
            let variables = container.env.get_or_insert_default();
            let laid = EnvVar { name, value: Some(value), value_from: None };
            match variables.iter_mut().find(|variable| variable.name == laid.name) {
                Some(variable) => *variable = laid,
                None => variables.push(laid),
            }
        }
        Ok(job)
    }
}

fn find<'a>(
    containers: &'a mut [Container],
    name: Option<&str>,
    cron_job: &CronJob,
) -> Result<&'a mut Container, Error> {
    let names: Vec<String> = containers.iter().map(|container| container.name.clone()).collect();
    let found = match name {
        Some(name) => containers.iter_mut().find(|container| container.name == name),
        None => containers.first_mut(),
    };
    found.ok_or_else(|| {
        let cron_job = cron_job.metadata.name.as_deref().unwrap_or_default();
        Error::bad_request(format!(
            "the template of cronjobs.batch {cron_job:?} has no container {:?}; it has: {}",
            name.unwrap_or_default(),
            names.join(", ")
        ))
    })
}
