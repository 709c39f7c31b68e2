//! The calls that the compiler cannot check.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

/// What this process was given beyond its standard streams stays its own: no program that it
/// executes gets it. A node outlives who brought the lab up, and would keep their locks and pipes.
pub(crate) fn keep_descriptors_to_ourselves() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: nothing is closed; descriptors only get the close-on-exec flag (close_range(2)).
    match unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Thaws the filesystem that a file is on (`FITHAW`, linux/fs.h). One that is not frozen says so.
pub(crate) fn thaw(file: &File) -> io::Result<()> {
    const FITHAW: libc::c_ulong = 0xC004_5878;
    // SAFETY: the descriptor is open for the whole call, and FITHAW reads no argument.
    match unsafe { libc::ioctl(file.as_raw_fd(), FITHAW, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    /// A lab that stayed up held its caller's lock.
    #[test]
    fn what_was_inherited_is_not_passed_on() {
        let file = tempfile::tempfile().unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        keep_descriptors_to_ourselves().unwrap();
        let flags = FdFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
}
