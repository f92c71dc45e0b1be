//! `coracle`: parses arguments, installs tracing, calls one command.

use std::process::ExitCode;

use clap::Parser;
use coracle::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::install_tracing();
    match cli::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // One line, with every cause: what was attempted, on what, and why it failed.
            eprintln!("coracle: {}", cli::one_line(&*error));
            ExitCode::FAILURE
        }
    }
}
