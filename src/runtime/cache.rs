//! Compiled code on disk, so that an image is compiled once in its life on a machine.
//!
//! A file holds a magic word, a checksum, and what the engine made. Native code is run as it is
//! read, so an entry counts only if it is ours: a regular file of our own user, closed to others, in
//! the directory that we keep for this, with the checksum over the image's digest, the engine's
//! configuration and the code. Anything else is as if it were not there, and is replaced.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"coracle\x01";
const CHECKSUM: usize = 32;
/// Most bytes of compiled code kept; the least recently written goes first.
const BYTES_MAX: u64 = 1 << 30;

/// A directory of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    bytes_max: u64,
}

impl Cache {
    /// Makes the directory if it is missing, for its owner alone.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        Ok(Self { directory, bytes_max: BYTES_MAX })
    }

    /// The code kept for an image, if it is there and whole.
    pub(super) fn load(&self, digest: &str, fingerprint: &str) -> Option<Vec<u8>> {
        let path = self.path(digest, fingerprint);
        match self.read(digest, fingerprint) {
            Ok(code) => Some(code),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("compiling an image again: compiled code in {}: {error}", path.display());
                None
            }
        }
    }

    /// Keeps code, in one step for other readers.
    pub(super) fn store(&self, digest: &str, fingerprint: &str, code: &[u8]) -> io::Result<()> {
        let path = self.path(digest, fingerprint);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(&checksum(digest, fingerprint, code))?;
        file.write_all(code)?;
        drop(file);
        fs::rename(&temporary, &path)?;
        self.drop_oldest()
    }

    fn path(&self, digest: &str, fingerprint: &str) -> PathBuf {
        self.directory.join(format!("{}-{fingerprint}.cwasm", digest.replace(':', "-")))
    }

    fn read(&self, digest: &str, fingerprint: &str) -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(self.path(digest, fingerprint))?;
        let metadata = file.metadata()?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || !ours || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::other("it is not a file of ours alone"));
        }
        let mut header = [0; MAGIC.len() + CHECKSUM];
        file.read_exact(&mut header)?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        let (magic, sum) = header.split_at(MAGIC.len());
        if magic != MAGIC || sum != checksum(digest, fingerprint, &code) {
            return Err(io::Error::other("it is damaged"));
        }
        Ok(code)
    }

    fn drop_oldest(&self) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            entries.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        let mut bytes: u64 = entries.iter().map(|(_, length, _)| length).sum();
        entries.sort();
        for (_, length, path) in entries {
            if bytes <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            bytes -= length;
        }
        Ok(())
    }
}

fn checksum(digest: &str, fingerprint: &str, code: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = Sha256::new();
    for part in [digest.as_bytes(), fingerprint.as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(code);
    hash.finalize().into()
}
