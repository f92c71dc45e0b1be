use serde_json::{Value, json};

use super::*;

/// Sixteen addresses, of which services may have twelve.
const RANGE: (Ipv4Addr, u32) = (Ipv4Addr::new(127, 96, 0, 0), 28);

fn spec(value: Value) -> ServiceSpec {
    serde_json::from_value(value).unwrap()
}

fn taken(addresses: &[u8]) -> Taken {
    let addresses = addresses.iter().map(|last| Ipv4Addr::new(127, 96, 0, *last)).collect();
    Taken { addresses, node_ports: BTreeSet::new() }
}

/// The address that a service has then, or why it has none.
#[track_caller]
fn address_of(given: Value, taken: &Taken) -> Result<String, String> {
    let (mut spec, mut errors) = (spec(given), Errors::default());
    spec.type_ = Some("ClusterIP".to_owned());
    let found = assign_address(&mut spec, None, RANGE, taken, ("n", "web"), &mut errors);
    match (found, errors.0.first()) {
        (Err(Full(what)), _) => Err(format!("no {what}")),
        (Ok(()), Some(error)) => Err(error.message.clone()),
        (Ok(()), None) => Ok(spec.cluster_ip.unwrap_or_default()),
    }
}

/// 16.2
#[test]
fn addresses_run_out_and_come_back() {
    let any = || json!({"ports": [{"port": 80}]});
    let all: Vec<u8> = (2..15).filter(|last| *last != 10).collect();
    for last in &all {
        let without: Vec<u8> = all.iter().copied().filter(|one| one != last).collect();
        assert_eq!(address_of(any(), &taken(&without)), Ok(format!("127.96.0.{last}")));
    }
    assert_eq!(address_of(any(), &taken(&all)), Err("no serviceIP".to_owned()));
    // What needs none is made all the same.
    assert_eq!(address_of(json!({"clusterIP": "None"}), &taken(&all)), Ok("None".to_owned()));
    // The name server's is given to nobody who did not ask for it.
    assert_eq!(address_of(json!({"clusterIP": "127.96.0.10"}), &taken(&all)), Ok("127.96.0.10".to_owned()));
    for last in [0, 1, 2, 15, 16] {
        let refused = address_of(json!({"clusterIP": format!("127.96.0.{last}")}), &taken(&all)).unwrap_err();
        let why = if (1..15).contains(&last) { "already allocated" } else { "not in the valid range" };
        assert!(refused.contains(why), "{last}: {refused}");
    }
}

/// 16.2
#[test]
fn node_ports_run_out_and_come_back() {
    let mut taken = taken(&[]);
    taken.node_ports = NODE_PORTS.filter(|port| ![30_500, 32_767].contains(port)).collect();
    let assign = |given: Value, taken: &Taken| {
        let (mut spec, mut errors) = (spec(given), Errors::default());
        let found = assign_node_ports(&mut spec, None, taken, &mut errors);
        assert!(errors.is_empty());
        found.map(|()| spec.ports.iter().flatten().filter_map(given_port).collect::<Vec<_>>())
    };
    let ports = |count: u16| {
        let ports: Vec<Value> =
            (1..=count).map(|port| json!({"name": port.to_string(), "port": port})).collect();
        json!({"type": "NodePort", "ports": ports})
    };
    assert_eq!(assign(ports(1), &taken), Ok(vec![30_500]));
    assert_eq!(assign(ports(2), &taken), Ok(vec![30_500, 32_767]));
    assert_eq!(assign(ports(3), &taken), Err(Full("nodePort")));
    // What another port of the same service asks for is not there for the first.
    let both = json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2, "nodePort": 30_500}]});
    assert_eq!(assign(both, &taken), Ok(vec![32_767, 30_500]));
    taken.node_ports.extend([30_500, 32_767]);
    assert_eq!(assign(ports(1), &taken), Err(Full("nodePort")));
    taken.node_ports.remove(&31_000);
    assert_eq!(assign(ports(1), &taken), Ok(vec![31_000]));
}
