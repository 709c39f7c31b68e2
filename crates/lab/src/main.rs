//! `holdfast-lab`: a cluster on one machine. The `holdfast` client runs it for `holdfast lab`.

use std::process::ExitCode;

use clap::Parser;

mod commands;

fn main() -> ExitCode {
    match commands::run(commands::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast-lab: {}: {}", error.code(), commands::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
