//! Helper programs, run with a deadline: what overruns it is killed with all of its children.
//!
//! Waiting is a `poll` on the program's pidfd and its two pipes, so a daemon that it leaves behind
//! with the pipes still open holds up nobody.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::RuntimeError;

/// A finished helper's end and output.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) truncated: bool,
}

/// Runs a program to its end, at most `deadline`, keeping at most `limit` bytes of each stream.
pub(crate) fn run(
    mut command: Command,
    what: &'static str,
    deadline: Duration,
    limit: usize,
) -> Result<Finished, RuntimeError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command)?;
    let wait_error =
        |e: io::Error| RuntimeError::Io { what: "wait for", path: what.into(), source: e };
    let mut streams = Streams::take(&mut child, limit).map_err(wait_error)?;
    let ended = wait_end(&mut child, &mut streams, Instant::now() + deadline);
    match ended {
        Ok(Some(status)) => Ok(streams.finish(status)),
        Ok(None) => {
            kill_tree(&mut child);
            let after_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            let last_lines = last_lines(&streams.stderr.kept);
            Err(RuntimeError::Timeout { what, after_ms, last_lines })
        }
        Err(e) => {
            kill_tree(&mut child);
            Err(wait_error(e))
        }
    }
}

/// Starts a program; one that does not exist is a missing tool.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, RuntimeError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => RuntimeError::MissingTool { package: package_of(&tool), tool },
        _ => RuntimeError::Io { what: "run", path: tool.into(), source },
    })
}

/// The package that a program comes with. The guardian's own program is ours.
fn package_of(tool: &str) -> &'static str {
    match tool.rsplit('/').next() {
        Some("unshare" | "setsid") => "util-linux",
        Some(name) if name.starts_with("lxc-") => "lxc",
        _ => "holdfast",
    }
}

/// Waits for a program whose streams are somebody else's; `None` if it still runs at `until`.
pub(crate) fn wait_plain(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    let pidfd = pidfd_of(child)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        poll_some(&mut [PollFd::new(&pidfd, PollFlags::IN)], left)?;
    }
}

/// Kills a program and everything it started, and reaps it.
pub(crate) fn kill_tree(child: &mut Child) {
    let below = descendants(child.id());
    let _ = child.kill();
    for pid in below {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = child.wait();
}

/// The last lines of a text, as one line for an error message.
pub(crate) fn last_lines(text: &[u8]) -> String {
    const LINES: usize = 6;
    const BYTES: usize = 800;
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    let clean: Vec<char> = joined.chars().filter(|c| !c.is_control()).collect();
    match clean.is_empty() {
        true => "it said nothing".to_owned(),
        false => clean[clean.len().saturating_sub(BYTES)..].iter().collect(),
    }
}

/// A duration as the kernel wants it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    let tv_sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: duration.subsec_nanos().into() }
}

struct Streams {
    stdout: Stream,
    stderr: Stream,
}

struct Stream {
    source: Option<fs::File>,
    kept: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Streams {
    fn take(child: &mut Child, limit: usize) -> io::Result<Self> {
        let stdout = Stream::new(child.stdout.take().map(OwnedFd::from), limit)?;
        let stderr = Stream::new(child.stderr.take().map(OwnedFd::from), limit)?;
        Ok(Self { stdout, stderr })
    }

    fn drain(&mut self) -> io::Result<()> {
        self.stdout.drain()?;
        self.stderr.drain()
    }

    fn finish(self, status: ExitStatus) -> Finished {
        let truncated = self.stdout.truncated || self.stderr.truncated;
        Finished { status, stdout: self.stdout.kept, stderr: self.stderr.kept, truncated }
    }
}

impl Stream {
    fn new(source: Option<OwnedFd>, limit: usize) -> io::Result<Self> {
        if let Some(fd) = &source {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        }
        let source = source.map(fs::File::from);
        Ok(Self { source, kept: Vec::new(), limit, truncated: false })
    }

    /// Reads what is there, and forgets what is over the limit. Bounded, so that an endless writer
    /// does not hold the deadline up.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0u8; 16 << 10];
        for _ in 0..64 {
            let Some(source) = &mut self.source else { return Ok(()) };
            match source.read(&mut buffer) {
                Ok(0) => self.source = None,
                Ok(len) => {
                    let room = self.limit.saturating_sub(self.kept.len());
                    self.truncated |= len > room;
                    self.kept.extend_from_slice(&buffer[..len.min(room)]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn wait_end(
    child: &mut Child,
    streams: &mut Streams,
    until: Instant,
) -> io::Result<Option<ExitStatus>> {
    let pidfd = pidfd_of(child)?;
    loop {
        // The order matters: what it wrote before its end is there once its end is known.
        let ended = child.try_wait()?;
        streams.drain()?;
        if ended.is_some() {
            return Ok(ended);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        let sources = [&streams.stdout.source, &streams.stderr.source];
        fds.extend(sources.into_iter().flatten().map(|s| PollFd::new(s, PollFlags::IN)));
        poll_some(&mut fds, left)?;
    }
}

fn poll_some(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    match poll(fds, Some(&timespec(timeout))) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    debug_assert!(rustix::io::fcntl_getfd(pidfd.as_fd()).is_ok());
    Ok(pidfd)
}

/// Every process below one, from `/proc/<pid>/stat`, whose fourth field is the parent (proc(5)).
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The second field is the name in parentheses and may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let parent = after_name.split_whitespace().nth(1).and_then(|p| p.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (parent, pid)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(p, _)| *p == parent).map(|(_, pid)| *pid));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_captured_up_to_the_limit() {
        let done = run(sh("echo out; echo err >&2; exit 3"), "sh", SOON, 100).unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        assert!(!done.truncated);
        let done = run(sh("head -c 3000000 /dev/zero"), "sh", SOON, 100).unwrap();
        assert_eq!(done.stdout.len(), 100);
        assert!(done.truncated);
    }

    #[test]
    fn what_overruns_its_deadline_is_killed_with_its_children() {
        let begun = Instant::now();
        let script = "echo hanging >&2; sleep 98765 & sleep 98765; true";
        let result = run(sh(script), "sh", Duration::from_millis(200), 100);
        assert!(matches!(result, Err(RuntimeError::Timeout { last_lines, .. })
            if last_lines == "hanging"));
        assert!(begun.elapsed() < SOON);
        assert!(descendants(std::process::id()).iter().all(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !line.starts_with(b"sleep\x0098765")
        }));
    }

    #[test]
    fn a_daemon_left_behind_holds_up_nobody() {
        let begun = Instant::now();
        let done = run(sh("sleep 3 & echo up"), "sh", SOON, 100).unwrap();
        assert_eq!(done.stdout, b"up\n");
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_missing_program_is_named() {
        let result = run(Command::new("/no/such/tool"), "tool", SOON, 1);
        assert!(matches!(result, Err(RuntimeError::MissingTool { tool, .. })
            if tool == "/no/such/tool"));
    }

    #[test]
    fn last_lines_are_one_clean_line() {
        assert_eq!(last_lines(b"a\n\n b\x1b[0m\n"), "a | b[0m");
        assert_eq!(last_lines(b""), "it said nothing");
    }

    const SOON: Duration = Duration::from_secs(10);
}
