//! NetworkPolicy: who may reach pods, and whom they may reach (upstream `pkg/apis/networking/validation`).

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::{choice, each, label_selector, port_name, port_number};
use super::{Kind, Strategy, network, workload};

pub static KIND: Kind = Kind {
    short_names: &["netpol"],
    has_generation: true,
    columns: &[
        table::NAME,
        table::described(
            "Pod-Selector",
            "string",
            0,
            "podSelector selects the pods to which this NetworkPolicy object applies. The array of ingress rules is applied to any pods selected by this field. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is NOT optional and follows standard label selector semantics. An empty podSelector matches all pods in this namespace.",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "networkpolicy")
};

/// What a policy may be about.
pub const INGRESS: &str = "Ingress";
pub const EGRESS: &str = "Egress";

struct Rules;

impl Strategy for Rules {
    type Object = NetworkPolicy;

    fn set_defaults(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
            let types = [Some(INGRESS), has_egress.then_some(EGRESS)];
            spec.policy_types = Some(types.into_iter().flatten().map(str::to_owned).collect());
        }
    }

    fn spec_changed(&self, new: &NetworkPolicy, old: &NetworkPolicy) -> bool {
        new.spec != old.spec
    }

    fn validate(&self, policy: &NetworkPolicy, errors: &mut Errors) {
        let Some(spec) = &policy.spec else { return };
        let path = Path::new("spec");
        label_selector(errors, &path.child("podSelector"), spec.pod_selector.as_ref());
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = path.child("ingress").index(i);
            validate_ports(errors, &path, rule.ports.as_deref());
            validate_peers(errors, &path.child("from"), rule.from.as_deref());
        }
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            let path = path.child("egress").index(i);
            validate_ports(errors, &path, rule.ports.as_deref());
            validate_peers(errors, &path.child("to"), rule.to.as_deref());
        }
        let path = path.child("policyTypes");
        let types = spec.policy_types.as_deref().unwrap_or_default();
        if types.len() > 2 {
            errors.invalid(&path, types, "may not specify more than two policyTypes");
            return;
        }
        for (i, one) in types.iter().enumerate() {
            choice(errors, &path.index(i), one, &[EGRESS, INGRESS]);
        }
    }

    fn cells(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Cell> {
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
        vec![table::name(policy), workload::selector_cell(&selector), table::age(policy, now)]
    }
}

fn validate_ports(errors: &mut Errors, path: &Path, ports: Option<&[NetworkPolicyPort]>) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = path.child("ports").index(i);
        network::protocol(&path.child("protocol"), port.protocol.as_deref(), errors);
        let end = path.child("endPort");
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(first)), last) => {
                each(errors, &path.child("port"), first, port_number(*first));
                if let Some(last) = last {
                    if last < *first {
                        errors.invalid(&end, last, "must be greater than or equal to `port`");
                    }
                    each(errors, &end, last, port_number(last));
                }
            }
            (Some(IntOrString::String(name)), last) => {
                if let Some(last) = last {
                    errors.invalid(&end, last, "may not be specified when `port` is non-numeric");
                }
                each(errors, &path.child("port"), name, port_name(name));
            }
            (None, Some(last)) => {
                errors.invalid(&end, last, "may not be specified when `port` is not specified");
            }
            (None, None) => {}
        }
    }
}

fn validate_peers(errors: &mut Errors, path: &Path, peers: Option<&[NetworkPolicyPeer]>) {
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        let path = path.index(i);
        label_selector(errors, &path.child("podSelector"), peer.pod_selector.as_ref());
        label_selector(errors, &path.child("namespaceSelector"), peer.namespace_selector.as_ref());
        let has_selector = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(block) => {
                validate_block(errors, &path.child("ipBlock"), block);
                if has_selector {
                    errors.forbidden(&path, "may not specify both ipBlock and another peer");
                }
            }
            None if !has_selector => errors.required(&path, "must specify a peer"),
            None => {}
        }
    }
}

fn validate_block(errors: &mut Errors, path: &Path, block: &IPBlock) {
    if block.cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    network::cidr(&path.child("cidr"), &block.cidr, errors);
    let Ok(whole) = block.cidr.parse::<IpNet>() else { return };
    for (i, except) in block.except.iter().flatten().enumerate() {
        let path = path.child("except").index(i);
        network::cidr(&path, except, errors);
        if let Ok(part) = except.parse::<IpNet>()
            && (!whole.contains(&part.network()) || whole.prefix_len() >= part.prefix_len())
        {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::testing::{check_validation, patched};

    const BASE: &str = "{metadata: {name: a, namespace: ns}, spec: {podSelector: {}}}";

    #[test]
    fn types_and_protocols_are_filled_in() {
        for (patch, types) in [
            ("{}", json!(["Ingress"])),
            ("{spec: {egress: [{}]}}", json!(["Ingress", "Egress"])),
            ("{spec: {egress: []}}", json!(["Ingress"])),
            ("{spec: {policyTypes: [Egress]}}", json!(["Egress"])),
        ] {
            assert_eq!(patched(&KIND, BASE, patch).to_value()["spec"]["policyTypes"], types, "{patch}");
        }
        let policy = patched(&KIND, BASE, "{spec: {podSelector: null, ingress: [{ports: [{port: 80}]}]}}");
        let spec = &policy.to_value()["spec"];
        assert_eq!(spec["podSelector"], json!({}));
        assert_eq!(spec["ingress"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn rules_are_checked() {
        let check = |spec: &str, expected: &[&str]| {
            check_validation(&KIND, BASE, &format!("{{spec: {spec}}}"), expected);
        };
        check(
            "{ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, endPort: 90}, {port: web}, {protocol: UDP}]}], egress: [{}]}",
            &[],
        );
        check("{ingress: [{from: [{}]}]}", &["spec.ingress[0].from[0]: Required value: must specify a peer"]);
        check(
            "{egress: [{to: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
            &["spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"],
        );
        check(
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16, 10.0.0.0/8]}}]}]}",
            &[
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ],
        );
        check(
            "{ingress: [{from: [{ipBlock: {cidr: ''}}]}]}",
            &["spec.ingress[0].from[0].ipBlock.cidr: Required value"],
        );
        check(
            "{ingress: [{ports: [{port: 90, endPort: 80}, {port: web, endPort: 80}, {endPort: 80}, {port: 0}, {protocol: X}]}]}",
            &[
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.ingress[0].ports[1].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[2].endPort: Invalid value: 80: may not be specified when `port` is not specified",
                "spec.ingress[0].ports[3].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[4].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        );
        check(
            "{policyTypes: [Both]}",
            &["spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\""],
        );
    }
}
