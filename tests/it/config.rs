//! ConfigMaps and Secrets as people make and use them: real kubectl, and guests of both WASIs.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle::guests;
use serde_json::{Value, json};

use crate::harness::{Up, has, text};

mod consumption;

/// One cluster for all that follows: each part works in a namespace of its own.
#[test]
fn configuration_and_secrets_end_to_end() {
    if !has("kubectl") {
        return;
    }
    let up = Up::durable(&["--nodes", "2"]);
    for (guest, image) in [("files", "files:wasip2"), ("files.p1", "files:wasip1"), ("env", "env:v1")] {
        let wasm = up.scratch().join(format!("{guest}.wasm"));
        fs::write(&wasm, guests::fixture(guest).unwrap()).unwrap();
        up.import(&wasm, image);
    }
    std::thread::scope(|scope| {
        for part in [
            config_maps_of_every_form,
            secrets_of_every_form,
            what_is_sealed_stays,
            consumption::both_wasis_see_all_of_it,
            edits_and_deletions_reach_what_runs,
            missing_sources_are_waited_for,
            what_cannot_be_is_told,
        ] {
            let up = &up;
            scope.spawn(move || part(up));
        }
    });
}

fn object(up: &Up, arguments: &[&str]) -> Value {
    serde_json::from_str(&up.kubectl(&[&["get", "-o", "json"], arguments].concat())).unwrap()
}

/// The messages of the first `count` events about a pod with this reason, sorted; waits for them.
fn told(up: &Up, pod: &str, reason: &str, namespace: &str, count: usize) -> Vec<String> {
    let about = format!("--field-selector=reason={reason},involvedObject.name={pod}");
    let each = "jsonpath={.message}{\"\\n\"}";
    let mut child = up
        .kubectl_command(&["get", "events", namespace, &about, "--watch", "-o", each])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut messages: Vec<String> = lines.take(count).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    messages.sort();
    messages
}

/// Files to make objects from; the path of one of them.
fn sources(up: &Up, folder: &str) -> impl Fn(&str) -> String {
    let root = up.scratch().join(folder);
    let tree = root.join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("a.txt"), "alpha\n").unwrap();
    fs::write(tree.join("b"), "beta").unwrap();
    fs::write(tree.join("raw.bin"), b"\xff\0\xfe").unwrap();
    fs::write(tree.join("sub/ignored"), "kubectl takes no sub-directories").unwrap();
    fs::write(root.join("app.env"), "# settings\nCOLOR=blue\n\nSIZE=very large\nEMPTY=\n").unwrap();
    fs::write(root.join("more.env"), "MORE=1\n").unwrap();
    move |name| root.join(name).to_str().unwrap().to_owned()
}

fn config_maps_of_every_form(up: &Up) {
    // BEHAVIOURS 10.10.
    let n = "-nmaps";
    up.kubectl(&["create", "namespace", "maps"]);
    let path = sources(up, "maps");
    let file = |from: &str| format!("--from-file={}", path(from));
    let (directory, a, raw) = (file("tree"), file("tree/a.txt"), file("tree/raw.bin"));
    let (directory, a, raw) = (directory.as_str(), a.as_str(), raw.as_str());
    let renamed = format!("--from-file=renamed={}", path("tree/b"));
    let (env, more) = (path("app.env"), path("more.env"));
    let (env, more) = (format!("--from-env-file={env}"), format!("--from-env-file={more}"));
    let bytes = "/wD+";
    for (name, arguments, data, binary) in [
        (
            "literal",
            vec!["--from-literal=k=v", "--from-literal=l=a=b"],
            json!({"k": "v", "l": "a=b"}),
            Value::Null,
        ),
        (
            "file",
            vec![a, &renamed, raw],
            json!({"a.txt": "alpha\n", "renamed": "beta"}),
            json!({"raw.bin": bytes}),
        ),
        ("dir", vec![directory], json!({"a.txt": "alpha\n", "b": "beta"}), json!({"raw.bin": bytes})),
        (
            "env",
            vec![env.as_str(), &more],
            json!({"COLOR": "blue", "SIZE": "very large", "EMPTY": "", "MORE": "1"}),
            Value::Null,
        ),
        ("empty", vec![], Value::Null, Value::Null),
    ] {
        let mut command = vec!["create", "configmap", name, n];
        command.extend(&arguments);
        assert_eq!(up.kubectl(&command), format!("configmap/{name} created\n"));
        let map = object(up, &["configmap", name, n]);
        assert_eq!((&map["data"], &map["binaryData"]), (&data, &binary), "{name}");

        // The same by way of a manifest: nothing of it changes. A time that is null would be a change
        // each time, in Kubernetes too.
        command.extend(["--dry-run=client", "-o", "yaml"]);
        let manifest = up.kubectl(&command);
        let applied = manifest.replace("  creationTimestamp: null\n", "");
        let applied = applied.replace(&format!("name: {name}"), &format!("name: {name}-applied"));
        up.kubectl_stdin(&["apply", "-f", "-"], &applied);
        let map = object(up, &["configmap", &format!("{name}-applied"), n]);
        assert_eq!((&map["data"], &map["binaryData"]), (&data, &binary), "{name}");
        let again = up.kubectl_stdin(&["apply", "-f", "-"], &applied);
        assert_eq!(again, format!("configmap/{name}-applied unchanged\n"));
    }
    assert!(up.kubectl(&["get", "configmap", "dir", n]).contains("dir    3 "));
    let described = up.kubectl(&["describe", "configmap", "dir", n]);
    assert!(described.contains("alpha") && described.contains("raw.bin: 3 bytes"), "{described}");
    for (key, why) in [
        ("a/b", "a valid config key must consist of alphanumeric characters"),
        ("..a", "must not start with '..'"),
        ("..", "must not be '..'"),
    ] {
        let manifest = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad", "namespace": "maps"},
            "data": {key: ""},
        });
        let refused = up.kubectl_stdin_fails(&["create", "-f", "-"], &manifest.to_string());
        let start = format!("The ConfigMap \"bad\" is invalid: data[{key}]: Invalid value: {key:?}: {why}");
        assert!(refused.starts_with(&start), "{refused}");
    }
}

fn secrets_of_every_form(up: &Up) {
    // BEHAVIOURS 10.12.
    let n = "-nsecrets";
    up.kubectl(&["create", "namespace", "secrets"]);
    let path = sources(up, "secrets");
    let decoded = |name: &str| -> (String, Vec<(String, Vec<u8>)>) {
        let secret = object(up, &["secret", name, n]);
        let data = secret["data"].as_object().cloned().unwrap_or_default();
        let values =
            data.into_iter().map(|(key, value)| (key, STANDARD.decode(value.as_str().unwrap()).unwrap()));
        (secret["type"].as_str().unwrap().to_owned(), values.collect())
    };
    let pair = |key: &str, value: &[u8]| (key.to_owned(), value.to_owned());

    let renamed = format!("--from-file=renamed={}", path("tree/raw.bin"));
    up.kubectl(&["create", "secret", "generic", "mixed", n, "--from-literal=password=hunter2", &renamed]);
    let expected = vec![pair("password", b"hunter2"), pair("renamed", b"\xff\0\xfe")];
    assert_eq!(decoded("mixed"), ("Opaque".to_owned(), expected));
    up.kubectl(&["create", "secret", "generic", "dir", n, &format!("--from-file={}", path("tree"))]);
    let expected = vec![pair("a.txt", b"alpha\n"), pair("b", b"beta"), pair("raw.bin", b"\xff\0\xfe")];
    assert_eq!(decoded("dir"), ("Opaque".to_owned(), expected));
    up.kubectl(&["create", "secret", "generic", "env", n, &format!("--from-env-file={}", path("more.env"))]);
    assert_eq!(decoded("env").1, [pair("MORE", b"1")]);

    let issued = rcgen::generate_simple_self_signed(["web.example".to_owned()]).unwrap();
    let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    fs::write(path("tls.crt"), &certificate).unwrap();
    fs::write(path("tls.key"), &key).unwrap();
    let (cert_flag, key_flag) = (format!("--cert={}", path("tls.crt")), format!("--key={}", path("tls.key")));
    up.kubectl(&["create", "secret", "tls", "tls", n, &cert_flag, &key_flag]);
    let expected = vec![pair("tls.crt", certificate.as_bytes()), pair("tls.key", key.as_bytes())];
    assert_eq!(decoded("tls"), ("kubernetes.io/tls".to_owned(), expected));
    let registry = ["--docker-server=reg.example", "--docker-username=u", "--docker-password=p"];
    up.kubectl(&[&["create", "secret", "docker-registry", "pull", n], &registry[..]].concat());
    let (of, data) = decoded("pull");
    assert_eq!((of.as_str(), data[0].0.as_str()), ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"));
    let config: Value = serde_json::from_slice(&data[0].1).unwrap();
    assert_eq!(config["auths"]["reg.example"]["username"], "u");

    let switched = format!(
        "[{{\"op\": \"replace\", \"path\": \"/data/tls.key\", \"value\": {:?}}}]",
        STANDARD.encode(&certificate)
    );
    let warned = up.kubectl_output(&["patch", "secret", "tls", n, "--type=json", "-p", &switched]);
    assert_eq!(text(&warned.stdout), "secret/tls patched\n");
    let why = "tls: found a certificate rather than a key in the PEM for the private key";
    assert_eq!(text(&warned.stderr), format!("Warning: {why}\n"));

    // A manifest with stringData, twice; what is shown has none of it, and describe no value.
    let manifest = "{apiVersion: v1, kind: Secret, metadata: {name: text, namespace: secrets}, data: {a: eA==, b: eQ==}, stringData: {a: z}}";
    assert_eq!(up.kubectl_stdin(&["apply", "-f", "-"], manifest), "secret/text created\n");
    assert_eq!(decoded("text").1, [pair("a", b"z"), pair("b", b"y")]);
    assert!(object(up, &["secret", "text", n]).get("stringData").is_none());
    let described = up.kubectl(&["describe", "secret", "mixed", n]);
    assert!(described.contains("password:  7 bytes") && !described.contains("hunter2"), "{described}");
    assert!(up.kubectl(&["get", "secrets", n]).contains("kubernetes.io/tls"));

    let generic = |name: &str, of: &str, literal: &str| {
        let (of, literal) = (format!("--type={of}"), format!("--from-literal={literal}"));
        up.kubectl_fails(&["create", "secret", "generic", name, n, &of, &literal])
    };
    for (of, literal, why) in [
        (
            "kubernetes.io/basic-auth",
            "k=v",
            "[data[username]: Required value, data[password]: Required value]",
        ),
        ("kubernetes.io/ssh-auth", "k=v", "data[ssh-privatekey]: Required value"),
        ("kubernetes.io/tls", "tls.crt=", "data[tls.key]: Required value"),
        ("kubernetes.io/dockercfg", "k=v", "data[.dockercfg]: Required value"),
        (
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson=hunter2",
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\"",
        ),
        (
            "kubernetes.io/service-account-token",
            "k=v",
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        ),
    ] {
        let refused = generic("bad", of, literal);
        let start = format!("error: failed to create secret Secret \"bad\" is invalid: {why}");
        assert!(refused.starts_with(&start) && !refused.contains("hunter2"), "{refused}");
    }
    let retyped = up.kubectl_fails(&["patch", "secret", "mixed", n, "-p", r#"{"type":"example.com/own"}"#]);
    assert_eq!(
        retyped,
        "The Secret \"mixed\" is invalid: type: Invalid value: \"example.com/own\": field is immutable\n"
    );
    let bad =
        "{apiVersion: v1, kind: Secret, metadata: {name: bad, namespace: secrets}, data: {a: \"%hunter2\"}}";
    let refused = up.kubectl_stdin_fails(&["create", "--validate=false", "-f", "-"], bad);
    assert!(refused.contains("BadRequest") && !refused.contains("hunter2"), "{refused}");
    fs::write(path("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let large = format!("--from-file={}", path("large"));
    let refused = up.kubectl_fails(&["create", "secret", "generic", "large", n, &large]);
    assert!(refused.contains("data: Too long: may not be more than 1048576 bytes"), "{refused}");
}

fn what_is_sealed_stays(up: &Up) {
    // BEHAVIOURS 10.11.
    let n = "-nsealed";
    up.kubectl(&["create", "namespace", "sealed"]);
    up.kubectl(&["create", "configmap", "sealed", n, "--from-literal=k=v"]);
    up.kubectl(&["create", "secret", "generic", "sealed", n, "--from-literal=k=v"]);
    let seal = r#"{"immutable":true}"#;
    for (kind, shown) in [("configmap", "ConfigMap"), ("secret", "Secret")] {
        assert_eq!(up.kubectl(&["patch", kind, "sealed", n, "-p", seal]), format!("{kind}/sealed patched\n"));
        for (field, change) in [
            ("immutable", r#"{"immutable":false}"#),
            ("immutable", r#"{"immutable":null}"#),
            ("data", r#"{"data":{"k":"dw=="}}"#),
            ("data", r#"{"data":{"more":"dw=="}}"#),
            ("data", r#"{"data":null}"#),
        ] {
            let refused = up.kubectl_fails(&["patch", kind, "sealed", n, "-p", change]);
            let expected = format!(
                "The {shown} \"sealed\" is invalid: {field}: Forbidden: field is immutable when `immutable` is set\n"
            );
            assert_eq!(refused, expected, "{change}");
        }
        up.kubectl(&["label", kind, "sealed", n, "a=b"]);
    }
    let binary = r#"{"binaryData":{"b":"AA=="}}"#;
    let refused = up.kubectl_fails(&["patch", "configmap", "sealed", n, "-p", binary]);
    assert!(refused.contains("binaryData: Forbidden: field is immutable"), "{refused}");
    let edited = up
        .kubectl_command(&["edit", "configmap", "sealed", n])
        .env("EDITOR", "sed -i s/k:.*/k:\\ edited/")
        .output()
        .unwrap();
    assert!(!edited.status.success(), "{}", text(&edited.stdout));
    assert!(text(&edited.stderr).contains("configmaps \"sealed\""), "{}", text(&edited.stderr));
    up.kubectl(&["delete", "configmap,secret", "sealed", n]);
}

/// The log of one container of the pod `live`, line by line.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn new(up: &Up, container: &str) -> Self {
        let arguments = ["logs", "-f", "live", "-nlive", "-c", container];
        let mut command = up.kubectl_command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    #[track_caller]
    fn says(&mut self, expected: &str) {
        assert_eq!(self.lines.next().unwrap().unwrap(), expected);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn edits_and_deletions_reach_what_runs(up: &Up) {
    // BEHAVIOURS 10.7, 10.8.
    let n = "-nlive";
    up.kubectl(&["create", "namespace", "live"]);
    let apply = |password: &str| {
        let manifest = format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: login, namespace: live}}, stringData: {{password: {password}}}}}"
        );
        up.kubectl_stdin(&["apply", "-f", "-"], &manifest);
    };
    apply("one");
    up.kubectl(&["create", "configmap", "optional", n, "--from-literal=text=here"]);
    let container = |name: &str, file: &str| {
        format!(
            "{{name: {name}, image: 'coracle.dev/logger:v1', args: [/{name}/{file}], \
             env: [{{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: login, key: password}}}}}}], \
             volumeMounts: [{{name: {name}, mountPath: /{name}}}]}}"
        )
    };
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: live, namespace: live, labels: {{app: a}}}}, spec: {{\
         containers: [{}, {}, {}], volumes: [\
         {{name: optional, configMap: {{name: optional, optional: true}}}}, \
         {{name: secret, secret: {{secretName: login}}}}, \
         {{name: info, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}]}}}}",
        container("optional", "text"),
        container("secret", "password"),
        container("info", "labels"),
    );
    up.kubectl_stdin(&["create", "-f", "-"], &pod);
    up.kubectl(&["wait", "pod/live", n, "--for=condition=Ready", "--timeout=30s"]);

    let mut optional = Follower::new(up, "optional");
    optional.says("/optional/text: here");
    up.kubectl(&["delete", "configmap", "optional", n]);
    optional.says("/optional/text: No such file or directory (os error 44)");
    up.kubectl(&["create", "configmap", "optional", n, "--from-literal=text=back"]);
    optional.says("/optional/text: back");
    drop(optional);

    let mut secret = Follower::new(up, "secret");
    secret.says("/secret/password: one");
    apply("two");
    secret.says("/secret/password: two");
    // What is not optional stays when its source goes, and an event says so.
    up.kubectl(&["delete", "secret", "login", n]);
    let gone = "MountVolume.SetUp failed for volume \"secret\" : secret \"login\" not found";
    assert_eq!(told(up, "live", "FailedMount", n, 1), [gone]);
    apply("three");
    secret.says("/secret/password: three");
    drop(secret);

    let mut info = Follower::new(up, "info");
    info.says("/info/labels: app=\"a\"");
    up.kubectl(&["label", "pod", "live", n, "app=b", "--overwrite"]);
    info.says("/info/labels: app=\"b\"");
    drop(info);
    // None of it has restarted anything.
    let restarts =
        up.kubectl(&["get", "pod", "live", n, "-o", "jsonpath={.status.containerStatuses[*].restartCount}"]);
    assert_eq!(restarts, "0 0 0");
}

fn missing_sources_are_waited_for(up: &Up) {
    // BEHAVIOURS 10.3, 10.7, 10.9.
    let n = "-nmissing";
    up.kubectl(&["create", "namespace", "missing"]);
    let pod = |name: &str, container: &str, more: &str| {
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: missing}}, spec: {{restartPolicy: Never, \
             containers: [{{name: main, image: 'files:wasip2', imagePullPolicy: IfNotPresent, {container}}}]{more}}}}}"
        );
        up.kubectl_stdin(&["create", "-f", "-"], &manifest);
    };
    let waits = |name: &str, message: &str| {
        let waiting = "{.status.containerStatuses[0].state.waiting";
        let reason = format!("--for=jsonpath={waiting}.reason}}=CreateContainerConfigError");
        up.kubectl(&["wait", &format!("pod/{name}"), n, &reason, "--timeout=20s"]);
        let said = up.kubectl(&["get", "pod", name, n, "-o", &format!("jsonpath={waiting}.message}}")]);
        assert_eq!(said, message);
        assert!(up.kubectl(&["get", "pod", name, n]).contains("CreateContainerConfigError"));
        assert_eq!(told(up, name, "Failed", n, 1), [format!("Error: {message}")]);
    };
    let runs = |name: &str, log: &str| {
        let ended = "--for=jsonpath={.status.phase}=Succeeded";
        up.kubectl(&["wait", &format!("pod/{name}"), n, ended, "--timeout=20s"]);
        assert_eq!(up.kubectl(&["logs", name, n]), log);
    };

    // A variable: first the Secret is missing, then its key.
    pod(
        "variable",
        "args: ['env V'], env: [{name: V, valueFrom: {secretKeyRef: {name: later, key: k}}}]",
        "",
    );
    waits("variable", "secret \"later\" not found");
    up.kubectl(&["create", "secret", "generic", "later", n, "--from-literal=other=x"]);
    let message = "--for=jsonpath={.status.containerStatuses[0].state.waiting.message}=couldn't find key k in Secret missing/later";
    up.kubectl(&["wait", "pod/variable", n, message, "--timeout=20s"]);
    up.kubectl(&["patch", "secret", "later", n, "-p", r#"{"stringData":{"k":"found"}}"#]);
    runs("variable", "env V: found\n");

    // A volume, of two that are missing: each is told of.
    let volumes = ", volumes: [{name: a, configMap: {name: one}}, {name: b, projected: {sources: [{configMap: {name: two}}, {secret: {name: three}}]}}]";
    let mounts =
        "args: ['read /a/k', 'walk /b'], volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]";
    pod("volume", mounts, volumes);
    let expected = [
        "MountVolume.SetUp failed for volume \"a\" : configmap \"one\" not found",
        "MountVolume.SetUp failed for volume \"b\" : [configmap \"two\" not found, secret \"three\" not found]",
    ];
    assert_eq!(told(up, "volume", "FailedMount", n, 2), expected);
    assert!(up.kubectl(&["describe", "pod", "volume", n]).contains(expected[0]));
    assert!(up.kubectl(&["get", "pod", "volume", n]).contains("ContainerCreating"));
    up.kubectl(&["create", "configmap", "one", n, "--from-literal=k=v"]);
    up.kubectl(&["create", "configmap", "two", n, "--from-literal=m=v"]);
    up.kubectl(&["create", "secret", "generic", "three", n, "--from-literal=s=v"]);
    let b = "..TIME/ ..TIME/m(1) ..TIME/s(1) ..data->..TIME m->..data/m s->..data/s";
    runs("volume", &format!("read /a/k: v\nwalk /b: {b}\n"));

    // A part of a volume named by an annotation that is not there yet.
    pod(
        "part",
        "args: ['read /part'], env: [{name: DIR, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['dir']\"}}}], \
         volumeMounts: [{name: a, mountPath: /part, subPathExpr: $(DIR)}]",
        ", volumes: [{name: a, configMap: {name: one}}]",
    );
    waits("part", "failed to expand subPathExpr \"$(DIR)\": missing value for DIR");
    up.kubectl(&["annotate", "pod", "part", n, "dir=k"]);
    runs("part", "read /part: v\n");
}

fn what_cannot_be_is_told(up: &Up) {
    // BEHAVIOURS 10.1, 10.7.
    let n = "-nodd";
    up.kubectl(&["create", "namespace", "odd"]);
    up.kubectl(&["create", "configmap", "m", n, "--from-literal=a=1", "--from-literal=b=2"]);
    let overlapping = "{apiVersion: v1, kind: Pod, metadata: {name: overlap, namespace: odd}, spec: {containers: [{name: main, image: 'coracle.dev/hello:v1', volumeMounts: [{name: v, mountPath: /v}]}], \
         volumes: [{name: v, configMap: {name: m, items: [{key: a, path: x}, {key: b, path: x/y}]}}]}}";
    let output = up.kubectl_with_input(&["create", "-f", "-"], overlapping);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "Warning: volume \"v\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\"\n"
    );
    let message = &told(up, "overlap", "FailedMount", n, 1)[0];
    assert!(message.contains("\"x\" cannot be a file and, for \"x/y\", a directory"), "{message}");

    // A value that no variable of a guest can hold.
    let path = sources(up, "odd");
    let raw = format!("--from-file=raw={}", path("tree/raw.bin"));
    up.kubectl(&["create", "secret", "generic", "raw", n, &raw]);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: raw, namespace: odd}, spec: {restartPolicy: Never, containers: [{name: main, image: 'env:v1', imagePullPolicy: IfNotPresent, envFrom: [{secretRef: {name: raw}}]}]}}";
    up.kubectl_stdin(&["create", "-f", "-"], pod);
    let waiting = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
    up.kubectl(&["wait", "pod/raw", n, &format!("--for={waiting}"), "--timeout=20s"]);
    assert_eq!(
        up.kubectl(&["get", "pod", "raw", n, "-o", waiting]),
        "cannot set variable \"raw\": key raw in Secret odd/raw is not UTF-8 text; mount it as a file instead"
    );
    // Text instead, and it goes on.
    up.kubectl(&["patch", "secret", "raw", n, "-p", r#"{"stringData":{"raw":"text"}}"#]);
    up.kubectl(&["wait", "pod/raw", n, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s"]);
    assert!(up.kubectl(&["logs", "raw", n]).contains("raw=text\n"));
    // The cluster is as well as before.
    up.kubectl(&["get", "--raw", "/readyz"]);
}
