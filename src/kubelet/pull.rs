//! What a pod brings to the pull of its images: the credentials of its `imagePullSecrets`, and events.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use super::backoff::go_duration;
use super::image::Requester;
use super::image::keyring::Keyring;
use super::image::pull::Pulled;
use super::nodes::NodeContext;
use super::sources::Source;

/// A container that wants its image.
pub(crate) struct ForPod<'a> {
    pub(crate) node: &'a NodeContext,
    pub(crate) pod: &'a Pod,
    pub(crate) about: &'a ObjectReference,
    pub(crate) image: &'a str,
}

/// The Secrets that a pod pulls with.
pub(crate) fn secrets(pod: &Pod) -> impl Iterator<Item = Source> {
    let references = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    references.filter(|reference| !reference.name.is_empty()).map(|reference| Source::secret(&reference.name))
}

#[async_trait]
impl Requester for ForPod<'_> {
    /// As upstream, a Secret that is missing or unreadable is said, and the pull is tried without it.
    async fn keyring(&self) -> Keyring {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut keyring = Keyring::default();
        let mut missing = Vec::new();
        for source in secrets(self.pod) {
            match self.node.api.secret(namespace, &source.name).await {
                Ok(secret) => match Keyring::from_secret(&secret) {
                    Ok(more) => keyring.append(more),
                    Err(error) => missing.push(format!("{}: {error}", source.name)),
                },
                Err(_) => missing.push(source.name),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let about = crate::client::reference(self.pod, None);
            self.node.api.record(&about, true, "FailedToRetrieveImagePullSecret", message);
        }
        keyring
    }

    fn pulling(&self) {
        self.node.api.record(self.about, false, "Pulling", format!("Pulling image {:?}", self.image));
    }

    fn pulled(&self, pulled: Pulled, waited: Duration) {
        let message = format!(
            "Successfully pulled image {:?} in {} ({} including waiting). Image size: {} bytes.",
            self.image,
            go_duration(millis(pulled.took)),
            go_duration(millis(waited)),
            pulled.bytes
        );
        self.node.api.record(self.about, false, "Pulled", message);
    }
}

/// Whole milliseconds of it, as upstream tells it.
fn millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
