//! Certificates: one authority per cluster, made at its first start and kept with its data.
//!
//! The authority signs the server's certificate and those of clients, whose names are what
//! [`User::of_certificate`] reads. Leaves last two years and are made anew at a start that finds less
//! than one left, so that a process may run for a year without one that expires.

use std::fs::DirBuilder;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authn::User;
use super::kubeconfig;
use super::token::SigningKey;
use crate::clock::Clock;
use crate::kind::address_plan::AddressPlan;

/// The names by which the server is reached from inside the cluster and from its machine; the machine's
/// own name comes on top.
const SERVER_NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
    "::1",
];

const CA_YEARS: i64 = 20;
const LEAF_YEARS: i64 = 2;
/// A certificate with less left is made anew.
const RENEW_DAYS: i64 = 365;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {what} the certificate file {}: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a usable certificate or key ({why}); remove the folder to have all made anew", .path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("cannot make a certificate for {0}: it is of several groups, and one can be written")]
    Groups(String),
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
}

/// The certificates of one cluster.
pub struct Pki {
    ca: Pair,
    issuer: Issuer<'static, KeyPair>,
    server: Pair,
    admin: Pair,
    tokens: Arc<SigningKey>,
    clock: Clock,
}

impl std::fmt::Debug for Pair {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.certificate)
    }
}

impl std::fmt::Debug for Pki {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pki({:?})", self.ca)
    }
}

impl Pki {
    /// The certificates in `dir`; what is missing, expires soon or lacks a name is made anew. Without a
    /// folder all are made anew and only in memory.
    ///
    /// # Errors
    /// If the folder cannot be used or holds something else.
    pub fn load_or_create(dir: Option<&Path>, clock: Clock) -> Result<Self, PkiError> {
        Self::load_or_create_for(dir, clock, &[])
    }

    /// As [`Pki::load_or_create`], for a server that is also reached by other names or addresses.
    ///
    /// # Errors
    /// If the folder cannot be used or holds something else.
    pub fn load_or_create_for(
        dir: Option<&Path>,
        clock: Clock,
        more_names: &[String],
    ) -> Result<Self, PkiError> {
        let now = clock.now();
        let names = server_names(more_names);
        let (ca, issuer) = match load(dir, "ca", now)? {
            Some(ca) if is_issued_by(&ca, &ca) => {
                let issuer = issuer_of(&ca).map_err(|why| PkiError::Damaged {
                    path: dir.unwrap_or(Path::new("")).join("ca.crt"),
                    why: why.to_string(),
                })?;
                (ca, issuer)
            }
            Some(_) | None => {
                let (ca, issuer) = make_ca(now)?;
                store(dir, "ca", &ca)?;
                (ca, issuer)
            }
        };
        let server = match load(dir, "apiserver", now)? {
            Some(server) if is_issued_by(&server, &ca) && has_names(&server, &names) => server,
            Some(_) | None => {
                let server = make_server(&issuer, &names, now)?;
                store(dir, "apiserver", &server)?;
                server
            }
        };
        let admin = match load(dir, "admin", now)? {
            Some(admin) if is_issued_by(&admin, &ca) => admin,
            Some(_) | None => {
                let admin = make_client(&issuer, &User::admin(), now)?;
                store(dir, "admin", &admin)?;
                admin
            }
        };
        let tokens = Arc::new(SigningKey::load_or_create(dir)?);
        Ok(Self { ca, issuer, server, admin, tokens, clock })
    }

    /// The authority's certificate, by which clients know the server.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca.certificate
    }

    /// The key that signs the tokens of service accounts. It does not expire.
    #[must_use]
    pub fn tokens(&self) -> Arc<SigningKey> {
        Arc::clone(&self.tokens)
    }

    /// A certificate and key for `user`, both PEM. The administrator's stay the same, others are made
    /// at each call.
    ///
    /// # Panics
    /// If `user` is of several groups besides `system:authenticated`; the cluster's own users are not.
    #[must_use]
    pub fn client(&self, user: &User) -> (String, String) {
        let pair = if *user == User::admin() {
            self.admin.clone()
        } else {
            make_client(&self.issuer, user, self.clock.now())
                .expect("the cluster's users are of one group each")
        };
        (pair.certificate, pair.key)
    }

    /// The authority's certificate, in DER.
    ///
    /// # Errors
    /// If the file held something else.
    pub fn ca_bytes(&self) -> Result<Vec<u8>, PkiError> {
        Ok(self.ca_der()?.to_vec())
    }

    /// The authority's certificate.
    ///
    /// # Errors
    /// If the file held something else.
    pub(super) fn ca_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(self.ca.certificate.as_bytes()).map_err(|why| damaged("ca.crt", why))
    }

    /// The server's certificate and key.
    ///
    /// # Errors
    /// If the files held something else.
    pub(super) fn server_der(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), PkiError> {
        let certificate = CertificateDer::from_pem_slice(self.server.certificate.as_bytes())
            .map_err(|why| damaged("apiserver.crt", why))?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key.as_bytes())
            .map_err(|why| damaged("apiserver.key", why))?;
        Ok((certificate, key))
    }
}

fn damaged(file: &str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Damaged { path: file.into(), why: why.to_string() }
}

fn server_names(more: &[String]) -> Vec<String> {
    let mut names: Vec<String> = SERVER_NAMES.iter().map(|name| (*name).to_owned()).collect();
    // Whichever slice of loopback becomes the cluster's.
    let api = (0..AddressPlan::SLICES).map(|slice| AddressPlan::of_slice(slice).api().to_string());
    names.extend(api);
    for name in host_name().iter().chain(more) {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The machine's name, where the system tells it in a file.
fn host_name() -> Option<String> {
    let name = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())?;
    let name = name.trim();
    let is_dns = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    (!name.is_empty() && is_dns).then(|| name.to_owned())
}

fn make_ca(now: Timestamp) -> Result<(Pair, Issuer<'static, KeyPair>), PkiError> {
    let mut params = params(now, CA_YEARS);
    params.distinguished_name.push(DnType::CommonName, "coracle");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
    Ok((pair, Issuer::new(params, key)))
}

fn issuer_of(ca: &Pair) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
    Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)
}

fn make_server(
    issuer: &Issuer<'static, KeyPair>,
    names: &[String],
    now: Timestamp,
) -> Result<Pair, PkiError> {
    let mut params = params(now, LEAF_YEARS);
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    make_leaf(issuer, params)
}

fn make_client(issuer: &Issuer<'static, KeyPair>, user: &User, now: Timestamp) -> Result<Pair, PkiError> {
    let mut params = params(now, LEAF_YEARS);
    let mut groups = user.groups.iter().filter(|group| *group != "system:authenticated");
    if let Some(group) = groups.next() {
        params.distinguished_name.push(DnType::OrganizationName, group.as_str());
    }
    if groups.next().is_some() {
        // rcgen keeps one value for each type of name.
        return Err(PkiError::Groups(user.name.clone()));
    }
    params.distinguished_name.push(DnType::CommonName, user.name.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    make_leaf(issuer, params)
}

fn make_leaf(issuer: &Issuer<'static, KeyPair>, mut params: CertificateParams) -> Result<Pair, PkiError> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Valid from yesterday, because clocks differ, for `years`.
fn params(now: Timestamp, years: i64) -> CertificateParams {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        date_time_ymd(i32::from(date.year()), month, day)
    };
    let mut params = CertificateParams::default();
    params.not_before = day(today.saturating_sub(1.days()));
    params.not_after = day(today.saturating_add(years.years()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// A pair from `dir`, unless it is missing or expires soon.
fn load(dir: Option<&Path>, name: &str, now: Timestamp) -> Result<Option<Pair>, PkiError> {
    let Some(dir) = dir else { return Ok(None) };
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { what: "read", path, source }),
    };
    let path = dir.join(format!("{name}.crt"));
    let (Some(certificate), Some(key)) = (read(path.clone())?, read(dir.join(format!("{name}.key")))?) else {
        return Ok(None);
    };
    let pair = Pair { certificate, key };
    let expires = inspect(&pair, |certificate| certificate.validity().not_after.timestamp())
        .ok_or_else(|| PkiError::Damaged { path, why: "it does not read as a certificate".into() })?;
    let soon = now.as_second() + RENEW_DAYS * 86_400;
    Ok((expires > soon).then_some(pair))
}

fn store(dir: Option<&Path>, name: &str, pair: &Pair) -> Result<(), PkiError> {
    let Some(dir) = dir else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| PkiError::File {
        what: "make the folder of",
        path: dir.to_owned(),
        source,
    })?;
    // The key first: a certificate without its key would not be found out until it is used.
    for (suffix, content) in [("key", &pair.key), ("crt", &pair.certificate)] {
        let path = dir.join(format!("{name}.{suffix}"));
        kubeconfig::write(&path, content).map_err(|source| PkiError::File { what: "write", path, source })?;
    }
    Ok(())
}

fn inspect<T>(pair: &Pair, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(look(&certificate))
}

/// Whether the authority signed it and its key belongs to it: not so after a stop between two writes.
fn is_issued_by(pair: &Pair, ca: &Pair) -> bool {
    let Ok(key) = KeyPair::from_pem(&pair.key) else { return false };
    let Ok(ca) = CertificateDer::from_pem_slice(ca.certificate.as_bytes()) else { return false };
    let Ok((_, ca)) = X509Certificate::from_der(&ca) else { return false };
    let fits = inspect(pair, |certificate| {
        certificate.public_key().subject_public_key.data == key.public_key_raw()
            && certificate.verify_signature(Some(ca.public_key())).is_ok()
    });
    fits.unwrap_or(false)
}

fn has_names(pair: &Pair, wanted: &[String]) -> bool {
    let names = inspect(pair, |certificate| {
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
        extension.value.general_names.iter().filter_map(show_name).collect()
    });
    names.is_some_and(|names: Vec<String>| wanted.iter().all(|name| names.contains(name)))
}

fn show_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
            };
            address.map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
