use serde_json::json;

use super::*;

fn pod(containers: &[&str], statuses: serde_json::Value) -> Pod {
    let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "a"},
        "spec": {"containers": containers, "initContainers": [{"name": "i"}], "nodeName": "n"},
        "status": {"containerStatuses": statuses},
    }))
    .unwrap()
}

/// 8.4
#[test]
fn the_container_is_named_or_the_only_one() {
    for (containers, asked, expected) in [
        (&["x"][..], None, Ok("x")),
        (&["x", "y"], Some("y"), Ok("y")),
        (&["x"], Some("i"), Ok("i")),
        (&["x"], Some("z"), Err("container z is not valid for pod a")),
        (
            &["x", "y"],
            None,
            Err(
                "a container name must be specified for pod a, choose one of: [x y] or one of the init containers: [i]",
            ),
        ),
    ] {
        let pod = pod(containers, json!([]));
        assert_eq!(container(&pod, asked), expected.map_err(str::to_owned));
    }
}

/// 8.4
#[test]
fn a_container_that_has_not_run_has_no_log() {
    let status = |state: serde_json::Value, last: serde_json::Value| json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last}]);
    let none = json!({});
    let ended = json!({"terminated": {"exitCode": 0}});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    for (statuses, previous, expected) in [
        (json!([]), false, Err(r#"container "c" in pod "a" is waiting to start: ContainerCreating"#)),
        (
            status(waiting("ContainerCreating"), none.clone()),
            false,
            Err(r#"container "c" in pod "a" is waiting to start: ContainerCreating"#),
        ),
        (
            status(waiting("ErrImagePull"), none.clone()),
            false,
            Err(r#"container "c" in pod "a" is waiting to start: image can't be pulled"#),
        ),
        (status(waiting("CrashLoopBackOff"), ended.clone()), false, Ok(())),
        (status(json!({"running": {}}), none.clone()), false, Ok(())),
        (status(ended.clone(), none.clone()), false, Ok(())),
        (status(ended.clone(), none), true, Err(r#"previous terminated container "c" in pod "a" not found"#)),
        (status(json!({"running": {}}), ended), true, Ok(())),
    ] {
        assert_eq!(check_started(&pod(&["c"], statuses), "c", previous), expected.map_err(str::to_owned));
    }
}
