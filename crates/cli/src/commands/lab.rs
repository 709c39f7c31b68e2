//! `holdfast lab`: hands over to `holdfast-lab`, which needs root and much that a client does not.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::error::CliError;

const PROGRAM: &str = "holdfast-lab";

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Lab {
    /// What holdfast-lab is given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

impl Lab {
    /// Becomes `holdfast-lab`; returns only if that fails.
    pub(crate) fn run(self) -> Result<(), CliError> {
        become_program(PROGRAM, self.args)
    }
}

/// Becomes another program of Holdfast's; returns only if that fails.
pub(crate) fn become_program(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<(), CliError> {
    let program = find(name).ok_or(CliError::MissingTool { program: name })?;
    let source = Command::new(&program).args(args).exec();
    Err(CliError::Run { program, source })
}

/// Beside this program, else in `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = own.into_iter().chain(env::split_paths(&path));
    dirs.map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}
