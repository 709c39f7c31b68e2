//! The guardian's program: `serve` is the process that fences, `enter` runs a program under the
//! fence, `status` and `relinquish` ask a running guardian (the latter before a suspend).

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use holdfast_fence::args::{self, Invocation, USAGE};
use holdfast_fence::{Code, GuardianClient, GuardianError, enter, guardian};

fn main() -> ExitCode {
    let invocation = match args::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(error) => return fail(Code::InvalidArgument, &error, 2),
    };
    match invocation {
        Invocation::Help => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Invocation::Serve(options) => match guardian::serve(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.code(), &error, 1),
        },
        Invocation::Enter(options) => match enter::enter(&options) {
            Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
            Err(error) => fail(error.code(), &error, 126),
        },
        Invocation::Status(socket) => show(&socket, |guardian| guardian.status()),
        Invocation::Relinquish(socket) => show(&socket, |guardian| guardian.relinquish()),
    }
}

/// Asks the guardian and prints its answer as one line of JSON.
fn show<A: serde::Serialize>(
    socket: &Path,
    ask: impl FnOnce(&mut GuardianClient) -> Result<A, GuardianError>,
) -> ExitCode {
    match GuardianClient::connect(socket).and_then(|mut guardian| ask(&mut guardian)) {
        Err(error) => fail(error.code(), &error, 1),
        Ok(answer) => match serde_json::to_string(&answer) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(Code::Internal, &error, 1),
        },
    }
}

/// One line: the code, what happened, and why.
fn fail(code: Code, error: &dyn Error, status: u8) -> ExitCode {
    let mut text = format!("holdfast-guardian: {code}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("{text}");
    ExitCode::from(status)
}
