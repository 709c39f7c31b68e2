//! The system calls that have no safe wrapper, and the redirect that makes sled's flush durable.
//!
//! sled 0.34 ends each write of its log with `sync_file_range(2)`, whose man page warns that it
//! makes nothing durable. This module defines that symbol: the linker prefers a definition in the
//! program to the C library's, so sled's calls land here and become `fdatasync(2)`. [`store`]
//! syncs through a descriptor of its own as well; either belt alone would do.
//!
//! [`store`]: crate::store

#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

static REDIRECTED: AtomicU64 = AtomicU64::new(0);

/// How often sled's calls have landed here since the process began.
pub(crate) fn redirected_calls() -> u64 {
    // Named here so that the linker has the definition before it meets sled's calls.
    std::hint::black_box(sync_file_range as extern "C" fn(c_int, i64, i64, c_uint) -> c_int);
    REDIRECTED.load(Ordering::SeqCst)
}

/// CLOCK_BOOTTIME, the clock of every lease deadline: it runs on while the machine sleeps.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

// SAFETY: the signature is that of fdatasync(2) in the C library that std links already.
unsafe extern "C" {
    safe fn fdatasync(fd: c_int) -> c_int;
}

/// Takes the place of sync_file_range(2) in the whole program; see the module's text.
/// Sets `errno` as fdatasync(2) does.
// SAFETY: the symbol has exactly the C library's signature on 64-bit Linux, touches no memory of
// the caller, and does more than the original promises, never less.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sync_file_range(
    fd: c_int,
    _offset: i64,
    _len: i64,
    _flags: c_uint,
) -> c_int {
    REDIRECTED.fetch_add(1, Ordering::SeqCst);
    fdatasync(fd)
}
