//! How a pod looks names up: its resolver's settings and its hosts file, as the kubelet makes them
//! from `dnsPolicy`, `dnsConfig` and `hostAliases` (upstream `pkg/kubelet/network/dns`), and which names
//! are tried for one that is asked for. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

use super::zone::ORIGIN;

/// Bounds of resolvers (upstream `pkg/apis/core/validation`): what is more is left out.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
/// The longest name, in bytes, its dots among them.
const NAME_BYTES_MAX: usize = 253;
/// Names with fewer dots are first looked for in the pod's own surroundings.
const NDOTS_CLUSTER: usize = 5;
/// What `ndots` is where nobody says (resolv.conf(5)), and the most that it may be.
const NDOTS_DEFAULT: usize = 1;
const NDOTS_MAX: usize = 15;

/// What resolv.conf(5) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub nameservers: Vec<IpAddr>,
    pub searches: Vec<String>,
    /// With their values, if they have any.
    pub options: Vec<(String, Option<String>)>,
}

impl Settings {
    /// Reads a resolv.conf; lines that it does not know are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // Of an address with a zone, such as `fe80::1%eth0`, the zone is the machine's.
                    settings.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                // The last one counts.
                Some("search" | "domain") => settings.searches = words.map(str::to_owned).collect(),
                Some("options") => {
                    let options = words.map(|word| match word.split_once(':') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (word.to_owned(), None),
                    });
                    settings.options.extend(options);
                }
                Some(_) | None => {}
            }
        }
        settings
    }

    /// What a pod has: `server` answers for the cluster, `machine` is what its node has.
    #[must_use]
    pub fn of_pod(pod: &Pod, server: Ipv4Addr, machine: &Self) -> Self {
        let spec = pod.spec.as_ref();
        let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
        let is_host = spec.and_then(|spec| spec.host_network).unwrap_or(false);
        let mut settings = match policy {
            "None" => Self::default(),
            "Default" => machine.clone(),
            // On the machine's network one wants the machine's names.
            "ClusterFirst" if is_host => machine.clone(),
            _ => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let mut searches =
                    vec![format!("{namespace}.svc.{ORIGIN}"), format!("svc.{ORIGIN}"), ORIGIN.to_owned()];
                searches.extend(machine.searches.iter().cloned());
                Self {
                    nameservers: vec![server.into()],
                    searches,
                    options: vec![("ndots".to_owned(), Some(NDOTS_CLUSTER.to_string()))],
                }
            }
        };
        if let Some(more) = spec.and_then(|spec| spec.dns_config.as_ref()) {
            let nameservers = more.nameservers.iter().flatten();
            settings.nameservers.extend(nameservers.filter_map(|one| one.parse::<IpAddr>().ok()));
            settings.searches.extend(more.searches.iter().flatten().cloned());
            for option in more.options.iter().flatten() {
                let Some(name) = option.name.clone() else { continue };
                match settings.options.iter_mut().find(|(there, _)| *there == name) {
                    Some((_, value)) => value.clone_from(&option.value),
                    None => settings.options.push((name, option.value.clone())),
                }
            }
        }
        settings.bound();
        settings
    }

    /// Each once, and no more than resolvers take.
    fn bound(&mut self) {
        let mut seen = Vec::new();
        self.nameservers.retain(|one| {
            !seen.contains(one) && {
                seen.push(*one);
                seen.len() <= NAMESERVERS_MAX
            }
        });
        let mut seen: Vec<String> = Vec::new();
        let mut bytes = 0;
        self.searches.retain(|one| {
            bytes += one.len() + 1;
            let fits = !seen.contains(one) && seen.len() < SEARCHES_MAX && bytes <= SEARCH_BYTES_MAX + 1;
            if fits {
                seen.push(one.clone());
            }
            fits
        });
    }

    /// The text of a resolv.conf.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            writeln!(text, "search {}", self.searches.join(" ")).expect("a string takes all");
        }
        for nameserver in &self.nameservers {
            writeln!(text, "nameserver {nameserver}").expect("a string takes all");
        }
        if !self.options.is_empty() {
            let option = |(name, value): &(String, Option<String>)| match value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            let options: Vec<String> = self.options.iter().map(option).collect();
            writeln!(text, "options {}", options.join(" ")).expect("a string takes all");
        }
        text
    }

    fn ndots(&self) -> usize {
        let given = self.options.iter().rev().find(|(name, _)| name == "ndots");
        let given = given.and_then(|(_, value)| value.as_deref()).and_then(|value| value.parse().ok());
        given.unwrap_or(NDOTS_DEFAULT).min(NDOTS_MAX)
    }

    /// The names to be tried for `name`, in order, without the last dot (resolv.conf(5)).
    #[must_use]
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let searched = self.searches.iter().map(|search| format!("{name}.{}", search.trim_end_matches('.')));
        let mut candidates: Vec<String> = searched.collect();
        let place = if dots >= self.ndots() { 0 } else { candidates.len() };
        candidates.insert(place, name.to_owned());
        candidates.retain(|candidate| candidate.len() <= NAME_BYTES_MAX);
        candidates
    }
}

/// What hosts(5) says: names that are known before anybody is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The pod's own name, with the longer form first.
    own: Vec<String>,
    aliases: Vec<(IpAddr, Vec<String>)>,
}

impl Hosts {
    #[must_use]
    pub fn of_pod(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let text = |value: Option<&String>| value.filter(|text| !text.is_empty()).cloned();
        let hostname = text(spec.and_then(|spec| spec.hostname.as_ref()));
        // A name may be longer than a label; what is cut off must not end in a dash or a dot.
        let mut hostname = hostname.or_else(|| text(pod.metadata.name.as_ref())).unwrap_or_default();
        if let Some((end, _)) = hostname.char_indices().nth(63) {
            hostname.truncate(end);
            hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let subdomain = text(spec.and_then(|spec| spec.subdomain.as_ref()));
        let long = subdomain.map(|subdomain| format!("{hostname}.{subdomain}.{namespace}.svc.{ORIGIN}"));
        let aliases = spec.and_then(|spec| spec.host_aliases.as_ref()).into_iter().flatten();
        let aliases = aliases.filter_map(|alias| {
            let names = alias.hostnames.clone().unwrap_or_default();
            Some((alias.ip.parse().ok()?, names)).filter(|(_, names)| !names.is_empty())
        });
        Self { own: long.into_iter().chain([hostname]).collect(), aliases: aliases.collect() }
    }

    /// The text of a hosts file, in which the pod's own address is `own`.
    #[must_use]
    pub fn render(&self, own: Ipv4Addr) -> String {
        let mut text = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n".to_owned();
        writeln!(text, "{own}\t{}", self.own.join("\t")).expect("a string takes all");
        if !self.aliases.is_empty() {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        for (address, names) in &self.aliases {
            writeln!(text, "{address}\t{}", names.join("\t")).expect("a string takes all");
        }
        text
    }

    /// The addresses of `name`, if it is known.
    #[must_use]
    pub fn find(&self, name: &str, own: Ipv4Addr) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_it = |one: &String| one.eq_ignore_ascii_case(name);
        // RFC 6761: so are all names below it.
        let is_local = name.eq_ignore_ascii_case("localhost")
            || name.len() > 10 && name.as_bytes()[name.len() - 10..].eq_ignore_ascii_case(b".localhost");
        if is_local {
            return Some(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        if self.own.iter().any(is_it) {
            return Some(vec![own.into()]);
        }
        let found = self.aliases.iter().filter(|(_, names)| names.iter().any(is_it));
        let found: Vec<IpAddr> = found.map(|(address, _)| *address).collect();
        (!found.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests;
