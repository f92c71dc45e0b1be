//! Which pods each service has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::Pod;

use super::{has_address, ip};
use crate::controller::{KindRef, Snapshot, owned, snapshot};

type Labels = BTreeMap<String, String>;

/// The pods that can be endpoints of services, by service.
#[derive(Default)]
pub(super) struct Members(HashMap<String, Namespace>);

#[derive(Default)]
struct Namespace {
    services: BTreeMap<String, Member>,
    /// Services by the first label that they select by, so that a pod finds its own without asking all.
    by_label: HashMap<String, HashMap<String, BTreeSet<String>>>,
}

struct Member {
    selector: Labels,
    pods: BTreeSet<String>,
}

impl Members {
    /// The service's pods by name.
    pub(super) fn pods(&self, namespace: &str, service: &str) -> Vec<String> {
        let member = self.0.get(namespace).and_then(|inside| inside.services.get(service));
        member.map(|member| member.pods.iter().cloned().collect()).unwrap_or_default()
    }

    /// Names all services that have pods.
    pub(super) fn all(&self, each: &mut dyn FnMut(&str, &str)) {
        for (namespace, inside) in &self.0 {
            for (service, _) in inside.services.iter().filter(|(_, member)| !member.pods.is_empty()) {
                each(namespace, service);
            }
        }
    }

    /// Takes a service's selector; `None` if it has none or is gone.
    pub(super) fn service(
        &mut self,
        seen: &Snapshot,
        namespace: &str,
        service: &str,
        selector: Option<&Labels>,
    ) {
        let known = self.0.get(namespace).and_then(|inside| inside.services.get(service));
        if known.map(|member| &member.selector) == selector {
            return;
        }
        let inside = self.0.entry(namespace.to_owned()).or_default();
        inside.forget(service);
        if let Some((selector, (key, value))) = selector.and_then(|s| Some((s, s.first_key_value()?))) {
            let named = inside.by_label.entry(key.clone()).or_default().entry(value.clone()).or_default();
            named.insert(service.to_owned());
            let pods = seen
                .in_namespace(KindRef::of::<Pod>(), namespace)
                .filter_map(|pod| pod.downcast_ref::<Pod>())
                .filter(|pod| has_address(pod) && matches(selector, pod))
                .map(|pod| snapshot::name(pod).to_owned())
                .collect();
            inside.services.insert(service.to_owned(), Member { selector: selector.clone(), pods });
        }
        if inside.services.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Takes a pod's change and names the services that it is one for.
    pub(super) fn pod(
        &mut self,
        namespace: &str,
        old: Option<&Pod>,
        new: Option<&Pod>,
        wake: &mut dyn FnMut(&str),
    ) {
        let Some(inside) = self.0.get_mut(namespace) else { return };
        let (old, new) = (old.filter(|pod| has_address(pod)), new.filter(|pod| has_address(pod)));
        let of = |inside: &Namespace, pod: Option<&Pod>| -> BTreeSet<String> {
            pod.map(|pod| inside.services_of(pod)).unwrap_or_default()
        };
        let (before, after) = (of(inside, old), of(inside, new));
        let Some(name) = new.or(old).map(|pod| snapshot::name(pod)) else { return };
        for service in before.difference(&after) {
            if let Some(member) = inside.services.get_mut(service) {
                member.pods.remove(name);
            }
            wake(service);
        }
        let is_changed = old.map(facts) != new.map(facts);
        for service in &after {
            let is_new =
                inside.services.get_mut(service).is_some_and(|member| member.pods.insert(name.to_owned()));
            if is_new || is_changed {
                wake(service);
            }
        }
    }
}

impl Namespace {
    fn forget(&mut self, service: &str) {
        let Some(member) = self.services.remove(service) else { return };
        let Some((key, value)) = member.selector.first_key_value() else { return };
        if let Some(values) = self.by_label.get_mut(key) {
            if let Some(named) = values.get_mut(value) {
                named.remove(service);
                if named.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_label.remove(key);
            }
        }
    }

    fn services_of(&self, pod: &Pod) -> BTreeSet<String> {
        let labels = pod.metadata.labels.iter().flatten();
        labels
            .filter_map(|(key, value)| self.by_label.get(key)?.get(value))
            .flatten()
            .filter(|service| {
                self.services.get(*service).is_some_and(|member| matches(&member.selector, pod))
            })
            .cloned()
            .collect()
    }
}

fn matches(selector: &Labels, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// All of a pod that its endpoints say and that can change.
fn facts(pod: &Pod) -> (Option<&str>, bool, bool, Option<&str>, Option<&str>) {
    (
        ip(pod),
        owned::is_ready(pod),
        pod.metadata.deletion_timestamp.is_some(),
        pod.metadata.uid.as_deref(),
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()),
    )
}
