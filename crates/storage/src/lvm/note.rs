//! An item's name in the catalog: which thin device it is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, durable};

const KIND: &str = "thin";

/// The least id of ours: LVM counts up from 1 and would need eight million volumes to reach it.
pub(super) const FIRST_ID: u32 = 1 << 23;

/// Ids have 24 bits.
pub(super) const LAST_ID: u32 = (1 << 24) - 1;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The thin device's id in the pool.
    pub(super) id: u32,
    /// Its size in bytes; the pool itself knows none.
    pub(super) size: u64,
}

impl Note {
    /// Durably makes it the content of `item`.
    pub(super) fn store(&self, item: &Path) -> Result<()> {
        durable::store(item, KIND, self)
    }

    /// Reads it. What is not there is damage: the caller knows it by its name.
    pub(super) fn load(item: &Path) -> Result<Self> {
        let corrupt = |reason: &str| Error::Corrupt { path: item.into(), reason: reason.into() };
        let note: Self = durable::load(item, KIND)?.ok_or_else(|| corrupt("it is missing"))?;
        match (FIRST_ID..=LAST_ID).contains(&note.id) {
            true => Ok(note),
            false => Err(corrupt("its id is not one of ours")),
        }
    }

    /// Reads it, if it is there; and whether it has another name.
    pub(super) fn find(item: &Path) -> Result<Option<(Self, bool)>> {
        match std::fs::metadata(item) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("reading", item)(e)),
            Ok(meta) => Ok(Some((Self::load(item)?, meta.nlink() > 1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_keeps_its_id_and_knows_its_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let (item, other) = (dir.path().join("live-1"), dir.path().join("snap-1"));
        assert_eq!(Note::find(&item).unwrap(), None);
        let note = Note { id: FIRST_ID + 7, size: 8 << 20 };
        note.store(&item).unwrap();
        assert_eq!(Note::find(&item).unwrap(), Some((note, false)));
        std::fs::hard_link(&item, &other).unwrap();
        assert_eq!(Note::find(&other).unwrap(), Some((note, true)));
    }

    /// An id of LVM's own volumes is never deleted by us.
    #[test]
    fn an_id_of_lvms_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let item = dir.path().join("live-1");
        Note { id: 3, size: 8 << 20 }.store(&item).unwrap();
        assert!(matches!(Note::load(&item), Err(Error::Corrupt { .. })));
    }
}
