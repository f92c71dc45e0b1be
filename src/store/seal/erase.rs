//! Files whose content must not stay on the disk: overwritten before they go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::store::format::to_u64;

/// Beside a file: what replaced it takes its name, and this is overwritten.
const OLD: &str = ".old";

/// Beside a file: what is to replace it, not complete yet.
const NEW: &str = ".new";

/// Zeros are written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the names in a directory durable.
pub(in crate::store) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        Some(_) | None => sync_directory(Path::new(".")),
    }
}

/// Overwrites a file with zeros, flushes it and removes it. A file that is not there is fine.
pub(in crate::store) fn erase(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut left = file.metadata()?.len();
    let zeros = vec![0; PIECE_BYTES];
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        file.write_all(&zeros[..piece])?;
        left -= to_u64(piece);
    }
    file.sync_all()?;
    fs::remove_file(path)
}

/// Makes `path`, which nobody may have made before, only its owner's, complete and durable when it
/// appears.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = write_new(path, content)?;
    // Unlike a rename, this refuses to take the place of a file that appeared meanwhile.
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    linked?;
    sync_parent(path)
}

/// Puts `content` in the place of a file, at once and durably, and overwrites what was there. What a
/// crash leaves half done, [`finish`] completes.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    put_in_place(path, &write_new(path, content)?)
}

/// As [`replace`], with a file that is complete and flushed; there may be none to be replaced.
pub(in crate::store) fn put_in_place(path: &Path, new: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        fs::rename(new, path)?;
        return sync_parent(path);
    }
    // A second name, so that a crash loses neither the file nor what is to be overwritten.
    let old = beside(path, OLD);
    fs::hard_link(path, &old)?;
    sync_parent(path)?;
    fs::rename(new, path)?;
    sync_parent(path)?;
    erase(&old)
}

/// Completes or takes back what a crash left of [`create`] and [`replace`].
pub(in crate::store) fn finish(path: &Path) -> io::Result<()> {
    let old = beside(path, OLD);
    match (identity(&old)?, identity(path)?) {
        (None, _) => {}
        // It was not replaced yet.
        (Some(one), Some(other)) if one == other => fs::remove_file(&old)?,
        (Some(_), Some(_)) => erase(&old)?,
        (Some(_), None) => fs::rename(&old, path)?,
    }
    discard_new(path)
}

/// Removes what was to be put in the place of `path`, if anything is left of it.
fn discard_new(path: &Path) -> io::Result<()> {
    let new = beside(path, NEW);
    match (identity(&new)?, identity(path)?) {
        // It was created, and only its first name is left over.
        (Some(one), Some(other)) if one == other => fs::remove_file(&new),
        (_, _) => erase(&new),
    }
}

fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A complete and flushed file beside `path`.
fn write_new(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    discard_new(path)?;
    let new = beside(path, NEW);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a directory with what is in the files.
    fn files(directory: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let content = String::from_utf8(fs::read(entry.path()).unwrap()).unwrap();
                (entry.file_name().into_string().unwrap(), content)
            })
            .collect();
        files.sort();
        files
    }

    fn pair(name: &str, content: &str) -> (String, String) {
        (name.to_owned(), content.to_owned())
    }

    #[test]
    fn what_is_replaced_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create(&path, b"one").unwrap();
        let other_name = directory.path().join("b");
        fs::hard_link(&path, &other_name).unwrap();
        replace(&path, b"two").unwrap();
        // Its second name shows what became of the file that was replaced.
        assert_eq!(files(directory.path()), [pair("a", "two"), pair("b", "\0\0\0")]);
        fs::hard_link(&path, directory.path().join("c")).unwrap();
        erase(&path).unwrap();
        assert_eq!(files(directory.path()), [pair("b", "\0\0\0"), pair("c", "\0\0\0")]);
        erase(&path).unwrap();
    }

    #[test]
    fn what_is_there_is_not_created() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(files(directory.path()), [pair("a", "one")]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_crash_after_creating_leaves_it_whole() {
        let ways: [fn(&Path) -> io::Result<()>; 2] = [finish, |path| replace(path, b"one")];
        for again in ways {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a");
            create(&path, b"one").unwrap();
            fs::hard_link(&path, beside(&path, NEW)).unwrap();
            again(&path).unwrap();
            assert_eq!(files(directory.path()), [pair("a", "one")]);
        }
    }

    /// Each state that a crash can leave, and what it becomes.
    #[test]
    fn a_crash_leaves_the_old_or_the_new_whole() {
        type Step = fn(&Path);
        let steps: [(&str, Step); 4] = [
            ("one", |path| fs::write(beside(path, NEW), "tw").unwrap()),
            ("one", |path| fs::write(beside(path, NEW), "two").unwrap()),
            ("one", |path| fs::hard_link(path, beside(path, OLD)).unwrap()),
            ("two", |path| fs::rename(beside(path, NEW), path).unwrap()),
        ];
        for count in 1..=steps.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a");
            fs::write(&path, "one").unwrap();
            for (_, step) in &steps[..count] {
                step(&path);
            }
            finish(&path).unwrap();
            let expected = steps[count - 1].0;
            assert_eq!(files(directory.path()), [pair("a", expected)], "after step {count}");
        }
    }
}
