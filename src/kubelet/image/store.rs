//! The local image store: an OCI image layout that several processes may use at once.
//!
//! ```text
//! <dir>/oci-layout               the layout's version
//! <dir>/index.json               names and manifests; replaced as a whole
//! <dir>/blobs/sha256/<digest>    manifests, configurations and WebAssembly
//! <dir>/.lock                    held while names or blobs change
//! ```
//!
//! An imported image is the CNCF's WebAssembly artifact: a manifest whose configuration is
//! `application/vnd.wasm.config.v0+json` and whose only layer, `application/wasm`, is the program. An
//! image from a registry or another layout is kept as it is there, beside the program that was found in it;
//! annotations of its entry in the index say where that is, what the name meant, and who may use it.
//! Readers take no lock: blobs never change, and the index is swapped in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::manifest::{self, Descriptor, ImageConfig, digest_of};
use super::name::{self, InvalidName, Parts};

const MANIFEST_TYPE: &str = manifest::OCI_MANIFEST;
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// The digest of the program, where it is no layer of its own.
const PROGRAM_ANNOTATION: &str = "dev.coracle.image.program";
/// The digest that the name had at its registry; only names that were pulled have it.
const PULLED_ANNOTATION: &str = "dev.coracle.image.pulled";
/// The uids of the Secrets that it was pulled with, separated by commas; without it anybody may use it.
const SECRETS_ANNOTATION: &str = "dev.coracle.image.secrets";
/// Secrets remembered of one image; a pod with another one asks the registry.
const SECRETS_MAX: usize = 64;
/// Bytes in a store beyond which pulled images go, the least recently pulled first: on disk, and in memory.
const DISK_BYTES_MAX: u64 = 8 << 30;
const MEMORY_BYTES_MAX: u64 = 1 << 30;
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
    /// The digest that the name had at its registry, if it was pulled.
    pub pulled: Option<String>,
}

/// Who may use an image without asking its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    All,
    /// Pods that have one of these Secrets, by uid.
    Secrets(BTreeSet<String>),
}

/// Where an image is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Put here by somebody who may.
    Imported,
    Pulled {
        /// What the name meant: of an index, if there is one.
        digest: String,
        access: Access,
    },
}

/// What a name means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The digest of the program.
    pub(crate) program: String,
    /// Of everything that was transferred, or of the program; in bytes.
    pub(crate) size: u64,
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) origin: Origin,
}

/// An image to be stored, with its documents as they are elsewhere.
pub(crate) struct Content {
    pub(crate) manifest: Bytes,
    pub(crate) media_type: String,
    /// All that the manifest names and that is to be kept, by digest.
    pub(crate) blobs: Vec<(String, Bytes)>,
    pub(crate) program: Bytes,
    pub(crate) config: ImageConfig,
}

/// An image's documents, for whoever wants to look or to send it elsewhere.
pub struct Documents {
    pub info: ImageInfo,
    pub config: Arc<ImageConfig>,
    pub manifest: Bytes,
    pub media_type: String,
    /// Type, digest and size of the configuration and of each layer, as the manifest names them.
    pub blobs: Vec<(String, String, u64)>,
}

/// The images of a node: on disk, or in memory for a cluster without one.
pub struct ImageStore {
    /// `None` keeps imported images in memory.
    dir: Option<PathBuf>,
    built_in: BTreeMap<String, (String, Bytes)>,
    bytes_max: u64,
    memory: Mutex<Memory>,
}

/// What has been read, or, without a directory, all there is.
#[derive(Default)]
struct Memory {
    /// The index as last read, and what its file looked like then.
    index: Arc<BTreeMap<String, Entry>>,
    seen: Option<Stamp>,
    blobs: BTreeMap<String, Bytes>,
    /// The names of pulled images in memory, the least recently pulled first.
    pulled: Vec<String>,
}

impl Memory {
    /// Removes what no name leads to, and pulled images but `newest` while there is more than `bytes_max`.
    fn collect(&mut self, newest: &str, bytes_max: u64) {
        loop {
            let index = self.index.clone();
            self.blobs.retain(|digest, _| index.values().any(|entry| entry.digest == *digest));
            let bytes: u64 = self.blobs.values().map(|blob| blob.len() as u64).sum();
            let Some(oldest) = self.pulled.iter().position(|name| name != newest) else { return };
            if bytes <= bytes_max {
                return;
            }
            let name = self.pulled.remove(oldest);
            drop(index);
            Arc::make_mut(&mut self.index).remove(&name);
        }
    }
}

/// A program by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Of the program.
    digest: String,
    size: u64,
    known: Known,
}

impl Entry {
    fn new(digest: String, size: u64, config: ImageConfig, transferred: u64, origin: Origin) -> Self {
        let program = digest.clone();
        Self { digest, size, known: Known { program, size: transferred, config: Arc::new(config), origin } }
    }
}

/// Tells one version of the index from another: each is a new file.
type Stamp = (u64, u64, i64, i64);

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
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

impl ImageStore {
    /// The store in `dir`, which is made with the first import.
    #[must_use]
    pub fn on_disk(dir: PathBuf) -> Self {
        Self {
            dir: Some(dir),
            built_in: BTreeMap::new(),
            bytes_max: DISK_BYTES_MAX,
            memory: Mutex::default(),
        }
    }

    /// A store that ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { dir: None, built_in: BTreeMap::new(), bytes_max: MEMORY_BYTES_MAX, memory: Mutex::default() }
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
        let info =
            ImageInfo { name: full.clone(), digest: digest.clone(), size, built_in: false, pulled: None };
        // A component's layer byte is 1, a core module's 0.
        let os = if wasm.get(6) == Some(&1) { "wasip2" } else { "wasip1" };
        let config = Config { architecture: "wasm", os, layer_digests: [&digest] };
        let config = Bytes::from(serde_json::to_vec(&config).expect("strings encode"));
        let config_digest = digest_of(&config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            config: descriptor(CONFIG_TYPE, &config_digest, config.len()),
            layers: vec![descriptor(LAYER_TYPE, &digest, wasm.len())],
        };
        let content = Content {
            manifest: serde_json::to_vec(&manifest).expect("strings encode").into(),
            media_type: MANIFEST_TYPE.to_owned(),
            blobs: vec![(config_digest, config), (digest, wasm.clone())],
            program: wasm.clone(),
            config: ImageConfig::default(),
        };
        self.add(&full, content, &Origin::Imported)?;
        Ok(info)
    }

    /// Stores an image under a full name; an older one of that name is replaced.
    pub(crate) fn add(&self, full: &str, content: Content, origin: &Origin) -> Result<(), StoreError> {
        let program = digest_of(&content.program);
        let Some(dir) = &self.dir else {
            let bytes = content.program.len() as u64;
            let transferred = match manifest::parse(&content.manifest) {
                Ok(manifest::Document::Manifest(manifest)) => {
                    manifest.layers.iter().map(|layer| layer.size).sum()
                }
                Ok(manifest::Document::Index(_)) | Err(_) => bytes,
            };
            let entry = Entry::new(program.clone(), bytes, content.config, transferred, origin.clone());
            let mut memory = self.memory();
            memory.blobs.insert(program, content.program);
            Arc::make_mut(&mut memory.index).insert(full.to_owned(), entry);
            memory.pulled.retain(|name| name != full);
            if matches!(origin, Origin::Pulled { .. }) {
                memory.pulled.push(full.to_owned());
            }
            memory.collect(full, self.bytes_max);
            return Ok(());
        };
        let _lock = lock(dir)?;
        for (digest, blob) in &content.blobs {
            write_blob(dir, digest, blob)?;
        }
        let manifest_digest = digest_of(&content.manifest);
        write_blob(dir, &manifest_digest, &content.manifest)?;
        let mut entry = descriptor(&content.media_type, &manifest_digest, content.manifest.len());
        entry.annotations.insert(NAME_ANNOTATION.to_owned(), full.to_owned());
        if !content.blobs.iter().any(|(digest, _)| *digest == program) {
            write_blob(dir, &program, &content.program)?;
            entry.annotations.insert(PROGRAM_ANNOTATION.to_owned(), program);
        }
        annotate(&mut entry, origin);
        let mut index = read_index(dir)?;
        index
            .manifests
            .retain(|entry| entry.annotations.get(NAME_ANNOTATION).is_none_or(|name| name != full));
        index.manifests.push(entry);
        write_index(dir, &index)?;
        collect(dir, &index)?;
        // The oldest stand first.
        while size_of(dir)? > self.bytes_max {
            let is_old = |entry: &Descriptor| {
                entry.annotations.contains_key(PULLED_ANNOTATION)
                    && entry.annotations.get(NAME_ANNOTATION).is_none_or(|name| name != full)
            };
            let Some(oldest) = index.manifests.iter().position(is_old) else { break };
            index.manifests.remove(oldest);
            write_index(dir, &index)?;
            collect(dir, &index)?;
        }
        Ok(())
    }

    /// More pods may use a pulled image without asking its registry.
    pub(crate) fn allow(&self, full: &str, more: &Access) -> Result<(), StoreError> {
        let widened = |origin: &Origin| match origin {
            Origin::Imported => None,
            Origin::Pulled { digest, access } => {
                let access = widen(access, more)?;
                Some(Origin::Pulled { digest: digest.clone(), access })
            }
        };
        let Some(dir) = &self.dir else {
            let mut memory = self.memory();
            if let Some(entry) = Arc::make_mut(&mut memory.index).get_mut(full)
                && let Some(origin) = widened(&entry.known.origin)
            {
                entry.known.origin = origin;
            }
            return Ok(());
        };
        let _lock = lock(dir)?;
        let mut index = read_index(dir)?;
        let is_it =
            |entry: &&mut Descriptor| entry.annotations.get(NAME_ANNOTATION).is_some_and(|name| name == full);
        let Some(entry) = index.manifests.iter_mut().find(is_it) else { return Ok(()) };
        let Some(origin) = widened(&origin_of(entry)) else { return Ok(()) };
        annotate(entry, &origin);
        write_index(dir, &index)
    }

    /// Every image by name, built-in ones included.
    pub fn list(&self) -> Result<Vec<ImageInfo>, StoreError> {
        let mut images: BTreeMap<String, ImageInfo> = BTreeMap::new();
        for (name, (digest, wasm)) in &self.built_in {
            let (name, digest) = (name.clone(), digest.clone());
            let size = wasm.len() as u64;
            images.insert(name.clone(), ImageInfo { name, digest, size, built_in: true, pulled: None });
        }
        for (name, entry) in &*self.index()? {
            images.insert(name.clone(), info(name, entry));
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

    /// What a full name means now; what another process has imported counts from that moment.
    ///
    /// A digest is that of a program, under whatever name it was imported; or the one that a repository's
    /// image was pulled by, for that repository alone.
    pub(crate) fn find(&self, full: &str) -> Result<Option<Known>, StoreError> {
        let built_in = |(digest, wasm): &(String, Bytes)| Known {
            program: digest.clone(),
            size: wasm.len() as u64,
            config: Arc::default(),
            origin: Origin::Imported,
        };
        let index = self.index()?;
        if let Some(entry) = index.get(full) {
            return Ok(Some(entry.known.clone()));
        }
        let Some((_, wanted)) = full.split_once('@') else {
            return Ok(self.built_in.get(full).map(built_in));
        };
        let parts = Parts::of(full);
        let found = index.iter().find(|(name, entry)| match &entry.known.origin {
            Origin::Imported => entry.digest == wanted,
            Origin::Pulled { digest, .. } => {
                let other = Parts::of(name);
                digest == wanted && other.host == parts.host && other.repository == parts.repository
            }
        });
        if let Some((_, entry)) = found {
            return Ok(Some(entry.known.clone()));
        }
        Ok(self.built_in.values().find(|(digest, _)| digest == wanted).map(built_in))
    }

    /// The digest of the program that a full name means now.
    pub fn resolve(&self, full: &str) -> Result<Option<String>, StoreError> {
        Ok(self.find(full)?.map(|known| known.program))
    }

    /// The documents of a stored image; not of built-in ones, which have none, nor of those in memory.
    pub fn documents(&self, name: &str) -> Result<Documents, StoreError> {
        let full = name::normalize(name)?;
        let absent = || StoreError::NoSuchImage(name::familiar(&full).to_owned());
        let dir = self.dir.as_ref().ok_or_else(absent)?;
        let index = self.index()?;
        let entry = index.get(&full).ok_or_else(absent)?;
        let is_it = |entry: &Descriptor| entry.annotations.get(NAME_ANNOTATION) == Some(&full);
        let found = read_index(dir)?.manifests.into_iter().find(is_it).ok_or_else(absent)?;
        let manifest = self.read(&found.digest)?;
        let parsed = read_manifest(dir, &found.digest)?.ok_or_else(absent)?;
        let blobs = std::iter::once(parsed.config).chain(parsed.layers);
        Ok(Documents {
            info: info(&full, entry),
            config: entry.known.config.clone(),
            manifest,
            media_type: found.media_type,
            blobs: blobs.map(|blob| (blob.media_type, blob.digest, blob.size)).collect(),
        })
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
                if let Some(entry) = read_entry(dir, &descriptor)? {
                    entries.insert(name.clone(), entry);
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

fn descriptor(media_type: &str, digest: &str, size: usize) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: size as u64,
        annotations: BTreeMap::new(),
        platform: None,
    }
}

fn info(name: &str, entry: &Entry) -> ImageInfo {
    let pulled = match &entry.known.origin {
        Origin::Imported => None,
        Origin::Pulled { digest, .. } => Some(digest.clone()),
    };
    let (name, digest) = (name.to_owned(), entry.digest.clone());
    ImageInfo { name, digest, size: entry.size, built_in: false, pulled }
}

/// What two together may; `None` if that is nothing new.
fn widen(old: &Access, more: &Access) -> Option<Access> {
    match (old, more) {
        (Access::All, _) => None,
        (Access::Secrets(_), Access::All) => Some(Access::All),
        (Access::Secrets(old), Access::Secrets(more)) => {
            if more.is_subset(old) || old.len() + more.len() > SECRETS_MAX {
                return None;
            }
            Some(Access::Secrets(old.union(more).cloned().collect()))
        }
    }
}

fn annotate(entry: &mut Descriptor, origin: &Origin) {
    entry.annotations.remove(SECRETS_ANNOTATION);
    let Origin::Pulled { digest, access } = origin else { return };
    entry.annotations.insert(PULLED_ANNOTATION.to_owned(), digest.clone());
    if let Access::Secrets(uids) = access {
        let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
        entry.annotations.insert(SECRETS_ANNOTATION.to_owned(), uids.join(","));
    }
}

fn origin_of(entry: &Descriptor) -> Origin {
    let Some(digest) = entry.annotations.get(PULLED_ANNOTATION) else { return Origin::Imported };
    let access = match entry.annotations.get(SECRETS_ANNOTATION) {
        None => Access::All,
        Some(uids) => Access::Secrets(uids.split(',').map(str::to_owned).collect()),
    };
    Origin::Pulled { digest: digest.clone(), access }
}

fn read_entry(dir: &Path, descriptor: &Descriptor) -> Result<Option<Entry>, StoreError> {
    let Some(found) = read_manifest(dir, &descriptor.digest)? else { return Ok(None) };
    let transferred = found.layers.iter().map(|layer| layer.size).sum();
    let parsed = manifest::Manifest { config: found.config, layers: found.layers };
    let plan = manifest::plan(&parsed);
    let (digest, size) = match descriptor.annotations.get(PROGRAM_ANNOTATION) {
        Some(program) => match fs::metadata(blob_path(dir, program)) {
            Ok(metadata) => (program.clone(), metadata.len()),
            Err(_gone) => return Ok(None),
        },
        None => match plan.as_ref().ok().and_then(|plan| plan.layers.first()).or(parsed.layers.first()) {
            Some(layer) => (layer.digest.clone(), layer.size),
            None => return Ok(None),
        },
    };
    let config = match plan.ok().and_then(|plan| plan.config) {
        Some(config) => {
            let path = blob_path(dir, &config.digest);
            match fs::read(&path) {
                Ok(bytes) => manifest::read_config(&bytes)
                    .map_err(|error| StoreError::Damaged { path, why: error.to_string() })?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(io("read", &path)(error)),
            }
        }
        None => ImageConfig::default(),
    };
    Ok(Some(Entry::new(digest, size, config, transferred, origin_of(descriptor))))
}

/// Bytes of all blobs.
fn size_of(dir: &Path) -> Result<u64, StoreError> {
    let blobs = dir.join("blobs").join("sha256");
    let mut bytes = 0;
    for blob in fs::read_dir(&blobs).map_err(io("list", &blobs))? {
        let blob = blob.map_err(io("list", &blobs))?;
        bytes += blob.metadata().map_err(io("look at", &blob.path()))?.len();
    }
    Ok(bytes)
}

/// Removes blobs that nothing in the index leads to.
fn collect(dir: &Path, index: &Index) -> Result<(), StoreError> {
    let mut used = std::collections::BTreeSet::new();
    for descriptor in &index.manifests {
        used.insert(descriptor.digest.clone());
        used.extend(descriptor.annotations.get(PROGRAM_ANNOTATION).cloned());
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
