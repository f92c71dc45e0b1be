//! Deployment: replica sets that take each other's place (upstream `pkg/registry/apps/deployment`).

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::not_negative;
use super::workload::{self, Scaled};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    has_generation: true,
    columns: &[
        table::NAME,
        table::described("Ready", "string", 0, "Number of the pod with ready state"),
        table::described(
            "Up-to-date",
            "string",
            0,
            "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
        ),
        table::described(
            "Available",
            "string",
            0,
            "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
        ),
        table::AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    ..Kind::namespaced(&Rules, "deployment")
};

pub const RECREATE: &str = "Recreate";
pub const ROLLING_UPDATE: &str = "RollingUpdate";

struct Rules;

impl Strategy for Rules {
    type Object = Deployment;

    fn set_defaults(&self, deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some(ROLLING_UPDATE.to_owned());
        }
        if strategy.type_.as_deref() == Some(ROLLING_UPDATE) {
            let quarter = || IntOrString::String("25%".to_owned());
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        workload::default_template(&mut spec.template);
    }

    fn prepare_create(&self, deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&self, new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    /// Annotations count too: replica sets carry them.
    fn spec_changed(&self, new: &Deployment, old: &Deployment) -> bool {
        new.spec != old.spec || new.metadata.annotations != old.metadata.annotations
    }

    fn validate(&self, deployment: &Deployment, errors: &mut Errors) {
        let nothing = DeploymentSpec::default();
        let spec = deployment.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        not_negative(errors, &path.child("replicas"), spec.replicas.unwrap_or_default().into());
        workload::validate_pods(
            &spec.selector,
            Some(&spec.template),
            "empty selector is invalid for deployment",
            "ReplicaSet",
            errors,
        );
        let strategy = spec.strategy.clone().unwrap_or_default();
        validate_strategy(errors, &path.child("strategy"), &strategy);
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        not_negative(errors, &path.child("minReadySeconds"), min_ready.into());
        not_negative(
            errors,
            &path.child("revisionHistoryLimit"),
            spec.revision_history_limit.unwrap_or_default().into(),
        );
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            not_negative(errors, &path, deadline.into());
            if deadline <= min_ready {
                errors.invalid(&path, deadline, "must be greater than minReadySeconds");
            }
        }
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment, errors: &mut Errors) {
        let selector = |one: &Deployment| one.spec.as_ref().map(|spec| spec.selector.clone());
        workload::validate_selector_kept(errors, &selector(new), &selector(old));
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment, errors: &mut Errors) {
        let nothing = DeploymentStatus::default();
        let status = new.status.as_ref().unwrap_or(&nothing);
        let count = Option::unwrap_or_default;
        let replicas = count(status.replicas);
        let (updated, ready, available) =
            (count(status.updated_replicas), count(status.ready_replicas), count(status.available_replicas));
        workload::validate_counts(
            errors,
            &[
                ("observedGeneration", status.observed_generation.unwrap_or_default()),
                ("replicas", replicas.into()),
                ("updatedReplicas", updated.into()),
                ("readyReplicas", ready.into()),
                ("availableReplicas", available.into()),
                ("unavailableReplicas", count(status.unavailable_replicas).into()),
                ("collisionCount", count(status.collision_count).into()),
            ],
        );
        let all = "status.replicas";
        workload::validate_bound(errors, "updatedReplicas", updated, replicas, all);
        workload::validate_bound(errors, "readyReplicas", ready, replicas, all);
        workload::validate_bound(errors, "availableReplicas", available, replicas, all);
        workload::validate_bound(errors, "availableReplicas", available, ready, "readyReplicas");
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        if count(status.collision_count) < count(before) {
            let path = Path::new("status").child("collisionCount");
            errors.invalid(&path, count(status.collision_count), "cannot be decremented");
        }
    }

    fn scaled(&self, deployment: &Deployment) -> Option<Scaled> {
        let spec = deployment.spec.as_ref()?;
        Some(Scaled {
            wanted: spec.replicas.unwrap_or_default(),
            there: deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or_default(),
            selector: workload::selector_text(&spec.selector),
        })
    }

    fn scale(&self, deployment: &mut Deployment, replicas: i32) {
        deployment.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (DeploymentSpec::default(), DeploymentStatus::default());
        let spec = deployment.spec.as_ref().unwrap_or(&no_spec);
        let status = deployment.status.as_ref().unwrap_or(&no_status);
        let [names, images] = workload::container_cells(&spec.template);
        let ready = status.ready_replicas.unwrap_or_default();
        vec![
            table::name(deployment),
            Cell::Text(format!("{ready}/{}", spec.replicas.unwrap_or_default())),
            Cell::Number(status.updated_replicas.unwrap_or_default().into()),
            Cell::Number(status.available_replicas.unwrap_or_default().into()),
            table::age(deployment, now),
            names,
            images,
            workload::selector_cell(&spec.selector),
        ]
    }
}

fn validate_strategy(errors: &mut Errors, path: &Path, strategy: &DeploymentStrategy) {
    let rolling_path = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        (RECREATE, Some(_)) => {
            errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        (RECREATE, None) => {}
        (ROLLING_UPDATE, None) => {
            errors.required(&rolling_path, "this should be defaulted and never be nil");
        }
        (ROLLING_UPDATE, Some(rolling)) => validate_rolling(errors, &rolling_path, rolling),
        (other, _) => errors.unsupported(&path.child("type"), other, &[RECREATE, ROLLING_UPDATE]),
    }
}

fn validate_rolling(errors: &mut Errors, path: &Path, rolling: &RollingUpdateDeployment) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let unavailable_path = path.child("maxUnavailable");
    workload::validate_amount(errors, &unavailable_path, unavailable);
    workload::validate_amount(errors, &path.child("maxSurge"), surge);
    if workload::is_zero(unavailable) && workload::is_zero(surge) {
        errors.invalid(&unavailable_path, unavailable, "may not be 0 when `maxSurge` is 0");
    }
    workload::validate_share(errors, &unavailable_path, unavailable);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use crate::kind::testing::lines;
    use serde_json::json;

    const DEPLOYMENT: Fixture = Fixture {
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
    fn defaults() {
        let made = DEPLOYMENT.created(json!({})).to_value();
        let spec = &made["spec"];
        assert_eq!(
            spec["strategy"],
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "25%", "maxSurge": "25%" } })
        );
        assert_eq!(
            [&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]],
            [&json!(1), &json!(10), &json!(600)]
        );
        let made = DEPLOYMENT.created(json!({ "spec": { "strategy": { "type": "Recreate" } } })).to_value();
        assert_eq!(made["spec"]["strategy"], json!({ "type": "Recreate" }));
    }

    #[test]
    fn strategies_make_sense() {
        let rolling = |change| json!({ "spec": { "strategy": { "rollingUpdate": change } } });
        DEPLOYMENT.valid(json!({}), &[]);
        DEPLOYMENT.valid(rolling(json!({ "maxSurge": "0%", "maxUnavailable": 1 })), &[]);
        DEPLOYMENT.valid(
            rolling(json!({ "maxSurge": 0, "maxUnavailable": "0%" })),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"],
        );
        DEPLOYMENT.valid(
            rolling(json!({ "maxSurge": -1, "maxUnavailable": "101%" })),
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        );
        DEPLOYMENT.valid(
            rolling(json!({ "maxSurge": "many" })),
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ],
        );
        DEPLOYMENT.valid(
            json!({ "spec": { "strategy": { "type": "Recreate", "rollingUpdate": {} } } }),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        );
        DEPLOYMENT.valid(
            json!({ "spec": { "strategy": { "type": "Sudden" } } }),
            &["spec.strategy.type: Unsupported value: \"Sudden\": supported values: \"Recreate\", \"RollingUpdate\""],
        );
    }

    #[test]
    fn numbers_make_sense() {
        DEPLOYMENT.valid(
            json!({ "spec": { "replicas": -1, "minReadySeconds": 10, "revisionHistoryLimit": -1, "progressDeadlineSeconds": 10 } }),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                "spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds",
            ],
        );
        DEPLOYMENT.update(
            json!({}),
            json!({ "spec": { "selector": { "matchLabels": { "b": "c" } }, "template": { "metadata": { "labels": { "b": "c" } } } } }),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"b\":\"c\"}}: field is immutable"],
        );
        let old = DEPLOYMENT.object(json!({ "status": { "collisionCount": 2 } }));
        let new = DEPLOYMENT.object(json!({ "status": { "collisionCount": 1, "updatedReplicas": 1 } }));
        assert_eq!(
            lines(&KIND.strategy.validate_status_update(&*new, &*old)),
            [
                "status.updatedReplicas: Invalid value: 1: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 1: cannot be decremented",
            ]
        );
    }

    #[test]
    fn annotations_are_a_new_generation() {
        let note = json!({ "metadata": { "annotations": { "x": "y" } } });
        for (change, expected) in
            [(note, true), (json!({ "spec": { "paused": true } }), true), (json!({}), false)]
        {
            let (new, old) = DEPLOYMENT.updated(json!({}), change);
            assert_eq!(KIND.strategy.spec_changed(&*new, &*old), expected);
        }
    }

    #[test]
    fn tables_count_replicas() {
        DEPLOYMENT.cells(
            json!({ "spec": { "replicas": 3 }, "status": { "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1 } }),
            &["a", "1/3", "2", "1", "<unknown>", "c", "i", "app=a"],
        );
    }
}
