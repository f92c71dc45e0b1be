//! Files of the node as images, where that is allowed.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::manifest::IMAGE_BYTES_MAX;

/// What such images' names begin with; an absolute path follows.
pub(crate) const SCHEME: &str = "file://";

/// A file below `allowed`, by its absolute path. No link is followed on the way there, so that nobody who
/// may write below that directory can lend what lies outside of it.
pub(crate) fn read(allowed: &Path, path: &str) -> Result<Bytes, String> {
    let outside =
        || format!("{path} is not below {}, the only directory whose files are images", allowed.display());
    let below = Path::new(path).strip_prefix(allowed).map_err(|_| outside())?;
    let mut parts = Vec::new();
    for part in below.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(outside()),
        }
    }
    let Some((name, folders)) = parts.split_last() else { return Err(outside()) };
    let told = |error: rustix::io::Errno| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            format!("cannot open {path}: a part of it is a link, which is not followed, or no directory")
        }
        other => format!("cannot open {path}: {other}"),
    };
    let flags = OFlags::CLOEXEC | OFlags::RDONLY;
    let open = |at: &OwnedFd, name: &std::ffi::OsStr, more| {
        openat(at, name, flags | OFlags::NOFOLLOW | more, Mode::empty()).map_err(told)
    };
    let mut folder = openat(CWD, allowed, flags | OFlags::DIRECTORY, Mode::empty()).map_err(told)?;
    for name in folders {
        folder = open(&folder, name, OFlags::DIRECTORY)?;
    }
    // Opening a pipe would wait for its writer.
    let file = open(&folder, name, OFlags::NONBLOCK)?;
    let metadata = fstat(&file).map_err(told)?;
    if FileType::from_raw_mode(metadata.st_mode) != FileType::RegularFile {
        return Err(format!("{path} is not a file"));
    }
    let mut wasm = Vec::new();
    let read = std::fs::File::from(file).take(IMAGE_BYTES_MAX + 1).read_to_end(&mut wasm);
    read.map_err(|error| format!("cannot read {path}: {error}"))?;
    if wasm.len() as u64 > IMAGE_BYTES_MAX {
        return Err(format!("{path} is larger than {IMAGE_BYTES_MAX} bytes"));
    }
    if !wasm.starts_with(b"\0asm") {
        return Err(format!("{path} is not WebAssembly: it does not begin with \\0asm"));
    }
    Ok(wasm.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_below_the_directory_are_images() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let allowed = root.join("allowed");
        std::fs::create_dir_all(allowed.join("sub")).unwrap();
        std::fs::create_dir_all(root.join("allowed-too")).unwrap();
        for file in ["allowed/a.wasm", "allowed/sub/b.wasm", "outside.wasm", "allowed-too/c.wasm"] {
            std::fs::write(root.join(file), b"\0asm\x0d\0\x01\0").unwrap();
        }
        std::fs::write(allowed.join("text"), "#!/bin/sh").unwrap();
        symlink(root.join("outside.wasm"), allowed.join("link.wasm")).unwrap();
        symlink(&root, allowed.join("up")).unwrap();
        let ask = |path: &str| read(&allowed, &format!("{}/{path}", root.display())).map(|wasm| wasm.len());
        assert_eq!(ask("allowed/a.wasm"), Ok(8));
        assert_eq!(ask("allowed/sub/./b.wasm"), Ok(8));
        for (path, why) in [
            ("outside.wasm", "is not below"),
            ("allowed-too/c.wasm", "is not below"),
            ("allowed/../outside.wasm", "is not below"),
            ("allowed", "is not below"),
            ("allowed/link.wasm", "is a link"),
            ("allowed/up/outside.wasm", "is a link"),
            ("allowed/sub", "is not a file"),
            ("allowed/none.wasm", "cannot open"),
            ("allowed/text", "is not WebAssembly"),
        ] {
            let error = ask(path).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
        assert!(read(&allowed, "a.wasm").is_err(), "a path from nowhere");
    }
}
