//! Pulling: one transfer an image at a time, whoever asks for it, into the store.
//!
//! Pods that want the same image with the same credentials share one pull, on whatever node of the process
//! they are. It goes on while one of them waits: when the last is gone, it ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

use super::keyring::{Key, Keyring};
use super::manifest;
use super::name::Parts;
use super::registry::{Endpoint, Registries, RegistryError};
use super::store::{Access, Content, ImageStore, Origin};

#[cfg(test)]
mod tests;

/// Images that are transferred at a time; the rest wait. Each may hold
/// [`IMAGE_BYTES_MAX`](manifest::IMAGE_BYTES_MAX) in memory.
const PULLS_MAX: usize = 4;
/// The longest that one pull may take, so that a registry that trickles does not hold a place for ever.
const LONGEST: Duration = Duration::from_secs(3600);

/// An image has come, or is here already and may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Bytes of its layers.
    pub bytes: u64,
    /// Without the time it waited for others.
    pub took: Duration,
}

/// Why an image could not be pulled, in words for a pod's status.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PullError(pub(crate) String);

/// Hears how many bytes have come, of how many in all.
pub type Told = Arc<dyn Fn(u64, u64) + Send + Sync>;

type Work = BoxFuture<'static, Result<Pulled, PullError>>;
type Flight = Shared<Work>;

/// A pull that somebody may wait for.
struct UnderWay {
    full: String,
    keyring: Keyring,
    flight: WeakShared<Work>,
}

/// Pulls images into a store.
pub struct Puller {
    registries: Arc<Registries>,
    store: Arc<ImageStore>,
    flights: Mutex<Vec<UnderWay>>,
    slots: Arc<Semaphore>,
}

impl Puller {
    #[must_use]
    pub fn new(registries: Arc<Registries>, store: Arc<ImageStore>) -> Self {
        let slots = Arc::new(Semaphore::new(PULLS_MAX));
        Self { registries, store, flights: Mutex::default(), slots }
    }

    pub(crate) fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Pulls what a full name means now, or finds that it is here; with the pod's credentials, then with
    /// the cluster's.
    pub async fn pull(&self, full: &str, keyring: Keyring, told: Option<Told>) -> Result<Pulled, PullError> {
        let mut all = keyring;
        all.append(self.registries.keyring().clone());
        let mut waiting = Waiting { puller: self, flight: Some(self.flight(full, all, told)) };
        waiting.flight.as_mut().expect("it is taken when this is dropped only").await
    }

    /// The pull of that image that is under way, or a new one.
    fn flight(&self, full: &str, keyring: Keyring, told: Option<Told>) -> Flight {
        let mut flights = self.flights.lock().expect("no holder panics");
        let same = flights.iter().find(|one| one.full == full && one.keyring == keyring);
        // One that has ended is as good as none: the name may mean something else by now.
        if let Some(flight) = same.and_then(|one| one.flight.upgrade()).filter(|one| one.peek().is_none()) {
            return flight;
        }
        let transfer = Transfer {
            registries: self.registries.clone(),
            store: self.store.clone(),
            full: full.to_owned(),
            keyring: keyring.clone(),
            told,
        };
        let slots = self.slots.clone();
        let flight = async move {
            let _slot = slots.acquire_owned().await.expect("it is never closed");
            let clock = transfer.registries.clock();
            let began = clock.monotonic();
            let bytes = match clock.timeout(LONGEST, transfer.run()).await {
                Ok(result) => result?,
                Err(_) => return Err(PullError(format!("it took longer than {} s", LONGEST.as_secs()))),
            };
            Ok(Pulled { bytes, took: clock.monotonic().saturating_sub(began) })
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.push(UnderWay { full: full.to_owned(), keyring, flight: weak });
        }
        flight
    }
}

/// Somebody who waits for a pull. The last of them takes the credentials along, which nothing keeps
/// longer than they are needed.
struct Waiting<'a> {
    puller: &'a Puller,
    flight: Option<Flight>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.flight = None;
        let mut flights = self.puller.flights.lock().expect("no holder panics");
        flights.retain(|one| one.flight.upgrade().is_some());
    }
}

/// One pull.
struct Transfer {
    registries: Arc<Registries>,
    store: Arc<ImageStore>,
    full: String,
    keyring: Keyring,
    told: Option<Told>,
}

impl Transfer {
    /// Asks every endpoint with every credential that is for it until one has the image.
    async fn run(&self) -> Result<u64, PullError> {
        let parts = Parts::of(&self.full);
        let endpoints = self.registries.endpoints(&parts.host);
        if endpoints.is_empty() {
            let why = format!("the registry {} is out of reach: this cluster is --offline", parts.host);
            return Err(PullError(why));
        }
        let mut errors: Vec<String> = Vec::new();
        for endpoint in &endpoints {
            let host = if endpoint.is_mirror { &endpoint.host } else { &parts.host };
            let keys: Vec<Option<Key>> =
                self.keyring.lookup(host, &parts.repository).into_iter().map(Some).collect();
            let keys = if keys.is_empty() { vec![None] } else { keys };
            for key in keys {
                match self.from(endpoint, &parts, key.as_ref()).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => {
                        let text = error.to_string();
                        if !errors.contains(&text) {
                            errors.push(text);
                        }
                        if !error.is_denied() {
                            break;
                        }
                    }
                }
            }
        }
        Err(PullError(errors.join("; ")))
    }

    async fn from(&self, endpoint: &Endpoint, parts: &Parts, key: Option<&Key>) -> Result<u64, Failure> {
        let access = match key.and_then(|key| key.secret.clone()) {
            Some(uid) => Access::Secrets(BTreeSet::from([uid])),
            // What the cluster itself or anybody may have, every pod may.
            None => Access::All,
        };
        let credential = key.map(|key| key.credential.clone());
        let repository = self.registries.repository(endpoint, parts, credential)?;
        let known = self.known()?;
        if let Some((digest, _)) = &known {
            match repository.digest(&parts.reference).await {
                Ok(Some(now)) if now == *digest => return self.still_here(known, access).await,
                Err(error) if error.is_denied() => return Err(error.into()),
                // Some registries know no HEAD; what is wrong otherwise is seen with GET.
                Ok(_) | Err(_) => {}
            }
        }
        let found = repository.manifest(&parts.reference).await?;
        if known.as_ref().is_some_and(|(digest, _)| *digest == found.top) {
            return self.still_here(known, access).await;
        }
        let plan = manifest::plan(&found.manifest).map_err(RegistryError::from)?;
        let bytes: u64 = plan.layers.iter().map(|layer| layer.size).sum();
        let config = match &plan.config {
            Some(config) => Some(repository.blob(config, None).await?),
            None => None,
        };
        let mut layers: Vec<Bytes> = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            let before: u64 = layers.iter().map(|layer| layer.len() as u64).sum();
            let told = |come| {
                if let Some(told) = &self.told {
                    told(before + come, bytes);
                }
            };
            layers.push(repository.blob(layer, Some(&told)).await?);
        }
        // A configuration that says nothing of the program is kept too, so that the image stays whole.
        let mut blobs: Vec<(String, Bytes)> = Vec::new();
        if let (Some(descriptor), Some(bytes)) = (&plan.config, &config) {
            blobs.push((descriptor.digest.clone(), bytes.clone()));
        } else if found.manifest.config.size <= manifest::CONFIG_BYTES_MAX {
            let descriptor = &found.manifest.config;
            // It is not needed to run, and not every registry has the empty one.
            if let Ok(bytes) = repository.blob(descriptor, None).await {
                blobs.push((descriptor.digest.clone(), bytes));
            }
        }
        blobs.extend(plan.layers.iter().map(|layer| layer.digest.clone()).zip(layers.iter().cloned()));
        let (store, full) = (self.store.clone(), self.full.clone());
        let store = move || -> Result<(), Failure> {
            let unpacked = manifest::program(&plan, config.as_deref(), &layers);
            let (program, config) = unpacked.map_err(RegistryError::from)?;
            let content =
                Content { manifest: found.bytes, media_type: found.media_type, blobs, program, config };
            store.add(&full, content, &Origin::Pulled { digest: found.top, access })?;
            Ok(())
        };
        tokio::task::spawn_blocking(store).await.map_err(|error| Failure::Here(error.to_string()))??;
        Ok(bytes)
    }

    /// The digest and size of what the name meant when it was pulled last, if all of it is here.
    fn known(&self) -> Result<Option<(String, u64)>, Failure> {
        Ok(match self.store.find(&self.full)? {
            Some(known) => match known.origin {
                Origin::Pulled { digest, .. } => Some((digest, known.size)),
                Origin::Imported => None,
            },
            None => None,
        })
    }

    /// Nothing need come: whoever has just asked may use what is here.
    async fn still_here(&self, known: Option<(String, u64)>, access: Access) -> Result<u64, Failure> {
        let (store, full) = (self.store.clone(), self.full.clone());
        let allowed = tokio::task::spawn_blocking(move || store.allow(&full, &access)).await;
        allowed.map_err(|error| Failure::Here(error.to_string()))??;
        Ok(known.map_or(0, |(_, bytes)| bytes))
    }
}

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    There(#[from] RegistryError),
    #[error("{0}")]
    Here(String),
}

impl From<super::store::StoreError> for Failure {
    fn from(error: super::store::StoreError) -> Self {
        Self::Here(error.to_string())
    }
}

impl Failure {
    fn is_denied(&self) -> bool {
        match self {
            Self::There(error) => error.is_denied(),
            Self::Here(_) => false,
        }
    }
}
