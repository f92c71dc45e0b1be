//! Greets whoever is named on the command line.
//!
//! `hello [NAME]`. The greeting is the variable `GREETING`. If `SECRET_FILE` names a file, says how
//! long its content is, and not what it is.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let greeting = env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let name = env::args().nth(1).unwrap_or_else(|| "WebAssembly".to_owned());
    println!("{greeting}, {name}!");

    let Ok(path) = env::var("SECRET_FILE") else {
        return ExitCode::SUCCESS;
    };
    match std::fs::read(&path) {
        Ok(secret) => println!("I was told a secret of {} bytes.", secret.len()),
        Err(error) => {
            eprintln!("read {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
