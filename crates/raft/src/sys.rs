//! The system calls that have no safe wrapper, and the redirect that makes sled's flush durable.
//!
//! sled 0.34 ends each write of its log with `sync_file_range(2)`, whose man page warns that it
//! makes nothing durable. This module defines that symbol: the linker prefers a definition in the
//! program to the C library's, so sled's calls land here and become `fdatasync(2)`. [`store`] looks
//! after each flush whether that has happened to its file, and else syncs it by itself.
//!
//! [`store`]: crate::store

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

static REDIRECTED: AtomicU64 = AtomicU64::new(0);

/// How often each file, by device and inode, was made durable by a call that landed here.
static SYNCED: Mutex<BTreeMap<(u64, u64), u64>> = Mutex::new(BTreeMap::new());

/// How often sled's calls have landed here since the process began.
pub(crate) fn redirected_calls() -> u64 {
    // Named here so that the linker has the definition before it meets sled's calls.
    std::hint::black_box(sync_file_range as extern "C" fn(c_int, i64, i64, c_uint) -> c_int);
    REDIRECTED.load(Ordering::SeqCst)
}

/// How often sled's calls have made that file durable since the process began.
pub(crate) fn redirected_syncs(file: &File) -> u64 {
    let Some(which) = which(file.as_fd()) else { return 0 };
    let synced = SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    synced.get(&which).copied().unwrap_or(0)
}

fn which(file: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(file).ok()?;
    Some((stat.st_dev, stat.st_ino))
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
    let result = fdatasync(fd);
    if result == 0 {
        // SAFETY: fdatasync(2) has just succeeded on it, so it is open, and the caller keeps it so.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        if let Some(which) = which(file) {
            *SYNCED.lock().unwrap_or_else(PoisonError::into_inner).entry(which).or_default() += 1;
        }
    }
    result
}
