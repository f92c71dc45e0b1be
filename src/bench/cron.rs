//! `cron`: how late Jobs are when very many CronJobs are due at the same minute.
//!
//! All CronJobs name one minute to come; a sample is the time from that minute to the moment at which a
//! watch shows a CronJob's Job. The Jobs are made suspended, so that no pods run and what is measured is
//! the schedule, the controller, the API and the store.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::json;

use super::{Failure, Options, Report, stage};
use crate::client::{Client, Event, Select};
use crate::cluster::{Cluster, Config};
use crate::kind::cron_job::SCHEDULED;

/// CronJobs created at the same time.
const WRITERS: u32 = 64;
/// CronJobs that are surely created in a second, from which the minute is chosen.
const CREATED_A_SECOND: u32 = 1_500;
/// From the last creation to the minute, at least.
const QUIET: Duration = Duration::from_secs(3);
/// No Job may come later.
const DEADLINE: Duration = Duration::from_secs(300);

const NAMESPACE: &str = "default";

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    stage::block_on(measure(options, None))
}

async fn measure(options: &Options, virtual_time: Option<(Timestamp, u64)>) -> Result<Report, Failure> {
    let mut report = stage::report("cron", options);
    report.condition("cron jobs", options.count.to_string());
    report.condition("jobs", "suspended, without pods");
    let config = Config { virtual_time, ..stage::config(options) };
    let measured = async |cluster: &Cluster| fire(cluster, options.count, &mut report).await;
    stage::on_cluster(options, config, measured).await?;
    Ok(report)
}

async fn fire(cluster: &Cluster, count: u32, report: &mut Report) -> Result<(), Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let ready_by = clock.now() + Duration::from_secs(u64::from(count / CREATED_A_SECOND)) + QUIET;
    let minute = Timestamp::from_second((ready_by.as_second() / 60 + 1) * 60)?;
    let schedule = minute.to_zoned(TimeZone::UTC).strftime("%-M %-H %-d %-m *").to_string();

    let before = clock.monotonic();
    let create = |first: u32| {
        let (client, schedule) = (client.clone(), schedule.clone());
        async move { create_every(&client, first, count, &schedule).await }
    };
    try_join_all((0..WRITERS.min(count)).map(create)).await?;
    let took = clock.monotonic().saturating_sub(before);
    report.figure("cron jobs created", f64::from(count) / took.as_secs_f64().max(1e-6), "/s");
    if clock.now() + QUIET > minute {
        return Err(format!(
            "creating {count} CronJobs took {took:?}, until the minute at which they are due; measure fewer"
        )
        .into());
    }

    let mut watcher = client.watch::<Job>(Select { namespace: Some(NAMESPACE.into()), ..Select::default() });
    let mut seen = BTreeSet::new();
    let mut skews = Vec::with_capacity(count as usize);
    let watching = async {
        while seen.len() < count as usize {
            let batch = watcher.next_batch().await.ok_or("the watch ended")?;
            let now = clock.now();
            for event in batch {
                let jobs = match event {
                    Event::Restarted(jobs) => jobs,
                    Event::Applied(job) => vec![job],
                    Event::Deleted(_) => Vec::new(),
                };
                for job in jobs {
                    if seen.insert(job.metadata.name.clone()) {
                        skews.push(skew(&job, now)?);
                    }
                }
            }
        }
        Ok::<(), Failure>(())
    };
    let patience = Duration::try_from(minute.duration_since(clock.now())).unwrap_or_default() + DEADLINE;
    clock
        .timeout(patience, watching)
        .await
        .map_err(|_| format!("not all Jobs came within {DEADLINE:?}"))??;
    report.percentiles("scheduled time to Job", &mut skews);
    let last = skews.last().copied().unwrap_or_default();
    report.figure("scheduled time to Job max", last.as_secs_f64() * 1e3, "ms");
    report.figure("jobs created", f64::from(count) / last.as_secs_f64().max(1e-6), "/s");
    Ok(())
}

/// From the time that the Job was started for to `now`.
fn skew(job: &Job, now: Timestamp) -> Result<Duration, Failure> {
    let annotations = job.metadata.annotations.as_ref();
    let scheduled =
        annotations.and_then(|all| all.get(SCHEDULED)).ok_or("a Job without its scheduled time")?;
    Duration::try_from(now.duration_since(scheduled.parse()?))
        .map_err(|_| "a Job was started before its time".into())
}

async fn create_every(client: &Client, first: u32, count: u32, schedule: &str) -> Result<(), Failure> {
    for i in (first..count).step_by(WRITERS as usize) {
        let cron_job: CronJob = serde_json::from_value(json!({
            "metadata": { "name": format!("c-{i}"), "namespace": NAMESPACE },
            "spec": {
                "schedule": schedule,
                "timeZone": "Etc/UTC",
                "jobTemplate": { "spec": {
                    "suspend": true,
                    "template": { "spec": {
                        "restartPolicy": "Never",
                        "containers": [{ "name": "main", "image": "coracle.dev/worker:v1" }],
                    } },
                } },
            },
        }))?;
        client.create(cron_job).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_due_at_one_minute() {
        let options = Options { count: 200, nodes: 1, durable: false, simulated: false };
        let start: Timestamp = "2026-03-01T12:00:58.5Z".parse().unwrap();
        let runtime = crate::clock::virtual_runtime().unwrap();
        let report = runtime.block_on(measure(&options, Some((start, 1)))).unwrap();
        let figure = |name: &str| report.figures.iter().find(|figure| figure.name == name).unwrap().value;
        assert!(figure("scheduled time to Job max") < 1000.0, "{report}");
        assert!(figure("jobs created") > 0.0, "{report}");
    }
}
