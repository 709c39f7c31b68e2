//! A live part that begins anew as one of the volume's snapshots.

use holdfast_types::{Epoch, OperationId, SnapshotUuid};

use super::{Live, VolumeState};
use crate::pool::Outcome;
use crate::{Error, Result};

impl VolumeState {
    /// Lets the live part's content begin anew as `from`. Head, number and size stay: what follows
    /// is on the same chain, and no replica ever shrinks.
    pub(crate) fn restore(
        &mut self,
        from: SnapshotUuid,
        epoch: Epoch,
        request: OperationId,
    ) -> Result<Outcome> {
        self.may_activate(epoch)?;
        let live = self.live()?.clone();
        if live.restored == Some(request) {
            return Ok(Outcome::AlreadyThere);
        }
        let found = self.find(from).ok_or(Error::NoSnapshot(from))?;
        self.shape().require_at_least(&found.shape(), "it is smaller than what is restored")?;
        if self.is_rotten(from) {
            return Err(Error::Rotten(from));
        }
        let generation = self.next_generation;
        self.live = Some(Live { generation, restored: Some(request), ..live });
        self.next_generation += 1;
        Ok(Outcome::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool that an older version wrote has restored nothing.
    #[test]
    fn a_live_part_without_a_restore_is_read() {
        let text = r#"{"epoch":1,"branch":null,"head":null,"next_seq":1,"generation":3}"#;
        let live: Live = serde_json::from_str(text).unwrap();
        assert_eq!((live.generation, live.restored), (3, None));
    }
}
