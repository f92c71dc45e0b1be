//! What a failure means for its Job (BEHAVIOURS 13.10; upstream `pod_failure_policy.go`), and which
//! successes are enough (13.11).

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::pods::containers;
use crate::kind::job::indexes::Indexes;
use crate::kind::job::traps::{self, Rule};

/// What a failed pod does to its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Counts as one failure.
    Count,
    /// Counts, and the pod's index is not tried again.
    FailIndex,
    /// As if it had not been.
    Ignore,
    /// Fails the Job at once; the message says why.
    FailJob(String),
}

/// The rules of one Job, read once.
pub(super) struct Policy<'a> {
    traps: Vec<Rule>,
    rules: &'a [PodFailurePolicyRule],
}

impl<'a> Policy<'a> {
    pub(super) fn of(job: &'a Job) -> Self {
        let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
        Self { traps: traps::rules(job), rules: policy.map_or(&[], |policy| policy.rules.as_slice()) }
    }

    /// The first rule that fits decides: about traps first, then those of the spec.
    pub(super) fn verdict(&self, pod: &Pod) -> Verdict {
        let name = || {
            let meta = &pod.metadata;
            format!(
                "{}/{}",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            )
        };
        for (i, rule) in self.traps.iter().enumerate() {
            if let Some((container, trap)) = trapped(rule, pod) {
                return verdict(&rule.action, || {
                    format!(
                        "Container {} for pod {} trapped ({trap}) matching {} rule at index {i} of {}",
                        container.name,
                        name(),
                        rule.action,
                        traps::ANNOTATION,
                    )
                });
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if let Some(codes) = &rule.on_exit_codes {
                if let Some((container, code)) = exited(codes, pod) {
                    return verdict(&rule.action, || {
                        format!(
                            "Container {container} for pod {} failed with exit code {code} matching {} rule at index {i}",
                            name(),
                            rule.action,
                        )
                    });
                }
            } else if let Some(condition) = fitting_condition(rule, pod) {
                return verdict(&rule.action, || {
                    format!(
                        "Pod {} has condition {condition} matching {} rule at index {i}",
                        name(),
                        rule.action
                    )
                });
            }
        }
        Verdict::Count
    }
}

fn verdict(action: &str, message: impl FnOnce() -> String) -> Verdict {
    match action {
        "FailJob" => Verdict::FailJob(message()),
        "FailIndex" => Verdict::FailIndex,
        "Ignore" => Verdict::Ignore,
        _ => Verdict::Count,
    }
}

/// Exit code 0 is never a failure.
fn exited<'a>(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    containers(pod)
        .filter(|container| wanted.container_name.as_ref().is_none_or(|name| *name == container.name))
        .filter_map(|container| Some((container.name.as_str(), exit_code(container)?)))
        .find(|(_, code)| *code != 0 && wanted.values.contains(code) == (wanted.operator == "In"))
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    container.state.as_ref()?.terminated.as_ref().map(|ended| ended.exit_code)
}

fn fitting_condition<'a>(rule: &PodFailurePolicyRule, pod: &'a Pod) -> Option<&'a str> {
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| {
            patterns
                .iter()
                .any(|pattern| pattern.type_ == condition.type_ && pattern.status == condition.status)
        })
        .map(|condition| condition.type_.as_str())
        .next()
}

fn trapped<'a>(rule: &Rule, pod: &'a Pod) -> Option<(&'a ContainerStatus, &'static str)> {
    containers(pod)
        .filter(|container| rule.container_name.as_ref().is_none_or(|name| *name == container.name))
        .filter_map(|container| Some((container, trap(pod, container)?)))
        .find(|(_, trap)| rule.traps.iter().any(|wanted| wanted == trap))
}

/// The exit code that the kubelet gives a guest that trapped, as a shell's for SIGABRT.
const TRAPPED: i32 = 134;

/// What trap ended a container, in the words of [`traps::TRAPS`], by what the kubelet reports: the
/// engine's text is the termination message.
fn trap(pod: &Pod, container: &ContainerStatus) -> Option<&'static str> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Some("out-of-memory");
    }
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    if reason == Some("DeadlineExceeded") && ended.exit_code != 0 {
        return Some("deadline");
    }
    if ended.exit_code != TRAPPED {
        return None;
    }
    let text = ended.message.as_deref().unwrap_or_default();
    let kinds = [
        ("unreachable", "unreachable"),
        ("call stack exhausted", "stack-overflow"),
        ("divide by zero", "divide-by-zero"),
        ("integer overflow", "integer-overflow"),
        ("invalid conversion", "invalid-conversion"),
        ("indirect call", "indirect-call"),
        ("uninitialized element", "indirect-call"),
        ("null reference", "null-reference"),
        ("out of bounds", "out-of-bounds"),
    ];
    Some(kinds.iter().find(|(part, _)| text.contains(part)).map_or("other", |(_, trap)| trap))
}

/// Whether the successes are enough; the message says which rule they meet.
pub(super) fn is_enough(
    policy: Option<&SuccessPolicy>,
    completions: u32,
    succeeded: &Indexes,
) -> Option<String> {
    let rules = policy?.rules.iter().enumerate();
    let mut met = rules.filter(|(_, rule)| {
        let count = rule.succeeded_count.map(|count| u32::try_from(count).unwrap_or_default());
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::read(text, completions);
                succeeded.count_of(&wanted) >= count.unwrap_or_else(|| wanted.total())
            }
            None => count.is_some_and(|count| succeeded.total() >= count),
        }
    });
    met.next().map(|(i, _)| format!("Matched rules at index {i}"))
}
