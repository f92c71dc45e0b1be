//! StatefulSet: pods with names that last, made and replaced in order (upstream
//! `pkg/registry/apps/statefulset` and `pkg/apis/apps/validation`).
//!
//! There are no PersistentVolumeClaims yet, so claim templates are refused.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetStatus,
};

use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::{choice, not_negative};
use super::workload::{self, Scaled};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    has_generation: true,
    columns: &[
        table::NAME,
        table::described("Ready", "string", 0, "Number of the pod with ready state"),
        table::AGE,
        workload::CONTAINERS,
        workload::IMAGES,
    ],
    ..Kind::namespaced(&Rules, "statefulset")
};

pub const ORDERED: &str = "OrderedReady";
pub const PARALLEL: &str = "Parallel";
pub const ON_DELETE: &str = "OnDelete";
pub const ROLLING_UPDATE: &str = "RollingUpdate";
const RETAIN: &str = "Retain";
const DELETE: &str = "Delete";

struct Rules;

impl Strategy for Rules {
    type Object = StatefulSet;

    fn set_defaults(&self, set: &mut StatefulSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        let fill = |text: &mut Option<String>, default: &str| {
            if text.as_deref().unwrap_or_default().is_empty() {
                *text = Some(default.to_owned());
            }
        };
        fill(&mut spec.pod_management_policy, ORDERED);
        let strategy = spec.update_strategy.get_or_insert_default();
        fill(&mut strategy.type_, ROLLING_UPDATE);
        if strategy.type_.as_deref() == Some(ROLLING_UPDATE) {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention: &mut StatefulSetPersistentVolumeClaimRetentionPolicy =
            spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        fill(&mut retention.when_deleted, RETAIN);
        fill(&mut retention.when_scaled, RETAIN);
        workload::default_template(&mut spec.template);
    }

    fn prepare_create(&self, set: &mut StatefulSet) {
        set.status = Some(StatefulSetStatus::default());
    }

    fn prepare_update(&self, new: &mut StatefulSet, old: &StatefulSet) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut StatefulSet, old: &StatefulSet) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &StatefulSet, old: &StatefulSet) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, set: &StatefulSet, errors: &mut Errors) {
        let nothing = StatefulSetSpec::default();
        let spec = set.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        let policy = spec.pod_management_policy.as_deref().unwrap_or_default();
        choice(errors, &path.child("podManagementPolicy"), policy, &[ORDERED, PARALLEL]);
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        let strategy_path = path.child("updateStrategy");
        match strategy.type_.as_deref().unwrap_or_default() {
            ON_DELETE => {
                if let Some(rolling) = &strategy.rolling_update {
                    let why = format!("only allowed for updateStrategy '{ROLLING_UPDATE}'");
                    errors.invalid(&strategy_path.child("rollingUpdate"), rolling, &why);
                }
            }
            ROLLING_UPDATE => {
                let partition = strategy.rolling_update.and_then(|rolling| rolling.partition);
                let path = strategy_path.child("rollingUpdate").child("partition");
                not_negative(errors, &path, partition.unwrap_or_default().into());
            }
            other => {
                errors.invalid(&strategy_path, other, &format!("must be '{ROLLING_UPDATE}' or '{ON_DELETE}'"))
            }
        }
        let retention = spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
        for (name, value) in [("whenDeleted", retention.when_deleted), ("whenScaled", retention.when_scaled)]
        {
            let path = path.child("persistentVolumeClaimRetentionPolicy").child(name);
            choice(errors, &path, value.as_deref().unwrap_or_default(), &[DELETE, RETAIN]);
        }
        if spec.volume_claim_templates.as_ref().is_some_and(|all| !all.is_empty()) {
            let why = "this cluster has no persistent volumes; mount an emptyDir in the template instead";
            errors.forbidden(&path.child("volumeClaimTemplates"), why);
        }
        for (name, number) in [
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ] {
            not_negative(errors, &path.child(name), number.unwrap_or_default().into());
        }
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
        not_negative(errors, &path.child("ordinals").child("start"), start.into());
        workload::validate_pods(
            &spec.selector,
            Some(&spec.template),
            "empty selector is invalid for statefulset",
            "StatefulSet",
            errors,
        );
    }

    /// Only what does not tell the set's pods from others', or one from another, may change.
    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
        let fixed = |set: &StatefulSet| {
            let spec = set.spec.clone().unwrap_or_default();
            StatefulSetSpec {
                replicas: None,
                ordinals: None,
                template: k8s_openapi::api::core::v1::PodTemplateSpec::default(),
                update_strategy: None,
                revision_history_limit: None,
                persistent_volume_claim_retention_policy: None,
                min_ready_seconds: None,
                ..spec
            }
        };
        if fixed(new) != fixed(old) {
            errors.forbidden(
                &Path::new("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }

    fn validate_status_update(&self, new: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
        let nothing = StatefulSetStatus::default();
        let status = new.status.as_ref().unwrap_or(&nothing);
        let count = Option::unwrap_or_default;
        workload::validate_counts(
            errors,
            &[
                ("replicas", status.replicas.into()),
                ("readyReplicas", count(status.ready_replicas).into()),
                ("currentReplicas", count(status.current_replicas).into()),
                ("updatedReplicas", count(status.updated_replicas).into()),
                ("availableReplicas", count(status.available_replicas).into()),
                ("observedGeneration", status.observed_generation.unwrap_or_default()),
                ("collisionCount", count(status.collision_count).into()),
            ],
        );
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        if count(status.collision_count) < count(before) {
            let path = Path::new("status").child("collisionCount");
            errors.invalid(&path, count(status.collision_count), "cannot be decremented");
        }
    }

    fn scaled(&self, set: &StatefulSet) -> Option<Scaled> {
        let spec = set.spec.as_ref()?;
        Some(Scaled {
            wanted: spec.replicas.unwrap_or_default(),
            there: set.status.as_ref().map_or(0, |status| status.replicas),
            selector: workload::selector_text(&spec.selector),
        })
    }

    fn scale(&self, set: &mut StatefulSet, replicas: i32) {
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn cells(&self, set: &StatefulSet, now: Timestamp) -> Vec<Cell> {
        let nothing = StatefulSetSpec::default();
        let spec = set.spec.as_ref().unwrap_or(&nothing);
        let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
        let [names, images] = workload::container_cells(&spec.template);
        vec![
            table::name(set),
            Cell::Text(format!("{ready}/{}", spec.replicas.unwrap_or_default())),
            table::age(set, now),
            names,
            images,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const SET: Fixture = Fixture {
        kind: &KIND,
        base: || {
            json!({
                "metadata": { "name": "a", "namespace": "n" },
                "spec": {
                    "serviceName": "s", "selector": { "matchLabels": { "app": "a" } },
                    "template": {
                        "metadata": { "labels": { "app": "a" } },
                        "spec": { "containers": [{ "name": "c", "image": "i" }] },
                    },
                },
            })
        },
    };

    #[test]
    fn what_is_left_out_is_filled() {
        let spec = SET.created(json!({})).to_value()["spec"].clone();
        assert_eq!(
            [&spec["replicas"], &spec["revisionHistoryLimit"], &spec["podManagementPolicy"]],
            [&json!(1), &json!(10), &json!("OrderedReady")]
        );
        assert_eq!(
            spec["updateStrategy"],
            json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } })
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({ "whenDeleted": "Retain", "whenScaled": "Retain" })
        );
        let on_delete = SET.created(json!({ "spec": { "updateStrategy": { "type": "OnDelete" } } }));
        assert_eq!(on_delete.to_value()["spec"]["updateStrategy"], json!({ "type": "OnDelete" }));
    }

    #[test]
    fn specs_are_checked() {
        let check = |spec: serde_json::Value, expected: &[&str]| SET.valid(json!({ "spec": spec }), expected);
        check(json!({ "ordinals": { "start": 5 }, "podManagementPolicy": "Parallel" }), &[]);
        check(
            json!({ "replicas": -1, "ordinals": { "start": -1 }, "podManagementPolicy": "x" }),
            &[
                "spec.podManagementPolicy: Unsupported value: \"x\": supported values: \"OrderedReady\", \"Parallel\"",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            json!({ "updateStrategy": { "rollingUpdate": { "partition": -1 } } }),
            &[
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            json!({ "volumeClaimTemplates": [{ "metadata": { "name": "v" } }] }),
            &[
                "spec.volumeClaimTemplates: Forbidden: this cluster has no persistent volumes; mount an emptyDir in the template instead",
            ],
        );
        check(
            json!({ "selector": { "matchLabels": { "app": "b" } } }),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        );
    }

    #[test]
    fn what_names_the_pods_never_changes() {
        let refused = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        for change in [json!({ "serviceName": "t" }), json!({ "podManagementPolicy": "Parallel" })] {
            SET.update(json!({}), json!({ "spec": change }), &[refused]);
        }
        let allowed = json!({ "spec": { "replicas": 3, "minReadySeconds": 2, "ordinals": { "start": 1 } } });
        SET.update(json!({}), allowed, &[]);
    }

    #[test]
    fn it_scales_and_shows_how_many_are_ready() {
        let mut set = SET.object(json!({ "status": { "replicas": 2 } }));
        let scaled = Scaled { wanted: 1, there: 2, selector: "app=a".into() };
        assert_eq!(KIND.strategy.scaled(&*set), Some(scaled));
        KIND.strategy.scale(&mut *set, 7);
        assert_eq!(set.to_value()["spec"]["replicas"], 7);
        SET.cells(
            json!({ "status": { "replicas": 1, "readyReplicas": 1 } }),
            &["a", "1/1", "<unknown>", "c", "i"],
        );
    }
}
