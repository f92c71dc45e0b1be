//! Paths of files in a volume, which the API accepts in more forms than a directory can hold.

use std::collections::BTreeMap;

/// Longest path, and longest name in it, in bytes: what Kubernetes' atomic writer takes, from Linux.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

/// The same files under clean paths: no empty or `.` elements. The error says which path cannot be.
///
/// Kubernetes' node fails here too (`validatePayload` in its `pkg/volume/util/atomic_writer.go`, and
/// the file system under it); the API only warns of paths that overlap.
pub(super) fn cleaned<T>(files: BTreeMap<String, T>) -> Result<BTreeMap<String, T>, String> {
    let mut clean = BTreeMap::new();
    for (path, file) in files {
        clean.insert(cleaned_path(&path)?, file);
    }
    for path in clean.keys() {
        let directories = path.match_indices('/').map(|(at, _)| &path[..at]);
        for directory in directories {
            if clean.contains_key(directory) {
                return Err(format!(
                    "invalid path: {directory:?} cannot be a file and, for {path:?}, a directory; give each \
                     key a path of its own"
                ));
            }
        }
    }
    Ok(clean)
}

/// The same place without empty or `.` elements.
pub(super) fn cleaned_path(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Err(format!("invalid path: must be relative path: {path}"));
    }
    if path.contains('\0') {
        return Err(format!("invalid path: must not contain a NUL byte: {path:?}"));
    }
    let mut clean = String::with_capacity(path.len());
    for element in path.split('/').filter(|element| !matches!(*element, "" | ".")) {
        if element == ".." {
            return Err(format!("invalid path: must not contain '..': {path}"));
        }
        if element.len() > NAME_MAX {
            return Err(format!(
                "invalid path: filenames must be less than or equal to {NAME_MAX} characters: {path}"
            ));
        }
        if !clean.is_empty() {
            clean.push('/');
        }
        clean.push_str(element);
    }
    if clean.is_empty() {
        return Err(format!("invalid path: {path:?} names no file"));
    }
    if clean.starts_with("..") {
        return Err(format!("invalid path: must not start with '..': {path}"));
    }
    if clean.len() > PATH_MAX {
        return Err(format!("invalid path: must be less than or equal to {PATH_MAX} characters"));
    }
    Ok(clean)
}

/// Where a container sees a mount: absolute and clean, so that every way of writing the place that a
/// guest's C library knows leads there.
pub(super) fn mount_path(path: &str) -> String {
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => {
                elements.pop();
            }
            _ => elements.push(element),
        }
    }
    format!("/{}", elements.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_files_are_cleaned_or_refused() {
        // BEHAVIOURS 10.7.
        let long = "x".repeat(256);
        let too_long =
            format!("invalid path: filenames must be less than or equal to 255 characters: {long}");
        for (paths, expected) in [
            (vec!["a", "b/c", "e/..f"], Ok("a b/c e/..f")),
            (vec!["...a"], Err("invalid path: must not start with '..': ...a")),
            (vec!["./a", "b//c", "d/./e/", "f/."], Ok("a b/c d/e f")),
            (vec!["."], Err("invalid path: \".\" names no file")),
            (vec!["/a"], Err("invalid path: must be relative path: /a")),
            (vec!["a/../b"], Err("invalid path: must not contain '..': a/../b")),
            (vec!["./..data"], Err("invalid path: must not start with '..': ./..data")),
            (vec!["a\0b"], Err("invalid path: must not contain a NUL byte: \"a\\0b\"")),
            (vec![long.as_str()], Err(too_long.as_str())),
            (
                vec!["x", "x/y/z"],
                Err("invalid path: \"x\" cannot be a file and, for \"x/y/z\", a directory; give each key a \
                     path of its own"),
            ),
            (vec!["x-", "x", "xy/z"], Ok("x x- xy/z")),
        ] {
            let files = paths.iter().map(|path| ((*path).to_owned(), ())).collect();
            let result = cleaned(files).map(|files| files.into_keys().collect::<Vec<_>>().join(" "));
            assert_eq!(result.as_deref().map_err(String::as_str), expected, "{paths:?}");
        }
        let deep = format!("{}f", "d/".repeat(2048));
        assert!(cleaned(BTreeMap::from([(deep, ())])).unwrap_err().contains("4096 characters"));
    }

    #[test]
    fn places_of_mounts_are_absolute() {
        for (path, expected) in
            [("/etc/config/", "/etc/config"), ("data", "/data"), ("/a//b/./c/../d", "/a/b/d"), ("/", "/")]
        {
            assert_eq!(mount_path(path), expected);
        }
    }
}
