//! Addresses and node ports of services (BEHAVIOURS 16.2). What is taken is what the stored services
//! say; nothing else is remembered, so nothing can leak.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::Admission;
use crate::apiserver::status::Error;
use crate::kind::field::{Errors, FieldError, Path};
use crate::kind::service::{carry_over, is_headless, needs_cluster_ip, needs_node_ports};

/// The first address belongs to the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;

/// The place of the name server's address in the range.
const DNS_SERVER: u32 = 10;

pub(super) fn create(admission: &Admission<'_>, service: &mut Service) -> Result<(), Error> {
    assign(admission, service, None)
}

pub(super) fn update(admission: &Admission<'_>, new: &mut Service, old: &Service) -> Result<(), Error> {
    carry_over(new, old);
    assign(admission, new, old.spec.as_ref())
}

fn assign(admission: &Admission<'_>, service: &mut Service, old: Option<&ServiceSpec>) -> Result<(), Error> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let namespace = admission.namespace.unwrap_or_default();
    let own = (namespace, name.as_str());
    let Some(spec) = service.spec.as_mut() else { return Ok(()) };
    let taken = Taken::by_others(admission, own);
    let range = admission.plan.services();
    let mut errors = Errors::default();
    let found = assign_address(spec, old, range, &taken, own, &mut errors)
        .and_then(|()| assign_node_ports(spec, old, &taken, &mut errors));
    if let Err(Full(what)) = found {
        // An error of the server's, as upstream has it: the client asked for nothing that cannot be.
        return Err(Error::internal(format!("failed to allocate a {what}: range is full")));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::invalid(admission.kind, &name, &errors)) }
}

/// There is none left of these.
#[derive(Debug, PartialEq, Eq)]
struct Full(&'static str);

/// What other services have.
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    node_ports: BTreeSet<i32>,
}

impl Taken {
    fn by_others(admission: &Admission<'_>, own: (&str, &str)) -> Self {
        let mut taken = Self { addresses: BTreeSet::new(), node_ports: BTreeSet::new() };
        for service in admission.all::<Service>() {
            let meta = &service.metadata;
            let key =
                (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
            let Some(spec) = service.spec.as_ref().filter(|_| key != own) else { continue };
            taken.addresses.extend(address(spec).parse::<Ipv4Addr>());
            taken.node_ports.extend(spec.ports.iter().flatten().filter_map(given_port));
        }
        taken
    }
}

fn assign_address(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    range: (Ipv4Addr, u32),
    taken: &Taken,
    own: (&str, &str),
    errors: &mut Errors,
) -> Result<(), Full> {
    if !needs_cluster_ip(spec) || is_headless(spec) {
        return Ok(());
    }
    // A client may say it in either field; that they agree is for validation.
    if address(spec).is_empty() {
        spec.cluster_ip = spec.cluster_ips.as_ref().and_then(|all| all.first().cloned());
    }
    let first = u32::from(range.0);
    let size = 1_u32 << (32 - range.1);
    let given = address(spec).to_owned();
    if given.is_empty() {
        // Neither the network's own address, nor the API server's, nor the name server's, which may come
        // later, nor the broadcast address.
        let free = (2..size - 1)
            .filter(|at| *at != DNS_SERVER)
            .map(|at| Ipv4Addr::from(first + at))
            .find(|one| !taken.addresses.contains(one));
        spec.cluster_ip = Some(free.ok_or(Full("serviceIP"))?.to_string());
    } else if old.is_none_or(|old| address(old) != given) {
        // Texts that are no addresses are for validation.
        if let Ok(ip) = given.parse::<Ipv4Addr>() {
            let at = u32::from(ip).wrapping_sub(first);
            let why = if at == 0 || at >= size - 1 {
                Some(format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}/{}",
                    range.0, range.1
                ))
            } else if taken.addresses.contains(&ip) || at == 1 && own != API_SERVER {
                Some("provided IP is already allocated".to_owned())
            } else {
                None
            };
            if let Some(why) = why {
                let value = format!("[]string{{{given:?}}}");
                fail_address(errors, &value, &format!("failed to allocate IP {ip}: {why}"));
                return Ok(());
            }
        }
    }
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
    Ok(())
}

/// As Go shows a list of texts.
fn fail_address(errors: &mut Errors, value: &str, why: &str) {
    errors.0.push(FieldError {
        field: "spec.clusterIPs".into(),
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {value}: {why}"),
    });
}

fn assign_node_ports(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    taken: &Taken,
    errors: &mut Errors,
) -> Result<(), Full> {
    if !needs_node_ports(spec) {
        return Ok(());
    }
    let before: BTreeSet<i32> =
        old.iter().flat_map(|old| old.ports.iter().flatten()).filter_map(given_port).collect();
    let path = Path::new("spec").child("ports");
    let mut used = taken.node_ports.clone();
    let asked: BTreeSet<i32> = spec.ports.iter().flatten().filter_map(given_port).collect();
    for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
        let path = path.index(i).child("nodePort");
        match given_port(port) {
            Some(given) if before.contains(&given) => {}
            Some(given) if !NODE_PORTS.contains(&given) => {
                let why = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    NODE_PORTS.start(),
                    NODE_PORTS.end()
                );
                errors.invalid(&path, given, &why);
            }
            Some(given) if taken.node_ports.contains(&given) => {
                errors.invalid(&path, given, "provided port is already allocated");
            }
            Some(_) => {}
            None => {
                let mut all = NODE_PORTS;
                let free = all.find(|port| !used.contains(port) && !asked.contains(port));
                let free = free.ok_or(Full("nodePort"))?;
                used.insert(free);
                port.node_port = Some(free);
            }
        }
    }
    Ok(())
}

fn address(spec: &ServiceSpec) -> &str {
    spec.cluster_ip.as_deref().unwrap_or_default()
}

fn given_port(port: &ServicePort) -> Option<i32> {
    port.node_port.filter(|port| *port != 0)
}

#[cfg(test)]
mod tests;
