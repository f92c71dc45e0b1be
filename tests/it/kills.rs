//! kill -9 of the whole cluster, again and again, while its controllers are at work: the end is the same
//! as without.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Up, has};

/// Completions of each Job, and after how many more of the first the next kill comes.
const COMPLETIONS: usize = 30;
const BETWEEN: usize = 4;

/// What a killed node ran is run again, which is no failure of the Job's.
const WORK: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: plain, namespace: killed}
spec:
  completions: 30
  parallelism: 3
  backoffLimit: 10000
  template:
    spec:
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['0.2']}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: indexed, namespace: killed}
spec:
  completionMode: Indexed
  completions: 30
  parallelism: 3
  backoffLimit: 10000
  template:
    spec:
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['0.2']}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often, namespace: killed}
spec:
  schedule: '@every 1s'
  successfulJobsHistoryLimit: 1000
  failedJobsHistoryLimit: 1000
  jobTemplate:
    spec:
      backoffLimit: 10000
      template:
        spec:
          restartPolicy: OnFailure
          terminationGracePeriodSeconds: 0
          containers: [{name: main, image: 'coracle.dev/worker:v1', args: ['0']}]
";

/// Sections 13.3 and 14.3
#[test]
fn kill_9_loses_and_doubles_nothing() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&["--nodes", "2"]);
    up.kubectl(&["create", "namespace", "killed"]);
    up.kubectl_stdin(&["apply", "-f", "-"], WORK);
    let mut kills = 0;
    for wanted in (1..COMPLETIONS).step_by(BETWEEN) {
        until_succeeded(&up, wanted);
        up.kill_and_restart();
        kills += 1;
    }
    assert!(kills > 5);
    let get = |what: &str, jsonpath: &str| {
        up.kubectl(&["get", what, "-nkilled", "-o", &format!("jsonpath={jsonpath}")])
    };
    for job in ["plain", "indexed"] {
        let name = format!("job/{job}");
        up.kubectl(&["wait", &name, "-nkilled", "--for=condition=Complete", "--timeout=55s"]);
        let status = "{.status.succeeded}/{.status.failed}/{.status.active}/{.status.uncountedTerminatedPods.succeeded}";
        assert_eq!(get(&name, status), "30///", "{job}");
        let pods = up.kubectl(&[
            "get",
            "pods",
            "-nkilled",
            "-l",
            &format!("job-name={job}"),
            "-o",
            "jsonpath={range .items[*]}{.status.phase} {.metadata.finalizers} {.metadata.annotations.batch\\.kubernetes\\.io/job-completion-index}{\"\\n\"}{end}",
        ]);
        assert_eq!(pods.lines().count(), COMPLETIONS, "{pods}");
        assert!(pods.lines().all(|line| line.starts_with("Succeeded  ")), "{pods}");
        if job == "indexed" {
            assert_eq!(get(&name, "{.status.completedIndexes}"), "0-29");
            let indexes: BTreeSet<&str> = pods.lines().collect();
            assert_eq!(indexes.len(), COMPLETIONS, "{pods}");
        }
    }

    let times = || {
        get(
            "jobs",
            "{range .items[*]}{.metadata.annotations.batch\\.kubernetes\\.io/cronjob-scheduled-timestamp}{\"\\n\"}{end}",
        )
    };
    let several = |times: String| times.lines().filter(|time| !time.is_empty()).count() > 3;
    assert!((0..500).any(|_| several(times())), "{}", times());
    up.kubectl(&["patch", "cronjob", "often", "-nkilled", "-p", "{\"spec\": {\"suspend\": true}}"]);
    let times = times();
    let times: Vec<&str> = times.lines().filter(|time| !time.is_empty()).collect();
    let distinct: BTreeSet<&&str> = times.iter().collect();
    assert_eq!(distinct.len(), times.len(), "{times:?}");
}

/// Reads a watch of the first Job until so many have succeeded.
fn until_succeeded(up: &Up, wanted: usize) {
    let arguments =
        ["get", "job", "plain", "-nkilled", "--watch", "-o", "jsonpath={.status.succeeded}{\"\\n\"}"];
    let mut watching = up.kubectl_command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let reached =
        lines.map_while(Result::ok).any(|line| line.parse::<usize>().is_ok_and(|count| count >= wanted));
    watching.kill().ok();
    watching.wait().unwrap();
    assert!(reached, "the job did not come to {wanted} successes");
}
