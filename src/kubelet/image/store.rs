//! The local image store: an OCI image layout that several processes may use at once.
//!
//! ```text
//! <dir>/oci-layout               the layout's version
//! <dir>/index.json               names and manifests; replaced as a whole
//! <dir>/blobs/sha256/<digest>    manifests, configurations and WebAssembly
//! <dir>/.lock                    held while names or blobs change
//! ```
//!
//! An image is the CNCF's WebAssembly artifact: a manifest whose configuration is
//! `application/vnd.wasm.config.v0+json` and whose only layer, `application/wasm`, is the program.
//! Readers take no lock: blobs never change, and the index is swapped in one step.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::name::{self, InvalidName};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{0} is not in the image store; `coracle image list` shows what is")]
    NoSuchImage(String),
    #[error("{0} is built into this program and cannot be removed")]
    BuiltIn(String),
    #[error("not WebAssembly: the file does not begin with \\0asm")]
    NotWasm,
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the image store is damaged: {path}: {why}; remove the file and import its images again")]
    Damaged { path: PathBuf, why: String },
}

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The full name: `docker.io/library/hello:v1`.
    pub name: String,
    /// `sha256:…` of the WebAssembly.
    pub digest: String,
    /// Size of the WebAssembly, in bytes.
    pub size: u64,
    /// Part of the program rather than of the store.
    pub built_in: bool,
}

/// The images of a node: on disk, or in memory for a cluster without one.
pub struct ImageStore {
    /// `None` keeps imported images in memory.
    dir: Option<PathBuf>,
    built_in: BTreeMap<String, (String, Bytes)>,
    memory: Mutex<Memory>,
}

/// What has been read, or, without a directory, all there is.
#[derive(Default)]
struct Memory {
    /// The index as last read, and what its file looked like then.
    index: Arc<BTreeMap<String, Entry>>,
    seen: Option<Stamp>,
    blobs: BTreeMap<String, Bytes>,
}

/// A program by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    digest: String,
    size: u64,
}

/// Tells one version of the index from another: each is a new file.
type Stamp = (u64, u64, i64, i64);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    architecture: &'a str,
    os: &'a str,
    layer_digests: [&'a str; 1],
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

fn digest_of(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a string takes every character");
    }
    text
}

impl ImageStore {
    /// The store in `dir`, which is made with the first import.
    #[must_use]
    pub fn on_disk(dir: PathBuf) -> Self {
        Self { dir: Some(dir), built_in: BTreeMap::new(), memory: Mutex::default() }
    }

    /// A store that ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { dir: None, built_in: BTreeMap::new(), memory: Mutex::default() }
    }

    /// Adds images that are part of the program; imported ones of the same name win.
    ///
    /// # Panics
    /// If a name is none: they are constants.
    #[must_use]
    pub fn with_built_in(mut self, images: &[(&str, &'static [u8])]) -> Self {
        for (name, wasm) in images {
            let full = name::normalize(name).expect("names of built-in images are valid");
            self.built_in.insert(full, (digest_of(wasm), Bytes::from_static(wasm)));
        }
        self
    }

    /// The directory, for those who watch it.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Stores a program under a name; an older image of that name is replaced.
    pub fn import(&self, name: &str, wasm: &Bytes) -> Result<ImageInfo, StoreError> {
        let full = name::normalize(name)?;
        if !wasm.starts_with(b"\0asm") {
            return Err(StoreError::NotWasm);
        }
        let digest = digest_of(wasm);
        let size = wasm.len() as u64;
        let info = ImageInfo { name: full.clone(), digest: digest.clone(), size, built_in: false };
        let Some(dir) = &self.dir else {
            let mut memory = self.memory();
            memory.blobs.insert(digest.clone(), wasm.clone());
            Arc::make_mut(&mut memory.index).insert(full, Entry { digest, size });
            return Ok(info);
        };
        let _lock = lock(dir)?;
        write_blob(dir, &digest, wasm)?;
        // A component's layer byte is 1, a core module's 0.
        let os = if wasm.get(6) == Some(&1) { "wasip2" } else { "wasip1" };
        let config = Config { architecture: "wasm", os, layer_digests: [&digest] };
        let config = serde_json::to_vec(&config).expect("strings encode");
        let config_digest = digest_of(&config);
        write_blob(dir, &config_digest, &config)?;
        let descriptor = |media_type: &str, digest: &str, size: usize| Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_owned(),
            size: size as u64,
            annotations: BTreeMap::new(),
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            config: descriptor(CONFIG_TYPE, &config_digest, config.len()),
            layers: vec![descriptor(LAYER_TYPE, &digest, wasm.len())],
        };
        let manifest = serde_json::to_vec(&manifest).expect("strings encode");
        let manifest_digest = digest_of(&manifest);
        write_blob(dir, &manifest_digest, &manifest)?;
        let mut entry = descriptor(MANIFEST_TYPE, &manifest_digest, manifest.len());
        entry.annotations.insert(NAME_ANNOTATION.to_owned(), full.clone());
        let mut index = read_index(dir)?;
        index.manifests.retain(|entry| entry.annotations.get(NAME_ANNOTATION) != Some(&full));
        index.manifests.push(entry);
        write_index(dir, &index)?;
        collect(dir, &index)?;
        Ok(info)
    }

    /// Every image by name, built-in ones included.
    pub fn list(&self) -> Result<Vec<ImageInfo>, StoreError> {
        let mut images: BTreeMap<String, ImageInfo> = BTreeMap::new();
        for (name, (digest, wasm)) in &self.built_in {
            let (name, digest) = (name.clone(), digest.clone());
            images.insert(name.clone(), ImageInfo { name, digest, size: wasm.len() as u64, built_in: true });
        }
        for (name, entry) in &*self.index()? {
            let (name, digest) = (name.clone(), entry.digest.clone());
            images.insert(name.clone(), ImageInfo { name, digest, size: entry.size, built_in: false });
        }
        Ok(images.into_values().collect())
    }

    /// Forgets a name, and the program if no other name has it.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let full = name::normalize(name)?;
        let absent = || {
            if self.built_in.contains_key(&full) {
                StoreError::BuiltIn(name::familiar(&full).to_owned())
            } else {
                StoreError::NoSuchImage(name::familiar(&full).to_owned())
            }
        };
        let Some(dir) = &self.dir else {
            let mut memory = self.memory();
            let entry = Arc::make_mut(&mut memory.index).remove(&full).ok_or_else(absent)?;
            if !memory.index.values().any(|other| other.digest == entry.digest) {
                memory.blobs.remove(&entry.digest);
            }
            return Ok(());
        };
        if !dir.join("index.json").exists() {
            return Err(absent());
        }
        let _lock = lock(dir)?;
        let mut index = read_index(dir)?;
        let before = index.manifests.len();
        index.manifests.retain(|entry| entry.annotations.get(NAME_ANNOTATION) != Some(&full));
        if index.manifests.len() == before {
            return Err(absent());
        }
        write_index(dir, &index)?;
        collect(dir, &index)
    }

    /// The digest of the program that a full name means now; what another process has imported
    /// counts from that moment.
    pub fn resolve(&self, full: &str) -> Result<Option<String>, StoreError> {
        if let Some((_, digest)) = full.split_once('@') {
            let known = self.index()?.values().any(|entry| entry.digest == digest)
                || self.built_in.values().any(|(known, _)| known == digest);
            return Ok(known.then(|| digest.to_owned()));
        }
        if let Some(entry) = self.index()?.get(full) {
            return Ok(Some(entry.digest.clone()));
        }
        Ok(self.built_in.get(full).map(|(digest, _)| digest.clone()))
    }

    /// The program with this digest.
    pub fn read(&self, digest: &str) -> Result<Bytes, StoreError> {
        if let Some((_, wasm)) = self.built_in.values().find(|(known, _)| known == digest) {
            return Ok(wasm.clone());
        }
        match &self.dir {
            None => {
                let blob = self.memory().blobs.get(digest).cloned();
                blob.ok_or_else(|| StoreError::NoSuchImage(digest.to_owned()))
            }
            Some(dir) => {
                let path = blob_path(dir, digest);
                let wasm = fs::read(&path).map_err(io("read", &path))?;
                if digest_of(&wasm) != digest {
                    return Err(StoreError::Damaged { path, why: "its content has another digest".into() });
                }
                Ok(wasm.into())
            }
        }
    }

    /// Names and programs, read again if the file has changed.
    fn index(&self) -> Result<Arc<BTreeMap<String, Entry>>, StoreError> {
        let Some(dir) = &self.dir else { return Ok(self.memory().index.clone()) };
        let path = dir.join("index.json");
        let stamp = match fs::metadata(&path) {
            Ok(metadata) => Some(stamp(&metadata)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(io("look at", &path)(error)),
        };
        let mut memory = self.memory();
        if memory.seen != stamp || stamp.is_none() {
            let mut entries = BTreeMap::new();
            for descriptor in read_index(dir)?.manifests {
                let Some(name) = descriptor.annotations.get(NAME_ANNOTATION) else { continue };
                // What an import elsewhere has just collected is gone from the next index too.
                if let Some(layer) =
                    read_manifest(dir, &descriptor.digest)?.and_then(|m| m.layers.into_iter().next())
                {
                    entries.insert(name.clone(), Entry { digest: layer.digest, size: layer.size });
                }
            }
            memory.index = Arc::new(entries);
            memory.seen = stamp;
        }
        Ok(memory.index.clone())
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder panics")
    }
}

#[cfg(unix)]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(not(unix))]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let modified = modified.unwrap_or_default();
    let nanos = i64::from(modified.subsec_nanos());
    (0, metadata.len(), i64::try_from(modified.as_secs()).unwrap_or(i64::MAX), nanos)
}

/// Holds the store's lock until dropped; waits for another holder, who has it for a moment only.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let blobs = dir.join("blobs").join("sha256");
    fs::create_dir_all(&blobs).map_err(io("make the directory", &blobs))?;
    let path = dir.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => file.lock().map_err(io("lock", &path))?,
        Err(TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
    }
    let layout = dir.join("oci-layout");
    if !layout.exists() {
        write_atomically(dir, &layout, LAYOUT.as_bytes())?;
    }
    Ok(file)
}

fn blob_path(dir: &Path, digest: &str) -> PathBuf {
    dir.join("blobs").join("sha256").join(digest.strip_prefix("sha256:").unwrap_or(digest))
}

fn write_blob(dir: &Path, digest: &str, content: &[u8]) -> Result<(), StoreError> {
    let path = blob_path(dir, digest);
    let is_there = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == content.len() as u64);
    if is_there { Ok(()) } else { write_atomically(dir, &path, content) }
}

/// Readers see the old content or the new, also after a crash. Only the lock's holder writes, so
/// one temporary name is enough.
fn write_atomically(dir: &Path, path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = dir.join(".new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(io("write", path))
}

fn read_index(dir: &Path) -> Result<Index, StoreError> {
    let path = dir.join("index.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Damaged { path, why: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Index { schema_version: 2, manifests: Vec::new() })
        }
        Err(error) => Err(io("read", &path)(error)),
    }
}

fn write_index(dir: &Path, index: &Index) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(index).expect("strings encode");
    write_atomically(dir, &dir.join("index.json"), &bytes)
}

fn read_manifest(dir: &Path, digest: &str) -> Result<Option<Manifest>, StoreError> {
    let path = blob_path(dir, digest);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Damaged { path, why: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", &path)(error)),
    }
}

/// Removes blobs that nothing in the index leads to.
fn collect(dir: &Path, index: &Index) -> Result<(), StoreError> {
    let mut used = std::collections::BTreeSet::new();
    for descriptor in &index.manifests {
        used.insert(descriptor.digest.clone());
        if let Some(manifest) = read_manifest(dir, &descriptor.digest)? {
            used.insert(manifest.config.digest);
            used.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
    }
    let blobs = dir.join("blobs").join("sha256");
    for blob in fs::read_dir(&blobs).map_err(io("list", &blobs))? {
        let blob = blob.map_err(io("list", &blobs))?;
        let digest = format!("sha256:{}", blob.file_name().to_string_lossy());
        if !used.contains(&digest) {
            let path = blob.path();
            fs::remove_file(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
