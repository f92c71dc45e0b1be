//! DaemonSet: a pod on every node that will have it (BEHAVIOURS 12).

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{Errors, Path};
use super::selector::LabelSelector;
use super::table::{self, Cell};
use super::validation::{label_selector, not_negative};
use super::{Kind, Strategy, Subresource, workload};

pub static KIND: Kind = Kind {
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[Subresource::Status],
    has_generation: true,
    columns: &[
        table::NAME,
        table::described(
            "Desired",
            "integer",
            0,
            "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        ),
        table::described(
            "Current",
            "integer",
            0,
            "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        ),
        table::described(
            "Ready",
            "integer",
            0,
            "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
        ),
        table::described(
            "Up-to-date",
            "integer",
            0,
            "The total number of nodes that are running updated daemon pod",
        ),
        table::described(
            "Available",
            "integer",
            0,
            "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
        ),
        table::described(
            "Node Selector",
            "string",
            0,
            "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
        ),
        table::AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    ..Kind::namespaced(&Rules, "daemonset")
};

pub const ON_DELETE: &str = "OnDelete";
pub const ROLLING_UPDATE: &str = "RollingUpdate";

/// Counts changes of the template; kept for clients of old (12.8).
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

struct Rules;

impl Strategy for Rules {
    type Object = DaemonSet;

    fn set_defaults(&self, set: &mut DaemonSet) {
        let spec = set.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some(ROLLING_UPDATE.to_owned());
        }
        if strategy.type_.as_deref() == Some(ROLLING_UPDATE) {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        workload::default_template(&mut spec.template);
    }

    fn prepare_create(&self, set: &mut DaemonSet) {
        set.status = Some(DaemonSetStatus::default());
        let given = template_generation(set).max(1);
        set_template_generation(set, given);
    }

    fn prepare_update(&self, new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        let template = |set: &DaemonSet| set.spec.as_ref().map(|spec| spec.template.clone());
        let changed = i64::from(template(new) != template(old));
        set_template_generation(new, template_generation(old) + changed);
    }

    fn prepare_status_update(&self, new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &DaemonSet, old: &DaemonSet) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, set: &DaemonSet, errors: &mut Errors) {
        let nothing = DaemonSetSpec::default();
        let spec = set.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        let selector_path = path.child("selector");
        if let Ok(selector) = LabelSelector::from_meta(Some(&spec.selector)) {
            workload::validate_template(&selector, &spec.template, "DaemonSet", errors);
        }
        label_selector(errors, &selector_path, Some(&spec.selector));
        if workload::is_empty(&spec.selector) {
            errors.invalid(&selector_path, &spec.selector, "empty selector is invalid for daemonset");
        }
        not_negative(
            errors,
            &path.child("minReadySeconds"),
            spec.min_ready_seconds.unwrap_or_default().into(),
        );
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        validate_strategy(errors, &path.child("updateStrategy"), &strategy);
        not_negative(
            errors,
            &path.child("revisionHistoryLimit"),
            spec.revision_history_limit.unwrap_or_default().into(),
        );
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet, errors: &mut Errors) {
        let selector = |set: &DaemonSet| set.spec.as_ref().map(|spec| spec.selector.clone());
        workload::validate_selector_kept(errors, &selector(new), &selector(old));
    }

    fn validate_status_update(&self, new: &DaemonSet, old: &DaemonSet, errors: &mut Errors) {
        let nothing = DaemonSetStatus::default();
        let status = new.status.as_ref().unwrap_or(&nothing);
        let count = Option::unwrap_or_default;
        workload::validate_counts(
            errors,
            &[
                ("currentNumberScheduled", status.current_number_scheduled.into()),
                ("numberMisscheduled", status.number_misscheduled.into()),
                ("desiredNumberScheduled", status.desired_number_scheduled.into()),
                ("numberReady", status.number_ready.into()),
                ("observedGeneration", status.observed_generation.unwrap_or_default()),
                ("updatedNumberScheduled", count(status.updated_number_scheduled).into()),
                ("numberAvailable", count(status.number_available).into()),
                ("numberUnavailable", count(status.number_unavailable).into()),
                ("collisionCount", count(status.collision_count).into()),
            ],
        );
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        if count(status.collision_count) < count(before) {
            let path = Path::new("status").child("collisionCount");
            errors.invalid(&path, count(status.collision_count), "cannot be decremented");
        }
    }

    fn cells(&self, set: &DaemonSet, now: Timestamp) -> Vec<Cell> {
        let (no_spec, no_status) = (DaemonSetSpec::default(), DaemonSetStatus::default());
        let spec = set.spec.as_ref().unwrap_or(&no_spec);
        let status = set.status.as_ref().unwrap_or(&no_status);
        let [names, images] = workload::container_cells(&spec.template);
        let nodes = spec.template.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let nodes: Vec<String> =
            nodes.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            table::name(set),
            Cell::Number(status.desired_number_scheduled.into()),
            Cell::Number(status.current_number_scheduled.into()),
            Cell::Number(status.number_ready.into()),
            Cell::Number(status.updated_number_scheduled.unwrap_or_default().into()),
            Cell::Number(status.number_available.unwrap_or_default().into()),
            Cell::or_none(&nodes.join(",")),
            table::age(set, now),
            names,
            images,
            workload::selector_cell(&spec.selector),
        ]
    }
}

/// What the annotation says; 0 without it.
#[must_use]
pub fn template_generation(set: &DaemonSet) -> i64 {
    let text = set.metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_GENERATION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate_strategy(errors: &mut Errors, path: &Path, strategy: &DaemonSetUpdateStrategy) {
    let rolling_path = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        (ON_DELETE, _) => {}
        (ROLLING_UPDATE, None) => errors.required(&rolling_path, ""),
        (ROLLING_UPDATE, Some(rolling)) => validate_rolling(errors, &rolling_path, rolling),
        (other, _) => errors.unsupported(&path.child("type"), other, &[ROLLING_UPDATE, ON_DELETE]),
    }
}

/// One of the two is non-zero, and only one (12.7).
fn validate_rolling(errors: &mut Errors, path: &Path, rolling: &RollingUpdateDaemonSet) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let (unavailable_path, surge_path) = (path.child("maxUnavailable"), path.child("maxSurge"));
    workload::validate_amount(errors, &unavailable_path, unavailable);
    workload::validate_amount(errors, &surge_path, surge);
    workload::validate_share(errors, &unavailable_path, unavailable);
    workload::validate_share(errors, &surge_path, surge);
    match (workload::is_zero(unavailable), workload::is_zero(surge)) {
        (false, false) => {
            errors.invalid(&surge_path, surge, "may not be set when maxUnavailable is non-zero");
        }
        (true, true) => errors.required(&unavailable_path, "cannot be 0 when maxSurge is 0"),
        (true, false) | (false, true) => {}
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
                    "selector": { "matchLabels": { "app": "a" } },
                    "template": {
                        "metadata": { "labels": { "app": "a" } },
                        "spec": { "containers": [{ "name": "c", "image": "i" }] },
                    },
                },
            })
        },
    };

    /// 12.1
    #[test]
    fn defaults() {
        let made = SET.created(json!({ "status": { "numberReady": 3 } })).to_value();
        assert_eq!(
            made["spec"]["updateStrategy"],
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } })
        );
        assert_eq!(made["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(made["metadata"]["annotations"], json!({ TEMPLATE_GENERATION: "1" }));
        assert_eq!(made["status"]["numberReady"], 0);
        let made = SET.created(json!({ "spec": { "updateStrategy": { "type": "OnDelete" } } })).to_value();
        assert_eq!(made["spec"]["updateStrategy"], json!({ "type": "OnDelete" }));
    }

    /// 12.1
    #[test]
    fn selector_and_template_fit() {
        SET.valid(json!({}), &[]);
        SET.valid(
            json!({ "spec": { "selector": { "matchLabels": { "app": "b" } } } }),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        );
        SET.valid(
            json!({ "spec": { "selector": { "matchLabels": null }, "minReadySeconds": -1, "revisionHistoryLimit": -1 } }),
            &[
                "spec.selector: Invalid value: {}: empty selector is invalid for daemonset",
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        SET.valid(
            json!({ "spec": { "template": { "spec": { "restartPolicy": "OnFailure" } } } }),
            &["spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\""],
        );
        SET.update(
            json!({}),
            json!({ "spec": { "selector": { "matchLabels": { "b": "c" } }, "template": { "metadata": { "labels": { "b": "c" } } } } }),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"b\":\"c\"}}: field is immutable"],
        );
    }

    /// 12.7
    #[test]
    fn a_rolling_update_either_surges_or_interrupts() {
        let rolling = |change| json!({ "spec": { "updateStrategy": { "rollingUpdate": change } } });
        SET.valid(rolling(json!({ "maxUnavailable": "30%" })), &[]);
        SET.valid(rolling(json!({ "maxUnavailable": 0, "maxSurge": "10%" })), &[]);
        SET.valid(
            rolling(json!({ "maxUnavailable": "0%" })),
            &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
        );
        SET.valid(
            rolling(json!({ "maxSurge": 1 })),
            &["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"],
        );
        SET.valid(
            rolling(json!({ "maxUnavailable": "200%" })),
            &["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"200%\": must not be greater than 100%"],
        );
        SET.valid(
            json!({ "spec": { "updateStrategy": { "type": "Sudden" } } }),
            &["spec.updateStrategy.type: Unsupported value: \"Sudden\": supported values: \"RollingUpdate\", \"OnDelete\""],
        );
    }

    /// 12.8
    #[test]
    fn changes_of_the_template_are_counted() {
        let annotation = |change| {
            let (new, _) = SET.updated(json!({}), change);
            new.metadata().annotations.as_ref().unwrap()[TEMPLATE_GENERATION].clone()
        };
        assert_eq!(
            annotation(json!({ "spec": { "template": { "metadata": { "labels": { "x": "y" } } } } })),
            "2"
        );
        assert_eq!(annotation(json!({ "spec": { "minReadySeconds": 3 } })), "1");
        assert_eq!(annotation(json!({ "metadata": { "annotations": { TEMPLATE_GENERATION: "7" } } })), "1");
    }

    /// 6.2
    #[test]
    fn tables_count_nodes() {
        SET.cells(
            json!({
                "spec": { "template": { "spec": { "nodeSelector": { "disk": "ssd" } } } },
                "status": {
                    "desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3,
                    "updatedNumberScheduled": 2, "numberAvailable": 1, "numberMisscheduled": 0,
                },
            }),
            &["a", "5", "4", "3", "2", "1", "disk=ssd", "<unknown>", "c", "i", "app=a"],
        );
    }
}
