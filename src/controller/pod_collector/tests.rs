use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn pod(name: &str, spec: Value, status: Value, meta: Value) -> Arc<dyn Object> {
    let mut pod = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name }, "spec": spec, "status": status });
    json_patch::merge(&mut pod["metadata"], &meta);
    pod["spec"]["containers"] = json!([]);
    Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
}

fn bound(name: &str, node: &str) -> Arc<dyn Object> {
    pod(name, json!({ "nodeName": node }), json!({}), json!({}))
}

struct Bench(Snapshot);

impl Bench {
    fn of(pods: impl IntoIterator<Item = Arc<dyn Object>>) -> Self {
        let mut seen = Snapshot::new(PodCollector.indexes());
        for pod in pods {
            seen.insert(KindRef::of::<Pod>(), pod);
        }
        Self(seen)
    }

    fn with_node(mut self, name: &str) -> Self {
        let node = serde_json::from_value::<Node>(json!({ "metadata": { "name": name } })).unwrap();
        self.0.insert(KindRef::of::<Node>(), Arc::new(node));
        self
    }

    fn decide(&self, key: &Key, waited: u64) -> (Vec<String>, Option<Duration>) {
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: Duration::from_secs(waited) };
        let decision = PodCollector.reconcile(&self.0, key, moment);
        let mut lines = Vec::new();
        decision.actions.iter().for_each(|action| render(action, &mut lines));
        (lines, decision.requeue_after)
    }
}

fn render(action: &Action, lines: &mut Vec<String>) {
    lines.push(match action {
        Action::Together(all) | Action::InOrder(all) => {
            return all.iter().for_each(|action| render(action, lines));
        }
        Action::RequireAbsent(key, None) => format!("require no {}", key.name),
        Action::Delete { key, grace_period_seconds: Some(0), .. } => format!("delete {}", key.name),
        Action::Update(_, pod, Some(Subresource::Status)) => {
            let status = pod.downcast_ref::<Pod>().unwrap().status.clone().unwrap();
            let conditions = status.conditions.into_iter().flatten();
            let conditions = conditions.map(|one| {
                let (reason, message) = (one.reason.unwrap_or_default(), one.message.unwrap_or_default());
                format!(" {}={} {reason} {message}", one.type_, one.status)
            });
            format!(
                "{} is {}{}",
                snapshot::name(&**pod),
                status.phase.unwrap(),
                conditions.collect::<String>()
            )
        }
        other => format!("{other:?}"),
    });
}

fn node(name: &str) -> Key {
    Key::new(KindRef::of::<Node>(), "", name)
}

/// 17.4
#[test]
fn pods_of_a_node_that_stays_away_are_deleted() {
    let pods = || [bound("a", "n"), bound("b", "m"), bound("c", "n")];
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(Bench::of(pods()).with_node("n").decide(&node("n"), 60), (vec![], None));
    assert_eq!(Bench::of(pods()).decide(&node("n"), 0), (vec![], seconds(40)));
    assert_eq!(Bench::of(pods()).decide(&node("n"), 30), (vec![], seconds(10)));
    let why = "DisruptionTarget=True DeletionByPodGC PodGC: node no longer exists";
    let (a, c) = (format!("a is Failed {why}"), format!("c is Failed {why}"));
    let all = vec!["require no n".into(), a, "delete a".into(), c, "delete c".into()];
    assert_eq!(Bench::of(pods()).decide(&node("n"), 40), (all, None));
    assert_eq!(Bench::of([]).decide(&node("n"), 0), (vec![], None));
}

/// 17.4
#[test]
fn what_has_ended_keeps_its_phase_and_what_is_held_is_left_alone() {
    let bound =
        |phase: &str, meta: Value| pod("a", json!({ "nodeName": "n" }), json!({ "phase": phase }), meta);
    let over = Bench::of([bound("Succeeded", json!({}))]).decide(&node("n"), 40);
    assert_eq!(over.0, ["require no n", "delete a"]);
    let going =
        |grace| json!({ "deletionTimestamp": "1970-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace });
    let late = Bench::of([bound("Failed", going(30))]).decide(&node("n"), 40);
    assert_eq!(late.0, ["require no n", "delete a"]);
    assert_eq!(Bench::of([bound("Failed", going(0))]).decide(&node("n"), 40), (vec![], None));
    // A condition that it has had is replaced.
    let earlier = json!({ "phase": "Running", "conditions": [
        { "type": "Ready", "status": "True" },
        { "type": "DisruptionTarget", "status": "False", "reason": "Other" },
    ] });
    let bench = Bench::of([pod("a", json!({ "nodeName": "n" }), earlier, json!({}))]);
    let why = "Ready=True   DisruptionTarget=True DeletionByPodGC PodGC: node no longer exists";
    assert_eq!(bench.decide(&node("n"), 40).0[1], format!("a is Failed {why}"));
}

/// 17.5
#[test]
fn the_oldest_finished_pods_beyond_the_limit_go() {
    let finished = |i: usize| {
        let at = jiff::Timestamp::from_second(i64::try_from(20_000 - i).unwrap()).unwrap();
        pod(
            &format!("p{i}"),
            json!({}),
            json!({ "phase": "Succeeded" }),
            json!({ "creationTimestamp": at.to_string() }),
        )
    };
    let bench = Bench::of((0..FINISHED_MAX).map(finished));
    assert_eq!(bench.decide(&finished_key(), 0).0, [""; 0]);
    let bench = Bench::of((0..FINISHED_MAX + 2).map(finished));
    let oldest = [format!("delete p{}", FINISHED_MAX + 1), format!("delete p{FINISHED_MAX}")];
    assert_eq!(bench.decide(&finished_key(), 0).0, oldest);
}

#[test]
fn a_deleted_pod_without_a_node_goes() {
    let going = json!({ "deletionTimestamp": "1970-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30 });
    let key = Key::new(KindRef::of::<Pod>(), "ns", "a");
    let bench = Bench::of([pod("a", json!({}), json!({ "phase": "Pending" }), going.clone())]);
    assert_eq!(bench.decide(&key, 0).0, ["a is Failed", "delete a"]);
    let mut held = going.clone();
    held["deletionGracePeriodSeconds"] = json!(0);
    let bench = Bench::of([pod("a", json!({}), json!({ "phase": "Failed" }), held)]);
    assert_eq!(bench.decide(&key, 0).0, [""; 0]);
    let bench = Bench::of([pod("a", json!({ "nodeName": "n" }), json!({}), going)]);
    assert_eq!(bench.decide(&key, 0).0, [""; 0]);
    let bench = Bench::of([pod("a", json!({}), json!({}), json!({}))]);
    assert_eq!(bench.decide(&key, 0).0, [""; 0]);
}
