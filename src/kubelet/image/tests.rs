use std::collections::BTreeSet;

use super::*;
use crate::clock::Clock;
use crate::kubelet::image::registry::tests::{Fake, Published, Reply};
use crate::kubelet::image::registry::{Options, Registries};
use crate::runtime::{ContainerSpec, ImageError};

/// Pull policies (BEHAVIOURS 9.1, 9.6) over where an image is from.
#[test]
fn policies_decide() {
    let imported = Origin::Imported;
    let pulled = Origin::Pulled { digest: "sha256:a".into(), access: Access::All };
    for (policy, known, may_use, can_pull, step) in [
        // Whatever was put here is used, whoever asks.
        (Some("Always"), Some(&imported), true, true, Step::Use),
        (Some("Always"), Some(&imported), true, false, Step::Use),
        (Some("IfNotPresent"), Some(&imported), true, true, Step::Use),
        (Some("Never"), Some(&imported), true, true, Step::Use),
        (Some("Always"), Some(&pulled), true, true, Step::Pull),
        (Some("Always"), Some(&pulled), true, false, Step::Absent),
        (Some("IfNotPresent"), Some(&pulled), true, true, Step::Use),
        (Some("IfNotPresent"), Some(&pulled), true, false, Step::Use),
        (Some("IfNotPresent"), Some(&pulled), false, true, Step::Pull),
        (Some("IfNotPresent"), Some(&pulled), false, false, Step::Absent),
        (Some("Never"), Some(&pulled), true, true, Step::Use),
        (Some("Never"), Some(&pulled), false, true, Step::NeverAllowed),
        (None, Some(&pulled), true, true, Step::Use),
        (Some("Always"), None, true, true, Step::Pull),
        (Some("IfNotPresent"), None, true, true, Step::Pull),
        (Some("IfNotPresent"), None, true, false, Step::Absent),
        (Some("Never"), None, true, true, Step::NeverPull),
        (Some("Never"), None, true, false, Step::NeverPull),
    ] {
        let decided = decide(policy, known, may_use, can_pull);
        assert_eq!(decided, step, "{policy:?} {known:?} {may_use} {can_pull}");
    }
}

struct Prepared(String);

impl Image for Prepared {
    fn digest(&self) -> &str {
        &self.0
    }
}

/// Takes every image and runs none.
struct Nothing;

#[async_trait]
impl Runtime for Nothing {
    fn version(&self) -> String {
        "nothing://1".into()
    }

    async fn prepare(&self, wasm: Bytes) -> Result<Arc<dyn Image>, ImageError> {
        Ok(Arc::new(Prepared(manifest::digest_of(&wasm))))
    }

    async fn start(&self, _spec: ContainerSpec) -> crate::runtime::Container {
        unreachable!("images only")
    }
}

/// A pod with some credentials, and what it was told.
#[derive(Default)]
struct Asker {
    keyring: Keyring,
    told: Mutex<Vec<String>>,
}

#[async_trait]
impl Requester for Asker {
    async fn keyring(&self) -> Keyring {
        self.told.lock().unwrap().push("keyring".into());
        self.keyring.clone()
    }

    fn pulling(&self) {
        self.told.lock().unwrap().push("pulling".into());
    }

    fn pulled(&self, pulled: Pulled, waited: Duration) {
        assert!(waited >= pulled.took);
        self.told.lock().unwrap().push(format!("pulled {}", pulled.bytes));
    }
}

impl Asker {
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

fn images(store: &Arc<ImageStore>, offline: bool) -> Arc<Images> {
    let options = Options { offline, stall: Duration::from_secs(20), ..Options::default() };
    let registries = Some(Arc::new(Registries::new(options, Clock::real())));
    Images::from(store.clone(), Arc::new(Nothing), Sources { registries, files: None })
}

#[tokio::test]
async fn what_is_here_is_used_without_a_word_to_anybody() {
    let store =
        Arc::new(ImageStore::in_memory().with_built_in(&[("coracle.dev/x:v1", b"\0asm\x0d\0\x01\0")]));
    let info = store.import("mine", &Bytes::from_static(b"\0asm\x0d\0\x01\0")).unwrap();
    let (images, asker) = (images(&store, true), Asker::default());
    for name in ["mine", "coracle.dev/x:v1"] {
        let got = images.get(name, Some("Always"), &asker).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!((&got.id, got.was_pulled), (&info.digest, false));
    }
    assert_eq!(asker.told(), [""; 0]);
    let failure = images.get("absent", Some("IfNotPresent"), &asker).await.err().unwrap();
    assert_eq!((failure.reason, failure.retry), ("ErrImagePull", true));
    assert_eq!(
        failure.message,
        "Failed to pull image \"absent\": the registry docker.io is out of reach: this cluster is --offline \
         (nor is it in the local image store; `coracle image import FILE.wasm --name absent:latest` puts it there)"
    );
    let never = images.get("absent", Some("Never"), &asker).await.err().unwrap();
    assert_eq!(never.message, "Container image \"absent\" is not present with pull policy of Never");
    assert_eq!(never.reason, "ErrImageNeverPull");
    let invalid = images.get("A b", None, &asker).await.err().unwrap();
    assert_eq!(invalid.reason, "InvalidImageName");
    let file = images.get("file:///etc/passwd", None, &asker).await.err().unwrap();
    assert!(file.message.contains("--allow-file-images"), "{}", file.message);
}

#[tokio::test]
async fn what_was_pulled_with_a_secret_is_not_everybodys() {
    let image = Published::artifact(b"\0asm\x0d\0\x01\0");
    // Now it lets in nobody, so that all that runs ran without it.
    let fake = Fake::start(|_, _| Reply::Whole(401, vec![], Bytes::new())).await;
    let name = format!("{}/team/a:v1", fake.host);
    let store = Arc::new(ImageStore::in_memory());
    let content = store::Content {
        manifest: image.manifest.clone(),
        media_type: manifest::OCI_MANIFEST.into(),
        blobs: vec![],
        program: image.layer.clone(),
        config: ImageConfig::default(),
    };
    let access = Access::Secrets(BTreeSet::from(["u1".to_owned()]));
    store.add(&name, content, &Origin::Pulled { digest: image.digest(), access }).unwrap();
    let images = images(&store, true);
    let owner = Asker { keyring: keyring::tests::of_secret(&fake.host, "u1"), ..Asker::default() };
    let other = Asker { keyring: keyring::tests::of_secret(&fake.host, "u2"), ..Asker::default() };
    let elsewhere = Asker { keyring: keyring::tests::of_secret("other.example", "u1"), ..Asker::default() };
    for policy in ["IfNotPresent", "Never"] {
        let got = images.get(&name, Some(policy), &owner).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(got.id, format!("{}/team/a@{}", fake.host, image.digest()));
        for stranger in [&other, &elsewhere, &Asker::default()] {
            let failure = images.get(&name, Some(policy), stranger).await.err().unwrap();
            let reason = if policy == "Never" { "ErrImageNeverPull" } else { "ErrImagePull" };
            assert_eq!(failure.reason, reason, "{}", failure.message);
        }
    }
    assert_eq!(owner.told(), ["keyring", "keyring"]);
    assert_eq!(other.told(), ["keyring", "pulling", "keyring"]);
    assert!(images.get(&name, Some("Always"), &owner).await.is_err(), "Always asks the registry");
}

#[tokio::test]
async fn a_pull_is_told_and_its_id_is_the_registrys() {
    let image = Published::artifact(b"\0asm\x0d\0\x01\0");
    let fake = Fake::with(&image).await;
    let name = format!("{}/a:v1", fake.host);
    let (images, asker) = (images(&Arc::new(ImageStore::in_memory()), true), Asker::default());
    let got =
        images.get(&name, Some("IfNotPresent"), &asker).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((got.was_pulled, got.id), (true, format!("{}/a@{}", fake.host, image.digest())));
    assert_eq!(asker.told(), ["keyring", "pulling", "pulled 8"]);
    let again =
        images.get(&name, Some("IfNotPresent"), &asker).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!again.was_pulled && asker.told().is_empty());
    assert!(images.get(&name, Some("Always"), &asker).await.is_ok());
    assert_eq!(asker.told(), ["keyring", "pulling", "pulled 8"]);
}
