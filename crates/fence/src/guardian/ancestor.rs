//! The ancestor cgroup, and the descriptors through which it is stopped.
//!
//! They are opened once and held: what happens to mounts later does not matter. See
//! `Documentation/admin-guide/cgroup-v2.rst` for `cgroup.freeze`, `cgroup.kill` and
//! `cgroup.events`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, ResolveFlags, flock, openat2};
use rustix::io::Errno;

use crate::ChildPath;
use crate::protocol::KillOutcome;

/// The open ancestor. Locked while held: there is one guardian to an ancestor.
#[derive(Debug)]
pub(super) struct Ancestor {
    dir: OwnedFd,
    freeze: OwnedFd,
    kill: OwnedFd,
    events: OwnedFd,
}

/// What `cgroup.events` says of a whole subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events {
    /// There are live processes in it.
    pub(super) populated: bool,
    /// Every process in it is frozen.
    pub(super) frozen: bool,
}

impl Ancestor {
    /// Opens the cgroup, making it if need be. Fails with `WouldBlock` if another guardian has it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            freeze: open_below(&dir, Path::new("cgroup.freeze"), OFlags::WRONLY)?,
            kill: open_below(&dir, Path::new("cgroup.kill"), OFlags::WRONLY)?,
            events: open_below(&dir, Path::new("cgroup.events"), OFlags::RDONLY)?,
            dir,
        })
    }

    /// Orders the freeze; [`Ancestor::events`] says when it is so.
    pub(super) fn freeze(&self) -> io::Result<()> {
        put(&self.freeze, b"1")
    }

    /// Lets everything run that no child cgroup's own freeze holds back.
    pub(super) fn thaw(&self) -> io::Result<()> {
        put(&self.freeze, b"0")
    }

    /// Whether the whole subtree is frozen, and whether there is anything in it.
    pub(super) fn events(&self) -> io::Result<Events> {
        read_events(&self.events)
    }

    /// Polls readable with POLLPRI when [`Ancestor::events`] may have changed.
    pub(super) fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// SIGKILL to everything below. The kernel holds forks back meanwhile: none escapes.
    pub(super) fn kill_all(&self) -> io::Result<()> {
        put(&self.kill, b"1")
    }

    /// SIGKILL to every child's subtree that is not frozen; to everything if processes sit in the
    /// ancestor itself, where nobody should be.
    pub(super) fn kill_unfrozen(&self) -> io::Result<()> {
        let procs = open_below(&self.dir, Path::new("cgroup.procs"), OFlags::RDONLY)?;
        if rustix::io::pread(&procs, &mut [0u8; 1][..], 0)? != 0 {
            return self.kill_all();
        }
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { return self.kill_all() };
            if !entry.file_type().is_dir() || name == "." || name == ".." {
                continue;
            }
            match self.kill_if_unfrozen(Path::new(name)) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn kill_if_unfrozen(&self, child: &Path) -> io::Result<()> {
        let events = open_below(&self.dir, &child.join("cgroup.events"), OFlags::RDONLY)?;
        if read_events(&events)?.frozen {
            return Ok(());
        }
        put(&open_below(&self.dir, &child.join("cgroup.kill"), OFlags::WRONLY)?, b"1")
    }

    /// SIGKILL to one container's subtree, frozen or not.
    pub(super) fn kill_child(&self, child: &ChildPath) -> io::Result<KillOutcome> {
        let attempt = || {
            let path = child.as_path();
            put(&open_below(&self.dir, &path.join("cgroup.kill"), OFlags::WRONLY)?, b"1")?;
            read_events(&open_below(&self.dir, &path.join("cgroup.events"), OFlags::RDONLY)?)
        };
        match attempt() {
            Ok(events) => Ok(KillOutcome::Killed { populated: events.populated }),
            Err(error) if is_gone(&error) => Ok(KillOutcome::NotThere),
            Err(error) => Err(error),
        }
    }
}

/// ENOENT: there is none; ENODEV: it was removed between opening and writing.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NODEV].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| gone.contains(&code))
}

/// Opens a file of the ancestor's subtree, and of nothing else.
fn open_below(dir: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), within)?)
}

fn put(file: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::io::pwrite(file, bytes, 0))? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn read_events(file: &OwnedFd) -> io::Result<Events> {
    let mut buffer = [0u8; 128];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[..], 0))?;
    let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
    let flag = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.map(|v| v == "1").ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    Ok(Events { populated: flag("populated")?, frozen: flag("frozen")? })
}
