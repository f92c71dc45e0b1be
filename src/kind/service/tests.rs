use super::*;
use crate::kind::fixture::Fixture;
use serde_json::json;

const SERVICE: Fixture = Fixture {
    kind: &KIND,
    base: || json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"ports": [{"port": 80}]}}),
};

/// As created and given an address.
fn placed() -> serde_json::Value {
    json!({"spec": {"clusterIP": "127.96.0.5", "clusterIPs": ["127.96.0.5"]}})
}

#[test]
fn a_short_manifest_is_filled() {
    assert_eq!(
        SERVICE.created(json!({"status": {"conditions": []}})).to_value(),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            },
            "status": {"loadBalancer": {}},
        })
    );
    let value =
        SERVICE.created(json!({"spec": {"type": "NodePort", "sessionAffinity": "ClientIP"}})).to_value();
    assert_eq!(value["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(value["spec"]["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    let value = SERVICE.created(json!({"spec": {"clusterIP": "None"}})).to_value();
    assert_eq!(value["spec"]["clusterIPs"], json!(["None"]));
    let value = SERVICE.created(json!({"spec": {"type": "ExternalName", "externalName": "a.b"}})).to_value();
    assert_eq!(value["spec"].get("ipFamilies"), None);
}

#[test]
fn ports_are_needed_named_and_different() {
    SERVICE.valid(json!({}), &[]);
    SERVICE.valid(json!({"spec": {"ports": null}}), &["spec.ports: Required value"]);
    SERVICE.valid(json!({"spec": {"ports": null, "clusterIP": "None"}}), &[]);
    SERVICE.valid(
        json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    SERVICE.valid(
        json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 80}]}}),
        &[
            "spec.ports[1].name: Duplicate value: \"a\"",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ],
    );
    SERVICE.valid(
        json!({"spec": {"ports": [{"port": 0, "targetPort": "80", "protocol": "ICMP", "nodePort": 30000}]}}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.ports[0].targetPort: Invalid value: \"80\": must contain at least one letter (a-z)",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
}

#[test]
fn types_ask_for_what_they_need() {
    SERVICE.valid(json!({"spec": {"type": "Other"}}), &[
        "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
    ]);
    SERVICE.valid(
        json!({"spec": {"type": "NodePort", "clusterIP": "None"}}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    SERVICE.valid(json!({"spec": {"type": "ExternalName", "externalName": "example.com."}}), &[]);
    SERVICE.valid(
        json!({"spec": {"type": "ExternalName", "clusterIP": "10.0.0.1"}}),
        &[
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.externalName: Required value",
        ],
    );
    SERVICE.valid(json!({"spec": {"loadBalancerClass": "x", "externalTrafficPolicy": "Local"}}), &[
        "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
    ]);
}

#[test]
fn addresses_are_ipv4_and_agree() {
    SERVICE.valid(placed(), &[]);
    SERVICE.valid(json!({"spec": {"clusterIP": "x"}}), &[
        "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    ]);
    SERVICE.valid(
        json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}}),
        &["spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"],
    );
    SERVICE.valid(json!({"spec": {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack"}}), &[
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
    ]);
    SERVICE.valid(json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}}), &[
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
    ]);
}

#[test]
fn names_begin_with_a_letter() {
    assert!(KIND.strategy.validate_name("web-1").is_empty());
    for name in ["1web", "web-", "Web", "a.b", ""] {
        assert_eq!(KIND.strategy.validate_name(name).len(), 1, "{name}");
    }
    assert_eq!(KIND.strategy.validate_name(&"a".repeat(64)), ["must be no more than 63 characters"]);
}

#[test]
fn the_address_stays() {
    let why = "may not change once set";
    SERVICE.update(placed(), json!({"spec": {"clusterIP": null, "clusterIPs": null}}), &[]);
    SERVICE.update(
        placed(),
        json!({"spec": {"clusterIP": "127.96.0.6"}}),
        &[&format!("spec.clusterIPs[0]: Invalid value: [\"127.96.0.6\"]: {why}")],
    );
    SERVICE.update(
        placed(),
        json!({"spec": {"clusterIP": "None"}}),
        &[&format!("spec.clusterIPs[0]: Invalid value: [\"None\"]: {why}")],
    );
    let (new, _) = SERVICE
        .updated(placed(), json!({"spec": {"clusterIP": null, "clusterIPs": null, "selector": {"a": "b"}}}));
    assert_eq!(new.to_value()["spec"]["clusterIPs"], json!(["127.96.0.5"]));
    assert_eq!(new.to_value()["spec"]["clusterIP"], "127.96.0.5");
}

#[test]
fn a_change_of_type_clears_what_it_leaves_behind() {
    let (new, _) =
        SERVICE.updated(placed(), json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}));
    let spec = &new.to_value()["spec"];
    for gone in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        assert_eq!(spec.get(gone), None, "{gone}");
    }
    SERVICE.update(placed(), json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}), &[]);
    let node_port = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}});
    SERVICE.update(node_port.clone(), json!({"spec": {"type": "ClusterIP"}}), &[]);
    let (new, _) = SERVICE.updated(node_port.clone(), json!({"spec": {"type": "ClusterIP"}}));
    assert_eq!(new.to_value()["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(new.to_value()["spec"].get("externalTrafficPolicy"), None);
    let (new, _) = SERVICE.updated(node_port, json!({"spec": {"ports": [{"port": 81}]}}));
    assert_eq!(new.to_value()["spec"]["ports"][0]["nodePort"], 30080);
}

#[test]
fn status_and_spec_have_doors_of_their_own() {
    let balancer = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}}, "spec": {"selector": {"a": "b"}}});
    let (new, _) = SERVICE.updated(json!({}), balancer.clone());
    assert_eq!(new.to_value()["status"], json!({"loadBalancer": {}}));
    let new = SERVICE.status_updated(json!({}), balancer);
    assert_eq!(new.to_value()["status"]["loadBalancer"]["ingress"][0]["ip"], "10.0.0.9");
    assert_eq!(new.to_value()["spec"].get("selector"), None);
}

#[test]
fn tables_show_how_to_reach_it() {
    SERVICE.cells(placed(), &["a", "ClusterIP", "127.96.0.5", "<none>", "80/TCP", "<unknown>", "<none>"]);
    SERVICE.cells(
        json!({"spec": {
            "type": "NodePort", "clusterIPs": ["127.96.0.5"], "externalIPs": ["1.2.3.4"], "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
        }}),
        &["a", "NodePort", "127.96.0.5", "1.2.3.4", "80:30080/TCP,53/UDP", "<unknown>", "a=1,b=2"],
    );
    SERVICE.cells(
        json!({"spec": {"type": "ExternalName", "externalName": "a.b", "ports": null}}),
        &["a", "ExternalName", "<none>", "a.b", "<none>", "<unknown>", "<none>"],
    );
    SERVICE.cells(
        json!({"spec": {"type": "LoadBalancer"}}),
        &["a", "LoadBalancer", "<none>", "<pending>", "80/TCP", "<unknown>", "<none>"],
    );
    SERVICE.cells(
        json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"hostname": "h"}, {"ip": "1.1.1.1"}]}}}),
        &["a", "LoadBalancer", "<none>", "1.1.1.1,h", "80/TCP", "<unknown>", "<none>"],
    );
}
