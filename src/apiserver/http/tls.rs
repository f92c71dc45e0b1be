//! TLS of the server: its certificate, and what the client's proves.
//!
//! A client may send no certificate, and one that is not valid does not end the handshake: the request
//! is then answered with 401 (BEHAVIOURS 18.1), which tells more than a closed connection. Whoever sends
//! one must hold its key in any case.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};

use crate::apiserver::authn::{Identity, User};
use crate::apiserver::pki::{Pki, PkiError};
use crate::clock::Clock;

/// What connections are set up with.
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    clock: Clock,
}

impl Tls {
    pub(super) fn new(pki: &Pki, clock: Clock) -> Result<Self, PkiError> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca_der()?)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let (certificate, key) = pki.server_der()?;
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyCertificate(Arc::clone(&verifier))))
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier, clock })
    }

    /// Who holds the connection.
    pub(super) fn identity(&self, connection: &ServerConnection) -> Identity {
        let Some([certificate, intermediates @ ..]) = connection.peer_certificates() else {
            return Identity::None;
        };
        if self.verifier.verify_client_cert(certificate, intermediates, unix(self.clock)).is_err() {
            return Identity::Bad;
        }
        User::of_certificate(certificate).map_or(Identity::Bad, Identity::User)
    }
}

fn unix(clock: Clock) -> UnixTime {
    let since = clock.now().as_duration();
    UnixTime::since_unix_epoch(std::time::Duration::try_from(since).unwrap_or_default())
}

#[derive(Debug)]
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0))
    }
}

/// Takes any certificate in the handshake, with proof of its key; [`Tls::identity`] judges it.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
