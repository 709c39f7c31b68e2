//! The moment of the cut, and the judgement whether the takeover came after all that must be before
//! it.

use holdfast_proto::v1;

use super::story::Account;
use crate::clock::{BootInstant, wall_ms};

/// The cut, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// On the boot clock.
    pub boot: BootInstant,
    /// On the wall clock.
    pub wall_ms: u64,
    /// The cluster's log had come this far before.
    pub revision: u64,
}

impl Cut {
    /// The cut at this instant of the recent past, when the cluster's log had come to `revision`.
    pub fn at(boot: BootInstant, revision: u64) -> Self {
        let ago = BootInstant::now().since(boot).as_millis() as u64;
        Self { boot, wall_ms: wall_ms() - ago, revision }
    }

    /// An instant of the boot clock on the wall clock.
    pub(super) fn wall_of(self, instant: BootInstant) -> u64 {
        let after = instant.since(self.boot).as_millis() as u64;
        let before = self.boot.since(instant).as_millis() as u64;
        self.wall_ms + after - before.min(self.wall_ms)
    }
}

/// A takeover sooner than its evidence allows is no success. Twice judged: by the silence that the
/// cluster states, and from outside, where the last answer came at most one heartbeat before the
/// cut.
pub fn too_early(account: &Account, lease: &v1::LeaseSettings, cut: Cut) -> Vec<String> {
    let mut found = Vec::new();
    let bound = lease.lost_after_ms;
    match account.silence {
        Some(s) if s.silent_ms < s.required_ms || s.required_ms < bound => found.push(format!(
            "lost after {} ms of silence, where {} ms are required",
            s.silent_ms,
            s.required_ms.max(bound)
        )),
        Some(_) => {}
        None => found.push("no evidence is stated for the loss".to_owned()),
    }
    match account.taken_at_ms {
        Some(taken) if taken + lease.lease_ms / 6 < cut.wall_ms + bound => found.push(format!(
            "taken over {} ms after the cut, sooner than {bound} ms after any answer",
            taken.saturating_sub(cut.wall_ms)
        )),
        Some(_) => {}
        None => found.push("the cluster tells of no takeover".to_owned()),
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::story::Silence;
    use super::*;

    const CUT: Cut = Cut { boot: BootInstant(5_000_000_000), wall_ms: 100_000, revision: 0 };

    fn lease() -> v1::LeaseSettings {
        v1::LeaseSettings { lease_ms: 3000, lost_after_ms: 4281, ..Default::default() }
    }

    fn account(silent_ms: u64, taken_after_ms: u64) -> Account {
        Account {
            silence: Some(Silence { silent_ms, required_ms: 4281 }),
            taken_at_ms: Some(CUT.wall_ms + taken_after_ms),
            ..Account::default()
        }
    }

    #[test]
    fn a_takeover_in_time_is_no_problem() {
        assert!(too_early(&account(4300, 4100), &lease(), CUT).is_empty());
    }

    /// DESIGN section 5: being faster than the bound is a bug, whoever says so.
    #[test]
    fn a_takeover_that_came_too_early_is_found_from_both_sides() {
        assert_eq!(too_early(&account(4200, 4100), &lease(), CUT).len(), 1, "by its own words");
        assert_eq!(too_early(&account(4300, 3700), &lease(), CUT).len(), 1, "from outside");
        assert_eq!(too_early(&Account::default(), &lease(), CUT).len(), 2, "without any");
    }

    #[test]
    fn both_clocks_agree() {
        assert_eq!(CUT.wall_of(BootInstant(5_250_000_000)), 100_250);
        assert_eq!(CUT.wall_of(BootInstant(4_750_000_000)), 99_750);
    }
}
