//! Where images come from: the local store, or, for simulated nodes, anywhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{OnceCell, watch};

use crate::runtime::{Image, Runtime};

pub mod name;
mod news;
pub mod store;

pub use store::{ImageInfo, ImageStore, StoreError};

use super::lifecycle::{Cause, StartFailure};

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
}

#[derive(Default)]
struct Ready {
    images: BTreeMap<String, (u64, Arc<dyn Image>)>,
    uses: u64,
}

impl Images {
    #[must_use]
    pub fn local(store: Arc<ImageStore>, runtime: Arc<dyn Runtime>) -> Arc<Self> {
        let news = news::News::new(store.dir());
        Arc::new(Self::Local(LocalImages { store, runtime, ready: Mutex::default(), news }))
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

    /// A number that changes when images may have come.
    pub(crate) fn news(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Local(local) => Some(local.news.listen()),
            Self::Any { .. } => None,
        }
    }

    /// The image that a container names, ready to run.
    pub(crate) async fn get(&self, name: &str, policy: Option<&str>) -> Result<Arc<dyn Image>, StartFailure> {
        match self {
            Self::Local(local) => local.get(name, policy).await,
            Self::Any { runtime, image } => {
                let made = image.get_or_try_init(|| runtime.prepare(Bytes::new())).await;
                made.cloned().map_err(|error| unusable(name, &error.to_string()))
            }
        }
    }
}

impl LocalImages {
    async fn get(&self, name: &str, policy: Option<&str>) -> Result<Arc<dyn Image>, StartFailure> {
        let full = name::normalize(name).map_err(|error| StartFailure {
            cause: Cause::Image,
            reason: "InvalidImageName",
            message: format!("Failed to apply default image tag {name:?}: {error}"),
            retry: false,
        })?;
        let digest = self.store.resolve(&full).map_err(|error| unreadable(name, &error))?;
        let Some(digest) = digest else { return Err(absent(name, &full, policy)) };
        if let Some(image) = self.ready(&digest) {
            return Ok(image);
        }
        let wasm = self.store.read(&digest).map_err(|error| unreadable(name, &error))?;
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

/// There is no such image here, and only local images can be used.
fn absent(name: &str, full: &str, policy: Option<&str>) -> StartFailure {
    if policy == Some("Never") {
        return StartFailure {
            cause: Cause::Image,
            reason: "ErrImageNeverPull",
            message: format!("Container image {name:?} is not present with pull policy of Never"),
            retry: false,
        };
    }
    let familiar = name::familiar(full);
    StartFailure {
        cause: Cause::Image,
        reason: "ErrImagePull",
        message: format!(
            "Failed to pull image {name:?}: not in the local image store; \
             `coracle image import FILE.wasm --name {familiar}` puts it there"
        ),
        retry: true,
    }
}

fn unreadable(name: &str, error: &StoreError) -> StartFailure {
    StartFailure {
        cause: Cause::Image,
        reason: "ErrImagePull",
        message: format!("Failed to pull image {name:?}: {error}"),
        retry: true,
    }
}

/// The bytes are there, but cannot run: another image of that name may.
fn unusable(name: &str, why: &str) -> StartFailure {
    StartFailure {
        cause: Cause::Image,
        reason: "CreateContainerError",
        message: format!("image {name:?} cannot run: {why}"),
        retry: false,
    }
}
