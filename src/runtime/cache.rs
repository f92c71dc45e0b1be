//! Compiled code on disk, so that an image is compiled once in its life on a machine.
//!
//! A file holds a magic word, an authentication code, and what the engine made. Native code is run as it
//! is read, so an entry counts only if it is ours: a regular file of our own user, closed to others, in the
//! directory that we keep for this, with a code (HMAC-SHA-256) over the image's digest, the engine's
//! configuration and the native code. Its key lies beside the directory, for its owner alone, and is made
//! here: what comes from another machine, out of an archive or with a shared directory does not have it.
//! Anything else is as if it were not there, and is replaced.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::hmac;

use crate::random::fill_secret;

#[cfg(test)]
mod tests;

const MAGIC: &[u8; 8] = b"coracle\x02";
const TAG: usize = 32;
const KEY: usize = 32;
/// Most bytes of compiled code kept; the least recently used goes first.
const BYTES_MAX: u64 = 1 << 30;

/// A directory of compiled code.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    key: hmac::Key,
    bytes_max: u64,
}

impl Cache {
    /// Makes the directory if it is missing, for its owner alone.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let key = key(&directory.with_extension("key"))?;
        Ok(Self { directory, key: hmac::Key::new(hmac::HMAC_SHA256, &key), bytes_max: BYTES_MAX })
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
        file.write_all(hmac::sign(&self.key, &signed(digest, fingerprint, code)).as_ref())?;
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
        check_ours(&file)?;
        let mut header = [0; MAGIC.len() + TAG];
        file.read_exact(&mut header)?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        let (magic, tag) = header.split_at(MAGIC.len());
        if magic != MAGIC || hmac::verify(&self.key, &signed(digest, fingerprint, &code), tag).is_err() {
            return Err(io::Error::other("it is damaged, or not from here"));
        }
        // What is used stays longest.
        let now = rustix::fs::Timestamps { last_access: NOW, last_modification: NOW };
        if let Err(error) = rustix::fs::futimens(&file, &now) {
            tracing::debug!("note that compiled code was used: {error}");
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

/// The time of a file as it is set.
const NOW: rustix::fs::Timespec = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };

/// What the code of an entry is over.
fn signed(digest: &str, fingerprint: &str, code: &[u8]) -> Vec<u8> {
    [digest.as_bytes(), &[0], fingerprint.as_bytes(), &[0], code].concat()
}

/// The key in a file of our own user, closed to others; a new one if there is none such.
fn key(path: &Path) -> io::Result<[u8; KEY]> {
    match read_key(path) {
        Ok(key) => return Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("compiling every image again: {}: {error}", path.display()),
    }
    let mut key = [0; KEY];
    fill_secret(&mut key);
    let temporary = path.with_extension(format!("key.{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&key)?;
    drop(file);
    if let Err(error) = fs::hard_link(&temporary, path) {
        if error.kind() == io::ErrorKind::AlreadyExists {
            // Somebody was quicker, unless it is one that does not count.
            if let Ok(theirs) = read_key(path) {
                fs::remove_file(&temporary)?;
                return Ok(theirs);
            }
        }
        fs::rename(&temporary, path)?;
        return Ok(key);
    }
    fs::remove_file(&temporary)?;
    Ok(key)
}

fn read_key(path: &Path) -> io::Result<[u8; KEY]> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    check_ours(&file)?;
    let mut key = [0; KEY];
    file.read_exact(&mut key)?;
    Ok(key)
}

fn check_ours(file: &fs::File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !ours || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is not a file of ours alone"));
    }
    Ok(())
}
