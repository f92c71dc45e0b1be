//! Images from an OCI image layout: a directory, or a tar file of one, as `docker save`, `skopeo` and `oras`
//! write them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use super::manifest::{self, Descriptor, Document, FormatError, IMAGE_BYTES_MAX, MANIFEST_BYTES_MAX};
use super::name;
use super::store::{Content, ImageInfo, ImageStore, Origin, StoreError};

#[cfg(test)]
mod tests;

/// All files of a tar together.
const TAR_BYTES_MAX: u64 = 1 << 30;
/// Names that tools give: containerd's is whole, the specification's may be a tag alone.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Why a layout cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("it is not an OCI image layout: {0}")]
    NotALayout(String),
    #[error("its blob {digest} {why}")]
    Blob { digest: String, why: String },
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error("its images have no whole names; give one with --name")]
    Nameless,
    #[error("it has {0} images, so --name cannot name one of them")]
    Several(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A layout's files.
enum Files {
    Directory(PathBuf),
    Tar(BTreeMap<String, Bytes>),
}

impl ImageStore {
    /// Imports every image of a layout, under the names that it gives; or its only one under `name`.
    pub fn import_layout(&self, path: &Path, name: Option<&str>) -> Result<Vec<ImageInfo>, LayoutError> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Descriptor>,
        }
        let files = Files::open(path)?;
        let index = files.read("index.json", MANIFEST_BYTES_MAX)?;
        let index = index.ok_or_else(|| LayoutError::NotALayout("it has no index.json".to_owned()))?;
        let index: Index =
            serde_json::from_slice(&index).map_err(|error| LayoutError::NotALayout(error.to_string()))?;
        let named: Vec<(String, &Descriptor)> = match (name, index.manifests.as_slice()) {
            (Some(name), [only]) => vec![(name.to_owned(), only)],
            (Some(_), several) => return Err(LayoutError::Several(several.len())),
            (None, all) => all.iter().filter_map(|entry| Some((whole_name(entry)?, entry))).collect(),
        };
        if named.is_empty() {
            return Err(LayoutError::Nameless);
        }
        let mut images = Vec::new();
        for (name, entry) in named {
            let full = name::normalize(&name).map_err(StoreError::from)?;
            let content = files.image(entry)?;
            let (digest, size) = (manifest::digest_of(&content.program), content.program.len() as u64);
            self.add(&full, content, &Origin::Imported)?;
            images.push(ImageInfo { name: full, digest, size, built_in: false, pulled: None });
        }
        Ok(images)
    }
}

/// A name that says more than a tag.
fn whole_name(entry: &Descriptor) -> Option<String> {
    let names = NAMES.iter().filter_map(|annotation| entry.annotations.get(*annotation));
    names.into_iter().find(|name| name.contains([':', '/'])).cloned()
}

impl Files {
    fn open(path: &Path) -> Result<Self, LayoutError> {
        let failed = |source| LayoutError::Io { path: path.to_owned(), source };
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut begin = [0; 2];
        let read = File::open(path).and_then(|mut file| file.read(&mut begin)).map_err(failed)?;
        let file = File::open(path).map_err(failed)?;
        let reader: Box<dyn Read> = if begin[..read] == [0x1f, 0x8b] {
            Box::new(flate2::read::MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(reader.take(TAR_BYTES_MAX));
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(failed)?;
            files.insert(name, content.into());
        }
        Ok(Self::Tar(files))
    }

    fn read(&self, name: &str, max: u64) -> Result<Option<Bytes>, LayoutError> {
        match self {
            Self::Tar(files) => Ok(files.get(name).cloned()),
            Self::Directory(directory) => {
                let path = directory.join(name);
                let file = match File::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(source) => return Err(LayoutError::Io { path, source }),
                };
                let mut content = Vec::new();
                let read = file.take(max + 1).read_to_end(&mut content);
                read.map_err(|source| LayoutError::Io { path, source })?;
                Ok(Some(content.into()))
            }
        }
    }

    fn blob(&self, digest: &str, max: u64) -> Result<Bytes, LayoutError> {
        let wrong = |why: &str| LayoutError::Blob { digest: digest.to_owned(), why: why.to_owned() };
        let hex =
            Some(digest).filter(|digest| manifest::is_digest(digest)).and_then(|d| d.strip_prefix("sha256:"));
        let hex = hex.ok_or_else(|| wrong("has no sha256 digest"))?;
        let content = self.read(&format!("blobs/sha256/{hex}"), max)?.ok_or_else(|| wrong("is missing"))?;
        if content.len() as u64 > max {
            return Err(wrong(&format!("is larger than {max} bytes")));
        }
        if manifest::digest_of(&content) != digest {
            return Err(wrong("has another content"));
        }
        Ok(content)
    }

    fn image(&self, entry: &Descriptor) -> Result<Content, LayoutError> {
        let mut bytes = self.blob(&entry.digest, MANIFEST_BYTES_MAX)?;
        // Tools nest an index in the layout's own.
        let parsed = match manifest::parse(&bytes)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(entries) => {
                bytes = self.blob(&manifest::choose(&entries)?.digest, MANIFEST_BYTES_MAX)?;
                match manifest::parse(&bytes)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(LayoutError::NotALayout("an index leads to another".to_owned()));
                    }
                }
            }
        };
        let plan = manifest::plan(&parsed)?;
        let config = self.blob(&parsed.config.digest, manifest::CONFIG_BYTES_MAX)?;
        let layers = plan.layers.iter().map(|layer| self.blob(&layer.digest, IMAGE_BYTES_MAX));
        let layers = layers.collect::<Result<Vec<Bytes>, LayoutError>>()?;
        let calls = plan.config.is_some().then_some(&config[..]);
        let (program, image_config) = manifest::program(&plan, calls, &layers)?;
        let mut blobs = vec![(parsed.config.digest.clone(), config)];
        blobs.extend(plan.layers.iter().map(|layer| layer.digest.clone()).zip(layers));
        let media_type = manifest::media_type(&bytes);
        Ok(Content { manifest: bytes, media_type, blobs, program, config: image_config })
    }
}
