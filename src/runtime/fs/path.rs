//! Paths inside a volume: from a directory, through links, never out of it.

use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::tree::{Ino, Tree};

/// Longest path, and longest name in it, in bytes: Linux' `PATH_MAX` and `NAME_MAX`.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;
/// Most links followed in one walk, as in Linux.
const LINKS_MAX: u32 = 40;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// Directory and name of the last element; `None` if the path ends in `.` or `..`.
    pub(super) entry: Option<(Ino, String)>,
    /// What is there, if anything.
    pub(super) node: Option<Ino>,
    /// The path ends with a slash, so it can only mean a directory.
    pub(super) directory: bool,
}

impl Place {
    /// What is there.
    pub(super) fn existing(&self) -> Result<Ino, ErrorCode> {
        self.node.ok_or(ErrorCode::NoEntry)
    }

    /// Directory and name, for operations that change an entry; a mount point or `.` is in use.
    pub(super) fn entry(&self) -> Result<(Ino, &str), ErrorCode> {
        self.entry.as_ref().map(|(parent, name)| (*parent, name.as_str())).ok_or(ErrorCode::Busy)
    }
}

/// Walks `path` from the directory `base`, which it cannot leave, as WASI wants it: `..` above
/// `base` and absolute paths or links are [`ErrorCode::NotPermitted`]. A link at the end is followed
/// if `follow`. All but the last element must exist.
pub(super) fn walk(tree: &Tree, base: Ino, path: &str, follow: bool) -> Result<Place, ErrorCode> {
    if path.is_empty() {
        return Err(ErrorCode::NoEntry);
    }
    let mut directory = ends_in_directory(path);
    let mut todo = Vec::new();
    push_elements(&mut todo, path)?;
    let mut directories = vec![base];
    let mut links = 0;
    loop {
        let here = *directories.last().expect("`base` is never taken off");
        let entries = tree.entries(here)?;
        let Some(name) = todo.pop() else {
            return Ok(Place { entry: None, node: Some(here), directory: true });
        };
        if name == ".." {
            if directories.len() == 1 {
                return Err(ErrorCode::NotPermitted);
            }
            directories.pop();
            continue;
        }
        let last = todo.is_empty();
        let Some(&node) = entries.get(&name) else {
            if !last {
                return Err(ErrorCode::NoEntry);
            }
            return Ok(Place { entry: Some((here, name)), node: None, directory });
        };
        if let Some(target) = tree.link_target(node)
            && (!last || follow || directory)
        {
            links += 1;
            if links > LINKS_MAX {
                return Err(ErrorCode::Loop);
            }
            directory |= last && ends_in_directory(target);
            push_elements(&mut todo, target)?;
        } else if last && !tree.is_directory(node) {
            if directory {
                return Err(ErrorCode::NotDirectory);
            }
            return Ok(Place { entry: Some((here, name)), node: Some(node), directory });
        } else if last {
            return Ok(Place { entry: Some((here, name)), node: Some(node), directory });
        } else {
            directories.push(node);
        }
    }
}

fn ends_in_directory(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.")
}

/// Puts the elements of `path` on the stack, the first on top.
fn push_elements(todo: &mut Vec<String>, path: &str) -> Result<(), ErrorCode> {
    if path.starts_with('/') {
        return Err(ErrorCode::NotPermitted);
    }
    if path.len() > PATH_MAX {
        return Err(ErrorCode::NameTooLong);
    }
    for element in path.split('/').rev() {
        if element.len() > NAME_MAX {
            return Err(ErrorCode::NameTooLong);
        }
        if !matches!(element, "" | ".") {
            todo.push(element.to_owned());
        }
    }
    Ok(())
}
