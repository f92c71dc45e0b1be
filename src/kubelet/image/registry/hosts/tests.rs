use super::*;

/// `scheme://host`, with a star if it is a mirror.
fn endpoints(text: &str, host: &str, offline: bool) -> Vec<String> {
    let hosts = Hosts::parse(text).unwrap();
    let shown = |endpoint: &Endpoint| {
        format!("{}://{}{}", endpoint.scheme, endpoint.host, if endpoint.is_mirror { "*" } else { "" })
    };
    hosts.endpoints(host, offline).iter().map(shown).collect()
}

const FILE: &str = "
mirrors:
  docker.io:
    endpoint: ['https://mirror.example/v2/', 'http://10.0.0.7:5000']
  plain.example:5000:
    endpoint: ['http://plain.example:5000']
  nowhere.example:
    endpoint: []
  '*':
    endpoint: ['https://cache.example']
configs:
  mirror.example:
    auth: {username: me, password: pw}
    tls: {ca_file: /ca.pem}
  127.0.0.1:5001:
    tls: {insecure_skip_verify: true}
";

#[test]
fn endpoints_are_tried_in_order_and_the_registry_last() {
    for (host, online, offline) in [
        (
            "docker.io",
            vec!["https://mirror.example*", "http://10.0.0.7:5000*", "https://registry-1.docker.io"],
            vec!["https://mirror.example*", "http://10.0.0.7:5000*"],
        ),
        ("plain.example:5000", vec!["http://plain.example:5000"], vec!["http://plain.example:5000"]),
        ("nowhere.example", vec!["https://nowhere.example"], vec![]),
        ("ghcr.io", vec!["https://cache.example*", "https://ghcr.io"], vec!["https://cache.example*"]),
    ] {
        assert_eq!(endpoints(FILE, host, false), online, "{host}");
        assert_eq!(endpoints(FILE, host, true), offline, "{host} offline");
    }
}

#[test]
fn registries_of_this_machine_may_speak_plain_http() {
    for (host, expected) in [
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.9.8.7:5000", "http://127.9.8.7:5000"),
        ("reg.localhost", "http://reg.localhost"),
        ("localhost.example", "https://localhost.example"),
        ("128.0.0.1", "https://128.0.0.1"),
    ] {
        assert_eq!(endpoints("", host, false), [expected]);
    }
    assert_eq!(endpoints("", "localhost:5000", true), ["http://localhost:5000"]);
    assert_eq!(endpoints("", "ghcr.io", true), [""; 0]);
    let tls = "configs: {'127.0.0.1:5001': {tls: {insecure_skip_verify: true}}}";
    assert_eq!(endpoints(tls, "127.0.0.1:5001", true), ["https://127.0.0.1:5001"]);
}

#[test]
fn credentials_of_the_file_are_for_their_host_alone() {
    let hosts = Hosts::parse(FILE).unwrap();
    let keyring = hosts.keyring();
    assert_eq!(keyring.lookup("mirror.example", "library/a").len(), 1);
    assert_eq!(keyring.lookup("docker.io", "library/a"), []);
    assert!(!format!("{hosts:?}").contains("pw"));
    assert_eq!(hosts.endpoints("docker.io", false)[0].tls.ca_file, Some(PathBuf::from("/ca.pem")));
}

#[test]
fn what_has_no_meaning_here_is_refused() {
    for (text, why) in [
        ("mirrors: {a: {endpoint: ['a:5000']}}", "the endpoint \"a:5000\" of a is not http://HOST"),
        ("mirrors: {a: {endpoint: ['https://a/prefix']}}", "is not http://HOST"),
        ("mirrors: {a: {rewrite: {}}}", "it is not registries.yaml"),
        ("mirror: {}", "it is not registries.yaml"),
        ("configs: {a: {tls: {cert_file: /c}}}", "tls of a: cert_file and key_file"),
    ] {
        let error = Hosts::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}
