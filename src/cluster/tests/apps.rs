//! Daemon sets and deployments that survive the death of their controllers (BEHAVIOURS 12, 4.7).

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::client::{DeleteOptions, Select};
use crate::controller::eligibility::target;

fn template(round: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "a" }, "annotations": { "round": round } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "any" }] },
    })
}

/// The pods that there are: their template, their node if `with_nodes`, and whose they are.
async fn pods(client: &Client, with_nodes: bool) -> Vec<String> {
    let mut all: Vec<String> = client
        .list::<Pod>(&Select::default())
        .await
        .expect("pods")
        .items
        .iter()
        .map(|pod| {
            let meta = &pod.metadata;
            let owner = meta.owner_references.iter().flatten().next().map_or("none", |owner| &owner.kind);
            let round = &meta.annotations.as_ref().expect("the template's")["round"];
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| with_nodes);
            let going = if meta.deletion_timestamp.is_some() { " going" } else { "" };
            format!("{round} {owner} {}{going}", node.unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_daemon_set_has_one_pod_a_node_whenever_its_controller_dies() {
    let begin = async |client: &Client| {
        let set = json!({
            "metadata": { "name": "d", "namespace": "default" },
            "spec": { "selector": { "matchLabels": { "app": "a" } }, "template": template("1") },
        });
        client.create(serde_json::from_value::<DaemonSet>(set).expect("a set")).await.expect("created");
        // The second template comes when it may: before, while or after pods of the first are made.
        let change = json!({ "spec": { "template": template("2") } });
        client.merge_patch::<DaemonSet>("default", "d", None, change).await.expect("changed");
    };
    let end = async |client: &Client| {
        let set = client.get::<DaemonSet>("default", "d").await.expect("the set");
        let status = set.status.clone().unwrap_or_default();
        let done = status.observed_generation == Some(2)
            && status.updated_number_scheduled == Some(2)
            && status.number_available == Some(2);
        if !done {
            return None;
        }
        let revisions = client.list::<ControllerRevision>(&Select::default()).await.expect("revisions");
        let newest = revisions.items.iter().map(|one| one.revision).max();
        assert!(newest <= Some(2), "no revision is made twice");
        Some(pods(client, true).await)
    };
    survives_every_crash(&["daemon_set"], begin, end);
}

#[test]
fn a_deployment_rolls_out_whenever_its_controllers_die() {
    let begin = async |client: &Client| {
        let deployment = json!({
            "metadata": { "name": "d", "namespace": "default" },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "a" } }, "template": template("1") },
        });
        let deployment = serde_json::from_value::<Deployment>(deployment).expect("a deployment");
        client.create(deployment).await.expect("created");
        let change = json!({ "spec": { "template": template("2") } });
        client.merge_patch::<Deployment>("default", "d", None, change).await.expect("changed");
    };
    let end = async |client: &Client| {
        let deployment = client.get::<Deployment>("default", "d").await.expect("the deployment");
        let status = deployment.status.clone().unwrap_or_default();
        let all = Some(3);
        let done = status.observed_generation == Some(2)
            && (status.replicas, status.updated_replicas, status.available_replicas) == (all, all, all);
        let pods = pods(client, false).await;
        if !done || pods.len() != 3 {
            return None;
        }
        let sets = client.list::<ReplicaSet>(&Select::default()).await.expect("sets").items;
        let sizes = sets.iter().map(|set| set.spec.as_ref().and_then(|spec| spec.replicas));
        assert_eq!(sizes.flatten().sum::<i32>(), 3, "{sets:?}");
        Some(pods)
    };
    survives_every_crash(&["deployment", "replica_set"], begin, end);
}

#[test]
fn a_daemon_pod_waits_on_its_node_for_a_port_that_another_has() {
    // BEHAVIOURS 12.2 and 12.10.
    in_virtual_time(2, async |cluster| {
        let (client, clock) = (cluster.client(), cluster.clock());
        let container =
            json!({ "name": "c", "image": "any", "ports": [{ "containerPort": 80, "hostPort": 8080 }] });
        let holder = json!({
            "metadata": { "name": "holder", "namespace": "default" },
            "spec": { "nodeName": "sim-0", "containers": [container] },
        });
        client.create(serde_json::from_value::<Pod>(holder).expect("a pod")).await.expect("created");
        let mut template = template("1");
        template["spec"]["containers"] = json!([container]);
        let set = json!({
            "metadata": { "name": "d", "namespace": "default" },
            "spec": { "selector": { "matchLabels": { "app": "a" } }, "template": template },
        });
        client.create(serde_json::from_value::<DaemonSet>(set).expect("a set")).await.expect("created");
        let ready = async |client: &Client, wanted: i32| {
            let set = client.get::<DaemonSet>("default", "d").await.expect("the set");
            let status = set.status.clone().unwrap_or_default();
            (status.number_ready == wanted && status.desired_number_scheduled == 2).then_some(())
        };
        eventually(&client, clock, &async |client: &Client| ready(client, 1).await).await;
        let pinned = async |client: &Client| {
            let pods = client.list::<Pod>(&Select::default()).await.expect("pods").items;
            let ours = |pod: &&std::sync::Arc<Pod>| pod.metadata.name.as_deref() != Some("holder");
            let pod =
                pods.iter().filter(ours).find(|pod| target(pod) == Some("sim-0")).expect("pinned to it");
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone());
            let scheduled = conditions.into_iter().flatten().find(|one| one.type_ == "PodScheduled")?;
            Some((scheduled.status, scheduled.reason, scheduled.message.unwrap_or_default()))
        };
        let (status, reason, message) = eventually(&client, clock, &pinned).await;
        assert_eq!((status.as_str(), reason.as_deref()), ("False", Some("Unschedulable")));
        let why = "1 node(s) didn't have free ports for the requested pod ports";
        assert!(message.contains(why), "{message}");
        // It runs there as soon as the port is free.
        client.delete::<Pod>("default", "holder", DeleteOptions::default()).await.expect("deleted");
        eventually(&client, clock, &async |client: &Client| ready(client, 2).await).await;
    });
}
