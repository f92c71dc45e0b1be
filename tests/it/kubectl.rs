//! Unmodified kubectl against a real cluster: every verb, no warning, Kubernetes' own messages.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Up, has, text};

const WEB: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: default, labels: {app: web}}
data: {color: blue, size: small}
";

/// One cluster for all that follows: each part works in a namespace of its own.
#[test]
fn kubectl_works_unmodified() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&["--nodes", "2"]);
    std::thread::scope(|scope| {
        for part in [
            asks_about_the_cluster,
            creates_changes_and_deletes,
            applies_and_diffs,
            patches_in_three_ways,
            selects_and_formats,
            watches,
            explains,
            validates,
            refuses_bad_input,
            deletes_namespaces,
            exposes_and_events,
        ] {
            let up = &up;
            scope.spawn(move || part(up));
        }
    });
}

fn asks_about_the_cluster(up: &Up) {
    assert!(up.kubectl(&["version"]).contains("Server Version: v1.32"));
    assert!(up.kubectl(&["cluster-info"]).contains("Kubernetes control plane"));
    let resources = up.kubectl(&["api-resources"]);
    for row in
        ["configmaps", "events.k8s.io/v1", "leases", "endpointslices", "priorityclasses", "runtimeclasses"]
    {
        assert!(resources.contains(row), "{row} in\n{resources}");
    }
    assert!(up.kubectl(&["api-versions"]).contains("coordination.k8s.io/v1"));
    let nodes = up.kubectl(&["get", "nodes", "-o", "wide"]);
    assert_eq!(nodes.matches(" Ready ").count(), 2, "{nodes}");
    let namespaces = up.kubectl(&["get", "ns", "-o", "name"]);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(namespaces.contains(&format!("namespace/{name}\n")), "{namespaces}");
    }
    up.kubectl(&["wait", "--for=create", "sa/default", "cm/kube-root-ca.crt", "--timeout=10s"]);
    assert!(up.kubectl(&["describe", "node", "node-0"]).contains("Allocatable:"));
    assert_eq!(up.kubectl(&["get", "--raw", "/readyz"]), "ok");
    assert!(up.kubectl(&["get", "--raw", "/metrics"]).contains("apiserver_request"));
}

fn creates_changes_and_deletes(up: &Up) {
    let n = "-ncrud";
    up.kubectl(&["create", "namespace", "crud"]);
    assert_eq!(up.kubectl(&["create", "configmap", "a", "--from-literal=k=v", n]), "configmap/a created\n");
    let again = up.kubectl_fails(&["create", "configmap", "a", n]);
    assert_eq!(again, "error: failed to create configmap: configmaps \"a\" already exists\n");
    up.kubectl(&["create", "secret", "generic", "s", "--from-literal=password=hunter2", n]);
    assert_eq!(up.kubectl(&["get", "secret", "s", n, "-o", "jsonpath={.data.password}"]), "aHVudGVyMg==");
    assert_eq!(up.kubectl(&["label", "cm", "a", "tier=front", n]), "configmap/a labeled\n");
    assert_eq!(up.kubectl(&["annotate", "cm", "a", "note=hello", n]), "configmap/a annotated\n");
    assert!(up.kubectl(&["get", "cm", "-l", "tier=front", n, "-o", "name"]).contains("configmap/a"));
    up.kubectl(&["label", "cm", "a", "tier-", n]);

    // `edit` with an editor that changes one word.
    let output = up
        .kubectl_command(&["edit", "cm", "a", n])
        .env("EDITOR", "sed -i s/k:.*/k:\\ edited/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(up.kubectl(&["get", "cm", "a", n, "-o", "jsonpath={.data.k}"]), "edited");

    let stale = up.kubectl(&["get", "cm", "a", n, "-o", "yaml"]);
    up.kubectl_stdin(&["replace", "-f", "-"], &stale.replace("edited", "replaced"));
    let conflict = up.kubectl_stdin_fails(&["replace", "-f", "-"], &stale);
    assert!(
        conflict.contains("Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"),
        "{conflict}"
    );
    assert_eq!(up.kubectl(&["delete", "cm", "a", n]), "configmap \"a\" deleted\n");
    assert_eq!(
        up.kubectl_fails(&["get", "cm", "a", n]),
        "Error from server (NotFound): configmaps \"a\" not found\n"
    );
    assert_eq!(up.kubectl(&["delete", "cm", "a", n, "--ignore-not-found"]), "");
    let missing = up.kubectl_fails(&["create", "cm", "b", "-nnowhere"]);
    assert_eq!(missing, "error: failed to create configmap: namespaces \"nowhere\" not found\n");
}

fn applies_and_diffs(up: &Up) {
    up.kubectl(&["create", "namespace", "apply"]);
    let web = WEB.replace("namespace: default", "namespace: apply");
    assert_eq!(up.kubectl_stdin(&["apply", "-f", "-"], &web), "configmap/web created\n");
    assert_eq!(up.kubectl_stdin(&["apply", "-f", "-"], &web), "configmap/web unchanged\n");
    let red = web.replace("blue", "red").replace(", size: small", "");
    let output = up.kubectl_with_input(&["diff", "-f", "-"], &red);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let diff = text(&output.stdout);
    assert!(diff.contains("-  color: blue") && diff.contains("+  color: red"), "{diff}");
    assert_eq!(up.kubectl_stdin(&["apply", "-f", "-"], &red), "configmap/web configured\n");
    assert_eq!(up.kubectl(&["get", "cm", "web", "-napply", "-o", "jsonpath={.data}"]), "{\"color\":\"red\"}");
    let dry = web.replace("name: web", "name: dry");
    assert_eq!(
        up.kubectl_stdin(&["apply", "--dry-run=server", "-f", "-"], &dry),
        "configmap/dry created (server dry run)\n"
    );
    up.kubectl_fails(&["get", "cm", "dry", "-napply"]);
    let unknown = up.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &dry);
    assert!(text(&unknown.stderr).contains("the body of the request was in an unknown format"));
}

fn patches_in_three_ways(up: &Up) {
    up.kubectl(&["create", "namespace", "patch"]);
    let n = "-npatch";
    up.kubectl(&["create", "cm", "p", "--from-literal=a=1", n]);
    up.kubectl(&["patch", "cm", "p", n, "--type=merge", "-p", r#"{"data":{"b":"2"}}"#]);
    let json = r#"[{"op":"test","path":"/data/a","value":"1"},{"op":"remove","path":"/data/a"}]"#;
    up.kubectl(&["patch", "cm", "p", n, "--type=json", "-p", json]);
    up.kubectl(&["patch", "cm", "p", n, "-p", r#"{"data":{"c":"3"}}"#]);
    assert_eq!(up.kubectl(&["get", "cm", "p", n, "-o", "jsonpath={.data}"]), r#"{"b":"2","c":"3"}"#);
    let failed = up.kubectl_fails(&["patch", "cm", "p", n, "--type=json", "-p", json]);
    assert!(failed.contains("the server rejected our request") || failed.contains("invalid"), "{failed}");

    // Strategic merge: lists by their keys.
    up.kubectl_stdin(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: patch}, spec: {ports: [{name: a, port: 1}, {name: b, port: 2}]}}",
    );
    up.kubectl(&["patch", "svc", "s", n, "-p", r#"{"spec":{"ports":[{"port":2,"name":"c"}]}}"#]);
    let names = up.kubectl(&["get", "svc", "s", n, "-o", "jsonpath={.spec.ports[*].name}"]);
    let mut names: Vec<&str> = names.split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "c"]);
}

fn selects_and_formats(up: &Up) {
    up.kubectl(&["create", "namespace", "select"]);
    let n = "-nselect";
    for (name, labels) in [("one", "app=x,tier=front"), ("two", "app=x"), ("three", "app=y")] {
        up.kubectl(&["create", "cm", name, n]);
        let mut arguments = vec!["label", "cm", name, n];
        arguments.extend(labels.split(','));
        up.kubectl(&arguments);
    }
    let names = |selector: &str| {
        up.kubectl(&["get", "cm", n, "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"])
    };
    assert_eq!(names("app=x"), "one two");
    assert_eq!(names("app in (x,y),!tier"), "three two");
    assert_eq!(names("app!=x"), "kube-root-ca.crt three");
    let by_field = up.kubectl(&["get", "cm", n, "--field-selector", "metadata.name=two", "-o", "name"]);
    assert_eq!(by_field, "configmap/two\n");
    let refused = up.kubectl_fails(&["get", "cm", n, "--field-selector", "spec.x=1"]);
    assert!(refused.contains("field label not supported: spec.x"), "{refused}");
    let table = up.kubectl(&["get", "cm", "one", n]);
    assert!(table.starts_with("NAME   DATA   AGE\none    0      "), "{table}");
    let everywhere = up.kubectl(&["get", "cm", "-A", "--chunk-size=2"]);
    assert!(everywhere.starts_with("NAMESPACE") && everywhere.contains("three"), "{everywhere}");
    assert!(up.kubectl(&["get", "cm", "one", n, "-o", "json"]).contains("\"kind\": \"ConfigMap\""));
    assert_eq!(up.kubectl(&["delete", "cm", n, "-l", "app=x"]).lines().count(), 2);
}

fn watches(up: &Up) {
    up.kubectl(&["create", "namespace", "watch"]);
    let mut child = up
        .kubectl_command(&["get", "cm", "-nwatch", "--watch", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "configmap/kube-root-ca.crt");
    up.kubectl(&["create", "cm", "seen", "-nwatch"]);
    assert_eq!(lines.next().unwrap(), "configmap/seen");
    up.kubectl(&["label", "cm", "seen", "a=b", "-nwatch"]);
    assert_eq!(lines.next().unwrap(), "configmap/seen");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn explains(up: &Up) {
    let pod = up.kubectl(&["explain", "pod.spec.containers"]);
    for part in [
        "KIND:       Pod",
        "FIELD: containers <[]Container>",
        "List of containers belonging to the pod",
        "image\t<string>",
    ] {
        assert!(pod.contains(part), "{part} in\n{pod}");
    }
    assert!(up.kubectl(&["explain", "lease.spec"]).contains("GROUP:      coordination.k8s.io"));
}

fn validates(up: &Up) {
    up.kubectl(&["create", "namespace", "validate"]);
    let odd = "{apiVersion: v1, kind: ConfigMap, metadata: {name: odd, namespace: validate}, dta: {a: b}}";
    let strict = up.kubectl_stdin_fails(&["create", "-f", "-"], odd);
    assert!(strict.contains("strict decoding error: unknown field \"dta\""), "{strict}");
    let output = up.kubectl_with_input(&["create", "--validate=warn", "-f", "-"], odd);
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "Warning: unknown field \"dta\"\n");
    up.kubectl(&["delete", "cm", "odd", "-nvalidate"]);
    up.kubectl_stdin(&["create", "--validate=ignore", "-f", "-"], odd);
    let wrong = "{apiVersion: v1, kind: ConfigMap, metadata: {name: wrong, namespace: validate}, data: [1]}";
    let typed = up.kubectl_stdin_fails(&["create", "--validate=ignore", "-f", "-"], wrong);
    assert!(typed.contains("BadRequest") && typed.contains("cannot be handled as a ConfigMap"), "{typed}");
}

fn refuses_bad_input(up: &Up) {
    up.kubectl(&["create", "namespace", "bad"]);
    let pod = |spec: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: bad}}, spec: {spec}}}")
    };
    let invalid = up.kubectl_stdin_fails(&["create", "-f", "-"], &pod("{containers: []}"));
    assert_eq!(invalid, "The Pod \"p\" is invalid: spec.containers: Required value\n");
    let two = up.kubectl_stdin_fails(
        &["create", "-f", "-"],
        &pod("{restartPolicy: Sometimes, containers: [{name: A, image: x}]}"),
    );
    assert!(
        two.starts_with("The Pod \"p\" is invalid: \n* spec.containers[0].name: Invalid value: \"A\""),
        "{two}"
    );
    assert!(
        two.contains("* spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""),
        "{two}"
    );
    let selector = up.kubectl_fails(&["get", "pods", "-l", "a=(b"]);
    assert!(
        selector.to_lowercase().contains("unable to parse") || selector.contains("BadRequest"),
        "{selector}"
    );
    let name = up.kubectl_fails(&["create", "cm", "Bad_Name", "-nbad"]);
    assert!(name.contains("a lowercase RFC 1123 subdomain must consist of"), "{name}");
    let immortal = up.kubectl_fails(&["delete", "namespace", "default"]);
    assert!(immortal.contains("this namespace may not be deleted"), "{immortal}");

    let big = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: big, namespace: bad}}, data: {{a: \"{}\"}}}}",
        "x".repeat((1 << 20) + 1)
    );
    let too_long = up.kubectl_stdin_fails(&["create", "-f", "-"], &big);
    assert!(too_long.contains("Too long: may not be more than 1048576 bytes"), "{too_long}");
    let huge = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: big, namespace: bad}}, data: {{a: \"{}\"}}}}",
        "x".repeat(4 << 20)
    );
    let too_large = up.kubectl_stdin_fails(&["create", "-f", "-"], &huge);
    assert!(too_large.contains("too large"), "{too_large}");
    // The cluster is as responsive as before.
    up.kubectl(&["get", "--raw", "/livez"]);
}

fn deletes_namespaces(up: &Up) {
    up.kubectl(&["create", "namespace", "gone"]);
    up.kubectl(&["create", "cm", "held", "-ngone"]);
    up.kubectl(&[
        "patch",
        "cm",
        "held",
        "-ngone",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
    ]);
    up.kubectl(&["create", "secret", "generic", "s", "-ngone"]);
    up.kubectl(&["delete", "namespace", "gone", "--wait=false"]);
    up.kubectl(&["wait", "ns/gone", "--for=jsonpath={.status.phase}=Terminating", "--timeout=20s"]);
    up.kubectl(&["wait", "ns/gone", "--for=condition=NamespaceFinalizersRemaining", "--timeout=20s"]);
    let conditions = up.kubectl(&["get", "ns", "gone", "-o", "jsonpath={.status.conditions}"]);
    assert!(conditions.contains("example.com/hold in 1 resource instances"), "{conditions}");
    let refused = up.kubectl_fails(&["create", "cm", "late", "-ngone"]);
    assert!(
        refused.contains("unable to create new content in namespace gone because it is being terminated"),
        "{refused}"
    );
    up.kubectl(&[
        "patch",
        "cm",
        "held",
        "-ngone",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    up.kubectl(&["wait", "ns/gone", "--for=delete", "--timeout=20s"]);
}

fn exposes_and_events(up: &Up) {
    up.kubectl(&["create", "namespace", "expose"]);
    let n = "-nexpose";
    up.kubectl(&["run", "web", "--image=coracle.dev/worker:v1", "--port=80", n, "--", "3600"]);
    assert_eq!(up.kubectl(&["expose", "pod", "web", n]), "service/web exposed\n");
    let address = up.kubectl(&["get", "svc", "web", n, "-o", "jsonpath={.spec.clusterIP}"]);
    assert!(address.starts_with("127."), "{address}");
    up.kubectl(&["wait", "pod/web", n, "--for=condition=Ready", "--timeout=30s"]);
    let described = up.kubectl(&["describe", "pod", "web", n]);
    assert!(described.contains("Successfully assigned expose/web to node-"), "{described}");
    assert!(up.kubectl(&["events", n, "--for", "pod/web"]).contains("Scheduled"));
    up.kubectl(&["delete", "pod", "web", n]);
}
