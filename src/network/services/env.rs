//! Variables that tell a container which services there are (BEHAVIOURS 10.5).

use k8s_openapi::api::core::v1::Service;

/// The variables of one service; none for one without an address or ports.
#[must_use]
pub(crate) fn variables(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
        return Vec::new();
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let mut variables = vec![
        (format!("{name}_SERVICE_HOST"), ip.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let variable = format!("{name}_SERVICE_PORT_{}", variable_name(port_name));
            variables.push((variable, port.port.to_string()));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{ip}:{}", port.port);
        if i == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.push((format!("{prefix}_PROTO"), lower));
        variables.push((format!("{prefix}_PORT"), port.port.to_string()));
        variables.push((format!("{prefix}_ADDR"), ip.to_owned()));
        variables.push((prefix, url));
    }
    variables
}

/// `my-svc.x` as `MY_SVC_X`; a leading digit gets an underscore.
fn variable_name(name: &str) -> String {
    let upper = name.replace(['-', '.'], "_").to_uppercase();
    if upper.starts_with(|c: char| c.is_ascii_digit()) { format!("_{upper}") } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    fn service(name: &str, ip: &str, ports: &[(i32, Option<&str>, &str)]) -> Service {
        let port = |&(port, name, protocol): &(i32, Option<&str>, &str)| ServicePort {
            port,
            name: name.map(str::to_owned),
            protocol: Some(protocol.to_owned()),
            ..ServicePort::default()
        };
        let mut service = Service::default();
        service.metadata.name = Some(name.into());
        service.spec = Some(ServiceSpec {
            cluster_ip: Some(ip.into()),
            ports: Some(ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        });
        service
    }

    #[test]
    fn a_service_with_named_ports() {
        let service = service("my-db", "127.96.0.9", &[(80, Some("http"), "TCP"), (53, Some("dns"), "UDP")]);
        let mut lines: Vec<String> =
            variables(&service).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "MY_DB_PORT=tcp://127.96.0.9:80",
                "MY_DB_PORT_53_UDP=udp://127.96.0.9:53",
                "MY_DB_PORT_53_UDP_ADDR=127.96.0.9",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_80_TCP=tcp://127.96.0.9:80",
                "MY_DB_PORT_80_TCP_ADDR=127.96.0.9",
                "MY_DB_PORT_80_TCP_PORT=80",
                "MY_DB_PORT_80_TCP_PROTO=tcp",
                "MY_DB_SERVICE_HOST=127.96.0.9",
                "MY_DB_SERVICE_PORT=80",
                "MY_DB_SERVICE_PORT_DNS=53",
                "MY_DB_SERVICE_PORT_HTTP=80",
            ]
        );
    }

    #[test]
    fn headless_services_and_names_with_digits() {
        assert_eq!(variables(&service("a", "None", &[(80, None, "TCP")])), []);
        assert_eq!(variables(&service("9x", "127.96.0.1", &[(80, None, "TCP")]))[0].0, "_9X_SERVICE_HOST");
    }
}
