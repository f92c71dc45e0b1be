//! Names of services and pods as guests, and others on the machine, look them up (BEHAVIOURS 16.5).

use std::io::Write;

use crate::harness::{DEADLINE, Up, has, text};

/// Two namespaces with services of the same name, and a headless service with one endpoint of two ready.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: other}
spec: {ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: only, namespace: other}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: db.other.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: dbs, namespace: default}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dbs-x, namespace: default, labels: {kubernetes.io/service-name: dbs}}
addressType: IPv4
ports: [{name: sql, port: 5432}]
endpoints:
- {addresses: [127.250.0.1], hostname: db-0}
- {addresses: [127.250.0.2], hostname: db-1, conditions: {ready: false}}
";

fn guest(up: &Up) {
    let wasm = up.scratch().join("connect.wasm");
    std::fs::write(&wasm, coracle::guests::fixture("connect").unwrap()).unwrap();
    up.import(&wasm, "connect:v1");
}

fn cluster_ip(up: &Up, namespace: &str, service: &str) -> String {
    up.kubectl(&["get", "service", service, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}"])
}

/// What a pod in `namespace` says that looks these names up.
fn looked_up(up: &Up, namespace: &str, names: &[&str]) -> String {
    let mut run = vec!["run", "looks", "-n", namespace, "--image=connect:v1", "--restart=Never", "--"];
    run.extend(names.iter().flat_map(|name| ["lookup", name]));
    up.kubectl(&run);
    up.kubectl(&[
        "wait",
        "pod/looks",
        "-n",
        namespace,
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=50s",
    ]);
    let said = up.kubectl(&["logs", "looks", "-n", namespace]);
    up.kubectl(&["delete", "pod", "looks", "-n", namespace]);
    said.replace("lookup ", "")
}

/// 16.5
#[test]
fn guests_find_services_by_their_names() {
    let up = Up::durable(&[]);
    guest(&up);
    up.kubectl_stdin(&["apply", "-f", "-"], OBJECTS);
    let (ours, others) = (cluster_ip(&up, "default", "db"), cluster_ip(&up, "other", "db"));
    let (only, api) = (cluster_ip(&up, "other", "only"), cluster_ip(&up, "default", "kubernetes"));
    let names = [
        "db",
        "db.other",
        "db.other.svc",
        "DB.other.svc.cluster.local",
        "db.default.svc.cluster.local.",
        "kubernetes",
        "kubernetes.default.svc",
        "alias",
        "dbs",
        "db-0.dbs",
        "db-1.dbs.default.svc.cluster.local.",
        "only.default.svc.cluster.local.",
        "only.other",
        "127-1-2-3.default.pod",
        "localhost",
    ];
    let expected = format!(
        "db: {ours}\ndb.other: {others}\ndb.other.svc: {others}\nDB.other.svc.cluster.local: {others}\n\
         db.default.svc.cluster.local.: {ours}\nkubernetes: {api}\nkubernetes.default.svc: {api}\n\
         alias: {others}\ndbs: 127.250.0.1\ndb-0.dbs: 127.250.0.1\n\
         db-1.dbs.default.svc.cluster.local.: unknown\nonly.default.svc.cluster.local.: unknown\n\
         only.other: {only}\n127-1-2-3.default.pod: 127.1.2.3\nlocalhost: 127.0.0.1\n"
    );
    assert_eq!(looked_up(&up, "default", &names), expected);
    // The same name is another service's elsewhere.
    let expected = format!("db: {others}\ndb.default: {ours}\nonly: {only}\n");
    assert_eq!(looked_up(&up, "other", &["db", "db.default", "only"]), expected);
    // What changes is known at once.
    up.kubectl(&["delete", "service", "db", "-n", "default"]);
    assert_eq!(
        looked_up(&up, "default", &["db.default.svc.cluster.local."]),
        "db.default.svc.cluster.local.: unknown\n"
    );
}

/// 16.5
#[test]
fn pods_are_told_how_names_are_looked_up() {
    let up = Up::durable(&[]);
    guest(&up);
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  restartPolicy: Never
  hostname: db-7
  subdomain: dbs
  dnsPolicy: None
  dnsConfig: {nameservers: [127.250.0.53], searches: [example.test], options: [{name: ndots, value: '2'}]}
  hostAliases: [{ip: 10.1.2.3, hostnames: [old.example.test]}]
  containers:
  - {name: hosts, image: 'coracle.dev/toolbox:v1', args: [cat, /etc/hosts]}
  - {name: resolver, image: 'coracle.dev/toolbox:v1', args: [cat, /etc/resolv.conf]}
  - {name: looks, image: 'connect:v1', args: [lookup, db-7, lookup, old.example.test]}
";
    up.kubectl_stdin(&["apply", "-f", "-"], pod);
    up.kubectl(&["wait", "pod/web", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s"]);
    let ip = up.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let logs = |container: &str| up.kubectl(&["logs", "web", "-c", container]);
    assert_eq!(
        logs("hosts"),
        format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
             {ip}\tdb-7.dbs.default.svc.cluster.local\tdb-7\n\
             \n# Entries added by HostAliases.\n10.1.2.3\told.example.test\n"
        )
    );
    assert_eq!(logs("resolver"), "search example.test\nnameserver 127.250.0.53\noptions ndots:2\n");
    assert_eq!(logs("looks"), format!("lookup db-7: {ip}\nlookup old.example.test: 10.1.2.3\n"));
}

/// What dig says, once it says what is wanted: the server hears of a change a moment after whoever made it.
#[track_caller]
fn dig(server: &str, arguments: &[&str], wanted: &str) {
    let clock = coracle::clock::Clock::real();
    let begun = clock.monotonic();
    loop {
        let output =
            std::process::Command::new("dig").arg(format!("@{server}")).args(arguments).output().unwrap();
        let said = text(&output.stdout);
        // Columns are aligned by tabs and spaces.
        let words = |line: &str| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ") + "\n";
        let said: String = said.lines().map(words).collect();
        if said.contains(wanted) {
            return;
        }
        assert!(clock.monotonic().saturating_sub(begun) < DEADLINE, "dig {arguments:?}: {said}");
    }
}

/// 16.5
#[test]
fn others_on_the_machine_ask_the_server() {
    if !has("dig") {
        return;
    }
    let up = Up::durable(&[]);
    up.kubectl_stdin(&["apply", "-f", "-"], OBJECTS);
    let server = cluster_ip(&up, "kube-system", "kube-dns");
    let served =
        up.kubectl(&["get", "endpointslice", "kube-dns", "-n", "kube-system", "-o", "jsonpath={.endpoints}"]);
    if !served.contains(&server) {
        // Not everybody may listen on port 53; then an Event says so, and what to do.
        let said = up.kubectl(&["events", "-n", "kube-system", "--for=service/kube-dns"]);
        assert!(said.contains("Permission denied") && said.contains("setcap"), "{said}");
        std::io::stderr()
            .write_all(b"\n******** SKIPPED: port 53 may not be listened on ********\n\n")
            .unwrap();
        return;
    }
    let db = cluster_ip(&up, "default", "db");
    let name = "db.default.svc.cluster.local";
    dig(&server, &["+short", name], &format!("{db}\n"));
    dig(&server, &["+tcp", "+short", name], &format!("{db}\n"));
    dig(&server, &["+short", "-x", &db], &format!("{name}.\n"));
    dig(&server, &["DB.Default.svc.CLUSTER.local"], "DB.Default.svc.CLUSTER.local. 5 IN A ");
    dig(&server, &[name], "flags: qr aa rd ra;");
    dig(&server, &[name, "AAAA"], "status: NOERROR");
    dig(&server, &[name, "AAAA"], "ANSWER: 0, AUTHORITY: 1");
    dig(&server, &["none.default.svc.cluster.local"], "status: NXDOMAIN");
    dig(
        &server,
        &["none.default.svc.cluster.local"],
        "IN SOA ns.dns.cluster.local. hostmaster.cluster.local. ",
    );
    dig(&server, &["+short", "alias.default.svc.cluster.local"], "db.other.svc.cluster.local.\n");
    dig(
        &server,
        &["+short", "_sql._tcp.db.default.svc.cluster.local", "SRV"],
        &format!("0 100 5432 {name}.\n"),
    );
    dig(
        &server,
        &["+short", "_sql._tcp.dbs.default.svc.cluster.local", "SRV"],
        "0 100 5432 db-0.dbs.default.svc.cluster.local.\n",
    );
    dig(&server, &["+short", "dns-version.cluster.local", "TXT"], "\"1.1.0\"\n");
    dig(&server, &["+edns=1", "+noednsneg", name], "status: BADVERS");
    dig(&server, &["cluster.local", "AXFR"], "; Transfer failed.");

    // More than a datagram takes: dig asks again over TCP.
    let endpoints: Vec<String> = (1..=200).map(|i| format!("{{addresses: [127.251.0.{i}]}}")).collect();
    let many = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: many}}\nspec: {{clusterIP: None, ports: [{{port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: many-x, labels: {{kubernetes.io/service-name: many}}}}\naddressType: IPv4\n\
         ports: [{{port: 80}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    );
    up.kubectl_stdin(&["apply", "-f", "-"], &many);
    dig(&server, &["many.default.svc.cluster.local"], "ANSWER: 200");
    dig(&server, &["many.default.svc.cluster.local"], "Truncated, retrying in TCP mode");
}

/// 10.15, 16.1
#[test]
fn a_guest_speaks_to_the_api_as_its_service_account() {
    let up = Up::durable(&[]);
    let wasm = up.scratch().join("api.wasm");
    std::fs::write(&wasm, coracle::guests::fixture("api").unwrap()).unwrap();
    up.import(&wasm, "api:v1");
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    for server in
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    {
        let environment = format!("--env=API_SERVER={server}");
        up.kubectl(&[
            "run",
            "asks",
            "--image=api:v1",
            "--restart=Never",
            &environment,
            "--",
            "POST",
            path,
            review,
        ]);
        up.kubectl(&["wait", "pod/asks", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s"]);
        let said = up.kubectl(&["logs", "asks"]);
        assert!(said.starts_with("HTTP/1.1 201 Created\r\n"), "{server}: {said}");
        assert!(said.contains(r#""username":"system:serviceaccount:default:default""#), "{server}: {said}");
        up.kubectl(&["delete", "pod", "asks"]);
    }
}
