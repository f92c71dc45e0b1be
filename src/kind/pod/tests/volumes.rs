use super::{KIND, LABEL, at, container, spec};
use crate::kind::testing::patched;

/// A volume with `fields`; the expected lines are relative to it.
#[track_caller]
fn volume(fields: &str, expected: &[&str]) {
    at("spec.volumes[0]", &format!("volumes: [{{name: v, {fields}}}]"), expected);
}

#[test]
fn volumes_have_one_source() {
    volume("emptyDir: {medium: Memory, sizeLimit: 1Mi}", &[]);
    volume(
        "emptyDir: {}, configMap: {name: a}, secret: {secretName: b}",
        &[
            ".secret: Forbidden: may not specify more than 1 volume type",
            ".configMap: Forbidden: may not specify more than 1 volume type",
        ],
    );
    volume(
        "emptyDir: {sizeLimit: -1}",
        &[".emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"],
    );
    spec("volumes: [{emptyDir: {}}]", &["volumes[0].name: Required value"]);
    spec("volumes: [{name: V}]", &[&format!("volumes[0].name: Invalid value: \"V\": {LABEL}")]);
    spec("volumes: [{name: v}, {name: v}]", &["volumes[1].name: Duplicate value: \"v\""]);
    // No node mounts these, yet they can be said.
    for good in [
        "hostPath: {path: /tmp, type: Directory}",
        "persistentVolumeClaim: {claimName: a}",
        "nfs: {server: a, path: /b}",
        "csi: {driver: a}",
        "image: {reference: a}",
    ] {
        volume(good, &[]);
    }
    volume("hostPath: {}", &[".hostPath.path: Required value"]);
    volume(
        "hostPath: {path: /a/../b, type: Thing}",
        &[
            ".hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ".hostPath.type: Unsupported value: \"Thing\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    volume("persistentVolumeClaim: {}", &[".persistentVolumeClaim.claimName: Required value"]);
    volume(
        "nfs: {}",
        &[
            ".nfs.server: Required value",
            ".nfs.path: Required value",
            ".nfs.path: Invalid value: \"\": must be an absolute path",
        ],
    );
    volume("rbd: {image: a}", &[".rbd.monitors: Required value"]);
    volume("ephemeral: {}", &[".ephemeral.volumeClaimTemplate: Required value"]);
}

/// BEHAVIOURS 10.7.
#[test]
fn files_stay_in_their_volume() {
    const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
    volume("configMap: {name: a, items: [{key: k, path: a/b, mode: 256}]}", &[]);
    volume("configMap: {}", &[".configMap.name: Required value"]);
    volume("secret: {}", &[".secret.secretName: Required value"]);
    volume(
        "secret: {secretName: a, defaultMode: 512}",
        &[&format!(".secret.defaultMode: Invalid value: 512: {MODE}")],
    );
    volume("configMap: {name: a, items: [{path: a}]}", &[".configMap.items[0].key: Required value"]);
    volume("configMap: {name: a, items: [{key: a}]}", &[".configMap.items[0].path: Required value"]);
    let item = |item: &str, expected: &str| {
        let expected = format!(".configMap.items[0].{expected}");
        volume(&format!("configMap: {{name: a, items: [{{key: k, {item}}}]}}"), &[&expected]);
    };
    item("path: /a", "path: Invalid value: \"/a\": must be a relative path");
    item("path: a/../b", "path: Invalid value: \"a/../b\": must not contain '..'");
    item("path: ..data", "path: Invalid value: \"..data\": must not start with '..'");
    item("path: ../a", "path: Invalid value: \"../a\": must not contain '..'");
    item("path: a, mode: -1", &format!("mode: Invalid value: -1: {MODE}"));

    volume("downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.labels}}]}", &[]);
    volume(
        "downwardAPI: {items: [{path: a}]}",
        &[".downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"],
    );
    volume(
        "downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu}}]}",
        &[".downwardAPI.resourceFieldRef.containerName: Required value"],
    );
    volume(
        "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: spec.nodeName}}]}",
        &[
            ".downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
        ],
    );

    volume("projected: {sources: [{secret: {name: a}}, {configMap: {name: b}}, {downwardAPI: {}}]}", &[]);
    volume("projected: {sources: [{secret: {}}]}", &[".projected.sources[0].secret.name: Required value"]);
    volume(
        "projected: {sources: [{secret: {name: a}, configMap: {name: b}}]}",
        &[".projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"],
    );
    volume(
        "projected: {sources: [{secret: {name: a, items: [{key: k, path: f}]}}, {configMap: {name: b, items: [{key: k, path: f}]}}]}",
        &[".projected: Invalid value: \"b\": conflicting duplicate paths"],
    );
    volume(
        "projected: {sources: [{serviceAccountToken: {expirationSeconds: 599}}]}",
        &[
            ".projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            ".projected.path: Required value",
            ".projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ],
    );
    spec(
        "serviceAccountName: default, volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
        &[],
    );
}

#[test]
fn mounts_name_volumes_and_places() {
    let mount = |mounts: &str, expected: &[&str]| {
        at(
            "spec.containers[0].volumeMounts",
            &format!(
                "volumes: [{{name: v}}, {{name: w}}], containers: [{{name: a, image: a, volumeMounts: [{mounts}]}}]"
            ),
            expected,
        );
    };
    mount("{name: v, mountPath: /a, subPath: b/c}, {name: v, mountPath: relative}", &[]);
    mount("{name: x, mountPath: /a}", &["[0].name: Not found: \"x\""]);
    mount("{mountPath: /a}", &["[0].name: Required value", "[0].name: Not found: \"\""]);
    mount("{name: v}", &["[0].mountPath: Required value"]);
    mount(
        "{name: v, mountPath: /a}, {name: w, mountPath: /a}",
        &["[1].mountPath: Invalid value: \"/a\": must be unique"],
    );
    mount(
        "{name: v, mountPath: /a, subPath: /b}",
        &[".subPath: Invalid value: \"/b\": must be a relative path"],
    );
    mount(
        "{name: v, mountPath: /a, subPath: b/../c}",
        &[".subPath: Invalid value: \"b/../c\": must not contain '..'"],
    );
    mount(
        "{name: v, mountPath: /a, subPath: b, subPathExpr: $(B)}",
        &["[0].subPathExpr: Invalid value: \"$(B)\": subPathExpr and subPath are mutually exclusive"],
    );
    mount(
        "{name: v, mountPath: /a, mountPropagation: Both}",
        &[
            ".mountPropagation: Unsupported value: \"Both\": supported values: \"Bidirectional\", \"HostToContainer\", \"None\"",
        ],
    );
    mount(
        "{name: v, mountPath: /a, recursiveReadOnly: Enabled}",
        &[".recursiveReadOnly: Forbidden: may only be specified when readOnly is true"],
    );
    container("volumeDevices: [{name: x, devicePath: /dev/x}]", &["volumeDevices[0].name: Not found: \"x\""]);
    // A volume in error cannot be mounted.
    spec(
        "volumes: [{name: v, configMap: {}}], containers: [{name: a, image: a, volumeMounts: [{name: v, mountPath: /a}]}]",
        &[
            "volumes[0].configMap.name: Required value",
            "containers[0].volumeMounts[0].name: Not found: \"v\"",
        ],
    );
}

#[test]
fn paths_that_overlap_are_warned_of() {
    // BEHAVIOURS 10.7: of two keys with one path the later stays, and no node can mount a file
    // inside a file.
    #[track_caller]
    fn check(volume: &str, expected: &[&str]) {
        let pod = patched(&KIND, super::BASE, &format!("{{spec: {{volumes: [{{name: v, {volume}}}]}}}}"));
        assert_eq!(KIND.strategy.warnings(&*pod), expected, "{volume}");
    }
    check("configMap: {name: m, items: [{key: a, path: x/a}, {key: b, path: x/b}, {key: c, path: xy}]}", &[]);
    check(
        "configMap: {name: m, items: [{key: a, path: x}, {key: b, path: x/b}]}",
        &[r#"volume "v" (ConfigMap "m"): overlapping paths: "x/b" with "x""#],
    );
    check(
        "secret: {secretName: s, items: [{key: a, path: x/}, {key: b, path: x}]}",
        &[r#"volume "v" (Secret "s"): overlapping paths: "x" with "x""#],
    );
    check(
        "downwardAPI: {items: [{path: a/b, fieldRef: {fieldPath: metadata.name}}, {path: a, fieldRef: {fieldPath: metadata.name}}]}",
        &[r#"volume "v" (DownwardAPI): overlapping paths: "a" with "a/b""#],
    );
    check(
        "projected: {sources: [{configMap: {name: m, items: [{key: a, path: x}]}}, {}, {secret: {name: s, items: [{key: a, path: x/y}]}}, {serviceAccountToken: {path: x/y/z}}]}",
        &[
            r#"volume "v" (Projected): overlapping paths: "x/y" (Secret "s") with "x" (ConfigMap "m")"#,
            r#"volume "v" (Projected): overlapping paths: "x/y/z" (ServiceAccountToken) with "x" (ConfigMap "m")"#,
            r#"volume "v" (Projected): overlapping paths: "x/y/z" (ServiceAccountToken) with "x/y" (Secret "s")"#,
            r#"volume "v" (Projected) has no sources provided"#,
        ],
    );
}
