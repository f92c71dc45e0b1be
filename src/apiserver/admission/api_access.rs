//! What a pod needs to speak to the API: a token of its account, the authority and its namespace, in every
//! container (BEHAVIOURS 10.15). The rules are those of upstream's ServiceAccount plugin.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};

const NAME: &str = "kube-api-access-";
/// Characters behind the name.
pub(super) const SUFFIX_CHARS: usize = 5;
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and the seven seconds by which Kubernetes tells its own tokens from those asked for by hand.
const TOKEN_SECONDS: i64 = 3607;
const MODE: i32 = 0o644;
const AUTHORITY: &str = "kube-root-ca.crt";
const AUTHORITY_FILE: &str = "ca.crt";

/// Whether the pod is to have it: the pod's own word wins over its account's.
pub(super) fn is_wanted(spec: &PodSpec, account: &ServiceAccount) -> bool {
    spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true)
}

/// Mounts it in every container that has nothing there yet.
pub(super) fn mount(spec: &mut PodSpec, suffix: impl FnOnce() -> String) {
    let volumes = spec.volumes.iter().flatten();
    let own = volumes.map(|volume| &volume.name).find(|name| name.starts_with(NAME)).cloned();
    let has_volume = own.is_some();
    let lacking = |container: &&mut Container| {
        container.volume_mounts.iter().flatten().all(|mount| mount.mount_path != MOUNT_PATH)
    };
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let mut lacking = containers.filter(lacking).peekable();
    if lacking.peek().is_none() {
        return;
    }
    let name = own.unwrap_or_else(|| format!("{NAME}{}", suffix()));
    for container in lacking {
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    if !has_volume {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

fn volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: None,
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".to_owned(),
    };
    let authority = ConfigMapProjection {
        name: AUTHORITY.to_owned(),
        items: Some(vec![KeyToPath {
            key: AUTHORITY_FILE.to_owned(),
            path: AUTHORITY_FILE.to_owned(),
            mode: None,
        }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(MODE), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mounted(spec: Value) -> Value {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        mount(&mut spec, || "abcde".to_owned());
        serde_json::to_value(spec).unwrap()
    }

    #[test]
    fn the_pods_word_wins_over_the_accounts() {
        // BEHAVIOURS 10.15.
        for (pod, account, expected) in [
            (None, None, true),
            (None, Some(false), false),
            (None, Some(true), true),
            (Some(true), Some(false), true),
            (Some(false), Some(true), false),
        ] {
            let spec = PodSpec { automount_service_account_token: pod, ..PodSpec::default() };
            let account =
                ServiceAccount { automount_service_account_token: account, ..ServiceAccount::default() };
            assert_eq!(is_wanted(&spec, &account), expected, "{pod:?} {account:?}");
        }
    }

    #[test]
    fn every_container_that_has_nothing_there_gets_it() {
        let mount = json!({"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH});
        let own = json!({"name": "own", "mountPath": MOUNT_PATH});
        let spec = mounted(json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
                           {"name": "b", "volumeMounts": [own]}],
            "volumes": [{"name": "x", "emptyDir": {}}, {"name": "own", "emptyDir": {}}],
        }));
        assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(spec["containers"][0]["volumeMounts"][1], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"], json!([own]));
        assert_eq!(
            spec["volumes"][2],
            json!({"name": "kube-api-access-abcde", "projected": {"defaultMode": 0o644, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}})
        );
        // A volume of such a name is taken for it; with nothing to mount there is none.
        let given = json!({"containers": [{"name": "a"}], "volumes": [{"name": "kube-api-access-own"}]});
        let spec = mounted(given);
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-own");
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
        let none = json!({"containers": [{"name": "b", "volumeMounts": [own]}]});
        assert_eq!(mounted(none.clone()), none);
    }
}
