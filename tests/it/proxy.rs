//! The API's proxies with the real kubectl (BEHAVIOURS 8.8).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::exec::end;
use crate::harness::Up;

const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: main
    image: coracle.dev/http:v1
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {ports: [{port: 80}]}
";

/// A kubectl that goes on until it is ended, be it by a failure of the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// 8.8
#[test]
fn pods_services_and_nodes_are_reached_through_the_api() {
    let up = Up::ephemeral(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], OBJECTS);
    up.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=50s"]);
    let ip = up.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: web-x, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: ['{ip}']}}]\n"
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &slice);
    let below = |path: &str| format!("/api/v1/namespaces/default/{path}");
    let raw = |path: &str| up.kubectl(&["get", "--raw", path]);
    for path in [
        "pods/web/proxy/",
        "pods/web:8080/proxy/",
        "pods/http:web:8080/proxy/",
        "services/web:http/proxy/",
        "services/web:80/proxy/",
        "services/http:web:80/proxy/",
    ] {
        assert_eq!(raw(&below(path)), "hello from web\n", "{path}");
    }
    // What is asked of the pod is the pod's to answer.
    let teapot = up.kubectl_fails(&["get", "--raw", &below("pods/web:8080/proxy/status/418")]);
    assert!(teapot.contains("418") || teapot.contains("teapot") || teapot.contains("unknown"), "{teapot}");
    let no_one = up.kubectl_fails(&["get", "--raw", &below("services/empty:80/proxy/")]);
    assert!(no_one.contains("no endpoints available for service \"empty\""), "{no_one}");
    let no_port = up.kubectl_fails(&["get", "--raw", &below("services/web:81/proxy/")]);
    assert!(no_port.contains("no service port \"81\" found for service \"web\""), "{no_port}");
    let refused = up.kubectl_fails(&["get", "--raw", &below("pods/web:1/proxy/")]);
    assert!(
        refused.contains(&format!(
            "error trying to reach service: dial tcp {ip}:1: connect: connection refused"
        )),
        "{refused}"
    );
    assert_eq!(raw("/api/v1/nodes/node-0/proxy/healthz"), "ok");
    let pods = raw("/api/v1/nodes/node-0/proxy/pods");
    assert!(pods.contains("\"kind\":\"PodList\"") && pods.contains("\"name\":\"web\""), "{pods}");

    // With a body, as a browser or curl has it, through `kubectl proxy`.
    let proxy = up.kubectl_command(&["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut proxy = Ending(proxy);
    let mut line = String::new();
    BufReader::new(proxy.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let body = "x".repeat(300_000);
    let path = below("services/web:http/proxy/echo");
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    drop(proxy);
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(500)]);
    assert!(answer.matches('x').count() >= body.len(), "{} bytes came back", answer.len());
}
