//! LimitRange: bounds and defaults for the resources of a namespace's pods (BEHAVIOURS 18.5).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};

use super::field::{Errors, Path};
use super::quantity::Amount;
use super::resources::{self, Resources};
use super::table::{self, Cell, Column, column};
use super::validation::{invalid_plain, qualified_name};
use super::{Kind, Strategy, validation};

pub static KIND: Kind = Kind {
    short_names: &["limits"],
    columns: &[
        table::NAME,
        Column {
            description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            ..column("Created At", "date", 0)
        },
    ],
    ..Kind::namespaced(&Rules, "limitrange")
};

const TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];

struct Rules;

impl Strategy for Rules {
    type Object = LimitRange;

    fn set_defaults(&self, range: &mut LimitRange) {
        for item in range.spec.iter_mut().flat_map(|spec| &mut spec.limits) {
            set_item_defaults(item);
        }
    }

    fn validate(&self, range: &LimitRange, errors: &mut Errors) {
        let path = Path::new("spec").child("limits");
        let mut types = BTreeSet::new();
        for (i, item) in range.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let path = path.index(i);
            let path_of_type = path.child("type");
            let wrong = qualified_name(&item.type_);
            if wrong.is_empty() && !item.type_.contains('/') && !TYPES.contains(&item.type_.as_str()) {
                let why = "must be a standard limit type or fully qualified";
                errors.invalid(&path_of_type, &item.type_, why);
            }
            validation::each(errors, &path_of_type, &item.type_, wrong);
            if !types.insert(&item.type_) {
                errors.duplicate(&path_of_type, &item.type_);
            }
            validate_item(item, &path, errors);
        }
    }

    fn cells(&self, range: &LimitRange, _now: Timestamp) -> Vec<Cell> {
        let created = range.metadata.creation_timestamp.as_ref();
        vec![table::name(range), Cell::Text(created.map_or_else(String::new, |time| time.0.to_string()))]
    }
}

/// Of containers: the default limit is the most, the default request that limit, or else the least.
fn set_item_defaults(item: &mut LimitRangeItem) {
    for list in [
        &mut item.max,
        &mut item.min,
        &mut item.default,
        &mut item.default_request,
        &mut item.max_limit_request_ratio,
    ] {
        resources::canonicalize(list);
    }
    if item.type_ != "Container" {
        return;
    }
    let fill = |into: &mut Resources, from: Option<&Resources>| {
        for (name, amount) in from.into_iter().flatten() {
            into.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    let default = item.default.get_or_insert_default();
    fill(default, item.max.as_ref());
    let default_request = item.default_request.get_or_insert_default();
    fill(default_request, Some(default));
    fill(default_request, item.min.as_ref());
}

fn validate_item(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let is_pod = item.type_ == "Pod";
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut names: BTreeSet<&String> = BTreeSet::new();
    for (which, amounts) in lists {
        let path = path.child(which);
        if is_pod && which.starts_with("default") {
            if amounts.as_ref().is_some_and(|amounts| !amounts.is_empty()) {
                errors.forbidden(&path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in amounts.iter().flatten() {
            names.insert(name);
            let path = path.key(name);
            if is_pod || item.type_ == "Container" {
                resources::validate_container_name(errors, &path, name);
            } else {
                resources::validate_name(errors, &path, name);
            }
            if let Err(why) = Amount::parse(&amount.0) {
                errors.invalid(&path, &amount.0, why);
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim" {
        let has = |list: &Option<Resources>| list.as_ref().is_some_and(|list| list.contains_key("storage"));
        if !has(&item.min) && !has(&item.max) {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&path.child("limits"), why);
        }
    }
    for name in names {
        validate_order(item, name, path, errors);
    }
}

/// The amounts of one resource must not contradict each other.
fn validate_order(item: &LimitRangeItem, name: &str, path: &Path, errors: &mut Errors) {
    let of = |list: &Option<Resources>| {
        let text = list.as_ref()?.get(name)?.0.clone();
        Amount::parse(&text).ok().map(|amount| (amount, text))
    };
    let (min, max) = (of(&item.min), of(&item.max));
    let (default, request) = match item.type_.as_str() {
        "Pod" => (None, None),
        _ => (of(&item.default), of(&item.default_request)),
    };
    let ratio = of(&item.max_limit_request_ratio);
    // Where it is reported, whose amount is shown, what must not exceed what.
    for (which, shown, low, low_name, high, high_name) in [
        ("min", &min, &min, "min", &max, "max"),
        ("defaultRequest", &request, &min, "min", &request, "default request"),
        ("defaultRequest", &request, &request, "default request", &max, "max"),
        ("defaultRequest", &request, &request, "default request", &default, "default limit"),
        ("default", &min, &min, "min", &default, "default"),
        ("default", &max, &default, "default", &max, "max"),
    ] {
        let (Some((_, shown)), Some((low, low_text)), Some((high, high_text))) = (shown, low, high) else {
            continue;
        };
        if low > high {
            let why = format!("{low_name} value {low_text} is greater than {high_name} value {high_text}");
            invalid_plain(errors, &path.child(which).key(name), shown, &why);
        }
    }
    if let Some((ratio, text)) = &ratio {
        let path = path.child("maxLimitRequestRatio").key(name);
        if *ratio < Amount::from_units(1) {
            invalid_plain(errors, &path, text, &format!("ratio {text} is less than 1"));
        }
        if let (Some((min, _)), Some((max, _))) = (&min, &max) {
            let (min, max) = (min.millis(), max.millis());
            // max / min < ratio, without division.
            if i128::from(max) * 1000 < i128::from(ratio.millis()) * i128::from(min) {
                let most = format_ratio(max, min);
                let why = format!("ratio {text} is greater than max/min = {most}");
                invalid_plain(errors, &path, text, &why);
            }
        }
    }
    if let (Some((default, default_text)), Some((request, text))) = (&default, &request)
        && default != request
        && !resources::may_overcommit(name)
    {
        let why = format!("default value {default_text} must equal to defaultRequest value {text} in {name}");
        invalid_plain(errors, &path.child("defaultRequest").key(name), text, &why);
    }
}

/// With six decimals, as C's `%f`.
fn format_ratio(max: i64, min: i64) -> String {
    let millionths = i128::from(max) * 1_000_000 / i128::from(min.max(1));
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::testing::{check_defaults, check_validation};

    #[test]
    fn container_defaults_follow_the_bounds() {
        check_defaults(
            &KIND,
            "{spec: {limits: [{type: Container, max: {cpu: 2000m, memory: 1024Mi}, min: {cpu: 0.1, pods: 1}}]}}",
            r#"{"spec":{"limits":[{"type":"Container","max":{"cpu":"2","memory":"1Gi"},"min":{"cpu":"100m","pods":"1"},
                "default":{"cpu":"2","memory":"1Gi"},"defaultRequest":{"cpu":"2","memory":"1Gi","pods":"1"}}]}}"#,
        );
        check_defaults(
            &KIND,
            "{spec: {limits: [{type: Pod, max: {cpu: 1}}]}}",
            r#"{"spec":{"limits":[{"type":"Pod","max":{"cpu":"1"}}]}}"#,
        );
    }

    #[test]
    fn bounds_must_agree() {
        let check = |item: &str, expected: &[&str]| {
            let patch = format!("{{spec: {{limits: [{item}]}}}}");
            check_validation(&KIND, "{metadata: {name: a}}", &patch, expected);
        };
        check("{type: Container, max: {cpu: 2}, min: {cpu: 1}, maxLimitRequestRatio: {cpu: 2}}", &[]);
        check(
            "{type: Thing}",
            &[
                "spec.limits[0].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified",
            ],
        );
        check("{type: Pod}, {type: Pod}", &["spec.limits[1].type: Duplicate value: \"Pod\""]);
        check(
            "{type: Pod, max: {cpu: 1}, min: {cpu: 2}}",
            &["spec.limits[0].min[cpu]: Invalid value: 2: min value 2 is greater than max value 1"],
        );
        check(
            "{type: Pod, default: {cpu: 1}}",
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        );
        check(
            "{type: Container, default: {cpu: 3}, max: {cpu: 2}, defaultRequest: {cpu: 1}}",
            &["spec.limits[0].default[cpu]: Invalid value: 2: default value 3 is greater than max value 2"],
        );
        check(
            "{type: Pod, max: {cpu: 2}, min: {cpu: 1}, maxLimitRequestRatio: {cpu: 3}}",
            &[
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: 3: ratio 3 is greater than max/min = 2.000000",
            ],
        );
        check(
            "{type: Container, max: {storage: 1}}",
            &[
                "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
                "spec.limits[0].default[storage]: Invalid value: \"storage\": must be a standard resource for containers",
                "spec.limits[0].defaultRequest[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            ],
        );
        check(
            "{type: PersistentVolumeClaim}",
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        );
    }
}
