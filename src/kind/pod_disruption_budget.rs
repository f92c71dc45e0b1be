//! PodDisruptionBudget: how many pods of an application may be missing by intent (upstream
//! `pkg/registry/policy/poddisruptionbudget` and `pkg/apis/policy/validation`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{Errors, Path};
use super::selector::LabelSelector;
use super::table::{self, Cell};
use super::validation::{choice, label_selector};
use super::workload::{self, validate_amount, validate_share};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["pdb"],
    subresources: &[Subresource::Status],
    has_generation: true,
    unconditional_update: false,
    columns: &[
        table::NAME,
        table::described("Min Available", "string", 0, "The minimum number of pods that must be available."),
        table::described(
            "Max Unavailable",
            "string",
            0,
            "The maximum number of pods that may be unavailable.",
        ),
        table::described(
            "Allowed Disruptions",
            "integer",
            0,
            "Calculated number of pods that may be disrupted at this time.",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "poddisruptionbudget")
};

/// The condition that says whether a pod may be evicted.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// The condition of a pod that somebody is about to remove from a node.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// Pods that are not ready go whether or not there are enough others.
pub const ALWAYS_ALLOW: &str = "AlwaysAllow";
const IF_HEALTHY_BUDGET: &str = "IfHealthyBudget";

/// Whether the budget is about the pod. One without a selector is about none, one with an empty selector
/// about all of its namespace.
#[must_use]
pub fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    budget.metadata.namespace == pod.metadata.namespace
        && LabelSelector::from_meta(selector)
            .is_ok_and(|selector| selector.matches(pod.metadata.labels.as_ref()))
}

/// Brings the condition in line with the number of disruptions that the status allows.
pub fn tell_allowed(status: &mut PodDisruptionBudgetStatus, now: Timestamp) {
    let (value, reason) = if status.disruptions_allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    tell(status, value, reason, "", now);
}

/// Sets the condition; the time of its transition stays where its value does.
pub fn tell(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().find(|one| one.type_ == DISRUPTION_ALLOWED && one.status == value);
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let since = before.map_or(Time(whole), |one| one.last_transition_time.clone());
    let new = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation,
    };
    match conditions.iter_mut().find(|one| one.type_ == DISRUPTION_ALLOWED) {
        Some(one) => *one = new,
        None => conditions.push(new),
    }
}

struct Rules;

impl Strategy for Rules {
    type Object = PodDisruptionBudget;

    fn set_defaults(&self, budget: &mut PodDisruptionBudget) {
        budget.spec.get_or_insert_default();
    }

    fn prepare_create(&self, budget: &mut PodDisruptionBudget) {
        budget.status = Some(PodDisruptionBudgetStatus::default());
    }

    fn prepare_update(&self, new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &PodDisruptionBudget, old: &PodDisruptionBudget) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, budget: &PodDisruptionBudget, errors: &mut Errors) {
        let nothing = PodDisruptionBudgetSpec::default();
        let spec = budget.spec.as_ref().unwrap_or(&nothing);
        let path = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for (name, amount) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            if let Some(amount) = amount {
                validate_amount(errors, &path.child(name), amount);
                validate_share(errors, &path.child(name), amount);
            }
        }
        label_selector(errors, &path.child("selector"), spec.selector.as_ref());
        if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
            let path = path.child("unhealthyPodEvictionPolicy");
            choice(errors, &path, policy, &[ALWAYS_ALLOW, IF_HEALTHY_BUDGET]);
        }
    }

    fn validate_status_update(
        &self,
        new: &PodDisruptionBudget,
        _old: &PodDisruptionBudget,
        errors: &mut Errors,
    ) {
        let Some(status) = &new.status else { return };
        workload::validate_counts(
            errors,
            &[
                ("disruptionsAllowed", status.disruptions_allowed.into()),
                ("currentHealthy", status.current_healthy.into()),
                ("desiredHealthy", status.desired_healthy.into()),
                ("expectedPods", status.expected_pods.into()),
            ],
        );
    }

    fn cells(&self, budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Cell> {
        let spec = budget.spec.as_ref();
        let shown = |amount: Option<&IntOrString>| {
            Cell::Text(match amount {
                Some(IntOrString::Int(number)) => number.to_string(),
                Some(IntOrString::String(text)) => text.clone(),
                None => "N/A".to_owned(),
            })
        };
        let allowed = budget.status.as_ref().map_or(0, |status| status.disruptions_allowed);
        vec![
            table::name(budget),
            shown(spec.and_then(|spec| spec.min_available.as_ref())),
            shown(spec.and_then(|spec| spec.max_unavailable.as_ref())),
            Cell::Number(allowed.into()),
            table::age(budget, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use crate::kind::testing::lines;
    use serde_json::{Value, json};

    const BUDGET: Fixture = Fixture {
        kind: &KIND,
        base: || {
            json!({
                "metadata": { "name": "a", "namespace": "n" },
                "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "a" } } },
            })
        },
    };

    #[test]
    fn amounts_and_policies_are_checked() {
        let check = |spec: Value, expected: &[&str]| BUDGET.valid(json!({ "spec": spec }), expected);
        check(json!({}), &[]);
        check(json!({ "minAvailable": "50%" }), &[]);
        check(json!({ "minAvailable": null, "maxUnavailable": 0 }), &[]);
        check(json!({ "minAvailable": null }), &[]);
        check(
            json!({ "maxUnavailable": 1 }),
            &[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1,\"selector\":{\"matchLabels\":{\"app\":\"a\"}}}: minAvailable and maxUnavailable cannot be both set",
            ],
        );
        check(
            json!({ "minAvailable": -1 }),
            &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({ "minAvailable": null, "maxUnavailable": "101%" }),
            &["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
        );
        check(
            json!({ "minAvailable": "ten" }),
            &[
                "spec.minAvailable: Invalid value: \"ten\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ],
        );
        check(json!({ "unhealthyPodEvictionPolicy": "AlwaysAllow" }), &[]);
        check(
            json!({ "unhealthyPodEvictionPolicy": "Never" }),
            &[
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
        check(
            json!({ "selector": { "matchLabels": { "a b": "c" } } }),
            &[
                "spec.selector.matchLabels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        );
    }

    #[test]
    fn spec_and_status_change_apart() {
        let status =
            json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });
        let made = BUDGET.created(json!({ "status": { "disruptionsAllowed": 7 } })).to_value();
        assert_eq!(made["status"], status);
        // Unlike other selectors this one may change.
        BUDGET.update(json!({}), json!({ "spec": { "selector": { "matchLabels": { "app": "b" } } } }), &[]);
        let (new, old) = BUDGET
            .updated(json!({}), json!({ "spec": { "minAvailable": 2 }, "status": { "expectedPods": 9 } }));
        assert_eq!(new.to_value()["status"], status);
        assert!(KIND.strategy.spec_changed(&*new, &*old));
        let new = BUDGET.status_updated(
            json!({}),
            json!({ "spec": { "minAvailable": 2 }, "status": { "expectedPods": -1 } }),
        );
        assert_eq!(new.to_value()["spec"]["minAvailable"], 1);
        assert_eq!(
            lines(&KIND.strategy.validate_status_update(&*new, &*new)),
            ["status.expectedPods: Invalid value: -1: must be greater than or equal to 0"]
        );
    }

    #[test]
    fn tables_show_what_is_asked_and_allowed() {
        BUDGET.cells(json!({ "status": { "disruptionsAllowed": 2 } }), &["a", "1", "N/A", "2", "<unknown>"]);
        let share = json!({ "spec": { "minAvailable": null, "maxUnavailable": "30%" } });
        BUDGET.cells(share, &["a", "N/A", "30%", "0", "<unknown>"]);
    }

    #[test]
    fn a_budget_covers_what_its_selector_matches() {
        let covers = |selector: Value, namespace: &str| {
            let budget = BUDGET.object(json!({ "spec": { "selector": selector } }));
            let pod = json!({ "metadata": { "namespace": namespace, "labels": { "app": "a" } } });
            super::covers(budget.downcast_ref().unwrap(), &serde_json::from_value(pod).unwrap())
        };
        assert!(covers(json!({}), "n") && !covers(json!({}), "m"));
        assert!(!covers(json!({ "matchLabels": { "app": "b" } }), "n"));
        assert!(covers(json!({ "matchLabels": null }), "n"), "an empty one matches all");
        assert!(!covers(Value::Null, "n"), "none matches none");
    }

    #[test]
    fn the_condition_keeps_the_time_of_its_transition() {
        let mut status = PodDisruptionBudgetStatus { observed_generation: Some(3), ..Default::default() };
        let mut at = |allowed: i32, second: i64| {
            status.disruptions_allowed = allowed;
            tell_allowed(&mut status, Timestamp::from_second(second).unwrap());
            let all = status.conditions.clone().unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].observed_generation, Some(3));
            format!("{} {} {}", all[0].status, all[0].reason, all[0].last_transition_time.0.as_second())
        };
        assert_eq!(at(1, 10), "True SufficientPods 10");
        assert_eq!(at(2, 20), "True SufficientPods 10");
        assert_eq!(at(0, 30), "False InsufficientPods 30");
    }
}
