//! ReplicationController: what ReplicaSet was before it (upstream `pkg/registry/core/replicationcontroller`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaSelector;

use super::field::{Errors, Path};
use super::selector::LabelSelector;
use super::table::{self, Cell};
use super::validation::not_negative;
use super::workload::{self, Scaled};
use super::{Kind, Propagation, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    has_generation: true,
    // BEHAVIOURS 4.5
    default_propagation: Propagation::Orphan,
    columns: &[
        table::NAME,
        table::described(
            "Desired",
            "integer",
            0,
            "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
        ),
        table::described(
            "Current",
            "integer",
            0,
            "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
        ),
        table::described(
            "Ready",
            "integer",
            0,
            "The number of ready replicas for this replication controller.",
        ),
        table::AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    ..Kind::namespaced(&Rules, "replicationcontroller")
};

struct Rules;

/// The selector, a map, in the form that all others have.
#[must_use]
pub fn selector(controller: &ReplicationController) -> MetaSelector {
    let map = controller.spec.as_ref().and_then(|spec| spec.selector.clone());
    MetaSelector { match_labels: map, match_expressions: None }
}

impl Strategy for Rules {
    type Object = ReplicationController;

    fn set_defaults(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let empty = |map: &Option<BTreeMap<String, String>>| map.as_ref().is_none_or(BTreeMap::is_empty);
        if let Some(template) = &mut spec.template {
            workload::default_template(template);
            let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
            if empty(&spec.selector) {
                spec.selector.clone_from(&labels);
            }
            if empty(&controller.metadata.labels) {
                controller.metadata.labels = labels;
            }
        }
    }

    fn prepare_create(&self, controller: &mut ReplicationController) {
        controller.status = Some(ReplicationControllerStatus::default());
    }

    fn prepare_update(&self, new: &mut ReplicationController, old: &ReplicationController) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut ReplicationController, old: &ReplicationController) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &ReplicationController, old: &ReplicationController) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, controller: &ReplicationController, errors: &mut Errors) {
        let nothing = ReplicationControllerSpec::default();
        let spec = controller.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        not_negative(
            errors,
            &path.child("minReadySeconds"),
            spec.min_ready_seconds.unwrap_or_default().into(),
        );
        let labels = selector(controller);
        if workload::is_empty(&labels) {
            errors.required(&path.child("selector"), "");
        }
        not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or_default().into());
        match (&spec.template, LabelSelector::from_meta(Some(&labels))) {
            (None, _) => errors.required(&path.child("template"), ""),
            (Some(template), Ok(selector)) => {
                workload::validate_template(&selector, template, "ReplicationController", errors);
            }
            (Some(_), Err(_)) => errors.invalid(&path.child("selector"), labels, "invalid label selector"),
        }
    }

    fn validate_status_update(
        &self,
        new: &ReplicationController,
        _old: &ReplicationController,
        errors: &mut Errors,
    ) {
        let nothing = ReplicationControllerStatus::default();
        let status = new.status.as_ref().unwrap_or(&nothing);
        let (ready, available) =
            (status.ready_replicas.unwrap_or_default(), status.available_replicas.unwrap_or_default());
        workload::validate_counts(
            errors,
            &[
                ("replicas", status.replicas.into()),
                ("readyReplicas", ready.into()),
                ("availableReplicas", available.into()),
                ("observedGeneration", status.observed_generation.unwrap_or_default()),
            ],
        );
        workload::validate_bound(errors, "readyReplicas", ready, status.replicas, "status.replicas");
        workload::validate_bound(errors, "availableReplicas", available, status.replicas, "status.replicas");
    }

    fn fields(&self, controller: &ReplicationController) -> Vec<(&'static str, String)> {
        let there = controller.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", there.to_string())]
    }

    fn scaled(&self, controller: &ReplicationController) -> Option<Scaled> {
        let spec = controller.spec.as_ref()?;
        Some(Scaled {
            wanted: spec.replicas.unwrap_or_default(),
            there: controller.status.as_ref().map_or(0, |status| status.replicas),
            selector: workload::selector_text(&selector(controller)),
        })
    }

    fn scale(&self, controller: &mut ReplicationController, replicas: i32) {
        controller.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn cells(&self, controller: &ReplicationController, now: Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) =
            (ReplicationControllerSpec::default(), ReplicationControllerStatus::default());
        let spec = controller.spec.as_ref().unwrap_or(&no_spec);
        let status = controller.status.as_ref().unwrap_or(&no_status);
        let [names, images] = workload::container_cells(&spec.template.clone().unwrap_or_default());
        vec![
            table::name(controller),
            Cell::Number(spec.replicas.unwrap_or_default().into()),
            Cell::Number(status.replicas.into()),
            Cell::Number(status.ready_replicas.unwrap_or_default().into()),
            table::age(controller, now),
            names,
            images,
            workload::selector_cell(&selector(controller)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const CONTROLLER: Fixture = Fixture {
        kind: &KIND,
        base: || {
            json!({
                "metadata": { "name": "a", "namespace": "n" },
                "spec": { "template": {
                    "metadata": { "labels": { "app": "a" } },
                    "spec": { "containers": [{ "name": "c", "image": "i" }] },
                } },
            })
        },
    };

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let made = CONTROLLER.created(json!({})).to_value();
        assert_eq!(made["spec"]["selector"], json!({ "app": "a" }));
        assert_eq!(made["metadata"]["labels"], json!({ "app": "a" }));
        assert_eq!(made["spec"]["replicas"], 1);
        CONTROLLER.valid(json!({}), &[]);
        CONTROLLER.update(
            json!({}),
            json!({ "spec": { "selector": { "app": null, "b": "c" }, "template": { "metadata": { "labels": { "b": "c" } } } } }),
            &[],
        );
    }

    #[test]
    fn selector_and_template_are_needed() {
        CONTROLLER.valid(
            json!({ "spec": { "template": null, "replicas": -2 } }),
            &[
                "spec.selector: Required value",
                "spec.replicas: Invalid value: -2: must be greater than or equal to 0",
                "spec.template: Required value",
            ],
        );
        CONTROLLER.valid(
            json!({ "spec": { "selector": { "app": "b" } } }),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        );
    }

    #[test]
    fn it_scales_and_is_shown() {
        let mut controller = CONTROLLER.object(json!({ "status": { "replicas": 2 } }));
        let scaled = Scaled { wanted: 1, there: 2, selector: "app=a".into() };
        assert_eq!(KIND.strategy.scaled(&*controller), Some(scaled));
        KIND.strategy.scale(&mut *controller, 0);
        assert_eq!(controller.to_value()["spec"]["replicas"], 0);
        CONTROLLER.cells(json!({}), &["a", "1", "0", "0", "<unknown>", "c", "i", "app=a"]);
    }
}
