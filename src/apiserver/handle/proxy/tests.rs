use serde_json::{Value, json};

use super::*;

/// 8.8
#[test]
fn names_may_have_a_scheme_and_a_port() {
    let asked = |is_https, name, port| Some(Asked { is_https, name, port });
    for (text, expected) in [
        ("web", asked(false, "web", "")),
        ("web:80", asked(false, "web", "80")),
        ("web:http", asked(false, "web", "http")),
        ("http:web:80", asked(false, "web", "80")),
        ("https:web:", asked(true, "web", "")),
        (":web:80", asked(false, "web", "80")),
        ("ftp:web:80", None),
        ("a:b:c:d", None),
        (":80", None),
        ("", None),
    ] {
        assert_eq!(Asked::parse(text), expected, "{text}");
    }
}

/// 8.8
#[test]
fn where_pods_and_nodes_are() {
    let pod = |ip: Option<&str>, ports: Value| -> Pod {
        serde_json::from_value(json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": ports}]},
            "status": {"podIP": ip},
        }))
        .unwrap()
    };
    let ports = json!([{"containerPort": 8080}, {"containerPort": 8081}]);
    for (text, ip, ports, expected) in [
        ("web", Some("127.128.0.1"), ports.clone(), "127.128.0.1:8080"),
        ("web", Some("127.128.0.1"), json!([]), "127.128.0.1:80"),
        ("https:web:", Some("127.128.0.1"), json!([]), "127.128.0.1:443"),
        ("web:81", Some("127.128.0.1"), ports.clone(), "127.128.0.1:81"),
        (
            "web:http",
            Some("127.128.0.1"),
            ports.clone(),
            "invalid port \"http\" of pod \"web\": give its number",
        ),
        ("web:0", Some("127.128.0.1"), ports.clone(), "invalid port \"0\" of pod \"web\": give its number"),
        ("web", None, ports, "address not allowed"),
    ] {
        let found = of_pod(&pod(ip, ports), &Asked::parse(text).unwrap());
        let found = found.map_or_else(|error| error.to_string(), |address| address.to_string());
        assert_eq!(found, expected, "{text}");
    }
    let node: Node = serde_json::from_value(json!({
        "status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "127.64.0.1"}]},
    }))
    .unwrap();
    let found = |text| of_node(&node, &Asked::parse(text).unwrap()).map_err(|error| error.code());
    assert_eq!(found("n"), Ok(None));
    assert_eq!(found("n:30000"), Ok(Some("127.64.0.1:30000".parse().unwrap())));
    assert_eq!(found("n:http"), Err(400));
}

/// 8.8
#[test]
fn which_endpoints_of_a_service_are_asked() {
    let service: Service = serde_json::from_value(json!({
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}, {"name": "gone", "port": 82}]},
    }))
    .unwrap();
    let slice = |name: &str, port: u16, endpoints: Value| -> Arc<dyn Object> {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "ports": [{"name": name, "port": port}], "endpoints": endpoints,
        }))
        .unwrap();
        Arc::new(slice)
    };
    let slices = [
        slice(
            "http",
            8080,
            json!([
                {"addresses": ["127.128.0.1"]},
                {"addresses": ["127.128.0.2"], "conditions": {"ready": false}},
            ]),
        ),
        slice("http", 8090, json!([{"addresses": ["127.128.0.3"], "conditions": {"ready": true}}])),
        slice("admin", 9000, json!([{"addresses": ["127.128.0.1"]}])),
    ];
    for (text, expected) in [
        ("web:80", "127.128.0.1:8080 127.128.0.3:8090"),
        ("web:http", "127.128.0.1:8080 127.128.0.3:8090"),
        ("web:81", "127.128.0.1:9000"),
        ("web:82", "503 no endpoints available for service \"web\""),
        ("web:8080", "503 no service port \"8080\" found for service \"web\""),
        ("web:other", "503 no endpoints available for service \"web\""),
        ("web", "503 no endpoints available for service \"web\""),
    ] {
        let found = match of_service(&service, &Asked::parse(text).unwrap(), &slices) {
            Ok(found) => found.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{} {error}", error.code()),
        };
        assert_eq!(found, expected, "{text}");
    }
}
