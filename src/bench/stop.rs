//! `stop`: how exactly the end of a grace period is kept.
//!
//! Pods whose guests could hear that they are to stop, and do not: one kind sleeps, the other computes. From the
//! end of the grace that their deletion gives them to the moment at which a watch shows that they are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::client::{DeleteOptions, Event, Select};
use crate::cluster::Cluster;

/// As short as a grace can be: what is asked to stop has two seconds, whatever was said.
const GRACE: Duration = Duration::from_secs(2);
/// Pods that are stopped at the same time.
const AT_ONCE: u32 = 4;
/// Pods of each kind: every few of them take seconds.
const PODS_MAX: u32 = 64;
/// What the guests do when they are to stop, as arguments of the program, and as figures are called.
const KINDS: [(&str, &str); 2] = [("ignore", "asleep"), ("spin", "computing")];

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("stop measures guests that run; leave out --simulated".into());
    }
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let count = options.count.clamp(1, PODS_MAX);
    let mut report = stage::report("stop", options);
    report.condition("pods of each kind", count.to_string());
    report.condition("at once", AT_ONCE.min(count).to_string());
    report.condition("grace", format!("{} s", GRACE.as_secs()));
    stage::on_cluster(options, stage::config(options), async |cluster| {
        for (what, called) in KINDS {
            let mut late = Vec::new();
            for first in (0..count).step_by(AT_ONCE as usize) {
                let names =
                    (first..count.min(first + AT_ONCE)).map(|number| format!("{what}-{number}")).collect();
                late.extend(stopped(cluster, what, names).await?);
            }
            report.percentiles(&format!("{called}, end of grace to gone"), &mut late);
            let most = late.iter().max().copied().unwrap_or_default();
            report.figure(format!("{called}, end of grace to gone max"), most.as_secs_f64() * 1e3, "ms");
        }
        Ok(())
    })
    .await?;
    Ok(report)
}

/// Runs pods of these names and deletes them; by how much each outlived its grace.
async fn stopped(cluster: &Cluster, what: &str, names: Vec<String>) -> Result<Vec<Duration>, Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    for name in &names {
        client.create(pod(name, what)).await?;
    }
    let count = u32::try_from(names.len())?;
    wait_for(&mut watcher, what, "Running", count).await?;
    let mut due = BTreeMap::new();
    for name in names {
        let grace = i64::try_from(GRACE.as_secs())?;
        let options = DeleteOptions { grace_period_seconds: Some(grace), ..DeleteOptions::default() };
        let before = clock.monotonic();
        client.delete::<Pod>("default", &name, options).await?;
        due.insert(name, before + GRACE);
    }
    let mut late = Vec::new();
    while !due.is_empty() {
        let batch = watcher.next_batch().await.ok_or("the watch ended")?;
        let now = clock.monotonic();
        for event in batch {
            let Event::Deleted(pod) = event else { continue };
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let Some(due) = due.remove(name) else { continue };
            match now.checked_sub(due) {
                Some(by) => late.push(by),
                None => return Err(format!("pod {name} went before the end of its grace").into()),
            }
        }
    }
    Ok(late)
}

fn pod(name: &str, what: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            containers: vec![Container {
                name: "main".into(),
                image: Some("coracle.dev/finish:v1".into()),
                args: Some(vec!["0.01".to_owned(), what.to_owned()]),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pod_goes_before_its_grace_and_each_goes_after_it() {
        let options = Options { count: 1, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        assert_eq!(report.figures.len(), 6, "{report}");
        assert!(report.figures.iter().all(|figure| figure.value >= 0.0), "{report}");
    }
}
