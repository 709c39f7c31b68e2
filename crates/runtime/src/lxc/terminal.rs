//! A pseudo-terminal for a program inside a container (pty(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::TermSize;

/// Our end of a pseudo-terminal.
pub(super) struct Terminal {
    near: OwnedFd,
}

const FLAGS: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);

impl Terminal {
    pub(super) fn open(size: TermSize) -> io::Result<Self> {
        let near = openpt(FLAGS)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let terminal = Self { near };
        terminal.resize(size)?;
        Ok(terminal)
    }

    /// A descriptor of the program's end.
    pub(super) fn far_end(&self) -> io::Result<OwnedFd> {
        Ok(ioctl_tiocgptpeer(&self.near, FLAGS)?)
    }

    /// Another descriptor of our end.
    pub(super) fn near_end(&self) -> io::Result<OwnedFd> {
        self.near.try_clone()
    }

    /// Sets the size; the kernel tells the programs in front.
    pub(super) fn resize(&self, size: TermSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.near, size)?)
    }
}
