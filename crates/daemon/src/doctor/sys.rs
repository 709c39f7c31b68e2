//! The call that the compiler cannot check.
#![allow(unsafe_code)]

use nix::libc;

/// Whether somebody keeps the clock right: what the kernel was told by whoever steers it (adjtimex(2)).
pub(super) fn clock_is_steered() -> bool {
    // SAFETY: all-zero is a request to change nothing, and every field is a plain number.
    let mut told: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call, which writes nothing else.
    let state = unsafe { libc::adjtimex(&raw mut told) };
    state != -1 && state != libc::TIME_ERROR && told.status & libc::STA_UNSYNC == 0
}
