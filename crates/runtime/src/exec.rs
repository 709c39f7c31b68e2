//! Programs run inside a running container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::RuntimeError;

/// What to run inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// The program and its arguments; not empty.
    pub command: Vec<String>,
    /// Added to a minimal environment (`PATH`, `HOME`, `container=lxc`).
    pub env: BTreeMap<String, String>,
    /// Give it a terminal of this size instead of pipes; standard error then comes with output.
    pub terminal: Option<TermSize>,
}

/// A terminal's size, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStatus {
    /// It called `exit` with this status; 126 and 127 also mean that it could not be run.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

/// A finished program's end and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub status: ExecStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// More was written than was kept.
    pub truncated: bool,
}

impl ExecOutput {
    /// How much of each stream is kept.
    pub const LIMIT_BYTES: usize = 1 << 20;
}

/// A running program: its streams (blocking pipe ends, or one terminal) and its handle. Dropping
/// it kills the program.
pub struct ExecSession {
    /// Closing it is the program's end of input.
    pub stdin: Option<OwnedFd>,
    /// Its output; with a terminal, all of it. A terminal's end reads as `EIO`.
    pub stdout: Option<OwnedFd>,
    /// Its errors; `None` with a terminal.
    pub stderr: Option<OwnedFd>,
    /// Waits for it, kills it.
    pub child: Box<dyn ExecChild>,
}

/// The handle of a running program. Dropping it kills the program.
pub trait ExecChild: Send {
    /// Waits for its end, at most `timeout`; `None` if it still runs then.
    fn wait(&mut self, timeout: Duration) -> Result<Option<ExecStatus>, RuntimeError>;

    /// Kills it. Nothing happens if it has ended.
    fn kill(&mut self);

    /// Tells a program with a terminal that the terminal's size changed.
    fn resize(&mut self, size: TermSize) -> Result<(), RuntimeError>;
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession")
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}
