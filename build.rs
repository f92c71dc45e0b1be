//! Builds the programs in `guests/` for WebAssembly, so that `cargo build` alone is enough.
//!
//! They land in one folder, `hello.wasm` for WASI 0.2 and `exit.p1.wasm` for WASI 0.1, which the
//! crate finds in the variable `CORACLE_GUESTS`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Guests that are also built for WASI 0.1, where an exit code survives, and more error codes do.
const PREVIEW1: &[&str] = &["exit", "files", "finish", "reload", "toolbox", "worker"];

/// Handlers of HTTP requests.
const HANDLERS: &[&str] = &["handler", "hello-http"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for path in ["guests/src", "guests/Cargo.toml", "guests/Cargo.lock", "wit"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let images = out.join("guests");
    fs::create_dir_all(&images).expect("create a folder in OUT_DIR");

    // A target folder of its own: the outer build holds the lock of the usual one.
    let target = out.join("guests-target");
    let Some(built) = build(&root, &target, "wasm32-wasip2", &["--bins"]) else { return };
    for entry in fs::read_dir(&built).expect("list the built guests") {
        let path = entry.expect("list the built guests").path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let name = path.file_name().expect("a file in a folder has a name");
            fs::copy(&path, images.join(name)).expect("copy a guest");
        }
    }
    let examples: Vec<&str> = HANDLERS.iter().flat_map(|name| ["--example", name]).collect();
    let Some(built) = build(&root, &target, "wasm32-wasip2", &examples) else { return };
    for name in HANDLERS {
        // A library's file has underscores.
        let from = built.join("examples").join(format!("{}.wasm", name.replace('-', "_")));
        fs::copy(from, images.join(format!("{name}.wasm"))).expect("copy a guest");
    }
    let bins: Vec<&str> = PREVIEW1.iter().flat_map(|name| ["--bin", name]).collect();
    let Some(built) = build(&root, &target, "wasm32-wasip1", &bins) else { return };
    for name in PREVIEW1 {
        let from = built.join(format!("{name}.wasm"));
        fs::copy(from, images.join(format!("{name}.p1.wasm"))).expect("copy a guest");
    }
    println!("cargo::rustc-env=CORACLE_GUESTS={}", images.display());
}

/// The folder with the programs built for `platform`; `None` if that failed, which has been said.
fn build(root: &Path, target: &Path, platform: &str, which: &[&str]) -> Option<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(root.join("guests"))
        .args(["build", "--release", "--locked", "--quiet", "--target", platform])
        .args(which)
        .arg("--target-dir")
        .arg(target);
    // Flags and wrappers of the outer build are meant for the machine it runs on.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_rustc = text.contains("RUSTFLAGS") || text.starts_with("RUSTC_W");
        let of_cargo = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_INCREMENTAL"];
        if of_rustc || of_cargo.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let status = cargo.status().expect("run cargo for the guests");
    if !status.success() {
        // Ends the outer build, after the rest of the script.
        println!(
            "cargo::error=cannot build guests/ for {platform}; is the target installed, and can what \
             guests/Cargo.lock names be fetched? Run: rustup target add wasm32-wasip2 wasm32-wasip1"
        );
        return None;
    }
    Some(target.join(platform).join("release"))
}
