//! Jobs, with pods that play a script (BEHAVIOURS 13).

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;
use crate::client::{DeleteOptions, Select};

/// A Job of pods that take `seconds` and end with `code`.
fn job(name: &str, seconds: u32, code: i32, spec: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {
            "metadata": {"annotations": {
                "coracle.dev/sim-duration": format!("{seconds}s"),
                "coracle.dev/sim-exit-code": code.to_string(),
            }},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "any"}]},
        }},
    });
    json_patch::merge(&mut job["spec"], &spec);
    serde_json::from_value(job).expect("a Job")
}

fn condition(status: &JobStatus, type_: &str) -> Option<String> {
    let mut all = status.conditions.iter().flatten();
    all.find(|one| one.type_ == type_ && one.status == "True")
        .map(|one| one.reason.clone().unwrap_or_default())
}

async fn status(client: &Client, name: &str) -> JobStatus {
    client.get::<Job>("default", name).await.expect("the Job").status.clone().unwrap_or_default()
}

/// The counters of a Job that has ended: why it did, succeeded, failed, pods that are still held.
type Ended = (String, i32, i32, usize);

async fn ended(client: &Client, name: &str) -> Option<Ended> {
    let status = status(client, name).await;
    let reason = condition(&status, "Complete").or_else(|| condition(&status, "Failed"))?;
    let pods = client.list::<Pod>(&Select::default()).await.expect("pods").items;
    let held = pods.iter().filter(|pod| pod.metadata.finalizers.is_some()).count();
    Some((reason, status.succeeded.unwrap_or_default(), status.failed.unwrap_or_default(), held))
}

async fn pods(client: &Client) -> Vec<std::sync::Arc<Pod>> {
    client.list::<Pod>(&Select::default()).await.expect("pods").items
}

fn runs_to(job: Job, expected: (&str, i32, i32)) -> Vec<std::sync::Arc<Pod>> {
    in_virtual_time(2, async |cluster| {
        let client = cluster.client();
        let name = job.metadata.name.clone().unwrap_or_default();
        client.create(job.clone()).await.expect("created");
        let end =
            eventually(&client, cluster.clock(), &async |client: &Client| ended(client, &name).await).await;
        assert_eq!(end, (expected.0.to_owned(), expected.1, expected.2, 0));
        let status = status(&client, &name).await;
        assert_eq!((status.active, status.ready, status.terminating), (None, Some(0), Some(0)));
        pods(&client).await
    })
}

#[test]
fn the_three_kinds_of_job_complete() {
    // BEHAVIOURS 13.3 to 13.5 and 13.8.
    let made = runs_to(job("one", 5, 0, json!({})), ("CompletionsReached", 1, 0));
    assert_eq!(made.len(), 1);
    let made =
        runs_to(job("many", 5, 0, json!({"completions": 7, "parallelism": 3})), ("CompletionsReached", 7, 0));
    assert_eq!(made.len(), 7);
    // Each of the three ends by itself once one has succeeded.
    let made = runs_to(job("queue", 5, 0, json!({"parallelism": 3})), ("CompletionsReached", 3, 0));
    assert_eq!(made.len(), 3);
    let indexed = json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"});
    let made = runs_to(job("indexed", 5, 0, indexed), ("CompletionsReached", 4, 0));
    let mut hosts: Vec<_> =
        made.iter().map(|pod| pod.spec.as_ref().unwrap().hostname.clone().unwrap()).collect();
    hosts.sort();
    assert_eq!(hosts, ["indexed-0", "indexed-1", "indexed-2", "indexed-3"]);
}

#[test]
fn failures_end_a_job_at_its_limits() {
    // BEHAVIOURS 13.6, 13.7, 13.9 and 13.10.
    runs_to(job("limit", 1, 3, json!({"backoffLimit": 2})), ("BackoffLimitExceeded", 0, 3));
    runs_to(job("late", 3600, 0, json!({"activeDeadlineSeconds": 60})), ("DeadlineExceeded", 0, 1));
    let policy = |action: &str| json!([{"action": action, "onExitCodes": {"operator": "In", "values": [3]}}]);
    runs_to(
        job("policy", 1, 3, json!({"podFailurePolicy": {"rules": policy("FailJob")}})),
        ("PodFailurePolicy", 0, 1),
    );
    let indexed =
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    runs_to(job("indexes", 1, 3, indexed.clone()), ("FailedIndexes", 0, 4));
    let mut strict = indexed;
    strict["maxFailedIndexes"] = json!(0);
    strict["podFailurePolicy"] = json!({"rules": policy("FailIndex")});
    let made = runs_to(job("strict", 1, 3, strict), ("MaxFailedIndexesExceeded", 0, 2));
    assert_eq!(made.len(), 2, "no index is tried again");
}

#[test]
fn enough_successes_end_a_job_early() {
    // BEHAVIOURS 13.11.
    let spec = json!({
        "completions": 5, "parallelism": 1, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "0-1"}]},
    });
    runs_to(job("enough", 5, 0, spec), ("SuccessPolicy", 2, 0));
}

#[test]
fn a_job_rests_and_goes_on() {
    // BEHAVIOURS 13.4 and 13.12.
    in_virtual_time(2, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        client
            .create(job("rest", 100, 0, json!({"completions": 4, "parallelism": 2})))
            .await
            .expect("created");
        let active = async |wanted: i32| {
            let reached = async |client: &Client| {
                let status = status(client, "rest").await;
                (status.active.unwrap_or_default() == wanted && status.terminating.unwrap_or_default() == 0)
                    .then_some(status)
            };
            eventually(&client, clock, &reached).await
        };
        let change = async |spec: Value| {
            client.merge_patch::<Job>("default", "rest", None, json!({"spec": spec})).await.expect("changed");
        };
        active(2).await;
        change(json!({"parallelism": 0})).await;
        assert_eq!(active(0).await.failed, None, "what is stopped is not a failure");
        change(json!({"parallelism": 1})).await;
        let started = active(1).await.start_time;
        change(json!({"suspend": true})).await;
        assert_eq!(condition(&active(0).await, "Suspended").as_deref(), Some("JobSuspended"));
        clock.sleep(Duration::from_secs(60)).await;
        change(json!({"suspend": false, "parallelism": 4})).await;
        let status = active(4).await;
        assert!(condition(&status, "Suspended").is_none() && status.start_time > started);
        let end = eventually(&client, clock, &async |client: &Client| ended(client, "rest").await).await;
        assert_eq!(end, ("CompletionsReached".into(), 4, 0, 0));
    });
}

#[test]
fn a_job_leaves_when_its_time_has_come() {
    // BEHAVIOURS 13.13.
    in_virtual_time(1, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        client.create(job("brief", 1, 0, json!({"ttlSecondsAfterFinished": 100}))).await.expect("created");
        eventually(&client, clock, &async |client: &Client| ended(client, "brief").await).await;
        let before = clock.now();
        let gone = async |client: &Client| {
            let there = client.list::<Job>(&Select::default()).await.expect("Jobs").items.len();
            (there + pods(client).await.len() == 0).then_some(())
        };
        eventually(&client, clock, &gone).await;
        let passed = clock.now().duration_since(before).as_secs();
        assert!((95..110).contains(&passed), "{passed} s");
    });
}

#[test]
fn pods_without_their_job_are_let_go() {
    // BEHAVIOURS 13.14.
    in_virtual_time(1, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        for policy in ["Orphan", "Background"] {
            client.create(job("gone", 50, 0, json!({}))).await.expect("created");
            let running =
                async |client: &Client| (status(client, "gone").await.ready == Some(1)).then_some(());
            eventually(&client, clock, &running).await;
            let options = DeleteOptions { propagation_policy: Some(policy), ..DeleteOptions::default() };
            client.delete::<Job>("default", "gone", options).await.expect("deleted");
            let none = async |client: &Client| pods(client).await.is_empty().then_some(());
            if policy == "Orphan" {
                let free = async |client: &Client| {
                    let jobs = client.list::<Job>(&Select::default()).await.expect("Jobs").items;
                    let pods = pods(client).await;
                    let free = jobs.is_empty() && pods.iter().all(|pod| pod.metadata.finalizers.is_none());
                    free.then(|| pods.first().and_then(|pod| pod.metadata.name.clone()))
                };
                let orphan = eventually(&client, clock, &free).await.expect("the pod stays");
                client.delete::<Pod>("default", &orphan, DeleteOptions::default()).await.expect("deleted");
            }
            eventually(&client, clock, &none).await;
        }
    });
}

#[test]
fn a_pod_deleted_early_counts_once() {
    // BEHAVIOURS 13.3.
    in_virtual_time(1, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        client.create(job("early", 50, 0, json!({}))).await.expect("created");
        let running = async |client: &Client| (status(client, "early").await.ready == Some(1)).then_some(());
        eventually(&client, clock, &running).await;
        let name = pods(&client).await[0].metadata.name.clone().unwrap_or_default();
        client.delete::<Pod>("default", &name, DeleteOptions::default()).await.expect("deleted");
        let end = eventually(&client, clock, &async |client: &Client| ended(client, "early").await).await;
        assert_eq!(end, ("CompletionsReached".into(), 1, 1, 0));
    });
}

#[test]
fn a_thousand_jobs_fail_to_their_limits() {
    in_virtual_time(20, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        for i in 0..1000 {
            let spec = json!({"backoffLimit": i % 4});
            client.create(job(&format!("j{i}"), 1, 7, spec)).await.expect("created");
        }
        let all = async |client: &Client| {
            let jobs = client.list::<Job>(&Select::default()).await.expect("Jobs").items;
            let failed = jobs.iter().filter(|job| crate::kind::job::is_finished(job)).count();
            (failed == 1000).then_some(jobs)
        };
        for job in eventually(&client, clock, &all).await {
            let limit = job.spec.as_ref().and_then(|spec| spec.backoff_limit).unwrap_or_default();
            let status = job.status.clone().unwrap_or_default();
            assert_eq!((status.failed, status.succeeded), (Some(limit + 1), None), "{:?}", job.metadata.name);
        }
    });
}

#[test]
fn no_crash_loses_or_doubles_a_completion() {
    // BEHAVIOURS 13.3.
    let begin = async |client: &Client| {
        client
            .create(job("crash", 5, 0, json!({"completions": 3, "parallelism": 2})))
            .await
            .expect("created");
    };
    let end = async |client: &Client| {
        let ended = ended(client, "crash").await?;
        Some((ended, pods(client).await.len()))
    };
    survives_every_crash(&["job"], begin, end);
}

#[test]
fn no_crash_loses_or_doubles_a_failure() {
    let begin = async |client: &Client| {
        let spec = json!({
            "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        });
        client.create(job("crash", 5, 1, spec)).await.expect("created");
    };
    let end = async |client: &Client| {
        let ended = ended(client, "crash").await?;
        let failed = status(client, "crash").await.failed_indexes;
        Some((ended, failed, pods(client).await.len()))
    };
    survives_every_crash(&["job"], begin, end);
}

#[test]
fn a_job_runs_once_on_each_node() {
    in_virtual_time(3, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        client.create(job("each", 5, 0, json!({"completionMode": "PerNode"}))).await.expect("created");
        let end = eventually(&client, clock, &async |client: &Client| ended(client, "each").await).await;
        assert_eq!(end, ("CompletionsReached".into(), 3, 0, 0));
        let job = client.get::<Job>("default", "each").await.expect("the Job");
        let nodes = job.metadata.annotations.as_ref().and_then(|all| all.get("coracle.dev/nodes-succeeded"));
        assert_eq!(nodes.map(String::as_str), Some("sim-0,sim-1,sim-2"));
        let mut ran: Vec<_> =
            pods(&client).await.iter().map(|pod| pod.spec.clone().unwrap().node_name.unwrap()).collect();
        ran.sort();
        assert_eq!(ran, ["sim-0", "sim-1", "sim-2"]);
        // Nodes that are cordoned or come later have their turn too, if that is wished for.
        let mut later = self::job("later", 5, 0, json!({"completionMode": "PerNode"}));
        later.metadata.annotations = Some([("coracle.dev/later-nodes".to_owned(), "run".to_owned())].into());
        client.create(later).await.expect("created");
        let three =
            async |client: &Client| (status(client, "later").await.succeeded == Some(3)).then_some(());
        eventually(&client, clock, &three).await;
        let status = status(&client, "later").await;
        assert!(condition(&status, "Complete").is_none());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "late"}})).expect("a node");
        client.create(node).await.expect("created");
        let meant = async |client: &Client| {
            let pods = pods(client).await;
            let for_late =
                |pod: &&std::sync::Arc<Pod>| crate::controller::eligibility::target(pod) == Some("late");
            pods.iter().find(for_late).map(|_| ())
        };
        eventually(&client, clock, &meant).await;
    });
}

#[test]
fn a_job_goes_on_when_the_node_of_a_pod_vanishes() {
    // BEHAVIOURS 17.4, 13.1 and 13.10: whoever replaces only failed pods, or ignores disruptions.
    let vanishing = |name: &str, spec: Value| {
        let mut job = job(name, 5, 0, spec);
        job.spec.as_mut().expect("given").template.spec.as_mut().expect("given").node_name =
            Some("late".into());
        job
    };
    in_virtual_time(1, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "late"}})).expect("a node");
        client.create(node).await.expect("created");
        let rules = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
        let careful = vanishing("careful", json!({"podReplacementPolicy": "Failed"}));
        client.create(careful).await.expect("created");
        client.create(vanishing("ignoring", json!({"podFailurePolicy": rules}))).await.expect("created");
        let both = async |client: &Client| (pods(client).await.len() == 2).then_some(());
        eventually(&client, clock, &both).await;
        let first: Vec<_> = pods(&client).await.iter().map(|pod| pod.metadata.uid.clone()).collect();
        client.delete::<Node>("", "late", DeleteOptions::default()).await.expect("deleted");
        let replaced = async |client: &Client| {
            let pods = pods(client).await;
            let new = pods.iter().filter(|pod| !first.contains(&pod.metadata.uid)).count();
            (new == 2 && pods.len() == 2).then_some(())
        };
        eventually(&client, clock, &replaced).await;
        let careful = status(&client, "careful").await;
        assert_eq!((careful.failed, careful.active), (Some(1), Some(1)));
        let ignoring = status(&client, "ignoring").await;
        assert_eq!((ignoring.failed, ignoring.active), (None, Some(1)));
    });
}
