//! Doing what was planned.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::look::lvm;
use super::{ANCHOR, CATALOG, GROWING, MAKING, Name, OURS, Plan, Step};
use crate::lvm::Dm;
use crate::{Error, Result, fsys, wait};

/// A changing command takes tens of milliseconds on a quiet machine, and activation checks all of a
/// pool's metadata. To kill one is the last resort: LVM's and the pool's account could part.
const TIME: Duration = Duration::from_secs(3600);
/// A disk of many TiB takes days; a move that stands still is seen by its progress.
const MOVE_TIME: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long udev may take to make a volume's node.
const NODE_TIME: Duration = Duration::from_secs(10);

const CHUNK: &str = "64k";

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The step of that index begins.
    Begun(usize),
    /// It has come so far, in percent.
    Part(usize, u8),
    /// It is done.
    Done(usize),
}

/// Does the steps of a plan, one after the other, and says so. After an error, or when it is
/// interrupted, the same request is planned anew and has what was done behind it.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    for (at, step) in plan.steps.iter().enumerate() {
        progress(Progress::Begun(at));
        step.run(&mut |percent| progress(Progress::Part(at, percent)))?;
        plan.devices.iter().try_for_each(|device| flush(device))?;
        progress(Progress::Done(at));
    }
    Ok(())
}

/// Makes LVM's account of what was done durable: it writes past the page cache, and flushes no
/// device's own.
fn flush(device: &Path) -> Result<()> {
    match File::open(device).and_then(|file| file.sync_all()) {
        // It was removed, or is missing and to be forgotten.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("flushing", device)),
    }
}

impl Step {
    fn run(&self, part: &mut dyn FnMut(u8)) -> Result<()> {
        match self {
            Self::Wipe { device, .. } => {
                wait::run(Command::new("wipefs").args(["-q", "-a"]).arg(device), TIME).map(drop)
            }
            // Without -y: a signature that was not there when it was planned is not overwritten.
            Self::MakeGroup { group, devices } => {
                change(lvm(["vgcreate", "-qq", "--addtag", OURS, group.as_str()]).args(devices))
            }
            Self::AddDevices { group, devices } => {
                change(lvm(["vgextend", "-qq", group.as_str()]).args(devices))
            }
            Self::RemoveUnfinished { group, name } => {
                change(&mut lvm(["lvremove", "-qq", "-y", &path(group, name.as_str())]))
            }
            Self::MakeCatalog { group, size } => {
                let size = format!("{}b", size.bytes());
                let what = ["-Wy", "-L", &size, "-n", CATALOG, group.as_str()];
                make(&what)
            }
            Self::FormatCatalog { group } => {
                change(&mut lvm(["lvchange", "-qq", "-ay", "-y", &path(group, CATALOG)]))?;
                fsys::mkfs_for_notes(&node(group, CATALOG)?)?;
                finish(group, CATALOG)
            }
            Self::MakePool { group, name, data, metadata } => {
                let data = format!("{}b", data.bytes());
                let metadata = format!("{}b", metadata.bytes());
                let size = ["-L", &data, "--poolmetadatasize", &metadata];
                let kind = ["--type", "thin-pool", "-c", CHUNK, "-Zy"];
                let what = ["-n", name.as_str(), group.as_str()];
                make(&[&size[..], &kind, &what].concat())?;
                finish(group, name.as_str())
            }
            Self::MakeAnchor { group, name } => {
                let what = ["-V", "4m", "--thinpool", name.as_str(), "-n", ANCHOR, group.as_str()];
                change(lvm(["lvcreate", "-qq", "-y"]).args(what))
            }
            Self::StopAllocation { device, .. } => {
                change(lvm(["pvchange", "-qq", "-xn"]).arg(device))
            }
            Self::AllowAllocation { device, .. } => {
                change(lvm(["pvchange", "-qq", "-xy"]).arg(device))
            }
            Self::Move { device, .. } => evacuate(device, part),
            Self::RemoveDevice { group, device } => {
                change(lvm(["vgreduce", "-qq", group.as_str()]).arg(device))?;
                change(lvm(["pvremove", "-qq"]).arg(device))
            }
            Self::GrowMetadata { group, name, size, .. } => {
                let size = format!("{}b", size.bytes());
                let pool = path(group, name.as_str());
                change(&mut lvm(["lvextend", "-qq", "--poolmetadatasize", &size, &pool]))
            }
            Self::GrowCatalog { group, now, size, mountpoint } => {
                let (catalog, bytes) = (path(group, CATALOG), format!("{}b", size.bytes()));
                if now < size {
                    change(&mut lvm(["lvchange", "-qq", "--addtag", GROWING, &catalog]))?;
                    change(&mut lvm(["lvextend", "-qq", "-L", &bytes, &catalog]))?;
                }
                fsys::grow_mounted(&node(group, CATALOG)?, mountpoint)?;
                change(&mut lvm(["lvchange", "-qq", "--deltag", GROWING, &catalog]))
            }
            Self::GrowData { group, name, size, .. } => {
                let size = format!("{}b", size.bytes());
                let pool = path(group, name.as_str());
                change(&mut lvm(["lvextend", "-qq", "-L", &size, &pool]))
            }
            Self::Split { group, devices, into } => {
                change(lvm(["vgsplit", "-qq", group.as_str(), into.as_str()]).args(devices))
            }
            Self::MarkMerge { group, tags, stale, .. } => retag(group, tags, stale),
            Self::UnmarkMerge { group, tags, .. } => retag(group, &[], tags),
            Self::Merge { group, from } => {
                change(&mut lvm(["vgmerge", "-qq", group.as_str(), from.as_str()]))
            }
            Self::RestoreDevice { group, device } => {
                let what = ["vgextend", "-qq", "--restoremissing", group.as_str(), device];
                change(&mut lvm(what))
            }
            Self::RemoveSpare { group, name } => {
                change(&mut lvm(["lvremove", "-qq", "-y", &path(group, name)]))
            }
            Self::ForgetMissing { group, .. } => {
                change(&mut lvm(["vgreduce", "-qq", "--removemissing", group.as_str()]))
            }
            Self::Deactivate { group, name, volumes, mapped } => {
                let dm = Dm::open().map_err(Error::io("opening", "/dev/mapper/control"))?;
                for device in mapped {
                    dm.remove(device).map_err(Error::io("removing", device))?;
                }
                for volume in volumes {
                    change(&mut lvm(["lvchange", "-qq", "-an", &path(group, volume)]))?;
                }
                change(&mut lvm(["lvchange", "-qq", "-an", &path(group, name.as_str())]))
            }
            Self::Mend { group, name } => mend(&path(group, name.as_str())),
        }
    }
}

/// Activation checks the metadata, and fails where it is damaged; the kernel may find more when it
/// reads it. Only then is it repaired.
fn mend(pool: &str) -> Result<()> {
    let activate = || change(&mut lvm(["lvchange", "-qq", "-ay", pool]));
    let is_sound = || {
        let fields = ["--noheadings", "-o", "lv_check_needed,lv_health_status", pool];
        let said = wait::run(lvm(["lvs"]).args(fields), TIME)?;
        Ok::<_, Error>(said.trim().is_empty())
    };
    if activate().is_ok() {
        if is_sound()? {
            return Ok(());
        }
        change(&mut lvm(["lvchange", "-qq", "-an", pool]))?;
    }
    change(&mut lvm(["lvconvert", "-qq", "-y", "--repair", pool]))?;
    activate()
}

/// Moves everything off a device. LVM goes on with a move that was begun, but with nothing else: so
/// it is asked until nothing is left.
fn evacuate(device: &Path, part: &mut dyn FnMut(u8)) -> Result<()> {
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        let said = |line: &str| {
            // "  /dev/sdb: Moved: 12.90%"
            let percent = line.rsplit(' ').next()?.strip_suffix('%')?;
            percent.split('.').next()?.parse::<u8>().ok()
        };
        let mut pvmove = lvm(["pvmove", "-i", "1"]);
        let moved = wait::run_telling(pvmove.arg(device), MOVE_TIME, &mut |line| {
            said(line).into_iter().for_each(&mut *part);
        });
        let mut left = lvm(["pvs", "--noheadings", "-o", "pv_pe_alloc_count"]);
        if wait::run(left.arg(device), TIME)?.trim() == "0" {
            // What an earlier command has moved to the end meanwhile fails this one.
            return Ok(());
        }
        moved?;
    }
    Err(Error::InUse(format!("{}, which is filled as it is emptied,", device.display())))
}

/// Makes a volume that is unfinished until [`finish`].
fn make(arguments: &[&str]) -> Result<()> {
    change(lvm(["lvcreate", "-qq", "-y", "--addtag", MAKING]).args(arguments))
}

fn finish(group: &Name, name: &str) -> Result<()> {
    change(&mut lvm(["lvchange", "-qq", "--deltag", MAKING, &path(group, name)]))
}

/// Gives a group tags and takes others off, in one change.
fn retag(group: &Name, new: &[String], old: &[String]) -> Result<()> {
    let mut vgchange = lvm(["vgchange", "-qq"]);
    for tag in old {
        vgchange.args(["--deltag", tag]);
    }
    for tag in new {
        vgchange.args(["--addtag", tag]);
    }
    change(vgchange.arg(group.as_str()))
}

fn change(command: &mut Command) -> Result<()> {
    wait::run(command, TIME).map(drop)
}

fn path(group: &Name, name: &str) -> String {
    format!("{group}/{name}")
}

/// A volume's node, which udev makes.
fn node(group: &Name, name: &str) -> Result<PathBuf> {
    let node = Path::new("/dev").join(group.as_str()).join(name);
    match wait::until(NODE_TIME, || node.exists()) {
        true => Ok(node),
        false => Err(Error::Timeout(node.display().to_string())),
    }
}
