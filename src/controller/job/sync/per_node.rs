//! Jobs with one pod for each node: which nodes have had theirs.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use k8s_openapi::api::core::v1::Pod;

use super::super::pods;
use crate::controller::eligibility::Verdict;

/// Nodes on which the Job has succeeded, with commas between.
const NODES_SUCCEEDED: &str = "coracle.dev/nodes-succeeded";
/// Nodes whose last pod failed.
const NODES_FAILED: &str = "coracle.dev/nodes-failed";
/// `run`: the Job goes on for nodes that join later, and so never completes by itself.
const LATER_NODES: &str = "coracle.dev/later-nodes";

type Annotations = BTreeMap<String, String>;

#[derive(Default)]
pub(super) struct PerNode {
    /// Nodes that are to have a pod, and those where one may end that is there.
    eligible: BTreeSet<String>,
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl PerNode {
    pub(super) fn of(nodes: &BTreeMap<String, Verdict>, active: &[&Pod], annotations: &Annotations) -> Self {
        let names = |annotation: &str| {
            let text = annotations.get(annotation).map(String::as_str).unwrap_or_default();
            text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let busy: BTreeSet<&str> = active.iter().filter_map(|pod| pods::meant_for(pod)).collect();
        let counts = |(name, verdict): &(&String, &Verdict)| match verdict {
            Verdict::Runs => true,
            Verdict::Stays => busy.contains(name.as_str()),
            Verdict::Never => false,
        };
        Self {
            eligible: nodes.iter().filter(counts).map(|(name, _)| name.clone()).collect(),
            succeeded: names(NODES_SUCCEEDED),
            failed: names(NODES_FAILED),
        }
    }

    /// Nodes that are done, with those whose success is only seen yet in what is `tracked`.
    fn done<'a>(&'a self, tracked: &'a [&Pod]) -> HashSet<&'a str> {
        let new = tracked.iter().filter(|pod| pods::phase(pod) == "Succeeded");
        let new = new.filter_map(|pod| pods::meant_for(pod));
        self.succeeded.iter().map(String::as_str).chain(new).collect()
    }

    /// Whether a running pod is on a node that still needs it.
    pub(super) fn needs(&self, pod: &Pod) -> bool {
        pods::meant_for(pod)
            .is_some_and(|node| self.eligible.contains(node) && !self.succeeded.contains(node))
    }

    /// Nodes that have still to succeed.
    pub(super) fn left(&self, tracked: &[&Pod]) -> Vec<&str> {
        let done = self.done(tracked);
        self.eligible.iter().map(String::as_str).filter(|node| !done.contains(node)).collect()
    }

    /// Whether all nodes of this moment have succeeded, and no others are waited for.
    pub(super) fn is_complete(&self, tracked: &[&Pod], annotations: &Annotations) -> bool {
        let goes_on = annotations.get(LATER_NODES).is_some_and(|value| value == "run");
        !goes_on && !self.eligible.is_empty() && self.left(tracked).is_empty()
    }

    /// Takes down how a pod has ended.
    pub(super) fn ended(&mut self, pod: &Pod, succeeded: bool) {
        let Some(node) = pods::meant_for(pod) else { return };
        if succeeded {
            self.failed.remove(node);
            self.succeeded.insert(node.to_owned());
        } else if !self.succeeded.contains(node) {
            self.failed.insert(node.to_owned());
        }
    }

    pub(super) fn write(&self, annotations: &mut Annotations) {
        for (annotation, nodes) in [(NODES_SUCCEEDED, &self.succeeded), (NODES_FAILED, &self.failed)] {
            if nodes.is_empty() {
                annotations.remove(annotation);
            } else {
                let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
                annotations.insert(annotation.to_owned(), names.join(","));
            }
        }
    }
}
