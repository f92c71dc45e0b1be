//! `coracle trigger`: starts a CronJob's Job now.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::batch::v1::CronJob;
use serde_json::json;

use super::access::Cluster;
use super::{Failure, one_line};
use crate::client::remote::Remote;
use crate::kind::Subresource;

/// Start a Job of a CronJob now, beside its schedule
///
/// The Job is made of the CronJob's template as it is, or with other arguments and environment variables,
/// which leave the template alone. A suspended CronJob can be triggered too.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  coracle trigger cronjob/backup\n  \
    coracle trigger cj/backup -n prod --name backup-before-upgrade\n  \
    coracle trigger cj/backup --env LEVEL=debug -- --full --verbose")]
pub(super) struct Trigger {
    /// cronjob/NAME (or cj/NAME)
    #[arg(value_name = "cronjob/NAME")]
    target: Target,
    #[command(flatten)]
    cluster: Cluster,
    /// The Job's name [default: generated from the CronJob's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The container that --env and the arguments are for [default: the template's first]
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Set an environment variable, in place of the template's if it has it
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Only ask the server whether it would do it
    #[arg(long)]
    dry_run: bool,
    /// Arguments in place of the template's
    #[arg(last = true, value_name = "ARGS")]
    args: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target(String);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("cronjob", text));
        if !matches!(kind, "cronjob" | "cronjobs" | "cj" | "cronjobs.batch") {
            return Err(format!("{kind:?} cannot be triggered; it must be cronjob/NAME"));
        }
        if name.is_empty() || name.contains(['/', '%']) {
            return Err(format!("{name:?} is not a name; it must be cronjob/NAME"));
        }
        Ok(Self(name.to_owned()))
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} must be NAME=VALUE")),
    }
}

impl Trigger {
    pub(super) fn run(&self) -> Result<(), Failure> {
        super::runtime()?.block_on(self.trigger())
    }

    fn body(&self) -> serde_json::Value {
        let mut body = json!({ "apiVersion": "coracle.dev/v1", "kind": "Trigger" });
        if let Some(name) = &self.name {
            body["name"] = json!(name);
        }
        if let Some(container) = &self.container {
            body["container"] = json!(container);
        }
        if !self.env.is_empty() {
            body["env"] = json!(self.env.iter().cloned().collect::<BTreeMap<_, _>>());
        }
        if let Some(args) = &self.args {
            body["args"] = json!(args);
        }
        body
    }

    async fn trigger(&self) -> Result<(), Failure> {
        let remote = Remote::connect(&self.cluster.access()?).await?;
        let namespace = self.cluster.namespace.clone().unwrap_or_else(|| remote.namespace().to_owned());
        let name = &self.target.0;
        let answer =
            remote.post::<CronJob>(&namespace, name, Subresource::Trigger, self.dry_run, &self.body()).await;
        let job = answer.map_err(|error| -> Failure {
            let why = one_line(&error);
            // Kubernetes' own answer about a subresource that it does not have.
            if error.code() == Some(404) && why.contains("the server could not find") {
                return format!("{} triggers no CronJobs: it is not Coracle, or an older one", remote.url())
                    .into();
            }
            format!("cannot trigger cronjob/{name} in the namespace {namespace}: {why}").into()
        })?;
        let made = if self.dry_run { "would be created (dry run)" } else { "created" };
        println!("job.batch/{} {made}", job["metadata"]["name"].as_str().unwrap_or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(arguments: &[&str]) -> Result<Trigger, String> {
        let all = ["coracle", "trigger"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Command::Trigger(trigger) => Ok(trigger),
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn what_is_given_is_sent_and_nothing_else() {
        let body = |arguments: &[&str]| parsed(arguments).unwrap().body();
        assert_eq!(body(&["cj/a"]), json!({"apiVersion": "coracle.dev/v1", "kind": "Trigger"}));
        let all = body(&[
            "cronjob/a",
            "--name",
            "n",
            "--container",
            "c",
            "-e",
            "A=b=c",
            "--env",
            "D=",
            "--",
            "-x",
            "y",
        ]);
        assert_eq!(
            all,
            json!({"apiVersion": "coracle.dev/v1", "kind": "Trigger", "name": "n", "container": "c",
                   "env": {"A": "b=c", "D": ""}, "args": ["-x", "y"]})
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, expected) in [
            (&["pod/a"][..], "cannot be triggered; it must be cronjob/NAME"),
            (&["cronjob/"], "is not a name"),
            (&["cj/a", "--env", "A"], "must be NAME=VALUE"),
            (&[], "cronjob/NAME"),
        ] {
            let error = parsed(arguments).err().unwrap();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
