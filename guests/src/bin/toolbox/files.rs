//! Tools for files and directories.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::text::{civil, options};
use crate::{Failure, Io, Outcome, about, words};

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn fd_prestat_get(fd: u32, prestat: *mut [u32; 2]) -> u32;
    fn fd_prestat_dir_name(fd: u32, path: *mut u8, length: usize) -> u32;
}

/// The places where something is mounted; nothing else exists.
pub fn mounts() -> Vec<String> {
    let mut found = Vec::new();
    for fd in 3.. {
        let mut prestat = [0; 2];
        // SAFETY: the host writes a tag and a length, which is what there is room for.
        if unsafe { fd_prestat_get(fd, &mut prestat) } != 0 {
            break;
        }
        let mut name = vec![0; prestat[1] as usize];
        // SAFETY: the host writes as many bytes as it is told there is room for.
        if unsafe { fd_prestat_dir_name(fd, name.as_mut_ptr(), name.len()) } == 0 {
            found.push(String::from_utf8_lossy(&name).into_owned());
        }
    }
    found
}

/// `path` from the root, without `.` and `..`.
fn absolute(path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        format!("{}/{path}", here.display())
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What leads from a directory above the mounts towards them; empty if `path` is no such directory.
fn above_mounts(path: &str) -> BTreeSet<String> {
    let path = absolute(path);
    let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
    let below = mounts().into_iter().filter_map(|mount| mount.strip_prefix(&prefix).map(str::to_owned));
    below
        .filter_map(|rest| rest.split('/').next().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect()
}

/// The names in a directory, sorted: those of a mount, and what leads to other mounts.
pub fn names(path: &str) -> io::Result<Vec<String>> {
    let mut found = above_mounts(path);
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                found.insert(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Err(error) if found.is_empty() && absolute(path) != "/" => return Err(error),
        Err(_) => {}
    }
    Ok(found.into_iter().collect())
}

/// What is at a path.
pub enum Kind {
    /// A file, a directory or a link.
    Real(Metadata),
    /// A directory that is nothing but the way to a mount.
    Way,
}

impl Kind {
    pub fn is_dir(&self) -> bool {
        match self {
            Self::Real(metadata) => metadata.is_dir(),
            Self::Way => true,
        }
    }

    pub fn is_link(&self) -> bool {
        matches!(self, Self::Real(metadata) if metadata.is_symlink())
    }
}

/// What is at `path`; a link is followed if asked.
pub fn look(path: &str, follow: bool) -> io::Result<Kind> {
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    match metadata {
        Ok(metadata) => Ok(Kind::Real(metadata)),
        Err(_) if absolute(path) == "/" || !above_mounts(path).is_empty() => Ok(Kind::Way),
        Err(error) => Err(error),
    }
}

pub fn join(directory: &str, name: &str) -> String {
    if directory.ends_with('/') { format!("{directory}{name}") } else { format!("{directory}/{name}") }
}

/// `path` inside a directory, if `to` is one.
fn target(from: &str, to: &str) -> String {
    let is_dir = look(to, true).is_ok_and(|kind| kind.is_dir());
    let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or(from);
    if is_dir { join(to, name) } else { to.to_owned() }
}

pub fn pwd(_: &[String], io: &mut Io) -> Outcome {
    writeln!(io.out, "{}", absolute("."))?;
    Ok(0)
}

pub fn ls(words: &[String], io: &mut Io) -> Outcome {
    let (options, paths) = options(words, "laA1RdhtrFp", "")?;
    let is = |asked| options.iter().any(|(letter, _)| *letter == asked);
    let (hidden, long) = (is('a') || is('A'), is('l'));
    let paths = if paths.is_empty() { vec!["."] } else { paths };
    let mut code = 0;
    let mut directories: Vec<String> = Vec::new();
    for path in &paths {
        match look(path, !is('d') && !long) {
            Ok(kind) if kind.is_dir() && !is('d') => directories.push((*path).to_owned()),
            Ok(_) => entry(path, path, long, io.out)?,
            Err(error) => {
                writeln!(io.err, "ls: {}", about(path, &error).0)?;
                code = 1;
            }
        }
    }
    let titled = paths.len() > 1 || is('R');
    directories.reverse();
    while let Some(path) = directories.pop() {
        if titled {
            writeln!(io.out, "{path}:")?;
        }
        let mut found = match names(&path) {
            Ok(found) => found,
            Err(error) => {
                writeln!(io.err, "ls: {}", about(&path, &error).0)?;
                code = 1;
                continue;
            }
        };
        found.retain(|name| hidden || !name.starts_with('.'));
        if is('r') {
            found.reverse();
        }
        for name in &found {
            entry(&join(&path, name), name, long, io.out)?;
        }
        if is('R') {
            let below = found.iter().rev().map(|name| join(&path, name));
            directories.extend(below.filter(|path| look(path, false).is_ok_and(|kind| kind.is_dir())));
        }
        if titled && !directories.is_empty() {
            writeln!(io.out)?;
        }
    }
    Ok(code)
}

/// One line of `ls`.
fn entry(path: &str, name: &str, long: bool, out: &mut dyn Write) -> io::Result<()> {
    if !long {
        return writeln!(out, "{name}");
    }
    let (letter, size, time) = match look(path, false) {
        Ok(Kind::Real(metadata)) => {
            let letter = if metadata.is_dir() {
                'd'
            } else if metadata.is_symlink() {
                'l'
            } else {
                '-'
            };
            (letter, metadata.len(), metadata.modified().unwrap_or(UNIX_EPOCH))
        }
        Ok(Kind::Way) => ('d', 0, UNIX_EPOCH),
        Err(_) => ('?', 0, UNIX_EPOCH),
    };
    let to = match letter {
        'l' => fs::read_link(path).map_or(String::new(), |to| format!(" -> {}", to.display())),
        _ => String::new(),
    };
    writeln!(out, "{letter} {size:>10} {} {name}{to}", moment(time))
}

fn moment(time: SystemTime) -> String {
    let (year, month, day, hour, minute, second) = civil(time);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

pub fn stat(words: &[String], io: &mut Io) -> Outcome {
    let mut code = 0;
    let (_, paths) = options(words, "L", "")?;
    for path in paths {
        match look(path, false) {
            Ok(kind) => {
                let (what, size, time) = match &kind {
                    Kind::Real(metadata) if metadata.is_symlink() => {
                        ("symbolic link", 0, metadata.modified())
                    }
                    Kind::Real(metadata) if metadata.is_dir() => ("directory", 0, metadata.modified()),
                    Kind::Real(metadata) => ("regular file", metadata.len(), metadata.modified()),
                    Kind::Way => ("directory", 0, Ok(UNIX_EPOCH)),
                };
                writeln!(io.out, "  File: {path}\n  Size: {size}\t{what}")?;
                writeln!(io.out, "Modify: {}", moment(time.unwrap_or(UNIX_EPOCH)))?;
            }
            Err(error) => {
                writeln!(io.err, "stat: {}", about(path, &error).0)?;
                code = 1;
            }
        }
    }
    Ok(code)
}

pub fn mkdir(words: &[String], _: &mut Io) -> Outcome {
    let (options, paths) = options(words, "pv", "m")?;
    let parents = options.iter().any(|(letter, _)| *letter == 'p');
    for path in paths {
        make_directory(path, parents)?;
    }
    Ok(0)
}

/// Makes a directory, and those above it if asked; the mounts and the ways to them exist.
pub fn make_directory(path: &str, parents: bool) -> Result<(), Failure> {
    if !parents {
        return fs::create_dir(path).map_err(|error| about(path, &error));
    }
    let whole = absolute(path);
    let mut at = String::new();
    for part in whole.split('/').filter(|part| !part.is_empty()) {
        at = format!("{at}/{part}");
        match look(&at, true) {
            Ok(kind) if kind.is_dir() => {}
            Ok(_) => return Err(format!("{at}: Not a directory").into()),
            Err(_) => fs::create_dir(&at).map_err(|error| about(&at, &error))?,
        }
    }
    Ok(())
}

pub fn touch(words: &[String], _: &mut Io) -> Outcome {
    let (_, paths) = options(words, "acm", "")?;
    for path in paths {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        let touched = file.and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(|error| about(path, &error))?;
    }
    Ok(0)
}

pub fn rm(words: &[String], io: &mut Io) -> Outcome {
    let (options, paths) = options(words, "rRfv", "")?;
    let is = |asked| options.iter().any(|(letter, _)| *letter == asked);
    let mut code = 0;
    for path in paths {
        let removed = match look(path, false) {
            Ok(kind) if kind.is_dir() && (is('r') || is('R')) => remove_tree(path),
            Ok(kind) if kind.is_dir() => Err(io::Error::other("Is a directory")),
            Ok(_) => fs::remove_file(path),
            Err(error) if is('f') && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            writeln!(io.err, "rm: cannot remove {}", about(path, &error).0)?;
            code = 1;
        }
    }
    Ok(code)
}

fn remove_tree(path: &str) -> io::Result<()> {
    for name in names(path)? {
        let path = join(path, &name);
        if look(&path, false)?.is_dir() { remove_tree(&path)? } else { fs::remove_file(&path)? }
    }
    fs::remove_dir(path)
}

pub fn cp(words: &[String], _: &mut Io) -> Outcome {
    let (options, paths) = options(words, "rRafpv", "")?;
    let recursive = options.iter().any(|(letter, _)| matches!(letter, 'r' | 'R' | 'a'));
    let Some((to, from)) = paths.split_last().filter(|(_, from)| !from.is_empty()) else {
        return Err("from where, and to where?".into());
    };
    for from in from {
        copy(from, &target(from, to), recursive)?;
    }
    Ok(0)
}

fn copy(from: &str, to: &str, recursive: bool) -> Result<(), Failure> {
    if !look(from, true).map_err(|error| about(from, &error))?.is_dir() {
        let copied = fs::File::open(from).map_err(|error| about(from, &error)).and_then(|mut source| {
            let mut target = fs::File::create(to).map_err(|error| about(to, &error))?;
            io::copy(&mut source, &mut target).map_err(|error| about(to, &error))
        });
        return copied.map(|_| ());
    }
    if !recursive {
        return Err(format!("{from} is a directory; -r copies it").into());
    }
    make_directory(to, true)?;
    for name in names(from).map_err(|error| about(from, &error))? {
        copy(&join(from, &name), &join(to, &name), true)?;
    }
    Ok(())
}

pub fn mv(words: &[String], io: &mut Io) -> Outcome {
    let (_, paths) = options(words, "fv", "")?;
    let Some((to, from)) = paths.split_last().filter(|(_, from)| !from.is_empty()) else {
        return Err("from where, and to where?".into());
    };
    for from in from {
        let to = target(from, to);
        // Across volumes there is no renaming.
        if fs::rename(from, &to).is_err() {
            copy(from, &to, true)?;
            let from = ["-r".to_owned(), (*from).to_owned()];
            rm(&from, io)?;
        }
    }
    Ok(0)
}

/// `find [PATH…] [-name GLOB] [-type f|d|l] [-maxdepth N]`
pub fn find(words: &[String], io: &mut Io) -> Outcome {
    let split = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
    let (paths, tests) = words.split_at(split);
    let (mut name, mut kind, mut depth) = (None, None, usize::MAX);
    let mut tests = tests.iter();
    while let Some(test) = tests.next() {
        let mut value = || tests.next().ok_or_else(|| Failure(format!("{test} needs a value")));
        match test.as_str() {
            "-name" => name = Some(value()?.clone()),
            "-type" => kind = Some(value()?.clone()),
            "-maxdepth" => depth = value()?.parse().map_err(|_| "-maxdepth needs a number")?,
            "-print" => {}
            _ => return Err(format!("unknown test {test:?}: there are -name, -type and -maxdepth").into()),
        }
    }
    let mut left: Vec<(String, usize)> = paths.iter().rev().map(|path| (path.clone(), 0)).collect();
    if left.is_empty() {
        left.push((".".to_owned(), 0));
    }
    let mut code = 0;
    while let Some((path, level)) = left.pop() {
        let found = match look(&path, false) {
            Ok(found) => found,
            Err(error) => {
                writeln!(io.err, "find: {}", about(&path, &error).0)?;
                code = 1;
                continue;
            }
        };
        let letter = match (found.is_dir(), found.is_link()) {
            (_, true) => "l",
            (true, false) => "d",
            (false, false) => "f",
        };
        let last = path.rsplit('/').next().unwrap_or(&path);
        let fits = name.as_ref().is_none_or(|glob| crate::shell::glob_fits(glob, last));
        if fits && kind.as_deref().is_none_or(|kind| kind == letter) {
            writeln!(io.out, "{path}")?;
        }
        if found.is_dir() && level < depth {
            let below = names(&path).unwrap_or_default();
            left.extend(below.iter().rev().map(|name| (join(&path, name), level + 1)));
        }
    }
    Ok(code)
}

pub fn test(arguments: &[String], _: &mut Io) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let arguments = match arguments.split_last() {
        Some((&"]", rest)) => rest,
        _ => &arguments,
    };
    Ok(i32::from(!holds(arguments)?))
}

fn holds(arguments: &[&str]) -> Result<bool, Failure> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| format!("{text}: integer expected"));
    Ok(match arguments {
        [] => false,
        ["!", rest @ ..] => !holds(rest)?,
        [text] => !text.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-e", path] => look(path, true).is_ok(),
        ["-d", path] => look(path, true).is_ok_and(|kind| kind.is_dir()),
        ["-f", path] => look(path, true).is_ok_and(|kind| !kind.is_dir()),
        ["-L" | "-h", path] => look(path, false).is_ok_and(|kind| kind.is_link()),
        ["-s", path] => matches!(look(path, true), Ok(Kind::Real(metadata)) if metadata.len() > 0),
        ["-r" | "-w" | "-x", path] => look(path, true).is_ok(),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        [a, "-eq", b] => number(a)? == number(b)?,
        [a, "-ne", b] => number(a)? != number(b)?,
        [a, "-lt", b] => number(a)? < number(b)?,
        [a, "-le", b] => number(a)? <= number(b)?,
        [a, "-gt", b] => number(a)? > number(b)?,
        [a, "-ge", b] => number(a)? >= number(b)?,
        _ => return Err(format!("unknown test: {}", arguments.join(" ")).into()),
    })
}

/// Where a link leads, for archives.
pub fn link_of(path: &str) -> Result<PathBuf, Failure> {
    fs::read_link(Path::new(path)).map_err(|error| Failure(format!("{path}: {}", words(&error))))
}
