//! A lab that does not outlive its maker.

use std::ops::Deref;

use crate::LabError;
use crate::lab::Lab;
use crate::up::UpOptions;

/// A lab that goes down when this is dropped: for tests and one-off runs.
#[derive(Debug)]
pub struct ScopedLab(Lab);

impl ScopedLab {
    /// Makes a lab as [`Lab::up`] does.
    pub fn up(options: &UpOptions) -> Result<Self, LabError> {
        Lab::up(options).map(Self)
    }

    /// Lets the lab outlive this value.
    pub fn keep(self) -> Lab {
        let lab = self.0.clone();
        std::mem::forget(self);
        lab
    }
}

impl Deref for ScopedLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for ScopedLab {
    fn drop(&mut self) {
        let layout = self.0.layout();
        if let Err(error) = Lab::down(layout.name(), Some(layout.dir().to_owned())) {
            eprintln!("the lab {:?} did not go down: {error}", layout.name());
        }
    }
}
