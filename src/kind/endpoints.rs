//! Endpoints: where a service's pods are, as one object (BEHAVIOURS 16.3).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};

use super::field::{Errors, Path, dns_label, dns_subdomain};
use super::table::{self, Cell};
use super::validation::{each, port_number};
use super::{Kind, Strategy, network};

pub static KIND: Kind = Kind {
    short_names: &["ep"],
    create_on_update: true,
    columns: &[
        table::NAME,
        table::described(
            "Endpoints",
            "string",
            0,
            "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "endpoints")
};

struct Rules;

impl Strategy for Rules {
    type Object = Endpoints;

    fn set_defaults(&self, endpoints: &mut Endpoints) {
        let ports =
            endpoints.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten());
        for port in ports {
            if port.protocol.as_deref().unwrap_or_default().is_empty() {
                port.protocol = Some("TCP".to_owned());
            }
        }
    }

    fn validate(&self, endpoints: &Endpoints, errors: &mut Errors) {
        for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let path = Path::new("subsets").index(i);
            let ready = subset.addresses.as_deref().unwrap_or_default();
            let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
            if ready.is_empty() && not_ready.is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for (name, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                for (i, address) in addresses.iter().enumerate() {
                    validate_address(address, &path.child(name).index(i), errors);
                }
            }
            let ports = subset.ports.as_deref().unwrap_or_default();
            for (i, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(i);
                let name = port.name.as_deref().unwrap_or_default();
                // Unlike a service's, these names may repeat.
                let mut seen = BTreeSet::new();
                network::port_label(&path.child("name"), name, ports.len() > 1, &mut seen, errors);
                each(errors, &path.child("port"), port.port, port_number(port.port));
                network::protocol(&path.child("protocol"), port.protocol.as_deref(), errors);
                network::app_protocol(&path.child("appProtocol"), port.app_protocol.as_deref(), errors);
            }
        }
    }

    fn cells(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Cell> {
        vec![table::name(endpoints), Cell::Text(summary(endpoints)), table::age(endpoints, now)]
    }
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut Errors) {
    network::ip(&path.child("ip"), &address.ip, errors);
    if let Some(hostname) = address.hostname.as_deref().filter(|name| !name.is_empty()) {
        each(errors, &path.child("hostname"), hostname, dns_label(hostname));
    }
    if let Some(node) = &address.node_name {
        each(errors, &path.child("nodeName"), node, dns_subdomain(node));
    }
    network::not_special(&path.child("ip"), &address.ip, errors);
}

/// The first ready addresses, with ports if there are any.
fn summary(endpoints: &Endpoints) -> String {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let all = subsets.iter().flat_map(|subset| {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        let with_ports = ports
            .iter()
            .flat_map(move |port| addresses.iter().map(|one| network::host_port(&one.ip, port.port)));
        let bare = addresses.iter().filter(|_| ports.is_empty()).map(|one| one.ip.clone());
        with_ports.chain(bare)
    });
    network::first_three(all).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const ENDPOINTS: Fixture =
        Fixture { kind: &KIND, base: || json!({"metadata": {"name": "a", "namespace": "n"}}) };

    #[test]
    fn subsets_have_addresses_and_ports() {
        ENDPOINTS.valid(json!({}), &[]);
        ENDPOINTS.valid(
            json!({"subsets": [{"addresses": [{"ip": "127.128.0.1"}], "ports": [{"port": 80}]}]}),
            &[],
        );
        ENDPOINTS.valid(
            json!({"subsets": [{}]}),
            &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        );
        ENDPOINTS.valid(
            json!({"subsets": [{"notReadyAddresses": [{"ip": "x"}], "ports": [{"port": 0}, {"name": "b", "port": 1, "protocol": "tcp"}]}]}),
            &[
                "subsets[0].notReadyAddresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[0].ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        );
    }

    #[test]
    fn tables_show_the_first_three() {
        ENDPOINTS.cells(json!({}), &["a", "<none>", "<unknown>"]);
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]);
        ENDPOINTS
            .cells(json!({"subsets": [{"addresses": addresses}]}), &["a", "10.0.0.1,10.0.0.2", "<unknown>"]);
        ENDPOINTS.cells(
            json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}, {"port": 443}]}]}),
            &["a", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more...", "<unknown>"],
        );
    }
}
