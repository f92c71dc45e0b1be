//! Cases for pods: what is filled in, refused, kept and shown.

mod containers;
mod defaults;
mod ephemeral;
mod spec;
mod status;
mod table;
mod totals;
mod update;
mod volumes;

use super::KIND;
use crate::kind::testing::check_validation;

/// A small good pod, before its defaults.
const BASE: &str = "
metadata: {name: web, namespace: default, creationTimestamp: 2025-01-01T00:00:00Z}
spec:
  containers:
  - {name: app, image: web:v1}
";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// [`BASE`] with these fields of its spec is refused with just these lines, each behind `path`.
#[track_caller]
fn at(path: &str, fields: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|line| format!("{path}{line}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check_validation(&KIND, BASE, &format!("{{spec: {{{fields}}}}}"), &expected);
}

/// A spec with `fields` besides the good container; the expected lines are relative to `spec`.
#[track_caller]
fn spec(fields: &str, expected: &[&str]) {
    at("spec.", fields, expected);
}

fn in_container(fields: &str) -> String {
    format!("containers: [{{name: app, image: a, {fields}}}]")
}

/// A good container with `fields` besides; the expected lines are relative to it.
#[track_caller]
fn container(fields: &str, expected: &[&str]) {
    at("spec.containers[0].", &in_container(fields), expected);
}
