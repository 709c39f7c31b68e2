//! What the guardian does to be punctual, where the host allows it.

use std::fs;
use std::hint::black_box;
use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::sys;

/// Above ordinary work, below what the kernel runs at 99.
const FIFO_PRIORITY: i32 = 50;

/// More than the deepest call of the guardian uses.
const STACK_BYTES: usize = 128 * 1024;

/// Locks what is mapped and what will be; the stack is touched first so that it is there.
pub(super) fn lock_memory() -> bool {
    prefault_stack();
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).is_ok()
}

/// Asks for real-time scheduling. Refused where a control group grants no real-time share.
pub(super) fn go_realtime() -> bool {
    sys::set_fifo(FIFO_PRIORITY).is_ok()
}

/// The kernel's OOM killer passes the guardian over.
pub(super) fn exempt_from_oom() -> bool {
    fs::write("/proc/self/oom_score_adj", "-1000").is_ok()
}

/// A core would be written before its death is a death: no core is written, of the init neither.
pub(super) fn never_dump() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[inline(never)]
fn prefault_stack() {
    let pages = [0u8; STACK_BYTES];
    black_box(&pages);
}
