//! node-exec: puts itself into a service's cgroup and becomes the service.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::SigSet;

use crate::LabError;
use crate::plumbing::cgroup::Hierarchies;

/// Becomes `argv` in this cgroup. Comes back only with an error.
pub fn exec(cgroup: &str, oom_score_adj: i16, argv: &[OsString]) -> Result<(), LabError> {
    Hierarchies::discover()?.join(cgroup)?;
    // Lowering it needs CAP_SYS_RESOURCE, which root in a container may lack: a wish, no need.
    let _ = fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string());
    // Whoever made the lab may have blocked signals for itself: a service begins with none blocked.
    SigSet::all().thread_unblock().map_err(LabError::sys("cannot unblock signals"))?;
    let Some((program, args)) = argv.split_first() else { return Ok(()) };
    let error = Command::new(program).args(args).exec();
    Err(LabError::io("cannot run", Path::new(program))(error))
}
