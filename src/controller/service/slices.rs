//! Lays endpoints out in EndpointSlices, changing as few of those that exist as it can (upstream
//! `k8s.io/endpointslice`): watchers are sent whole slices.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controller::{Action, Key, KindRef, snapshot};
use crate::kind::endpoint_slice::{MANAGED_BY, SERVICE_NAME};

/// Endpoints of a slice (upstream's default; the API takes 1,000).
pub(crate) const SLICE_ENDPOINTS_MAX: usize = 100;

/// Who makes the slices, for whom, and what they say beside endpoints.
pub(crate) struct Template<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service: &'a str,
    pub(crate) manager: &'static str,
    pub(crate) owner: OwnerReference,
    /// Besides those that say whose the slices are.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) endpoints_max: usize,
    /// Whether an empty slice says that there are no endpoints.
    pub(crate) has_placeholder: bool,
}

/// Endpoints of one address type and one set of ports.
pub(crate) struct Group {
    pub(crate) address_type: &'static str,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Template<'_> {
    fn slice(&self, address_type: &str, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
        let mut slice = EndpointSlice {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.to_owned()),
                generate_name: Some(format!("{}-", self.service)),
                ..ObjectMeta::default()
            },
            address_type: address_type.to_owned(),
            endpoints,
            ports: (!ports.is_empty()).then(|| ports.to_vec()),
        };
        self.sign(&mut slice.metadata);
        slice
    }

    /// Puts right what the metadata is to say.
    fn sign(&self, meta: &mut ObjectMeta) {
        let mut labels = self.labels.clone();
        labels.insert(SERVICE_NAME.to_owned(), self.service.to_owned());
        labels.insert(MANAGED_BY.to_owned(), self.manager.to_owned());
        meta.labels = Some(labels);
        if !self.annotations.is_empty() {
            meta.annotations.get_or_insert_default().extend(self.annotations.clone());
        }
        meta.owner_references = Some(vec![self.owner.clone()]);
    }
}

/// By what an endpoint is the same one, though its conditions change.
fn identity(endpoint: &Endpoint) -> (&[String], Option<&str>, Option<&str>) {
    let target = endpoint.target_ref.as_ref();
    (
        &endpoint.addresses,
        endpoint.hostname.as_deref(),
        target.and_then(|target| target.uid.as_deref().or(target.name.as_deref())),
    )
}

/// A slice that exists, as it is to become.
struct Kept<'a> {
    old: &'a EndpointSlice,
    new: EndpointSlice,
    is_changed: bool,
}

/// What to write so that the slices of `template`'s service say `wanted`, of which each address type and set
/// of ports is there once. `existing` are those of the same manager and service.
pub(crate) fn plan(template: &Template<'_>, wanted: Vec<Group>, existing: &[&EndpointSlice]) -> Vec<Action> {
    let mut stale: Vec<&EndpointSlice> = Vec::new();
    let mut usable: Vec<&EndpointSlice> = Vec::new();
    // Those of a namesake that is gone are not ours.
    let (own, foreign): (Vec<&EndpointSlice>, Vec<&EndpointSlice>) =
        existing.iter().partition(|slice| is_owned(slice, &template.owner.uid));
    for slice in own {
        let has_group = |group: &Group| {
            group.address_type == slice.address_type
                && same_ports(&group.ports, slice.ports.as_deref().unwrap_or_default())
        };
        if wanted.iter().any(has_group) { usable.push(slice) } else { stale.push(slice) }
    }
    let mut create = Vec::new();
    let mut update = Vec::new();
    let mut kept = 0;
    for group in wanted {
        let (own, others): (Vec<_>, Vec<_>) = usable.into_iter().partition(|slice| {
            group.address_type == slice.address_type
                && same_ports(&group.ports, slice.ports.as_deref().unwrap_or_default())
        });
        usable = others;
        let mut laid = lay_out(template, group, &own);
        stale.append(&mut laid.empty);
        create.append(&mut laid.create);
        kept += laid.kept.len();
        update.extend(laid.kept.into_iter().filter(|kept| kept.is_changed).map(|kept| kept.new));
    }
    if template.has_placeholder && kept == 0 && create.is_empty() {
        let placeholder = template.slice("IPv4", &[], Vec::new());
        match stale.iter().position(|slice| says_the_same(slice, &placeholder)) {
            Some(there) => drop(stale.remove(there)),
            None => create.push(placeholder),
        }
    }
    recycle(template, &mut create, &mut stale, &mut update);
    stale.extend(foreign);

    let kind = KindRef::of::<EndpointSlice>();
    let mut actions: Vec<Action> = Vec::new();
    actions.extend(create.into_iter().map(|slice| Action::Create(kind, Box::new(slice))));
    actions.extend(update.into_iter().map(|slice| Action::Update(kind, Box::new(slice), None)));
    actions.extend(stale.into_iter().map(delete));
    actions
}

pub(crate) fn delete(slice: &EndpointSlice) -> Action {
    Action::Delete {
        key: Key::to(KindRef::of::<EndpointSlice>(), slice),
        uid: snapshot::uid(slice).to_owned(),
        grace_period_seconds: None,
        propagation_policy: None,
    }
}

/// Slices that would go take the content of those that would come.
fn recycle(
    template: &Template<'_>,
    create: &mut Vec<EndpointSlice>,
    stale: &mut Vec<&EndpointSlice>,
    update: &mut Vec<EndpointSlice>,
) {
    let mut left = Vec::new();
    for new in create.drain(..) {
        match stale.iter().position(|old| old.address_type == new.address_type) {
            Some(found) => {
                let mut slice = stale.remove(found).clone();
                template.sign(&mut slice.metadata);
                slice.ports = new.ports;
                slice.endpoints = new.endpoints;
                update.push(slice);
            }
            None => left.push(new),
        }
    }
    *create = left;
}

struct Laid<'a> {
    kept: Vec<Kept<'a>>,
    create: Vec<EndpointSlice>,
    empty: Vec<&'a EndpointSlice>,
}

/// Lays out endpoints of one set of ports.
fn lay_out<'a>(template: &Template<'_>, group: Group, existing: &[&'a EndpointSlice]) -> Laid<'a> {
    let max = template.endpoints_max;
    let mut order: Vec<Option<&Endpoint>> = group.endpoints.iter().map(Some).collect();
    let by_identity: HashMap<_, usize> =
        group.endpoints.iter().enumerate().map(|(at, endpoint)| (identity(endpoint), at)).collect();
    let mut kept: Vec<Kept<'a>> = existing
        .iter()
        .map(|&old| {
            let mut endpoints = Vec::new();
            for endpoint in &old.endpoints {
                // What stands twice stays once.
                let found = by_identity.get(&identity(endpoint)).and_then(|&at| order[at].take());
                endpoints.extend(found.cloned());
            }
            let mut new = EndpointSlice { endpoints, ..bare(old) };
            template.sign(&mut new.metadata);
            let is_changed = new.metadata != old.metadata || new.endpoints != old.endpoints;
            Kept { old, new, is_changed }
        })
        .collect();
    let mut left: Vec<Endpoint> = order.into_iter().flatten().cloned().collect();
    drop(by_identity);
    // Slices that are written anyway take what they can.
    for one in kept.iter_mut().filter(|one| one.is_changed) {
        take(&mut one.new.endpoints, &mut left, max);
    }
    let mut create = Vec::new();
    while !left.is_empty() {
        let (count, fits) = (left.len(), |one: &&mut Kept<'a>| one.new.endpoints.len() + left.len() <= max);
        // The fullest that takes the rest, so that the others stay as they are.
        let fullest = kept.iter_mut().filter(fits).max_by_key(|one| one.new.endpoints.len());
        match fullest.filter(|_| count < max) {
            Some(one) => {
                one.is_changed = true;
                take(&mut one.new.endpoints, &mut left, max);
            }
            None => {
                let mut endpoints = Vec::new();
                take(&mut endpoints, &mut left, max);
                create.push(template.slice(group.address_type, &group.ports, endpoints));
            }
        }
    }
    let (kept, empty): (Vec<_>, Vec<_>) = kept.into_iter().partition(|one| !one.new.endpoints.is_empty());
    Laid { kept, create, empty: empty.into_iter().map(|one| one.old).collect() }
}

/// The slice without its endpoints.
fn bare(slice: &EndpointSlice) -> EndpointSlice {
    EndpointSlice {
        metadata: slice.metadata.clone(),
        address_type: slice.address_type.clone(),
        endpoints: Vec::new(),
        ports: slice.ports.clone(),
    }
}

/// Fills `into` up to `max` with the first of `left`.
fn take(into: &mut Vec<Endpoint>, left: &mut Vec<Endpoint>, max: usize) {
    let room = max.saturating_sub(into.len()).min(left.len());
    into.extend(left.drain(..room));
}

fn is_owned(slice: &EndpointSlice, uid: &str) -> bool {
    slice.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

fn says_the_same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    old.address_type == new.address_type
        && old.endpoints == new.endpoints
        && old.ports.as_deref().unwrap_or_default() == new.ports.as_deref().unwrap_or_default()
        && old.metadata.labels == new.metadata.labels
        && old.metadata.owner_references == new.metadata.owner_references
}

/// Whether the ports are the same, in any order.
pub(crate) fn same_ports(one: &[EndpointPort], other: &[EndpointPort]) -> bool {
    let set = |ports: &[EndpointPort]| -> BTreeSet<String> { ports.iter().map(port_text).collect() };
    one.len() == other.len() && set(one) == set(other)
}

fn port_text(port: &EndpointPort) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!(
        "{}/{}/{:?}/{}",
        text(&port.name),
        port.protocol.as_deref().unwrap_or("TCP"),
        port.port,
        text(&port.app_protocol)
    )
}
