//! `coracle`: parses arguments, installs tracing, calls one command.

use std::alloc::System;
use std::process::ExitCode;

use clap::Parser;
use coracle::cli::{self, Cli};
use zeroizing_alloc::ZeroAlloc;

/// Memory is zeroed when it is freed, so that a Secret is gone from the process with the last who
/// used it: also from buffers of libraries, which know nothing of Secrets.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    cli::forbid_core_dumps();
    let cli = Cli::parse();
    cli::install_tracing();
    cli::allow_open_files();
    match cli::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::tell(&*error);
            ExitCode::FAILURE
        }
    }
}
