//! `holdfast`, the client of a Holdfast cluster.
//!
//! One file of [`commands`] per group of commands; [`args`] is the command line, [`output`] and
//! [`view`] what is printed, [`error`] how failures are told and which exit status they get.

mod args;
mod commands;
mod error;
mod output;
mod progress;
mod values;
mod view;

use std::process::ExitCode;

use crate::args::Cli;
use crate::error::{CliError, Report};
use crate::output::Format;

fn main() -> ExitCode {
    let args = std::env::args_os().collect();
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() => return Report::of_usage(&e).print(Format::guess()),
        // Help or the version was asked for. There is nobody to tell if it cannot be printed.
        Err(e) => {
            drop(e.print());
            return ExitCode::SUCCESS;
        }
    };
    let format = cli.global.output;
    // An exec's failures must not look like its command's own exit statuses.
    let exec = matches!(cli.command, args::Command::Exec(_));
    match run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(CliError::BrokenPipe) => ExitCode::SUCCESS,
        Err(e) => {
            let code = Report::of(&e).print(format);
            if exec { ExitCode::from(error::EXEC_FAILED) } else { code }
        }
    }
}

fn run(cli: Cli) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(CliError::Start)?;
    let status = runtime.block_on(Box::pin(commands::run(cli)));
    // A read of standard input may still be blocked: nobody waits for it.
    runtime.shutdown_background();
    status
}
