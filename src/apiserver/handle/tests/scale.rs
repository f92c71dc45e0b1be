use super::*;

fn set(kind: &str) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": "a", "tier": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i:v1"}], "restartPolicy": "Always"},
    });
    let selector = json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b"]}]});
    let mut set = json!({"metadata": {"name": "s"}, "spec": {"selector": selector, "template": template}});
    match kind {
        "daemonsets" => {}
        "jobs" => {
            set["spec"] = json!({"template": {"spec": {
                "containers": [{"name": "c", "image": "i:v1"}], "restartPolicy": "Never",
            }}});
        }
        _ => set["spec"]["replicas"] = json!(3),
    }
    set
}

/// 8.2
#[tokio::test(start_paused = true)]
async fn sets_of_replicas_have_a_scale_and_no_others() {
    let world = World::new().await;
    for kind in ["deployments", "replicasets"] {
        world.create(kind, set(kind)).await.unwrap();
        let path = format!("{kind}/scale");
        let mut scale = world.get(&path, "s").await.unwrap();
        assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
        assert_eq!(scale["spec"]["replicas"], 3, "{kind}");
        assert_eq!(scale["status"]["selector"], "app=a,tier in (b)", "{kind}");
        scale["spec"]["replicas"] = json!(5);
        world.send(world.request(Verb::Update, &path, Some("s"), scale)).await.unwrap();
        assert_eq!(world.get(kind, "s").await.unwrap()["spec"]["replicas"], 5, "{kind}");
    }
    for kind in ["daemonsets", "jobs"] {
        world.create(kind, set(kind)).await.unwrap();
        assert_eq!(world.get(&format!("{kind}/scale"), "s").await.unwrap_err().code(), 404, "{kind}");
    }
}
