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
            cli::tell(&*error);
            ExitCode::FAILURE
        }
    }
}
