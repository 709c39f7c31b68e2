//! Why a pool is not changed as asked. Nothing was done.

use std::path::PathBuf;

use holdfast_types::{ByteSize, Code};

use super::Name;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// LVM has no such names.
    #[error(
        "{name:?} is no name for a volume group or volume: up to 60 of a-z, A-Z, 0-9, +, _, . and -, and no - in front"
    )]
    BadName {
        /// The name as given, cut to 80 characters.
        name: String,
    },
    /// Not a path of a block device.
    #[error("{device} is no block device: name one by its path, such as /dev/sdb")]
    NoDevice {
        /// As it was named.
        device: PathBuf,
    },
    /// One device, named twice.
    #[error("{device} is named twice")]
    Twice {
        /// As it was named the second time.
        device: PathBuf,
    },
    /// No device was named.
    #[error("no device is named")]
    NoDevices,
    /// A device carries something.
    #[error("{device} is not empty, it carries {signatures}: --wipe {device} destroys that")]
    NotEmpty {
        /// Which device.
        device: PathBuf,
        /// The signatures on it.
        signatures: String,
    },
    /// A device is mounted, swapped to, or part of another device.
    #[error("{device} is in use: {users}")]
    Busy {
        /// Which device.
        device: PathBuf,
        /// By what.
        users: String,
    },
    /// A device takes no writes, is no whole block device, or too small.
    #[error("{device} cannot be used: {reason}")]
    DeviceUnfit {
        /// Which device.
        device: PathBuf,
        /// Why not.
        reason: String,
    },
    /// `--wipe` names a device that the request does not take.
    #[error("--wipe names {device}, which is not one of the devices to be taken")]
    WipesAnother {
        /// Which device.
        device: PathBuf,
    },
    /// There is no such volume group.
    #[error("there is no volume group {group}: vgs lists them")]
    NoGroup {
        /// Its name.
        group: Name,
    },
    /// A volume group of that name is there already.
    #[error(
        "there is a volume group {group} already: --vg {group} uses it, or choose another name"
    )]
    GroupTaken {
        /// Its name.
        group: Name,
    },
    /// A volume group cannot be used as it is.
    #[error("the volume group {group} cannot be used: {reason}")]
    GroupUnfit {
        /// Its name.
        group: String,
        /// Why not, and the cure.
        reason: String,
    },
    /// A volume group lacks devices.
    #[error(
        "the volume group {group} lacks devices (physical volumes {}): bring them back, then holdfast pool check",
        uuids.join(", ")
    )]
    Missing {
        /// Its name.
        group: Name,
        /// The missing physical volumes.
        uuids: Vec<String>,
    },
    /// Two devices carry the same physical volume.
    #[error(
        "{} carry the same physical volume {uuid}: take the copy away, or give it a new uuid (vgimportclone)",
        devices.join(" and ")
    )]
    Duplicate {
        /// The physical volume's uuid.
        uuid: String,
        /// The devices.
        devices: Vec<String>,
    },
    /// There is no such thin pool.
    #[error("the volume group {group} has no thin pool {name}: lvs {group} lists what it has")]
    NoPool {
        /// The group.
        group: Name,
        /// The name asked for.
        name: Name,
    },
    /// What is called the thin pool is none, or not as ours must be.
    #[error("{group}/{name} cannot be used as a thin pool: {reason}")]
    PoolUnfit {
        /// The group.
        group: Name,
        /// The volume's name.
        name: Name,
        /// Why not, and the cure.
        reason: String,
    },
    /// A thin pool's metadata must be checked or repaired first.
    #[error("the thin pool {group}/{name} is damaged ({state}): holdfast pool repair")]
    Damaged {
        /// The group.
        group: Name,
        /// The thin pool's name.
        name: Name,
        /// What LVM says of it.
        state: String,
    },
    /// A thin pool that has to be taken out of use is in use.
    #[error(
        "{group}/{name} cannot be repaired while volumes of it are in use ({}): stop this node's \
         containers, or restart the machine, and ask again", open.join(", ")
    )]
    PoolBusy {
        /// The group.
        group: Name,
        /// The thin pool.
        name: Name,
        /// The devices that are open.
        open: Vec<String>,
    },
    /// A volume group has not enough free extents.
    #[error("the volume group {group} has {free} free and {needed} are needed: add a device")]
    NoRoom {
        /// Its name.
        group: Name,
        /// What is free.
        free: ByteSize,
        /// What the change takes.
        needed: ByteSize,
    },
    /// A device is not one of the group's.
    #[error("{device} is no device of the volume group {group}: holdfast pool show lists them")]
    NotAMember {
        /// Which device.
        device: PathBuf,
        /// The group.
        group: Name,
    },
    /// A device still holds something.
    #[error("{device} holds {size} of {what}: holdfast pool evacuate-device {device} moves it off")]
    Holds {
        /// Which device.
        device: PathBuf,
        /// How much.
        size: ByteSize,
        /// Of which volumes.
        what: String,
    },
    /// A device is being evacuated, and nothing else changes meanwhile.
    #[error("{device} is being evacuated: holdfast pool evacuate-device {device} goes on with it")]
    Moving {
        /// Which device.
        device: String,
    },
    /// A group would have no device left.
    #[error("the volume group {group} has no other devices")]
    LastDevice {
        /// Its name.
        group: Name,
    },
    /// What was asked for is less than there is.
    #[error("the pool's {what} has {now}, and cannot be made smaller: a thin pool only grows")]
    Shrinks {
        /// Data or metadata.
        what: &'static str,
        /// Its size now.
        now: ByteSize,
    },
    /// More metadata than device-mapper takes.
    #[error("a thin pool's metadata has at most {most}")]
    TooMuchMetadata {
        /// The limit.
        most: ByteSize,
    },
    /// Missing devices held a part of the pool.
    #[error(
        "the missing devices hold {what}: bring them back, and ask again; if they are gone for good, \
         so is the pool, and the node's volumes come back from other nodes into a new one"
    )]
    Lost {
        /// Which volumes.
        what: String,
    },
    /// Missing devices held volumes of others, and nothing of the pool.
    #[error(
        "the missing devices of {group} hold {}, and none of them is the pool's: bring the devices \
         back, or give these volumes up (lvremove), and ask again", volumes.join(", ")
    )]
    OthersLost {
        /// The group.
        group: Name,
        /// Which volumes.
        volumes: Vec<String>,
    },
    /// A needed package is not installed.
    #[error("the package {tool} is not installed: apt install {tool}")]
    NoTool {
        /// The package.
        tool: &'static str,
    },
    /// A package is older than what was tried.
    #[error(
        "{tool} {} is too old, {} is the oldest that is used: upgrade the package",
        version(found),
        version(least)
    )]
    TooOld {
        /// The package.
        tool: &'static str,
        /// Its version here.
        found: [u32; 3],
        /// The oldest that is used.
        least: [u32; 3],
    },
}

impl Refusal {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::BadName { .. }
            | Self::NoDevice { .. }
            | Self::Twice { .. }
            | Self::NoDevices
            | Self::WipesAnother { .. } => Code::InvalidArgument,
            Self::NotEmpty { .. } => Code::DeviceNotEmpty,
            Self::Busy { .. } | Self::Moving { .. } | Self::PoolBusy { .. } => Code::InUse,
            Self::NotAMember { .. } => Code::NotFound,
            Self::Holds { .. } | Self::LastDevice { .. } => Code::WrongState,
            Self::Shrinks { .. } | Self::TooMuchMetadata { .. } => Code::InvalidSize,
            Self::DeviceUnfit { .. } | Self::GroupUnfit { .. } | Self::PoolUnfit { .. } => {
                Code::PoolUnusable
            }
            Self::NoGroup { .. } | Self::NoPool { .. } => Code::NotFound,
            Self::GroupTaken { .. } => Code::AlreadyExists,
            Self::Missing { .. } | Self::Lost { .. } | Self::OthersLost { .. } => {
                Code::DeviceMissing
            }
            Self::Duplicate { .. } => Code::DuplicateDevice,
            Self::Damaged { .. } => Code::PoolDamaged,
            Self::NoRoom { .. } => Code::GroupFull,
            Self::NoTool { .. } => Code::MissingTool,
            Self::TooOld { .. } => Code::ToolTooOld,
        }
    }
}

fn version(of: &[u32; 3]) -> String {
    of.map(|number| number.to_string()).join(".")
}
