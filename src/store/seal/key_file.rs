//! The file with the cluster's key: beside the data directory, so that a copy of the one is worth
//! nothing without the other.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{KEY_BYTES, KeyBytes, erase, new_key_bytes};
use crate::store::OpenError;

/// The first line, without the number of the format.
const HEADER: &str = "coracle key file, format ";
const FORMAT: u32 = 1;

/// More than any key file has, so that another file given by mistake is not read whole.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The name of a key, made from the key: a damaged key is told by its not having its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; Self::BYTES]);

impl KeyId {
    pub(super) const BYTES: usize = 8;

    pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(self) -> [u8; Self::BYTES] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key that data keys are wrapped with.
#[derive(Clone)]
pub(in crate::store) struct ClusterKey {
    pub(super) id: KeyId,
    pub(super) bytes: KeyBytes,
}

impl fmt::Debug for ClusterKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.id)
    }
}

impl ClusterKey {
    pub(super) fn generate() -> Self {
        Self::of(new_key_bytes())
    }

    fn of(bytes: KeyBytes) -> Self {
        let digest = Sha256::new().chain_update("coracle key id 1").chain_update(bytes.as_slice()).finalize();
        let mut id = [0; KeyId::BYTES];
        id.copy_from_slice(&digest[..KeyId::BYTES]);
        Self { id: KeyId(id), bytes }
    }
}

/// An open key file.
#[derive(Debug)]
pub(in crate::store) struct KeyFile {
    /// Without links, so that replacing the file replaces what a link leads to.
    path: PathBuf,
    /// The newest first; more than one only while keys are rotated.
    keys: Vec<ClusterKey>,
}

impl KeyFile {
    /// Reads the file; `None` if there is none.
    pub(in crate::store) fn load(path: &Path) -> Result<Option<Self>, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let damaged = |what: String| OpenError::KeyFileDamaged { path: path.clone(), what };
        let file = File::open(&path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(damaged("it is not a file".to_owned()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(OpenError::KeyFileExposed { path: path.clone(), mode });
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(damaged(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        let length = usize::try_from(FILE_BYTES_MAX).expect("a few KiB");
        // With its room from the start, so that no copy is left where it grew.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text".to_owned()))?;
        let keys = parse(text).map_err(damaged)?;
        Ok(Some(Self { path, keys }))
    }

    /// Reads the file that a store, which is sealed with the key `wanted`, cannot do without.
    pub(super) fn load_for(path: &Path, directory: &Path, wanted: KeyId) -> Result<Self, OpenError> {
        Self::load(path)?.ok_or_else(|| OpenError::KeyFileMissing {
            directory: directory.to_owned(),
            key_file: path.to_owned(),
            wanted,
        })
    }

    /// Makes a file with one new key, durably; fails if there is one.
    pub(in crate::store) fn create(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::KeyFileUnwritable { path: path.to_owned(), source };
        let keys = vec![ClusterKey::generate()];
        erase::create(path, &render(&keys)).map_err(io)?;
        Ok(Self { path: fs::canonicalize(path).map_err(io)?, keys })
    }

    /// Makes these the keys of the file, at once and durably; what was there is overwritten.
    pub(super) fn replace(&mut self, keys: Vec<ClusterKey>) -> Result<(), OpenError> {
        erase::replace(&self.path, &render(&keys))
            .map_err(|source| OpenError::KeyFileUnwritable { path: self.path.clone(), source })?;
        self.keys = keys;
        Ok(())
    }

    /// Completes what a crash left half done.
    pub(super) fn finish(path: &Path) -> Result<(), OpenError> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        erase::finish(&path).map_err(|source| OpenError::KeyFileUnwritable { path, source })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// At least one.
    pub(super) fn keys(&self) -> &[ClusterKey] {
        &self.keys
    }

    pub(super) fn newest(&self) -> &ClusterKey {
        self.keys.first().expect("a key file without keys is refused")
    }

    /// The key that a store is sealed with.
    pub(super) fn key_for(&self, directory: &Path, wanted: KeyId) -> Result<&ClusterKey, OpenError> {
        self.keys.iter().find(|key| key.id == wanted).ok_or_else(|| OpenError::WrongKey {
            directory: directory.to_owned(),
            key_file: self.path.clone(),
            wanted,
            found: self.keys.iter().map(|key| key.id.to_string()).collect::<Vec<_>>().join(", "),
        })
    }
}

fn render(keys: &[ClusterKey]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(String::with_capacity(512 + 128 * keys.len()));
    text.push_str(HEADER);
    text.push_str(&FORMAT.to_string());
    text.push_str(
        "\n# Whoever reads this file can read the Secrets of its cluster, and without it they are lost.\n\
         # Keep a copy apart from those of the data directory. `coracle key rotate` makes a new key.\n",
    );
    for key in keys {
        text.push_str("key ");
        text.push_str(&key.id.to_string());
        text.push(' ');
        let room = text.capacity();
        STANDARD.encode_string(key.bytes.as_slice(), &mut text);
        text.push('\n');
        debug_assert_eq!(room, text.capacity(), "a copy of a key is left where the text grew");
    }
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

/// The keys of the text, the newest first, or what is wrong with it.
fn parse(text: &str) -> Result<Vec<ClusterKey>, String> {
    let mut lines = text.lines().enumerate();
    let format = lines.next().and_then(|(_, line)| line.strip_prefix(HEADER));
    match format.map(|format| format.trim_end().parse::<u32>()) {
        Some(Ok(FORMAT)) => {}
        Some(Ok(format)) if format > FORMAT => {
            return Err(format!("it is of format {format}, and this version knows format {FORMAT}"));
        }
        Some(_) | None => return Err("its first line is not that of a key file".to_owned()),
    }
    let mut keys: Vec<ClusterKey> = Vec::new();
    for (i, line) in lines {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Without the line's words, which may be the key's.
        let key = parse_key(line).map_err(|what| format!("line {}: {what}", i + 1))?;
        if keys.iter().all(|known| known.id != key.id) {
            keys.push(key);
        }
    }
    if keys.is_empty() { Err("it holds no key".to_owned()) } else { Ok(keys) }
}

fn parse_key(line: &str) -> Result<ClusterKey, &'static str> {
    let mut words = line.split_whitespace();
    let (Some("key"), Some(id), Some(encoded), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("it is not `key`, the key's name and the key");
    };
    let decoded = STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| "the key is not base64")?;
    let mut bytes = KeyBytes::default();
    if decoded.len() != KEY_BYTES {
        return Err("the key does not have 32 bytes");
    }
    bytes.copy_from_slice(&decoded);
    let key = ClusterKey::of(bytes);
    if key.id.to_string() != id { Err("the key does not belong to its name") } else { Ok(key) }
}

/// Where the key file of a data directory is: `chosen`, or the directory's path with `.key` appended,
/// whatever name or link the directory was named by.
///
/// # Errors
/// If there is no place beside the directory, or the chosen file is inside it: whoever copies the
/// directory would have the key as well.
pub fn locate(data_dir: &Path, chosen: Option<&Path>) -> Result<PathBuf, OpenError> {
    let real = |path: &Path| resolve(path).map_err(|source| OpenError::Io { path: path.to_owned(), source });
    let data_dir = real(data_dir)?;
    let Some(chosen) = chosen else {
        let Some(name) = data_dir.file_name() else { return Err(OpenError::NoPlaceForKeyFile(data_dir)) };
        let mut name = name.to_owned();
        name.push(".key");
        return Ok(data_dir.with_file_name(name));
    };
    let file = real(chosen)?;
    if file.starts_with(&data_dir) {
        return Err(OpenError::KeyFileInside { directory: data_dir, path: file });
    }
    Ok(file)
}

/// The path without links, `.` and `..`, though its end may not exist yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = std::path::absolute(path)?;
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => Ok(resolve(parent)?.join(name)),
                (_, _) => Err(error),
            }
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
