//! What a plan consists of.

use std::fmt;
use std::path::PathBuf;

use holdfast_types::ByteSize;

use super::Name;

/// What will be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nothing to do: none.
    pub steps: Vec<Step>,
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
        }
    }
}

fn list(devices: &[PathBuf]) -> String {
    devices.iter().map(|device| device.display().to_string()).collect::<Vec<_>>().join(", ")
}
