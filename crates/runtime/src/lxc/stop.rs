//! Stopping and killing a container.
//!
//! Nothing here runs a program, so nothing hangs on a frozen tree: init is signalled directly, the
//! payload is killed through `cgroup.kill`, which reaches frozen tasks too (cgroups(7)).
//!
//! ```text
//! running ──ask──▶ shutting down ──ends──▶ clean
//!    │                  │ grace over
//!    └──deaf, frozen────┴──▶ payload killed ──▶ monitor clears up, or is killed ──▶ killed
//! ```

use std::time::{Duration, Instant};

use holdfast_types::ContainerUid;

use super::driver::{LxcRuntime, SIDES, init_pid};
use super::groups::Groups;
use super::init::{self, Asked};
use crate::{RuntimeError, Status, Stopped};

/// How long the monitor may take to give the network link back and remove its cgroups.
const MONITOR_GRACE: Duration = Duration::from_secs(2);

/// How long killed tasks may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

impl LxcRuntime {
    pub(super) fn stop_container(
        &self,
        uid: ContainerUid,
        grace: Duration,
    ) -> Result<Stopped, RuntimeError> {
        if let Some((groups, status)) = self.running(uid)?
            && ask_and_wait(&groups, status, grace)?
        {
            self.remove_groups(uid)?;
            return Ok(Stopped::Clean);
        }
        self.kill_container(uid)
    }

    pub(super) fn kill_container(&self, uid: ContainerUid) -> Result<Stopped, RuntimeError> {
        let mut killed = false;
        for protection in SIDES {
            let groups = self.groups(protection, uid);
            if let Status::Running { frozen, .. } = groups.status()? {
                kill_groups(uid, &groups, frozen)?;
                killed = true;
            } else {
                // A helper of a start that was cut short may be there without a container.
                groups.kill_monitor()?;
            }
        }
        self.remove_groups(uid)?;
        Ok(if killed { Stopped::Killed } else { Stopped::NotRunning })
    }

    fn remove_groups(&self, uid: ContainerUid) -> Result<(), RuntimeError> {
        for protection in SIDES {
            self.groups(protection, uid).remove()?;
        }
        Ok(())
    }
}

/// True if everything ended within the grace.
fn ask_and_wait(
    groups: &Groups<'_>,
    status: Status,
    grace: Duration,
) -> Result<bool, RuntimeError> {
    if let Status::Running { frozen: true, .. } = status {
        if !groups.own_freeze()? {
            return Ok(false);
        }
        groups.set_freeze(false)?;
    }
    let until = Instant::now() + grace;
    if let Some(pid) = init_pid(groups)
        && init::ask_to_stop(pid)? == Asked::Deaf
    {
        return Ok(false);
    }
    if !groups.wait_payload_empty(grace)? {
        return Ok(false);
    }
    let left = until.saturating_duration_since(Instant::now());
    groups.wait_empty(left.max(MONITOR_GRACE))
}

fn kill_groups(uid: ContainerUid, groups: &Groups<'_>, frozen: bool) -> Result<(), RuntimeError> {
    groups.kill_payload()?;
    // A monitor that is not frozen clears up by itself once init is gone.
    if frozen || !groups.wait_empty(MONITOR_GRACE)? {
        groups.kill_payload()?;
        groups.kill_monitor()?;
        if !groups.wait_empty(KILL_TIMEOUT)? {
            let after_ms = u64::try_from(KILL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            return Err(RuntimeError::Unkillable { uid, after_ms });
        }
    }
    Ok(())
}
