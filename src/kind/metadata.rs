//! Rules for `metadata`, the same for every kind (apimachinery `api/validation/objectmeta.go`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};

use super::Kind;
use super::field::{Errors, Path, dns_label};
use super::validation::{immutable, labels, not_negative, qualified_name};

/// Bytes of all annotations of an object, keys and values together (BEHAVIOURS 2.7).
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Finalizers that need no domain in front.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Checks the metadata of a new object, after a name has been generated: names, namespace, labels,
/// annotations, owners, finalizers.
pub fn validate(meta: &ObjectMeta, kind: &Kind, errors: &mut Errors) {
    let path = Path::new("metadata");
    if let Some(prefix) = given(meta.generate_name.as_ref()) {
        for why in kind.strategy.validate_name(&as_name(prefix)) {
            errors.invalid(&path.child("generateName"), prefix, &why);
        }
    }
    match given(meta.name.as_ref()) {
        Some(name) => {
            for why in kind.strategy.validate_name(name) {
                errors.invalid(&path.child("name"), name, &why);
            }
        }
        None => errors.required(&path.child("name"), "name or generateName is required"),
    }
    let namespace_path = path.child("namespace");
    match (given(meta.namespace.as_ref()), kind.is_namespaced()) {
        (None, true) => errors.required(&namespace_path, ""),
        (Some(namespace), true) => {
            for why in dns_label(namespace) {
                errors.invalid(&namespace_path, namespace, &why);
            }
        }
        (Some(_), false) => errors.forbidden(&namespace_path, "not allowed on this type"),
        (None, false) => {}
    }
    validate_content(meta, &path, errors);
}

/// Checks the metadata of a changed object, in place of [`validate`]: what may not change, and again
/// all that may. Expects that what clients may leave out (`uid`, `creationTimestamp`, …) has been
/// taken over from `old`.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    let path = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        if new.finalizers.iter().flatten().any(|one| !before.contains(one)) {
            errors.forbidden(
                &path.child("finalizers"),
                "no new finalizers can be added if the object is being deleted",
            );
        }
    }
    if new.generation.unwrap_or_default() < old.generation.unwrap_or_default() {
        errors.invalid(&path.child("generation"), new.generation, "must not be decremented");
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    immutable(errors, &path.child("name"), &text(&new.name), &text(&old.name));
    immutable(errors, &path.child("namespace"), &text(&new.namespace), &text(&old.namespace));
    immutable(errors, &path.child("uid"), &text(&new.uid), &text(&old.uid));
    immutable(errors, &path.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp);
    immutable(errors, &path.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp);
    immutable(
        errors,
        &path.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
    validate_content(new, &path, errors);
}

/// Keys are qualified names in any case, the whole is bounded.
fn annotations(annotations: &BTreeMap<String, String>, path: &Path, errors: &mut Errors) {
    for key in annotations.keys() {
        for why in qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key, &why);
        }
    }
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

/// What is wrong with `name` as a finalizer: a qualified name, with a domain unless Kubernetes
/// itself defines it. The errors are put at `at`, and at `at_one` where upstream names the index.
pub(super) fn finalizer(name: &str, at: &Path, at_one: &Path, errors: &mut Errors) {
    for why in qualified_name(name) {
        errors.invalid(at, name, &why);
    }
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.invalid(at_one, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn validate_content(meta: &ObjectMeta, path: &Path, errors: &mut Errors) {
    not_negative(errors, &path.child("generation"), meta.generation.unwrap_or_default());
    labels(errors, &path.child("labels"), meta.labels.as_ref());
    if let Some(map) = &meta.annotations {
        annotations(map, &path.child("annotations"), errors);
    }
    owners(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errors);
    finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errors);
    managed_fields(meta.managed_fields.as_deref().unwrap_or_default(), &path.child("managedFields"), errors);
}

/// Errors inside a reference carry no index, as upstream.
fn owners(owners: &[OwnerReference], path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = match owner.api_version.split('/').collect::<Vec<_>>()[..] {
            [version] | [_, version] => version,
            _ => "",
        };
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), &owner.api_version, "version must not be empty");
        }
        for (name, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(&path.child(name), value, "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    owners,
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(names: &[String], path: &Path, errors: &mut Errors) {
    for (i, name) in names.iter().enumerate() {
        finalizer(name, path, &path.index(i), errors);
    }
    let has = |name: &str| names.iter().any(|one| one == name);
    if has(ORPHAN) && has(FOREGROUND) {
        errors.invalid(path, names, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn managed_fields(entries: &[ManagedFieldsEntry], path: &Path, errors: &mut Errors) {
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let operation = entry.operation.as_deref().unwrap_or_default();
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        if let Some(other) = given(entry.fields_type.as_ref()).filter(|&text| text != "FieldsV1") {
            errors.invalid(&path.child("fieldsType"), other, "must be `FieldsV1`");
        }
    }
}

/// A prefix as a name that could come of it: a trailing `-` is fine before generated characters.
fn as_name(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
