//! House rules: imports run downwards, packages stay home, nothing is left half done.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up, each with the layers it may use. `controller`, `scheduler` and
/// `kubelet` meet only through objects, so none may use another.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("random", &[]),
    ("kind", &[]),
    ("store", &["kind", "clock", "random"]),
    ("apiserver", &["kind", "store", "clock", "random"]),
    ("client", &["kind", "store", "apiserver", "clock"]),
    ("controller", &["kind", "client", "apiserver", "clock", "random"]),
    ("scheduler", &["kind", "client", "apiserver", "clock", "random"]),
    ("guests", &[]),
    ("runtime", &["clock", "random"]),
    ("network", &["kind", "client", "runtime", "clock", "random"]),
    ("kubelet", &["kind", "client", "apiserver", "runtime", "network", "clock", "random"]),
    ("cluster", &["*"]),
    ("bench", &["*"]),
    ("cli", &["*"]),
    ("main", &["*"]),
    ("lib", &["*"]),
];

/// Where a package may be named; replacing one is a change to one folder.
const HOMES: &[(&str, &[&str])] = &[
    ("wasmtime", &["src/runtime/"]),
    ("hyper", &["src/apiserver/http", "src/kubelet/handler", "src/runtime/http/"]),
    ("hickory_proto", &["src/network/dns/"]),
    ("tokio_tungstenite", &["src/apiserver/http"]),
    ("reqwest", &["src/kubelet/image/registry/"]),
    ("oci_client", &["src/kubelet/image/registry/push.rs"]),
    ("tar", &["src/kubelet/image/"]),
    (
        "rustls",
        &["src/apiserver/", "src/kubelet/handler", "src/kubelet/image/registry/", "src/runtime/http/"],
    ),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("json_patch", &["src/apiserver/"]),
    ("ring", &["src/apiserver/token/", "src/store/seal", "src/runtime/cache.rs"]),
    ("kube", &["src/client/remote.rs", "src/apiserver/http/tests.rs"]),
    ("similar", &["src/cli/config/"]),
    ("prometheus_client", &["src/apiserver/"]),
    ("indicatif", &["src/cli/"]),
];

const LINES_MAX: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `folder`, with its path from the root.
fn sources(folder: &str) -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The layer of a file: the first element of its path under `src`.
fn layer(file: &str) -> &str {
    let path = file.strip_prefix("src/").unwrap();
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The layers that a text names as `crate::layer`, in whatever form.
fn used(source: &str) -> Vec<&str> {
    let mut used = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let end = list.find("};").unwrap_or(list.len());
            let mut depth = 0;
            let mut start = 0;
            for (i, c) in list[..end].char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.push(word(list[start..i].trim()));
                        start = i + 1;
                    }
                    _ => {}
                }
            }
            used.push(word(list[start..end].trim()));
        } else {
            used.push(word(rest));
        }
    }
    used.retain(|word| !word.is_empty());
    used
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

#[test]
fn imports_run_only_downwards() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (file, source) in sources("src") {
        // Tests may build upon anything.
        if file.contains("/tests/") || file.ends_with("/tests.rs") {
            continue;
        }
        let layer = layer(&file);
        let may = allowed.get(layer).unwrap_or_else(|| panic!("{file}: a layer that tests/it/tidy.rs knows"));
        for used in used(&source) {
            if used != layer && !may.contains(&"*") && !may.contains(&used) && allowed.contains_key(used) {
                wrong.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the arrows:\n{}", wrong.join("\n"));
}

#[test]
fn the_import_scanner_sees_every_form() {
    let source = "use crate::store::Key; use crate::{kind::{Kind, Object}, client}; crate::clock::now()";
    assert_eq!(used(source), ["store", "kind", "client", "clock"]);
}

#[test]
fn packages_stay_home() {
    let mut wrong = Vec::new();
    for (file, source) in sources("src") {
        for (package, homes) in HOMES {
            let named = source.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && (line.contains(&format!("use {package}::")) || line.contains(&format!(" {package}::")))
            });
            if named && !homes.iter().any(|home| file.starts_with(home)) {
                wrong.push(format!("{file} names {package}, whose home is {}", homes.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_half_done_and_files_stay_small() {
    let marks = ["FIX".to_owned() + "ME", "todo".to_owned() + "!(", "unimplemented".to_owned() + "!("];
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "guests", "benches"] {
        for (file, source) in sources(folder) {
            for mark in &marks {
                if source.contains(mark) {
                    wrong.push(format!("{file} holds {mark}"));
                }
            }
            let lines = source.lines().count();
            if lines > LINES_MAX {
                wrong.push(format!("{file} has {lines} lines: it wants to be two"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_asks_the_time() {
    let text = fs::read_to_string(root().join("clippy.toml")).unwrap();
    for source in ["Instant::now", "SystemTime::now", "thread::sleep", "tokio::time::sleep", "Timestamp::now"]
    {
        assert!(text.contains(source), "clippy.toml bans {source}");
    }
    for (file, source) in sources("src") {
        assert!(
            file == "src/clock.rs" || !source.contains("clippy::disallowed_methods"),
            "{file} waives the ban on other sources of time"
        );
    }
}

/// The part of a file that is tests: all of it, or what follows `mod tests {`.
fn tests_of<'a>(file: &str, source: &'a str) -> &'a str {
    if file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("/tests.rs") {
        return source;
    }
    source.find("mod tests {").map_or("", |at| &source[at..])
}

/// A rule of the behaviours that we keep to: its section and its number in there.
type Rule = (u32, u32);

/// Sections of which a test cites every rule, and how many rules each has.
const SECTIONS: &[(&str, u32, u32)] = &[
    ("deletion and garbage collection", 4, 8),
    // The eighth is about proxies, which come with addresses of services.
    ("subresources", 8, 7),
    ("pods", 9, 14),
    ("environment and volumes", 10, 17),
    ("daemon sets", 12, 10),
    ("jobs", 13, 14),
    ("cron jobs", 14, 9),
];

fn rule(word: &str) -> Option<Rule> {
    let (section, number) = word.trim_end_matches('.').split_once('.')?;
    Some((section.parse().ok()?, number.parse().ok()?))
}

/// The rules that the comments of a text cite: `BEHAVIOURS 10.1, 10.3 to 10.5 and 10.9.` anywhere, or
/// the numbers alone at the beginning of a comment.
fn cited(source: &str) -> Vec<Rule> {
    let mut cited: Vec<Rule> = Vec::new();
    for line in source.lines() {
        let Some((_, comment)) = line.split_once("//") else { continue };
        let comment = comment.trim_start_matches(['/', '!']);
        let list = comment.split_once("BEHAVIOURS ").map_or(comment, |(_, list)| list);
        let mut until_next = false;
        for word in list.split([' ', ',', ':', ';', ')']).filter(|word| !word.is_empty()) {
            match (rule(word), cited.last()) {
                (Some((section, last)), Some(&(before, first))) if until_next && section == before => {
                    cited.extend((first + 1..=last).map(|number| (section, number)));
                }
                (Some(rule), _) => cited.push(rule),
                (None, _) if matches!(word, "to" | "and") => {}
                (None, _) => break,
            }
            until_next = word == "to";
        }
    }
    cited
}

#[test]
fn the_rule_scanner_sees_every_form() {
    assert_eq!(cited("// BEHAVIOURS 10.2."), [(10, 2)]);
    let several = "// (BEHAVIOURS 10.1, 10.3 to 10.5 and 10.9): the 10.11";
    assert_eq!(cited(several), [(10, 1), (10, 3), (10, 4), (10, 5), (10, 9)]);
    assert_eq!(cited("/// 12.2, 4.7: both\n//! 13.1"), [(12, 2), (4, 7), (13, 1)]);
    let none = "let a = 1.5; // as 10.1 says\n127.0.0.1 // 1.2.3\n// 2.x\nBEHAVIOURS 10.1";
    assert_eq!(cited(none), []);
}

#[test]
fn every_rule_of_these_sections_has_a_test() {
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        for (file, source) in sources(folder) {
            if file != "tests/it/tidy.rs" {
                found.extend(cited(tests_of(&file, &source)));
            }
        }
    }
    let mut missing = Vec::new();
    for &(about, section, rules) in SECTIONS {
        let uncited = (1..=rules).filter(|number| !found.contains(&(section, *number)));
        missing.extend(uncited.map(|number| format!("{section}.{number}, of {about}")));
    }
    assert!(missing.is_empty(), "no test cites these rules:\n{}", missing.join("\n"));
}
