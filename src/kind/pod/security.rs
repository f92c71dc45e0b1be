//! Security contexts. Nothing here runs with the privileges that they speak of, yet what is said must
//! be sayable.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use super::{list, text};
use crate::kind::field::{Errors, Path};
use crate::kind::validation::{descending_path, each, user_or_group};

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL_BYTES_MAX: usize = 253;

/// The pod's security context and the host's namespaces it asks for.
pub(super) fn validate_pod(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if let Some(context) = &spec.security_context {
        validate_pod_context(context, spec, &path.child("securityContext"), errors);
    }
    if spec.host_users == Some(false) {
        for (which, host) in
            [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
        {
            if host == Some(true) {
                errors.forbidden(&path.child(which), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
}

fn validate_pod_context(context: &PodSecurityContext, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (which, id) in [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ] {
        validate_id(id, &path.child(which), errors);
    }
    for (i, group) in list(&context.supplemental_groups).iter().enumerate() {
        validate_id(Some(*group), &path.child("supplementalGroups").index(i), errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    let mut names = BTreeSet::new();
    for (i, sysctl) in list(&context.sysctls).iter().enumerate() {
        let path = path.child("sysctls").index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            let why = format!(
                "must have at most {SYSCTL_BYTES_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.invalid(&path, name, &why);
        } else if !names.insert(name) {
            errors.duplicate(&path, name);
        }
    }
    for (which, value, supported) in [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, ["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, ["MountOption", "Recursive"]),
    ] {
        if let Some(value) = value.as_deref().filter(|value| !supported.contains(value)) {
            errors.unsupported(&path.child(which), value, &supported);
        }
    }
    validate_profiles(context.seccomp_profile.as_ref(), context.app_armor_profile.as_ref(), path, errors);
}

/// A container's security context; `host_users` tells whether the pod shares the host's users.
pub(super) fn validate_container(
    context: &SecurityContext,
    host_users: bool,
    path: &Path,
    errors: &mut Errors,
) {
    validate_id(context.run_as_user, &path.child("runAsUser"), errors);
    validate_id(context.run_as_group, &path.child("runAsGroup"), errors);
    if let Some(mount) = context.proc_mount.as_deref() {
        let path = path.child("procMount");
        if !matches!(mount, "Default" | "Unmasked") {
            errors.unsupported(&path, mount, &["Default", "Unmasked"]);
        }
        if host_users && mount == "Unmasked" {
            errors.invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context, why);
        }
        let added = context.capabilities.as_ref().map_or(&[][..], |Capabilities { add, .. }| list(add));
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context, why);
        }
    }
    validate_profiles(context.seccomp_profile.as_ref(), context.app_armor_profile.as_ref(), path, errors);
}

fn validate_id(id: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(id) = id {
        each(errors, path, id, user_or_group(id));
    }
}

fn is_sysctl(name: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= SYSCTL_BYTES_MAX
        && name.split(['.', '/']).all(|part| {
            part.starts_with(is_end)
                && part.ends_with(is_end)
                && part.chars().all(|c| is_end(c) || matches!(c, '-' | '_'))
        })
}

fn validate_profiles(
    seccomp: Option<&SeccompProfile>,
    app_armor: Option<&AppArmorProfile>,
    path: &Path,
    errors: &mut Errors,
) {
    if let Some(profile) = seccomp {
        let path = path.child("seccompProfile");
        validate_profile_type(&profile.type_, "seccompProfile", &path, errors);
        match (&profile.localhost_profile, profile.type_ == "Localhost") {
            (Some(local), true) => descending_path(errors, &path.child("localhostProfile"), local),
            (Some(_), false) => {
                let why = "can only be set when seccomp type is Localhost";
                errors.invalid(&path.child("localhostProfile"), profile, why);
            }
            (None, true) => {
                let why = "must be set when seccomp type is Localhost";
                errors.required(&path.child("localhostProfile"), why);
            }
            (None, false) => {}
        }
    }
    if let Some(profile) = app_armor {
        let path = path.child("appArmorProfile");
        validate_profile_type(&profile.type_, "appArmorProfile", &path, errors);
        let local = text(&profile.localhost_profile);
        let path = path.child("localhostProfile");
        if profile.type_ != "Localhost" {
            if profile.localhost_profile.is_some() && PROFILE_TYPES.contains(&profile.type_.as_str()) {
                errors.invalid(&path, local, "can only be set when AppArmor type is Localhost");
            }
        } else if local.trim() != local {
            errors.invalid(&path, local, "must not be padded with whitespace");
        } else if local.is_empty() {
            errors.required(&path, "must be set when AppArmor type is Localhost");
        }
    }
}

fn validate_profile_type(value: &str, profile: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("type");
    if value.is_empty() {
        errors.required(&path, &format!("type is required when {profile} is set"));
    } else if !PROFILE_TYPES.contains(&value) {
        errors.unsupported(&path, value, PROFILE_TYPES);
    }
}
