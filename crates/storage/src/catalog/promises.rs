//! What a volume refuses for ever, and the caller's own text.

use holdfast_types::Epoch;

use super::{VolumeState, outcome};
use crate::pool::Outcome;
use crate::{Error, Result};

/// Longest label of a snapshot, in bytes.
const MAX_LABEL: usize = 256;
/// Longest role text, in bytes.
const MAX_ROLE: usize = 64 << 10;

impl VolumeState {
    /// Raises the sealed floor.
    pub(crate) fn seal(&mut self, up_to: Epoch) -> Outcome {
        let changed = up_to > self.record.sealed;
        self.record.sealed = up_to.max(self.record.sealed);
        outcome(changed)
    }

    /// Raises the released epoch.
    pub(crate) fn release(&mut self, epoch: Epoch) -> Outcome {
        let changed = epoch > self.record.released;
        self.record.released = epoch.max(self.record.released);
        outcome(changed)
    }

    /// Stores the caller's text.
    pub(crate) fn set_role(&mut self, role: &str) -> Result<Outcome> {
        if role.len() > MAX_ROLE {
            return Err(Error::BadText("role"));
        }
        let changed = self.record.role != role;
        role.clone_into(&mut self.record.role);
        Ok(outcome(changed))
    }

    pub(crate) fn wrong(&self, reason: &'static str) -> Error {
        Error::WrongState { volume: self.uid, reason }
    }

    /// The highest epoch that may never start here again.
    pub(super) fn start_floor(&self) -> Epoch {
        let promoted = self.record.promoted.map_or(Epoch(0), |p| p.epoch);
        promoted.max(self.record.sealed).max(self.record.released)
    }

    pub(super) fn refuse_up_to(&self, offered: Epoch, floor: Epoch) -> Result<()> {
        if offered <= floor { Err(self.stale(offered, floor)) } else { Ok(()) }
    }

    pub(super) fn stale(&self, offered: Epoch, floor: Epoch) -> Error {
        Error::StaleEpoch { volume: self.uid, offered, floor }
    }
}

/// A label, if it may be one.
pub(super) fn label_text(text: &str) -> Result<&str> {
    match text.len() <= MAX_LABEL && !text.contains(char::is_control) {
        true => Ok(text),
        false => Err(Error::BadText("label")),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_types::{ByteSize, VolumeUid};

    use super::*;
    use crate::catalog::VolumeRecord;

    /// I11: a floor never goes down, whatever is asked in whatever order.
    #[test]
    fn floors_only_rise() {
        let mut state = VolumeState::empty(VolumeUid::generate(), ByteSize::mib(4));
        assert_eq!(state.seal(Epoch(5)), Outcome::Changed);
        assert_eq!(state.seal(Epoch(3)), Outcome::AlreadyThere);
        assert_eq!(state.release(Epoch(4)), Outcome::Changed);
        assert_eq!((state.record.sealed, state.record.released), (Epoch(5), Epoch(4)));
        assert_eq!(state.start_floor(), Epoch(5));
    }

    #[test]
    fn what_a_newer_version_wrote_survives() {
        let text = r#"{"sealed":7,"role":"web","scrubbed":{"at":3}}"#;
        let record: VolumeRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.sealed, record.released), (Epoch(7), Epoch(0)));
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(again["scrubbed"]["at"], 3);
    }
}
