//! The zone `cluster.local`: what the names of services and pods stand for (BEHAVIOURS 16.5).
//!
//! Pure: an index of Services and EndpointSlices, and questions to it. The rules are those of the
//! Kubernetes DNS specification (kubernetes/dns, `docs/specification.md`, version 1.1.0) and, where it
//! leaves things open, of CoreDNS. How answers travel is [`server`](super::server)'s to know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The name of the zone.
pub const ORIGIN: &str = "cluster.local";
/// How long others may keep an answer, in seconds, be it that there is none. Short, because services
/// change with their pods (CoreDNS' default).
pub const TTL_SECONDS: u32 = 5;
/// The version of the specification, which `dns-version.cluster.local` tells.
const VERSION: &str = "1.1.0";
/// Names that are names of names, one after the other; a ring of them ends here.
const ALIASES_MAX: usize = 8;
/// Loopback addresses from here on are the cluster's; those below are the machine's.
const CLUSTER_FIRST: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 0);
/// The service that answers for the zone.
const SERVER: &str = "kube-dns.kube-system.svc.cluster.local";
/// The label by which a slice says whose it is.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    A,
    Aaaa,
    Srv,
    Ptr,
    Cname,
    Txt,
    Ns,
    Soa,
    /// Of any type.
    Any,
    /// A type that no name of the zone has.
    Other,
}

/// What a record says of its name. Names are lower case, without the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    A(Ipv4Addr),
    Srv { weight: u16, port: u16, target: String },
    Ptr(String),
    Cname(String),
    Txt(String),
    Ns(String),
    Soa { serial: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub data: Data,
}

/// The zone's answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The name exists, be it with records of other types only.
    pub exists: bool,
    pub records: Vec<Record>,
    /// Addresses of what the records name.
    pub additional: Vec<Record>,
    /// A name outside the zone that the last record leads to: others know its addresses.
    pub outside: Option<String>,
}

/// Services by namespace and name.
type ServiceKey = (String, String);

/// The index. Not a copy of the objects: it shares them with everybody else.
#[derive(Default)]
pub struct Zone {
    services: BTreeMap<ServiceKey, Arc<Service>>,
    /// By service, then by the slice's name.
    slices: BTreeMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Whose a slice of that namespace and name is.
    owners: HashMap<(String, String), String>,
    cluster_ips: HashMap<Ipv4Addr, ServiceKey>,
    /// The slices in which an address is, as service and slice.
    endpoints: HashMap<Ipv4Addr, BTreeSet<(ServiceKey, String)>>,
    /// Counts changes.
    serial: u32,
}

/// A port as records tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

impl Zone {
    /// A service is new or has changed.
    pub fn set_service(&mut self, service: Arc<Service>) {
        let key = key(service.metadata.namespace.as_ref(), service.metadata.name.as_ref());
        self.remove_service(&key.0, &key.1);
        if let Some(address) = cluster_ip(&service) {
            self.cluster_ips.insert(address, key.clone());
        }
        self.services.insert(key, service);
    }

    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        self.serial = self.serial.wrapping_add(1);
        let key = (namespace.to_owned(), name.to_owned());
        let Some(old) = self.services.remove(&key) else { return };
        if let Some(address) = cluster_ip(&old)
            && self.cluster_ips.get(&address) == Some(&key)
        {
            self.cluster_ips.remove(&address);
        }
    }

    /// A slice is new or has changed.
    pub fn set_slice(&mut self, slice: Arc<EndpointSlice>) {
        let (namespace, name) = key(slice.metadata.namespace.as_ref(), slice.metadata.name.as_ref());
        self.remove_slice(&namespace, &name);
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|labels| labels.get(SERVICE_LABEL)) else { return };
        if slice.address_type != "IPv4" {
            return;
        }
        let owner = (namespace.clone(), service.clone());
        for address in slice.endpoints.iter().flat_map(addresses) {
            self.endpoints.entry(address).or_default().insert((owner.clone(), name.clone()));
        }
        self.owners.insert((namespace, name.clone()), service.clone());
        self.slices.entry(owner).or_default().insert(name, slice);
    }

    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        self.serial = self.serial.wrapping_add(1);
        let Some(service) = self.owners.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let owner = (namespace.to_owned(), service);
        let Some(slices) = self.slices.get_mut(&owner) else { return };
        let removed = slices.remove(name);
        if slices.is_empty() {
            self.slices.remove(&owner);
        }
        let place = (owner, name.to_owned());
        for address in removed.iter().flat_map(|slice| slice.endpoints.iter().flat_map(addresses)) {
            if let Some(places) = self.endpoints.get_mut(&address) {
                places.remove(&place);
                if places.is_empty() {
                    self.endpoints.remove(&address);
                }
            }
        }
    }

    /// Forgets all services, or all slices, of which a new list begins.
    pub fn clear_services(&mut self) {
        self.services.clear();
        self.cluster_ips.clear();
        self.serial = self.serial.wrapping_add(1);
    }

    /// As [`Zone::clear_services`].
    pub fn clear_slices(&mut self) {
        self.slices.clear();
        self.owners.clear();
        self.endpoints.clear();
        self.serial = self.serial.wrapping_add(1);
    }

    /// The record that goes with an answer that there is nothing.
    #[must_use]
    pub fn authority(&self) -> Record {
        Record { name: ORIGIN.to_owned(), data: Data::Soa { serial: self.serial } }
    }

    /// What there is to say about `name`, which may be of any case and end in a dot; `None` if it is
    /// not the cluster's.
    #[must_use]
    pub fn answer(&self, name: &str, asked: Type) -> Option<Answer> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(address) = reversed(&name) {
            return (address.is_loopback() && address >= CLUSTER_FIRST)
                .then(|| self.pointers(&name, address, asked));
        }
        let below = below_origin(&name)?;
        let mut answer = self.named(&name, below, asked);
        let mut seen = 1;
        // Whoever asks for an alias itself is not led further.
        while asked != Type::Cname
            && asked != Type::Any
            && let Some(Record { data: Data::Cname(target), .. }) = answer.records.last()
        {
            let target = target.clone();
            match below_origin(&target) {
                Some(_) if seen == ALIASES_MAX => break,
                Some(below) => {
                    let next = self.named(&target, below, asked);
                    answer.exists = next.exists;
                    if next.records.is_empty() {
                        break;
                    }
                    answer.records.extend(next.records);
                    answer.additional.extend(next.additional);
                }
                None => {
                    answer.outside = Some(target);
                    break;
                }
            }
            seen += 1;
        }
        Some(answer)
    }

    /// `name` is a name of the zone, `below` the part before the zone's own.
    fn named(&self, name: &str, below: &str, asked: Type) -> Answer {
        let labels: Vec<&str> = if below.is_empty() { Vec::new() } else { below.split('.').collect() };
        let one = |data: Data| self.filtered(name, asked, vec![data]);
        match labels.as_slice() {
            [] => {
                let found = vec![Data::Soa { serial: self.serial }, Data::Ns(SERVER.to_owned())];
                let mut answer = self.filtered(name, asked, found);
                if matches!(asked, Type::Ns | Type::Any) {
                    let server = below_origin(SERVER).map(|below| self.named(SERVER, below, Type::A));
                    answer.additional = server.map(|server| server.records).unwrap_or_default();
                }
                answer
            }
            ["dns-version"] => one(Data::Txt(VERSION.to_owned())),
            ["svc" | "pod"] | [_, "pod"] => self.filtered(name, asked, Vec::new()),
            [dashed, _, "pod"] => match undashed(dashed) {
                Some(address) => one(Data::A(address)),
                None => Answer::default(),
            },
            [namespace, "svc"] => {
                let from = ((*namespace).to_owned(), String::new());
                let exists = self.services.range(from..).next().is_some_and(|((ns, _), _)| ns == namespace);
                Answer { exists, ..Answer::default() }
            }
            [labels @ .., service, namespace, "svc"] => {
                let key = ((*namespace).to_owned(), (*service).to_owned());
                match self.services.get(&key) {
                    Some(service) => self.of_service(name, labels, &key, service, asked),
                    None => Answer::default(),
                }
            }
            _ => Answer::default(),
        }
    }

    /// What is said about a service, or about `labels` below it.
    fn of_service(
        &self,
        name: &str,
        labels: &[&str],
        key: &ServiceKey,
        service: &Service,
        asked: Type,
    ) -> Answer {
        let own_name = format!("{}.{}.svc.{ORIGIN}", key.1, key.0);
        if let Some(external) = external_name(service) {
            return match labels {
                [] => {
                    let alias = Data::Cname(external.trim_end_matches('.').to_ascii_lowercase());
                    let records = vec![Record { name: name.to_owned(), data: alias }];
                    Answer { exists: true, records, ..Answer::default() }
                }
                _ => Answer::default(),
            };
        }
        let fixed = cluster_ip(service);
        match labels {
            [] => {
                let found: BTreeSet<Ipv4Addr> = match fixed {
                    Some(address) => [address].into(),
                    None => self.ready(key, service).map(|(_, address, _)| address).collect(),
                };
                if found.is_empty() {
                    return Answer::default();
                }
                self.filtered(name, asked, found.into_iter().map(Data::A).collect())
            }
            // Only names that could be those of ports have a meaning below.
            [protocol] if protocol.starts_with('_') => {
                let protocol = &protocol[1..];
                let exists = match fixed {
                    Some(_) => service_ports(service).iter().any(|port| port.protocol == protocol),
                    None => self
                        .ready(key, service)
                        .any(|(_, _, slice)| slice_ports(slice).iter().any(|port| port.protocol == protocol)),
                };
                Answer { exists, ..Answer::default() }
            }
            [host] => {
                let found: BTreeSet<Ipv4Addr> = self
                    .ready(key, service)
                    .filter(|(endpoint, address, _)| host_label(endpoint, *address) == *host)
                    .map(|(_, address, _)| address)
                    .collect();
                if found.is_empty() {
                    return Answer::default();
                }
                self.filtered(name, asked, found.into_iter().map(Data::A).collect())
            }
            [port, protocol] => {
                let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_'))
                else {
                    return Answer::default();
                };
                let is_meant = |one: &Port| one.name == port && one.protocol == protocol;
                // (host, address, port), each once.
                let mut found: BTreeSet<(String, Ipv4Addr, u16)> = BTreeSet::new();
                if let Some(address) = fixed {
                    let ports = service_ports(service);
                    let ports = ports.into_iter().filter(|one| is_meant(one));
                    found.extend(ports.map(|one| (own_name.clone(), address, one.number)));
                } else {
                    for (endpoint, address, slice) in self.ready(key, service) {
                        let host = format!("{}.{own_name}", host_label(endpoint, address));
                        let ports = slice_ports(slice);
                        let ports = ports.into_iter().filter(|one| is_meant(one));
                        found.extend(ports.map(|one| (host.clone(), address, one.number)));
                    }
                }
                if found.is_empty() {
                    return Answer::default();
                }
                // As CoreDNS has it: all alike, together a hundred.
                let weight = u16::try_from((100 / found.len()).max(1)).unwrap_or(1);
                let of = |(target, _, port): &(String, Ipv4Addr, u16)| Data::Srv {
                    weight,
                    port: *port,
                    target: target.clone(),
                };
                let mut answer = self.filtered(name, asked, found.iter().map(of).collect());
                if !answer.records.is_empty() {
                    let hosts: BTreeSet<(String, Ipv4Addr)> =
                        found.into_iter().map(|(host, address, _)| (host, address)).collect();
                    let of = |(name, address)| Record { name, data: Data::A(address) };
                    answer.additional = hosts.into_iter().map(of).collect();
                }
                answer
            }
            _ => Answer::default(),
        }
    }

    /// The endpoints of a service that records tell of, each with an address of it and its slice.
    fn ready<'a>(
        &'a self,
        key: &ServiceKey,
        service: &Service,
    ) -> impl Iterator<Item = (&'a Endpoint, Ipv4Addr, &'a EndpointSlice)> {
        let all = publishes_not_ready(service);
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        slices
            .flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (endpoint, slice)))
            .filter(move |(endpoint, _)| all || is_ready(endpoint))
            .flat_map(|(endpoint, slice)| {
                addresses(endpoint).map(move |address| (endpoint, address, &**slice))
            })
    }

    /// Which services an address belongs to.
    fn pointers(&self, name: &str, address: Ipv4Addr, asked: Type) -> Answer {
        let mut found: BTreeSet<String> = BTreeSet::new();
        if let Some((namespace, service)) = self.cluster_ips.get(&address) {
            found.insert(format!("{service}.{namespace}.svc.{ORIGIN}"));
        }
        for (key, slice) in self.endpoints.get(&address).into_iter().flatten() {
            let Some(service) = self.services.get(key).filter(|service| is_headless(service)) else {
                continue;
            };
            let slice = self.slices.get(key).and_then(|slices| slices.get(slice));
            let all = publishes_not_ready(service);
            for endpoint in slice.iter().flat_map(|slice| &slice.endpoints) {
                if (all || is_ready(endpoint)) && addresses(endpoint).any(|one| one == address) {
                    let host = host_label(endpoint, address);
                    found.insert(format!("{host}.{}.{}.svc.{ORIGIN}", key.1, key.0));
                }
            }
        }
        if found.is_empty() {
            return Answer::default();
        }
        self.filtered(name, asked, found.into_iter().map(Data::Ptr).collect())
    }

    /// Those of what there is that are asked for; the name exists.
    fn filtered(&self, name: &str, asked: Type, found: Vec<Data>) -> Answer {
        let is_asked = |data: &Data| {
            asked == Type::Any
                || asked
                    == match data {
                        Data::A(_) => Type::A,
                        Data::Srv { .. } => Type::Srv,
                        Data::Ptr(_) => Type::Ptr,
                        Data::Cname(_) => Type::Cname,
                        Data::Txt(_) => Type::Txt,
                        Data::Ns(_) => Type::Ns,
                        Data::Soa { .. } => Type::Soa,
                    }
        };
        let records = found.into_iter().filter(is_asked);
        let records = records.map(|data| Record { name: name.to_owned(), data }).collect();
        Answer { exists: true, records, ..Answer::default() }
    }
}

fn key(namespace: Option<&String>, name: Option<&String>) -> ServiceKey {
    (namespace.cloned().unwrap_or_default(), name.cloned().unwrap_or_default())
}

/// What stands before the zone's name in `name`; `None` if it is no name of the zone.
fn below_origin(name: &str) -> Option<&str> {
    let rest = name.strip_suffix(ORIGIN)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

/// The address in a name of `in-addr.arpa`.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let mut bytes = [0; 4];
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.');
    for byte in bytes.iter_mut().rev() {
        let label = labels.next()?;
        *byte = label.parse().ok().filter(|_| label.bytes().all(|c| c.is_ascii_digit()))?;
    }
    labels.next().is_none().then(|| bytes.into())
}

/// `1-2-3-4` as an address.
fn undashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok().filter(|_| !label.contains('.'))
}

/// The address that stays the service's own, if it has one.
fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    if external_name(service).is_some() {
        return None;
    }
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

fn is_headless(service: &Service) -> bool {
    external_name(service).is_none()
        && service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    spec.external_name.as_deref().filter(|name| is_external && !name.is_empty())
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// What does not say counts as ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = Ipv4Addr> {
    endpoint.addresses.iter().filter_map(|address| address.parse().ok())
}

/// The label of an endpoint below its service.
fn host_label(endpoint: &Endpoint, address: Ipv4Addr) -> String {
    match endpoint.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        Some(hostname) => hostname.to_owned(),
        None => address.to_string().replace('.', "-"),
    }
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.filter(|name| !name.is_empty())?.to_ascii_lowercase(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(),
        number: u16::try_from(number).ok()?,
    })
}

/// The ports of a service that have names.
fn service_ports(service: &Service) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    ports.iter().filter_map(|one| port(one.name.as_deref(), one.protocol.as_deref(), one.port)).collect()
}

/// The ports of a slice that have names.
fn slice_ports(slice: &EndpointSlice) -> Vec<Port> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    ports.iter().filter_map(|one| port(one.name.as_deref(), one.protocol.as_deref(), one.port?)).collect()
}

#[cfg(test)]
mod tests;
