//! Fixture: does one thing to the file system for each argument and prints what came of it.
//!
//! `files "list /data" "write /data/a text" "rename /data/a /data/b"`

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};

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
