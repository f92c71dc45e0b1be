use super::*;
use crate::clock::Clock;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "web"}},
        "spec": {"serviceAccountName": "a", "containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
    }))
    .unwrap()
}

fn found() -> Contents {
    let map: ConfigMap = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
        "data": {"a": "1", "b": "2"}, "binaryData": {"bin": "AAE="},
    }))
    .unwrap();
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "c2VjcmV0"},
    }))
    .unwrap();
    BTreeMap::from([
        (Source::config_map("m"), Arc::new(super::super::content::Content::of(&map))),
        (Source::secret("s"), Arc::new(super::super::content::Content::of(&secret))),
        (Source::account("a"), Arc::new(super::super::content::Content::of(&ServiceAccount::default()))),
    ])
}

/// `path mode content` of each file, or the error.
fn files(volume: Value) -> Result<Vec<String>, String> {
    let mut whole = json!({"name": "v"});
    whole.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
    let volume: Volume = serde_json::from_value(whole).unwrap();
    let (pod, allocatable, ip) = (pod(), BTreeMap::new(), Ipv4Addr::LOCALHOST);
    let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &allocatable };
    Ok(match content(&volume, &facts, &found(), None)? {
        Content::Files(shown) => shown
            .files
            .iter()
            .map(|(path, file)| format!("{path} {:o} {:?}", file.mode, file.content).replace("b\"", "\""))
            .collect(),
        Content::Empty { bytes_max } => vec![format!("empty {bytes_max}")],
    })
}

#[test]
fn projections() {
    // BEHAVIOURS 10.7.
    for (volume, expected) in [
        (json!({"configMap": {"name": "m"}}), vec![r#"a 644 "1""#, r#"b 644 "2""#, r#"bin 644 "\0\x01""#]),
        (
            json!({"configMap": {"name": "m", "defaultMode": 0o400, "items": [
                {"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o755},
            ]}}),
            vec![r#"x/y 400 "1""#, r#"z 755 "2""#],
        ),
        (json!({"secret": {"secretName": "s", "defaultMode": 0o600}}), vec![r#"key 600 "secret""#]),
        (json!({"configMap": {"name": "none", "optional": true}}), vec![]),
        (json!({"secret": {"secretName": "none", "optional": true}}), vec![]),
        (
            json!({"configMap": {"name": "m", "optional": true, "items": [
                {"key": "none", "path": "x"}, {"key": "a", "path": "y"},
            ]}}),
            vec![r#"y 644 "1""#],
        ),
        (
            json!({"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}, "mode": 0o444},
            ]}}),
            vec![r#"cpu 444 "2""#, r#"labels 644 "app=\"web\"""#],
        ),
        (
            json!({"projected": {"defaultMode": 0o440, "sources": [
                {"configMap": {"name": "m", "items": [{"key": "a", "path": "all/a"}]}},
                {"secret": {"name": "s"}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ]}}),
            vec![r#"all/a 440 "1""#, r#"key 440 "secret""#, r#"name 440 "p""#],
        ),
        // Of two sources of one path the later wins, however the path is written.
        (
            json!({"projected": {"sources": [
                {"configMap": {"name": "m"}},
                {"configMap": {"name": "m", "items": [{"key": "b", "path": "./a"}]}},
                {"secret": {"name": "s", "items": [{"key": "key", "path": "b"}]}},
            ]}}),
            vec![r#"a 644 "2""#, r#"b 644 "secret""#, r#"bin 644 "\0\x01""#],
        ),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t/token"}}]}}),
            vec![r#"t/token 644 """#],
        ),
        (json!({"emptyDir": {}}), vec!["empty 268435456"]),
        (json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}), vec!["empty 1048576"]),
    ] {
        assert_eq!(files(volume.clone()).unwrap(), expected, "{volume}");
    }
}

#[test]
fn what_cannot_be_made_says_why() {
    for (volume, message) in [
        (json!({"configMap": {"name": "none"}}), "configmap \"none\" not found"),
        (json!({"secret": {"secretName": "none"}}), "secret \"none\" not found"),
        (
            json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "x"}]}}),
            "configmap references non-existent config key: k",
        ),
        (
            json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "x"}]}}),
            "references non-existent secret key: k",
        ),
        (
            json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]}}),
            "invalid path: \"x\" cannot be a file and, for \"x/y\", a directory; give each key a path of its own",
        ),
        (
            json!({"projected": {"sources": [
                {"downwardAPI": {"items": [{"path": "key/n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"secret": {"name": "s"}},
            ]}}),
            "invalid path: \"key\" cannot be a file and, for \"key/n\", a directory; give each key a path of its own",
        ),
        (
            json!({"hostPath": {"path": "/"}}),
            "this node has configMap, secret, downwardAPI, projected and emptyDir volumes only; choose one of them",
        ),
    ] {
        assert_eq!(files(volume.clone()).unwrap_err(), message, "{volume}");
    }
    // Everything that is wrong with the sources of one volume is said at once.
    let several = json!({"projected": {"sources": [
        {"configMap": {"name": "none"}},
        {"secret": {"name": "s", "items": [{"key": "k", "path": "x"}]}},
        {"configMap": {"name": "none", "items": [{"key": "k", "path": "y"}]}},
        {"clusterTrustBundle": {"name": "c", "path": "ca.crt"}},
    ]}});
    assert_eq!(
        files(several).unwrap_err(),
        "[configmap \"none\" not found, references non-existent secret key: k, \
         clusterTrustBundle sources are not supported by this node; project the certificates from a ConfigMap]"
    );
    let error = MountError { volume: "v".into(), cause: "configmap \"a\" not found".into() };
    assert_eq!(error.to_string(), "MountVolume.SetUp failed for volume \"v\" : configmap \"a\" not found");
}

#[test]
fn only_mounted_volumes_are_made() {
    let mut pod = pod();
    let spec = pod.spec.as_mut().unwrap();
    spec.volumes = serde_json::from_value(json!([
        {"name": "used", "configMap": {"name": "m"}}, {"name": "unused", "secret": {"secretName": "none"}},
    ]))
    .unwrap();
    spec.containers[0].volume_mounts =
        serde_json::from_value(json!([{"name": "used", "mountPath": "/etc/config/"}])).unwrap();
    assert_eq!(sources(&pod, true), [Source::config_map("m")]);
    let (allocatable, ip) = (BTreeMap::new(), Ipv4Addr::LOCALHOST);
    let facts = Facts { pod: &pod, host_ip: ip, pod_ip: ip, allocatable: &allocatable };
    let volumes = Volumes::make(&facts, &found(), None, &Sources::none()).unwrap();
    let (mounts, _) = volumes.mounts(&pod.spec.as_ref().unwrap().containers[0], &[], false).unwrap();
    assert_eq!((mounts[0].path.as_str(), &mounts[0].sub_path), ("/etc/config", &None));
}

#[test]
fn a_token_needs_its_account_where_guests_run() {
    // BEHAVIOURS 10.15.
    let volume = json!({"name": "kube-api-access-abcde", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "m"}},
    ]}});
    let mut pod = pod();
    let spec = pod.spec.as_mut().unwrap();
    spec.volumes = serde_json::from_value(json!([volume])).unwrap();
    spec.containers[0].volume_mounts =
        serde_json::from_value(json!([{"name": "kube-api-access-abcde", "mountPath": "/t"}])).unwrap();
    assert_eq!(sources(&pod, true), [Source::account("a"), Source::config_map("m")]);
    assert_eq!(sources(&pod, false), []);
    let api = Arc::new(crate::kubelet::token::tests::FakeApi::default());
    let tokens = Tokens::new(api, Clock::real(), &pod);
    let made = |pod: &Pod, tokens: Option<&Tokens>| -> Result<Vec<String>, String> {
        let (allocatable, ip) = (BTreeMap::new(), Ipv4Addr::LOCALHOST);
        let facts = Facts { pod, host_ip: ip, pod_ip: ip, allocatable: &allocatable };
        let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
        let made = content(volume, &facts, &found(), tokens);
        // The same token each time, so that a change of another file leaves it alone.
        assert_eq!(made, content(volume, &facts, &found(), tokens));
        match made? {
            Content::Files(shown) => {
                assert!(shown.settings.is_empty(), "it is no configuration of the pod's");
                Ok(shown.files.into_keys().collect())
            }
            Content::Empty { .. } => panic!("a projected volume holds files"),
        }
    };
    assert_eq!(made(&pod, Some(&tokens)).unwrap(), ["a", "b", "bin", "token"]);
    assert_eq!(made(&pod, None).unwrap(), [""; 0]);
    pod.spec.as_mut().unwrap().service_account_name = Some("gone".into());
    let missing = "failed to fetch token: serviceaccounts \"gone\" not found";
    assert_eq!(made(&pod, Some(&tokens)).unwrap_err(), missing);
    assert_eq!(made(&pod, None).unwrap(), [""; 0]);
}

#[test]
fn parts_of_volumes() {
    // BEHAVIOURS 10.9.
    let env = [("NAME", "x"), ("UP", ".."), ("EMPTY", "")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (plain, expression, expected) in [
        (None, None, Ok(None)),
        (Some(""), None, Ok(None)),
        (Some("a/b"), None, Ok(Some("a/b"))),
        (None, Some("logs/$(NAME)"), Ok(Some("logs/x"))),
        (None, Some("$(NONE)"), Err("failed to expand subPathExpr \"$(NONE)\": missing value for NONE")),
        (
            None,
            Some("$(Z)/$(EMPTY)/$(NAME)/$(A)"),
            Err("failed to expand subPathExpr \"$(Z)/$(EMPTY)/$(NAME)/$(A)\": missing value for A, EMPTY, Z"),
        ),
        (None, Some("$$(NAME)"), Ok(Some("$(NAME)"))),
        (Some("/a"), None, Err("failed to prepare subPath \"/a\": must be a relative path without '..'")),
        (
            None,
            Some("$(UP)/a"),
            Err("failed to prepare subPath \"../a\": must be a relative path without '..'"),
        ),
    ] {
        let result = sub_path(plain, expression, &env);
        assert_eq!(result.as_ref().map(Option::as_deref).map_err(String::as_str), expected);
    }
}

#[test]
fn a_volume_is_made_anew_for_its_own_sources_only() {
    // BEHAVIOURS 10.8.
    let pod: Pod = serde_json::from_value(json!({
        "spec": {"containers": [], "serviceAccountName": "a", "volumes": [
            {"name": "one", "configMap": {"name": "m"}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "none", "emptyDir": {}},
        ]},
    }))
    .unwrap();
    let content = || Arc::new(super::super::content::Content::of(&ConfigMap::default()));
    let (map, account) = (Source::config_map("m"), Source::account("a"));
    let before: Contents = [(map.clone(), content()), (account.clone(), content())].into();
    let differing = |after: &Contents| -> Vec<&str> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        volumes.filter(|volume| differs(&pod, volume, &before, after)).map(|v| v.name.as_str()).collect()
    };
    assert!(differing(&before).is_empty());
    let mut after = before.clone();
    after.insert(map.clone(), content());
    assert_eq!(differing(&after), ["one"]);
    after.remove(&account);
    assert_eq!(differing(&after), ["one", "token"]);
    assert_eq!(differing(&Contents::new()), ["one", "token"]);
}
