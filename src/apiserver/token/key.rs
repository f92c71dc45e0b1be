//! The key that signs tokens: ECDSA on P-256 with SHA-256, `ES256` in the words of RFC 7518.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Refusal;
use crate::apiserver::kubeconfig;
use crate::apiserver::pki::PkiError;

/// The key's file, named as kubeadm names its.
const FILE: &str = "sa.key";
const ALGORITHM: &str = "ES256";
/// Longer texts are not looked at; the longest claims that the API makes are a tenth of it.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[derive(Deserialize, Serialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Signs and knows tokens.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    /// The uncompressed point: 4, x, y.
    public: Vec<u8>,
    id: String,
    chance: SystemRandom,
}

impl std::fmt::Debug for SigningKey {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// A new key, only in memory.
    ///
    /// # Errors
    /// If the machine gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        Self::new(&KeyPair::generate()?)
    }

    /// The key in `dir`, made if there is none; without a folder a new one, only in memory. It outlives
    /// restarts, and tokens with it.
    ///
    /// # Errors
    /// If the folder cannot be used, or its file holds something else.
    pub fn load_or_create(dir: Option<&Path>) -> Result<Self, PkiError> {
        let Some(dir) = dir else { return Self::generate() };
        let path = dir.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                KeyPair::from_pem(&text).map_err(PkiError::from).and_then(|pair| Self::new(&pair)).map_err(
                    |why| PkiError::Damaged { path, why: format!("no key for tokens on P-256: {why}") },
                )
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pair = KeyPair::generate()?;
                let text = Zeroizing::new(pair.serialize_pem());
                kubeconfig::write(&path, &text).map_err(|source| PkiError::File {
                    what: "write",
                    path,
                    source,
                })?;
                Self::new(&pair)
            }
            Err(source) => Err(PkiError::File { what: "read", path, source }),
        }
    }

    fn new(pair: &KeyPair) -> Result<Self, PkiError> {
        let chance = SystemRandom::new();
        let der = Zeroizing::new(pair.serialize_der());
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &chance)
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        // As Kubernetes names keys: by the hash of the public key in its container.
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        Ok(Self { pair: signing, public: pair.public_key_raw().to_vec(), id, chance })
    }

    /// The token of `claims`.
    ///
    /// # Panics
    /// If the operating system gives no randomness any more.
    #[must_use]
    pub fn sign(&self, claims: &impl Serialize) -> String {
        let header = Header { alg: ALGORITHM.to_owned(), kid: self.id.clone() };
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = part(serde_json::to_vec(&header).expect("a header is two texts"));
        let claims = part(serde_json::to_vec(claims).expect("claims have string keys only"));
        let mut token = format!("{header}.{claims}");
        let signature =
            self.pair.sign(&self.chance, token.as_bytes()).expect("the operating system gives randomness");
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    /// The claims of `token` as JSON, if this key has signed them.
    ///
    /// # Errors
    /// [`Refusal::Foreign`] if it has not.
    pub fn open(&self, token: &str) -> Result<Vec<u8>, Refusal> {
        self.try_open(token).ok_or(Refusal::Foreign)
    }

    fn try_open(&self, token: &str) -> Option<Vec<u8>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.alg != ALGORITHM || header.kid != self.id {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public);
        key.verify(signed.as_bytes(), &signature).ok()?;
        URL_SAFE_NO_PAD.decode(claims).ok()
    }

    /// The public key as a JSON Web Key Set (RFC 7517), for whoever checks tokens without asking the API.
    #[must_use]
    pub fn public_set(&self) -> String {
        let (x, y) = self.public[1..].split_at((self.public.len() - 1) / 2);
        let key = json!({
            "use": "sig",
            "kty": "EC",
            "kid": self.id,
            "crv": "P-256",
            "alg": ALGORITHM,
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        });
        json!({ "keys": [key] }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_signature_opens_a_token() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let token = key.sign(&json!({"sub": "a"}));
        assert_eq!(key.open(&token).unwrap(), br#"{"sub":"a"}"#);
        let parts: Vec<&str> = token.split('.').collect();
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let forged = part(r#"{"sub":"b"}"#);
        let none = part(&format!(r#"{{"alg":"none","kid":"{}"}}"#, key.id));
        for (what, wrong) in [
            ("of another key", other.sign(&json!({"sub": "a"}))),
            ("other claims", format!("{}.{forged}.{}", parts[0], parts[2])),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("no algorithm", format!("{none}.{}.{}", parts[1], parts[2])),
            ("two parts", format!("{}.{}", parts[0], parts[1])),
            ("four parts", format!("{token}.x")),
            ("no base64", format!("{}?.{}.{}", parts[0], parts[1], parts[2])),
            ("too long", format!("{}.{}.{}", parts[0], "A".repeat(TOKEN_BYTES_MAX), parts[2])),
            ("nothing", String::new()),
        ] {
            assert_eq!(key.open(&wrong), Err(Refusal::Foreign), "{what}");
        }
    }

    #[test]
    fn the_key_stays_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = SigningKey::load_or_create(Some(dir.path())).unwrap();
        let token = first.sign(&json!({}));
        let again = SigningKey::load_or_create(Some(dir.path())).unwrap();
        assert!(again.open(&token).is_ok() && again.public_set() == first.public_set());
        let path = dir.path().join(FILE);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "no key").unwrap();
        let error = SigningKey::load_or_create(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("sa.key is not a usable certificate or key (no key for tokens"), "{error}");
    }
}
