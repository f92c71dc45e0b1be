//! Fixture: does one thing to the file system for each argument and prints what came of it.
//!
//! `files "list /data" "write /data/a text" "rename /data/a /data/b"`

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

fn main() {
    for step in std::env::args().skip(1) {
        let words: Vec<&str> = step.split(' ').collect();
        match perform(&words) {
            Ok(result) => println!("{step}: {result}"),
            Err(error) => {
                let text = error.to_string();
                println!("{step}: {}", text.split(" (os error").next().unwrap_or(&text));
            }
        }
    }
}

fn perform(words: &[&str]) -> io::Result<String> {
    let done = |()| "done".to_owned();
    match words {
        ["read", path] => fs::read_to_string(path),
        ["list", path] => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                let mark = if kind.is_dir() {
                    "/"
                } else if kind.is_symlink() {
                    "@"
                } else {
                    ""
                };
                names.push(format!("{}{mark}", entry.file_name().to_string_lossy()));
            }
            names.sort();
            Ok(names.join(" "))
        }
        ["env", name] => Ok(std::env::var(name).unwrap_or_else(|_| "not set".to_owned())),
        ["walk", path] => {
            let mut found = Vec::new();
            walk(Path::new(path), "", &mut found)?;
            Ok(found.join(" "))
        }
        ["seek", path, places @ ..] => seek(path, places),
        ["together", paths @ ..] => together(paths),
        ["refused", directory, file] => Ok(refused(directory, file)),
        ["age", path] => {
            let age = fs::metadata(path)?.modified()?.elapsed().map_err(io::Error::other)?;
            Ok(if age.as_secs() < 3600 { "recent" } else { "old" }.to_owned())
        }
        ["stat", path] => fs::metadata(path).map(|data| describe(&data)),
        ["lstat", path] => fs::symlink_metadata(path).map(|data| describe(&data)),
        ["readlink", path] => fs::read_link(path).map(|target| target.display().to_string()),
        ["write", path, text] => fs::write(path, text).map(done),
        ["append", path, text] => {
            OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes()).map(done)
        }
        ["create-new", path] => OpenOptions::new().write(true).create_new(true).open(path).map(|_| done(())),
        ["truncate", path, size] => {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(size.parse().expect("a size")).map(done)
        }
        ["fill", path, size] => {
            let size = size.parse().expect("a size");
            fs::write(path, vec![b'x'; size]).map(done)
        }
        ["overwrite", path, at, text] => {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            file.seek(SeekFrom::Start(at.parse().expect("an offset")))?;
            file.write_all(text.as_bytes())?;
            let mut content = String::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_string(&mut content)?;
            Ok(content)
        }
        ["rename", from, to] => fs::rename(from, to).map(done),
        ["link", from, to] => fs::hard_link(from, to).map(done),
        ["mkdir", path] => fs::create_dir(path).map(done),
        ["rmdir", path] => fs::remove_dir(path).map(done),
        ["rm", path] => fs::remove_file(path).map(done),
        // Keeps the file open while it is removed.
        ["read-removed", path] => {
            let mut file = fs::File::open(path)?;
            fs::remove_file(path)?;
            let mut content = String::new();
            file.read_to_string(&mut content)?;
            Ok(content)
        }
        _ => Err(io::Error::other("no such step")),
    }
}

fn describe(data: &fs::Metadata) -> String {
    let kind = if data.is_dir() {
        "directory"
    } else if data.is_symlink() {
        "link"
    } else {
        "file"
    };
    format!("{kind} {}", data.len())
}

/// All that is in a directory, links with their targets and not followed. Names of the time a
/// volume was written, `..2026_01_02…`, become `..TIME`.
fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    let shown = |name: &str| {
        let is_time = name.starts_with("..") && name[2..].starts_with(|c: char| c.is_ascii_digit());
        if is_time { "..TIME".to_owned() } else { name.to_owned() }
    };
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{prefix}{}", shown(&entry.file_name().to_string_lossy()));
        let data = entry.metadata()?;
        if data.is_dir() {
            found.push(format!("{path}/"));
            walk(&entry.path(), &format!("{path}/"), found)?;
        } else if data.is_symlink() {
            let target = fs::read_link(entry.path())?;
            found.push(format!("{path}->{}", shown(&target.to_string_lossy())));
        } else {
            found.push(format!("{path}({})", data.len()));
        }
    }
    Ok(())
}

/// What can be read from each place: `2` from the start, `-2` from the end, `+2` from where the last
/// read of at most three bytes has ended.
fn seek(path: &str, places: &[&str]) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut results = Vec::new();
    for place in places {
        let by = |text: &str| text.parse().expect("an offset");
        let at = file.seek(match place.as_bytes()[0] {
            b'+' => SeekFrom::Current(by(&place[1..])),
            b'-' => SeekFrom::End(by(place)),
            _ => SeekFrom::Start(place.parse().expect("an offset")),
        })?;
        let mut text = String::new();
        (&mut file).take(3).read_to_string(&mut text)?;
        results.push(format!("{at}:{text}"));
    }
    Ok(results.join(" "))
}

/// Holds every file open twice and reads all of them a byte at a time, in turns.
fn together(paths: &[&str]) -> io::Result<String> {
    let open = |path: &&str| fs::File::open(path).map(|file| (file, Vec::new()));
    let mut files = paths.iter().chain(paths).map(open).collect::<io::Result<Vec<_>>>()?;
    let mut going = true;
    while going {
        going = false;
        for (file, content) in &mut files {
            let mut byte = [0];
            if file.read(&mut byte)? == 1 {
                content.push(byte[0]);
                going = true;
            }
        }
    }
    let texts: Vec<_> = files.iter().map(|(_, content)| String::from_utf8_lossy(content)).collect();
    let (first, second) = texts.split_at(paths.len());
    Ok(if first == second { first.join(" ") } else { "the openings differ".to_owned() })
}

/// Everything that changes `directory` or `file` in it: what each attempt came to.
fn refused(directory: &str, file: &str) -> String {
    let old = &format!("{directory}/{file}");
    let new = &format!("{directory}/new");
    let attempts: [(&str, io::Result<()>); 10] = [
        ("overwrite", fs::write(old, "x")),
        ("append", OpenOptions::new().append(true).open(old).map(drop)),
        ("update", OpenOptions::new().read(true).write(true).open(old).map(drop)),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(old).map(drop)),
        ("create", OpenOptions::new().write(true).create_new(true).open(new).map(drop)),
        ("mkdir", fs::create_dir(new)),
        ("remove", fs::remove_file(old)),
        ("rmdir", fs::remove_dir(format!("{directory}/..data/"))),
        ("rename", fs::rename(old, new)),
        ("link", fs::hard_link(old, new)),
    ];
    let results = attempts.map(|(name, result)| match result {
        Ok(()) => format!("{name}=done"),
        Err(error) => format!("{name}={:?}", error.kind()),
    });
    results.join(" ")
}
