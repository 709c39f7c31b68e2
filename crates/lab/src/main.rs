//! `holdfast-lab`: a cluster on one machine. The `holdfast` client runs it for `holdfast lab`.

use std::process::ExitCode;

use clap::Parser;
use holdfast_cli::usage;
use holdfast_types::Code;

mod commands;

/// What clap exits with itself.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!("holdfast-lab: {}: {}", Code::InvalidArgument, usage::sentence(&error));
            return ExitCode::from(WRONG_USE);
        }
        // Help or the version was asked for. There is nobody to tell if it cannot be printed.
        Err(error) => {
            drop(error.print());
            return ExitCode::SUCCESS;
        }
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast-lab: {}: {}", error.code(), commands::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
