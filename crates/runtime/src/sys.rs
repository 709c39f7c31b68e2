//! The one place with `unsafe`.
#![allow(unsafe_code)]

use rustix::process::Signal;

/// `SIGRTMIN+3`, which systemd takes as the order to halt (systemd(1)). The C library keeps the
/// kernel's first two real-time signals for itself, so its `SIGRTMIN` is the kernel's 34.
pub(crate) fn systemd_halt() -> Signal {
    // SAFETY: 37 is a signal number that the kernel knows (32 to 64 are real-time). It is only
    // sent to another process, never handled or raised in this one, so the C library's use of
    // real-time signals is not disturbed.
    unsafe { Signal::from_raw_unchecked(37) }
}
