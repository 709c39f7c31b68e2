//! How LXC's programs get below the guardian.

use std::ffi::OsString;
use std::path::PathBuf;

use holdfast_fence::{ChildPath, enter_command, find_unified};
use holdfast_runtime::RuntimeError;
use holdfast_runtime::lxc::Enter;
use holdfast_types::ContainerUid;

use crate::config::AgentConfig;
use crate::guardian::Guardian;

/// Enters the namespaces of the guardian that is there now.
pub struct GuardedEnter {
    guardian: Guardian,
    binary: PathBuf,
    cgroup_root: String,
}

impl GuardedEnter {
    /// For the guardian that this agent will use.
    pub fn new(config: &AgentConfig) -> Self {
        Self {
            guardian: Guardian::new(config.guardian_socket.clone()),
            binary: config.guardian_binary.clone(),
            cgroup_root: config.cgroup_root.clone(),
        }
    }
}

impl Enter for GuardedEnter {
    fn prefix(&self, _uid: ContainerUid, leaf: &str) -> Result<Vec<OsString>, RuntimeError> {
        let refused = RuntimeError::Guardian;
        let status = self.guardian.status_blocking().map_err(|e| refused(e.to_string()))?;
        let no_cgroup2 = || refused("no cgroup2 hierarchy is mounted".to_owned());
        let unified = find_unified().ok_or_else(no_cgroup2)?;
        let ancestor = unified.join(&self.cgroup_root).join("protected");
        let child: ChildPath =
            leaf.parse().map_err(|_| refused(format!("{leaf:?} is no cgroup")))?;
        let command = enter_command(&self.binary, status.init_pid, &ancestor, &child, "");
        let program = command.get_program().to_owned();
        let args = command.get_args().map(OsString::from);
        let mut prefix: Vec<OsString> = std::iter::once(program).chain(args).collect();
        // The program itself follows from the caller.
        prefix.pop();
        Ok(prefix)
    }
}
