//! Pod: containers that live and die together on one node (BEHAVIOURS 9).
//!
//! [`spec`] holds what is true of every pod spec, wherever it stands; [`template`] adds what
//! templates need. The rest is about pods alone.

mod containers;
mod defaults;
pub mod egress_hosts;
mod env;
mod ephemeral;
mod handlers;
pub mod qos;
mod scheduling;
mod security;
pub mod spec;
mod status;
mod table;
pub mod template;
pub mod totals;
mod update;
mod volumes;
mod warnings;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodIP, PodSpec, PodStatus};

pub use ephemeral::as_container;
pub use scheduling::validate_tolerations;

use super::field::{Errors, Path};
use super::table::Cell;
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource::Status,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Log,
        Subresource::Exec,
        Subresource::Attach,
        Subresource::PortForward,
        Subresource::EphemeralContainers,
        Subresource::Proxy,
    ],
    columns: table::COLUMNS,
    ..Kind::namespaced(&Rules, "pod")
};

struct Rules;

/// The text, or `""`, which Kubernetes does not tell from its absence.
fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// The items, or none, which Kubernetes does not tell from an absent list.
fn list<T>(value: &Option<Vec<T>>) -> &[T] {
    value.as_deref().unwrap_or_default()
}

/// Whether an init container is a sidecar: it goes on running beside the others (BEHAVIOURS 9.8).
#[must_use]
pub fn is_sidecar(init_container: &Container) -> bool {
    text(&init_container.restart_policy) == "Always"
}

/// Whether nothing of the pod runs, or ever will again.
#[must_use]
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().map_or("", |status| text(&status.phase))
}

impl Strategy for Rules {
    type Object = Pod;

    fn set_defaults(&self, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        spec::set_defaults(spec);
        defaults::set_pod_defaults(spec);
    }

    fn prepare_create(&self, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        defaults::set_service_account(spec);
        // Admission has looked for a PriorityClass by now (BEHAVIOURS 9.1).
        spec.priority.get_or_insert(0);
        spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
        scheduling::add_label_keys(spec, pod.metadata.labels.as_ref());
        pod.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos::class(spec).to_owned()),
            conditions: (!list(&spec.scheduling_gates).is_empty()).then(|| vec![gated()]),
            ..PodStatus::default()
        });
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
        let (Some(spec), Some(old)) = (&mut new.spec, &old.spec) else { return };
        // What admission gave at creation is not asked for again.
        spec.priority = spec.priority.or(old.priority);
        if spec.preemption_policy.is_none() {
            spec.preemption_policy.clone_from(&old.preemption_policy);
        }
    }

    fn prepare_status_update(&self, new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
        let status = new.status.get_or_insert_default();
        if text(&status.qos_class).is_empty() {
            status.qos_class = old.status.as_ref().and_then(|status| status.qos_class.clone());
        }
        settle_addresses(status);
    }

    fn prepare_ephemeral_update(&self, new: &mut Pod, old: &Pod) {
        ephemeral::prepare_update(new, old);
    }

    fn validate(&self, pod: &Pod, errors: &mut Errors) {
        let nothing = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&nothing);
        spec::validate_annotations(&pod.metadata, spec, &Path::new("metadata").child("annotations"), errors);
        spec::validate_pod(spec, pod.metadata.name.as_deref(), &Path::new("spec"), errors);
    }

    fn validate_create(&self, pod: &Pod, errors: &mut Errors) {
        // Only their own subresource adds these.
        if pod.spec.as_ref().is_some_and(|spec| !list(&spec.ephemeral_containers).is_empty()) {
            errors.forbidden(&Path::new("spec").child("ephemeralContainers"), "cannot be set on create");
        }
    }

    fn validate_ephemeral_update(&self, new: &Pod, old: &Pod, errors: &mut Errors) {
        self.validate(new, errors);
        ephemeral::validate_update(new, old, errors);
    }

    fn validate_update(&self, new: &Pod, old: &Pod, errors: &mut Errors) {
        update::validate(new, old, errors);
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod, errors: &mut Errors) {
        status::validate_update(new, old, errors);
    }

    fn warnings(&self, pod: &Pod) -> Vec<String> {
        warnings::of_pod(pod)
    }

    fn fields(&self, pod: &Pod) -> Vec<(&'static str, String)> {
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let spec = pod.spec.as_ref().unwrap_or(&no_spec);
        let status = pod.status.as_ref().unwrap_or(&no_status);
        let address = list(&status.pod_ips).first().map_or("", |first| first.ip.as_str());
        vec![
            ("spec.nodeName", text(&spec.node_name).to_owned()),
            ("spec.restartPolicy", text(&spec.restart_policy).to_owned()),
            ("spec.schedulerName", text(&spec.scheduler_name).to_owned()),
            ("spec.serviceAccountName", text(&spec.service_account_name).to_owned()),
            ("spec.hostNetwork", spec.host_network.unwrap_or(false).to_string()),
            ("status.phase", text(&status.phase).to_owned()),
            ("status.podIP", address.to_owned()),
            ("status.nominatedNodeName", text(&status.nominated_node_name).to_owned()),
        ]
    }

    /// BEHAVIOURS 9.10 and 4.2: nothing runs, nothing to wait for.
    fn deletion_grace_seconds(&self, pod: &Pod, requested: Option<i64>) -> i64 {
        let spec = pod.spec.as_ref();
        if spec.is_none_or(|spec| text(&spec.node_name).is_empty()) || is_finished(pod) {
            return 0;
        }
        let seconds =
            requested.or(spec.and_then(|spec| spec.termination_grace_period_seconds)).unwrap_or_default();
        if seconds < 0 { 1 } else { seconds }
    }

    fn cells(&self, pod: &Pod, now: Timestamp) -> Vec<Cell> {
        table::cells(pod, now)
    }
}

/// `podIP` is the first of `podIPs`. Where they differ the single one counts, since old writers know
/// only that.
fn settle_addresses(status: &mut PodStatus) {
    let first = list(&status.pod_ips).first().map(|first| first.ip.clone());
    let one = text(&status.pod_ip);
    if one.is_empty() {
        status.pod_ip = first;
    } else if first.as_deref() != Some(one) {
        status.pod_ips = Some(vec![PodIP { ip: one.to_owned() }]);
    }
}

/// Why a pod with scheduling gates is not scheduled; the scheduler leaves it alone.
fn gated() -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    }
}
