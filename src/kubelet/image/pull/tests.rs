//! Pulls from registries that behave, and from such as do not.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::name;
use super::super::registry::tests::{Fake, Published, Reply, WASM, found};
use super::super::registry::{Hosts, Options};
use super::*;
use crate::clock::Clock;

/// Longer than a pull takes on a slow machine.
const STALL: Duration = Duration::from_secs(20);

struct Node {
    store: Arc<ImageStore>,
    puller: Puller,
}

fn node(options: Options) -> Node {
    let registries = Arc::new(Registries::new(options, Clock::real()));
    let store = Arc::new(ImageStore::in_memory());
    Node { puller: Puller::new(registries, store.clone()), store }
}

fn plain() -> Node {
    node(Options { stall: STALL, offline: true, ..Options::default() })
}

impl Node {
    async fn pull(&self, name: &str, keyring: &Keyring) -> Result<Pulled, String> {
        let full = name::normalize(name).unwrap();
        self.puller.pull(&full, keyring.clone(), None).await.map_err(|error| error.to_string())
    }

    fn has(&self, name: &str) -> bool {
        self.store.find(&name::normalize(name).unwrap()).unwrap().is_some()
    }

    fn origin(&self, name: &str) -> Origin {
        self.store.find(&name::normalize(name).unwrap()).unwrap().unwrap().origin
    }
}

/// Credentials of one Secret for a host.
fn keys(host: &str, user: &str, password: &str) -> Keyring {
    let mut auths = serde_json::Map::new();
    auths.insert(host.to_owned(), serde_json::json!({"username": user, "password": password}));
    let json = serde_json::json!({ "auths": auths }).to_string();
    let secret = k8s_openapi::api::core::v1::Secret {
        type_: Some("kubernetes.io/dockerconfigjson".into()),
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            uid: Some(format!("uid-of-{user}")),
            ..Default::default()
        },
        data: Some(BTreeMap::from([(
            ".dockerconfigjson".to_owned(),
            k8s_openapi::ByteString(json.into_bytes()),
        )])),
        ..Default::default()
    };
    Keyring::from_secret(&secret).unwrap()
}

#[tokio::test]
async fn an_image_is_transferred_once_and_looked_at_again() {
    let image = Published::artifact(WASM);
    let fake = Fake::with(&image).await;
    let node = plain();
    let name = format!("{}/team/hello:v1", fake.host);
    let pulled = node.pull(&name, &Keyring::default()).await.unwrap();
    assert_eq!(pulled.bytes, WASM.len() as u64);
    let known = node.store.find(&name).unwrap().unwrap();
    assert_eq!(node.store.read(&known.program).unwrap(), WASM);
    assert_eq!(known.origin, Origin::Pulled { digest: image.digest(), access: Access::All });
    let before = fake.lines().len();
    assert_eq!(node.pull(&name, &Keyring::default()).await.unwrap().bytes, WASM.len() as u64);
    assert_eq!(fake.lines()[before..], ["HEAD /v2/team/hello/manifests/v1"]);
    // By digest it is the same image, of that repository alone.
    let by_digest = |repository: &str| format!("{}/{repository}@{}", fake.host, image.digest());
    assert!(node.has(&by_digest("team/hello")));
    assert!(!node.has(&by_digest("team/other")));
    assert!(node.pull(&by_digest("team/other"), &Keyring::default()).await.is_ok());
}

#[tokio::test]
async fn a_tag_that_moves_is_followed() {
    let old = Published::artifact(WASM).files();
    let new = Published::artifact(b"\0asm\x0d\0\x01\0new").files();
    let moved = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let has_moved = moved.clone();
    let fake = Fake::start(move |asked, _| {
        found(if has_moved.load(std::sync::atomic::Ordering::SeqCst) { &new } else { &old }, asked)
    })
    .await;
    let (node, name) = (plain(), format!("{}/a:v1", fake.host));
    node.pull(&name, &Keyring::default()).await.unwrap();
    let before = node.store.resolve(&name).unwrap();
    moved.store(true, std::sync::atomic::Ordering::SeqCst);
    node.pull(&name, &Keyring::default()).await.unwrap();
    assert_ne!(node.store.resolve(&name).unwrap(), before);
}

#[tokio::test]
async fn what_fails_once_is_asked_again() {
    let files = Published::artifact(WASM).files();
    let fake = Fake::start(move |asked, before| match (asked.line.contains("/manifests/"), before) {
        (true, 0) => Reply::Whole(500, vec![], Bytes::from_static(b"oops")),
        (false, 0) => Reply::Short(8, Bytes::from_static(&WASM[..3])),
        _ => found(&files, asked),
    })
    .await;
    let node = plain();
    node.pull(&format!("{}/a:v1", fake.host), &Keyring::default()).await.unwrap();
}

#[tokio::test]
async fn lies_are_seen_and_nothing_is_kept() {
    let image = Published::artifact(WASM);
    let other = Published::artifact(b"\0asm\x0d\0\x01\0evil");
    let layer = digest_path(&image.layer);
    let with = |path: String, body: Bytes| {
        let mut files = image.files();
        files.insert(path, body);
        files
    };
    let same_size = Bytes::from_static(b"\0asm\x0d\0\x01\x01");
    for (what, files, reference, why) in [
        ("another blob", with(layer.clone(), same_size), ":v1".to_owned(), "the content's digest is sha256:"),
        (
            "a longer blob",
            with(layer, other.layer.clone()),
            ":v1".to_owned(),
            "the answer is larger than 8 bytes",
        ),
        (
            "another manifest for a digest",
            with(format!("manifests/{}", image.digest()), other.manifest.clone()),
            format!("@{}", image.digest()),
            "the content's digest is sha256:",
        ),
        (
            "html",
            with("manifests/v1".into(), Bytes::from_static(b"<html>")),
            ":v1".to_owned(),
            "its manifest is not valid",
        ),
    ] {
        let fake = Fake::start(move |asked, _| found(&files, asked)).await;
        let (node, name) = (plain(), format!("{}/a{reference}", fake.host));
        let error = node.pull(&name, &Keyring::default()).await.unwrap_err();
        assert!(error.contains(why), "{what}: {error}");
        assert!(!node.has(&name), "{what}");
    }
}

fn digest_path(blob: &[u8]) -> String {
    format!("blobs/{}", manifest::digest_of(blob))
}

#[tokio::test]
async fn a_header_that_says_another_digest_is_a_lie() {
    let image = Published::artifact(WASM);
    let manifest = image.manifest.clone();
    let fake = Fake::start(move |_, _| {
        Reply::Whole(200, vec![("docker-content-digest", manifest::digest_of(b"x"))], manifest.clone())
    })
    .await;
    let error = plain().pull(&format!("{}/a:v1", fake.host), &Keyring::default()).await.unwrap_err();
    assert!(error.contains("the content's digest is"), "{error}");
}

#[tokio::test]
async fn what_stalls_or_never_ends_is_given_up() {
    let stalls = Fake::start(|_, _| Reply::Stall).await;
    let short = node(Options { stall: Duration::from_secs(1), ..Options::default() });
    let error = short.pull(&format!("{}/a:v1", stalls.host), &Keyring::default()).await.unwrap_err();
    assert!(error.ends_with("/manifests/v1: no answer for 1 s"), "{error}");
    let endless = Fake::start(|_, _| Reply::Endless).await;
    let error = plain().pull(&format!("{}/a:v1", endless.host), &Keyring::default()).await.unwrap_err();
    assert!(error.ends_with("the answer is larger than 4194304 bytes"), "{error}");
    // The text of an error as well.
    let rude = Fake::start(|_, _| Reply::Whole(403, vec![], Bytes::from(vec![b'x'; 1 << 20]))).await;
    let error = plain().pull(&format!("{}/a:v1", rude.host), &Keyring::default()).await.unwrap_err();
    assert!(error.ends_with("403 Forbidden; no credentials for it were found"), "{error}");
}

#[tokio::test]
async fn nobody_listens_and_nothing_is_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = plain().pull(&format!("{host}/a:v1"), &Keyring::default()).await.unwrap_err();
    assert!(error.starts_with(&format!("http://{host}/v2/a/manifests/v1: ")), "{error}");
    let fake = Fake::with(&Published::artifact(WASM)).await;
    let error = plain().pull(&format!("{}/a:none", fake.host), &Keyring::default()).await.unwrap_err();
    assert!(error.ends_with("/manifests/none: not found: manifest unknown"), "{error}");
    let error = plain().pull("ghcr.io/a:v1", &Keyring::default()).await.unwrap_err();
    assert_eq!(error, "the registry ghcr.io is out of reach: this cluster is --offline");
}

/// A registry that asks for a token, and the service that gives it to `users`.
async fn guarded(image: &Published, users: &[(&str, &str)]) -> Fake {
    let files = image.files();
    let users: Vec<String> = users
        .iter()
        .map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        .collect();
    Fake::start(move |asked, _| {
        if asked.line.starts_with("GET /token?") {
            assert!(asked.line.contains("scope=repository%3Ateam%2Fa%3Apull"), "{}", asked.line);
            assert!(asked.line.contains("service=s"), "{}", asked.line);
            return match &asked.authorization {
                Some(user) if users.contains(user) => {
                    Reply::Whole(200, vec![], Bytes::from_static(br#"{"token": "t1"}"#))
                }
                _ => Reply::Whole(401, vec![], Bytes::new()),
            };
        }
        if asked.line.starts_with("POST /token") {
            assert!(asked.body.contains("grant_type=refresh_token&refresh_token=id1"), "{}", asked.body);
            return Reply::Whole(200, vec![], Bytes::from_static(br#"{"access_token": "t1"}"#));
        }
        if asked.authorization.as_deref() == Some("Bearer t1") {
            return found(&files, asked);
        }
        let host = asked.host.clone();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        Reply::Whole(401, vec![("www-authenticate", challenge)], Bytes::new())
    })
    .await
}

#[tokio::test]
async fn credentials_are_tried_in_order_and_remembered_by_their_secret() {
    let image = Published::artifact(WASM);
    let fake = guarded(&image, &[("me", "right")]).await;
    let name = format!("{}/team/a:v1", fake.host);
    let node = plain();
    let error = node.pull(&name, &Keyring::default()).await.unwrap_err();
    assert!(error.contains("401 Unauthorized"), "{error}");
    let error = node.pull(&name, &keys(&fake.host, "me", "wrong")).await.unwrap_err();
    assert!(error.contains("401 Unauthorized") && !error.contains("wrong"), "{error}");
    assert!(node.pull(&name, &keys("other.example", "me", "right")).await.is_err(), "not for this host");
    let mut both = keys(&fake.host, "me", "wrong");
    both.append(keys(&format!("{}/team", fake.host), "me", "right"));
    node.pull(&name, &both).await.unwrap();
    let secrets = |names: &[&str]| Access::Secrets(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(
        node.origin(&name),
        Origin::Pulled { digest: image.digest(), access: secrets(&["uid-of-me"]) }
    );
    // The cluster's own credentials are every pod's.
    let cluster = Keyring::for_host(
        &fake.host,
        super::super::keyring::Credential::Basic { username: "me".into(), password: "right".into() },
    );
    let own = self::node(Options { keyring: cluster, stall: STALL, ..Options::default() });
    own.pull(&name, &Keyring::default()).await.unwrap();
    assert_eq!(own.origin(&name), Origin::Pulled { digest: image.digest(), access: Access::All });
    let identity = Keyring::for_host(&fake.host, super::super::keyring::Credential::Identity("id1".into()));
    plain().pull(&name, &identity).await.unwrap();
}

#[tokio::test]
async fn what_another_may_have_is_widened_by_the_registry_only() {
    let image = Published::artifact(WASM);
    let fake = guarded(&image, &[("me", "a"), ("you", "b")]).await;
    let (node, name) = (plain(), format!("{}/team/a:v1", fake.host));
    node.pull(&name, &keys(&fake.host, "me", "a")).await.unwrap();
    let before = fake.lines().len();
    assert!(node.pull(&name, &keys(&fake.host, "they", "c")).await.is_err());
    node.pull(&name, &keys(&fake.host, "you", "b")).await.unwrap();
    assert!(fake.lines()[before..].iter().all(|line| !line.contains("/blobs/")), "nothing is transferred");
    let Origin::Pulled { access: Access::Secrets(secrets), .. } = node.origin(&name) else { panic!() };
    assert_eq!(secrets.into_iter().collect::<Vec<_>>(), ["uid-of-me", "uid-of-you"]);
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let image = Published::artifact(WASM);
    let elsewhere = Fake::with(&image).await;
    let (files, other) = (image.files(), elsewhere.host.clone());
    let basic = format!("Basic {}", STANDARD.encode("me:right"));
    let fake = Fake::start(move |asked, _| {
        if asked.authorization.as_ref() != Some(&basic) {
            return Reply::Whole(401, vec![("www-authenticate", "Basic realm=x".into())], Bytes::new());
        }
        match asked.line.split_once("/blobs/") {
            Some((_, digest)) => Reply::Whole(
                307,
                vec![("location", format!("http://{other}/x/blobs/{digest}"))],
                Bytes::new(),
            ),
            None => found(&files, asked),
        }
    })
    .await;
    let node = plain();
    node.pull(&format!("{}/a:v1", fake.host), &keys(&fake.host, "me", "right")).await.unwrap();
    let asked = elsewhere.asked();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|asked| asked.authorization.is_none()), "{asked:?}");
}

#[tokio::test]
async fn mirrors_come_first_and_learn_nothing() {
    let image = Published::artifact(WASM);
    let mirror = Fake::with(&image).await;
    let broken = Fake::start(|_, _| Reply::Whole(404, vec![], Bytes::new())).await;
    let text = format!(
        "mirrors: {{reg.example: {{endpoint: ['http://{}', 'http://{}']}}}}",
        broken.host, mirror.host
    );
    let hosts = Hosts::parse(&text).unwrap();
    let node = node(Options { hosts, offline: true, stall: STALL, ..Options::default() });
    node.pull("reg.example/a:v1", &keys("reg.example", "me", "right")).await.unwrap();
    let asked = [broken.asked(), mirror.asked()].concat();
    assert!(asked.iter().all(|asked| asked.authorization.is_none()), "{asked:?}");
    assert_eq!(broken.lines().len(), 1);
}

#[tokio::test]
async fn pulls_of_one_image_are_one_and_end_with_the_last_who_waits() {
    let fake = Fake::start(|_, _| Reply::Stall).await;
    let (node, name) = (plain(), format!("{}/a:v1", fake.host));
    let (mut first, mut second) = (
        Box::pin(node.puller.pull(&name, Keyring::default(), None)),
        Box::pin(node.puller.pull(&name, Keyring::default(), None)),
    );
    tokio::select! {
        _ = &mut first => panic!("it stalls"),
        _ = &mut second => panic!("it stalls"),
        () = fake.news.notified() => {}
    }
    drop(first);
    tokio::select! {
        _ = &mut second => panic!("it stalls"),
        () = fake.hung_up.notified() => panic!("somebody still waits"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(fake.lines().len(), 1, "both share one");
    drop(second);
    let limit = Clock::real().timeout(Duration::from_secs(60), fake.hung_up.notified()).await;
    assert!(limit.is_ok(), "the connection is closed");
    assert!(node.puller.flights.lock().unwrap().is_empty(), "nor are credentials kept");
}
