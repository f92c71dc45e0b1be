//! Gives Services of type LoadBalancer their addresses: those of the nodes that run code, on which the
//! services' ports are open (upstream's cloud controllers, `k8s.io/cloud-provider/controllers/service`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};

use super::{Action, Change, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, owned};
use crate::kind::Subresource;
use crate::kind::node::{RUNTIME, RUNTIME_WASM};

/// Addresses told of one service: each is as good as all, and the status is not to grow with the cluster.
const INGRESS_MAX: usize = 100;
/// The label of nodes that are to be left out.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Finds the services that have addresses to be given or taken back.
static BALANCED: Index = Index {
    name: "services of load balancers",
    of: |object, give| {
        if object.downcast_ref::<Service>().is_some_and(|service| is_balanced(service) || has_any(service)) {
            give("", 0);
        }
    },
};

pub struct LoadBalancers;

impl Controller for LoadBalancers {
    fn name(&self) -> &'static str {
        "load_balancer"
    }

    fn indexes(&self) -> &'static [Index] {
        std::slice::from_ref(&BALANCED)
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        if object.downcast_ref::<Service>().is_some() {
            wake(Key::to(change.kind, object));
        } else if object.downcast_ref::<Node>().is_some() {
            let address = |side: Option<&std::sync::Arc<dyn crate::kind::Object>>| {
                side.and_then(|side| side.downcast_ref::<Node>()).and_then(address)
            };
            if address(change.old) != address(change.new) {
                for (kind, service) in seen.indexed(BALANCED.name, "") {
                    wake(Key::to(kind, &**service));
                }
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let Some(service) = seen.get::<Service>(&key.namespace, &key.name) else {
            return Decision::default();
        };
        // Another's, who is told by the class.
        let has_class = service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_some());
        if service.metadata.deletion_timestamp.is_some() || has_class {
            return Decision::default();
        }
        let wanted = if is_balanced(service) { ingress(seen) } else { Vec::new() };
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        if status.and_then(|status| status.ingress.as_deref()).unwrap_or_default() == wanted {
            return Decision::default();
        }
        let mut new = service.clone();
        let told = !wanted.is_empty();
        new.status.get_or_insert_default().load_balancer =
            Some(LoadBalancerStatus { ingress: told.then_some(wanted) });
        let update = Action::Update(key.kind, Box::new(new), Some(Subresource::Status));
        let event = told.then(|| Action::Event {
            about: owned::reference(service),
            reason: "EnsuredLoadBalancer",
            message: "Ensured load balancer".to_owned(),
        });
        Decision::act(std::iter::once(update).chain(event).collect())
    }
}

fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

fn has_any(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.is_some_and(|status| status.ingress.iter().flatten().next().is_some())
}

fn ingress(seen: &Snapshot) -> Vec<LoadBalancerIngress> {
    let nodes = seen.all(KindRef::of::<Node>()).filter_map(|node| node.downcast_ref::<Node>());
    let mut addresses: Vec<IpAddr> = nodes.filter_map(address).collect();
    addresses.sort_unstable();
    addresses.truncate(INGRESS_MAX);
    addresses
        .into_iter()
        .map(|ip| LoadBalancerIngress {
            ip: Some(ip.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect()
}

/// The address of a node that takes part: it runs code, is ready, and nobody excluded it.
fn address(node: &Node) -> Option<IpAddr> {
    let labels = node.metadata.labels.as_ref()?;
    let status = node.status.as_ref()?;
    let is_ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    let runs = labels.get(RUNTIME).is_some_and(|runtime| runtime == RUNTIME_WASM);
    let takes_part = runs && is_ready && !labels.contains_key(EXCLUDED);
    let addresses = status.addresses.iter().flatten();
    let mut internal = addresses.filter(|one| one.type_ == "InternalIP");
    let address = internal.next().filter(|_| takes_part && node.metadata.deletion_timestamp.is_none())?;
    address.address.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value, status: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "u"}, "spec": spec,
            "status": {"loadBalancer": status},
        }))
        .unwrap()
    }

    fn node(ip: &str, change: Value) -> Arc<Node> {
        let mut node = json!({
            "metadata": {"name": format!("node-{ip}"), "labels": {"coracle.dev/runtime": "wasm"}},
            "status": {
                "addresses": [{"type": "InternalIP", "address": ip}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        json_patch::merge(&mut node, &change);
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[track_caller]
    fn check(service: Service, nodes: &[Arc<Node>], expected: Option<Value>) {
        let mut seen = Snapshot::new([&BALANCED]);
        let key = Key::to(KindRef::of::<Service>(), &service);
        seen.insert(key.kind, Arc::new(service));
        for node in nodes {
            seen.insert(KindRef::of::<Node>(), node.clone());
        }
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
        let actions = LoadBalancers.reconcile(&seen, &key, moment).actions;
        let written = actions.into_iter().find_map(|action| match action {
            Action::Update(_, object, Some(Subresource::Status)) => {
                let service: Box<Service> = object.into_any().downcast().unwrap();
                Some(serde_json::to_value(service.status.unwrap().load_balancer).unwrap())
            }
            _ => None,
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn balanced_services_have_the_addresses_of_nodes_that_run_code() {
        let balanced = || json!({"type": "LoadBalancer"});
        let vip = |ip: &str| json!({"ip": ip, "ipMode": "VIP"});
        let nodes = [
            node("127.64.0.10", json!({})),
            node("127.64.0.9", json!({})),
            node("127.64.0.1", json!({"metadata": {"labels": {"coracle.dev/runtime": "sim"}}})),
            node("127.64.0.2", json!({"metadata": {"labels": {EXCLUDED: ""}}})),
            node("127.64.0.3", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})),
        ];
        let all = json!({"ingress": [vip("127.64.0.9"), vip("127.64.0.10")]});
        check(service(balanced(), json!({})), &nodes, Some(all.clone()));
        check(service(balanced(), all.clone()), &nodes, None);
        check(service(balanced(), all.clone()), &[], Some(json!({})));
        // The type changed.
        check(service(json!({"type": "ClusterIP"}), all.clone()), &nodes, Some(json!({})));
        check(service(json!({"type": "ClusterIP"}), json!({})), &nodes, None);
        // Another's.
        check(service(json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}), json!({})), &nodes, None);
    }

    #[test]
    fn many_nodes_are_cut() {
        let nodes: Vec<_> = (1..=200).map(|n| node(&format!("127.64.0.{n}"), json!({}))).collect();
        let mut seen = Snapshot::default();
        for node in nodes {
            seen.insert(KindRef::of::<Node>(), node);
        }
        assert_eq!(ingress(&seen).len(), INGRESS_MAX);
    }

    #[test]
    fn nodes_wake_what_has_their_addresses() {
        let mut seen = Snapshot::new([&BALANCED]);
        let kind = KindRef::of::<Service>();
        seen.insert(kind, Arc::new(service(json!({"type": "LoadBalancer"}), json!({}))));
        let wakes = |old: Option<Arc<Node>>, new: Option<Arc<Node>>| {
            let (old, new) = (old.map(|n| n as Arc<dyn crate::kind::Object>), new.map(|n| n as _));
            let change = Change { kind: KindRef::of::<Node>(), old: old.as_ref(), new: new.as_ref() };
            let mut woken = 0;
            LoadBalancers.wakes(&seen, &change, &mut |_| woken += 1);
            woken
        };
        let up = || node("127.64.0.9", json!({}));
        assert_eq!(wakes(None, Some(up())), 1);
        assert_eq!(wakes(Some(up()), Some(up())), 0);
        assert_eq!(wakes(Some(up()), None), 1);
    }
}
