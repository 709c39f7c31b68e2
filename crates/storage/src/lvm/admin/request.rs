//! What an operator asks for.

use std::path::PathBuf;

use super::{Name, THIN_POOL};

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

    /// Every device that it names.
    pub(super) fn devices(&self) -> Vec<&PathBuf> {
        match &self.change {
            Change::Create { place: Place::Devices(devices), wipe } => {
                devices.iter().chain(wipe).collect()
            }
            Change::Create { .. } => Vec::new(),
        }
    }
}

impl Name {
    /// What a thin pool of ours is called.
    fn thin_pool() -> Self {
        Self::ours(THIN_POOL)
    }
}
