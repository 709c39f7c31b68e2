//! `holdfast exec`: a command in a container, its streams and its exit status ours.
//!
//! ```text
//!  start ─► stdin … stdin ─► stdin closed        (us)
//!           stdout, stderr … ─► exit status      (the container)
//! ```

use std::io::{Read, stdin};

use clap::Args;
use futures::{Stream, StreamExt, stream};
use holdfast_proto::{RemoteError, v1};
use holdfast_types::ContainerName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::exec_request::Part;

use super::Context;
use crate::error::CliError;
use crate::output::{bytes, error_bytes};
use crate::values::EnvVar;

/// Bytes of standard input in one message.
const CHUNK: usize = 32 << 10;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  holdfast exec web -- ls -l /\n  tar c data | holdfast exec web -- tar x -C /srv"
)]
pub(crate) struct Exec {
    /// The container's name
    name: ContainerName,
    /// Environment of the command; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<EnvVar>,
    /// Give the command an empty standard input, and leave ours alone
    #[arg(short = 'n', long)]
    no_stdin: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

impl Exec {
    /// Runs the command; returns its exit status.
    pub(crate) async fn run(self, context: &Context) -> Result<u8, CliError> {
        let start = v1::ExecStart {
            name: self.name.to_string(),
            command: self.command,
            env: self.env.into_iter().map(|var| (var.name, var.value)).collect(),
        };
        let input = if self.no_stdin {
            stream::iter([Part::StdinClosed(true)]).boxed()
        } else {
            standard_input().boxed()
        };
        let parts = stream::iter([Part::Start(start)]).chain(input);
        let requests = parts.map(|part| v1::ExecRequest { part: Some(part) });
        let mut answers = context.session.exec(requests).await?;
        while let Some(answer) = answers.message().await.map_err(RemoteError::from)? {
            match answer.part {
                Some(v1::exec_response::Part::Stdout(data)) => bytes(&data)?,
                Some(v1::exec_response::Part::Stderr(data)) => error_bytes(&data)?,
                Some(v1::exec_response::Part::ExitStatus(status)) => return Ok(narrow(status)),
                // A part of a newer version that we know nothing of.
                None => {}
            }
        }
        Err(CliError::NoExitStatus)
    }
}

/// Exit statuses are one byte; what does not fit must not become success.
fn narrow(status: i32) -> u8 {
    u8::try_from(status).unwrap_or(u8::MAX)
}

/// Standard input in chunks, read ahead by one, then the word that it is over. An input that cannot
/// be read counts as over.
fn standard_input() -> impl Stream<Item = Part> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = stdin().read(&mut buffer) {
            if sender.blocking_send(Part::Stdin(buffer[..count].to_vec().into())).is_err() {
                return;
            }
        }
        // If nobody listens any more, the command has ended.
        drop(sender.blocking_send(Part::StdinClosed(true)));
    });
    ReceiverStream::new(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_does_not_fit_is_no_success() {
        assert_eq!([0, 3, 255, 256, -1].map(narrow), [0, 3, 255, 255, 255]);
    }
}
