//! Which nodes a pod asks for: `nodeSelector` and node affinity (BEHAVIOURS 15.2).
//!
//! Values are compared as component-helpers `nodeaffinity` does. An expression that is malformed
//! (an unknown operator, the wrong number of values) fails its term, since nothing was asked for that
//! a node could have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm,
};

/// Whether any of the terms matches the node. No terms, no match; an empty term matches nothing.
#[must_use]
pub fn matches(terms: &NodeSelector, node: &Node) -> bool {
    terms.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether the labels have every entry of the selector.
#[must_use]
pub fn matches_map(node_selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The sum of the weights of the preferences that match the node.
#[must_use]
pub fn preferred_weight(preferred: &[PreferredSchedulingTerm], node: &Node) -> i64 {
    preferred.iter().filter(|one| term_matches(&one.preference, node)).map(|one| i64::from(one.weight)).sum()
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    expressions.iter().all(|expression| expression_matches(expression, label(&expression.key)))
        && fields.iter().all(|field| field_matches(field, node))
}

fn expression_matches(expression: &NodeSelectorRequirement, label: Option<&String>) -> bool {
    let values = expression.values.as_deref().unwrap_or_default();
    let contains = |label: &String| values.contains(label);
    match expression.operator.as_str() {
        "In" => label.is_some_and(contains),
        "NotIn" => !values.is_empty() && !label.is_some_and(contains),
        "Exists" => values.is_empty() && label.is_some(),
        "DoesNotExist" => values.is_empty() && label.is_none(),
        "Gt" => compared(values, label).is_some_and(|(label, bound)| label > bound),
        "Lt" => compared(values, label).is_some_and(|(label, bound)| label < bound),
        _ => false,
    }
}

/// The label and the only value, as whole numbers.
fn compared(values: &[String], label: Option<&String>) -> Option<(i64, i64)> {
    let [bound] = values else { return None };
    Some((label?.parse().ok()?, bound.parse().ok()?))
}

/// The one field there is: the node's name, with one value.
fn field_matches(field: &NodeSelectorRequirement, node: &Node) -> bool {
    let Some([value]) = field.values.as_deref() else { return false };
    let is_named = node.metadata.name.as_ref() == Some(value);
    match (field.key.as_str(), field.operator.as_str()) {
        ("metadata.name", "In") => is_named,
        ("metadata.name", "NotIn") => !is_named,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8", "empty": ""}}
        }))
        .unwrap()
    }

    #[track_caller]
    fn check(terms: Value, expected: bool) {
        let selector: NodeSelector =
            serde_json::from_value(json!({"nodeSelectorTerms": terms.clone()})).unwrap();
        assert_eq!(matches(&selector, &node()), expected, "{terms}");
    }

    #[test]
    fn expressions_compare_labels() {
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["b", "a"]), true),
            ("zone", "In", json!(["b"]), false),
            ("rack", "In", json!([""]), false),
            ("empty", "In", json!([""]), true),
            ("zone", "NotIn", json!(["a"]), false),
            ("zone", "NotIn", json!(["b"]), true),
            ("rack", "NotIn", json!(["b"]), true),
            ("rack", "NotIn", json!([]), false),
            ("zone", "Exists", json!(null), true),
            ("rack", "Exists", json!(null), false),
            ("zone", "Exists", json!(["a"]), false),
            ("rack", "DoesNotExist", json!(null), true),
            ("zone", "DoesNotExist", json!(null), false),
            ("cores", "Gt", json!(["7"]), true),
            ("cores", "Gt", json!(["8"]), false),
            ("cores", "Lt", json!(["9"]), true),
            ("cores", "Lt", json!(["9", "10"]), false),
            ("zone", "Gt", json!(["1"]), false),
            ("rack", "Lt", json!(["1"]), false),
            ("zone", "Near", json!(["a"]), false),
        ] {
            check(
                json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
                expected,
            );
        }
    }

    #[test]
    fn fields_know_the_name_only() {
        for (key, operator, values, expected) in [
            ("metadata.name", "In", json!(["n1"]), true),
            ("metadata.name", "In", json!(["n2"]), false),
            ("metadata.name", "In", json!(["n1", "n2"]), false),
            ("metadata.name", "NotIn", json!(["n2"]), true),
            ("metadata.name", "Exists", json!(["n1"]), false),
            ("metadata.uid", "In", json!(["n1"]), false),
        ] {
            check(json!([{"matchFields": [{"key": key, "operator": operator, "values": values}]}]), expected);
        }
    }

    #[test]
    fn terms_are_alternatives_and_expressions_are_not() {
        let zone = |value: &str| json!({"key": "zone", "operator": "In", "values": [value]});
        let cores = json!({"key": "cores", "operator": "Exists"});
        check(json!([]), false);
        check(json!([{}]), false);
        check(json!([{}, {"matchExpressions": [zone("a")]}]), true);
        check(json!([{"matchExpressions": [zone("b")]}, {"matchExpressions": [zone("a")]}]), true);
        check(json!([{"matchExpressions": [zone("a"), cores]}]), true);
        check(json!([{"matchExpressions": [zone("b"), cores]}]), false);
        check(
            json!([{"matchExpressions": [zone("a")], "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]),
            false,
        );
    }

    #[test]
    fn node_selectors_need_every_entry() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let labels = map(&[("a", "1"), ("b", "2")]);
        assert!(matches_map(&map(&[]), &labels));
        assert!(matches_map(&map(&[("a", "1"), ("b", "2")]), &labels));
        assert!(!matches_map(&map(&[("a", "1"), ("b", "3")]), &labels));
        assert!(!matches_map(&map(&[("c", "")]), &labels));
    }

    #[test]
    fn preferences_add_up() {
        let preferred: Vec<PreferredSchedulingTerm> = serde_json::from_value(json!([
            {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}},
            {"weight": 5, "preference": {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}},
            {"weight": 100, "preference": {"matchExpressions": [{"key": "rack", "operator": "Exists"}]}},
            {"weight": 50, "preference": {}},
        ]))
        .unwrap();
        assert_eq!(preferred_weight(&preferred, &node()), 15);
    }
}
