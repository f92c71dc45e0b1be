//! `tar`, as far as `kubectl cp` and people at a prompt need it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path};
use std::time::UNIX_EPOCH;

use tar::{Archive, Builder, EntryType, Header};

use crate::files::{self, Kind};
use crate::{Failure, Io, Outcome, about, words};

#[derive(Default)]
struct Job {
    mode: Option<char>,
    file: Option<String>,
    directory: Option<String>,
    verbose: bool,
    paths: Vec<String>,
}

pub fn tar(words: &[String], io: &mut Io) -> Outcome {
    let job = parse(words)?;
    match job.mode {
        Some('c') => create(&job, io),
        Some('x') => match job.file.as_deref().filter(|file| *file != "-") {
            Some(file) => {
                let mut archive = fs::File::open(file).map_err(|error| about(file, &error))?;
                extract(&job, &mut archive, io.err, false)
            }
            None => extract(&job, &mut io.input, io.err, false),
        },
        Some('t') => match job.file.as_deref().filter(|file| *file != "-") {
            Some(file) => {
                let mut archive = fs::File::open(file).map_err(|error| about(file, &error))?;
                extract(&job, &mut archive, io.out, true)
            }
            None => extract(&job, &mut io.input, io.out, true),
        },
        _ => Err("one of c (create), x (extract) and t (list) must be given".into()),
    }
}

/// Options as tar takes them: the first word needs no dash, and letters may stand together.
fn parse(words: &[String]) -> Result<Job, Failure> {
    let mut job = Job::default();
    let mut words = words.iter().enumerate();
    let mut rest = Vec::new();
    while let Some((place, word)) = words.next() {
        let letters = match word.strip_prefix('-') {
            Some("") => {
                rest.push(word.clone());
                continue;
            }
            Some("-") => {
                rest.extend(words.by_ref().map(|(_, word)| word.clone()));
                break;
            }
            Some(long) if long.starts_with('-') => {
                match &long[1..] {
                    "create" => job.mode = Some('c'),
                    "extract" | "get" => job.mode = Some('x'),
                    "list" => job.mode = Some('t'),
                    "verbose" => job.verbose = true,
                    // There are no owners and permissions here, and no times to keep.
                    "no-same-owner" | "no-same-permissions" | "touch" | "numeric-owner" => {}
                    long => match long.split_once('=') {
                        Some(("file", value)) => job.file = Some(value.to_owned()),
                        Some(("directory", value)) => job.directory = Some(value.to_owned()),
                        _ => return Err(format!("unknown option --{long}").into()),
                    },
                }
                continue;
            }
            Some(letters) => letters,
            None if place == 0 => word.as_str(),
            None => {
                rest.push(word.clone());
                continue;
            }
        };
        let dashed = word.starts_with('-');
        for (at, letter) in letters.char_indices() {
            match letter {
                'c' | 'x' | 't' => job.mode = Some(letter),
                'v' => job.verbose = true,
                'm' | 'p' | 'o' | 'h' => {}
                'f' | 'C' => {
                    // `cfv -`: without a dash the value is the next word, whatever follows the letter.
                    let attached = &letters[at + 1..];
                    let is_attached = dashed && !attached.is_empty();
                    let value = if is_attached {
                        attached.to_owned()
                    } else {
                        words.next().ok_or_else(|| format!("option -{letter} needs a value"))?.1.clone()
                    };
                    if letter == 'f' {
                        job.file = Some(value)
                    } else {
                        job.directory = Some(value)
                    }
                    if is_attached {
                        break;
                    }
                }
                'z' | 'j' | 'J' => {
                    return Err("archives are not compressed here; leave that option out".into());
                }
                letter => return Err(format!("unknown option -{letter}").into()),
            }
        }
    }
    job.paths = rest;
    Ok(job)
}

fn create(job: &Job, io: &mut Io) -> Outcome {
    if job.paths.is_empty() {
        return Err("refusing to make an empty archive: name what goes in".into());
    }
    if let Some(directory) = &job.directory {
        std::env::set_current_dir(directory).map_err(|error| about(directory, &error))?;
    }
    let mut code = 0;
    let Io { out, err, .. } = io;
    let mut file = match job.file.as_deref().filter(|file| *file != "-") {
        Some(path) => Some(fs::File::create(path).map_err(|error| about(path, &error))?),
        None => None,
    };
    let target: &mut dyn Write = match &mut file {
        Some(file) => file,
        None => *out,
    };
    let mut builder = Builder::new(target);
    for path in &job.paths {
        if path.starts_with('/') {
            writeln!(err, "tar: Removing leading `/' from member names")?;
        }
        let mut left = vec![path.clone()];
        while let Some(path) = left.pop() {
            match add(&mut builder, &path) {
                Ok(true) => match files::names(&path) {
                    Ok(names) => left.extend(names.iter().rev().map(|name| files::join(&path, name))),
                    Err(error) => {
                        writeln!(err, "tar: {}", about(&path, &error).0)?;
                        code = 2;
                    }
                },
                Ok(false) => {}
                Err(Failure(why)) => {
                    writeln!(err, "tar: {why}")?;
                    code = 2;
                }
            }
            if job.verbose {
                writeln!(err, "{path}")?;
            }
        }
    }
    builder.into_inner()?.flush()?;
    if code != 0 {
        writeln!(err, "tar: Exiting with failure status due to previous errors")?;
    }
    Ok(code)
}

/// Adds one path; whether it is a directory.
fn add(builder: &mut Builder<&mut dyn Write>, path: &str) -> Result<bool, Failure> {
    let kind = files::look(path, false)
        .map_err(|error| Failure(format!("{path}: Cannot stat: {}", words(&error))))?;
    let name = path.trim_start_matches('/');
    let name = if name.is_empty() { "." } else { name };
    let mut header = Header::new_gnu();
    let time = match &kind {
        Kind::Real(metadata) => metadata.modified().unwrap_or(UNIX_EPOCH),
        Kind::Way => UNIX_EPOCH,
    };
    header.set_mtime(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        builder.append_data(&mut header, format!("{}/", name.trim_end_matches('/')), io::empty())?;
        return Ok(true);
    }
    if kind.is_link() {
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        builder.append_link(&mut header, name, files::link_of(path)?)?;
        return Ok(false);
    }
    let mut file = fs::File::open(path).map_err(|error| about(path, &error))?;
    let size = file.metadata().map_err(|error| about(path, &error))?.len();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    // A file that changes meanwhile must not spoil what comes after it.
    let content = (&mut file).chain(io::repeat(0)).take(size);
    builder.append_data(&mut header, name, content)?;
    Ok(false)
}

fn extract(job: &Job, archive: &mut dyn Read, told: &mut dyn Write, only_list: bool) -> Outcome {
    let base = job.directory.as_deref().unwrap_or(".");
    if !only_list && !files::look(base, true).is_ok_and(|kind| kind.is_dir()) {
        return Err(format!("{base}: Cannot open: No such directory").into());
    }
    let mut code = 0;
    let mut archive = Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.to_string_lossy().into_owned();
        let wanted = |wish: &String| path.starts_with(wish.trim_end_matches('/'));
        if !job.paths.is_empty() && !job.paths.iter().any(wanted) {
            continue;
        }
        if only_list || job.verbose {
            writeln!(told, "{name}")?;
        }
        if only_list {
            continue;
        }
        if let Err(Failure(why)) = unpack(&mut entry, base, &path) {
            writeln!(told, "tar: {name}: {why}")?;
            code = 2;
        }
    }
    // The sender may still write what fills the last block.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    if code != 0 {
        writeln!(told, "tar: Exiting with failure status due to previous errors")?;
    }
    Ok(code)
}

fn unpack(entry: &mut tar::Entry<'_, &mut dyn Read>, base: &str, path: &Path) -> Result<(), Failure> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err("its name contains '..'".into()),
        }
    }
    let target = parts.iter().fold(base.to_owned(), |directory, part| files::join(&directory, part));
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        return files::make_directory(&target, true);
    }
    if parts.is_empty() {
        return Ok(());
    }
    let above = parts[..parts.len() - 1].iter().fold(base.to_owned(), |at, part| files::join(&at, part));
    files::make_directory(&above, true)?;
    if kind.is_symlink() || kind.is_hard_link() {
        return Err("links are not extracted here".into());
    }
    if !kind.is_file() {
        return Err("only files and directories are extracted here".into());
    }
    let mut file =
        fs::File::create(&target).map_err(|error| Failure(format!("Cannot open: {}", words(&error))))?;
    io::copy(entry, &mut file).map_err(|error| Failure(format!("Cannot write: {}", words(&error))))?;
    Ok(())
}
