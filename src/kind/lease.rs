//! Lease: who holds something, until when; a node's heartbeat (BEHAVIOURS 17.1).

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::{Kind, Strategy};

pub static KIND: Kind = Kind {
    create_on_update: true,
    unconditional_update: false,
    columns: &[
        table::NAME,
        table::described(
            "Holder",
            "string",
            0,
            "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "lease")
};

struct Rules;

impl Strategy for Rules {
    type Object = Lease;

    fn prepare_create(&self, lease: &mut Lease) {
        drop_election(lease);
    }

    fn prepare_update(&self, new: &mut Lease, _old: &Lease) {
        drop_election(new);
    }

    fn validate(&self, lease: &Lease, errors: &mut Errors) {
        let Some(spec) = &lease.spec else { return };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|&seconds| seconds <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(transitions) = spec.lease_transitions.filter(|&transitions| transitions < 0) {
            let why = "must be greater than or equal to 0";
            errors.invalid(&path.child("leaseTransitions"), transitions, why);
        }
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Cell> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        vec![table::name(lease), Cell::Text(holder.unwrap_or_default()), table::age(lease, now)]
    }
}

/// Coordinated leader election is behind a feature gate that is off; upstream then drops its fields.
fn drop_election(lease: &mut Lease) {
    if let Some(LeaseSpec { strategy, preferred_holder, .. }) = &mut lease.spec {
        (*strategy, *preferred_holder) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const LEASE: Fixture =
        Fixture { kind: &KIND, base: || json!({"metadata": {"name": "a", "namespace": "n"}}) };

    #[test]
    fn numbers_are_positive() {
        LEASE.valid(json!({}), &[]);
        LEASE.valid(json!({"spec": {"leaseDurationSeconds": 40, "leaseTransitions": 0}}), &[]);
        LEASE.valid(
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
    }

    #[test]
    fn tables_show_the_holder() {
        LEASE.cells(json!({"spec": {"holderIdentity": "n1"}}), &["a", "n1", "<unknown>"]);
        LEASE.cells(json!({}), &["a", "", "<unknown>"]);
    }
}
