//! Certificates in Secrets that no server could use. The API takes them, since halves are stored too,
//! and says so (upstream `warningsForSecret`).

use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// What is wrong with the pair of a `kubernetes.io/tls` Secret, in the words of Go's
/// `tls.X509KeyPair`, which clients know. Nothing of the content is shown.
pub(super) fn warning(secret: &Secret) -> Option<&'static str> {
    if secret.type_.as_deref() != Some("kubernetes.io/tls") {
        return None;
    }
    let value =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |text| &text.0);
    let (certificate, key) = (value("tls.crt"), value("tls.key"));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Some(if PrivateKeyDer::from_pem_slice(certificate).is_ok() {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
        } else {
            "tls: failed to find any PEM data in certificate input"
        });
    }
    let Ok(private) = PrivateKeyDer::from_pem_slice(key) else {
        return Some(if CertificateDer::from_pem_slice(key).is_ok() {
            "tls: found a certificate rather than a key in the PEM for the private key"
        } else {
            "tls: failed to find any PEM data in key input"
        });
    };
    // A kind of key that this library does not know may be good.
    let signing = any_supported_type(&private).ok()?;
    match CertifiedKey::new(chain, signing).keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Some("tls: private key does not match public key")
        }
        Err(Error::InvalidCertificate(_)) => Some("x509: malformed certificate"),
        Ok(()) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_that_cannot_serve_are_warned_of() {
        // BEHAVIOURS 10.12: they may be empty and are not checked, only looked at.
        let issue = || {
            let issued = rcgen::generate_simple_self_signed(["web.example".to_owned()]).unwrap();
            (issued.cert.pem(), issued.signing_key.serialize_pem())
        };
        let ((certificate, key), (_, other_key)) = (issue(), issue());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (certificate, key, expected) in [
            (&*certificate, &*key, None),
            (&*format!("{certificate}{certificate}"), &*key, None),
            ("", &*key, Some("tls: failed to find any PEM data in certificate input")),
            (&*certificate, "", Some("tls: failed to find any PEM data in key input")),
            (
                &*key,
                &*certificate,
                Some(
                    "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
                ),
            ),
            (
                &*certificate,
                &*certificate,
                Some("tls: found a certificate rather than a key in the PEM for the private key"),
            ),
            (&*certificate, &*other_key, Some("tls: private key does not match public key")),
            (broken, &*key, Some("x509: malformed certificate")),
        ] {
            let pair = json!({"tls.crt": certificate, "tls.key": key});
            let mut secret = Secret { type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
            let text: std::collections::BTreeMap<String, String> = serde_json::from_value(pair).unwrap();
            let data = text.into_iter().map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes())));
            secret.data = Some(data.collect());
            assert_eq!(warning(&secret), expected);
            secret.type_ = Some("Opaque".to_owned());
            assert_eq!(warning(&secret), None);
        }
    }
}
