//! `job`: how soon a Job of many completions is Complete, and what a pod of it costs.
//!
//! One Job, its parallelism bounded, of pods that exit at once; measured from its creation to its
//! condition Complete. In process: the Job controller, the API, the store, the scheduler, the kubelet and
//! the runtime. A second Job, Indexed, follows the first.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use serde_json::json;

use super::{Failure, Options, Report, cpu, stage};
use crate::client::{Event, Select};
use crate::cluster::Cluster;

/// Pods at work at one time.
const PARALLELISM: u32 = 500;
/// No Job may take longer.
const DEADLINE: Duration = Duration::from_secs(3600);

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let mut report = stage::report("job", options);
    report.condition("parallelism", PARALLELISM.to_string());
    stage::on_cluster(options, stage::config(options), async |cluster| {
        // The first pod compiles the image.
        complete(cluster, "warm-up", 1, "NonIndexed").await?;
        for mode in ["NonIndexed", "Indexed"] {
            let before = cpu::used();
            let took = complete(cluster, &mode.to_lowercase(), options.count, mode).await?;
            let used = cpu::used().saturating_sub(before);
            report.figure(format!("{mode}: completions"), f64::from(options.count), "");
            report.figure(
                format!("{mode}: throughput"),
                f64::from(options.count) / took.as_secs_f64(),
                "pods/s",
            );
            let each = used.as_secs_f64() * 1e3 / f64::from(options.count);
            report.figure(format!("{mode}: CPU-seconds per 1,000 pods"), each, "s");
        }
        Ok(())
    })
    .await?;
    Ok(report)
}

/// Makes a Job and waits until it is Complete; then it is deleted with its pods.
async fn complete(cluster: &Cluster, name: &str, completions: u32, mode: &str) -> Result<Duration, Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let mut watcher = client.watch::<Job>(Select { namespace: Some("default".into()), ..Select::default() });
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "completions": completions, "parallelism": PARALLELISM.min(completions), "completionMode": mode,
            "ttlSecondsAfterFinished": 0,
            "template": {
                "metadata": {"annotations": {"coracle.dev/sim-duration": "0s"}},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "coracle.dev/worker:v1", "args": ["0"]}],
                },
            },
        },
    }))?;
    let before = clock.monotonic();
    client.create(job).await?;
    let ended = async {
        loop {
            for event in watcher.next_batch().await.ok_or("the watch ended")? {
                let jobs = match event {
                    Event::Restarted(jobs) => jobs,
                    Event::Applied(job) => vec![job],
                    Event::Deleted(_) => Vec::new(),
                };
                for job in jobs.iter().filter(|job| job.metadata.name.as_deref() == Some(name)) {
                    if has(job, "Failed") {
                        return Err(format!("job {name} failed: {:?}", job.status).into());
                    }
                    if has(job, "Complete") {
                        let succeeded = job.status.as_ref().and_then(|status| status.succeeded);
                        if succeeded != i32::try_from(completions).ok() {
                            return Err(format!("job {name} is Complete with {succeeded:?} successes").into());
                        }
                        return Ok::<(), Failure>(());
                    }
                }
            }
        }
    };
    clock
        .timeout(DEADLINE, ended)
        .await
        .map_err(|_| format!("job {name} was not Complete within {DEADLINE:?}"))??;
    Ok(clock.monotonic().saturating_sub(before))
}

fn has(job: &Job, condition: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == condition && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_complete() {
        let options = Options { count: 20, nodes: 2, durable: false, simulated: true };
        let report = run(&options).unwrap();
        assert!(report.figures.iter().all(|figure| figure.value > 0.0), "{report}");
        assert_eq!(report.figures.len(), 6);
    }
}
