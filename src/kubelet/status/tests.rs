use super::*;
use crate::kubelet::lifecycle::{Event, Rejection};
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }))
    .unwrap()
}

fn one(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "hello"}]}))
}

fn with_init() -> Pod {
    pod(json!({
        "restartPolicy": "Always",
        "initContainers": [
            {"name": "i", "image": "x"}, {"name": "s", "image": "x", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "b", "image": "x"}, {"name": "a", "image": "x"}],
    }))
}

fn addresses() -> Addresses {
    Addresses { host: Ipv4Addr::new(127, 64, 0, 1), pod: Some(Ipv4Addr::new(127, 128, 0, 1)) }
}

fn status(pod: &Pod, life: &Life) -> Value {
    serde_json::to_value(build(pod, life, addresses(), at(100))).unwrap()
}

fn begun(pod: &Pod) -> Life {
    let mut life = Life::new(pod, at(0));
    life.step(Event::Accepted, at(10));
    life.step(Event::Prepared, at(10));
    life
}

fn start(life: &mut Life, slot: usize) {
    life.step(Event::Started { slot, container_id: "w://1".into(), image_id: "sha256:1".into() }, at(20));
}

fn exit(life: &mut Life, slot: usize, exit_code: i32) {
    let reason = if exit_code == 0 { "Completed" } else { "Error" }.to_owned();
    let ended = Ended { exit_code, reason, finished_at: Some(at(30)), ..Ended::default() };
    life.step(Event::Exited { slot, ended }, at(30));
}

/// `Type=Status(Reason)` in order.
fn conditions(status: &Value) -> String {
    let conditions = status["conditions"].as_array().unwrap().iter().map(|condition| {
        let reason = condition["reason"].as_str().map(|reason| format!("({reason})")).unwrap_or_default();
        format!("{}={}{reason}", condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap())
    });
    conditions.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pod_that_is_being_started() {
    let pod = one("Always");
    let status = status(&pod, &begun(&pod));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["startTime"], "1970-01-01T00:00:10Z");
    assert_eq!(status["hostIP"], "127.64.0.1");
    assert_eq!(status["podIP"], "127.128.0.1");
    assert_eq!(status["podIPs"], json!([{"ip": "127.128.0.1"}]));
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(
        status["containerStatuses"][0],
        json!({
            "name": "c", "image": "hello", "imageID": "", "ready": false, "started": false,
            "restartCount": 0, "lastState": {}, "state": {"waiting": {"reason": "ContainerCreating"}},
        })
    );
    assert_eq!(
        conditions(&status),
        "PodReadyToStartContainers=True Initialized=True Ready=False(ContainersNotReady) \
         ContainersReady=False(ContainersNotReady) PodScheduled=True"
    );
    assert_eq!(status["conditions"][2]["message"], "containers with unready status: [c]");
}

#[test]
fn ephemeral_containers_are_told_apart_and_do_not_count() {
    let mut pod = one("Always");
    let json = json!([{"name": "debug", "image": "tools"}]);
    pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(json).unwrap();
    let mut life = begun(&pod);
    start(&mut life, 0);
    let waits = status(&pod, &life);
    assert_eq!(waits["phase"], "Running");
    assert!(conditions(&waits).contains(" Ready=True ContainersReady=True "));
    assert_eq!(waits["containerStatuses"].as_array().unwrap().len(), 1);
    assert_eq!(
        waits["ephemeralContainerStatuses"],
        json!([{
            "name": "debug", "image": "tools", "imageID": "", "ready": false, "restartCount": 0,
            "lastState": {}, "state": {"waiting": {"reason": "ContainerCreating"}},
        }])
    );
    start(&mut life, 1);
    exit(&mut life, 1, 1);
    let ended = status(&pod, &life);
    assert_eq!(ended["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    assert!(conditions(&ended).contains(" Ready=True ContainersReady=True "));
}

#[test]
fn a_running_pod_is_ready() {
    let pod = one("Always");
    let mut life = begun(&pod);
    start(&mut life, 0);
    let status = status(&pod, &life);
    assert_eq!(status["phase"], "Running");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"], json!({"running": {"startedAt": "1970-01-01T00:00:20Z"}}));
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
    assert_eq!((&container["imageID"], &container["containerID"]), (&json!("sha256:1"), &json!("w://1")));
    assert!(conditions(&status).contains(" Ready=True ContainersReady=True "));
}

#[test]
fn init_containers_hold_the_others() {
    let pod = with_init();
    let mut life = begun(&pod);
    start(&mut life, 0);
    let first = status(&pod, &life);
    assert_eq!(first["phase"], "Pending");
    assert_eq!(first["containerStatuses"][0]["name"], "a", "sorted by name");
    assert_eq!(first["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(first["initContainerStatuses"][1]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(first["conditions"][1]["reason"], "ContainersNotInitialized");
    assert_eq!(first["conditions"][1]["message"], "containers with incomplete status: [i s]");
    assert_eq!(first["conditions"][2]["message"], "containers with unready status: [s b a]");
    exit(&mut life, 0, 0);
    let second = status(&pod, &life);
    assert_eq!(second["initContainerStatuses"][0]["ready"], true);
    assert_eq!(second["conditions"][1]["message"], "containers with incomplete status: [s]");
    for slot in [1, 2] {
        start(&mut life, slot);
    }
    let third = status(&pod, &life);
    assert_eq!((&third["phase"], &third["conditions"][1]["status"]), (&json!("Pending"), &json!("True")));
    start(&mut life, 3);
    assert_eq!(status(&pod, &life)["phase"], "Running");
}

#[test]
fn the_end_of_a_pod() {
    for (code, phase, reason) in [(0, "Succeeded", "PodCompleted"), (7, "Failed", "PodFailed")] {
        let pod = one("Never");
        let mut life = begun(&pod);
        start(&mut life, 0);
        exit(&mut life, 0, code);
        let status = status(&pod, &life);
        assert_eq!(status["phase"], phase);
        let initialized = if code == 0 { "Initialized=True(PodCompleted)" } else { "Initialized=True" };
        assert_eq!(
            conditions(&status),
            format!(
                "PodReadyToStartContainers=False {initialized} Ready=False({reason}) \
                 ContainersReady=False({reason}) PodScheduled=True"
            )
        );
        let state = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (&state["exitCode"], &state["finishedAt"]),
            (&json!(code), &json!("1970-01-01T00:00:30Z"))
        );
    }
}

#[test]
fn a_crash_loop_shows_the_last_run() {
    let pod = one("Always");
    let mut life = begun(&pod);
    for _ in 0..2 {
        start(&mut life, 0);
        exit(&mut life, 0, 1);
    }
    let status = status(&pod, &life);
    assert_eq!(status["phase"], "Running");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!((&container["restartCount"], &container["ready"]), (&json!(1), &json!(false)));
}

#[test]
fn times_of_unchanged_conditions_and_conditions_of_others_stay() {
    let mut pod = one("Always");
    pod.status.as_mut().unwrap().conditions = Some(
        serde_json::from_value(json!([
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"},
            {"type": "DisruptionTarget", "status": "True", "reason": "X"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"},
        ]))
        .unwrap(),
    );
    let status = status(&pod, &begun(&pod));
    let time = |i: usize| status["conditions"][i]["lastTransitionTime"].as_str().unwrap().to_owned();
    assert_eq!(time(4), "1970-01-01T00:00:05Z");
    assert_eq!(time(2), "1970-01-01T00:01:40Z");
    assert_eq!(status["conditions"][5]["type"], "DisruptionTarget");
}

#[test]
fn readiness_gates_hold_readiness() {
    let mut pod = one("Always");
    pod.spec.as_mut().unwrap().readiness_gates =
        Some(serde_json::from_value(json!([{"conditionType": "example.com/up"}])).unwrap());
    let mut life = begun(&pod);
    start(&mut life, 0);
    let status = status(&pod, &life);
    assert!(conditions(&status).contains("Ready=False(ReadinessGatesNotReady) ContainersReady=True"));
}

#[test]
fn a_refused_pod_says_why() {
    let pod = one("Always");
    let mut life = Life::new(&pod, at(0));
    life.step(Event::Rejected(Rejection { reason: "OutOfcpu".into(), message: "no cpu".into() }), at(0));
    let status = status(&pod, &life);
    assert_eq!(
        (&status["phase"], &status["reason"], &status["message"]),
        (&json!("Failed"), &json!("OutOfcpu"), &json!("Pod was rejected: no cpu"))
    );
    assert_eq!(status.get("containerStatuses"), None);
}

#[test]
fn a_deadline_is_the_pods_reason_and_what_never_ran_is_unknown() {
    let mut pod = pod(json!({
        "restartPolicy": "Never", "activeDeadlineSeconds": 5,
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}],
    }));
    let mut life = begun(&pod);
    start(&mut life, 0);
    life.step(Event::Tick, at(15));
    exit(&mut life, 0, 137);
    pod.status.get_or_insert_default();
    let status = status(&pod, &life);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
    assert_eq!(status["message"], DEADLINE_EXCEEDED);
    let never = &status["containerStatuses"][1]["state"]["terminated"];
    assert_eq!((&never["reason"], &never["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)));
}

#[test]
fn writing_a_status_makes_it_stable() {
    let mut pod = with_init();
    let mut life = begun(&pod);
    start(&mut life, 0);
    let first = build(&pod, &life, addresses(), at(100));
    pod.status = Some(first.clone());
    assert_eq!(build(&pod, &life, addresses(), at(200)), first);
}

#[test]
fn a_container_that_is_started_anew_has_not_terminated() {
    // The API takes no way back from `terminated` with the policy Never.
    let pod = one("Never");
    let mut life = begun(&pod);
    start(&mut life, 0);
    life.step(Event::ConfigChanged { slot: 0, source: "configmap/m".into(), revision: 7 }, at(25));
    exit(&mut life, 0, 137);
    let told = status(&pod, &life);
    let container = &told["containerStatuses"][0];
    assert_eq!(told["phase"], "Running");
    assert_eq!(container["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 137);
    start(&mut life, 0);
    assert_eq!(status(&pod, &life)["containerStatuses"][0]["restartCount"], 1);
    exit(&mut life, 0, 0);
    assert_eq!(status(&pod, &life)["phase"], "Succeeded");
}
