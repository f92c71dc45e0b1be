//! Variables of containers, and references to fields of the pod (BEHAVIOURS 10.1 to 10.4).

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ObjectFieldSelector, ResourceFieldSelector};

use super::text;
use crate::kind::field::{self, Errors, Path};
use crate::kind::quantity::{self, Amount};
use crate::kind::validation::{data_key, each, env_name, qualified_name};

/// Fields of the pod that a variable can hold.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a file can hold.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that exist for references at all; others are unknown rather than unsupported.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn validate(variables: &[EnvVar], path: &Path, errors: &mut Errors) {
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        if variable.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            each(errors, &path.child("name"), &variable.name, env_name(&variable.name));
        }
        validate_source(variable, &path.child("valueFrom"), errors);
    }
}

fn validate_source(variable: &EnvVar, path: &Path, errors: &mut Errors) {
    let Some(source) = &variable.value_from else { return };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        validate_field(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        validate_resource(resource, false, &path.child("resourceFieldRef"), errors);
    }
    if let Some(map) = &source.config_map_key_ref {
        sources += 1;
        validate_key(&map.name, &map.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(secret) = &source.secret_key_ref {
        sources += 1;
        validate_key(&secret.name, &secret.key, &path.child("secretKeyRef"), errors);
    }
    if sources == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.invalid(path, "", why);
    } else if !text(&variable.value).is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn validate_key(name: &str, key: &str, path: &Path, errors: &mut Errors) {
    each(errors, &path.child("name"), name, field::dns_subdomain(name));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        each(errors, &path.child("key"), key, data_key(key));
    }
}

pub(super) fn validate_from(sources: &[EnvFromSource], path: &Path, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let list_path = path;
        let path = path.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            each(errors, &path.child("prefix"), prefix, env_name(prefix));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|map| map.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|secret| secret.name.as_str())),
        ];
        for (which, name) in names {
            let path = path.child(which).child("name");
            match name {
                None => {}
                Some("") => errors.required(&path, ""),
                Some(name) => each(errors, &path, name, field::dns_subdomain(name)),
            }
        }
        match names.iter().filter(|(_, name)| name.is_some()).count() {
            0 => errors.invalid(list_path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(list_path, "", "may not have more than one field specified at a time"),
        }
    }
}

/// A field path and what stands in brackets behind it: `metadata.labels['key']`.
fn subscripted(field_path: &str) -> Option<(&str, &str)> {
    let (path, key) = field_path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

/// A reference to one of `fields` of the pod, or to one label or annotation.
pub(super) fn validate_field(field: &ObjectFieldSelector, fields: &[&str], path: &Path, errors: &mut Errors) {
    let (version, name) = (text(&field.api_version), field.field_path.as_str());
    let path_of_field = path.child("fieldPath");
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if name.is_empty() {
        return errors.required(&path_of_field, "");
    }
    let unknown = match subscripted(name) {
        _ if version != "v1" => Some(format!("unsupported pod version: {version}")),
        Some(("metadata.annotations" | "metadata.labels", _)) => None,
        Some(_) => Some(format!("field label does not support subscript: {name}")),
        None if KNOWN_FIELDS.contains(&name) || name == "spec.host" => None,
        None => Some(format!("field label not supported: {name}")),
    };
    if let Some(why) = unknown {
        return errors.invalid(&path_of_field, name, &format!("error converting fieldPath: {why}"));
    }
    match subscripted(name) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            each(errors, path, &key, qualified_name(&key));
        }
        Some((_, key)) => each(errors, path, key, qualified_name(key)),
        None if fields.contains(&name) => {}
        None => errors.unsupported(&path_of_field, name, fields),
    }
}

/// A reference to a container's resource; a file must name the container.
pub(super) fn validate_resource(
    reference: &ResourceFieldSelector,
    of_file: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let resource = reference.resource.as_str();
    let huge_pages = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if of_file && text(&reference.container_name).is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge_pages {
        errors.unsupported(&path.child("resource"), resource, RESOURCE_FIELDS);
    }
    let Some(divisor) = &reference.divisor else { return };
    let path = path.child("divisor");
    let canonical = match quantity::canonical(&divisor.0) {
        Ok(canonical) => canonical,
        Err(why) => return errors.invalid(&path, &divisor.0, why),
    };
    if Amount::of(divisor).is_zero() {
        return;
    }
    let (fits, why) = match resource.split_once('.').map_or("", |(_, resource)| resource) {
        "cpu" => (
            matches!(canonical.as_str(), "1" | "1m"),
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        "" => return,
        other => {
            let what = match other {
                "ephemeral-storage" => "local ephemeral storage",
                _ if huge_pages => "hugepages",
                other => other,
            };
            let values = BYTE_DIVISORS.join(", ");
            let why = format!("only divisor's values {values} are supported with the {what} resource");
            (BYTE_DIVISORS.contains(&canonical.as_str()), why)
        }
    };
    if !fits {
        errors.invalid(&path, resource, &why);
    }
}
