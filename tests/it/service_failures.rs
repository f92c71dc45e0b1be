//! Addresses, ports and names where something is in their way.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use coracle::clock::Clock;
use coracle::random::Random;

use crate::harness::{DEADLINE, Up, has, text};
use crate::http_load::answered;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: given}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 8081, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: http, image: 'coracle.dev/hello-http:v1'}]}
";

/// 16.2
#[test]
fn addresses_and_ports_outlive_the_process() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], SERVICES);
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    let given = r#"jsonpath={range .items[*]}{.metadata.name} {.spec.clusterIPs} {.spec.ports[*].nodePort}{"\n"}{end}"#;
    let before = up.kubectl(&["get", "services", "-A", "-o", given]);
    up.kill_and_restart();
    assert_eq!(up.kubectl(&["get", "services", "-A", "-o", given]), before);
    // The pods run again, and no address is two pods'.
    let restarts = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    up.kubectl(&["wait", "pods", "-lapp=web", restarts, "--timeout=50s"]);
    up.kubectl(&["wait", "pods", "-lapp=web", "--for=condition=Ready", "--timeout=50s"]);
    up.kubectl(&["scale", "deploy/web", "--replicas=5"]);
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    let ips = up.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.podIP}"]);
    assert_eq!(ips.split(' ').collect::<BTreeSet<_>>().len(), 5, "{ips}");
    // What is taken is still taken.
    let get = |path: &str| up.kubectl(&["get", "service", "web", "-o", &format!("jsonpath={{{path}}}")]);
    let (ip, port) = (get(".spec.clusterIP"), get(".spec.ports[0].nodePort"));
    let service =
        |spec: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: more}}, spec: {spec}}}");
    let taken = service(&format!("{{clusterIP: {ip}, ports: [{{port: 80}}]}}"));
    let refused = up.kubectl_stdin_fails(&["create", "-f", "-"], &taken);
    assert!(
        refused.contains(&format!("failed to allocate IP {ip}: provided IP is already allocated")),
        "{refused}"
    );
    let taken = service(&format!("{{type: NodePort, ports: [{{port: 80, nodePort: {port}}}]}}"));
    let refused = up.kubectl_stdin_fails(&["create", "-f", "-"], &taken);
    assert!(
        refused.contains(&format!("Invalid value: {port}: provided port is already allocated")),
        "{refused}"
    );
    up.kubectl_stdin(&["create", "-f", "-"], &service("{type: NodePort, ports: [{port: 80}]}"));
    let more =
        up.kubectl(&["get", "service", "more", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}"]);
    let (more_ip, more_port) = more.split_once(' ').unwrap();
    assert!(!before.contains(&format!("\"{more_ip}\"")) && !before.contains(more_port), "{more} in {before}");
    // They lead where they led.
    answered(format!("{ip}:80").parse().unwrap(), "/");
}

/// A question for the address of a name, as a message.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// A message that is none, or not a good one.
fn garbage(random: &Random) -> Vec<u8> {
    let below = |bound: usize| usize::try_from(random.below(u64::try_from(bound).unwrap())).unwrap();
    let byte = || u8::try_from(below(256)).unwrap();
    let mut message = question("kubernetes.default.svc.cluster.local");
    match below(3) {
        0 => message = (0..below(600)).map(|_| byte()).collect(),
        1 => {
            for _ in 0..=below(8) {
                let at = below(message.len());
                message[at] = byte();
            }
        }
        // A name that goes on where it began.
        _ => {
            message.truncate(12 + below(10));
            message.extend([0xc0, u8::try_from(message.len()).unwrap(), 0, 1, 0, 1]);
        }
    }
    message
}

/// 16.5
#[test]
fn the_name_server_answers_after_garbage() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::ephemeral(&[]);
    let get =
        |what: &str, path: &str| up.kubectl(&["get", what, "-A", "-o", &format!("jsonpath={{{path}}}")]);
    let ip = up.kubectl(&["get", "service", "kube-dns", "-nkube-system", "-o", "jsonpath={.spec.clusterIP}"]);
    if !get("endpointslices", ".items[*].endpoints[*].addresses[*]").contains(&ip) {
        std::io::stderr()
            .write_all(b"\n******** SKIPPED: port 53 may not be listened on ********\n\n")
            .unwrap();
        return;
    }
    let server: SocketAddr = format!("{ip}:53").parse().unwrap();
    let (seed, api) =
        (2_026, up.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]));
    let random = Random::from_seed(seed);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..2_000 {
        socket.send_to(&garbage(&random), server).unwrap();
    }
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server).unwrap();
        let message = garbage(&random);
        // Of which the length is right only at times.
        let length =
            if random.below(2) == 0 { message.len() } else { usize::try_from(random.below(65_536)).unwrap() };
        let framed = [&u16::try_from(length).unwrap().to_be_bytes()[..], &message].concat();
        // The server may have ended the connection already.
        stream.write_all(&framed).ok();
    }
    // Those that say nothing keep nobody out, and are not waited for.
    let _silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(server).unwrap()).collect();

    let asked = question("kubernetes.default.svc.cluster.local");
    let api: std::net::Ipv4Addr = api.parse().unwrap();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[&u16::try_from(asked.len()).unwrap().to_be_bytes()[..], &asked].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(&asked[..2]) && answer.ends_with(&api.octets()), "seed {seed}: {answer:?}");

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (clock, mut bytes) = (Clock::real(), [0; 2048]);
    loop {
        // What is asked while the garbage is still read may be lost.
        socket.send_to(&asked, server).unwrap();
        if let Ok(length) = socket.recv(&mut bytes) {
            assert!(bytes[..length].ends_with(&api.octets()), "seed {seed}: {:?}", &bytes[..length]);
            break;
        }
        assert!(clock.monotonic() < DEADLINE, "seed {seed}: nobody answers");
    }
}

/// Without the privilege a start says once what cannot be had and how that is mended, and all else works.
#[test]
fn ports_that_need_a_privilege_are_told_of_with_the_mend() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if !has("kubectl") || !has("setpriv") || first.is_ok_and(|first| first.trim() != "1024") {
        return;
    }
    let without = if rustix::process::geteuid().is_root() {
        vec!["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service"]
    } else {
        vec!["env"]
    };
    let up = &Up::ephemeral_by(&without, &[]);
    up.kubectl_stdin(&["apply", "-f", "-"], SERVICES);
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    let events = |namespace: &str, about: &str| {
        let about = format!("reason=FailedToListen,involvedObject.kind=Service,involvedObject.name={about}");
        let path = r#"jsonpath={range .items[*]}{.message}{"\n"}{end}"#;
        up.kubectl(&["get", "events", "-n", namespace, "--field-selector", &about, "-o", path])
    };
    let clock = Clock::real();
    let told = |namespace: &str, about: &str| loop {
        let told = events(namespace, about);
        if !told.is_empty() {
            return told;
        }
        assert!(clock.monotonic() < DEADLINE, "nothing is told of {about}");
    };
    let get =
        |what: &str, path: &str| up.kubectl(&["get", "service", what, "-o", &format!("jsonpath={{{path}}}")]);
    let ip = get("web", ".spec.clusterIP");
    assert_eq!(
        told("default", "web"),
        format!(
            "cannot listen on {ip}:80/TCP: Permission denied (os error 13); ports below 1024 need a privilege: choose \
             a higher port, or allow them with `sysctl net.ipv4.ip_unprivileged_port_start=0` or \
             CAP_NET_BIND_SERVICE; pods reach the Service all the same\n"
        )
    );
    let names = told("kube-system", "kube-dns");
    assert!(names.starts_with("cannot answer DNS queries on ") && names.contains("`setcap "), "{names}");
    assert_eq!(names.lines().count(), 1, "{names}");
    // A port that needs none is there, and pods reach the others.
    let node = up.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]);
    answered(format!("{node}:{}", get("web", ".spec.ports[0].nodePort")).parse().unwrap(), "/");
    let run = ["run", "asks", "--image=coracle.dev/load:v1", "--restart=Never", "--attach", "--quiet", "--"];
    let said = up.kubectl(&[&run[..], &["get", "3", &format!("{ip}:80")]].concat());
    assert!(said.contains("got: 3 in"), "{said}");
    // Once each, whatever changes meanwhile.
    up.kubectl(&["scale", "deploy/web", "--replicas=1"]);
    up.kubectl(&["rollout", "status", "deploy/web", "--timeout=50s"]);
    assert_eq!(told("default", "web").lines().count(), 1);
    let log = text(&up.log());
    for once in ["cannot answer DNS queries on ", &format!("cannot listen on {ip}:80/TCP")] {
        assert_eq!(log.matches(once).count(), 1, "{once:?} in {log}");
    }
}
