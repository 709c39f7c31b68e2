//! How failures are told: exactly one line on standard error, and an exit status by class.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_cli::client::AddressesError;
use holdfast_cli::usage;
use holdfast_proto::backup::BackupError;
use holdfast_proto::{AddressError, RemoteError};
use holdfast_types::{Code, NameError, SizeError, SpecError, VolumeError};
use serde_json::json;

use crate::output::{Format, one_line};
use crate::values::ValueError;

/// The exit status of `holdfast exec` when the failure is not the command's own.
pub(crate) const EXEC_FAILED: u8 = 125;

/// Printed below the help.
pub(crate) const EXIT_STATUSES: &str = "\
Exit status:
  0  done
  1  failed for another reason than those below
  2  wrong use: an option, a name, a size, an image, a configuration
  3  the named object does not exist
  4  nobody answers, or the cluster has no quorum; try again later
  5  in conflict with what is: the name is taken, the state forbids it
  6  no room: no node fits, a pool is full, addresses are used up
  7  out of time; whether it took effect is unknown until asked
  `exec` exits as its command does, or with 125 if that could not be run.

Errors are one line on standard error, `holdfast: CODE: message`, or one object
{\"error\": {\"code\": ..., \"message\": ...}} with `-o json`.

Where the cluster is: --address, else $HOLDFAST_ADDRESS, else the line in
/run/holdfast/address, else unix:/run/holdfast/holdfastd.sock.";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Addresses(#[from] AddressesError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cannot read {what}")]
    Read { what: String, source: io::Error },
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
    #[error("{} is there already: --force replaces it", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    WriteFile { path: PathBuf, source: io::Error },
    #[error("that backup is not to be had, or to be used")]
    Backup(#[from] BackupError),
    #[error("standard output is a terminal: give a file or a pipe")]
    TerminalOut,
    #[error(
        "nothing of the cluster that the backup was taken of may run any more: confirm with \
         --yes-the-old-cluster-is-gone"
    )]
    OldClusterUnsure,
    #[error("cannot pack {}", path.display())]
    Pack { path: PathBuf, source: io::Error },
    #[error("--stale is for commands that only read from the cluster")]
    NotStale,
    #[error("standard input is a terminal: give a file, a directory or a pipe")]
    Terminal,
    #[error("this deletes {0} and all its copies: confirm with --yes")]
    Unconfirmed(String),
    #[error("{0} was not confirmed; nothing was changed")]
    Declined(String),
    #[error("{program} is neither beside this program nor in PATH: it comes with Holdfast")]
    MissingTool { program: &'static str },
    #[error("cannot run {}", program.display())]
    Run { program: PathBuf, source: io::Error },
    #[error("the pool has {broken} finding(s) that are broken; each says what to do")]
    PoolBroken { broken: usize },
    #[error("the connection ended before the command's exit status came")]
    NoExitStatus,
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The reader of our output has had enough: not a failure, and nobody to tell.
    #[error("nobody reads the output")]
    BrokenPipe,
}

impl CliError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Remote(e) => e.code(),
            Self::Addresses(e) => e.code(),
            Self::Spec(e) => e.code(),
            Self::Read { .. } | Self::Pack { .. } | Self::Terminal => Code::InvalidArgument,
            Self::Unconfirmed(_) | Self::Declined(_) | Self::NotStale => Code::InvalidArgument,
            Self::TerminalOut | Self::OldClusterUnsure => Code::InvalidArgument,
            Self::Exists(_) => Code::AlreadyExists,
            Self::WriteFile { .. } => Code::DiskIo,
            Self::Backup(e) => e.code(),
            Self::MissingTool { .. } | Self::Run { .. } => Code::MissingTool,
            Self::PoolBroken { .. } => Code::PoolDamaged,
            Self::NoExitStatus => Code::Unavailable,
            Self::Write(_) | Self::Start(_) | Self::BrokenPipe => Code::DiskIo,
        }
    }
}

/// The exit status of each code.
fn exit_status(code: Code) -> u8 {
    match code {
        Code::InvalidArgument
        | Code::InvalidName
        | Code::InvalidSize
        | Code::TooLarge
        | Code::BadImage
        | Code::Config => 2,
        Code::NotFound => 3,
        Code::NoQuorum | Code::NotLeader | Code::Unavailable | Code::NotInitialized => 4,
        Code::AlreadyExists
        | Code::Compacted
        | Code::Conflict
        | Code::WrongState
        | Code::InUse
        | Code::QuorumAtRisk
        | Code::Held
        | Code::WrongCluster
        | Code::Superseded
        | Code::VersionTooOld
        | Code::FeatureLevel
        | Code::NodeRemoved => 5,
        Code::NoPlacement | Code::PoolFull | Code::NoAddress | Code::TooManySnapshots => 6,
        Code::Timeout | Code::RequestExpired => 7,
        _ => 1,
    }
}

/// A failure, ready to be printed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    code: Code,
    message: String,
}

impl Report {
    /// The error's message and its sources', as one line.
    pub(crate) fn of(error: &CliError) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { code: error.code(), message }
    }

    /// What is wrong with the command line. The value's own error, if it has one, is the message.
    pub(crate) fn of_usage(error: &clap::Error) -> Self {
        let code = error.source().and_then(value_code).unwrap_or(Code::InvalidArgument);
        Self { code, message: usage::sentence(error) }
    }

    /// Prints the line; returns the exit status.
    pub(crate) fn print(&self, format: Format) -> ExitCode {
        let line = match format {
            Format::Table => format!("holdfast: {}: {}", self.code, one_line(&self.message)),
            Format::Json => {
                let error = json!({ "code": self.code.as_str(), "message": self.message });
                json!({ "error": error }).to_string()
            }
        };
        // Without a standard error there is nobody to tell; the exit status remains.
        drop(io::Write::write_all(&mut io::stderr().lock(), format!("{line}\n").as_bytes()));
        ExitCode::from(exit_status(self.code))
    }
}

fn value_code(source: &(dyn Error + 'static)) -> Option<Code> {
    let name = source.downcast_ref().map(NameError::code);
    let size = || source.downcast_ref().map(SizeError::code);
    let volume = || source.downcast_ref().map(VolumeError::code);
    let value = || source.downcast_ref().map(ValueError::code);
    let address = || source.downcast_ref().map(AddressError::code);
    name.or_else(size).or_else(volume).or_else(value).or_else(address)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn usage(line: &str) -> Report {
        Report::of_usage(&Cli::try_parse_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn malformed_values_have_their_own_codes() {
        assert_eq!(usage("holdfast show Web_1").code, Code::InvalidName);
        assert_eq!(usage("holdfast create web --image i --disk 1GB").code, Code::InvalidSize);
        assert_eq!(usage("holdfast create web --image i --cpus x").code, Code::InvalidSize);
        assert_eq!(usage("holdfast --timeout 5 ls").code, Code::InvalidArgument);
        assert_eq!(usage("holdfast --address nowhere ls").code, Code::InvalidArgument);
        assert_eq!(usage("holdfast frobnicate").code, Code::InvalidArgument);
    }

    #[test]
    fn usage_errors_are_one_line_without_the_usage() {
        let missing = usage("holdfast create web");
        assert_eq!(
            missing.message,
            "the following required arguments were not provided: --image <IMAGE>"
        );
        assert!(usage("holdfast").message.contains("--help"));
    }

    #[test]
    fn causes_are_told_on_the_same_line() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let report = Report::of(&CliError::Read { what: "rootfs.tar".into(), source });
        assert_eq!(report.message, "cannot read rootfs.tar: entity not found");
    }

    #[test]
    fn classes_of_codes_share_an_exit_status() {
        let of = |codes: &[Code]| codes.iter().map(|c| exit_status(*c)).collect::<Vec<_>>();
        assert_eq!(of(&[Code::InvalidName, Code::Config]), [2, 2]);
        assert_eq!(of(&[Code::NotFound, Code::NoQuorum, Code::Unavailable]), [3, 4, 4]);
        assert_eq!(of(&[Code::AlreadyExists, Code::PoolFull, Code::Timeout]), [5, 6, 7]);
        let members = [Code::WrongCluster, Code::Superseded, Code::FeatureLevel, Code::NodeRemoved];
        assert_eq!(of(&members), [5; 4]);
        assert!(Code::ALL.iter().all(|c| exit_status(*c) != 0));
    }
}
