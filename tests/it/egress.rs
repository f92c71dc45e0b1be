//! Lists of the hosts outside the cluster that a pod may reach (`coracle.dev/egress-hosts`), with real kubectl, real
//! connections to this machine's own address, and a name server that tells what it is asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::mpsc;

use crate::guest::file;
use crate::harness::{Up, has, outside};

/// Serves HTTP at an address outside the cluster, for as long as the test runs; its port.
fn serve(ip: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 1024];
            // Whoever connects only to look sends nothing.
            if stream.read(&mut bytes).is_ok_and(|length| length > 0) {
                let answer = "HTTP/1.0 200 Fine\r\ncontent-length: 8\r\n\r\noutside\n";
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    port
}

/// A name server that knows every name to have the address `ip`, and the names that it is asked; `None` where not
/// everybody may listen on its port.
fn name_server(at: Ipv4Addr, ip: Ipv4Addr) -> Option<mpsc::Receiver<String>> {
    let socket = UdpSocket::bind((at, 53)).ok()?;
    let (asked, names) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            let (mut name, mut end) = (Vec::new(), 12);
            while bytes[end] != 0 {
                let label = &bytes[end + 1..=end + usize::from(bytes[end])];
                name.push(String::from_utf8_lossy(label).into_owned());
                end += label.len() + 1;
            }
            // The same question, that an answer is here, and one address for the name at the question's place.
            let head = [&bytes[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
            let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4], &ip.octets()[..]].concat();
            socket.send_to(&[&head, &bytes[12..end + 5], &record].concat(), from).unwrap();
            if asked.send(name.join(".")).is_err() {
                return;
            }
        }
    });
    Some(names)
}

/// Runs the fixture `connect` in a pod with this list, and says what it printed; `spec` is more of the pod's.
#[track_caller]
fn run(up: &Up, name: &str, list: &str, spec: &str, args: &[(&str, &str)]) -> Vec<(String, String)> {
    let words: Vec<String> = args.iter().map(|(what, whom)| format!("{what}, '{whom}'")).collect();
    let pod = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, annotations: {{coracle.dev/egress-hosts: '{list}'}}}}
spec:
  restartPolicy: Never
  {spec}
  containers: [{{name: c, image: 'connect:v1', args: [{}]}}]
",
        words.join(", ")
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &pod);
    let pod = format!("pod/{name}");
    up.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", &pod, "--timeout=60s"]);
    let said = up.kubectl(&["logs", &pod]);
    let said = said.lines().zip(args).map(|(line, (what, whom))| {
        let answer = line.strip_prefix(&format!("{what} {whom}: ")).unwrap_or_else(|| panic!("{line}"));
        (format!("{what} {whom}"), answer.to_owned())
    });
    said.collect()
}

/// What the user is told about a pod.
fn told(up: &Up, pod: &str) -> String {
    let about = format!("involvedObject.name={pod},reason=EgressRefused");
    up.kubectl(&[
        "get",
        "events",
        "--field-selector",
        &about,
        "-o",
        "jsonpath={range .items[*]}{.message}{'\\n'}{end}",
    ])
}

#[test]
fn a_pod_reaches_the_hosts_of_its_list_and_no_others() {
    let Some(ip) = outside().filter(|_| has("kubectl") && has("curl")) else {
        eprintln!("\n******** SKIPPED: this machine has no address but loopback ********\n");
        return;
    };
    let up = Up::durable(&[]);
    up.import(&file(up.scratch(), "connect"), "connect:v1");
    let (port, other) = (serve(ip), serve(ip));
    let (address, fine) = (format!("{ip}:{port}"), "HTTP/1.0 200 Fine");
    let api = up.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]);

    let aliases = format!("hostAliases: [{{ip: {ip}, hostnames: [api.test, a.b.wild.test, other.test]}}]");
    let list = format!("API.test:{port}, *.wild.test:{port}");
    let said = run(
        &up,
        "listed",
        &list,
        &aliases,
        &[
            // It knows the address, but not from a name.
            ("get", &address),
            ("get", &format!("other.test:{port}")),
            ("lookup", "other.test"),
            ("lookup", "elsewhere.test"),
            ("get", &format!("api.test:{port}")),
            ("get", &format!("a.b.wild.test:{port}")),
            ("get", &format!("api.test:{other}")),
            ("udp-ask", &format!("{ip}:{other}")),
            ("get", &address),
            // What is in the cluster is not the list's matter; and a guest sees whom it asked for.
            ("peer", "kubernetes.default.svc:443"),
            ("lookup", "kubernetes"),
            ("tcp-echo", "[::]:7000"),
        ],
    );
    let said: Vec<&str> = said.iter().map(|(_, answer)| answer.as_str()).collect();
    let seen = format!("{api}:443");
    let expected =
        ["denied", "denied", "denied", "denied", fine, fine, "denied", "denied", fine, &seen, &api];
    assert_eq!(said[..expected.len()], expected, "{said:?}");
    assert!(said[expected.len()].starts_with("ping from ::ffff:127."), "{said:?}");
    let heard = told(&up, "listed");
    for part in [
        &format!("connection to {address} refused: the annotation coracle.dev/egress-hosts does not list"),
        "lookup of \"elsewhere.test\" refused: ",
        &format!(
            "connection to {ip}:{other} refused: the annotation coracle.dev/egress-hosts lists that host for"
        ),
    ] {
        assert!(heard.contains(part), "no {part:?} in {heard}");
    }
    assert_eq!(heard.matches("other.test").count(), 1, "{heard}");

    let all: Vec<String> =
        run(&up, "none", "", &aliases, &[("get", &address), ("lookup", "api.test"), ("lookup", "none")])
            .into_iter()
            .map(|(_, answer)| answer)
            .collect();
    assert!(all[..2].iter().all(|answer| answer == "denied") && all[2].starts_with("127."), "{all:?}");
}

#[test]
fn a_name_server_is_asked_for_listed_names_only() {
    let (Some(ip), at) = (outside().filter(|_| has("kubectl")), Ipv4Addr::new(127, 46, 0, 53)) else {
        eprintln!("\n******** SKIPPED: this machine has no address but loopback ********\n");
        return;
    };
    let Some(names) = name_server(at, ip) else {
        eprintln!("\n******** SKIPPED: port 53 may not be listened on ********\n");
        return;
    };
    let up = Up::durable(&[]);
    up.import(&file(up.scratch(), "connect"), "connect:v1");
    let address = format!("{ip}:{}", serve(ip));
    let port = address.rsplit(':').next().unwrap();
    let said = run(
        &up,
        "asks",
        "*.example.test",
        &format!("dnsPolicy: None\n  dnsConfig: {{nameservers: [{at}], searches: [corp.test]}}"),
        &[
            ("lookup", "secret.carried.out.test"),
            ("lookup", "secret"),
            ("get", &address),
            ("get", &format!("api.example.test:{port}")),
            ("get", &address),
        ],
    );
    let said: Vec<&str> = said.iter().map(|(_, answer)| answer.as_str()).collect();
    assert_eq!(said, ["denied", "denied", "denied", "HTTP/1.0 200 Fine", "HTTP/1.0 200 Fine"]);
    let asked: Vec<String> = names.try_iter().collect();
    assert!(!asked.is_empty() && asked.iter().all(|name| name == "api.example.test"), "{asked:?}");
}

#[test]
fn a_handler_asks_the_hosts_of_its_list_and_no_others() {
    let Some(ip) = outside().filter(|_| has("kubectl")) else {
        eprintln!("\n******** SKIPPED: this machine has no address but loopback ********\n");
        return;
    };
    let up = Up::durable(&[]);
    let port = serve(ip);
    let pod = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: web, annotations: {{coracle.dev/egress-hosts: 'api.test'}}}}
spec:
  hostAliases: [{{ip: {ip}, hostnames: [api.test, other.test]}}]
  containers: [{{name: c, image: 'coracle.dev/hello-http:v1'}}]
"
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &pod);
    up.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    let path = |url: &str| format!("/api/v1/namespaces/default/pods/web:8080/proxy/fetch/{url}");
    let fetch = |url: &str| up.kubectl(&["get", "--raw", &path(url)]);
    let refused = |url: &str| up.kubectl_fails(&["get", "--raw", &path(url)]);
    let raw = refused(&format!("{ip}:{port}/"));
    assert!(raw.contains("DestinationIpProhibited"), "{raw}");
    let other = refused(&format!("other.test:{port}/"));
    assert!(other.contains("HttpRequestDenied"), "{other}");
    assert_eq!(fetch(&format!("api.test:{port}/")), "outside\n");
    assert_eq!(fetch(&format!("{ip}:{port}/")), "outside\n");
    let heard = told(&up, "web");
    assert!(heard.contains("lookup of \"other.test\" refused: "), "{heard}");
}

#[test]
fn a_list_that_makes_no_sense_is_refused_and_one_that_does_stays() {
    if !has("kubectl") {
        return;
    }
    let up = Up::durable(&[]);
    let hosts = "'api.example.com, https://example.com/x'";
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p, annotations: {{coracle.dev/egress-hosts: {hosts}}}}}, \
         spec: {{containers: [{{name: c, image: a}}]}}}}"
    );
    let entry =
        "annotations[coracle.dev/egress-hosts]: Invalid value: \"https://example.com/x\": must be a host";
    let refused = up.kubectl_stdin_fails(&["apply", "-f", "-"], &pod);
    assert!(refused.contains(&format!("metadata.{entry}")), "{refused}");
    let deployment = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {{selector: {{matchLabels: {{a: b}}}}, \
         template: {{metadata: {{labels: {{a: b}}, annotations: {{coracle.dev/egress-hosts: {hosts}}}}}, \
         spec: {{containers: [{{name: c, image: a}}]}}}}}}}}"
    );
    let refused = up.kubectl_stdin_fails(&["apply", "-f", "-"], &deployment);
    assert!(refused.contains(&format!("spec.template.{entry}")), "{refused}");

    up.kubectl(&[
        "run",
        "kept",
        "--image=coracle.dev/worker:v1",
        "--annotations=coracle.dev/egress-hosts=a.test",
    ]);
    for change in ["coracle.dev/egress-hosts-", "coracle.dev/egress-hosts=b.test"] {
        let refused = up.kubectl_fails(&["annotate", "--overwrite", "pod/kept", change]);
        assert!(refused.contains("Forbidden: may not be added, changed or removed"), "{refused}");
    }
}
