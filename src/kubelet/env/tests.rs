use super::*;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::kind::quantity::Amount;

#[test]
fn references_expand() {
    // BEHAVIOURS 10.2, with the cases of upstream's table that differ.
    let value = |name: &str| match name {
        "A" => Some("1".to_owned()),
        "EMPTY" => Some(String::new()),
        "B" => Some("$(A)".to_owned()),
        _ => None,
    };
    for (text, expanded) in [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(EMPTY)|", "|"),
        ("$(B)", "$(A)"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A", "$A"),
        ("$", "$"),
        ("a$", "a$"),
        ("$(A", "$(A"),
        ("$(A$(A)", "$(A$(A)"),
        ("$()", "$()"),
        ("$)", "$)"),
        ("é$(A)é", "é1é"),
    ] {
        assert_eq!(expand(text, value), expanded, "{text}");
    }
}

fn map(name: &str, data: Value) -> Arc<ConfigMap> {
    Arc::new(
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data
        }))
        .unwrap(),
    )
}

fn secret_of(name: &str, key: &str, value: &[u8]) -> Arc<Secret> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.into());
    let value = k8s_openapi::ByteString(value.to_vec());
    secret.data = Some(BTreeMap::from([(key.to_owned(), value)]));
    Arc::new(secret)
}

fn found() -> Found {
    Found {
        config_maps: BTreeMap::from([
            ("m".into(), map("m", json!({"X": "map", "Y": "map"}))),
            ("names".into(), map("names", json!({"REFERENCE": "$(Y)", "a.b-c": "1", "9": "2"}))),
        ]),
        secrets: BTreeMap::from([
            ("s".into(), secret_of("s", "X", b"secret")),
            ("bytes".into(), secret_of("bytes", "raw", b"\xffhunter2")),
            ("nul".into(), secret_of("nul", "raw", b"hunter\x002")),
        ]),
        ..Found::default()
    }
}

fn container(json: Value) -> Container {
    let mut whole = json!({"name": "c", "image": "reg.example/team/hello:v1"});
    whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "namespace": "n", "uid": "u",
            "labels": {"b": "2", "a": "1\"x"}, "annotations": {"note": "hi"},
        },
        "spec": {
            "nodeName": "node", "serviceAccountName": "sa",
            "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "free"},
            ],
        },
    }))
    .unwrap()
}

fn make(json: Value) -> Result<Vec<String>, EnvError> {
    let pod = pod();
    let allocatable = BTreeMap::from([
        ("cpu".to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("4".into())),
        ("memory".to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("1Gi".into())),
    ]);
    let facts = Facts {
        pod: &pod,
        host_ip: Ipv4Addr::new(127, 64, 0, 1),
        pod_ip: Ipv4Addr::new(127, 128, 0, 1),
        allocatable: &allocatable,
    };
    let services = [("SVC_HOST".to_owned(), "1.2.3.4".to_owned()), ("X".to_owned(), "service".to_owned())];
    let env = build(&container(json), &facts, &found(), &services)?;
    Ok(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

#[test]
fn later_sources_win_and_services_come_last() {
    // BEHAVIOURS 10.1.
    for (case, lines) in [
        (json!({}), vec!["SVC_HOST=1.2.3.4", "X=service"]),
        (
            json!({"envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}]}),
            vec!["X=secret", "Y=map", "SVC_HOST=1.2.3.4"],
        ),
        (
            json!({"envFrom": [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "m"}}]}),
            vec!["X=map", "Y=map", "SVC_HOST=1.2.3.4"],
        ),
        (
            json!({"envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}], "env": [{"name": "P_X", "value": "env"}]}),
            vec!["P_X=env", "P_Y=map", "SVC_HOST=1.2.3.4", "X=service"],
        ),
        // Any name that a key or a prefix can make is a variable's.
        (
            json!({"envFrom": [{"prefix": "1 ", "configMapRef": {"name": "names"}}]}),
            vec!["1 9=2", "1 REFERENCE=$(Y)", "1 a.b-c=1", "SVC_HOST=1.2.3.4", "X=service"],
        ),
        // What is optional and absent hides nothing.
        (
            json!({
                "envFrom": [{"configMapRef": {"name": "m"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}],
            }),
            vec!["X=map", "Y=map", "SVC_HOST=1.2.3.4"],
        ),
        (
            json!({"env": [{"name": "HOSTNAME", "value": "mine"}, {"name": "X"}]}),
            vec!["HOSTNAME=mine", "X=", "SVC_HOST=1.2.3.4"],
        ),
    ] {
        assert_eq!(make(case.clone()).unwrap(), lines, "{case}");
    }
}

#[test]
fn values_see_what_came_before_them() {
    // BEHAVIOURS 10.2: what the runtime adds is not among it, and valueFrom is taken as it is.
    let env = json!({"env": [
        {"name": "LATE", "value": "$(A)"},
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)-$(SVC_HOST)-$(Y)"},
        {"name": "HOST", "value": "$(HOSTNAME)"},
        {"name": "RAW", "valueFrom": {"configMapKeyRef": {"name": "names", "key": "REFERENCE"}}},
        {"name": "AGAIN", "value": "$(RAW)"},
    ], "envFrom": [{"configMapRef": {"name": "m"}}]});
    let lines = make(env).unwrap();
    for raw in ["HOST=$(HOSTNAME)", "RAW=$(Y)", "AGAIN=$(Y)"] {
        assert!(lines.contains(&raw.into()), "{raw} in {lines:?}");
    }
    assert!(lines.contains(&"LATE=$(A)".into()), "{lines:?}");
    assert!(lines.contains(&"B=a-1.2.3.4-map".into()), "{lines:?}");
}

#[test]
fn fields_and_resources() {
    // BEHAVIOURS 10.4.
    for (path, value) in [
        ("metadata.name", "p"),
        ("metadata.namespace", "n"),
        ("metadata.uid", "u"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "hi"),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "127.64.0.1"),
        ("status.podIP", "127.128.0.1"),
        ("status.podIPs", "127.128.0.1"),
    ] {
        let lines =
            make(json!({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]})).unwrap();
        assert_eq!(lines[0], format!("V={value}"), "{path}");
    }
    for (reference, value) in [
        (json!({"resource": "limits.cpu"}), "2"),
        (json!({"resource": "limits.cpu", "divisor": "1m"}), "1500"),
        (json!({"resource": "requests.cpu"}), "1"),
        (json!({"resource": "limits.memory"}), "67108864"),
        (json!({"resource": "limits.memory", "divisor": "1Mi"}), "64"),
        (json!({"resource": "limits.cpu", "containerName": "free"}), "4"),
        (json!({"resource": "limits.memory", "containerName": "free"}), "1073741824"),
        (json!({"resource": "requests.memory", "containerName": "free"}), "0"),
    ] {
        let env = json!({"env": [{"name": "V", "valueFrom": {"resourceFieldRef": reference}}]});
        assert_eq!(make(env.clone()).unwrap()[0], format!("V={value}"), "{env}");
    }
}

#[test]
fn labels_are_sorted_lines() {
    let pod = pod();
    let allocatable = BTreeMap::new();
    let ip = Ipv4Addr::LOCALHOST;
    let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &allocatable };
    assert_eq!(fields::field(&facts, "metadata.labels").unwrap(), "a=\"1\\\"x\"\nb=\"2\"");
    assert_eq!(fields::field(&facts, "spec.other"), None);
}

#[test]
fn what_is_missing_is_named_unless_optional() {
    // BEHAVIOURS 10.3.
    let key = |kind: &str, name: &str, key: &str, optional: bool| json!({"env": [{"name": "V", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}]});
    for (case, message) in [
        (json!({"envFrom": [{"configMapRef": {"name": "a"}}]}), "configmap \"a\" not found"),
        (json!({"envFrom": [{"secretRef": {"name": "a"}}]}), "secret \"a\" not found"),
        (key("configMapKeyRef", "a", "k", false), "configmap \"a\" not found"),
        (key("configMapKeyRef", "m", "k", false), "couldn't find key k in ConfigMap n/m"),
        (key("secretKeyRef", "s", "k", false), "couldn't find key k in Secret n/s"),
    ] {
        assert_eq!(make(case.clone()).unwrap_err().0, message, "{case}");
    }
    for case in [
        json!({"envFrom": [{"configMapRef": {"name": "a", "optional": true}}]}),
        key("configMapKeyRef", "a", "k", true),
        key("configMapKeyRef", "m", "k", true),
        key("secretKeyRef", "a", "k", true),
        key("secretKeyRef", "s", "k", true),
    ] {
        assert_eq!(make(case.clone()).unwrap(), ["SVC_HOST=1.2.3.4", "X=service"], "{case}");
    }
}

#[test]
fn command_lines() {
    let env = [("A".to_owned(), "1".to_owned())];
    for (case, line) in [
        (json!({}), vec!["hello"]),
        (json!({"args": ["-x", "$(A)"]}), vec!["hello", "-x", "1"]),
        (json!({"command": ["run", "$(A)"], "args": ["$$(A)", "$(B)"]}), vec!["run", "1", "$(A)", "$(B)"]),
    ] {
        assert_eq!(args(&container(case), &env, &ImageConfig::default()).unwrap(), line);
    }
    let cut = container(json!({"args": ["a", "b\0c"]}));
    let why = "cannot pass argument 2 of the command line: it holds a NUL byte, where guests would cut it";
    assert_eq!(args(&cut, &env, &ImageConfig::default()).unwrap_err().0, why);
}

#[test]
fn values_that_guests_cannot_take_are_refused_and_not_shown() {
    // BEHAVIOURS 10.1, where WebAssembly differs: environments are text.
    let from = |name: &str| json!({"envFrom": [{"prefix": "P_", "secretRef": {"name": name}}]});
    let key = |name: &str| json!({"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "raw"}}}]});
    let not_text = "key raw in Secret n/bytes is not UTF-8 text; mount it as a file instead";
    let cut = "its value holds a NUL byte, where guests would cut it; mount the value as a file instead";
    for (case, name, why) in [
        (from("bytes"), "P_raw", not_text),
        (key("bytes"), "V", not_text),
        (from("nul"), "P_raw", cut),
        (key("nul"), "V", cut),
        (json!({"env": [{"name": "V", "value": "a\0b"}]}), "V", cut),
    ] {
        let message = make(case.clone()).unwrap_err().0;
        assert_eq!(message, format!("cannot set variable {name:?}: {why}"), "{case}");
    }
}

#[test]
fn the_runtime_names_the_host_unless_the_pod_does() {
    for (env, expected) in [
        (vec![("A", "1")], vec![("HOSTNAME", "p"), ("A", "1")]),
        (vec![("HOSTNAME", "mine")], vec![("HOSTNAME", "mine")]),
    ] {
        let owned = |list: Vec<(&str, &str)>| -> Vec<(String, String)> {
            list.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(with_hostname(owned(env), &pod()), owned(expected));
    }
}

#[test]
fn values_are_quoted_as_go_does() {
    // BEHAVIOURS 10.4: `%q`.
    let mut pod = pod();
    for (value, quoted) in [
        ("plain, 'it' and é", r#""plain, 'it' and é""#),
        (r#"say "hi" \ "#, r#""say \"hi\" \\ ""#),
        ("a\nb\tc\rd", r#""a\nb\tc\rd""#),
        ("\x07\x08\x0b\x0c\x00\x1b\x7f", r#""\a\b\v\f\x00\x1b\x7f""#),
        ("\u{85}\u{a0}\u{200b}\u{feff}\u{e000}", r#""\u0085\u00a0\u200b\ufeff\ue000""#),
        ("e\u{301} 🦀 \u{e0001}", "\"e\u{301} 🦀 \\U000e0001\""),
    ] {
        pod.metadata.annotations = Some(BTreeMap::from([("k".to_owned(), value.to_owned())]));
        let allocatable = BTreeMap::new();
        let ip = Ipv4Addr::LOCALHOST;
        let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &allocatable };
        assert_eq!(fields::field(&facts, "metadata.annotations").unwrap(), format!("k={quoted}"));
    }
}

#[test]
fn host_names_are_cut() {
    let mut pod = pod();
    pod.metadata.name = Some(format!("{}-b", "a".repeat(62)));
    assert_eq!(fields::hostname(&pod), "a".repeat(62));
    pod.spec.as_mut().unwrap().hostname = Some("web".into());
    assert_eq!(fields::hostname(&pod), "web");
    pod.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(fields::hostname(&pod), "node");
}

#[test]
fn a_container_without_a_limit_has_its_pods() {
    let mut pod = pod();
    let own = json!({"limits": {"cpu": "3", "memory": "64Mi"}});
    pod.spec.as_mut().unwrap().resources = serde_json::from_value(own).unwrap();
    let bare = container(json!({}));
    let limited = container(json!({"resources": {"limits": {"cpu": "1"}}}));
    let bound = |container, name| fields::bound(&pod, container, name).map(Amount::millis);
    assert_eq!((bound(&bare, "cpu"), bound(&limited, "cpu")), (Some(3000), Some(1000)));
    assert_eq!(bound(&limited, "memory"), Some((64 << 20) * 1000));
    assert_eq!(bound(&limited, "ephemeral-storage"), None);
}

#[test]
fn the_image_says_what_the_pod_does_not() {
    let image = |entrypoint: &[&str], cmd: &[&str]| ImageConfig {
        entrypoint: entrypoint.iter().map(|&text| text.to_owned()).collect(),
        cmd: cmd.iter().map(|&text| text.to_owned()).collect(),
        env: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
    };
    let full = image(&["/x.wasm", "-v"], &["a", "$(A)"]);
    // The table of "Define a Command and Arguments for a Container", and images without an entry point.
    for (container, image, line) in [
        (json!({}), &full, &["/x.wasm", "-v", "a", "$(A)"][..]),
        (json!({"args": ["b"]}), &full, &["/x.wasm", "-v", "b"]),
        (json!({"command": ["c"]}), &full, &["c"]),
        (json!({"command": ["c"], "args": ["b"]}), &full, &["c", "b"]),
        (json!({}), &image(&[], &["/x.wasm", "a"]), &["/x.wasm", "a"]),
        (json!({"args": ["b"]}), &image(&[], &["/x.wasm", "a"]), &["/x.wasm", "b"]),
        (json!({}), &image(&[], &[]), &["mine"]),
        (json!({"args": ["b"]}), &image(&[], &[]), &["mine", "b"]),
    ] {
        let mut container: Container = serde_json::from_value({
            let mut object = json!({"name": "c", "image": "reg:5000/a/mine:v1"});
            object.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
            object
        })
        .unwrap();
        container.name = "c".into();
        assert_eq!(args(&container, &[], image).unwrap(), line);
    }
    let env = with_image(vec![("B".into(), "pod".into())], &full);
    assert_eq!(env, [("A".into(), "image".into()), ("B".into(), "pod".into())]);
}
