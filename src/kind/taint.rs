//! Which taints a pod puts up with.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether any of the tolerations covers the taint (core/v1 `ToleratesTaint`): an absent effect or
/// key covers every one, `Exists` every value.
#[must_use]
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| covers(toleration, taint))
}

/// The first taint with one of these effects that no toleration covers.
#[must_use]
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints.iter().find(|taint| effects.contains(&taint.effect.as_str()) && !tolerates(tolerations, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let is_any_or = |asked: &Option<String>, actual: &str| {
        let asked = asked.as_deref().unwrap_or_default();
        asked.is_empty() || asked == actual
    };
    is_any_or(&toleration.effect, &taint.effect)
        && is_any_or(&toleration.key, &taint.key)
        && match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => {
                toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            "Exists" => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(toleration: Value, expected: bool) {
        let taint =
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        let one: Toleration = serde_json::from_value(toleration.clone()).unwrap();
        assert_eq!(tolerates(&[one], &taint), expected, "{toleration}");
    }

    #[test]
    fn tolerations_cover_by_key_value_and_effect() {
        check(json!({"key": "k", "value": "v"}), true);
        check(json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true);
        check(json!({"key": "k", "operator": "Equal", "value": "w"}), false);
        check(json!({"key": "k", "operator": "Exists"}), true);
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "l", "operator": "Exists"}), false);
        check(json!({"key": "k", "operator": "Like"}), false);
    }

    #[test]
    fn the_first_taint_that_matters_is_found() {
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key": "soft", "effect": "PreferNoSchedule"},
            {"key": "known", "effect": "NoSchedule"},
            {"key": "new", "effect": "NoExecute"},
        ]))
        .unwrap();
        let known: Vec<Toleration> =
            serde_json::from_value(json!([{"key": "known", "operator": "Exists"}])).unwrap();
        let found = |effects: &[&str]| untolerated(&taints, &known, effects).map(|taint| taint.key.as_str());
        assert_eq!(found(&["NoSchedule", "NoExecute"]), Some("new"));
        assert_eq!(found(&["PreferNoSchedule"]), Some("soft"));
        assert_eq!(found(&["NoSchedule"]), None);
        assert!(!tolerates(&[], &taints[0]));
    }
}
