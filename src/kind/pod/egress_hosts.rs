//! The hosts outside the cluster that a pod may reach, by an annotation that other tools may ignore.
//!
//! A list with commas: `api.example.com, *.example.org, example.net:443, 192.0.2.7`. A name is itself alone,
//! `*.` before it means all names below it, of any depth; `:PORT` is that port only. Upper and lower case, and
//! a last dot, make no difference. The empty list is nothing outside; without the annotation it is everything.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kind::field::{self, Errors, Path};

pub const ANNOTATION: &str = "coracle.dev/egress-hosts";

/// Entries of one list: each is looked at for every name and address.
const ENTRIES_MAX: usize = 256;

/// The hosts of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressHosts(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    host: Host,
    /// Every port, if `None`.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    /// What names end with: `.example.org`.
    Below(String),
    Address(Ipv4Addr),
}

/// The ports at which a host may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    All,
    These(BTreeSet<u16>),
}

impl Default for Ports {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Ports {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(ports) if ports.is_empty())
    }

    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }

    pub fn extend(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::These(ports), Self::These(more)) => ports.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, Self::These(_)) => {}
        }
    }
}

impl EgressHosts {
    /// The list of `pod`, if it has one. One that cannot be read, which validation rules out, lists nothing.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        text(&pod.metadata).map(|text| Self::parse(text).unwrap_or_default())
    }

    /// Reads a list.
    ///
    /// # Errors
    /// Each entry that is none, and why.
    pub fn parse(text: &str) -> Result<Self, Vec<(String, String)>> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let (mut hosts, mut wrong) = (Vec::new(), Vec::new());
        for (i, entry) in entries.enumerate() {
            if i == ENTRIES_MAX {
                wrong.push((entry.to_owned(), format!("must not be more than {ENTRIES_MAX} entries")));
                break;
            }
            match Entry::parse(entry) {
                Ok(entry) => hosts.push(entry),
                Err(why) => wrong.push((entry.to_owned(), why)),
            }
        }
        if wrong.is_empty() { Ok(Self(hosts)) } else { Err(wrong) }
    }

    /// The ports at which the host of that name may be reached.
    #[must_use]
    pub fn of_name(&self, name: &str) -> Ports {
        let name = plain(name);
        self.ports(|host| match host {
            Host::Name(listed) => *listed == name,
            Host::Below(end) => name.len() > end.len() && name.ends_with(end),
            Host::Address(_) => false,
        })
    }

    /// The ports at which that address may be reached, whatever names it has.
    #[must_use]
    pub fn of_address(&self, address: Ipv4Addr) -> Ports {
        self.ports(|host| matches!(host, Host::Address(listed) if *listed == address))
    }

    fn ports(&self, is_meant: impl Fn(&Host) -> bool) -> Ports {
        let mut ports = Ports::default();
        for entry in self.0.iter().filter(|entry| is_meant(&entry.host)) {
            ports.extend(entry.port.map_or(Ports::All, |port| Ports::These(BTreeSet::from([port]))));
        }
        ports
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") || text.contains('/') {
            return Err(
                "must be a host without scheme, path or mask, as in \"example.com:443\"; whole networks \
                        are for the ipBlock of a NetworkPolicy"
                    .to_owned(),
            );
        }
        if text.starts_with('[') || text.parse::<Ipv6Addr>().is_ok() {
            return Err("must be a name or an IPv4 address: pods have no IPv6".to_owned());
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let port = match port {
            Some(digits) => {
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
                let port = digits.parse().ok().filter(|port: &u16| is_number && *port != 0);
                Some(port.ok_or("must end in a port from 1 to 65535 after the colon")?)
            }
            None => None,
        };
        if let Ok(address) = host.parse() {
            return Ok(Self { host: Host::Address(address), port });
        }
        let host = plain(host);
        let (name, is_below) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (&*host, false),
        };
        if host == "*" {
            return Err("must be a host: a pod without the annotation may reach all of them".to_owned());
        }
        if name.contains('*') {
            return Err(
                "must have its only \"*\" as the whole first part, as in \"*.example.com\"".to_owned()
            );
        }
        if let Some(why) = field::dns_subdomain(name).into_iter().next() {
            return Err(why);
        }
        let host = if is_below { Host::Below(format!(".{name}")) } else { Host::Name(name.to_owned()) };
        Ok(Self { host, port })
    }
}

/// A name as it is compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn text(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(ANNOTATION).map(String::as_str)
}

/// Names each entry that is none; `path` is that of the annotations.
pub(super) fn validate(metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    let wrong = text(metadata).and_then(|text| EgressHosts::parse(text).err());
    for (entry, why) in wrong.into_iter().flatten() {
        errors.invalid(&path.key(ANNOTATION), entry, &why);
    }
}

/// A pod keeps its list, as its containers have been started with it.
pub(super) fn validate_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    if text(&new.metadata) != text(&old.metadata) {
        let why = "may not be added, changed or removed: containers are started with it; make the pod anew";
        errors.forbidden(&Path::new("metadata").child("annotations").key(ANNOTATION), why);
    }
}

#[cfg(test)]
mod tests;
