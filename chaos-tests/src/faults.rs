//! Harm that takes more than one call.

use std::time::Duration;

use holdfast_lab::{LabError, Part};

use crate::rig::Rig;

/// The program that holds a filesystem frozen for the instant of a snapshot.
const FREEZER: &str = "holdfast-freeze";
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

/// Kills the node's daemon while it has a filesystem frozen.
pub fn die_in_mid_freeze(rig: &Rig, victim: Victim) -> Result<(), LabError> {
    let (lab, node) = (rig.lab(), rig.node());
    lab.catch(node, Part::Daemon, FREEZER, FREEZE_LIMIT)?;
    match victim {
        Victim::Daemon => lab.crash(node, Part::Daemon),
        Victim::DaemonAndHelper => lab.crash_whole(node, Part::Daemon),
    }
}
