//! ReplicaSet: so many pods of one template (upstream `pkg/registry/apps/replicaset`).

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};

use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::not_negative;
use super::workload::{self, Scaled};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    has_generation: true,
    columns: &[
        table::NAME,
        table::described(
            "Desired",
            "integer",
            0,
            "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/#what-is-a-replicationcontroller",
        ),
        table::described(
            "Current",
            "integer",
            0,
            "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/#what-is-a-replicationcontroller",
        ),
        table::described(
            "Ready",
            "integer",
            0,
            "readyReplicas is the number of pods targeted by this ReplicaSet with a Ready Condition.",
        ),
        table::AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    ..Kind::namespaced(&Rules, "replicaset")
};

struct Rules;

impl Strategy for Rules {
    type Object = ReplicaSet;

    fn set_defaults(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        workload::default_template(spec.template.get_or_insert_default());
    }

    fn prepare_create(&self, set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
    }

    fn prepare_update(&self, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &ReplicaSet, old: &ReplicaSet) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, set: &ReplicaSet, errors: &mut Errors) {
        let nothing = ReplicaSetSpec::default();
        let spec = set.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or_default().into());
        not_negative(
            errors,
            &path.child("minReadySeconds"),
            spec.min_ready_seconds.unwrap_or_default().into(),
        );
        workload::validate_pods(
            &spec.selector,
            spec.template.as_ref(),
            "empty selector is invalid for deployment",
            "ReplicaSet",
            errors,
        );
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet, errors: &mut Errors) {
        let selector = |set: &ReplicaSet| set.spec.as_ref().map(|spec| spec.selector.clone());
        workload::validate_selector_kept(errors, &selector(new), &selector(old));
    }

    fn validate_status_update(&self, new: &ReplicaSet, _old: &ReplicaSet, errors: &mut Errors) {
        let nothing = ReplicaSetStatus::default();
        let status = new.status.as_ref().unwrap_or(&nothing);
        let count = Option::unwrap_or_default;
        let (labelled, ready, available) = (
            count(status.fully_labeled_replicas),
            count(status.ready_replicas),
            count(status.available_replicas),
        );
        workload::validate_counts(
            errors,
            &[
                ("replicas", status.replicas.into()),
                ("fullyLabeledReplicas", labelled.into()),
                ("readyReplicas", ready.into()),
                ("availableReplicas", available.into()),
                ("observedGeneration", status.observed_generation.unwrap_or_default()),
            ],
        );
        let all = "status.replicas";
        workload::validate_bound(errors, "fullyLabeledReplicas", labelled, status.replicas, all);
        workload::validate_bound(errors, "readyReplicas", ready, status.replicas, all);
        workload::validate_bound(errors, "availableReplicas", available, status.replicas, all);
        workload::validate_bound(errors, "availableReplicas", available, ready, "readyReplicas");
    }

    fn fields(&self, set: &ReplicaSet) -> Vec<(&'static str, String)> {
        let there = set.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", there.to_string())]
    }

    fn scaled(&self, set: &ReplicaSet) -> Option<Scaled> {
        let spec = set.spec.as_ref()?;
        Some(Scaled {
            wanted: spec.replicas.unwrap_or_default(),
            there: set.status.as_ref().map_or(0, |status| status.replicas),
            selector: workload::selector_text(&spec.selector),
        })
    }

    fn scale(&self, set: &mut ReplicaSet, replicas: i32) {
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (ReplicaSetSpec::default(), ReplicaSetStatus::default());
        let spec = set.spec.as_ref().unwrap_or(&no_spec);
        let status = set.status.as_ref().unwrap_or(&no_status);
        let [names, images] = workload::container_cells(&spec.template.clone().unwrap_or_default());
        vec![
            table::name(set),
            Cell::Number(spec.replicas.unwrap_or_default().into()),
            Cell::Number(status.replicas.into()),
            Cell::Number(status.ready_replicas.unwrap_or_default().into()),
            table::age(set, now),
            names,
            images,
            workload::selector_cell(&spec.selector),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use crate::kind::testing::lines;
    use serde_json::json;

    const SET: Fixture = Fixture {
        kind: &KIND,
        base: || {
            json!({
                "metadata": { "name": "a", "namespace": "n" },
                "spec": {
                    "selector": { "matchLabels": { "app": "a" } },
                    "template": {
                        "metadata": { "labels": { "app": "a" } },
                        "spec": { "containers": [{ "name": "c", "image": "i" }] },
                    },
                },
            })
        },
    };

    #[test]
    fn a_set_has_one_replica_and_no_status() {
        let made = SET.created(json!({ "status": { "replicas": 3 } })).to_value();
        assert_eq!((&made["spec"]["replicas"], &made["status"]), (&json!(1), &json!({ "replicas": 0 })));
        assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn selector_and_template_fit() {
        SET.valid(json!({}), &[]);
        SET.valid(
            json!({ "spec": { "replicas": -1, "minReadySeconds": -1 } }),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        SET.valid(
            json!({ "spec": { "selector": { "matchLabels": { "app": "b" } } } }),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        );
        SET.valid(
            json!({ "spec": { "selector": { "matchLabels": null } } }),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        SET.valid(
            json!({ "spec": { "template": { "spec": { "restartPolicy": "Never", "activeDeadlineSeconds": 5 } } } }),
            &[
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
            ],
        );
    }

    #[test]
    fn the_selector_never_changes() {
        let labels = json!({ "matchLabels": { "b": "c" } });
        SET.update(
            json!({}),
            json!({ "spec": { "selector": labels, "template": { "metadata": { "labels": { "b": "c" } } } } }),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"b\":\"c\"}}: field is immutable"],
        );
        SET.update(json!({}), json!({ "spec": { "replicas": 5 } }), &[]);
    }

    #[test]
    fn a_status_adds_up() {
        let new = SET.status_updated(
            json!({}),
            json!({ "spec": { "replicas": 9 }, "status": { "replicas": 1, "readyReplicas": 2, "availableReplicas": 3 } }),
        );
        assert_eq!(new.to_value()["spec"]["replicas"], 1, "only the status changes");
        assert_eq!(
            lines(&KIND.strategy.validate_status_update(&*new, &*new)),
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
            ]
        );
    }

    #[test]
    fn it_scales() {
        let mut set = SET.object(json!({ "status": { "replicas": 2 } }));
        let scaled = Scaled { wanted: 1, there: 2, selector: "app=a".into() };
        assert_eq!(KIND.strategy.scaled(&*set), Some(scaled));
        KIND.strategy.scale(&mut *set, 7);
        assert_eq!(set.to_value()["spec"]["replicas"], 7);
    }

    #[test]
    fn tables_count_replicas() {
        SET.cells(
            json!({ "status": { "replicas": 2, "readyReplicas": 1 } }),
            &["a", "1", "2", "1", "<unknown>", "c", "i", "app=a"],
        );
    }
}
