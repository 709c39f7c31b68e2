//! A container's init: whether there is one to start, which process it is, how to ask it to stop.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::conf::INNER_PATH;
use super::io_error;
use crate::{RuntimeError, sys};

/// Init, unless the container's spec names another program (kernel and LXC agree on it).
pub(crate) const DEFAULT_INIT: &str = "/sbin/init";

/// Whether a program can be executed in a root, looked up as inside: links that point to `/` stay
/// below the root.
pub(super) fn check_program(root: &Path, program: &str) -> Result<(), RuntimeError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, root, flags, Mode::empty());
    let dir = dir.map_err(|e| io_error("open root", root)(e.into()))?;
    let candidates: Vec<PathBuf> = match program.contains('/') {
        true => vec![program.into()],
        false => INNER_PATH.split(':').map(|dir| Path::new(dir).join(program)).collect(),
    };
    let executable = |path: &PathBuf| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&dir, path.as_path(), flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .and_then(|file| statat(&file, "", AtFlags::EMPTY_PATH))
            .is_ok_and(|stat| stat.st_mode & 0o170_000 == 0o100_000 && stat.st_mode & 0o111 != 0)
    };
    match candidates.iter().any(executable) {
        true => Ok(()),
        false => Err(RuntimeError::NoInit { path: program.into() }),
    }
}

/// Whether a root has the default init.
pub(crate) fn has_default_init(root: &Path) -> bool {
    check_program(root, DEFAULT_INIT).is_ok()
}

/// Which of a container's tasks is its init: number 1 in the outermost pid namespace that has one
/// among them. (A container may nest others.)
pub(super) fn find(tasks: &[u32]) -> Option<u32> {
    let level = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        (numbers.last() == Some(&"1")).then_some((numbers.len(), *pid))
    };
    tasks.iter().filter_map(level).min().map(|(_, pid)| pid)
}

/// What asking an init to shut down came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It was sent a signal that it handles.
    Sent,
    /// It handles none of the signals that mean a shutdown: waiting is pointless.
    Deaf,
}

/// Asks init to shut down, by the first signal that it handles: systemd's order to halt, the power
/// failure that init(8) and LXC use, the request to end. Init is immune to what it does not handle
/// (pid_namespaces(7)).
pub(super) fn ask_to_stop(pid: u32) -> Result<Asked, RuntimeError> {
    let proc_dir = PathBuf::from(format!("/proc/{pid}"));
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(handle) = raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(Asked::Sent);
    };
    let status = fs::read_to_string(proc_dir.join("status")).unwrap_or_default();
    let mask = |key: &str| {
        let hex = status.lines().find_map(|line| line.strip_prefix(key));
        hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    // systemd blocks signals and reads them from a descriptor; others catch them.
    let handled = (mask("SigCgt:") | mask("SigBlk:")) & !mask("SigIgn:");
    let order = [sys::systemd_halt(), Signal::POWER, Signal::TERM];
    let handles = |signal: &Signal| handled & (1 << (signal.as_raw() - 1)) != 0;
    let Some(signal) = order.into_iter().find(handles) else { return Ok(Asked::Deaf) };
    match pidfd_send_signal(&handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(Asked::Sent),
        Err(e) => Err(io_error("signal init", proc_dir)(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn programs_are_looked_up_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        symlink("/usr/sbin", root.join("sbin")).unwrap();
        fs::write(root.join("usr/sbin/real"), "").unwrap();
        fs::set_permissions(root.join("usr/sbin/real"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/usr/sbin/real", root.join("usr/sbin/init")).unwrap();
        symlink("/bin/sh", root.join("usr/sbin/outside")).unwrap();
        fs::write(root.join("usr/sbin/plain"), "").unwrap();
        assert!(has_default_init(root));
        assert!(check_program(root, "real").is_ok());
        for bad in ["/usr/sbin/outside", "/usr/sbin/plain", "/usr/sbin", "nosuch", "../../bin/sh"] {
            let result = check_program(root, bad);
            assert!(matches!(result, Err(RuntimeError::NoInit { .. })), "{bad}");
        }
    }

    #[test]
    fn this_process_is_nobodys_init() {
        let me = std::process::id();
        assert!(find(&[me]).is_none() || me == 1);
    }
}
