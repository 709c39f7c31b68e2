//! The `lvm` driver on a real volume group: in the guest, since it takes disks of its own.
//!
//! Disks are named by `HOLDFAST_TEST_DISKS`, comma-separated, two of them; all on them is lost.
#![allow(clippy::unwrap_used)]

mod full;
mod grow;
mod held;
mod killed;
mod mixed;
mod rig;
mod trouble;
mod vanish;
mod xfs;

use holdfast_storage::conformance;
use rig::{LvmRig, disks};

#[test]
fn lvm_conforms() {
    let disks = disks();
    conformance::run(&mut LvmRig::new(&disks[0]), &mut LvmRig::new(&disks[1]));
}
