//! What each node is to have of a daemon set's pods (BEHAVIOURS 12.4 to 12.7). Pure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::controller::eligibility::Verdict;
use crate::controller::revisions::{HASH_LABEL, label};
use crate::controller::{owned, snapshot};
use crate::kind::daemon_set::ROLLING_UPDATE;
use crate::kind::workload::scaled;

/// A node and the set's pods there.
#[derive(Clone, Copy)]
pub(super) struct OnNode<'a> {
    pub(super) name: &'a str,
    pub(super) verdict: Verdict,
    pub(super) pods: &'a [&'a Pod],
}

/// A pod that ended.
#[derive(Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) node: &'a str,
    pub(super) pod: &'a Pod,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// Nodes that get a pod.
    pub(super) create: Vec<&'a str>,
    pub(super) delete: Vec<&'a Pod>,
    /// To be deleted too; failed ones when their node has been left alone for long enough.
    pub(super) ended: Vec<Ended<'a>>,
}

impl Plan<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.ended.is_empty()
    }
}

/// How a set's pods are judged and replaced.
pub(super) struct Rules<'a> {
    hash: &'a str,
    min_ready_seconds: i32,
    max_unavailable: usize,
    /// Above 0, new pods come before old ones go.
    max_surge: usize,
    now: Timestamp,
}

impl<'a> Rules<'a> {
    pub(super) fn of(spec: &DaemonSetSpec, hash: &'a str, nodes: &[OnNode<'_>], now: Timestamp) -> Self {
        let strategy = spec.update_strategy.as_ref();
        let is_rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some(ROLLING_UPDATE);
        let rolling = strategy.filter(|_| is_rolling).and_then(|strategy| strategy.rolling_update.as_ref());
        let desired = nodes.iter().filter(|node| node.verdict == Verdict::Runs).count();
        let of = |amount| {
            let count = scaled(amount, i32::try_from(desired).unwrap_or(i32::MAX), true);
            usize::try_from(count).unwrap_or_default()
        };
        let max_surge = of(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
        let max_unavailable = of(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
        Self {
            hash,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
            max_unavailable: if max_surge == 0 { max_unavailable.max(1) } else { max_unavailable },
            max_surge,
            now,
        }
    }

    /// By the hash alone. Upstream takes a pod of the same template generation for new as well, so that a
    /// set made again with another template keeps orphans as they are when the two numbers happen to
    /// agree, and calls the update done (against its own documentation, and BEHAVIOURS 12.9).
    fn is_new(&self, pod: &Pod) -> bool {
        label(pod, HASH_LABEL) == Some(self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        owned::is_available(pod, self.min_ready_seconds, self.now)
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(super) fn has_failed(pod: &Pod) -> bool {
    phase(pod) == "Failed"
}

pub(super) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Those with a node first, then the oldest.
fn sort(pods: &mut [&Pod]) {
    let is_waiting = |pod: &Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().is_empty()
    };
    pods.sort_by(|a, b| {
        is_waiting(a)
            .cmp(&is_waiting(b))
            .then_with(|| snapshot::created(*a).cmp(&snapshot::created(*b)))
            .then_with(|| snapshot::name(*a).cmp(snapshot::name(*b)))
    });
}

/// A pod where one must be, none where none may be, and one for each that ended.
pub(super) fn manage<'a>(rules: &Rules<'_>, nodes: &[OnNode<'a>]) -> Plan<'a> {
    let mut plan = Plan::default();
    for node in nodes {
        match node.verdict {
            Verdict::Runs if node.pods.is_empty() => plan.create.push(node.name),
            Verdict::Runs | Verdict::Stays => thin_out(rules, node, &mut plan),
            Verdict::Never => plan.delete.extend(node.pods.iter().filter(|pod| !is_going(pod))),
        }
    }
    plan
}

/// Of several pods on a node the oldest stays; beside an old one, a new one that is to take its place.
fn thin_out<'a>(rules: &Rules<'_>, node: &OnNode<'a>, plan: &mut Plan<'a>) {
    let staying = node.pods.iter().copied().filter(|pod| !is_going(pod));
    let (ended, mut running): (Vec<&Pod>, Vec<&Pod>) = staying.partition(|pod| is_finished(pod));
    for pod in ended {
        plan.ended.push(Ended { node: node.name, pod });
    }
    if running.len() < 2 {
        return;
    }
    sort(&mut running);
    if rules.max_surge == 0 {
        plan.delete.extend(&running[1..]);
        return;
    }
    let (mut new, mut old) = (None, None);
    for pod in running {
        let place = if rules.is_new(pod) { &mut new } else { &mut old };
        if place.is_none() {
            *place = Some(pod);
        } else {
            plan.delete.push(pod);
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!owned::is_ready(old) || rules.is_available(new))
    {
        plan.delete.push(old);
    }
}

/// The pods of the new and of an old template on a node; `None` if there are several of one.
fn pair<'a>(rules: &Rules<'_>, node: &OnNode<'a>) -> Option<(Option<&'a Pod>, Option<&'a Pod>)> {
    let (mut new, mut old) = (None, None);
    for &pod in node.pods.iter().filter(|pod| !is_going(pod)) {
        let place = if rules.is_new(pod) { &mut new } else { &mut old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// The next step of an update, when every node has what it must.
pub(super) fn roll<'a>(rules: &Rules<'_>, nodes: &[OnNode<'a>]) -> Plan<'a> {
    let occupied = nodes.iter().filter(|node| !node.pods.is_empty());
    if rules.max_surge == 0 { interrupt(rules, occupied) } else { surge(rules, occupied) }
}

/// Old pods go, so that new ones are made: all that are not available, others as long as few are missing.
fn interrupt<'a, 'b>(rules: &Rules<'_>, nodes: impl Iterator<Item = &'b OnNode<'a>>) -> Plan<'a>
where
    'a: 'b,
{
    let mut unavailable = 0;
    let mut candidates = Vec::new();
    let mut plan = Plan::default();
    for node in nodes {
        match pair(rules, node) {
            Some((None, Some(old))) if rules.is_available(old) => candidates.push(old),
            Some((None, Some(old))) => {
                plan.delete.push(old);
                unavailable += 1;
            }
            Some((Some(new), None)) if rules.is_available(new) => {}
            // Not there yet, or being sorted out.
            Some(_) | None => unavailable += 1,
        }
    }
    let more = rules.max_unavailable.saturating_sub(unavailable);
    plan.delete.extend(candidates.into_iter().take(more));
    plan
}

/// New pods come beside old ones, which go when the new are available.
fn surge<'a, 'b>(rules: &Rules<'_>, nodes: impl Iterator<Item = &'b OnNode<'a>>) -> Plan<'a>
where
    'a: 'b,
{
    let mut surging = 0;
    let mut candidates = Vec::new();
    let mut plan = Plan::default();
    for node in nodes {
        match pair(rules, node) {
            None => surging += 1,
            Some((_, None)) => {}
            Some((Some(new), Some(old))) if rules.is_available(new) => plan.delete.push(old),
            Some((Some(_), Some(_))) => surging += 1,
            // Where it may not have come today, a new one does not come either.
            Some((None, Some(_))) if node.verdict != Verdict::Runs => {}
            Some((None, Some(old))) if rules.is_available(old) => candidates.push(node.name),
            Some((None, Some(_))) => plan.create.push(node.name),
        }
    }
    let more = rules.max_surge.saturating_sub(surging);
    plan.create.extend(candidates.into_iter().take(more));
    plan
}

/// The counts of a status (12.6).
pub(super) fn count(rules: &Rules<'_>, nodes: &[OnNode<'_>]) -> DaemonSetStatus {
    let mut status = DaemonSetStatus::default();
    let (mut available, mut updated) = (0, 0);
    for node in nodes {
        let mut pods = node.pods.to_vec();
        sort(&mut pods);
        match (node.verdict, pods.first()) {
            (Verdict::Runs, first) => {
                status.desired_number_scheduled += 1;
                let Some(pod) = first else { continue };
                status.current_number_scheduled += 1;
                status.number_ready += i32::from(owned::is_ready(pod));
                available += i32::from(rules.is_available(pod));
                updated += i32::from(rules.is_new(pod));
            }
            (Verdict::Stays | Verdict::Never, Some(_)) => status.number_misscheduled += 1,
            (Verdict::Stays | Verdict::Never, None) => {}
        }
    }
    let nonzero = |count: i32| (count != 0).then_some(count);
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    status.updated_number_scheduled = nonzero(updated);
    status
}
