//! Running other programs.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The cargo that runs us, at the workspace root.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// Runs a [`cargo`] command with its output passed on; fails unless it succeeds.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let name = format!("cargo {}", args.join(" "));
    let status = command.status().with_context(|| format!("running {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}
