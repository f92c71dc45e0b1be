//! A pod that asks for configuration in every way there is, once for each WASI.

use serde_json::{Value, json};

use crate::harness::Up;

const SOURCES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: guests}
data: {color: blue, nested.key: deep, empty: ""}
binaryData: {raw: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: login, namespace: guests}
stringData: {user: ann, password: hunter2}
"#;

/// A pod whose container `main` asks for everything, and whose container `other` for one ConfigMap.
fn curious_pod(wasi: &str, steps: &[&str], others: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": wasi, "namespace": "guests",
            "labels": {"app": "curious", "tier": "front"}, "annotations": {"part": "nested.key"},
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main", "image": format!("files:{wasi}"), "imagePullPolicy": "IfNotPresent",
                    "args": steps,
                    "envFrom": [
                        {"prefix": "S_", "configMapRef": {"name": "settings"}},
                        {"secretRef": {"name": "login"}},
                        {"secretRef": {"name": "absent", "optional": true}},
                    ],
                    "env": [
                        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
                        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "login", "key": "no", "optional": true}}},
                        {"name": "URL", "value": "http://$(user):$(PASSWORD)@$(S_color)/$$(user)"},
                        {"name": "PART", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['part']"}}},
                        {"name": "user", "value": "bob"},
                    ],
                    "volumeMounts": [
                        {"name": "config", "mountPath": "/config"},
                        {"name": "secret", "mountPath": "/secret"},
                        {"name": "all", "mountPath": "/all/"},
                        {"name": "info", "mountPath": "info"},
                        {"name": "optional", "mountPath": "/optional"},
                        {"name": "config", "mountPath": "/etc/color.txt", "subPath": "color"},
                        {"name": "config", "mountPath": "/etc/part.txt", "subPathExpr": "$(PART)"},
                    ],
                },
                {
                    "name": "other", "image": format!("files:{wasi}"), "imagePullPolicy": "IfNotPresent",
                    "args": others,
                    "volumeMounts": [{"name": "config", "mountPath": "/config"}],
                },
            ],
            "volumes": [
                {"name": "config", "configMap": {"name": "settings"}},
                {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400, "items": [
                    {"key": "password", "path": "db/password"}, {"key": "user", "path": "db/user", "mode": 0o444},
                ]}},
                {"name": "info", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "limits/cpu", "resourceFieldRef": {"containerName": "main", "resource": "requests.cpu"}},
                ]}},
                {"name": "all", "projected": {"sources": [
                    {"configMap": {"name": "settings", "items": [{"key": "color", "path": "settings/color"}]}},
                    {"configMap": {"name": "absent", "optional": true}},
                    {"secret": {"name": "login"}},
                    {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                ]}},
                {"name": "optional", "configMap": {"name": "absent", "optional": true}},
            ],
        },
    })
}

pub(super) fn both_wasis_see_all_of_it(up: &Up) {
    // BEHAVIOURS 10.1, 10.2, 10.4, 10.6, 10.7, 10.9, 10.14.
    up.kubectl(&["create", "namespace", "guests"]);
    up.kubectl_stdin(&["create", "-f", "-"], SOURCES);
    let refused =
        ["overwrite", "append", "update", "truncate", "create", "mkdir", "remove", "rmdir", "rename", "link"]
            .map(|attempt| format!("{attempt}=ReadOnlyFilesystem"))
            .join(" ");
    let refused = refused.as_str();
    let steps = [
        ("env S_color", "blue"),
        ("env S_nested.key", "deep"),
        ("env S_empty", ""),
        ("env S_raw", "not set"),
        ("env password", "hunter2"),
        ("env COLOR", "blue"),
        ("env PASSWORD", "hunter2"),
        ("env ABSENT", "not set"),
        ("env URL", "http://ann:hunter2@blue/$(user)"),
        ("env user", "bob"),
        (
            "walk /config",
            "..TIME/ ..TIME/color(4) ..TIME/empty(0) ..TIME/nested.key(4) ..TIME/raw(3) ..data->..TIME \
             color->..data/color empty->..data/empty nested.key->..data/nested.key raw->..data/raw",
        ),
        (
            "walk /secret",
            "..TIME/ ..TIME/db/ ..TIME/db/password(7) ..TIME/db/user(3) ..data->..TIME db->..data/db",
        ),
        (
            "walk /all",
            "..TIME/ ..TIME/name(6) ..TIME/password(7) ..TIME/settings/ ..TIME/settings/color(4) ..TIME/user(3) \
             ..data->..TIME name->..data/name password->..data/password settings->..data/settings user->..data/user",
        ),
        (
            "walk /info",
            "..TIME/ ..TIME/labels(26) ..TIME/limits/ ..TIME/limits/cpu(1) ..data->..TIME labels->..data/labels \
             limits->..data/limits",
        ),
        ("walk /optional", "..TIME/ ..data->..TIME"),
        ("list /secret/db", "password user"),
        ("readlink /config/color", "..data/color"),
        ("stat /config/color", "file 4"),
        ("lstat /config/color", "link 12"),
        ("stat /secret/db", "directory 0"),
        ("age /secret/db/password", "recent"),
        ("read /config/..data/color", "blue"),
        ("read /config/raw", "\0\u{1}\u{2}"),
        ("read /secret/db/password", "hunter2"),
        ("read /info/labels", "app=\"curious\"\ntier=\"front\""),
        ("read /info/limits/cpu", "0"),
        ("read /etc/color.txt", "blue"),
        ("read /etc/part.txt", "deep"),
        ("seek /config/color 2 -3 +1 +-4", "2:ue 1:lue 5: 1:lue"),
        ("together /config/color /secret/db/password /all/user", "blue hunter2 ann"),
        ("refused /config color", refused),
        ("refused /secret db/user", refused),
        ("refused /all settings/color", refused),
        ("refused /info labels", refused),
        ("write /optional/x y", "Read-only file system"),
        ("write /etc/color.txt red", "Read-only file system"),
        ("read /etc/passwd", "No such file or directory"),
    ];
    // What a container does not ask for is not there, though its neighbour has it.
    let others = [
        ("read /config/color", "blue"),
        ("read /secret/db/password", "No such file or directory"),
        ("read /all/password", "No such file or directory"),
        ("env password", "not set"),
        ("env COLOR", "not set"),
    ];
    let asked = |steps: &[(&'static str, &str)]| -> Vec<&'static str> {
        steps.iter().map(|(step, _)| *step).collect()
    };
    let lines = |steps: &[(&str, &str)]| -> String {
        steps.iter().map(|(step, result)| format!("{step}: {result}\n")).collect()
    };
    for wasi in ["wasip1", "wasip2"] {
        let pod = curious_pod(wasi, &asked(&steps), &asked(&others));
        up.kubectl_stdin(&["create", "-f", "-"], &pod.to_string());
    }
    for wasi in ["wasip1", "wasip2"] {
        let ended = "--for=jsonpath={.status.phase}=Succeeded";
        up.kubectl(&["wait", &format!("pod/{wasi}"), "-nguests", ended, "--timeout=30s"]);
        assert_eq!(up.kubectl(&["logs", wasi, "-nguests", "-c", "main"]), lines(&steps), "{wasi}");
        assert_eq!(up.kubectl(&["logs", wasi, "-nguests", "-c", "other"]), lines(&others), "{wasi}");
    }
}
