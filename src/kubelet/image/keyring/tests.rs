use k8s_openapi::ByteString;

use super::*;

/// The credentials of a Secret with that uid, for one host.
pub(crate) fn of_secret(host: &str, uid: &str) -> Keyring {
    let mut keyring = keyring(&[host]);
    for (_, key) in &mut keyring.entries {
        key.secret = Some(uid.to_owned());
    }
    keyring
}

/// Users in the order in which they are tried.
fn users(keyring: &Keyring, image: &str) -> Vec<String> {
    let (host, repository) = image.split_once('/').unwrap();
    let user = |key: Key| match key.credential {
        Credential::Basic { username, .. } => username,
        Credential::Identity(token) | Credential::Bearer(token) => token,
    };
    keyring.lookup(host, repository).into_iter().map(user).collect()
}

fn keyring(places: &[&str]) -> Keyring {
    let auth = |place: &&str| ((*place).to_owned(), serde_json::json!({"username": place, "password": "p"}));
    let auths: serde_json::Map<String, serde_json::Value> = places.iter().map(auth).collect();
    Keyring::from_config(serde_json::json!({ "auths": auths }).to_string().as_bytes()).unwrap()
}

#[test]
fn entries_match_by_host_port_and_path() {
    for (place, image, expected) in [
        ("reg.example", "reg.example/a/b", true),
        ("https://reg.example/v2/", "reg.example/a/b", true),
        ("http://reg.example/v1", "reg.example/a/b", true),
        ("reg.example/a", "reg.example/a/b", true),
        ("reg.example/a/", "reg.example/a/b", true),
        ("reg.example/b", "reg.example/a/b", false),
        ("reg.example:5000", "reg.example:5000/a", true),
        ("reg.example", "reg.example:5000/a", false),
        ("reg.example:5000", "reg.example/a", false),
        ("*.example", "reg.example/a", true),
        ("*.example", "a.reg.example/a", false),
        ("r?g.*", "reg.example/a", true),
        ("*.*.example", "a.reg.example/a", true),
        ("*g.example", "reg.example/a", true),
        ("x*.example", "reg.example/a", false),
        ("https://index.docker.io/v1/", "docker.io/library/a", true),
        ("docker.io", "docker.io/library/a", true),
        ("docker.io", "ghcr.io/library/a", false),
    ] {
        assert_eq!(!users(&keyring(&[place]), image).is_empty(), expected, "{place} for {image}");
    }
}

#[test]
fn the_most_particular_is_tried_first_and_all_that_match_are() {
    let mut all = keyring(&["reg.example", "reg.example/a", "reg.example/a/b", "*.example"]);
    let order = ["reg.example/a/b", "reg.example/a", "reg.example", "*.example"];
    assert_eq!(users(&all, "reg.example/a/b"), order);
    all.append(keyring(&["reg.example/a", "reg.example/a/bc"]));
    assert_eq!(users(&all, "reg.example/a/bc")[4..], ["reg.example/a/bc"], "the same is not tried twice");
}

#[test]
fn many_stars_take_no_time() {
    let pattern = format!("{}b.example", "*a".repeat(60));
    assert_eq!(users(&keyring(&[&pattern]), &format!("{}.example/x", "a".repeat(200))), [""; 0]);
}

#[test]
fn credentials_are_read_in_every_form() {
    let auth = STANDARD.encode("me:pa:ss");
    for (auth, expected) in [
        (format!(r#"{{"auth": "{auth}"}}"#), Some(("me", "pa:ss"))),
        (r#"{"username": "u", "password": "p"}"#.to_owned(), Some(("u", "p"))),
        (r"{}".to_owned(), None),
    ] {
        let keyring = Keyring::from_config(format!(r#"{{"auths": {{"a.b": {auth}}}}}"#).as_bytes()).unwrap();
        let found = keyring.lookup("a.b", "x").into_iter().next().map(|key| key.credential);
        let expected = expected.map(|(username, password)| Credential::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        });
        assert_eq!(found, expected, "{auth}");
        let old = Keyring::from_dockercfg(format!(r#"{{"a.b": {auth}}}"#).as_bytes()).unwrap();
        assert_eq!(old, keyring);
    }
    for (field, expected) in [("identitytoken", "Identity(…)"), ("registrytoken", "Bearer(…)")] {
        let keyring =
            Keyring::from_config(format!(r#"{{"auths": {{"a.b": {{"{field}": "t"}}}}}}"#).as_bytes())
                .unwrap();
        assert_eq!(format!("{:?}", keyring.lookup("a.b", "x")[0].credential), expected);
    }
}

#[test]
fn secrets_tell_whose_they_are_and_errors_tell_nothing() {
    let secret = |type_: &str, key: &str, json: &str| Secret {
        type_: Some(type_.to_owned()),
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            uid: Some("u1".to_owned()),
            ..Default::default()
        },
        data: Some(BTreeMap::from([(key.to_owned(), ByteString(json.as_bytes().to_vec()))])),
        ..Secret::default()
    };
    let auths = r#"{"auths": {"a.b": {"username": "u", "password": "p"}}}"#;
    let good = secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", auths);
    assert_eq!(Keyring::from_secret(&good).unwrap().lookup("a.b", "x")[0].secret.as_deref(), Some("u1"));
    let old =
        secret("kubernetes.io/dockercfg", ".dockercfg", r#"{"a.b": {"username": "u", "password": "p"}}"#);
    assert_eq!(Keyring::from_secret(&old).unwrap(), Keyring::from_secret(&good).unwrap());
    let other = secret("Opaque", ".dockerconfigjson", auths);
    assert_eq!(Keyring::from_secret(&other).unwrap(), Keyring::default());
    for json in ["hunter2", r#"{"auths": {"a.b": {"auth": "hunter2!"}}}"#] {
        let bad = secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", json);
        let error = Keyring::from_secret(&bad).unwrap_err().to_string();
        assert!(!error.contains("hunter"), "{error}");
    }
}
