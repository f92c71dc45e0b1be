//! PriorityClass: which pods go first (BEHAVIOURS 18.4; upstream `scheduling/validation`).

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::field::{Errors, Path};
use super::table::{self, Cell, Column, column};
use super::validation::{IMMUTABLE, choice};
use super::{Kind, Strategy};

pub static KIND: Kind = Kind {
    short_names: &["pc"],
    has_generation: true,
    columns: &[
        table::NAME,
        Column {
            description: "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
            ..column("Value", "integer", 0)
        },
        Column {
            description: "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
            ..column("Global-Default", "boolean", 0)
        },
        table::AGE,
        Column {
            description: "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
            ..column("PreemptionPolicy", "string", 0)
        },
    ],
    ..Kind::cluster(&Rules, "priorityclass")
};

/// The highest that users may give.
pub const VALUE_MAX: i32 = 1_000_000_000;

/// The classes that exist in every cluster, with their values.
pub const SYSTEM: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

struct Rules;

impl Strategy for Rules {
    type Object = PriorityClass;

    fn set_defaults(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn validate(&self, class: &PriorityClass, errors: &mut Errors) {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with("system-") {
            if let Some(why) = wrong_with_system(class, name) {
                let why = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&Path::new("metadata").child("name"), &why);
            }
        } else if class.value > VALUE_MAX {
            let why = format!("maximum allowed value of a user defined priority is {VALUE_MAX}");
            errors.forbidden(&Path::new("value"), &why);
        }
        if let Some(policy) = &class.preemption_policy {
            choice(errors, &Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
        }
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass, errors: &mut Errors) {
        if new.value != old.value {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        if new.preemption_policy != old.preemption_policy {
            errors.invalid(&Path::new("preemptionPolicy"), &new.preemption_policy, IMMUTABLE);
        }
    }

    fn cells(&self, class: &PriorityClass, now: Timestamp) -> Vec<Cell> {
        vec![
            table::name(class),
            Cell::Number(class.value.into()),
            Cell::Text(class.global_default.unwrap_or(false).to_string()),
            table::age(class, now),
            Cell::Text(class.preemption_policy.clone().unwrap_or_default()),
        ]
    }
}

/// Why `class` is not the system class that its name says.
fn wrong_with_system(class: &PriorityClass, name: &str) -> Option<String> {
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.value != *value {
        Some(format!("value of {name} PriorityClass must be {value}"))
    } else if class.global_default == Some(true) {
        Some(format!("globalDefault of {name} PriorityClass must be false"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::testing::{check_update, check_validation};

    const BASE: &str = "{metadata: {name: high}, value: 1000, preemptionPolicy: Never}";

    #[test]
    fn values_and_names_of_the_system_are_kept() {
        let check = |patch: &str, expected: &[&str]| check_validation(&KIND, BASE, patch, expected);
        check("{}", &[]);
        check("{value: -5}", &[]);
        check(
            "{value: 1000000001}",
            &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        );
        check(
            "{preemptionPolicy: Now}",
            &[
                "preemptionPolicy: Unsupported value: \"Now\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ],
        );
        check("{metadata: {name: system-node-critical}, value: 2000001000}", &[]);
        let system = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        check(
            "{metadata: {name: system-x}}",
            &[&format!("{system}system-x is not a known system priority class")],
        );
        check(
            "{metadata: {name: system-node-critical}}",
            &[&format!("{system}value of system-node-critical PriorityClass must be 2000001000")],
        );
    }

    #[test]
    fn value_and_policy_stay() {
        check_update(&KIND, BASE, "{description: x, globalDefault: true}", &[]);
        check_update(&KIND, BASE, "{value: 1}", &["value: Forbidden: may not be changed in an update."]);
        check_update(
            &KIND,
            BASE,
            "{preemptionPolicy: PreemptLowerPriority}",
            &["preemptionPolicy: Invalid value: \"PreemptLowerPriority\": field is immutable"],
        );
    }
}
