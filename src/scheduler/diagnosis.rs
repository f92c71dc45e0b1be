//! Why no node would do, in kube-scheduler's words (`framework.FitError`, BEHAVIOURS 15.4).

use std::collections::{BTreeMap, BTreeSet};

use super::filter::{Blocker, Refusal};

/// Why a pod fits no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    pub message: String,
    /// What could change it.
    pub blockers: BTreeSet<Blocker>,
}

/// Counts refusals over all nodes.
#[derive(Debug, Default)]
pub struct Tally {
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    /// Nodes on which removing pods might help.
    resolvable: usize,
    blockers: BTreeSet<Blocker>,
}

impl Tally {
    pub fn add(&mut self, refusal: &Refusal, nodes: usize) {
        if nodes == 0 {
            return;
        }
        self.nodes += nodes;
        for reason in &refusal.reasons {
            *self.reasons.entry(reason.clone()).or_default() += nodes;
        }
        if !refusal.unresolvable {
            self.resolvable += nodes;
        }
        self.blockers.insert(refusal.blocker);
        if refusal.blocker != Blocker::Node {
            // A new or larger node helps against everything.
            self.blockers.insert(Blocker::Node);
        }
    }

    /// The message of a pod that no node fits.
    #[must_use]
    pub fn diagnosis(self, never_preempts: bool) -> Diagnosis {
        if self.nodes == 0 {
            return Diagnosis {
                message: "no nodes available to schedule pods".into(),
                blockers: BTreeSet::from([Blocker::Node]),
            };
        }
        // No pod is pushed out for another yet, so where it could help, no victims are found.
        let preemption = if never_preempts {
            "not eligible due to preemptionPolicy=Never.".to_owned()
        } else {
            let outcomes = BTreeMap::from([
                ("No preemption victims found for incoming pod".to_owned(), self.resolvable),
                ("Preemption is not helpful for scheduling".to_owned(), self.nodes - self.resolvable),
            ]);
            summary(self.nodes, &outcomes)
        };
        Diagnosis {
            message: format!("{} preemption: {preemption}", summary(self.nodes, &self.reasons)),
            blockers: self.blockers,
        }
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.` Sorted as text, counts included.
fn summary(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut counted: Vec<String> = reasons
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    counted.sort_unstable();
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}
