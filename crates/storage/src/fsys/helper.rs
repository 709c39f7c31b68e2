//! The helper's side of [`FreezeHelper`](super::FreezeHelper).

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;
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

use crate::sys;

/// Longest freeze, whatever is asked for.
const MOST: Duration = Duration::from_secs(10);

/// Runs `freeze <mountpoint> <limit in ms>` or `thaw <mountpoint>`, given without the program's
/// name. What it says is one line a step on stdout.
pub fn helper_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let args: Vec<&Path> = args.iter().map(Path::new).collect();
    let result = match args.as_slice() {
        [verb, mountpoint, limit] if *verb == Path::new("freeze") => {
            let ms = limit.to_str().and_then(|ms| ms.parse().ok());
            ms.ok_or(Errno::INVAL)
                .and_then(|ms| freeze(mountpoint, Duration::from_millis(ms).min(MOST)))
        }
        [verb, mountpoint] if *verb == Path::new("thaw") => thaw(mountpoint),
        _ => Err(Errno::INVAL),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn freeze(mountpoint: &Path, limit: Duration) -> rustix::io::Result<()> {
    let root = openat(CWD, mountpoint, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::syncfs(&root)?;
    let began = Instant::now();
    sys::freeze(&root)?;
    say("frozen");
    let ended = wait_for_end(began + limit);
    // Thawed before anything else is said or done.
    sys::thaw(&root)?;
    let word = if ended { "thawed" } else { "expired" };
    say(&format!("{word} {}", began.elapsed().as_micros()));
    Ok(())
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

fn thaw(mountpoint: &Path) -> rustix::io::Result<()> {
    let root = openat(CWD, mountpoint, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match sys::thaw(&root) {
        Ok(()) => say("thawed"),
        Err(Errno::INVAL) => say("was not frozen"),
        Err(e) => return Err(e),
    }
    Ok(())
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
