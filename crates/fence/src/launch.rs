//! How callers start programs under the fence.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::ChildPath;

/// A command that runs `program` below the ancestor cgroup and inside the protected pid and mount
/// namespaces: `GUARDIAN enter --caller … --init-pid … --ancestor … --child … -- PROGRAM`. This
/// process must start it, and be there until the program runs. Add the program's arguments to it;
/// stdio, environment and exit status are the program's (128 + signal if one ended it).
///
/// While everything is fenced the program hangs, as everything below the ancestor does: give the
/// command a deadline and SIGKILL it at that; the program dies with it, frozen or not.
pub fn enter_command(
    guardian: &Path,
    init_pid: i32,
    ancestor: &Path,
    child: &ChildPath,
    program: impl AsRef<OsStr>,
) -> Command {
    let mut command = Command::new(guardian);
    command.arg("enter").arg("--caller").arg(std::process::id().to_string());
    command.arg("--init-pid").arg(init_pid.to_string());
    command.arg("--ancestor").arg(ancestor).arg("--child").arg(child.as_str());
    command.arg("--").arg(program);
    command
}
