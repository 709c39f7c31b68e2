//! Taking a lab down: all that carries its name goes, and nothing else. Works from any state,
//! also without a record, and may be run again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use holdfast_cli::client::ADDRESS_FILE;

use crate::LabError;
use crate::layout::{DEFAULT_LAB, Layout};
use crate::pace::Pace;
use crate::plumbing::cgroup::Hierarchies;
use crate::plumbing::{fabric, loops, lvm, mounts};
use crate::power::CUT_LIMIT;
use crate::record::LabRecord;

/// Removes processes, then devices, then the network, then cgroups, then files: each can only go
/// when the one before it has.
pub(crate) fn remove(layout: &Layout) -> Result<(), LabError> {
    let recorded = LabRecord::load(layout).ok();
    let limit = recorded.as_ref().map_or(Pace::default(), |r| r.pace).of(CUT_LIMIT);
    let recorded = recorded.map(|r| Layout::new(layout.name(), Some(&r.dir))).transpose()?;
    let hierarchies = Hierarchies::discover()?;
    hierarchies.kill(&layout.cgroup(), limit)?;
    for at in recorded.iter().chain([layout]).filter(|l| is_ours(l)) {
        mounts::clear_below(at.dir())?;
        loops::release(at.dir(), limit)?;
    }
    lvm::destroy(layout, limit)?;
    fabric::destroy(layout)?;
    hierarchies.remove(&layout.cgroup())?;
    for at in recorded.iter().chain([layout]).filter(|l| is_ours(l)) {
        remove_dir(at.dir())?;
    }
    if layout.name() == DEFAULT_LAB {
        remove_address_file(layout)?;
    }
    mounts::clear_below(&layout.run_dir())?;
    remove_dir(&layout.run_dir())
}

/// Whether the directory has the mark of the lab that bears this name.
fn is_ours(layout: &Layout) -> bool {
    fs::read_to_string(layout.marker()).is_ok_and(|name| name == layout.name())
}

/// The client's address list is removed only if it still leads to this lab.
fn remove_address_file(layout: &Layout) -> Result<(), LabError> {
    let path = Path::new(ADDRESS_FILE);
    let run_dir = layout.run_dir().display().to_string();
    if !fs::read_to_string(path).is_ok_and(|text| text.contains(&run_dir)) {
        return Ok(());
    }
    fs::remove_file(path).map_err(LabError::io("cannot remove", path))?;
    // Others may have put something there: then it stays.
    let _ = path.parent().map(fs::remove_dir);
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(LabError::io("cannot remove", dir)(e)),
        _ => Ok(()),
    }
}
