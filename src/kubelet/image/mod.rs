//! Where images come from: the local store, registries, files where that is allowed; or, for simulated
//! nodes, anywhere.
//!
//! A name that was imported, or that is part of the program, is used as it is, whatever the pull policy:
//! somebody put it here who may, and no registry need be reachable. Every other name is a registry's, and
//! the policies are Kubernetes'. What was pulled with a Secret may be used by pods that have that Secret,
//! and by others once the registry has let them in (as upstream's `KubeletEnsureSecretPulledImages`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};

use crate::runtime::{Image, Runtime};

mod file;
pub mod keyring;
pub mod layout;
mod manifest;
pub mod name;
mod news;
pub mod pull;
pub mod registry;
pub mod store;
#[cfg(test)]
mod tests;

pub use manifest::{FormatError, ImageConfig};
pub use store::{ImageInfo, ImageStore, StoreError};

use super::lifecycle::{Cause, StartFailure};
use keyring::Keyring;
use pull::{Pulled, Puller};
use store::{Access, Known, Origin};

/// How many images are kept ready to run; the oldest are made ready again when they are needed.
/// The runtime keeps what it compiled on disk, so this is cheap. Generous for one node.
const READY_MAX: usize = 256;

/// The images of a node's runtime, shared by every node that has the same.
pub enum Images {
    /// Those of a local store, made ready by this runtime.
    Local(LocalImages),
    /// Any name is an image: for runtimes that run no code.
    Any { runtime: Arc<dyn Runtime>, image: OnceCell<Arc<dyn Image>> },
}

/// A store and the runtime that runs its images.
pub struct LocalImages {
    store: Arc<ImageStore>,
    runtime: Arc<dyn Runtime>,
    ready: Mutex<Ready>,
    news: news::News,
    /// `None` where nothing is pulled.
    puller: Option<Puller>,
    /// The directory whose files may be images.
    files: Option<PathBuf>,
}

/// Where images come from besides the store.
#[derive(Default)]
pub struct Sources {
    /// `None` pulls nothing.
    pub registries: Option<Arc<registry::Registries>>,
    /// Below this directory, `file:///…` is an image.
    pub files: Option<PathBuf>,
}

/// Who wants an image: a container of a pod.
#[async_trait]
pub(crate) trait Requester: Send + Sync {
    /// The pod's own credentials.
    async fn keyring(&self) -> Keyring;
    /// A pull begins.
    fn pulling(&self);
    /// It has ended well after `waited`, which includes the wait for others.
    fn pulled(&self, pulled: Pulled, waited: Duration);
}

/// An image, ready to run.
pub(crate) struct Got {
    pub(crate) image: Arc<dyn Image>,
    /// How it wants to be called.
    pub(crate) config: Arc<ImageConfig>,
    /// As a container's status has it.
    pub(crate) id: String,
    pub(crate) was_pulled: bool,
}

#[derive(Default)]
struct Ready {
    images: BTreeMap<String, (u64, Arc<dyn Image>)>,
    uses: u64,
}

impl Images {
    /// Those of a store alone.
    #[must_use]
    pub fn local(store: Arc<ImageStore>, runtime: Arc<dyn Runtime>) -> Arc<Self> {
        Self::from(store, runtime, Sources::default())
    }

    /// Those of a store, which other sources fill.
    #[must_use]
    pub fn from(store: Arc<ImageStore>, runtime: Arc<dyn Runtime>, sources: Sources) -> Arc<Self> {
        let news = news::News::new(store.dir());
        let puller = sources.registries.map(|registries| Puller::new(registries, store.clone()));
        let files = sources.files;
        Arc::new(Self::Local(LocalImages { store, runtime, ready: Mutex::default(), news, puller, files }))
    }

    #[must_use]
    pub fn any(runtime: Arc<dyn Runtime>) -> Arc<Self> {
        Arc::new(Self::Any { runtime, image: OnceCell::new() })
    }

    /// Tells waiting pods at once that this process has imported an image. Imports by other
    /// processes are noticed by themselves where the system can tell.
    pub fn imported(&self) {
        if let Self::Local(local) = self {
            local.news.tell();
        }
    }

    /// Whether there is code in them that runs.
    pub(crate) fn run_code(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Whether a name is now an image that every pod may use, as far as that can be told without asking.
    pub(crate) fn has(&self, name: &str) -> bool {
        let Self::Local(local) = self else { return true };
        let Ok(full) = name::normalize(name) else { return false };
        let Ok(Some(known)) = local.store.find(&full) else { return false };
        match known.origin {
            Origin::Imported | Origin::Pulled { access: Access::All, .. } => true,
            Origin::Pulled { access: Access::Secrets(_), .. } => false,
        }
    }

    /// A number that changes when images may have come.
    pub(crate) fn news(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Local(local) => Some(local.news.listen()),
            Self::Any { .. } => None,
        }
    }

    /// The image that a container names, ready to run.
    pub(crate) async fn get(
        &self,
        name: &str,
        policy: Option<&str>,
        requester: &dyn Requester,
    ) -> Result<Got, StartFailure> {
        match self {
            Self::Local(local) => local.get(name, policy, requester).await,
            Self::Any { runtime, image } => {
                let made = image.get_or_try_init(|| runtime.prepare(Bytes::new())).await;
                let image = made.cloned().map_err(|error| unusable(name, &error.to_string()))?;
                let id = image.digest().to_owned();
                Ok(Got { image, config: Arc::default(), id, was_pulled: false })
            }
        }
    }

    /// An image of the program's own, ready to run: nothing is pulled for it.
    pub(crate) async fn built_in(&self, name: &str) -> Result<Arc<dyn Image>, StartFailure> {
        self.get(name, Some("Never"), &Nobody).await.map(|got| got.image)
    }
}

/// Who has no credentials and wants to hear nothing.
struct Nobody;

#[async_trait]
impl Requester for Nobody {
    async fn keyring(&self) -> Keyring {
        Keyring::default()
    }

    fn pulling(&self) {}

    fn pulled(&self, _pulled: Pulled, _waited: Duration) {}
}

/// What to do about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is here.
    Use,
    /// Its registry is asked.
    Pull,
    /// It may not be asked, and the image is not here.
    NeverPull,
    /// It may not be asked, and the pod may not use what is here.
    NeverAllowed,
    /// Nothing can be asked.
    Absent,
}

/// Upstream's `shouldPullImage`, and the rules that the module's text tells. `may_use` is whether the
/// pod may use a pulled image without asking.
fn decide(policy: Option<&str>, known: Option<&Origin>, may_use: bool, can_pull: bool) -> Step {
    match (known, policy) {
        (Some(Origin::Imported), _) => Step::Use,
        (Some(Origin::Pulled { .. }), Some("Never")) if may_use => Step::Use,
        (Some(Origin::Pulled { .. }), Some("Never")) => Step::NeverAllowed,
        (None, Some("Never")) => Step::NeverPull,
        (Some(Origin::Pulled { .. }), policy) if may_use && policy != Some("Always") => Step::Use,
        (Some(_) | None, _) if can_pull => Step::Pull,
        (Some(_) | None, _) => Step::Absent,
    }
}

impl LocalImages {
    async fn get(
        &self,
        name: &str,
        policy: Option<&str>,
        requester: &dyn Requester,
    ) -> Result<Got, StartFailure> {
        if let Some(path) = name.strip_prefix(file::SCHEME) {
            return self.file(name, path).await;
        }
        let full = name::normalize(name).map_err(|error| invalid(name, &error.to_string()))?;
        let known = self.store.find(&full).map_err(|error| unreadable(name, &error))?;
        let (mut keyring, mut may_use) = (None, true);
        if let Some(Known { origin: Origin::Pulled { access: Access::Secrets(uids), .. }, .. }) = &known {
            let keys = requester.keyring().await;
            let parts = name::Parts::of(&full);
            let mut secrets =
                keys.lookup(&parts.host, &parts.repository).into_iter().filter_map(|key| key.secret);
            may_use = secrets.any(|uid| uids.contains(&uid));
            keyring = Some(keys);
        }
        let step = decide(policy, known.as_ref().map(|known| &known.origin), may_use, self.puller.is_some());
        let (known, pulled) = match (step, known, &self.puller) {
            (Step::Use, Some(known), _) => (known, None),
            (Step::Pull, _, Some(puller)) => {
                let keyring = match keyring {
                    Some(keyring) => keyring,
                    None => requester.keyring().await,
                };
                requester.pulling();
                let clock = puller.registries().clock();
                let began = clock.monotonic();
                let pulled = puller.pull(&full, keyring, None).await;
                let pulled = pulled.map_err(|error| failed_pull(name, &full, &error.to_string()))?;
                let known = self.store.find(&full).map_err(|error| unreadable(name, &error))?;
                let known = known.ok_or_else(|| failed_pull(name, &full, "it was removed at once"))?;
                requester.pulled(pulled, clock.monotonic().saturating_sub(began));
                (known, Some(pulled))
            }
            (Step::NeverPull, ..) => return Err(never(name, "is not present with pull policy of Never")),
            (Step::NeverAllowed, ..) => {
                return Err(never(
                    name,
                    "is present with pull policy of Never, but not for the pod's credentials",
                ));
            }
            (Step::Use | Step::Pull | Step::Absent, ..) => return Err(absent(name, &full)),
        };
        let id = match &known.origin {
            Origin::Imported => known.program.clone(),
            Origin::Pulled { digest, .. } => {
                let parts = name::Parts::of(&full);
                format!("{}/{}@{digest}", parts.host, parts.repository)
            }
        };
        let image = match self.ready(&known.program) {
            Some(image) => image,
            None => {
                let wasm = self.store.read(&known.program).map_err(|error| unreadable(name, &error))?;
                self.prepare(name, known.program, wasm).await?
            }
        };
        Ok(Got { image, config: known.config, id, was_pulled: pulled.is_some() })
    }

    /// A file of the node, as it is now.
    async fn file(&self, name: &str, path: &str) -> Result<Got, StartFailure> {
        let Some(files) = self.files.clone() else {
            let why = "this node takes no files as images; `coracle up --allow-file-images DIR` lets it";
            return Err(failed_file(name, why));
        };
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let wasm = file::read(&files, &path)?;
            let digest = manifest::digest_of(&wasm);
            Ok::<_, String>((digest, wasm))
        });
        let read = read.await.map_err(|error| failed_file(name, &error.to_string()))?;
        let (digest, wasm) = read.map_err(|why| failed_file(name, &why))?;
        let image = match self.ready(&digest) {
            Some(image) => image,
            None => self.prepare(name, digest.clone(), wasm).await?,
        };
        Ok(Got { image, config: Arc::default(), id: digest, was_pulled: false })
    }

    async fn prepare(&self, name: &str, digest: String, wasm: Bytes) -> Result<Arc<dyn Image>, StartFailure> {
        let image = self.runtime.prepare(wasm).await.map_err(|error| unusable(name, &error.to_string()))?;
        self.keep(digest, image.clone());
        Ok(image)
    }

    fn ready(&self, digest: &str) -> Option<Arc<dyn Image>> {
        let mut ready = self.ready.lock().expect("no holder panics");
        ready.uses += 1;
        let uses = ready.uses;
        let (used, image) = ready.images.get_mut(digest)?;
        *used = uses;
        Some(image.clone())
    }

    fn keep(&self, digest: String, image: Arc<dyn Image>) {
        let mut ready = self.ready.lock().expect("no holder panics");
        if ready.images.len() >= READY_MAX {
            let oldest =
                ready.images.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| digest.clone());
            if let Some(oldest) = oldest {
                ready.images.remove(&oldest);
            }
        }
        let uses = ready.uses;
        ready.images.insert(digest, (uses, image));
    }
}

fn failure(reason: &'static str, message: String, retry: bool) -> StartFailure {
    StartFailure { cause: Cause::Image, reason, message, retry }
}

fn invalid(name: &str, why: &str) -> StartFailure {
    failure("InvalidImageName", format!("Failed to apply default image tag {name:?}: {why}"), false)
}

fn never(name: &str, why: &str) -> StartFailure {
    failure("ErrImageNeverPull", format!("Container image {name:?} {why}"), false)
}

/// How a name becomes an image without a registry.
fn import_hint(full: &str) -> String {
    format!("`coracle image import FILE.wasm --name {}` puts it there", name::familiar(full))
}

/// There is no such image here, and only local images can be used.
fn absent(name: &str, full: &str) -> StartFailure {
    let hint = import_hint(full);
    failure(
        "ErrImagePull",
        format!("Failed to pull image {name:?}: not in the local image store; {hint}"),
        true,
    )
}

fn failed_pull(name: &str, full: &str, why: &str) -> StartFailure {
    // Who names no registry may not have meant one.
    let hint = if name::familiar(full) == full {
        String::new()
    } else {
        format!(" (nor is it in the local image store; {})", import_hint(full))
    };
    failure("ErrImagePull", format!("Failed to pull image {name:?}: {why}{hint}"), true)
}

fn failed_file(name: &str, why: &str) -> StartFailure {
    failure("ErrImagePull", format!("Failed to pull image {name:?}: {why}"), true)
}

fn unreadable(name: &str, error: &StoreError) -> StartFailure {
    failure("ErrImagePull", format!("Failed to pull image {name:?}: {error}"), true)
}

/// The bytes are there, but cannot run: another image of that name may.
fn unusable(name: &str, why: &str) -> StartFailure {
    failure("CreateContainerError", format!("image {name:?} cannot run: {why}"), false)
}
