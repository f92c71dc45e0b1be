//! What the kinds that make pods from a template share: rules, texts of tables, `scale` (upstream's
//! `pkg/apis/apps/validation`).

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::field::{Errors, Path};
use super::pod;
use super::selector::LabelSelector;
use super::table::{Cell, Column, described};
use super::validation::{each, label_selector, not_negative};

/// The wide columns of kinds with a template.
pub(super) const CONTAINERS: Column =
    described("Containers", "string", 1, "Names of each container in the template.");
pub(super) const IMAGES: Column =
    described("Images", "string", 1, "Images referenced by each container in the template.");
pub(super) const SELECTOR: Column = described(
    "Selector",
    "string",
    1,
    "A label query over pods that should match the number of replicas. Label keys and values that must match in order to be controlled by this controller. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
);

/// What `scale` shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// As the spec asks for.
    pub wanted: i32,
    /// As the status tells.
    pub there: i32,
    /// The text of the selector of the pods.
    pub selector: String,
}

/// Names and images of the template's containers, separated by commas.
pub(super) fn container_cells(template: &PodTemplateSpec) -> [Cell; 2] {
    let nothing = PodSpec::default();
    let containers = &template.spec.as_ref().unwrap_or(&nothing).containers;
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> =
        containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
    [Cell::Text(names.join(",")), Cell::Text(images.join(","))]
}

/// The selector as a query, `<none>` if it is empty.
pub(super) fn selector_cell(selector: &MetaSelector) -> Cell {
    Cell::or_none(&selector_text(selector))
}

/// The selector as a query (apimachinery's `LabelSelectorAsSelector`, printed).
#[must_use]
pub fn selector_text(selector: &MetaSelector) -> String {
    let equal = selector.match_labels.iter().flatten();
    let mut parts: Vec<(&str, String)> =
        equal.map(|(key, value)| (key.as_str(), format!("{key}={value}"))).collect();
    for one in selector.match_expressions.iter().flatten() {
        let mut values = one.values.clone().unwrap_or_default();
        values.sort();
        let (key, values) = (&one.key, values.join(","));
        parts.push((
            key,
            match one.operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            },
        ));
    }
    parts.sort_by(|a, b| a.0.cmp(b.0));
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// A selector that must not be empty and, with the template, what kinds of replicas ask of both: it
/// matches the labels, and pods are restarted for ever. `empty` is said of an empty selector, `owner`
/// names the kind that has no deadlines.
pub(super) fn validate_pods(
    selector: &MetaSelector,
    template: Option<&PodTemplateSpec>,
    empty: &str,
    owner: &str,
    errors: &mut Errors,
) {
    let spec = Path::new("spec");
    let path = spec.child("selector");
    label_selector(errors, &path, Some(selector));
    if is_empty(selector) {
        errors.invalid(&path, selector, empty);
    }
    match LabelSelector::from_meta(Some(selector)) {
        Err(_) => errors.invalid(&path, selector, "invalid label selector"),
        Ok(parsed) => match template {
            None => errors.required(&spec.child("template"), ""),
            Some(template) => validate_template(&parsed, template, owner, errors),
        },
    }
}

pub(super) fn is_empty(selector: &MetaSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// See [`validate_pods`].
pub(super) fn validate_template(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    owner: &str,
    errors: &mut Errors,
) {
    let path = Path::new("spec").child("template");
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    if !selector.matches_everything() && !selector.matches(labels.as_ref()) {
        errors.invalid(
            &path.child("metadata").child("labels"),
            labels.unwrap_or_default(),
            "`selector` does not match template `labels`",
        );
    }
    pod::template::validate(template, &path, errors);
    let path = path.child("spec");
    let nothing = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&nothing);
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if policy != "Always" {
        errors.unsupported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let why = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &why);
    }
}

/// Defaults of a template; pods of all kinds but Jobs are restarted for ever, which is the default.
pub(super) fn default_template(template: &mut PodTemplateSpec) {
    pod::template::set_defaults(template);
}

/// `maxUnavailable` and its like: a number, or a percentage as text.
pub(super) fn validate_amount(errors: &mut Errors, path: &Path, amount: &IntOrString) {
    match amount {
        IntOrString::Int(number) => not_negative(errors, path, (*number).into()),
        IntOrString::String(text) => each(errors, path, text, percent(text)),
    }
}

/// Not more than `100%`.
pub(super) fn validate_share(errors: &mut Errors, path: &Path, amount: &IntOrString) {
    if percentage(amount).is_some_and(|percent| percent > 100) {
        errors.invalid(path, amount, "must not be greater than 100%");
    }
}

fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Vec::new();
    }
    vec!["a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')".to_owned()]
}

fn percentage(amount: &IntOrString) -> Option<i64> {
    match amount {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
    }
}

/// Whether the amount is 0 or `0%`.
pub(super) fn is_zero(amount: &IntOrString) -> bool {
    match amount {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(_) => percentage(amount).is_none_or(|percent| percent == 0),
    }
}

/// The amount as a number of `total`; percentages are rounded as told (apimachinery's
/// `GetScaledValueFromIntOrPercent`). What is no amount is 0, which validation has refused before.
#[must_use]
pub fn scaled(amount: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match amount {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(amount @ IntOrString::String(_)) => {
            let product = percentage(amount).unwrap_or(0).saturating_mul(total.into());
            let value = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(value).unwrap_or(i32::MAX)
        }
    }
}

/// Each of the counters of a status, by its name in JSON, is not negative.
pub(super) fn validate_counts(errors: &mut Errors, counts: &[(&str, i64)]) {
    for (name, count) in counts {
        not_negative(errors, &Path::new("status").child(name), *count);
    }
}

/// `status.<name>` is not greater than a bound.
pub(super) fn validate_bound(errors: &mut Errors, name: &str, count: i32, bound: i32, what: &str) {
    if count > bound {
        errors.invalid(&Path::new("status").child(name), count, &format!("cannot be greater than {what}"));
    }
}

/// `spec.selector` never changes.
pub(super) fn validate_selector_kept<T: PartialEq + Serialize>(errors: &mut Errors, new: &T, old: &T) {
    super::validation::immutable(errors, &Path::new("spec").child("selector"), new, old);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_read_as_queries() {
        for (selector, expected) in [
            (json!({}), ""),
            (json!({ "matchLabels": { "b": "2", "a": "1" } }), "a=1,b=2"),
            (
                json!({ "matchLabels": { "m": "x" }, "matchExpressions": [
                    { "key": "z", "operator": "In", "values": ["2", "1"] },
                    { "key": "k", "operator": "NotIn", "values": ["v"] },
                    { "key": "e", "operator": "Exists" },
                    { "key": "d", "operator": "DoesNotExist" },
                ] }),
                "!d,e,k notin (v),m=x,z in (1,2)",
            ),
        ] {
            let selector: MetaSelector = serde_json::from_value(selector).unwrap();
            let text = selector_text(&selector);
            assert_eq!(text, expected);
            assert!(LabelSelector::parse(&text).is_ok(), "clients send it back");
        }
    }

    #[test]
    fn amounts_are_numbers_or_shares() {
        let text = |text: &str| IntOrString::String(text.into());
        for (amount, total, up, down) in [
            (IntOrString::Int(3), 10, 3, 3),
            (text("25%"), 10, 3, 2),
            (text("25%"), 1, 1, 0),
            (text("0%"), 10, 0, 0),
            (text("100%"), 7, 7, 7),
            (text("nonsense"), 7, 0, 0),
        ] {
            let found = (scaled(Some(&amount), total, true), scaled(Some(&amount), total, false));
            assert_eq!(found, (up, down), "{amount:?} of {total}");
        }
        assert_eq!(scaled(None, 7, true), 0);
    }
}
