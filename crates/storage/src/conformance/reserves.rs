//! Room that is kept for the worst day.

use std::time::Duration;

use holdfast_types::ByteSize;

use super::Rig;
use crate::{Outcome, wait};

/// I20: it takes room that nothing else gets, is there after a crash, and goes in one step.
pub(super) fn a_reserve_is_kept_and_spent(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let wanted = rig.pool().capacity().unwrap().reserve();
    assert!(rig.pool().writable().is_ok());
    assert_eq!(rig.pool().reserved(), ByteSize(0));
    while rig.pool().fill_reserve().unwrap() == Outcome::Changed {}
    assert_eq!(rig.pool().reserved(), wanted);
    rig.reopen();
    assert_eq!(rig.pool().reserved(), wanted);
    let used = || rig.pool().capacity().unwrap().used.bytes();
    let held = used();
    let spent = if wanted > ByteSize(0) { Outcome::Changed } else { Outcome::AlreadyThere };
    assert_eq!(rig.pool().spend_reserve().unwrap(), spent);
    // A filesystem may take a moment to free what was removed.
    let freed = wait::until(Duration::from_secs(10), || used() <= held - wanted.bytes());
    assert!(freed, "{} of {held} used, {wanted} spent", used());
    assert_eq!(rig.pool().spend_reserve().unwrap(), Outcome::AlreadyThere);
    assert_eq!(rig.pool().reserved(), ByteSize(0));
}
