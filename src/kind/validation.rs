//! Rules for texts and numbers in specs, in Kubernetes' words (apimachinery `util/validation`).
//!
//! Functions that judge a text alone return what is wrong with it, nothing if it is good. Those
//! that take [`Errors`] put their findings there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::field::{self, Errors, FieldError, Path};

pub const IMMUTABLE: &str = "field is immutable";
pub const NEGATIVE: &str = "must be greater than or equal to 0";
pub const NOT_POSITIVE: &str = "must be greater than zero";

/// Users and groups are numbers of 32 bits.
const ID_MAX: i64 = 0xffff_ffff;

/// Puts each complaint about `value` at `path`.
pub fn each(errors: &mut Errors, path: &Path, value: impl Serialize, wrong: Vec<String>) {
    for why in wrong {
        errors.invalid(path, &value, &why);
    }
}

/// `Invalid value` with the value shown as it is, for quantities, which Kubernetes does not quote.
pub fn invalid_plain(errors: &mut Errors, path: &Path, shown: &str, why: &str) {
    errors.0.push(FieldError {
        field: path.to_string(),
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: {why}"),
    });
}

/// `value` must be one of `supported`; an empty one is missing.
pub fn choice(errors: &mut Errors, path: &Path, value: &str, supported: &[&str]) {
    if value.is_empty() {
        errors.required(path, "");
    } else {
        choice_or_empty(errors, path, value, supported);
    }
}

/// `value` must be empty or one of `supported`.
pub fn choice_or_empty(errors: &mut Errors, path: &Path, value: &str, supported: &[&str]) {
    if !value.is_empty() && !supported.contains(&value) {
        errors.unsupported(path, value, supported);
    }
}

pub fn not_negative(errors: &mut Errors, path: &Path, value: i64) {
    if value < 0 {
        errors.invalid(path, value, NEGATIVE);
    }
}

/// Lists and maps are compared with their absence, whatever the type.
pub fn immutable<T: PartialEq + Serialize>(errors: &mut Errors, path: &Path, new: &T, old: &T) {
    if new != old {
        errors.invalid(path, new, IMMUTABLE);
    }
}

#[must_use]
pub fn between(min: i64, max: i64) -> String {
    format!("must be between {min} and {max}, inclusive")
}

/// What is wrong with `value` as a number of `min..=max`.
#[must_use]
pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) { Vec::new() } else { vec![between(min, max)] }
}

#[must_use]
pub fn port_number(port: i32) -> Vec<String> {
    in_range(port.into(), 1, 65_535)
}

/// A Unix user or group.
#[must_use]
pub fn user_or_group(id: i64) -> Vec<String> {
    in_range(id, 0, ID_MAX)
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// A regular expression with examples, as Kubernetes explains it.
fn pattern(message: &str, expression: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|one| format!("'{one}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{expression}')", examples.join(" or "))
}

const QUALIFIED_EXPRESSION: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn is_qualified_text(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// `name` or `prefix/name`: keys of labels and annotations, resources, condition types.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let rule = || {
        pattern(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            QUALIFIED_EXPRESSION,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let parts: Vec<&str> = value.split('/').collect();
    let mut wrong = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong
                    .extend(field::dns_subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                rule()
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_text(name) {
        wrong.push(format!("name part {}", rule()));
    }
    wrong
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(too_long(63));
    }
    if !value.is_empty() && !is_qualified_text(value) {
        wrong.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// A variable's name: any printable ASCII without `=` (BEHAVIOURS 10.1).
#[must_use]
pub fn env_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        vec!["environment variable name must be non-empty".to_owned()]
    } else if name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        Vec::new()
    } else {
        vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ]
    }
}

/// A key of a ConfigMap or Secret (BEHAVIOURS 10.10).
#[must_use]
pub fn data_key(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if key.len() > 253 {
        wrong.push(too_long(253));
    }
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
        wrong.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." => wrong.push("must not be '.'".to_owned()),
        ".." => wrong.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => wrong.push("must not start with '..'".to_owned()),
        _ => {}
    }
    wrong
}

/// The name of a port.
#[must_use]
pub fn port_name(name: &str) -> Vec<String> {
    let checks = [
        (name.len() > 15, "must be no more than 15 characters"),
        (
            name.is_empty() || name.chars().any(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!name.chars().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    checks.iter().filter(|(wrong, _)| *wrong).map(|(_, why)| (*why).to_owned()).collect()
}

pub fn port_number_or_name(errors: &mut Errors, path: &Path, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => each(errors, path, number, port_number(*number)),
        IntOrString::String(name) => each(errors, path, name, port_name(name)),
    }
}

#[must_use]
pub fn http_header_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

pub fn ip_address(errors: &mut Errors, path: &Path, address: &str) {
    if address.parse::<IpAddr>().is_err() {
        errors.invalid(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// No `..` among the parts of `value`.
pub fn path_without_backsteps(errors: &mut Errors, path: &Path, value: &str) {
    if has_backsteps(value) {
        errors.invalid(path, value, "must not contain '..'");
    }
}

/// A relative path that does not leave where it starts.
pub fn descending_path(errors: &mut Errors, path: &Path, value: &str) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    path_without_backsteps(errors, path, value);
}

/// A path of a file in a projected volume: descending, and not named as the volume's own entries.
pub fn file_path(errors: &mut Errors, path: &Path, value: &str) {
    descending_path(errors, path, value);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.invalid(path, value, "must not start with '..'");
    }
}

/// Labels; keys and values alike are reported at `path`.
pub fn labels(errors: &mut Errors, path: &Path, labels: Option<&BTreeMap<String, String>>) {
    for (key, value) in labels.into_iter().flatten() {
        each(errors, path, key, qualified_name(key));
        each(errors, path, value, label_value(value));
    }
}

pub fn label_selector(errors: &mut Errors, path: &Path, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    labels(errors, &path.child("matchLabels"), selector.match_labels.as_ref());
    for (i, one) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = one.values.as_deref().unwrap_or_default();
        match one.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        each(errors, &path.child("key"), &one.key, qualified_name(&one.key));
        for (v, value) in values.iter().enumerate() {
            each(errors, &path.child("values").index(v), value, label_value(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[(&str, &str)]) {
        for text in good {
            assert_eq!(rule(text), Vec::<String>::new(), "{text}");
        }
        for (text, beginning) in bad {
            let wrong = rule(text);
            assert!(wrong.iter().any(|why| why.starts_with(beginning)), "{text}: {wrong:?}");
        }
    }

    #[test]
    fn names_and_keys() {
        let long = "a".repeat(64);
        check(
            qualified_name,
            &["a", "A_b.c-1", "example.com/x"],
            &[
                ("", "name part must be non-empty"),
                ("/x", "prefix part must be non-empty"),
                ("X/x", "prefix part a lowercase RFC 1123 subdomain"),
                ("a/b/c", "a qualified name must consist of alphanumeric characters"),
                ("-a", "name part must consist of"),
                (&long, "name part must be no more than 63 characters"),
            ],
        );
        check(
            label_value,
            &["", "A", "a_b.c"],
            &[("a b", "a valid label must be"), (&long, "must be no more")],
        );
        check(
            env_name,
            &["A", "a.b-c", "1", "a b"],
            &[
                ("", "environment variable name must be non-empty"),
                ("a=b", "a valid environment"),
                ("é", "a valid"),
            ],
        );
        check(
            data_key,
            &["a", ".bashrc", "a..b"],
            &[
                (".", "must not be '.'"),
                ("..", "must not be '..'"),
                ("..a", "must not start with"),
                ("a/b", "a valid config key"),
            ],
        );
        check(
            port_name,
            &["http", "p2"],
            &[
                ("", "must contain only"),
                ("80", "must contain at least one letter"),
                ("a--b", "must not contain consecutive hyphens"),
                ("-a", "must not begin or end"),
                ("HTTP", "must contain only alpha-numeric"),
                ("a234567890123456", "must be no more than 15 characters"),
            ],
        );
        check(http_header_name, &["X-A"], &[("a b", "a valid HTTP header"), ("", "a valid HTTP header")]);
    }

    #[test]
    fn patterns_are_explained_as_upstream_does() {
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
    }
}
