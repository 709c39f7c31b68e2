//! The helper's side of [`FreezeHelper`](super::FreezeHelper).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::lvm::Dm;
use crate::sys;

/// Longest freeze, whatever is asked for.
const MOST: Duration = Duration::from_secs(10);

/// Runs `freeze <limit in ms> <n> <n mountpoints…> <device…>` or `thaw <n> <n mountpoints…>
/// <device…>`, given without the program's name; the devices are device-mapper's, held while all is
/// frozen. What it says is one line a step on stdout.
pub fn helper_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let args: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    let result = match args.as_deref() {
        Some(["freeze", limit, rest @ ..]) => {
            let limit = limit.parse().map_err(|_| Errno::INVAL.into()).map(Duration::from_millis);
            limit.and_then(|limit| {
                let (mountpoints, held) = parted(rest)?;
                freeze(mountpoints, limit.min(MOST), held)
            })
        }
        Some(["thaw", rest @ ..]) => {
            parted(rest).and_then(|(mountpoints, held)| thaw(mountpoints, held))
        }
        _ => Err(Errno::INVAL.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The mountpoints, after their number, and the devices.
fn parted<'a>(args: &'a [&'a str]) -> io::Result<(&'a [&'a str], &'a [&'a str])> {
    let parted = args.split_first().and_then(|(n, rest)| rest.split_at_checked(n.parse().ok()?));
    parted.ok_or(Errno::INVAL.into())
}

fn open(mountpoint: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, mountpoint, flags, Mode::empty())?)
}

fn freeze(mountpoints: &[&str], limit: Duration, held: &[&str]) -> io::Result<()> {
    let roots = mountpoints.iter().map(|at| open(at)).collect::<io::Result<Vec<_>>>()?;
    // What is dirty is written before anybody has to wait for it.
    roots.iter().try_for_each(rustix::fs::syncfs)?;
    let dm = (!held.is_empty()).then(Dm::open).transpose()?;
    let began = Instant::now();
    let mut frozen = Vec::with_capacity(roots.len());
    let all_frozen = roots.iter().try_for_each(|root| {
        sys::freeze(root)?;
        frozen.push(root);
        Ok(())
    });
    // Nobody writes through the filesystems now, so that none of the requests under way needs room.
    let suspend = |dm: &Dm| held.iter().try_for_each(|name| dm.suspend(name));
    let suspended = all_frozen.and_then(|()| dm.as_ref().map_or(Ok(()), suspend));
    let ended = suspended.is_ok() && {
        say("frozen");
        wait_for_end(began + limit)
    };
    // Thawed before anything else is said or done, each whatever becomes of another.
    let resumed = resume(dm.as_ref(), held);
    let thawed = frozen.into_iter().map(|root| Ok(sys::thaw(root)?)).fold(Ok(()), Result::and);
    suspended.and(resumed).and(thawed)?;
    let word = if ended { "thawed" } else { "expired" };
    say(&format!("{word} {}", began.elapsed().as_micros()));
    Ok(())
}

/// Lets requests go on, on all of them, whatever becomes of one.
fn resume(dm: Option<&Dm>, held: &[&str]) -> io::Result<()> {
    const TRIES: usize = 10;
    let resume = |dm: &Dm, name: &str| {
        let mut tries = (0..TRIES).map(|_| dm.resume(name, false));
        tries.find(Result::is_ok).unwrap_or_else(|| dm.resume(name, false))
    };
    let Some(dm) = dm else { return Ok(()) };
    held.iter().map(|name| resume(dm, name)).fold(Ok(()), Result::and)
}

/// Waits until stdin ends or the deadline passes; whether it ended.
fn wait_for_end(deadline: Instant) -> bool {
    let stdin = std::io::stdin();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Ok(0) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

fn thaw(mountpoints: &[&str], held: &[&str]) -> io::Result<()> {
    // First: what is on a held device cannot even be looked at.
    let dm = (!held.is_empty()).then(Dm::open).transpose()?;
    let resumed = resume(dm.as_ref(), held);
    let thaw = |at: &&str| match sys::thaw(open(at)?) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(e) => Err(io::Error::from(e)),
    };
    let each: Vec<io::Result<bool>> = mountpoints.iter().map(thaw).collect();
    let any = each.iter().any(|thawed| matches!(thawed, Ok(true)));
    each.into_iter().map(|thawed| thawed.map(drop)).fold(Ok(()), Result::and)?;
    say(if any { "thawed" } else { "was not frozen" });
    resumed
}

/// Whoever listened may be gone; the work goes on.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Thaws the ext4 on loop device `number`, wherever it was mounted: by a mount of the same device
/// that is attached nowhere. On a thread, given up after a moment, for it may hang.
pub(crate) fn thaw_device(number: u32) {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = done.send(thaw_detached(&format!("/dev/loop{number}")));
    });
    match wait.recv_timeout(Duration::from_secs(2)) {
        Ok(Ok(())) => tracing::warn!(number, "thawed a filesystem that a crash had left frozen"),
        Ok(Err(error)) => tracing::debug!(number, %error, "a loop device was not thawed"),
        Err(_) => tracing::warn!(number, "gave up on thawing a loop device"),
    }
}

fn thaw_detached(device: &str) -> rustix::io::Result<()> {
    let fs = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", device)?;
    fsconfig_create(&fs)?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let root: File =
        openat(&mount, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?.into();
    sys::thaw(&root)
}
