//! What is true of every pod spec, in pods and in templates (upstream `ValidatePodSpec`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use super::defaults::set_defaults;

use super::containers::{self, Context};
use super::{egress_hosts, ephemeral, list, scheduling, security, text, totals, volumes};
use crate::kind::field::{self, Errors, Path};
use crate::kind::resources;
use crate::kind::validation::{self, choice, each, ip_address, qualified_name};

const DNS_NAMESERVERS_MAX: usize = 3;
const DNS_SEARCHES_MAX: usize = 32;
const DNS_SEARCHES_CHARACTERS_MAX: usize = 2048;
const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The spec of a template, after its defaults.
pub fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    validate_with(spec, None, false, path, errors);
}

/// The spec of the pod called `name`, after its defaults: stricter than in a template.
pub(super) fn validate_pod(spec: &PodSpec, name: Option<&str>, path: &Path, errors: &mut Errors) {
    validate_with(spec, name, true, path, errors);
    if text(&spec.service_account_name).is_empty() {
        for (v, volume) in list(&spec.volumes).iter().enumerate() {
            let sources = volume.projected.iter().flat_map(|projected| list(&projected.sources));
            for (s, _) in sources.enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
                let path = path.child("volumes").index(v).child("projected").child("sources").index(s);
                let why = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&path.child("serviceAccountToken"), why);
            }
        }
    }
    let inits = list(&spec.init_containers);
    for (which, containers) in [("containers", &spec.containers[..]), ("initContainers", inits)] {
        for (i, container) in containers.iter().enumerate() {
            let image = text(&container.image);
            if image.trim() != image {
                let path = path.child(which).index(i).child("image");
                errors.invalid(&path, image, "must not have leading or trailing whitespace");
            }
        }
    }
    if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&path.child("nodeName"), why);
    }
}

fn validate_with(spec: &PodSpec, name: Option<&str>, is_pod: bool, path: &Path, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::validate(list(&spec.volumes), name, is_pod, &path.child("volumes"), errors);
    let claims = validate_resource_claims(spec, &path.child("resourceClaims"), errors);
    let context = Context {
        volumes,
        claims,
        grace_period_seconds: spec.termination_grace_period_seconds,
        restart_policy: text(&spec.restart_policy),
        host_users: spec.host_users.unwrap_or(true),
    };
    containers::validate(&spec.containers, &context, &path.child("containers"), errors);
    let path_of_inits = path.child("initContainers");
    let inits = list(&spec.init_containers);
    containers::validate_init(inits, &spec.containers, &context, &path_of_inits, errors);
    totals::validate(spec, path, errors);
    ephemeral::validate(spec, &context, &path.child("ephemeralContainers"), errors);
    validate_host_network(spec, is_pod, path, errors);

    let restart_policies = ["Always", "OnFailure", "Never"];
    choice(errors, &path.child("restartPolicy"), text(&spec.restart_policy), &restart_policies);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    choice(errors, &path.child("dnsPolicy"), text(&spec.dns_policy), &dns_policies);
    validation::labels(errors, &path.child("nodeSelector"), spec.node_selector.as_ref());
    security::validate_pod(spec, path, errors);
    if let Some(affinity) = &spec.affinity {
        scheduling::validate_affinity(affinity, &path.child("affinity"), errors);
    }
    validate_dns(spec, &path.child("dnsConfig"), errors);
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        each(errors, &path, &gate.condition_type, qualified_name(&gate.condition_type));
    }
    let mut gates = BTreeSet::new();
    for (i, gate) in list(&spec.scheduling_gates).iter().enumerate() {
        let path = path.child("schedulingGates").index(i);
        each(errors, &path, &gate.name, qualified_name(&gate.name));
        if !gates.insert(&gate.name) {
            errors.duplicate(&path, &gate.name);
        }
    }
    let constraints = list(&spec.topology_spread_constraints);
    scheduling::validate_spread(constraints, &path.child("topologySpreadConstraints"), errors);
    validate_names(spec, path, errors);
    if let Some(seconds) = spec.active_deadline_seconds {
        let wrong = validation::in_range(seconds, 1, i32::MAX.into());
        each(errors, &path.child("activeDeadlineSeconds"), seconds, wrong);
    }
    validate_tolerations_and_aliases(spec, path, errors);
    if let Some(policy) = &spec.preemption_policy {
        let policies = ["PreemptLowerPriority", "Never"];
        choice(errors, &path.child("preemptionPolicy"), policy, &policies);
    }
    for (name, amount) in spec.overhead.iter().flatten() {
        let path = path.child("overhead").child("limits").key(name);
        resources::validate_container_name(errors, &path, name);
        resources::validate_amount(errors, &path, name, amount);
    }
    if let Some(os) = &spec.os {
        if os.name.is_empty() {
            errors.required(&path.child("os").child("name"), "cannot be empty");
        } else {
            validation::choice(errors, &path.child("os"), &os.name, &["linux", "windows"]);
        }
    }
}

/// Names of other objects, and the pod's own host name.
fn validate_names(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let subdomains: [(&str, &Option<String>, Rule); 6] = [
        ("serviceAccountName", &spec.service_account_name, field::dns_subdomain),
        ("nodeName", &spec.node_name, field::dns_subdomain),
        ("hostname", &spec.hostname, field::dns_label),
        ("subdomain", &spec.subdomain, field::dns_label),
        ("priorityClassName", &spec.priority_class_name, field::dns_subdomain),
        ("runtimeClassName", &spec.runtime_class_name, field::dns_subdomain),
    ];
    for (which, name, rule) in subdomains {
        // An empty name is none; an empty runtime class is a wrong one.
        if let Some(name) = name.as_ref().filter(|name| !name.is_empty() || which == "runtimeClassName") {
            each(errors, &path.child(which), name, rule(name));
        }
    }
}

fn validate_tolerations_and_aliases(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    scheduling::validate_tolerations(list(&spec.tolerations), &path.child("tolerations"), errors);
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        ip_address(errors, &path.child("ip"), &alias.ip);
        for (j, name) in list(&alias.hostnames).iter().enumerate() {
            each(errors, &path.child("hostnames").index(j), name, field::dns_subdomain(name));
        }
    }
}

fn validate_host_network(spec: &PodSpec, is_pod: bool, path: &Path, errors: &mut Errors) {
    if spec.host_network != Some(true) {
        return;
    }
    for (c, container) in spec.containers.iter().enumerate() {
        for (p, port) in list(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or_default();
            // A template may leave it open; the pod made of it gets the default.
            if host_port != port.container_port && (is_pod || host_port != 0) {
                let path = path.child("containers").index(c).child("ports").index(p).child("hostPort");
                errors.invalid(&path, host_port, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

/// Checks `resourceClaims`; the names, for containers to refer to.
fn validate_resource_claims<'a>(spec: &'a PodSpec, path: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (i, claim) in list(&spec.resource_claims).iter().enumerate() {
        let path = path.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if names.insert(name) {
            each(errors, &path.child("name"), name, field::dns_label(name));
        } else {
            errors.duplicate(&path.child("name"), name);
        }
        let sources = [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ];
        match sources.iter().filter(|(_, source)| source.is_some()).count() {
            0 => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&path, claim, why);
            }
            1 => {}
            _ => {
                let why =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&path, claim, why);
            }
        }
        for (which, source) in sources {
            if let Some(name) = source {
                each(errors, &path.child(which), name, field::dns_subdomain(name));
            }
        }
    }
    names
}

fn validate_dns(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if text(&spec.dns_policy) == "None" {
        match &spec.dns_config {
            None => return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if list(&config.nameservers).is_empty() => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&path.child("nameservers"), why);
            }
            Some(_) => {}
        }
    }
    let Some(PodDNSConfig { nameservers, searches, options }) = &spec.dns_config else { return };
    let (nameservers, searches) = (list(nameservers), list(searches));
    if nameservers.len() > DNS_NAMESERVERS_MAX {
        let why = format!("must not have more than {DNS_NAMESERVERS_MAX} nameservers");
        errors.invalid(&path.child("nameservers"), nameservers, &why);
    }
    for (i, address) in nameservers.iter().enumerate() {
        ip_address(errors, &path.child("nameservers").index(i), address);
    }
    let path_of_searches = path.child("searches");
    if searches.len() > DNS_SEARCHES_MAX {
        let why = format!("must not have more than {DNS_SEARCHES_MAX} search paths");
        errors.invalid(&path_of_searches, searches, &why);
    }
    if searches.join(" ").len() > DNS_SEARCHES_CHARACTERS_MAX {
        let why = format!(
            "must not have more than {DNS_SEARCHES_CHARACTERS_MAX} characters (including spaces) in the search list"
        );
        errors.invalid(&path_of_searches, searches, &why);
    }
    for (i, search) in searches.iter().enumerate() {
        let search = search.strip_suffix('.').unwrap_or(search);
        each(errors, &path_of_searches.index(i), search, field::dns_subdomain(search));
    }
    for (i, option) in list(options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

/// Annotations that mean something for pods; that they are well formed is metadata's matter.
pub(super) fn validate_annotations(metadata: &ObjectMeta, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let annotation = |key| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
    if let Some(value) = annotation(MIRROR).filter(|_| text(&spec.node_name).is_empty()) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&path.key(MIRROR), value, why);
    }
    if let Some(value) = annotation(DELETION_COST) {
        let canonical = value.parse::<i32>().is_ok_and(|number| number.to_string() == *value);
        if !canonical {
            errors.invalid(&path.key(DELETION_COST), value, "must be a 32bit integer");
        }
    }
    egress_hosts::validate(metadata, path, errors);
}
