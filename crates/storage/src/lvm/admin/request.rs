//! What an operator asks for.

use std::path::PathBuf;

use holdfast_types::ByteSize;

use super::{ANCHOR, CATALOG, Name, THIN_POOL};

/// A change of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its volume group.
    pub group: Name,
    /// Its thin pool.
    pub thin_pool: Name,
    /// What is to be done.
    pub change: Change,
}

/// What is to be done to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make it.
    Create {
        /// Where.
        place: Place,
        /// Devices whose content may be destroyed.
        wipe: Vec<PathBuf>,
    },
    /// Take devices into its group.
    AddDevices {
        /// Which.
        devices: Vec<PathBuf>,
        /// Those whose content may be destroyed.
        wipe: Vec<PathBuf>,
    },
    /// Move what is on a device to the group's other devices, while it is used.
    Evacuate {
        /// Which.
        device: PathBuf,
    },
    /// Give a device up, on which nothing is.
    RemoveDevice {
        /// Which.
        device: PathBuf,
    },
    /// Make it larger: to these sizes, or to all that its group has but a reserve.
    Grow {
        /// Its data.
        data: Option<ByteSize>,
        /// Its metadata.
        metadata: Option<ByteSize>,
    },
    /// Make a group of its own of devices that hold nothing of the pool.
    Split {
        /// Which.
        devices: Vec<PathBuf>,
        /// The new group.
        into: Name,
    },
    /// Take another group, with all that is in it, into the pool's.
    Merge {
        /// Which.
        from: Name,
    },
    /// Mend what `check` finds and what can be mended.
    Repair,
}

/// Where a pool is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On these devices, in a group that is made of them.
    Devices(Vec<PathBuf>),
    /// In a group that is there, as a new thin pool.
    Group,
    /// In a group that is there, and in a thin pool of it that is there.
    ThinPool,
}

impl Request {
    /// A pool called `name`: a group of that name on `devices`.
    pub fn on_devices(name: Name, devices: Vec<PathBuf>, wipe: Vec<PathBuf>) -> Self {
        let change = Change::Create { place: Place::Devices(devices), wipe };
        Self { group: name, thin_pool: Name::thin_pool(), change }
    }

    /// A pool in a group that is there: in `thin_pool`, or in a new one.
    pub fn in_group(group: Name, thin_pool: Option<Name>) -> Self {
        let place = match thin_pool {
            Some(_) => Place::ThinPool,
            None => Place::Group,
        };
        let thin_pool = thin_pool.unwrap_or_else(Name::thin_pool);
        Self { group, thin_pool, change: Change::Create { place, wipe: Vec::new() } }
    }

    /// Whether the pool consists of that volume of its group: LVM keeps these endings for itself.
    pub(super) fn has_part(&self, volume: &str) -> bool {
        let rest = volume.strip_prefix(self.thin_pool.as_str());
        let inside = |rest: &str| rest.starts_with("_tdata") || rest.starts_with("_tmeta");
        [CATALOG, ANCHOR].contains(&volume) || rest.is_some_and(|r| r.is_empty() || inside(r))
    }

    /// The group that it changes beside the pool's.
    pub(super) fn other_group(&self) -> Option<&Name> {
        match &self.change {
            Change::Split { into: other, .. } | Change::Merge { from: other } => Some(other),
            _ => None,
        }
    }

    /// Every device that it names.
    pub(super) fn devices(&self) -> Vec<&PathBuf> {
        match &self.change {
            Change::Create { place: Place::Devices(devices), wipe } => {
                devices.iter().chain(wipe).collect()
            }
            Change::AddDevices { devices, wipe } => devices.iter().chain(wipe).collect(),
            Change::Evacuate { device } | Change::RemoveDevice { device } => vec![device],
            Change::Split { devices, .. } => devices.iter().collect(),
            Change::Create { .. } | Change::Grow { .. } | Change::Merge { .. } | Change::Repair => {
                Vec::new()
            }
        }
    }
}

impl Name {
    /// What a thin pool of ours is called.
    fn thin_pool() -> Self {
        Self::ours(THIN_POOL)
    }
}
