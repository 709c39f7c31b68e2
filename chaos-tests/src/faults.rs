//! Harm that takes more than one call.

use std::time::Duration;

use holdfast_lab::{LabError, Part};

use crate::rig::Rig;

/// The program that holds a filesystem frozen for the instant of a snapshot.
const FREEZER: &str = "holdfast-freeze";
/// While it holds it, it waits in poll(2) or ppoll(2) for its parent's word.
#[cfg(target_arch = "x86_64")]
const WAITS_IN: &[&str] = &["7", "271"];
#[cfg(not(target_arch = "x86_64"))]
const WAITS_IN: &[&str] = &["73"];
/// Longer than the replication's interval: a freeze comes within it.
const FREEZE_LIMIT: Duration = Duration::from_secs(30);

/// What dies while a filesystem is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The daemon alone: its helper lives on and thaws.
    Daemon,
    /// The daemon and its helper: nobody is left who would thaw.
    DaemonAndHelper,
}

/// Kills the node's daemon while it has a filesystem frozen: its helper is caught holding it, and
/// does not get to let go before the daemon is dead.
pub fn die_in_mid_freeze(rig: &Rig, victim: Victim) -> Result<(), LabError> {
    let (lab, node) = (rig.lab(), rig.node());
    let helper = lab.catch(node, Part::Daemon, (FREEZER, WAITS_IN), FREEZE_LIMIT)?;
    match victim {
        Victim::Daemon => {
            lab.crash(node, Part::Daemon)?;
            lab.let_go(helper)
        }
        Victim::DaemonAndHelper => lab.crash_whole(node, Part::Daemon),
    }
}
