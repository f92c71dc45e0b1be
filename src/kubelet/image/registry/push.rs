//! Sending images to a registry, for the command line.

use bytes::Bytes;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::super::keyring::Credential;
use super::super::manifest;
use super::super::name::Parts;
use super::{Registries, causes, install_provider};

/// Why an image could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PushError(String);

/// What is sent: every blob before the manifest that names it.
pub struct Upload {
    /// By digest.
    pub blobs: Vec<(String, Bytes)>,
    pub manifest: Bytes,
    pub media_type: String,
}

impl Registries {
    /// Sends an image to the registry that its full name says, with the first credential that is for it.
    /// Mirrors are not asked. Returns the manifest's digest.
    pub async fn push(&self, full: &str, upload: Upload) -> Result<String, PushError> {
        let parts = Parts::of(full);
        let endpoint = self.endpoints(&parts.host).into_iter().find(|endpoint| !endpoint.is_mirror);
        let endpoint =
            endpoint.ok_or_else(|| PushError(format!("{} is out of reach with --offline", parts.host)))?;
        install_provider();
        let mut config = ClientConfig {
            protocol: if endpoint.scheme == "http" { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: endpoint.tls.insecure_skip_verify,
            read_timeout: Some(self.options.stall),
            connect_timeout: Some(super::CONNECT.min(self.options.stall)),
            ..ClientConfig::default()
        };
        if let Some(path) = &endpoint.tls.ca_file {
            let data = std::fs::read(path)
                .map_err(|error| PushError(format!("cannot read {}: {error}", path.display())))?;
            config.tls_certs_only = vec![Certificate { encoding: CertificateEncoding::Pem, data }];
        } else if endpoint.scheme == "http" {
            // No certificate is looked at, so none need be found on this machine.
            config.accept_invalid_certificates = true;
        }
        let failed = |error: oci_client::errors::OciDistributionError| PushError(causes(&error));
        let client = Client::try_from(config).map_err(failed)?;
        let target =
            Reference::with_tag(endpoint.host.clone(), parts.repository.clone(), parts.reference.clone());
        let key = self.keyring().lookup(&parts.host, &parts.repository).into_iter().next();
        let auth = match key.map(|key| key.credential) {
            None => RegistryAuth::Anonymous,
            Some(Credential::Basic { username, password }) => RegistryAuth::Basic(username, password),
            Some(Credential::Bearer(token)) => RegistryAuth::Bearer(token),
            Some(Credential::Identity(_)) => {
                let why = "the credentials are an identity token, with which images can only be pulled";
                return Err(PushError(format!(
                    "{}: {why}; log in with a password or access token",
                    parts.host
                )));
            }
        };
        client.store_auth_if_needed(target.resolve_registry(), &auth).await;
        for (digest, blob) in upload.blobs {
            // It answers an error where the registry does not let one look.
            if !client.blob_exists(&target, &digest).await.unwrap_or(false) {
                client.push_blob(&target, blob, &digest).await.map_err(failed)?;
            }
        }
        let digest = manifest::digest_of(&upload.manifest);
        let media_type = upload.media_type.parse();
        let media_type =
            media_type.map_err(|_| PushError(format!("{} is no media type", upload.media_type)))?;
        client.push_manifest_raw(&target, upload.manifest, media_type).await.map_err(failed)?;
        Ok(digest)
    }
}
