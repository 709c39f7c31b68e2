//! What a plan consists of.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use holdfast_types::ByteSize;

use super::Name;

/// What will be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nothing to do: none.
    pub steps: Vec<Step>,
    /// The devices that carry an account of a group that it changes.
    pub devices: BTreeSet<PathBuf>,
}

/// One change. Its `Display` is a line for people, which goes on after "will".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Erases every signature on a device.
    Wipe {
        /// Which device.
        device: PathBuf,
        /// What is destroyed.
        signatures: String,
    },
    /// Makes a volume group.
    MakeGroup {
        /// Its name.
        group: Name,
        /// What it is made of.
        devices: Vec<PathBuf>,
    },
    /// Takes devices into a group.
    AddDevices {
        /// The group.
        group: Name,
        /// The devices.
        devices: Vec<PathBuf>,
    },
    /// Removes a volume that was being made when an interruption came. It holds nothing yet.
    RemoveUnfinished {
        /// The group.
        group: Name,
        /// The volume.
        name: Name,
    },
    /// Makes the catalog's volume.
    MakeCatalog {
        /// The group.
        group: Name,
        /// Its size.
        size: ByteSize,
    },
    /// Makes the catalog's filesystem.
    FormatCatalog {
        /// The group.
        group: Name,
    },
    /// Makes the thin pool.
    MakePool {
        /// The group.
        group: Name,
        /// Its name.
        name: Name,
        /// Room for content.
        data: ByteSize,
        /// Room for saying where it is.
        metadata: ByteSize,
    },
    /// Makes the thin volume that nothing uses, which completes a pool.
    MakeAnchor {
        /// The group.
        group: Name,
        /// The thin pool.
        name: Name,
    },
    /// Keeps new extents off a device that is to be emptied.
    StopAllocation {
        /// The group.
        group: Name,
        /// The device.
        device: PathBuf,
    },
    /// Lets new extents be taken of a device again.
    AllowAllocation {
        /// The group.
        group: Name,
        /// The device.
        device: PathBuf,
    },
    /// Moves everything off a device, while it is used.
    Move {
        /// The group.
        group: Name,
        /// The device.
        device: PathBuf,
        /// How much is on it.
        size: ByteSize,
        /// Whether it was begun before.
        begun: bool,
    },
    /// Gives a device up.
    RemoveDevice {
        /// The group.
        group: Name,
        /// The device.
        device: PathBuf,
    },
    /// Makes a thin pool's metadata larger, and its spare.
    GrowMetadata {
        /// The group.
        group: Name,
        /// The thin pool.
        name: Name,
        /// From how much.
        now: ByteSize,
        /// To how much.
        size: ByteSize,
    },
    /// Makes the catalog larger, its volume and then its filesystem, in use as it is.
    GrowCatalog {
        /// The group.
        group: Name,
        /// From how much: the same, if only the filesystem has yet to follow.
        now: ByteSize,
        /// To how much.
        size: ByteSize,
        /// Where its filesystem is mounted.
        mountpoint: PathBuf,
    },
    /// Makes a thin pool's data larger.
    GrowData {
        /// The group.
        group: Name,
        /// The thin pool.
        name: Name,
        /// From how much.
        now: ByteSize,
        /// To how much.
        size: ByteSize,
    },
    /// Makes a group of its own of some devices.
    Split {
        /// The group.
        group: Name,
        /// The devices.
        devices: Vec<PathBuf>,
        /// The new group.
        into: Name,
    },
    /// Writes down in a group which devices another has that is merged into it.
    MarkMerge {
        /// The group that stays.
        group: Name,
        /// The one that will be no more.
        from: Name,
        /// What it is tagged with.
        tags: Vec<String>,
        /// The tags that it loses: of another group, which had that name before.
        stale: Vec<String>,
    },
    /// Forgets that a group of that name was merged, before there is one again.
    UnmarkMerge {
        /// The group.
        group: Name,
        /// The one that was merged into it.
        from: Name,
        /// The tags that it loses.
        tags: Vec<String>,
    },
    /// Takes a group into another.
    Merge {
        /// The group that stays.
        group: Name,
        /// The one that is no more.
        from: Name,
    },
    /// Has a device back that its group went without for a while.
    RestoreDevice {
        /// The group.
        group: Name,
        /// The device.
        device: String,
    },
    /// Gives up the spare room for repairs, which was on a missing device: the next growth of the
    /// metadata, or repair, makes another. LVM gives no device up while a volume on it is left, and
    /// even when forced passes by one that is hidden; but to remove a volume by its name is one of
    /// the few changes that it makes to a group that lacks devices.
    RemoveSpare {
        /// The group.
        group: Name,
        /// The spare.
        name: String,
    },
    /// Goes on without missing devices, on which nothing was.
    ForgetMissing {
        /// The group.
        group: Name,
        /// How many.
        count: usize,
    },
    /// Takes a thin pool out of use, with all that is in it.
    Deactivate {
        /// The group.
        group: Name,
        /// The thin pool.
        name: Name,
        /// The volumes of LVM in it.
        volumes: Vec<String>,
        /// The devices of Holdfast's volumes in it, which nobody has open.
        mapped: Vec<String>,
    },
    /// Checks an inactive pool's metadata, and repairs it if that is needed.
    Mend {
        /// The group.
        group: Name,
        /// The thin pool.
        name: Name,
    },
}

impl Plan {
    /// Whether the pool is in nobody's use while this is done.
    pub fn takes_out_of_use(&self) -> bool {
        let offline = |step: &Step| matches!(step, Step::Deactivate { .. } | Step::Mend { .. });
        self.steps.iter().any(offline)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wipe { device, signatures } => {
                write!(f, "erase what {} carries: {signatures}", device.display())
            }
            Self::MakeGroup { group, devices } => {
                write!(f, "make the volume group {group} of {}", list(devices))
            }
            Self::AddDevices { group, devices } => {
                write!(f, "take {} into the volume group {group}", list(devices))
            }
            Self::RemoveUnfinished { group, name } => {
                write!(f, "remove {group}/{name}, which an interruption left unfinished")
            }
            Self::MakeCatalog { group, size } => {
                write!(f, "make {group}/{}, {size}", super::CATALOG)
            }
            Self::FormatCatalog { group } => {
                write!(f, "make a filesystem in {group}/{}", super::CATALOG)
            }
            Self::MakePool { group, name, data, metadata } => {
                write!(f, "make the thin pool {group}/{name}, {data} with {metadata} of metadata")
            }
            Self::MakeAnchor { group, name } => {
                let anchor = super::ANCHOR;
                write!(f, "make {group}/{anchor} in {name}, a thin volume that keeps it in use")
            }
            Self::StopAllocation { device, .. } => {
                write!(f, "take nothing new of {}", device.display())
            }
            Self::AllowAllocation { device, .. } => {
                write!(f, "take of {} again", device.display())
            }
            Self::Move { device, size, begun, group } => {
                let (verb, device) =
                    (if *begun { "go on moving" } else { "move" }, device.display());
                write!(
                    f,
                    "{verb} {size} off {device}, to other devices of {group}, in use as it is"
                )
            }
            Self::RemoveDevice { group, device } => {
                write!(f, "give {} up, out of the volume group {group}", device.display())
            }
            Self::GrowMetadata { group, name, now, size } => {
                write!(f, "grow the metadata of {group}/{name} from {now} to {size}, and its spare")
            }
            Self::GrowCatalog { group, now, size, .. } => {
                write!(f, "grow {group}/{} from {now} to {size}, in use as it is", super::CATALOG)
            }
            Self::GrowData { group, name, now, size } => {
                write!(f, "grow the data of {group}/{name} from {now} to {size}")
            }
            Self::Split { group, devices, into } => {
                write!(f, "split {} off {group}, into a volume group {into}", list(devices))
            }
            Self::MarkMerge { group, from, .. } => {
                write!(f, "tag the volume group {group}, so that merging {from} can be resumed")
            }
            Self::UnmarkMerge { group, from, .. } => {
                write!(f, "take the tags of the merge of {from} off the volume group {group}")
            }
            Self::Merge { group, from } => {
                write!(f, "merge the volume group {from} into {group}, and be rid of its name")
            }
            Self::RestoreDevice { group, device } => {
                write!(f, "have {device} back in the volume group {group}")
            }
            Self::RemoveSpare { group, name } => {
                write!(f, "remove {group}/{name}, LVM's spare for repairs, whose device is missing")
            }
            Self::ForgetMissing { group, count } => {
                write!(f, "take {count} missing devices, which held nothing, out of {group}")
            }
            Self::Deactivate { group, name, volumes, mapped } => {
                let others: Vec<&str> = volumes.iter().chain(mapped).map(String::as_str).collect();
                match others.is_empty() {
                    true => write!(f, "take {group}/{name} out of use"),
                    false => {
                        write!(f, "take {group}/{name} out of use, with {}", others.join(", "))
                    }
                }
            }
            Self::Mend { group, name } => {
                write!(
                    f,
                    "check the metadata of {group}/{name}, and repair it if it is damaged; "
                )?;
                write!(f, "what is damaged is kept, as {group}/{name}_meta0 or another number")
            }
        }
    }
}

fn list(devices: &[PathBuf]) -> String {
    devices.iter().map(|device| device.display().to_string()).collect::<Vec<_>>().join(", ")
}
