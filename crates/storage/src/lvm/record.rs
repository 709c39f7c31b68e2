//! What a machine remembers of the pool that was made on it: which one it is. That it is still there,
//! and what is in it, is asked of LVM each time.

use std::path::Path;

use holdfast_types::PoolName;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, durable};

const KIND: &str = "pool";

/// A pool, by its name and by what LVM tells it from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LvmRecord {
    /// What people call it.
    pub name: PoolName,
    /// `lvm`.
    pub driver: String,
    /// The volume group's name.
    pub vg: String,
    /// The thin pool's.
    pub thin_pool: String,
    /// The volume group's uuid, as LVM writes it.
    pub vg_uuid: String,
    /// The thin pool's.
    pub pool_uuid: String,
}

impl LvmRecord {
    /// What a record's `driver` says.
    pub const DRIVER: &str = "lvm";

    /// Reads a record. `None` if no pool was made.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let corrupt = |driver: String| Error::Corrupt {
            path: path.into(),
            reason: format!("it is of a driver {driver}, which this version does not know"),
        };
        match durable::load::<Self>(path, KIND)? {
            Some(record) if record.driver != Self::DRIVER => Err(corrupt(record.driver)),
            found => Ok(found),
        }
    }

    /// Writes it durably: the last step of making a pool.
    pub fn store(&self, path: &Path) -> Result<()> {
        durable::store(path, KIND, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_one_of_another_driver_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.json");
        assert_eq!(LvmRecord::load(&path).unwrap(), None);
        let record = LvmRecord {
            name: "fast".parse().unwrap(),
            driver: LvmRecord::DRIVER.into(),
            vg: "fast".into(),
            thin_pool: "pool".into(),
            vg_uuid: "a".into(),
            pool_uuid: "b".into(),
        };
        record.store(&path).unwrap();
        assert_eq!(LvmRecord::load(&path).unwrap().as_ref(), Some(&record));
        LvmRecord { driver: "zfs".into(), ..record }.store(&path).unwrap();
        assert!(matches!(LvmRecord::load(&path), Err(Error::Corrupt { .. })));
    }
}
