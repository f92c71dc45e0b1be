//! Datagrams to Services, between pods and from the machine.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use coracle::clock::Clock;

use crate::guest::file;
use crate::harness::{DEADLINE, Up, has};

const OBJECTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: who}
spec:
  replicas: 3
  selector: {matchLabels: {app: who}}
  template:
    metadata: {labels: {app: who}}
    spec:
      containers: [{name: main, image: 'connect:v1', args: [udp-tell, '0.0.0.0:5300']}]
---
apiVersion: v1
kind: Service
metadata: {name: who}
spec:
  type: NodePort
  selector: {app: who}
  ports: [{protocol: UDP, port: 53, targetPort: 5300}]
---
apiVersion: v1
kind: Pod
metadata: {name: follows}
spec:
  containers: [{name: main, image: 'connect:v1', args: [udp-follow, 'who:53']}]
";

/// One client of the machine.
struct Client {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Client {
    fn of(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { socket, to }
    }

    /// Who answers, once somebody does. Datagrams may be lost, and the socket may not be there yet.
    #[track_caller]
    fn ask(&self) -> String {
        let (clock, mut bytes) = (Clock::real(), [0; 2048]);
        loop {
            let heard = self.socket.send_to(b"who?", self.to).and_then(|_| self.socket.recv_from(&mut bytes));
            if let Ok((length, from)) = heard {
                assert_eq!(from, self.to, "it is the Service that answers");
                let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
                return said.strip_suffix(" to 127.0.0.1").unwrap_or_else(|| panic!("{said}")).to_owned();
            }
            assert!(clock.monotonic() < DEADLINE, "{}: {heard:?}", self.to);
        }
    }
}

/// Who answers twenty clients.
fn twenty(to: SocketAddr) -> BTreeSet<String> {
    (0..20).map(|_| Client::of(to).ask()).collect()
}

/// The last line of the pod that follows, once it tells of another than `old`.
#[track_caller]
fn followed(up: &Up, old: &str) -> (String, String) {
    let clock = Clock::real();
    loop {
        let said = up.kubectl(&["logs", "follows", "--tail=1"]);
        if let Some((name, rest)) = said.trim().split_once(" to ")
            && name != old
        {
            return (name.to_owned(), rest.to_owned());
        }
        assert!(clock.monotonic() < DEADLINE, "{said}");
    }
}

/// 16.2, 16.4
#[test]
fn datagrams_reach_services_and_answers_come_from_them() {
    if !has("kubectl") {
        return;
    }
    let up = &Up::durable(&["--nodes", "2"]);
    up.import(&file(up.scratch(), "connect"), "connect:v1");
    up.kubectl_stdin(&["apply", "-f", "-"], OBJECTS);
    up.kubectl(&["rollout", "status", "deploy/who", "--timeout=50s"]);
    let get = |what: &[&str]| up.kubectl(&[&["get"], what].concat());
    let ip = get(&["service", "who", "-o", "jsonpath={.spec.clusterIP}"]);
    let port = get(&["service", "who", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let nodes =
        get(&["nodes", "-o", r#"jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}"#]);

    // Between pods.
    let (first, rest) = followed(up, "");
    let own = get(&["pod", "follows", "-o", "jsonpath={.status.podIP}"]);
    assert_eq!(rest, format!("{own} at {ip}:53"));

    // From the machine: a client stays where it is, and all are not at one place.
    let cluster: SocketAddr = format!("{ip}:53").parse().unwrap();
    let client = Client::of(cluster);
    let at = client.ask();
    assert!((0..20).all(|_| client.ask() == at));
    assert!(twenty(cluster).len() > 1);
    for node in nodes.split(' ') {
        Client::of(format!("{node}:{port}").parse().unwrap()).ask();
    }
    // All clients of an address are at one place if the Service says so, whatever their ports.
    let sticky = |how: &str| {
        up.kubectl(&[
            "patch",
            "service",
            "who",
            "-p",
            &format!(r#"{{"spec":{{"sessionAffinity":"{how}"}}}}"#),
        ]);
    };
    sticky("ClientIP");
    assert!((0..20).any(|_| twenty(cluster).len() == 1));
    sticky("None");
    assert!((0..20).any(|_| twenty(cluster).len() > 1));

    // An endpoint that goes is left by those that were there, and nobody else.
    up.kubectl(&["delete", "pod", &first]);
    assert_ne!(followed(up, &first).1, "");
    let at = client.ask();
    up.kubectl(&["delete", "pod", &at]);
    assert_ne!(client.ask(), at);
    up.kubectl(&["rollout", "status", "deploy/who", "--timeout=50s"]);
    // Nobody was there only in the beginning.
    let lines = up.kubectl(&["logs", "follows"]);
    let mut lines = lines.lines().skip_while(|line| line.starts_with("nobody"));
    assert!(lines.clone().count() <= 4 && lines.all(|line| line.starts_with("who-")), "{lines:?}");
}
