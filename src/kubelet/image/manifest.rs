//! What an image is made of, as far as a node needs to know: pure functions over its documents.
//!
//! Three forms are one in the end, a program and how to call it:
//! - the CNCF's WebAssembly artifact and its relatives: one layer whose media type is
//!   `application/wasm` or ends in `+wasm` (those of runwasi and Spin among them);
//! - a container image for WebAssembly, whose entry point is a file in a tar layer (`compat`);
//! - an index of several platforms, from which the one for WebAssembly is taken.

use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

/// The longest manifest or index: what registries accept (distribution's `maxManifestBodySize`).
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// The longest image configuration.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// All layers of an image together, as they are transferred, and the program in them. They are held in
/// memory while an image is pulled, and the largest interpreters compiled to WebAssembly have 60 MiB.
pub(crate) const IMAGE_BYTES_MAX: u64 = 256 << 20;
/// All that compressed layers may unpack to while the program is looked for.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;
/// Layers of one image; Docker's own limit.
const LAYERS_MAX: usize = 127;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Why an image cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("its {0} is not valid: {1}")]
    Invalid(&'static str, String),
    #[error("it is for {0}; only WebAssembly runs here (platform wasi/wasm)")]
    OtherPlatforms(String),
    #[error("{0}")]
    NoProgram(String),
    #[error("its {what} of {bytes} bytes is more than the {max} bytes that are taken")]
    TooLarge { what: &'static str, bytes: u64, max: u64 },
}

/// A blob by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
}

/// What a registry has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// How an image wants to be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// What is to be fetched, and what then to be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The configuration, if it says how the image is called.
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Vec<Descriptor>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The only layer is the program.
    Program,
    /// The program is a file in tar layers.
    Tree,
}

/// `sha256:…` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    hex_digest(&Sha256::digest(bytes))
}

pub(crate) fn hex_digest(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hash {
        write!(text, "{byte:02x}").expect("a string takes every character");
    }
    text
}

/// Reads a manifest or an index.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, FormatError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        schema_version: u32,
        media_type: Option<String>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
        manifests: Option<Vec<Descriptor>>,
    }
    let invalid = |why: &str| FormatError::Invalid("manifest", why.to_owned());
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| invalid(&error.to_string()))?;
    if raw.schema_version != 2 {
        return Err(invalid(&format!("schemaVersion {} is not 2", raw.schema_version)));
    }
    let document = match (raw.media_type.as_deref(), raw.config, raw.layers, raw.manifests) {
        (Some(OCI_INDEX | DOCKER_INDEX) | None, None, None, Some(manifests)) => Document::Index(manifests),
        (Some(OCI_MANIFEST | DOCKER_MANIFEST) | None, Some(config), Some(layers), None) => {
            Document::Manifest(Manifest { config, layers })
        }
        (Some(other), ..) => {
            return Err(invalid(&format!("media type {other} with other fields than its own")));
        }
        (None, ..) => return Err(invalid("neither a manifest nor an index")),
    };
    let descriptors = match &document {
        Document::Index(manifests) => manifests.iter().collect::<Vec<_>>(),
        Document::Manifest(manifest) => std::iter::once(&manifest.config).chain(&manifest.layers).collect(),
    };
    if let Some(bad) = descriptors.iter().find(|descriptor| !is_digest(&descriptor.digest)) {
        return Err(invalid(&format!("{:?} is not a sha256 digest", bad.digest)));
    }
    Ok(document)
}

/// The media type that a manifest gives itself; OCI's own if it gives none.
pub(crate) fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let typed = serde_json::from_slice::<Typed>(manifest).ok().and_then(|typed| typed.media_type);
    typed.unwrap_or_else(|| OCI_MANIFEST.to_owned())
}

/// Whether a text is `sha256:` and 64 hexadecimal digits: what may become a file's name.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// The manifest of an index that is for WebAssembly; or the only one there is, since many images for
/// WebAssembly are marked as what they were built on. Attestations (`unknown/unknown`) do not count.
pub(crate) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, FormatError> {
    let for_wasm = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_some_and(|platform| {
            platform.architecture.starts_with("wasm")
                || platform.os.starts_with("wasi")
                || platform.os.starts_with("wasm")
        })
    };
    if let Some(found) = manifests.iter().find(for_wasm) {
        return Ok(found);
    }
    let is_attestation = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    };
    let rest: Vec<&Descriptor> = manifests.iter().filter(|one| !is_attestation(one)).collect();
    match rest.as_slice() {
        [only] => Ok(only),
        [] => Err(FormatError::NoProgram("its index is empty".to_owned())),
        several => {
            let platforms = several.iter().filter_map(|descriptor| descriptor.platform.as_ref());
            let mut names: Vec<String> =
                platforms.map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
            names.dedup();
            Err(FormatError::OtherPlatforms(names.join(", ")))
        }
    }
}

fn is_wasm(media_type: &str) -> bool {
    media_type == "application/wasm" || media_type.ends_with("+wasm")
}

/// How a layer is packed; `None` for what is no file system.
fn packing(media_type: &str) -> Option<Packing> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Some(Packing::Plain)
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Packing::Gzip),
        _ => None,
    }
}

enum Packing {
    Plain,
    Gzip,
}

/// What of an image to fetch.
pub(crate) fn plan(manifest: &Manifest) -> Result<Plan, FormatError> {
    let is_container_config = matches!(manifest.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG);
    let config = Some(manifest.config.clone()).filter(|_| is_container_config);
    if let Some(config) = &config {
        bounded("configuration", config.size, CONFIG_BYTES_MAX)?;
    }
    let programs: Vec<&Descriptor> =
        manifest.layers.iter().filter(|layer| is_wasm(&layer.media_type)).collect();
    let (layers, form) = match programs.as_slice() {
        [program] => (vec![(*program).clone()], Form::Program),
        [] => {
            if let Some(other) = manifest.layers.iter().find(|layer| packing(&layer.media_type).is_none()) {
                let types = format!("a layer of type {} cannot be read here", other.media_type);
                return Err(FormatError::NoProgram(types));
            }
            if manifest.layers.is_empty() || config.is_none() {
                return Err(FormatError::NoProgram("it has no layer of WebAssembly".to_owned()));
            }
            if manifest.layers.len() > LAYERS_MAX {
                return Err(FormatError::NoProgram(format!("it has more than {LAYERS_MAX} layers")));
            }
            (manifest.layers.clone(), Form::Tree)
        }
        several => {
            let count = several.len();
            return Err(FormatError::NoProgram(format!(
                "it has {count} layers of WebAssembly; a container runs one"
            )));
        }
    };
    let bytes = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    bounded("layers", bytes, IMAGE_BYTES_MAX)?;
    Ok(Plan { config, layers, form })
}

fn bounded(what: &'static str, bytes: u64, max: u64) -> Result<(), FormatError> {
    if bytes > max { Err(FormatError::TooLarge { what, bytes, max }) } else { Ok(()) }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConfig {
    os: String,
    architecture: String,
    config: Option<RawRun>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct RawRun {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

fn raw_config(bytes: &[u8]) -> Result<RawConfig, FormatError> {
    serde_json::from_slice(bytes).map_err(|error| FormatError::Invalid("configuration", error.to_string()))
}

fn image_config(run: &RawRun) -> ImageConfig {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=')?;
        (!name.is_empty() && !text.contains('\0')).then(|| (name.to_owned(), value.to_owned()))
    };
    ImageConfig {
        entrypoint: run.entrypoint.clone().unwrap_or_default(),
        cmd: run.cmd.clone().unwrap_or_default(),
        env: run.env.iter().flatten().filter_map(pair).collect(),
    }
}

/// How an image is called, from the bytes of its configuration.
pub(crate) fn read_config(bytes: &[u8]) -> Result<ImageConfig, FormatError> {
    Ok(image_config(&raw_config(bytes)?.config.unwrap_or_default()))
}

/// The program of an image and how to call it, from the blobs that its plan names, in that order.
pub(crate) fn program(
    plan: &Plan,
    config: Option<&[u8]>,
    layers: &[Bytes],
) -> Result<(Bytes, ImageConfig), FormatError> {
    let raw = config.map(raw_config).transpose()?.unwrap_or_default();
    let run = raw.config.unwrap_or_default();
    let calls = image_config(&run);
    let wasm = match plan.form {
        Form::Program => layers.first().cloned().unwrap_or_default(),
        Form::Tree => {
            let entry = calls.entrypoint.first().or(calls.cmd.first());
            let Some(entry) = entry else {
                return Err(FormatError::NoProgram("its configuration names no entry point".to_owned()));
            };
            let path = absolute(run.working_dir.as_deref().unwrap_or_default(), entry);
            let Some(file) = find(plan, layers, &path)? else {
                return Err(FormatError::NoProgram(format!(
                    "its entry point {entry:?} is in none of its layers"
                )));
            };
            if !file.starts_with(b"\0asm") {
                let platform = format!("{}/{}", raw.os, raw.architecture);
                return Err(FormatError::NoProgram(format!(
                    "its entry point {entry:?} is a program for {platform}, not WebAssembly"
                )));
            }
            file
        }
    };
    if !wasm.starts_with(b"\0asm") {
        return Err(FormatError::NoProgram("its layer of WebAssembly does not begin with \\0asm".to_owned()));
    }
    Ok((wasm, calls))
}

/// A path without `.` and empty parts, from the root.
fn absolute(working_dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    parts(&whole).join("/")
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// What a layer says of a path.
enum Told {
    Nothing,
    File(Bytes),
    /// It is not there, whatever the layers below have.
    Gone,
}

/// A file of the tree that all layers make, the last of them on top.
fn find(plan: &Plan, layers: &[Bytes], path: &str) -> Result<Option<Bytes>, FormatError> {
    let mut left = UNPACKED_BYTES_MAX;
    for (descriptor, layer) in plan.layers.iter().zip(layers).rev() {
        let told = match packing(&descriptor.media_type) {
            Some(Packing::Gzip) => {
                let mut unpacked = flate2::read::MultiGzDecoder::new(&**layer).take(left);
                let told = look(&mut unpacked, path);
                left = unpacked.limit();
                told
            }
            Some(Packing::Plain) => look(&mut &**layer, path),
            None => Ok(Told::Nothing),
        };
        let told = told.map_err(|error| {
            if left == 0 {
                let (bytes, max) = (UNPACKED_BYTES_MAX + 1, UNPACKED_BYTES_MAX);
                FormatError::TooLarge { what: "unpacked layers", bytes, max }
            } else {
                FormatError::Invalid("layer", error.to_string())
            }
        })?;
        match told {
            Told::Nothing => {}
            Told::File(file) => return Ok(Some(file)),
            Told::Gone => return Ok(None),
        }
    }
    Ok(None)
}

fn look(layer: &mut dyn Read, wanted: &str) -> std::io::Result<Told> {
    let wanted_parts = parts(wanted);
    let mut told = Told::Nothing;
    for entry in tar::Archive::new(layer).entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let found = parts(&path);
        if found == wanted_parts {
            let kind = entry.header().entry_type();
            if !kind.is_file() && !kind.is_contiguous() {
                return Err(std::io::Error::other(format!("{wanted} is a link or a directory, not a file")));
            }
            if entry.size() > IMAGE_BYTES_MAX {
                return Err(std::io::Error::other(format!(
                    "{wanted} is larger than {IMAGE_BYTES_MAX} bytes"
                )));
            }
            let mut file = Vec::new();
            entry.read_to_end(&mut file)?;
            told = Told::File(file.into());
        } else if hides(&found, &wanted_parts) && matches!(told, Told::Nothing) {
            told = Told::Gone;
        }
    }
    Ok(told)
}

/// Whether an entry is a whiteout of the path, of a directory above it, or of all that lower layers have
/// in one (OCI image specification, "Whiteouts").
fn hides(entry: &[&str], wanted: &[&str]) -> bool {
    let Some((name, parent)) = entry.split_last() else { return false };
    let Some(name) = name.strip_prefix(".wh.") else { return false };
    if !wanted.starts_with(parent) || wanted.len() == parent.len() {
        return false;
    }
    name == ".wh..opq" || wanted.get(parent.len()) == Some(&name)
}
