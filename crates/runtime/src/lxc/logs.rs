//! A container's logs: LXC's own of the latest start and of the one before, and the console.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use holdfast_types::ContainerUid;

use super::io_error;
use crate::RuntimeError;
use crate::process::last_lines;

/// The file that the console is written to; LXC renames a full one to `<file>.1`.
pub(super) fn console(log_dir: &Path, uid: ContainerUid) -> PathBuf {
    log_dir.join(format!("{uid}.console"))
}

/// The file that LXC logs a start to.
fn log(log_dir: &Path, uid: ContainerUid) -> PathBuf {
    log_dir.join(format!("{uid}.log"))
}

/// Begins a new log for a start; the one before is kept as `<file>.1`.
pub(super) fn begin(log_dir: &Path, uid: ContainerUid) -> Result<PathBuf, RuntimeError> {
    let file = log(log_dir, uid);
    match fs::rename(&file, older(&file)) {
        Ok(()) => Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(file),
        Err(e) => Err(io_error("rename", file)(e)),
    }
}

/// Why a start failed, in one line: LXC's first errors, else what was said; and the console's end.
pub(super) fn explain(log_dir: &Path, uid: ContainerUid, said: &[u8]) -> String {
    let console = tail(&console(log_dir, uid), 1_000).unwrap_or_default();
    let log = tail(&log(log_dir, uid), 16_000).unwrap_or_default();
    let causes = causes(&String::from_utf8_lossy(&log));
    let mut parts = match causes.is_empty() {
        true => vec![last_lines(said)],
        false => causes,
    };
    if !console.is_empty() {
        parts.push(format!("console: {}", last_lines(&console)));
    }
    parts.join("; ")
}

/// The first errors of a log. What `lxc-start` itself adds says only that there were some.
fn causes(log: &str) -> Vec<String> {
    const MOST: usize = 3;
    let boilerplate =
        |line: &&str| line.contains(" lxc_start - ") || line.contains(" lxccontainer - ");
    let errors = log.lines().filter(|line| line.contains(" ERROR ") && !boilerplate(line));
    // "lxc-start UID TIME ERROR    module - file:function:line - what happened"
    let message = |line: &str| line.splitn(3, " - ").last().map(|m| last_lines(m.as_bytes()));
    errors.filter_map(message).take(MOST).collect()
}

/// The last bytes of a log and, if it is shorter, of the one before it.
pub(super) fn tail(file: &Path, max_bytes: u64) -> Result<Vec<u8>, RuntimeError> {
    let newest = tail_of(file, max_bytes)?;
    let missing = max_bytes.saturating_sub(newest.len() as u64);
    let mut text = tail_of(&older(file), missing)?;
    text.extend_from_slice(&newest);
    Ok(text)
}

/// Removes a container's logs. True if there was one.
pub(super) fn remove(log_dir: &Path, uid: ContainerUid) -> Result<bool, RuntimeError> {
    let mut removed = false;
    for file in [log(log_dir, uid), console(log_dir, uid)] {
        for file in [older(&file), file] {
            match fs::remove_file(&file) {
                Ok(()) => removed = true,
                Err(e) if e.kind() == io::ErrorKind::NotFound => (),
                Err(e) => return Err(io_error("remove", file)(e)),
            }
        }
    }
    Ok(removed)
}

fn older(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn tail_of(file: &Path, max_bytes: u64) -> Result<Vec<u8>, RuntimeError> {
    let mut text = Vec::new();
    let mut read = || -> io::Result<()> {
        let mut source = File::open(file)?;
        let size = source.metadata()?.len();
        source.seek(SeekFrom::Start(size.saturating_sub(max_bytes)))?;
        source.take(max_bytes).read_to_end(&mut text)?;
        Ok(())
    };
    match read() {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("read", file)(e)),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_causes_are_told() {
        let log = "lxc-start x 2026 WARN     cgfsng - ../cgfsng.c:f:5 - Uninitialized\n\
            lxc-start x 2026 ERROR    cgfsng - ../cgfsng.c:f:9 - No space left on device - Failed to enter\n\
            lxc-start x 2026 ERROR    lxccontainer - ../lxccontainer.c:w:8 - Received \"ABORTING\"\n\
            lxc-start x 2026 ERROR    lxc_start - ../lxc_start.c:main:3 - The container failed to start\n";
        assert_eq!(causes(log), ["No space left on device - Failed to enter"]);
    }

    #[test]
    fn a_tail_reaches_into_the_file_before() {
        let dir = tempfile::tempdir().unwrap();
        let uid = ContainerUid::generate();
        let file = console(dir.path(), uid);
        assert_eq!(tail(&file, 10).unwrap(), b"");
        fs::write(&file, "cdef").unwrap();
        fs::write(older(&file), "ab").unwrap();
        assert_eq!(tail(&file, 100).unwrap(), b"abcdef");
        assert_eq!(tail(&file, 5).unwrap(), b"bcdef");
        assert_eq!(tail(&file, 3).unwrap(), b"def");
        assert!(remove(dir.path(), uid).unwrap());
        assert!(!remove(dir.path(), uid).unwrap());
    }
}
