//! A lab that is up, and what can be done to it.

use std::path::PathBuf;

use crate::LabError;
use crate::layout::Layout;
use crate::pace::Pace;
use crate::plumbing::tool;
use crate::record::{LabLock, LabRecord, Role};
use crate::teardown;

/// A lab that is up.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) layout: Layout,
    pub(crate) pace: Pace,
}

impl Lab {
    /// The lab of this name, if it is up.
    pub fn open(name: &str) -> Result<Self, LabError> {
        tool::check_machine()?;
        let record = LabRecord::load(&Layout::new(name, None)?)?;
        Ok(Self { layout: Layout::new(name, Some(&record.dir))?, pace: record.pace })
    }

    /// Removes every trace of the lab of this name, whether it is whole, broken or not there.
    /// Its data goes too. Nothing of any other lab is touched.
    pub fn down(name: &str, dir: Option<PathBuf>) -> Result<(), LabError> {
        tool::check_machine()?;
        let layout = Layout::new(name, dir.as_deref())?;
        let lock = LabLock::take(&layout)?;
        let result = teardown::remove(&layout);
        lock.remove();
        result
    }

    /// Names and paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How much slower than usual it is.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// The lab's record as it is now.
    pub fn record(&self) -> Result<LabRecord, LabError> {
        LabRecord::load(&self.layout)
    }

    /// The client sockets of all nodes.
    pub fn sockets(&self) -> Result<Vec<PathBuf>, LabError> {
        let members = self.record()?.nodes.into_iter().filter(|n| n.role != Role::Worker);
        Ok(members.map(|n| self.layout.socket(&n.name)).collect())
    }

    /// Changes the record under the lab's lock.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut LabRecord) -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let _lock = LabLock::take(&self.layout)?;
        let mut record = LabRecord::load(&self.layout)?;
        let out = change(&mut record);
        record.save(&self.layout)?;
        out
    }
}
