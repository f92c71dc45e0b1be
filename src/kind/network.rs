//! Addresses and ports of services and their endpoints, in Kubernetes' words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::field::{Errors, Path, dns_label};
use super::validation::{choice, each, ip_address, qualified_name};

pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// The name of one of several ports: a DNS label, used once, and left out only by a single port.
pub(super) fn port_label(
    path: &Path,
    name: &str,
    is_required: bool,
    seen: &mut BTreeSet<String>,
    errors: &mut Errors,
) {
    if name.is_empty() {
        if is_required {
            errors.required(path, "");
        }
        return;
    }
    each(errors, path, name, dns_label(name));
    if !seen.insert(name.to_owned()) {
        errors.duplicate(path, name);
    }
}

/// TCP, UDP or SCTP, and defaulted, so given.
pub(super) fn protocol(path: &Path, protocol: Option<&str>, errors: &mut Errors) {
    choice(errors, path, protocol.unwrap_or_default(), &PROTOCOLS);
}

/// A hint such as `http` or `example.com/own`.
pub(super) fn app_protocol(path: &Path, protocol: Option<&str>, errors: &mut Errors) {
    if let Some(protocol) = protocol {
        each(errors, path, protocol, qualified_name(protocol));
    }
}

/// Reads an address of either family, or says that it is none.
pub(super) fn ip(path: &Path, text: &str, errors: &mut Errors) -> Option<IpAddr> {
    ip_address(errors, path, text);
    text.parse().ok()
}

/// Refuses addresses that are not an endpoint's: unspecified and link-local ones.
///
/// Upstream refuses loopback addresses too. Here pods and services have their addresses in
/// 127.0.0.0/8, so those are as good as any.
pub(super) fn not_special(path: &Path, text: &str, errors: &mut Errors) {
    let (is_unspecified, is_link_local, is_multicast) = match text.parse() {
        Err(_) => return,
        Ok(IpAddr::V4(ip)) => {
            let is_multicast = ip.octets()[..3] == [224, 0, 0];
            (ip.is_unspecified(), ip.is_link_local(), is_multicast)
        }
        Ok(IpAddr::V6(ip)) => {
            let is_multicast = ip.segments()[0] & 0xff0f == 0xff02;
            (ip.is_unspecified(), ip.is_unicast_link_local(), is_multicast)
        }
    };
    if is_unspecified {
        errors.invalid(path, text, &format!("may not be unspecified ({text})"));
    }
    if is_link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if is_multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// A range such as 10.9.8.0/24.
pub(super) fn cidr(path: &Path, text: &str, errors: &mut Errors) {
    let is_cidr = text.split_once('/').is_some_and(|(address, bits)| {
        let bits_max = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse().is_ok_and(|bits: u8| bits <= bits_max)
    });
    if !is_cidr {
        errors.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}

/// `host:port`, with brackets around an IPv6 host.
pub(super) fn host_port(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The first three of a list, and how many more there are.
pub(super) fn first_three(all: impl Iterator<Item = String>) -> Option<String> {
    let mut all = all.peekable();
    all.peek()?;
    let shown: Vec<String> = all.by_ref().take(3).collect();
    let shown = shown.join(",");
    match all.count() {
        0 => Some(shown),
        more => Some(format!("{shown} + {more} more...")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::testing::lines;

    #[track_caller]
    fn check(rule: impl Fn(&Path, &str, &mut Errors), good: &[&str], bad: &[(&str, &str)]) {
        let ask = |text| {
            let mut errors = Errors::default();
            rule(&Path::new("x"), text, &mut errors);
            lines(&errors)
        };
        for text in good {
            assert_eq!(ask(text), Vec::<String>::new(), "{text}");
        }
        for (text, why) in bad {
            assert_eq!(ask(text), [format!("x: Invalid value: {text:?}: {why}")]);
        }
    }

    #[test]
    fn addresses() {
        let no_ip = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        check(
            |path, text, errors| {
                ip(path, text, errors);
            },
            &["10.0.0.1", "::1"],
            &[("10.0.0", no_ip), ("None", no_ip)],
        );
        check(
            not_special,
            &["127.128.0.1", "10.0.0.1", "ff05::1"],
            &[
                ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
                ("169.254.1.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
                ("fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
                ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
            ],
        );
        let no_cidr = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        check(
            cidr,
            &["10.0.0.0/8", "::/0"],
            &[("10.0.0.0", no_cidr), ("10.0.0.0/33", no_cidr), ("::/+1", no_cidr)],
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let list = |n: i32| first_three((0..n).map(|i| i.to_string()));
        assert_eq!(list(0), None);
        assert_eq!(list(3).as_deref(), Some("0,1,2"));
        assert_eq!(list(5).as_deref(), Some("0,1,2 + 2 more..."));
    }
}
