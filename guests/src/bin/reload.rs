//! Prints files and settings now and whenever the pod's configuration changes, without looking again
//! and again: the host tells it. An example of both interfaces in `wit/`.
//!
//! `reload [FILE | SETTING | *]…`: what begins with `/` is a file, `*` is every setting.

wit_bindgen::generate!({ path: "../wit", world: "coracle:config/imports", generate_all });

use coracle::config::revisions;
use wasi::config::store;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    loop {
        // First the revision, then what it is of: a change in between ends the wait below at once.
        let seen = revisions::current();
        for name in &names {
            show(seen, name);
        }
        revisions::subscribe(seen).block();
    }
}

fn show(seen: u64, name: &str) {
    if name.starts_with('/') {
        match std::fs::read_to_string(name) {
            Ok(content) => println!("{seen} {name}: {}", content.trim_end()),
            Err(error) => println!("{seen} {name}: {error}"),
        }
    } else if name == "*" {
        let sources = revisions::sources();
        let sources =
            sources.iter().map(|source| format!("{:?} {} {}", source.kind, source.name, source.revision));
        println!("{seen} of {}", sources.collect::<Vec<_>>().join(", "));
        let mut settings = store::get_all().expect("the host has its settings at hand");
        settings.sort();
        for (name, value) in settings {
            println!("{seen} {name}={}", value.trim_end());
        }
    } else {
        let value = store::get(name).expect("the host has its settings at hand");
        println!("{seen} {name}={}", value.as_deref().map_or("-", str::trim_end));
    }
}
